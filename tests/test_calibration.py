"""The calibration: kept side by side, fitted only where it holds, and turned into the time of a sweep."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from orchestrator import measured
from orchestrator.bottleneck import judge
from orchestrator.calibration import (
    FILE_NAME,
    Calibration,
    CalibrationError,
    Conditions,
    Measurement,
    Rate,
    add_to_calibration,
    calibration_for,
    read_calibration,
)
from orchestrator.cli import main
from orchestrator.estimate import estimate
from orchestrator.launch_plan import LaunchOptions, plan_launch
from orchestrator.measured import MeasuredSpeeds, speeds_for
from orchestrator.slots import Hardware
from orchestrator.storage import open_storage
from search_spaces.catalog import load_space
from search_spaces.memory import evaluated_samples, trained_samples
from search_spaces.runs import Run, expand
from search_spaces.shapes import Shape
from search_spaces.spec import SearchSpace
from workers import device_names

H100 = "NVIDIA H100 80GB HBM3"
ONE = Shape(processes=1, cpus=12, gpus=1)
ON_ONE_GPU = "resources.gpus_per_worker=1"
BOX = Hardware(cpus=96, gpus=8, memory_bytes_per_cpu=8e9)


def rate(speed: float) -> Rate:
    return Rate(median=speed, min=0.95 * speed, max=1.05 * speed)


def measurement(
    space: SearchSpace,
    width: int,
    *,
    step: float,
    forward: float = 1e9,
    loader: float | None = None,
    both: float | None = None,
    device: str = H100,
    day: str = "2026-11-25",
) -> Measurement:
    return Measurement(
        device=device,
        kind="gpu" if space.resources.gpus_per_worker else "cpu",
        conditions=Conditions.of(expand(space)[0], space.resources),
        width=width,
        measured=day,
        rounds=5,
        step=rate(step),
        forward=rate(forward),
        loader=rate(loader) if loader else None,
        both=rate(both) if both else None,
    )


@pytest.fixture(autouse=True)
def _a_laptop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever these tests run on."""
    monkeypatch.setattr(measured, "gpu_names", set)
    monkeypatch.setattr(measured, "cpu_name", lambda: "A Laptop's CPU")


@pytest.fixture
def imagenet() -> SearchSpace:
    return load_space("imagenet-grid", ["resources.gpus_per_worker=1"])


def run_of(space: SearchSpace, width: int) -> Run:
    return next(run for run in expand(space) if run.width == width)


def test_devices_and_spaces_stand_side_by_side_and_a_new_measurement_replaces_its_predecessor(
    imagenet: SearchSpace, tmp_path: Path
) -> None:
    digits = load_space("digits-grid")
    first = [
        measurement(imagenet, 64, step=1000),
        measurement(imagenet, 64, step=2000, device="NVIDIA H200"),
        measurement(imagenet, 32, step=3000),
        measurement(digits, 8, step=4000, device="A Laptop's CPU"),
    ]
    for one in first:
        path = add_to_calibration(tmp_path / "data", [one])
    again = measurement(imagenet, 64, step=1500, day="2026-11-26")
    add_to_calibration(tmp_path / "data", [again])
    kept = read_calibration(path)
    assert sorted(one.step.median for one in kept) == [1500, 2000, 3000, 4000]
    assert [entry.name for entry in (tmp_path / "data").iterdir()] == [FILE_NAME]
    assert json.loads(path.read_text())["schema_version"] == 1


@pytest.mark.parametrize(
    "content", ["", "{", '{"schema_version": 2, "measurements": []}', '{"schema_version": 1, "measurements": [{}]}']
)
def test_a_file_that_cannot_be_read_is_told_if_named_and_otherwise_done_without(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / FILE_NAME).write_text(content)
    with pytest.raises(CalibrationError, match=r"calibration\.json is damaged.*Delete it.*bench-worker"):
        calibration_for(tmp_path / "elsewhere", tmp_path / FILE_NAME)
    with pytest.raises(CalibrationError, match="damaged"):
        add_to_calibration(tmp_path, [])
    assert (tmp_path / FILE_NAME).read_text() == content
    for _ in range(2):
        assert calibration_for(tmp_path, None) == Calibration()
    assert capsys.readouterr().err.count("Estimated without measured speeds") == 1


