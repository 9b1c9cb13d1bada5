"""Profiles of clusters: found, changed on the command line, told what is wrong with them; and `k8s render`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from orchestrator.commands.k8s.group import k8s
from orchestrator.commands.k8s.options import ClusterChoice, ConnectionChoice
from orchestrator.k8s.profiles import EXAMPLE, ProfileError, load_profile, profile_names, profiles_file
from orchestrator.k8s.rendering.manifests import render
from search_spaces.explain import apply_override
from tests.cluster_profiles import GPU_NODES, IMAGE, environment_of, launch

FILE: dict[str, Any] = {
    "default": "lab",
    "clusters": {
        "lab": {"image": IMAGE, "namespace": "sweeps", "context": "lab-context", "results": {"claim": "results"}},
        "gpus": {
            "image": IMAGE,
            "workers": GPU_NODES,
            "results": {"url": "s3://bucket/sweeps"},
            "data": {"claim": "datasets"},
        },
        "wrong": {"imag": IMAGE, "workers": {"gpu": 8, "memory": "lots"}, "results": {"claim": "a", "url": "s3://b"}},
    },
}


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of profiles, which the environment names."""
    path = tmp_path / "clusters.yaml"
    path.write_text(yaml.safe_dump(FILE))
    monkeypatch.setenv("BO_SWEEP_CLUSTERS", str(path))
    return path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(k8s, list(arguments))


# Finding and changing


def test_the_file_is_where_the_environment_says_or_in_the_configuration_folder(
    file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert profiles_file() == file
    monkeypatch.delenv("BO_SWEEP_CLUSTERS")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "configuration"))
    assert profiles_file() == tmp_path / "configuration" / "bo-sweep" / "clusters.yaml"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert profiles_file() == tmp_path / ".config" / "bo-sweep" / "clusters.yaml"
    assert profile_names() == []


def test_a_profile_is_chosen_by_name_by_default_or_as_the_only_one(file: Path) -> None:
    assert load_profile().namespace == "sweeps"
    assert load_profile("gpus").workers.gpus == 8
    assert profile_names() == ["gpus", "lab", "wrong"]
    file.write_text(yaml.safe_dump({"clusters": {"only": FILE["clusters"]["gpus"]}}))
    assert load_profile().workers.gpus == 8
    file.write_text(yaml.safe_dump({"clusters": {"a": {}, "b": {}}}))
    with pytest.raises(ProfileError, match=r"has no `default`: choose one with --profile. There are: a, b"):
        load_profile()


def test_the_command_line_goes_before_the_file() -> None:
    changed = load_profile(
        "gpus", ["workers.cpus=32", "labels={team: a}", "results.url=gs://other"], nodes=5, namespace="mine", image=None
    )
    assert (changed.workers.cpus, changed.workers.nodes, changed.workers.gpus) == (32, 5, 8)
    assert (changed.namespace, changed.image, changed.results.url) == ("mine", IMAGE, "gs://other")
    assert changed.labels == {"team": "a"}
    assert load_profile("gpus").workers.nodes == 2


def test_without_a_file_the_command_line_may_say_it_all(file: Path) -> None:
    file.unlink()
    made = load_profile(None, ["results.claim=r"], image=IMAGE, nodes=3, gpus_per_node=1)
    assert (made.workers.nodes, made.workers.gpus, made.results.claim) == (3, 1, "r")
    with pytest.raises(ProfileError) as refused:
        load_profile()
    message = str(refused.value)
    assert "image: Field required" in message
    assert "results: Field required" in message
    assert f"Write {file}, for example:" in message
    with pytest.raises(ProfileError, match=r"there is no profile 'lab', since there is no file"):
        load_profile("lab")
    example = yaml.safe_load(EXAMPLE.replace("sha256:...", f"sha256:{'0' * 64}"))
    file.write_text(yaml.safe_dump(example))
    assert load_profile().workers.gpus == 8  # the example is a good one


# What is wrong


