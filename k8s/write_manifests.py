"""Writes the YAML of k8s/ that `bo-sweep k8s render` makes: `make manifests`. A test holds that it is up to date.

The base is digits-grid on the profile `dev` of clusters.yaml, the overlay prod is imagenet-grid on the profile `prod`.
What a component brings is left out of both: the objects of networkpolicy and podmonitor stand in their folders, the
queue and the spot nodes are patches there.
"""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

from orchestrator.entry_point import LaunchRequest
from orchestrator.k8s.profile import ClusterProfile
from orchestrator.k8s.profiles import load_profile
from orchestrator.k8s.rendering.manifests import Manifest, Manifests, render, to_yaml
from search_spaces.catalog import load_space

FOLDER = Path(__file__).parent
PROFILES = FOLDER / "clusters.yaml"
OPTIONAL = {"queue": None, "spot": None, "pod_monitor": False}
"""Fields of a profile that components stand for, as they are without."""
COMPONENTS = {"NetworkPolicy": "networkpolicy", "PodMonitor": "podmonitor"}
"""Kinds that are not part of base and overlays, and the component that adds each."""


def rendered(space_name: str, profile: ClusterProfile) -> Manifests:
    """What `bo-sweep k8s render SPACE` makes of a profile."""
    space = load_space(space_name)
    return render(LaunchRequest(space=space, sweep=space.name), profile)


def files() -> dict[Path, str]:
    """The content of each generated file."""
    contents = {}
    for folder, space, name in (
        (FOLDER / "base", "digits-grid", "dev"),
        (FOLDER / "overlays" / "prod", "imagenet-grid", "prod"),
    ):
        profile = load_profile(name, path=PROFILES)
        made = rendered(space, profile.model_copy(update=OPTIONAL))
        given = [key for key, value in OPTIONAL.items() if getattr(profile, key) != value]
        without = "".join(f" --cluster-set {key}={yaml.safe_dump(OPTIONAL[key]).split()[0]}" for key in given)
        command = f"bo-sweep k8s render {space} --profile {name}{without}"
        kept = tuple(one for one in made.setup if one["kind"] not in COMPONENTS)
        contents[folder / "setup.yaml"] = _text(kept, f"{command} --only setup", "without its NetworkPolicy")
        contents[folder / "sweep.yaml"] = _text(made.job, f"{command} --only job")
    dev = load_profile("dev", path=PROFILES)
    for kind, component in COMPONENTS.items():
        watched = kind == "PodMonitor"
        made = rendered("digits-grid", dev.model_copy(update={"pod_monitor": watched}))
        command = "bo-sweep k8s render digits-grid --profile dev" + " --cluster-set pod_monitor=true" * watched
        kept = tuple(one for one in made.setup if one["kind"] == kind)
        contents[FOLDER / "components" / component / f"{component}.yaml"] = _text(
            kept, f"{command} --only setup", f"its {kind} alone"
        )
    return contents


def _text(manifests: tuple[Manifest, ...], command: str, part: str = "") -> str:
    header = "# Made by `make manifests`; do not edit. With BO_SWEEP_CLUSTERS=k8s/clusters.yaml the same is made by\n"
    return f"{header}# {command}{f' ({part})' if part else ''}\n{to_yaml(manifests)}"


if __name__ == "__main__":
    for path, text in files().items():
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(FOLDER.parent), file=sys.stderr)