def test_a_named_file_has_to_be_there_and_that_of_the_data_folder_need_not(tmp_path: Path) -> None:
    assert calibration_for(tmp_path, None) == Calibration()
    with pytest.raises(CalibrationError, match=r"copied\.json cannot be read: No such file.*copy"):
        calibration_for(tmp_path, tmp_path / "copied.json")


def test_only_the_very_conditions_fit(imagenet: SearchSpace) -> None:
    calibration = Calibration((measurement(imagenet, 64, step=1000),))
    assert speeds_for(calibration, expand(imagenet), imagenet.resources)
    for change in (
        "recipe.precision=fp32",
        "recipe.batch_size=512",
        "recipe.augmentation=none",
        "dataset.resolution=160",
        "architecture=resnet18",
        "resources.gpus_per_worker=0",
        "resources.compile=true",
    ):
        other = load_space("imagenet-grid", ["resources.gpus_per_worker=1", change])
        assert speeds_for(calibration, expand(other), other.resources) is None, change
    mixture = load_space("gmm-grid")
    assert speeds_for(calibration, expand(mixture), mixture.resources) is None
    assert speeds_for(calibration, [], imagenet.resources) is None
    shares = load_space("imagenet-grid", ["resources.gpus_per_worker=0.5"])
    assert speeds_for(calibration, expand(shares), shares.resources)


