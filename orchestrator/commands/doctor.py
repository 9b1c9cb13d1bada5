"""`bo-sweep doctor`: is everything here that a sweep needs?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.commands.options import (
    INFRASTRUCTURE,
    again,
    complete_spaces,
    data_option,
    default_data_folder,
    json_option,
    load,
    sweep_options,
    user_errors,
)

if TYPE_CHECKING:
    from orchestrator.doctor import Check


@click.command()
@click.argument("space", required=False, shell_complete=complete_spaces)
@sweep_options
@data_option
@click.option("--address", envvar="RAY_ADDRESS", help="Address of a running Ray cluster that is to be used.")
@json_option
def doctor(space: str | None, storage: str, data_folder: Path | None, address: str | None, as_json: bool) -> None:
    """Check Python, packages, GPUs, betons, storage, Ray, W&B and Kubernetes, and say what to do.

    With a search space the betons of its data set have to be there. Exits with 4 if anything failed.

    \b
    Example:  bo-sweep doctor cifar10-grid --storage s3://bucket/sweeps
    """
    from orchestrator.console import LOG, print_next
    from orchestrator.doctor import examine

    with user_errors():
        dataset = load(space, (), None).dataset.name if space else None
    with LOG.status("checking") as line:
        checks = examine(
            storage,
            data_folder or default_data_folder(),
            dataset=dataset,
            address=address,
            tell=lambda name: line.update(f"checking {name}"),
        )
    if not all_well(checks, as_json):
        raise SystemExit(INFRASTRUCTURE)
    print_next(again("launch", space or "digits-grid", storage))


def all_well(checks: list[Check], as_json: bool) -> bool:
    """Print what a doctor found, and tell whether nothing failed."""
    from orchestrator.console import LOG, RESULTS, print_json
    from orchestrator.doctor import document, has_failed, view

    if as_json:
        print_json(document(checks))
    else:
        RESULTS.print(view(checks))
    if has_failed(checks):
        LOG.print("\nMend what failed, as its line says, and run the same command again.")
        return False
    return True