def test_all_problems_of_a_profile_come_with_keys_and_what_is_allowed(file: Path) -> None:
    with pytest.raises(ProfileError) as refused:
        load_profile("wrong")
    message = str(refused.value)
    assert message.startswith(f"profile wrong in {file}: 5 problems\n")
    for part in (
        "image: Field required",
        "imag: unknown key. Did you mean 'image'?",
        "workers.gpu: unknown key. Did you mean 'gpus'? Allowed here: nodes, gpus, cpus,",
        "workers.memory: 'lots' is no quantity",
        "results: results: give either `claim`",
    ):
        assert part in message
    assert load_profile("lab").namespace == "sweeps"  # a wrong profile does not block the others


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ((["lab2"], {}), ["has no profile 'lab2'. Did you mean 'lab'?", "gpus, lab, wrong"]),
        ((["lab", ["workers.cpus"]], {}), ["--cluster-set 'workers.cpus': must be key=value", "workers.cpus=32"]),
        ((["lab", ["namespace.a=b"]], {}), ["'namespace' is a value, not a section"]),
        ((["lab", ["workers.cpus=[1"]], {}), ["is not valid YAML"]),
        ((["lab", ["workers.cpu=1"]], {}), ["workers.cpu: unknown key. Did you mean 'cpus'?"]),
        ((["lab"], {"image": "registry.example.org/bo-sweep:latest"}), ["is not pinned", "unpinned_image: true"]),
        ((["lab", ["env={A_TOKEN: x}"]], {}), ["env holds A_TOKEN"]),
        ((["lab", ["env={A-B: x}"]], {}), ["env.A-B"]),
        ((["lab", ["spot={}"]], {}), ["spot: give node_selector or tolerations"]),
        ((["lab", ["workers.tolerations=[{key: a, operator: Exist}]"]], {}), ["workers.tolerations.0.operator"]),
        ((["lab", ["workers.tolerations=[{kay: a}]"]], {}), ["tolerations.0.kay: unknown key. Did you mean 'key'?"]),
        ((["lab", ["pre_running_deadline=8d"]], {}), ["must be shorter than active_deadline 7d"]),
        ((["lab"], {"gpus_per_node": -1}), ["workers.gpus", "-1"]),
        ((["lab", ["workers.gpus=yes"]], {}), ["workers.gpus: true where a number should be: write for example 4"]),
        ((["lab", ["workers.object_store_gb=on"]], {}), ["workers.object_store_gb: true where a number should be"]),
        ((["lab", ["retries=no"]], {}), ["retries: false where a number should be"]),
        (
            (["lab", ["workers.node_selector={a: true}"]], {}),
            ["workers.node_selector.a", 'no text in YAML: write "true"'],
        ),
        ((["lab", ["env={NCCL_NTHREADS: 256}"]], {}), ["env.NCCL_NTHREADS", 'write "256"']),
        ((["lab", ["workers.node_selector.kubernetes.io/os=linux"]], {}), ["keys with dots are given within braces"]),
        ((["lab", ["workers.memory=500m"]], {}), ["workers.memory: '500m' is no quantity of Kubernetes for bytes"]),
        ((["lab", ["workers.memory='16'"]], {}), ["workers.memory: '16' is 16 bytes: write for example 900Gi"]),
        ((["lab", ["head.memory=256Mi"]], {}), ["head.memory: 256Mi is too little", "2Gi or more"]),
        ((["lab", ["active_deadline=90000d"]], {}), ["active_deadline: '90000d' is longer", "24855d"]),
        ((["lab", ["labels={ray.io/cluster: a, app.kubernetes.io/name: b}"]], {}), ["ray.io/cluster, app.kubernetes"]),
        ((["lab", ["labels={kueue.x-k8s.io/queue-name: q}"]], {}), ["labels: kueue.x-k8s.io/queue-name", "`queue`"]),
        ((["lab"], {"image": "Registry/Sweeps:a"}), ["'Registry/Sweeps:a': must be a name in small letters"]),
        ((["lab"], {"image": "a/b@sha256:123"}), ["must be a name", "64 hex digits"]),
        ((["lab"], {"image": "https://a/b:c"}), ["must be a name"]),
        (
            (["gpus", ["results.url=s3://KEY:VALUE@b/c"]], {}),
            ["results.url must be s3://", "keys are in results.secret"],
        ),
        (
            (["gpus", ["results.endpoint=http://KEY:VALUE@m:9000"]], {}),
            ["endpoint must be", "keys are in results.secret"],
        ),
        ((["gpus", ["results={url: 'gs://b', secret: s}"]], {}), ["results.secret go with s3://", "annotations"]),
        ((["lab", ["results.claim=a..b"]], {}), ["results.claim: 'a..b' must hold only a-z 0-9 - ., starting"]),
        ((["lab"], {"namespace": "My_Sweeps"}), ["namespace: 'My_Sweeps' must hold only a-z 0-9 -, starting"]),
        ((["lab", ["ray_version=latest"]], {}), ["ray_version: 'latest' must be a version such as 2.60.0"]),
        ((["lab", ["wandb={secret: a, key: b c}"]], {}), ["wandb.key: 'b c' must be a key of a secret"]),
        ((["gpus", ["data={host_path: /a/../b}"]], {}), ["data.host_path must be an absolute path without .."]),
        (
            (["lab", ["workers.tolerations=[{key: a, operator: Exists, tolerationSeconds: 5}]"]], {}),
            ["workers.tolerations.0", "tolerationSeconds goes with effect NoExecute"],
        ),
        ((["lab", ["workers.tolerations=[{key: a b, value: c}]"]], {}), ["tolerations.0", "'a b' is no key"]),
    ],
)
def test_bad_values_get_one_message(arguments: tuple[list[Any], dict[str, Any]], parts: list[str]) -> None:
    positional, given = arguments
    with pytest.raises(ProfileError) as refused:
        load_profile(*positional, **given)
    for part in parts:
        assert part in str(refused.value)
    assert "VALUE" not in str(refused.value)


