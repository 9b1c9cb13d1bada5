"""`bo-sweep plan`: what a launch would do."""

from __future__ import annotations

from pathlib import Path

import click

from orchestrator.commands.options import (
    default_data_folder,
    json_option,
    launch_options,
    load,
    space_options,
    storage_at,
    sweep_options,
    user_errors,
    with_gpus,
)


@click.command()
@space_options
@sweep_options
@launch_options
@click.option("--packs", "with_packs", is_flag=True, help="Also list the packs: runs that are trained together.")
@json_option
def plan(
    space: str,
    overrides: tuple[str, ...],
    seeds: int | None,
    storage: str,
    name: str | None,
    workers: int | None,
    retry_failed: bool,
    signature: str | None,
    cells: tuple[str, ...],
    gpus_per_run: float | None,
    calibration: Path | None,
    with_packs: bool,
    as_json: bool,
) -> None:
    """Show what a launch would do: runs, realised p, n and p/n, packs, time.

    Runs that can share one data stream are trained together, in a pack. --packs lists them in the order of launch; they
    always stand under "packs" in --json.

    \b
    Example:  bo-sweep plan imagenet-grid --set noise.rates=[0,0.4]
    """
    from orchestrator.console import print_json, print_next
    from orchestrator.launch_plan import LaunchOptions, plan_launch
    from orchestrator.summaries import plan_document, print_packs, print_plan
    from search_spaces.selectors import parse_selector

    with user_errors():
        overrides = with_gpus(overrides, gpus_per_run)
        parsed = load(space, overrides, seeds)
        options = LaunchOptions(
            storage_at(storage),
            name or parsed.name,
            default_data_folder(),
            workers=workers,
            retry_failed=retry_failed,
            signature=signature,
            first=tuple(map(parse_selector, cells)),
            calibration=calibration,
        )
        made = plan_launch(parsed, options, anywhere=True)
    if as_json:
        print_json(plan_document(made))
        return
    print_plan(made)
    if with_packs:
        print_packs(made)
    if made.packs:
        print_next(f"bo-sweep launch {space}")