def test_only_devices_of_this_machine_fit_unless_the_runs_go_elsewhere(
    imagenet: SearchSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = measurement(imagenet, 64, step=1000)
    newer = measurement(imagenet, 64, step=2000, device="NVIDIA H200", day="2026-11-26")
    calibration = Calibration((older, newer))
    runs = expand(imagenet)

    def chosen(calibration: Calibration, elsewhere: bool = False) -> Measurement | None:
        speeds = speeds_for(calibration, runs, imagenet.resources, elsewhere=elsewhere)
        return speeds.measurements[0] if speeds else None

    assert chosen(calibration) == newer  # no GPU here: that which was measured last
    monkeypatch.setattr(measured, "gpu_names", lambda: {H100})
    assert chosen(calibration) == older
    monkeypatch.setattr(measured, "gpu_names", lambda: {"NVIDIA A100-SXM4-80GB"})
    assert chosen(calibration) is None
    assert chosen(calibration, elsewhere=True) == newer
    assert chosen(Calibration(calibration.measurements, named=True)) == newer

    digits = load_space("digits-grid")
    other_cpu = (measurement(digits, 8, step=1000, device="A Server's CPU"),)
    assert speeds_for(Calibration(other_cpu), expand(digits), digits.resources) is None
    assert speeds_for(Calibration(other_cpu, named=True), expand(digits), digits.resources)
    threads = load_space("digits-grid", ["resources.cpus_per_worker=2"])  # on a CPU they are torch's too
    assert speeds_for(Calibration(other_cpu, named=True), expand(threads), threads.resources) is None


def test_a_run_takes_its_samples_over_the_speed_of_loading_and_training_together(imagenet: SearchSpace) -> None:
    run = run_of(imagenet, 64)
    speeds = MeasuredSpeeds((measurement(imagenet, 64, step=2000, forward=6000, loader=1000, both=900),))
    expected = trained_samples(run) / 900 + evaluated_samples(run) / 1000
    assert speeds.seconds(run, ONE) == pytest.approx(expected)
    assert speeds.seconds(run, replace(ONE, processes=4)) == pytest.approx(expected / 4)
    without_data = MeasuredSpeeds((measurement(imagenet, 64, step=2000, forward=6000),))
    alone = trained_samples(run) / 2000 + evaluated_samples(run) / 6000
    assert without_data.seconds(run, ONE) == pytest.approx(alone)


@pytest.mark.parametrize(
    ("both", "pack_size", "images_per_second"),
    [
        (1000, 2, 2000),  # all of the step hidden behind loading: a pack of two costs no more than one
        (1000, 4, 2000),  # and from there on the steps take the time
        (1 / (1 / 1000 + 1 / 2000), 2, 1000),  # nothing hidden: the stream is paid once a pack
    ],
)
def test_runs_of_a_pack_share_the_stream(
    both: float, pack_size: int, images_per_second: float, imagenet: SearchSpace
) -> None:
    run = run_of(imagenet, 64)
    speeds = MeasuredSpeeds((measurement(imagenet, 64, step=2000, loader=1000, both=both),))
    evaluating = evaluated_samples(run) / 1000 / pack_size
    assert speeds.seconds(run, ONE, pack_size) == pytest.approx(trained_samples(run) / images_per_second + evaluating)


def test_a_pack_takes_less_by_what_it_was_measured_to_gain(imagenet: SearchSpace) -> None:
    run = run_of(imagenet, 64)
    measured_ = measurement(imagenet, 64, step=2000, forward=6000).model_copy(update={"pack_size": 5, "pack_gain": 3.0})
    speeds = MeasuredSpeeds((measured_,))
    alone = speeds.seconds(run, ONE, 1)
    for pack_size, gain in ((1, 1.0), (2, 1.5), (5, 3.0), (9, 3.0)):
        assert speeds.seconds(run, ONE, pack_size) == pytest.approx(alone / gain)
    assert speeds.seconds(run, replace(ONE, processes=2), 5) == pytest.approx(
        alone / 2
    )  # several processes do not fuse


def test_a_share_of_a_gpu_trains_at_that_share_of_its_speed_and_loads_as_fast_as_ever(imagenet: SearchSpace) -> None:
    run = run_of(imagenet, 64)
    speeds = MeasuredSpeeds((measurement(imagenet, 64, step=2000, loader=1000, both=1000),))
    loading = evaluated_samples(run) / 1000
    assert speeds.seconds(run, replace(ONE, gpus=0.5)) == pytest.approx(trained_samples(run) / 1000 + loading)
    assert speeds.seconds(run, replace(ONE, gpus=0.25)) == pytest.approx(trained_samples(run) / 500 + loading)


def test_other_widths_are_scaled_from_the_nearest_and_told(imagenet: SearchSpace) -> None:
    measurements = {width: measurement(imagenet, width, step=64_000 / width) for width in (16, 64)}
    speeds = MeasuredSpeeds(tuple(measurements.values()))
    assert speeds.nearest(run_of(imagenet, 24), ONE) == measurements[16]
    assert speeds.nearest(run_of(imagenet, 96), ONE) == measurements[64]
    at_64, at_96 = (speeds.seconds(run_of(imagenet, width), ONE) for width in (64, 96))
    assert at_96 / at_64 == pytest.approx((96 / 64) ** 2, rel=0.05)
    basis = speeds.basis((run_of(imagenet, width), ONE) for width in (16, 64, 96, 24))
    assert basis == (
        f"measured on {H100} on 2026-11-25, n=5; scaled by arithmetic from the nearest width for 24, 96; "
        "the step alone: loading was not measured"
    )
    for shape, words in ((replace(ONE, gpus=0.25), "a share of a GPU"), (replace(ONE, processes=2), "several proc")):
        assert words in speeds.basis([(run_of(imagenet, 64), shape)])


def test_loading_on_a_gpu_machine_goes_with_the_threads_that_a_worker_has(imagenet: SearchSpace) -> None:
    run = run_of(imagenet, 64)
    taken = []
    for threads, images_per_second in ((12, 1200), (6, 700)):
        space = load_space("imagenet-grid", [ON_ONE_GPU, f"resources.cpus_per_worker={threads}"])
        taken.append(measurement(space, 64, step=9000, loader=images_per_second, both=images_per_second))
    speeds = speeds_for(Calibration(tuple(taken)), [run], imagenet.resources)
    assert speeds is not None
    samples = trained_samples(run) + evaluated_samples(run)
    for cpus, images_per_second in ((12, 1200), (6, 700), (24, 2400), (3, 350)):
        assert speeds.seconds(run, replace(ONE, cpus=cpus)) == pytest.approx(samples / images_per_second)
    assert "proportion to threads" in speeds.basis([(run, replace(ONE, cpus=24))])
    assert "proportion" not in speeds.basis([(run, ONE)])


def test_finished_runs_come_before_measured_speeds_which_come_before_published_ones(imagenet: SearchSpace) -> None:
    runs = [run for run in expand(imagenet) if run.width == 64]
    speeds = MeasuredSpeeds((measurement(imagenet, 64, step=2000, loader=1000, both=1000),))
    published = estimate(runs, [], slots=1, resources=imagenet.resources)
    by_speed = estimate(runs, [], slots=1, resources=imagenet.resources, speeds=speeds)
    finished = estimate(runs[1:], [(runs[0], 5000.0)], slots=1, resources=imagenet.resources, speeds=speeds)
    assert "A100" in published.basis
    assert by_speed.basis.startswith(f"measured on {H100}")
    assert by_speed.unscaled_seconds == published.slot_seconds
    assert by_speed.gpu_hours == pytest.approx(by_speed.slot_seconds / 3600)
    first, *rest = (speeds.seconds(run, ONE) for run in runs)
    assert by_speed.slot_seconds == pytest.approx(first + sum(rest))
    assert finished.slot_seconds == pytest.approx(5000 * sum(rest) / first)
    assert finished.gpu_hours == pytest.approx(finished.slot_seconds / 3600)
    two = imagenet.resources.model_copy(update={"gpus_per_worker": 2})
    several = estimate(runs, [], slots=1, resources=two, speeds=speeds)
    assert several.gpu_hours == pytest.approx(by_speed.gpu_hours)
    assert several.slot_seconds == pytest.approx(by_speed.slot_seconds / 2)
    assert finished.basis.startswith(f"1 finished runs of this sweep, scaled by speeds measured on {H100}")


def test_packs_of_a_plan_count_in_its_estimate(imagenet: SearchSpace, tmp_path: Path) -> None:
    copied = tmp_path / "from-the-cluster.json"
    add_to_calibration(tmp_path, [measurement(imagenet, 64, step=8000, loader=1000, both=1000)])
    (tmp_path / FILE_NAME).rename(copied)

    def planned(*overrides: str) -> float:
        space = load_space("imagenet-grid", ["resources.gpus_per_worker=1", "widths=[64]", *overrides])
        options = LaunchOptions(open_storage(tmp_path / "sweeps"), "one", tmp_path, calibration=copied)
        made = plan_launch(space, options, BOX)
        assert made.estimate.basis == f"measured on {H100} on 2026-11-25, n=5"
        return made.estimate.slot_seconds

    assert planned("packing=off") == pytest.approx(4 * planned("packing=4"))


def test_the_plan_prints_the_basis_and_gpu_hours(imagenet: SearchSpace, tmp_path: Path) -> None:
    path = add_to_calibration(tmp_path / "data", [measurement(imagenet, 64, step=2000, loader=3000, both=2000)])
    command = ["plan", "imagenet-grid", "--set", "resources.gpus_per_worker=1", "--storage", str(tmp_path / "sweeps")]
    text = CliRunner().invoke(main, [*command, "--calibration", str(path)])
    assert text.exit_code == 0, text.output
    assert "GPU-hours" in text.stdout
    assert f"measured on {H100} on 2026-11-25, n=5" in text.stdout
    document: dict[str, Any] = json.loads(CliRunner().invoke(main, [*command, "--json"]).stdout)
    told = document["estimate"]
    assert told["gpu_hours"] == pytest.approx(told["slot_seconds"] / 3600)
    assert "A100" in told["basis"]
    missing = CliRunner().invoke(main, [*command, "--calibration", str(tmp_path / "none.json")])
    assert missing.exit_code == 2
    assert "none.json" in missing.stderr


def test_a_plan_from_measured_speeds_imports_neither_torch_nor_ray(imagenet: SearchSpace, tmp_path: Path) -> None:
    path = add_to_calibration(tmp_path, [measurement(imagenet, 64, step=2000)])
    arguments = ["plan", "imagenet-grid", "--calibration", str(path), "--storage", str(tmp_path / "sweeps")]
    code = (
        "import sys\nfrom orchestrator.cli import main\n"
        f"try: main({arguments!r})\nexcept SystemExit: pass\n"
        "print('LOADED', *{name.split('.')[0] for name in sys.modules})"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert f"measured on {H100}" in result.stdout
    assert not set(result.stdout.splitlines()[-1].split()) & {"torch", "ray"}


def test_the_plan_finds_the_file_in_the_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, imagenet: SearchSpace
) -> None:
    add_to_calibration(tmp_path / "data", [measurement(imagenet, 64, step=2000)])
    monkeypatch.setenv("BO_SWEEP_DATA", str(tmp_path / "data"))
    command = ["plan", "imagenet-grid", "--set", "resources.gpus_per_worker=1", "--storage", str(tmp_path / "sweeps")]
    assert f"measured on {H100}" in CliRunner().invoke(main, command).stdout
    (tmp_path / "data" / FILE_NAME).write_text("broken")
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0
    assert "A100" in result.stdout


def test_the_names_of_processors_are_read_without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(2):
        folder = tmp_path / "gpus" / f"0000:0{number}:00.0"
        folder.mkdir(parents=True)
        (folder / "information").write_text(f"Model: \t\t {H100}\nIRQ:   \t\t 42\n")
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nmodel name\t: Other\n")
    monkeypatch.setattr(device_names, "GPU_FOLDERS", tmp_path / "gpus")
    monkeypatch.setattr(device_names, "CPU_INFO", tmp_path / "cpuinfo")
    assert device_names.gpu_names() == {H100}
    assert device_names.cpu_name() == "Some CPU @ 2 GHz"
    monkeypatch.setattr(device_names, "GPU_FOLDERS", tmp_path / "none")
    monkeypatch.setattr(device_names, "CPU_INFO", tmp_path / "none")
    assert device_names.gpu_names() == set()
    assert device_names.cpu_name()


@dataclass(frozen=True)
class Case:
    """Speeds, and what is to be said about them."""

    loader: float | None
    step: float
    slower: str | None
    says: tuple[str, ...]
    overrides: tuple[str, ...] = ()
    pack_size: int = 1
    cpus: float = 64
    jpegs: bool = False


@pytest.mark.parametrize(
    "case",
    [
        Case(None, 2000, None, ("imagenet is not in the data folder", "prepare imagenet --source SOURCE --out data")),
        Case(1000, 2000, "loader", ("resources.cpus_per_worker=24", "now 12")),
        Case(1000, 2000, "loader", ("cpus_per_worker=16", "24 would keep up"), cpus=16),
        Case(1000, 2000, "loader", ("more or faster CPUs",), cpus=12),
        Case(
            1000,
            2000,
            "loader",
            ("prepare imagenet --source SOURCE --out OTHER --raw 400", "up to 639 GB"),
            jpegs=True,
        ),
        Case(1000, 2000, "loader", ("packing=auto",), overrides=("packing=off",)),
        Case(1000, 2000, "loader", ("nothing: a pack of 2",), pack_size=2),
        Case(1000, 3000, "loader", ("packs of 2", "would need 3"), pack_size=2),
        Case(9000, 2000, "step", ("more GPUs",)),
        Case(9000, 2000, "step", ("recipe.precision=bf16",), overrides=("recipe.precision=fp32",)),
        Case(9000, 2000, "step", ("gpus_per_worker=1",), overrides=("resources.gpus_per_worker=0.5",)),
        Case(9000, 200, "step", ("gpus_per_worker=0.25",)),
        Case(9000, 20, "step", ("cpus_per_worker=1", "more CPUs"), overrides=("resources.gpus_per_worker=0",)),
    ],
)
def test_the_slower_of_loading_and_training_is_named_with_what_to_change(case: Case) -> None:
    space = load_space("imagenet-grid", ["resources.gpus_per_worker=1", *case.overrides])
    taken = measurement(space, 64, step=case.step, loader=case.loader, both=case.loader)
    advice = judge(
        taken,
        space,
        run_of(space, 64),
        data_folder=Path("data"),
        pack_size=case.pack_size,
        cpus=case.cpus,
        jpegs=case.jpegs,
    )
    assert advice.slower == case.slower
    for part in case.says:
        assert part in " ".join(advice.steps)


def test_speeds_that_vary_widely_are_told(imagenet: SearchSpace) -> None:
    steady = measurement(imagenet, 64, step=2000, loader=9000, both=2000)
    shaky = steady.model_copy(update={"step": Rate(median=2000, min=1500, max=2100)})
    for taken, told in ((steady, False), (shaky, True)):
        advice = judge(
            taken, imagenet, run_of(imagenet, 64), data_folder=Path("data"), pack_size=1, cpus=64, jpegs=False
        )
        assert ("rounds differ by over 25%" in " ".join(advice.steps)) == told