@pytest.mark.parametrize("image", ["bo-sweep:dev", "localhost:5000/bo-sweep:dev", "a.example.org/b_c/d--e:0.1.0_x"])
def test_names_of_images_are_taken(image: str) -> None:
    assert load_profile("lab", ["unpinned_image=true"], image=image).image == image
    assert load_profile("lab", image=f"{image}@sha256:{'0' * 64}").image.startswith(image)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("clusters: [a", "not valid YAML"),
        ("clusters: {a: {}, b: {}, a: {}}", "the key 'a' stands twice"),
        ("- a", "must be a mapping with `clusters`"),
        ("clusters: {}", "clusters: Dictionary should have at least 1 item"),
        ("cluster: {a: {}}", "cluster: unknown key. Did you mean 'clusters'?"),
        ("default: nobody\nclusters: {a: {}}", "no profile 'nobody' (its `default`)"),
    ],
)
def test_a_bad_file_is_told(text: str, part: str, file: Path) -> None:
    file.write_text(text)
    with pytest.raises(ProfileError) as refused:
        load_profile()
    assert part in str(refused.value)
    assert str(file) in str(refused.value)


def test_profiles_may_build_on_one_another(file: Path) -> None:
    base = f"&base {{image: '{IMAGE}', results: {{claim: r}}, retries: 1}}"
    file.write_text(f"clusters:\n  a: {base}\n  b: &next {{<<: *base, retries: 2}}\n  c: {{<<: *next, retries: 3}}")
    assert [load_profile(name).retries for name in "abc"] == [1, 2, 3]


def test_an_override_changes_only_its_own_key() -> None:
    data = {"a": {"b": 1, "c": 2}}
    assert apply_override(data, "a.b=[1, 2]", "--set", "a.b=1") is None
    assert apply_override(data, "d.e=x", "--set", "a.b=1") is None
    assert data == {"a": {"b": [1, 2], "c": 2}, "d": {"e": "x"}}


# How to reach a cluster


def test_a_connection_comes_from_the_command_line_the_profile_or_kubectl(file: Path, tmp_path: Path) -> None:
    there = ConnectionChoice(kubeconfig=tmp_path / "k").connection()
    assert (there.kubeconfig, there.context, there.namespace) == (tmp_path / "k", "lab-context", "sweeps")
    there = ConnectionChoice("gpus", None, "other", "elsewhere").connection()
    assert (there.context, there.namespace) == ("other", "elsewhere")
    file.unlink()
    there = ConnectionChoice(context="c").connection()
    assert (there.kubeconfig, there.context, there.namespace) == (None, "c", None)  # the rest is kubectl's
    assert ConnectionChoice().load() is None
    with pytest.raises(ProfileError):
        ConnectionChoice("lab").load()


def test_a_choice_knows_what_was_given() -> None:
    assert ClusterChoice().given == []
    assert ClusterChoice(profile="a", gpus_per_node=0, settings=("a=b",)).given == [
        ("--profile", "a"),
        ("--gpus-per-node", "0"),
        ("--cluster-set", "a=b"),
    ]


# bo-sweep k8s render


