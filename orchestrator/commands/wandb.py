"""`bo-sweep wandb`: a sweep in Weights & Biases, written from its ledger."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.commands.options import (
    SOME_RUNS_FAILED,
    STOPPED,
    again,
    json_option,
    sweep_at,
    sweep_options,
    user_errors,
    wandb_options,
)
from orchestrator.commands.wandb_dashboard import dashboard

if TYPE_CHECKING:
    from orchestrator.publishing.outcome import Outcome

MODES = ("auto", "runs", "cells", "summary")


@click.group()
def wandb() -> None:
    """Show a sweep in Weights & Biases; training never waits for it.

    \b
    Example:  bo-sweep wandb publish digits-grid
    """


wandb.add_command(dashboard)


@wandb.command()
@click.argument("sweep")
@sweep_options
@click.option("--follow", is_flag=True, help="Go on while the sweep is launched, and end when all is published.")
@click.option(
    "--mode",
    type=click.Choice(MODES),
    default="auto",
    show_default=True,
    help="One W&B run for each run, for each cell (means over seeds), or for the sweep alone; auto: runs up to 300.",
)
@wandb_options
@click.option("--group", help="Group of all W&B runs.  [default: $WANDB_RUN_GROUP, or their cell]")
@click.option("--tags", help="Tags beside the sweep's name, with commas between.  [default: $WANDB_TAGS]")
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for offline files and the publisher's notes.  [default: wandb in the sweep's folder]",
)
@click.option(
    "--patience",
    type=click.FloatRange(min=0),
    default=300.0,
    show_default=True,
    help="Seconds for which W&B may take nothing; with --follow it is waited for as long as it takes.",
)
@click.option(
    "--priority",
    type=click.Choice(["idle", "normal"]),
    default="idle",
    show_default=True,
    envvar="BO_SWEEP_PUBLISH_PRIORITY",
    help="idle: only when nothing else wants the processor, so that training is not slowed.",
)
@json_option
def publish(
    sweep: str,
    storage: str,
    follow: bool,
    mode: str,
    entity: str | None,
    project: str | None,
    group: str | None,
    tags: str | None,
    folder: Path | None,
    patience: float,
    priority: str,
    as_json: bool,
) -> None:
    """Write a sweep's runs, cells and phase diagram to W&B, from where the last time ended; without a key, to files.

    Exit code 1: W&B refuses some of them for good, as they were deleted there.

    \b
    Example:  bo-sweep wandb publish digits-grid --follow
    """
    from orchestrator.publishing.priority import yield_to_training

    if priority == "idle":
        yield_to_training()  # before Polars counts its threads
    from orchestrator.console import LOG, RESULTS, print_json
    from orchestrator.publishing.folder import Folder, default_folder
    from orchestrator.publishing.publisher import Options, Publisher
    from orchestrator.publishing.stopping import Stopping
    from orchestrator.publishing.target import Target

    stopping = Stopping()
    with user_errors(), stopping.caught():
        given = tuple(tag.strip() for tag in (tags or "").split(",") if tag.strip())
        target = Target.of(entity=entity, project=project, group=group, tags=given)
        ledger = sweep_at(storage, sweep)
        where = Folder(folder or default_folder(ledger.storage))
        options = Options(mode=mode, follow=follow, patience_seconds=patience)
        outcome = Publisher(ledger, target, where, options, lambda line: LOG.print(line, markup=False), stopping).run()
    if as_json:
        print_json(outcome.document())
    else:
        RESULTS.print(outcome.words(), markup=False)
    _print_next(outcome, sweep, storage)
    if outcome.stopped:
        raise SystemExit(STOPPED)
    if outcome.refused:
        raise SystemExit(SOME_RUNS_FAILED)


def _print_next(outcome: Outcome, sweep: str, storage: str) -> None:
    from orchestrator.console import print_next

    command = again("publish", sweep, storage).replace("bo-sweep ", "bo-sweep wandb ", 1)
    commands = [command] if outcome.stopped else []
    if outcome.connection == "offline" and (outcome.written or outcome.there):
        commands.append(f"wandb sync {shlex.quote(str(outcome.folder))}")
    if outcome.connection == "online" and not outcome.stopped:
        commands.append(command.replace("wandb publish", "wandb dashboard"))
    if outcome.connection == "disabled":
        commands.append(f"env -u WANDB_MODE {command}")
    print_next(*(commands or [command]))
