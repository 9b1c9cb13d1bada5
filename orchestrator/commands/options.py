"""What commands share: options, exit codes, and how errors of the library are told."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from orchestrator.ledger import Ledger
    from orchestrator.storage import Storage
    from search_spaces.spec import SearchSpace

Command = TypeVar("Command", bound=Callable[..., Any])

SOME_RUNS_FAILED, USAGE, STOPPED, INFRASTRUCTURE = 1, 2, 3, 4
DEFAULT_STORAGE = "sweeps"


class Failure(click.ClickException):
    """An error for the user, with the exit code that tells its kind."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        vars(self)["exit_code"] = exit_code


@contextmanager
def user_errors() -> Iterator[None]:
    """Turn the library's errors into one message and an exit code; anything else is a bug and shows its trace."""
    from orchestrator.lease import LeaseHeldError
    from orchestrator.ledger import LedgerError
    from orchestrator.storage import StorageError

    try:
        yield
    except (StorageError, ConnectionError, LeaseHeldError) as error:
        raise Failure(str(error), INFRASTRUCTURE) from error
    except (LedgerError, ValueError) as error:
        infrastructure = type(error).__name__ == "BetonError"  # its module would import numba
        raise Failure(str(error), INFRASTRUCTURE if infrastructure else USAGE) from error


def default_data_folder() -> Path:
    """Where betons are: $BO_SWEEP_DATA, or the user's cache folder."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("BO_SWEEP_DATA") or Path(cache) / "bo-sweep")


def all_of(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one decorator; help shows them in this order."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def complete_spaces(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    from search_spaces.catalog import builtin_names

    return [name for name in builtin_names() if name.startswith(incomplete)]


space_options = all_of(
    click.argument("space", shell_complete=complete_spaces),
    click.option(
        "--set", "overrides", metavar="KEY=VALUE", multiple=True, help="Override a value, e.g. recipe.epochs=20."
    ),
    click.option("--seeds", type=click.IntRange(min=1), help="Number of seeds, in place of the space's own."),
)
sweep_options = all_of(
    click.option(
        "--storage",
        default=DEFAULT_STORAGE,
        show_default=True,
        envvar="BO_SWEEP_STORAGE",
        help="Where the sweeps are: a folder, s3://bucket/prefix or gs://bucket/prefix.",
    )
)


def _sweep_name(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    from orchestrator.paths import check_sweep_name

    try:
        if value is not None:
            check_sweep_name(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    return value


choice_options = all_of(
    click.option("--name", callback=_sweep_name, help="Name of the sweep; by default that of its space."),
    click.option("--workers", type=click.IntRange(min=1), help="At most this many worker processes."),
    click.option("--retry-failed", is_flag=True, help="Run failed runs again."),
    click.option(
        "--signature",
        envvar="BO_SWEEP_SIGNATURE",
        help="With --retry-failed: only those that failed with this signature.",
    ),
    click.option(
        "--cells",
        "cells",
        metavar="CONDITIONS",
        multiple=True,
        envvar="BO_SWEEP_CELLS",
        help='Run these cells first, e.g. "noise_rate>=0.2 ratio<10". Repeatable, first named first.',
    ),
    click.option(
        "--gpus-per-run",
        type=click.FloatRange(min=0),
        help="Train every run on a share of a GPU (0.25), one, or several; 0 for none.  [default: the space's own]",
    ),
)
"""What a launch runs first, again, and on what."""
launch_options = all_of(
    choice_options,
    click.option(
        "--calibration",
        type=click.Path(path_type=Path, dir_okay=False),
        help="File of bo-sweep bench-worker for the estimate.  [default: calibration.json in the data folder]",
    ),
)
budget_options = all_of(
    click.option("--max-gpu-hours", type=click.FloatRange(min=0, min_open=True), help="Stop after so many GPU-hours."),
    click.option("--max-wall", metavar="TIME", help="Stop after this time, e.g. 90s, 30m, 1.5h, 2d."),
    click.option("--max-runs", type=click.IntRange(min=1), help="Train at most so many runs."),
    click.option(
        "--reuse", metavar="SWEEP", multiple=True, help="Take over finished runs of another sweep. Repeatable."
    ),
    click.option("--refine", metavar="TARGET", help="Place cells beside the grid near a level, e.g. err_last=0.2."),
    click.option(
        "--budget", type=click.IntRange(min=1), help="With --refine: most runs beside the grid, in all launches."
    ),
    click.option(
        "--precision",
        type=float,
        help="With --refine: half width of the 90 % band in log p/n.  [default: 0.05]",
    ),
    click.option("--figures/--no-figures", default=True, help="Draw at the end, or leave it to bo-sweep phase."),
    click.option("--wandb", is_flag=True, help="Publish to Weights & Biases beside it."),
)
"""Where a launch ends, what it adds, and what it draws."""
data_option = click.option(
    "--data",
    "data_folder",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="BO_SWEEP_DATA",
    help="Folder with the betons.  [default: the user's cache folder]",
)
wandb_options = all_of(
    click.option("--entity", help="User or team on W&B.  [default: $WANDB_ENTITY, or that of the key]"),
    click.option("--project", help="Project on W&B.  [default: $WANDB_PROJECT, or bo-sweep]"),
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")


def load(space: str, overrides: tuple[str, ...], seeds: int | None) -> SearchSpace:
    """The space that a command line names."""
    from search_spaces.catalog import load_space

    return load_space(space, (*overrides, f"seeds={seeds}") if seeds else overrides)


def with_gpus(overrides: tuple[str, ...], gpus_per_run: float | None) -> tuple[str, ...]:
    """The overrides, with --gpus-per-run among them."""
    return overrides if gpus_per_run is None else (*overrides, f"resources.gpus_per_worker={gpus_per_run:g}")


def storage_at(url: str) -> Storage:
    """The storage that --storage names."""
    from orchestrator.storage import open_storage

    return open_storage(url)


def sweep_at(storage: str, name: str) -> Ledger:
    """The ledger of a sweep that is there."""
    from orchestrator.ledger import open_ledger

    return open_ledger(storage_at(storage), name)


def again(
    command: str,
    subject: str,
    storage: str,
    name: str | None = None,
    overrides: tuple[str, ...] = (),
    seeds: int | None = None,
) -> str:
    """The command line that addresses the same sweep."""
    parts = ["bo-sweep", command, subject]
    parts += ["--storage", storage] if storage != DEFAULT_STORAGE else []
    parts += ["--name", name] if name else []
    parts += [part for override in overrides for part in ("--set", override)]
    parts += ["--seeds", str(seeds)] if seeds else []
    return shlex.join(parts)