def test_render_prints_yaml_alone_on_stdout() -> None:
    result = run("render", "digits-grid", "--seeds", "2", "--nodes", "3")
    assert result.exit_code == 0
    asked = launch("digits-grid", "seeds=2")
    assert result.stdout == render(asked, load_profile("lab", nodes=3)).yaml()
    setup, job = (run("render", "digits-grid", "--only", part).stdout for part in ("setup", "job"))
    assert setup + job == run("render", "digits-grid").stdout
    assert [one["kind"] for one in yaml.safe_load_all(job)] == ["ConfigMap", "RayJob"]


def test_render_names_the_launch_of_the_same_sweep_on_the_same_cluster() -> None:
    asked = ("--set", "recipe.epochs=2", "--seeds", "2", "--name", "mine", "--profile", "lab", "--nodes", "3")
    result = run("render", "digits-grid", *asked, "--cluster-set", "labels={team: a}")
    assert (
        result.stderr.splitlines()[-1]
        .strip()
        .startswith(
            "bo-sweep launch digits-grid --name mine --set recipe.epochs=2 --seeds 2 --on k8s --profile lab --nodes 3 "
            "--cluster-set 'labels={team: a}' --dry-run=server"
        )
    )


def test_wandb_is_asked_for_by_an_option_and_its_key_is_named_by_the_profile() -> None:
    result = run("render", "digits-grid", "--wandb", "--cluster-set", "wandb={secret: wandb, key: api-key}")
    rayjob = list(yaml.safe_load_all(result.stdout))[-1]
    assert rayjob["spec"]["entrypoint"].endswith(" --as-job --wandb")
    head = rayjob["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    key = {"secretKeyRef": {"name": "wandb", "key": "api-key"}}
    assert environment_of(head)["WANDB_API_KEY"] == key
    assert "Note" not in result.stderr


def test_notes_go_to_stderr_and_into_json() -> None:
    result = run("render", "digits-grid", "--profile", "gpus")
    assert "Note: digits-grid trains on CPUs" in result.stderr
    assert "Note" not in result.stdout
    document = json.loads(run("render", "digits-grid", "--profile", "gpus", "--json", "--only", "job").stdout)
    assert document["schema_version"] == 1
    assert document["name"].startswith("digits-grid-")
    assert [one["kind"] for one in document["manifests"]] == ["ConfigMap", "RayJob"]
    assert len(document["notes"]) == 1


def test_what_a_launch_is_asked_comes_through_render() -> None:
    result = run(
        *("render", "digits-grid", "--name", "mine", "--workers", "3", "--retry-failed", "--max-wall", "2h"),
        *("--refine", "err_last=0.2", "--budget", "9", "--no-figures", "--cells", "width<8", "--reuse", "a"),
    )
    rayjob = list(yaml.safe_load_all(result.stdout))[-1]
    assert rayjob["spec"]["entrypoint"] == (
        "exec bo-sweep launch /etc/bo-sweep/space.yaml --storage /results --name mine --data /data --address auto "
        "--workers 3 --max-wall 2h --refine err_last=0.2 --budget 9 --as-job --retry-failed --no-figures --reuse a"
    )
    assert "BO_SWEEP_CELLS" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["digit-grid"], ["Did you mean 'digits-grid'?"]),
        (["digits-grid", "--profile", "nowhere"], ["no profile 'nowhere'"]),
        (["digits-grid", "--name", "9a", "--cells", "widht=1"], ["2 problems", "'sweep-9a'", "'widht'"]),
        (["digits-grid", "--image", "a:b"], ["is not pinned"]),
        (["imagenet-grid"], ["data.claim", "--gpus-per-node"]),
        (["digits-grid", "--nodes", "0"], ["--nodes"]),
        (["digits-grid", "--budget", "3", "--precision", "0.1"], ["--budget and --precision: only with --refine"]),
    ],
)
def test_refusals_print_one_message_and_nothing_on_stdout(arguments: list[str], parts: list[str]) -> None:
    result = run("render", *arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    for part in parts:
        assert part in result.stderr
    assert "Traceback" not in result.stderr


def test_render_imports_neither_torch_nor_ray_nor_the_client(file: Path) -> None:
    code = (
        "import sys\nfrom orchestrator.commands.k8s.group import k8s\n"
        "try: k8s(['render', 'digits-grid'])\nexcept SystemExit: pass\n"
        "print('LOADED', *sorted({name.split('.')[0] for name in sys.modules}))"
    )
    environment = os.environ | {"BO_SWEEP_CLUSTERS": str(file)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert "kind: RayJob" in done.stdout
    assert not set(done.stdout.splitlines()[-1].split()) & {"torch", "ray", "kubernetes", "polars", "matplotlib"}
