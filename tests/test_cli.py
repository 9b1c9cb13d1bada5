"""The command line's contract: results on stdout, words on stderr, exit codes, and errors that help."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from orchestrator.cli import main
from orchestrator.failures import failure_of
from orchestrator.ledger import Ledger, Manifest
from search_spaces.catalog import builtin_names, load_space
from search_spaces.runs import expand
from tests.test_ledger import settle


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def all_commands(group: click.Command, path: tuple[str, ...] = ()) -> list[tuple[str, click.Command]]:
    found = [(" ".join(path), group)] if path else []
    if isinstance(group, click.Group):
        for name, command in group.commands.items():
            found += all_commands(command, (*path, name))
    return found


@pytest.mark.parametrize(("path", "command"), all_commands(main))
def test_every_command_has_one_line_of_help_and_an_example_of_itself(path: str, command: click.Command) -> None:
    text = command.help or ""
    assert text.splitlines()[0].endswith((".", ":"))
    assert "Example:" in text
    assert f"bo-sweep {path}" in text
    for option in command.params:
        if isinstance(option, click.Option):
            assert option.help, f"{path}: {option.name} has no help"


@pytest.mark.parametrize(("path", "command"), [("", main), *all_commands(main)])
def test_no_command_has_an_option_twice(path: str, command: click.Command) -> None:
    parameters = command.get_params(click.Context(command))
    spellings = Counter(word for parameter in parameters for word in (*parameter.opts, *parameter.secondary_opts))
    names = Counter(parameter.name for parameter in parameters)
    assert {word: count for word, count in {**spellings, **names}.items() if count > 1} == {}


def test_version_and_completion() -> None:
    assert run("--version").output.startswith("bo-sweep, version 0.")
    assert "_BO_SWEEP_COMPLETE" in run("completion", "bash").output


def test_spaces_are_listed_and_shown() -> None:
    document = json.loads(run("spaces", "list", "--json").stdout)
    assert document["schema_version"] == 1
    assert [space["name"] for space in document["spaces"]] == builtin_names()
    assert "widths:" in run("spaces", "show", "digits-grid").stdout
    assert "digits-grid" in run("spaces", "list").stdout


def test_the_plan_as_json_has_counts_cells_packs_and_an_estimate_with_its_basis(tmp_path: Path) -> None:
    result = run("plan", "imagenet-grid", "--storage", tmp_path, "--json")
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert document["schema_version"] == 1
    assert document["runs"] == {"total": 28, "new": 28, "done": 0, "diverged": 0, "failed": 0}
    cell = next(cell for cell in document["cells"] if cell["width"] == 64)
    assert (cell["parameters"], cell["samples"]) == (25_557_032, 1_281_167)
    assert cell["ratio"] == pytest.approx(19.948, abs=1e-3)
    assert sum(len(pack["run_ids"]) for pack in document["packs"]) == 28
    assert document["estimate"]["wall_seconds"] > 3600
    assert "A100" in document["estimate"]["basis"]
    assert list(tmp_path.iterdir()) == []


def test_the_plan_for_people_names_p_n_and_ratio(tmp_path: Path) -> None:
    output = run("plan", "cifar10-grid", "--storage", tmp_path).stdout
    for part in ("11,173,962", "50,000", "223.5", "packs", "Estimate:", "Basis:"):
        assert part in output


def test_the_packs_of_a_plan_stand_in_the_order_of_launch(tmp_path: Path) -> None:
    arguments = ["plan", "digits-grid", "--storage", str(tmp_path), "--cells", "width=12", "--packs"]
    document = json.loads(run(*arguments, "--json").stdout)
    packs = document["packs"]
    assert [pack["width"] for pack in packs[:4]] == [12, 12, 12, 32]
    assert packs[0].keys() == {
        *("pack_id", "run_ids", "width", "parameters", "samples", "ratio", "seeds", "noise_rates", "seconds")
    }
    assert (packs[0]["parameters"], packs[0]["samples"], packs[0]["ratio"]) == (11_230, 500, 22.46)
    assert [pack["seeds"] for pack in packs[:4]] == [[0], [1], [2], [0]]
    assert packs[0]["noise_rates"] == [0.0, 0.2, 0.4]
    assert [len(pack["run_ids"]) for pack in packs] == [3] * 21
    assert sum(pack["seconds"] for pack in packs) == pytest.approx(document["estimate"]["slot_seconds"])
    lines = run(*arguments).stdout.splitlines()
    header = next(number for number, line in enumerate(lines) if line.startswith("pack "))
    assert lines[header].split() == ["pack", "runs", "width", "n", "p/n", "seeds", "noise", "time"]
    assert [line.split()[0] for line in lines[header + 1 : header + 22]] == [pack["pack_id"] for pack in packs]
    assert lines[header + 1].split()[1:9] == ["3", "12", "500", "22.46", "0", "0", "0.2", "0.4"]


def test_a_complete_plan_has_no_packs_to_list(tmp_path: Path) -> None:
    space = load_space("digits-grid")
    ledger = Ledger(tmp_path / "digits-grid")
    ledger.write_manifest(Manifest("digits-grid", space, 1, "2026-01-01"))
    settle(ledger, *expand(space))
    output = run("plan", "digits-grid", "--storage", tmp_path, "--packs").stdout
    assert output.rstrip().endswith("Nothing to train.")


@pytest.mark.parametrize(
    ("arguments", "exit_code", "parts"),
    [
        (["launch", "digit-grid"], 2, ["Did you mean 'digits-grid'?"]),
        (["launch", "digits-grid", "--set", "noise.rates=[1.5]"], 2, ["noise.rates.0", "1.5"]),
        (["launch", "digits-grid", "--set", "recipe.lr=1", "--set", "foo=2"], 2, ["2 problems", "recipe.lr", "foo"]),
        (["launch", "digits-grid", "--set", "widths=null", "--set", "ratios=[0.5]"], 2, ["p/n 0.5", "off"]),
        (["launch", "digits-grid", "--set", "widths=[50000]"], 2, ["GB"]),
        (["launch", "digits-grid", "--seeds", "0"], 2, ["--seeds"]),
        (["launch", "digits-grid", "--max-gpu-hours", "1"], 2, ["without GPUs", "--max-wall"]),
        (["launch", "digits-grid", "--max-wall", "soon"], 2, ["'soon'", "1.5h"]),
        (["launch", "digits-grid", "--cells", "noize=1"], 2, ["noize", "noise_rate"]),
        (["launch", "digits-grid", "--cells", "width=3"], 2, ["width=3", "2, 4"]),
        (["launch", "digits-grid", "--name", "../other"], 2, ["'../other'", "no slash"]),
        (["launch", "digits-grid", "--name", ".other"], 2, ["no dot in front"]),
        (["status", "digits-grid", "--watch", "--json"], 2, ["leave it or --json out"]),
        (["launch", "digits-grid", "--reuse", "other"], 2, ["no sweep 'other'"]),
        (["verify", "digits-grid"], 2, ["no sweep 'digits-grid'"]),
        (["compact", "digits-grid"], 2, ["no sweep 'digits-grid'"]),
        (["logs", "digits-grid"], 2, ["no sweep 'digits-grid'"]),
        (["reproduce", "digits-grid", "00"], 2, ["no sweep 'digits-grid'"]),
        (["plan"], 2, ["Missing argument"]),
        (["status", "digits-grid"], 2, ["no sweep 'digits-grid'", "bo-sweep launch"]),
        (["phase", "digits-grid"], 2, ["no sweep 'digits-grid'"]),
    ],
)
def test_bad_input_gets_one_message_and_leaves_nothing_behind(
    arguments: list[str], exit_code: int, parts: list[str], tmp_path: Path
) -> None:
    result = run(*arguments, *(("--storage", tmp_path) if arguments[0] != "plan" else ()))
    assert result.exit_code == exit_code
    for part in parts:
        assert part in result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == []


def test_missing_betons_are_told_before_any_worker_starts(tmp_path: Path) -> None:
    space = ["launch", "cifar10-grid", "--set", "resources.gpus_per_worker=0", "--set", "resources.cpus_per_worker=1"]
    result = run(*space, "--storage", tmp_path / "sweeps", "--data", tmp_path / "data")
    assert result.exit_code == 4
    assert "train.beton" in result.stderr
    assert not (tmp_path / "sweeps").exists()


def test_a_gpu_space_on_a_machine_without_gpu_says_what_is_there(tmp_path: Path) -> None:
    result = run("launch", "imagenet-grid", "--storage", tmp_path)
    assert result.exit_code == 2
    assert "GPUs" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_storage_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = run("launch", "digits-grid", "--storage", tmp_path / "file" / "sweeps")
    assert result.exit_code == 4
    assert "cannot be written" in result.stderr


def test_a_dry_run_prints_the_plan_and_writes_nothing(tmp_path: Path) -> None:
    result = run("launch", "digits-grid", "--dry-run", "--json", "--storage", tmp_path)
    assert result.exit_code == 0
    assert json.loads(result.stdout)["to_train"] == 63
    assert list(tmp_path.iterdir()) == []


def test_status_groups_failures_by_cause(tmp_path: Path) -> None:
    space = load_space("digits-grid")
    runs = expand(space)
    ledger = Ledger(tmp_path / "digits-grid")
    ledger.write_manifest(Manifest("digits-grid", space, 3, "2026-01-01"))

    def failure(index: int, message: str) -> dict[str, Any]:
        try:
            raise RuntimeError(message)
        except RuntimeError as error:
            return failure_of(error).end(runs[index], 3)

    settle(ledger, runs[0])
    settle(ledger, runs[3], status="diverged")
    early, late = sorted((1, 2), key=lambda index: runs[index].run_id)
    ledger.write_ends("x", [failure(early, "first"), failure(late, "second")])
    document = json.loads(run("status", "digits-grid", "--storage", tmp_path, "--json").stdout)
    counts = {"done": 1, "running": 0, "waiting": 59, "failed": 2, "diverged": 1, "lost": 0}
    assert document["runs"] == {"total": 63, **counts}
    (group,) = document["failures"]
    assert group["signature"] == "RuntimeError at test_cli.py:failure"
    assert set(group["runs"]) == {runs[1].run_id, runs[2].run_id}
    assert "second" in group["sample"]
    result = run("status", "digits-grid", "--storage", tmp_path)
    assert result.exit_code == 0
    assert "2 failed" in result.stdout
    assert "bo-sweep launch digits-grid" in result.stderr


@pytest.mark.parametrize(("options", "exit_code"), [((), 1), (("--as-job",), 0)])
def test_job_systems_do_not_retry_what_a_retry_cannot_change(
    options: tuple[str, ...], exit_code: int, tmp_path: Path
) -> None:
    runs = expand(load_space("digits-grid"))
    ledger = Ledger(tmp_path / "digits-grid")
    ledger.write_manifest(Manifest("digits-grid", load_space("digits-grid"), 1, "2026-01-01"))
    settle(ledger, *runs[2:])
    settle(ledger, *runs[:2], status="failed")
    result = run("launch", "digits-grid", "--storage", tmp_path, "--no-figures", *options)
    assert result.exit_code == exit_code
    assert "2 runs failed" in result.stderr
    assert ("--retry-failed" in result.stderr) == (not options)


def test_phase_of_a_sweep_without_results_says_how_to_go_on(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "digits-grid")
    ledger.write_manifest(Manifest("digits-grid", load_space("digits-grid"), 1, "2026-01-01"))
    result = run("phase", "digits-grid", "--storage", tmp_path)
    assert result.exit_code == 2
    assert "no finished run yet" in result.stderr
    assert "bo-sweep launch digits-grid" in result.stderr
