"""The doctor: looks at everything that a sweep needs, and says what to do about what is missing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.checks import data, machine, ray_clusters, services, software
from orchestrator.checks.finding import Finding, Status, failed, skipped

if TYPE_CHECKING:
    from rich.table import Table

STYLES: dict[Status, str] = {"ok": "green", "warning": "yellow", "failed": "bold red", "skipped": "dim"}


@dataclass(frozen=True)
class Check:
    """One check: `status` is "ok", "warning", "failed" or "skipped"; `remedy` is '' where all is well."""

    name: str
    status: Status
    found: str
    remedy: str


@dataclass(frozen=True)
class Look:
    """A check to be made. `remedy` is what to do if it ends in an exception."""

    name: str
    make: Callable[[], Finding]
    remedy: str

    def check(self) -> Check:
        """Make it; an exception makes a failed check."""
        try:
            finding = self.make()
        except Exception as error:
            finding = failed(f"{type(error).__name__}: {str(error).strip() or 'no message'}", self.remedy)
        return Check(self.name, finding.status, finding.found, finding.remedy)


def examine(
    storage: str,
    data_folder: Path,
    *,
    dataset: str | None = None,
    address: str | None = None,
    tell: Callable[[str], None] = lambda name: None,
) -> list[Check]:
    """Make all checks, in order; none can stop the next.

    Args:
        storage: path or address of the storage.
        data_folder: where betons are.
        dataset: whose betons must be there; None checks those that are found.
        address: of a Ray cluster; None if a launch starts one here.
        tell: called with the name of each check before it.
    """
    checks = []
    for look in looks(storage, data_folder, dataset, address):
        tell(look.name)
        checks.append(look.check())
    return checks


def has_failed(checks: list[Check]) -> bool:
    """Whether a sweep cannot run like this."""
    return any(check.status == "failed" for check in checks)


def document(checks: list[Check]) -> dict[str, Any]:
    """The checks as JSON has them."""
    return {"healthy": not has_failed(checks), "checks": [vars(check) for check in checks]}


def view(checks: list[Check]) -> Table:
    """The checks as a table; what to do stands under what was found."""
    from rich.table import Table
    from rich.text import Text

    table = Table("check", "status", "found", box=None, padding=(0, 2, 0, 0))
    for check in checks:
        found = Text(check.found)
        if check.remedy:
            found.append(f"\n-> {check.remedy}", style="bold" if check.status in ("warning", "failed") else "dim")
        table.add_row(Text(check.name), Text(check.status, style=STYLES[check.status]), found)
    return table


def looks(storage: str, data_folder: Path, dataset: str | None = None, address: str | None = None) -> list[Look]:
    """All checks that `examine` would make, in order."""
    libraries = (
        "make install; on Debian and Ubuntu FFCV compiles against g++ pkg-config libopencv-dev libturbojpeg0-dev "
        "(apt-get install them), then pip install --force-reinstall --no-cache-dir ffcv"
    )
    first = [
        Look("Python", software.check_python, software.REINSTALL),
        Look("packages", software.check_packages, software.REINSTALL),
        Look("CPUs and memory", machine.check_cpus_and_memory, "look at the container's limits"),
        Look("shared memory", machine.check_shared_memory, "mount /dev/shm"),
        Look("open files", machine.check_open_files, "ulimit -n 65536"),
        Look("torch and GPUs", machine.check_gpus, "nvidia-smi tells whether the GPUs are well; then make install"),
        Look(
            "torchvision",
            software.check_torchvision,
            "install torch and torchvision from the same index: pip install --force-reinstall torch torchvision",
        ),
        Look("FFCV", software.check_ffcv, libraries),
        *_looks_at_betons(data_folder, dataset),
        Look("storage", partial(services.check_storage, storage), "choose another place with --storage"),
        Look("Ray", ray_clusters.check_ray, software.REINSTALL),
    ]
    if address:
        reach = partial(ray_clusters.check_ray_cluster, address)
        cluster = Look("Ray cluster", reach, "give the address that `ray start --head` prints")
    else:
        cluster = Look("Ray on this machine", ray_clusters.check_ray_here, "ray stop")
    return [
        *first,
        cluster,
        Look("Weights & Biases", services.check_wandb, "wandb login, or set WANDB_MODE=offline"),
        Look("Kubernetes", services.check_kubernetes, "not needed unless --on k8s; kubectl version tells more"),
    ]


def _looks_at_betons(folder: Path, dataset: str | None) -> list[Look]:
    remedy = "delete the beton (and its .json) and prepare the data set again, or restore it from a copy"
    names = [dataset] if dataset else data.data_sets_in(folder)
    if names:
        return [Look(f"betons of {name}", partial(data.check_betons, name, folder), remedy) for name in names]
    nothing = skipped(
        f"no beton in {folder}; digits and the Gaussian mixture are made on first use",
        "name the folder that has some with --data, or a search space: bo-sweep doctor cifar10-grid",
    )
    return [Look("betons", lambda: nothing, remedy)]
