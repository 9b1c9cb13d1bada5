"""What is submitted to Kubernetes: strictly valid, without rights, the same bytes every time, all that was asked."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from orchestrator.commands.options import choice_options
from orchestrator.k8s.names import of_product, of_sweep
from orchestrator.k8s.rendering.entrypoint import MEANINGS, entry_point, word_problem
from orchestrator.k8s.rendering.manifests import RenderError, render, to_yaml
from orchestrator.k8s.rendering.mounts import Mounts
from orchestrator.k8s.rendering.pods import reader_pod_spec
from orchestrator.k8s.rendering.refusals import refusals
from orchestrator.k8s.rendering.space_files import MOST_NOISE_BYTES
from search_spaces.catalog import builtin_names, load_space, validate_space
from search_spaces.runs import expand
from search_spaces.selectors import parse_selector
from tests.cluster_profiles import (
    DATA,
    GPU_NODES,
    ON_CPUS,
    PROFILES,
    by_kind,
    container_of,
    environment_of,
    gpu_profile,
    launch,
    pods_of,
    profile,
    rayjob_of,
    rendered,
)
from tests.kubernetes_schemas import needs_crds, pod_templates, restricted_problems, schema_problems

ROOT = Path(__file__).resolve().parent.parent


# Valid, and let in


@needs_crds
@pytest.mark.parametrize("kind", PROFILES)
def test_every_space_on_every_kind_of_cluster_is_strictly_valid_and_not_refused(kind: str) -> None:
    overrides = ON_CPUS if kind == "many CPUs" else ()
    for number, name in enumerate(builtin_names()):
        made = render(launch(name, *overrides), PROFILES[kind])
        assert refusals(rayjob_of(made)) == []
        found = made.all if number == 0 else made.job  # the setup is the same for all
        assert [problem for one in found if one["kind"] != "PodMonitor" for problem in schema_problems(one)] == []


@needs_crds
def test_the_strict_schemas_would_find_a_field_too_many_at_any_depth() -> None:
    made = rayjob_of(rendered())
    assert schema_problems(made) == []
    made["spec"]["rayClusterSpec"]["headGroupSpec"]["replica"] = 1
    pod_templates(made)[2]["spec"]["containers"][0]["resourcess"] = {}
    made["metadata"]["nam"] = "x"
    made["spec"]["backoffLimit"] = "2"
    found = "\n".join(schema_problems(made))
    for part in ("replica", "resourcess", "'nam'", "'2' is not of type 'integer'"):
        assert part in found


@pytest.mark.parametrize("kind", PROFILES)
def test_all_pods_are_restricted_but_for_a_host_path(kind: str) -> None:
    chosen = PROFILES[kind]
    pods = pods_of(render(launch("imagenet-grid", *(ON_CPUS if kind == "many CPUs" else ())), chosen))
    if chosen.results.claim:
        pods["reader"] = reader_pod_spec(chosen, ["python"], Mounts())
    assert pods.keys() >= {"submitter", "head", "worker"}
    for component, pod in pods.items():
        on_host = chosen.data is not None and chosen.data.host_path and component in ("head", "worker")
        assert restricted_problems(pod) == (["volume hostPath"] if on_host else []), component
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        assert pod["securityContext"] == {
            "runAsNonRoot": True,
            "runAsUser": 1000,
            "runAsGroup": 1000,
            "fsGroup": 1000,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        assert pod["serviceAccountName"] == chosen.service_account
        assert container_of(pod)["image"] == chosen.image
        assert container_of(pod)["imagePullPolicy"] == "IfNotPresent"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda pod: pod["securityContext"].pop("runAsNonRoot"), "runAsNonRoot"),
        (lambda pod: pod["securityContext"].pop("seccompProfile"), "seccompProfile"),
        (lambda pod: pod.update(hostNetwork=True), "hostNetwork"),
        (lambda pod: container_of(pod)["securityContext"].update(privileged=True), "privileged"),
        (lambda pod: container_of(pod)["securityContext"].pop("allowPrivilegeEscalation"), "allowPrivilegeEscalation"),
        (lambda pod: container_of(pod)["securityContext"].pop("capabilities"), "capabilities"),
        (lambda pod: container_of(pod)["ports"][0].update(hostPort=1), "hostPort"),
    ],
)
def test_the_check_of_restricted_would_find(change: Any, problem: str) -> None:
    pod = pods_of(rendered())["head"]
    change(pod)
    (found,) = restricted_problems(pod)
    assert problem in found


# The same bytes


def test_two_processes_with_other_hash_seeds_print_the_same_bytes_and_import_neither_torch_nor_ray() -> None:
    code = (
        "import sys\nfrom orchestrator.k8s.rendering.manifests import render\n"
        "from tests.cluster_profiles import PROFILES, launch\n"
        "print(render(launch('imagenet-grid', cells=('width<16', 'noise_rate>=0.2')), PROFILES['everything']).yaml())\n"
        "print('LOADED', *sorted({name.split('.')[0] for name in sys.modules}))"
    )
    printed = []
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        )
        printed.append(done.stdout.rpartition("LOADED")[0])
        assert not set(done.stdout.split("LOADED")[1].split()) & {"torch", "ray", "kubernetes", "polars", "matplotlib"}
    assert printed[0] == printed[1]
    assert printed[0].startswith("---\n")


def test_the_yaml_reads_as_what_it_was_made_from() -> None:
    made = render(launch("imagenet-grid"), PROFILES["everything"])
    assert tuple(yaml.safe_load_all(made.yaml())) == made.all
    assert "&id" not in made.yaml()
    assert "space.yaml: |" in made.yaml()


def test_texts_that_kubectl_would_take_for_numbers_or_truth_stand_in_quotes() -> None:
    texts = ["y", "N", "0089", "0_8", "1e5", "-1_0.5E-3", ".5e3", "0o17"]
    assert to_yaml([{"env": texts}]).splitlines()[2:] == [f"- '{text}'" for text in texts]
    plain = ["2.60.0", "7e2ee802", "yy", "1Gi", "0o9"]
    assert to_yaml([{"env": plain}]).splitlines()[2:] == [f"- {text}" for text in plain]


@pytest.mark.parametrize("name", builtin_names())
def test_the_space_in_the_config_map_is_the_same_space(name: str) -> None:
    made = render(launch(name), PROFILES["gpus"])
    text = by_kind(made)["ConfigMap"]["data"]["space.yaml"]
    assert validate_space(yaml.safe_load(text), "the ConfigMap") == load_space(name)


def test_a_changed_spec_gets_a_new_name_and_the_same_spec_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    first = rendered()
    assert first.name == rendered().name
    assert rayjob_of(first)["metadata"]["name"] == by_kind(first)["ConfigMap"]["metadata"]["name"] == first.name
    assert len(first.name) == len("digits-grid-") + 8
    digest = rayjob_of(first)["metadata"]["annotations"]["bo-sweep/spec-hash"]
    assert first.name == f"digits-grid-{digest[:8]}"
    changed = {
        rendered(image=f"registry.example.org/other@sha256:{'1' * 64}").name,
        rendered(queue="q").name,
        rendered(labels={"team": "a"}).name,
        rendered(retries=3).name,
        rendered("digits-grid", "seeds=4").name,
        render(launch(cells=("width=2",)), profile()).name,
        render(launch(signature="ValueError at x.py:f", retry_failed=True), profile()).name,
        first.name,
    }
    assert len(changed) == 8
    elsewhere = {rendered(namespace="other").name, rendered(context="c").name, rendered(pod_monitor=True).name}
    assert elsewhere == {first.name}
    monkeypatch.setattr("orchestrator.k8s.names.version", lambda name: "9.9+local")
    newer = rendered()
    assert newer.name == first.name  # another bo-sweep attaches to what this one submitted
    assert rayjob_of(newer)["metadata"]["labels"]["app.kubernetes.io/version"] == "9.9_local"
    assert "9.9" not in json.dumps(rayjob_of(newer)["spec"])


def test_names_in_the_golden_case_stay() -> None:
    """A change of it is a change of what is submitted: sweeps that run would not be found by the same launch."""
    fixed = profile(ray_version="2.60.0")
    assert render(launch(), fixed).name == "digits-grid-8e8631a4"


def test_labels_tell_whose_it_is_everywhere() -> None:
    made = render(launch(), profile(queue="sweeps", labels={"cost-center": "42"}, submitters={"users": ["ada"]}))
    own = {
        "app.kubernetes.io/name": "bo-sweep",
        "app.kubernetes.io/instance": "digits-grid",
        "app.kubernetes.io/managed-by": "bo-sweep",
        "app.kubernetes.io/version": version("bo-sweep"),
        "cost-center": "42",
    }
    config, rayjob = made.job
    assert config["metadata"]["labels"] == own
    assert rayjob["metadata"]["labels"] == own | {"kueue.x-k8s.io/queue-name": "sweeps"}
    assert all(one["metadata"]["namespace"] == "sweeps" for one in made.all)
    for template in pod_templates(rayjob):
        labels = template["metadata"]["labels"]
        assert labels.pop("app.kubernetes.io/component") in ("submitter", "head", "worker")
        assert labels == {key: value for key, value in own.items() if not key.endswith("version")}
    for one in made.setup:
        assert "app.kubernetes.io/instance" not in one["metadata"]["labels"]
        assert one["metadata"]["labels"]["app.kubernetes.io/name"] == "bo-sweep"
    assert of_sweep("digits-grid") == "app.kubernetes.io/name=bo-sweep,app.kubernetes.io/instance=digits-grid"
    assert of_product() == "app.kubernetes.io/name=bo-sweep,app.kubernetes.io/managed-by=bo-sweep"


# What was asked


def test_what_was_asked_travels_in_one_simple_command() -> None:
    asked = launch(
        sweep="mine",
        workers=4,
        retry_failed=True,
        max_gpu_hours=None,
        max_wall="1h30m",
        max_runs=7,
        reuse=("older", "oldest"),
        refine="err_last=0.2",
        budget=60,
        precision=0.1,
        figures=False,
    )
    command = rayjob_of(render(asked, profile()))["spec"]["entrypoint"]
    words = command.split(" ")
    assert words == shlex.split(command)
    assert words[:4] == ["exec", "bo-sweep", "launch", "/etc/bo-sweep/space.yaml"]
    for pair in (
        *("--name mine", "--workers 4", "--max-wall 1h30m", "--max-runs 7", "--reuse older", "--reuse oldest"),
        *("--refine err_last=0.2", "--budget 60", "--precision 0.1", "--address auto"),
    ):
        assert pair in command
    assert {"--as-job", "--retry-failed", "--no-figures"} <= set(words)


def test_cells_and_a_signature_travel_in_the_environment_and_arrive_as_they_were() -> None:
    cells = ("noise_rate>=0.2  ratio<10", "width = 32")
    asked = launch(cells=cells, retry_failed=True, signature="RuntimeError at a.py:<f> $(HOME)")
    made = render(asked, profile())
    assert not {"--cells", "--signature"} & set(rayjob_of(made)["spec"]["entrypoint"].split())
    assert by_kind(made)["ConfigMap"]["data"] == by_kind(rendered())["ConfigMap"]["data"]
    given = environment_of(pods_of(made)["head"])
    assert given["BO_SWEEP_SIGNATURE"] == "RuntimeError at a.py:<f> $$(HOME)"  # which the kubelet reads as $(HOME)
    assert "BO_SWEEP_SIGNATURE" not in environment_of(pods_of(made)["worker"])

    @click.command()
    @choice_options
    def arrived(**options: Any) -> None:
        click.echo(json.dumps(options))

    variables = {name: str(given[name]).replace("$$", "$") for name in ("BO_SWEEP_CELLS", "BO_SWEEP_SIGNATURE")}
    options = json.loads(CliRunner().invoke(arrived, [], env=variables).output)
    assert list(map(parse_selector, options["cells"])) == list(map(parse_selector, cells))
    assert options["signature"] == asked.signature


def test_bash_gives_the_entry_point_back_as_it_is() -> None:
    command, problems = entry_point(["launch", "a/b.yaml", "--refine", "err_last=0.2", "--name", "x_1@%+:,"])
    assert problems == []
    echoed = subprocess.run(
        ["bash", "-c", f"printf '%s\\n' {command}"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert echoed == command.split(" ")


@pytest.mark.parametrize("character", [*MEANINGS, "ü"])
def test_what_bash_would_change_is_refused_by_name(character: str) -> None:
    _, (problem,) = entry_point(["launch", "--name", f"a{character}b"])
    assert problem.startswith(f"--name {f'a{character}b'!r} cannot stand")
    assert repr(character) in word_problem(f"a{character}b")


def test_a_noise_file_travels_along_and_runs_keep_their_ids(tmp_path: Path) -> None:
    labels = tmp_path / "my labels" / "noisy.npy"
    labels.parent.mkdir()
    np.save(labels, np.zeros(700, np.uint8))
    asked = launch("digits-grid", f"noise={{model: file, file: '{labels}', rates: [0.1, 0.3]}}")
    made = render(asked, profile())
    config = by_kind(made)["ConfigMap"]
    assert base64.b64decode(config["binaryData"]["noisy.npy"]) == labels.read_bytes()
    there = validate_space(yaml.safe_load(config["data"]["space.yaml"]), "the ConfigMap")
    assert there.noise.file == "/etc/bo-sweep/noisy.npy"
    assert there.noise.file_sha256 == hashlib.sha256(labels.read_bytes()).hexdigest()
    assert [run.run_id for run in expand(there)] == [run.run_id for run in expand(asked.space)]
    assert str(tmp_path) not in made.yaml()
    np.save(labels, np.ones(700, np.uint8))
    with pytest.raises(RenderError, match="has changed since"):
        render(asked, profile())
    labels.unlink()
    with pytest.raises(RenderError, match="cannot be read"):
        render(asked, profile())


def test_a_noise_file_that_is_too_large_or_badly_named_is_refused(tmp_path: Path) -> None:
    labels = tmp_path / "läbels.npy"
    np.save(labels, np.zeros(MOST_NOISE_BYTES, np.uint8))
    with pytest.raises(RenderError) as refused:
        render(launch("digits-grid", f"noise={{model: file, file: '{labels}', rates: [0.1]}}"), profile())
    assert "2 problems" in str(refused.value)
    assert "rename it" in str(refused.value)
    assert "bytes; up to 524,288 travel" in str(refused.value)


# Whether the nodes can hold it


def test_what_nodes_cannot_hold_is_told_with_what_to_change() -> None:
    with pytest.raises(RenderError) as refused:
        render(launch("imagenet-grid"), profile(data=DATA))
    for part in (
        "1 GPU and 12 CPUs",
        "1 node with 4 CPUs and 0 GPUs",
        "--gpus-per-node",
        "resources.cpus_per_worker=4",
    ):
        assert part in str(refused.value)
    one_gpu = gpu_profile(workers=GPU_NODES | {"nodes": 1, "gpus": 1})
    with pytest.raises(RenderError, match=r"2 processes of 1 GPU and 12 CPUs .* width 96; .* give 2 nodes"):
        render(launch("imagenet-grid"), one_gpu)
    render(launch("imagenet-grid"), gpu_profile(workers=GPU_NODES | {"gpus": 1}))  # over two nodes it goes
    with pytest.raises(RenderError, match=r"for width 4000; .*workers\.memory"):
        render(launch("digits-grid", "widths=[2, 4000]"), profile())
    render(launch("digits-grid", "widths=[2, 1200]", workers=1), profile(workers={"cpus": 8}))
    with pytest.raises(RenderError, match="width 1200"):
        render(launch("digits-grid", "widths=[2, 1200]"), profile(workers={"cpus": 8}))


def test_what_will_stand_idle_is_noted() -> None:
    enough = render(launch("imagenet-grid"), gpu_profile())
    assert enough.notes == ()
    (note,) = render(launch("imagenet-grid"), gpu_profile(workers=GPU_NODES | {"cpus": 64})).notes
    assert "64 CPUs of a node feed 5 of its 8 GPUs" in note
    assert "resources.cpus_per_worker=8" in note
    (note,) = render(launch(wandb=True), profile()).notes
    assert "bo-sweep wandb publish digits-grid" in note
    assert render(launch(wandb=True), profile(wandb={"secret": "wandb", "key": "k"})).notes == ()
    (note,) = render(launch("digits-grid"), gpu_profile()).notes
    assert "8 GPUs of each node will stand idle" in note


def test_all_problems_come_in_one_message() -> None:
    asked = launch(
        sweep="9-Sweep",
        cells=("widht=2",),
        max_wall="soon",
        max_gpu_hours=3.0,
        refine="nothing=1",
        reuse=("a;b",),
    )
    chosen = profile(
        labels={"team": "a b"},
        env={"RAY_REDIS_ADDRESS": "redis:6379", "RAY_AUTH_MODE": "disabled"},
        ray_version="2.40.0",
        workers={"node_selector": {"a/b/c": "x"}, "gpus": 1, "gpu_product": "NVIDIA H100"},
        service_account_annotations={"a role": "x"},
    )
    with pytest.raises(RenderError) as refused:
        render(asked, chosen)
    message = str(refused.value)
    for part in (
        *("'9-Sweep'", "'sweep-9-sweep'", "'widht'", "'soon'", "'nothing", "--reuse 'a;b'", "team='a b'"),
        *("RAY_REDIS_ADDRESS", "RAY_AUTH_MODE", "needs Ray 2.52", "'a/b/c'", "'NVIDIA H100'", "'a role'"),
    ):
        assert part in message, part
    assert message.startswith("sweep 9-Sweep on Kubernetes: ")
    with pytest.raises(RenderError, match="never be reached"):
        render(launch(max_gpu_hours=3.0), profile())
    with pytest.raises(RenderError, match="38"):
        render(launch(sweep="a" * 39), profile())


def test_contradicting_node_selectors_are_refused() -> None:
    spot = {"node_selector": {"pool": "spot"}}
    with pytest.raises(RenderError, match=r"spot.node_selector asks for nodes with pool=spot, workers.node_selector"):
        render(launch(), profile(workers={"node_selector": {"pool": "big"}}, spot=spot))
