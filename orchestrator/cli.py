"""The command line: parse, call the library, print. Nothing heavy is imported before a command needs it.

Exit codes: 0 done, 1 some runs failed, 2 usage, 3 stopped and resumable, 4 infrastructure.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from orchestrator.plan import Plan
    from search_spaces.spec import SearchSpace

Command = TypeVar("Command", bound=Callable[..., Any])

SOME_RUNS_FAILED, USAGE, STOPPED, INFRASTRUCTURE = 1, 2, 3, 4


class Failure(click.ClickException):
    """An error for the user, with the exit code that tells its kind."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        vars(self)["exit_code"] = exit_code


@contextmanager
def user_errors() -> Iterator[None]:
    """Turn the library's errors into one message and an exit code; anything else is a bug and shows its trace."""
    from orchestrator.ledger import LedgerError
    from orchestrator.storage import StorageError

    try:
        yield
    except (StorageError, ConnectionError) as error:
        raise Failure(str(error), INFRASTRUCTURE) from error
    except (LedgerError, ValueError) as error:
        infrastructure = type(error).__name__ == "BetonError"  # its module would import numba
        raise Failure(str(error), INFRASTRUCTURE if infrastructure else USAGE) from error


def default_data_folder() -> Path:
    """Where betons are: $BO_SWEEP_DATA, or the user's cache folder."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("BO_SWEEP_DATA") or Path(cache) / "bo-sweep")


def space_options(command: Command) -> Command:
    """SPACE, --set, --seeds: which runs."""
    for option in (
        click.option("--seeds", type=click.IntRange(min=1), help="Number of seeds, in place of the space's own."),
        click.option(
            "--set", "overrides", metavar="KEY=VALUE", multiple=True, help="Override a value, e.g. recipe.epochs=20."
        ),
        click.argument("space", shell_complete=_complete_spaces),
    ):
        command = option(command)
    return command


def sweep_options(command: Command) -> Command:
    """--storage: where sweeps are."""
    return click.option(
        "--storage",
        type=click.Path(path_type=Path, file_okay=False),
        default=Path("sweeps"),
        show_default=True,
        envvar="BO_SWEEP_STORAGE",
        help="Folder that holds the sweeps.",
    )(command)


def launch_options(command: Command) -> Command:
    """--name, --workers, --retry-failed: how a launch is planned."""
    for option in (
        click.option("--retry-failed", is_flag=True, help="Run failed runs again."),
        click.option("--workers", type=click.IntRange(min=1), help="At most this many worker processes."),
        click.option("--name", help="Name of the sweep; by default that of its space."),
    ):
        command = option(command)
    return command


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")


def _complete_spaces(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    from search_spaces.catalog import builtin_names

    return [name for name in builtin_names() if name.startswith(incomplete)]


def _load(space: str, overrides: tuple[str, ...], seeds: int | None) -> SearchSpace:
    from search_spaces.catalog import load_space

    return load_space(space, (*overrides, f"seeds={seeds}") if seeds else overrides)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="bo-sweep", prog_name="bo-sweep")
def main() -> None:
    """Sweep label noise against parameters per sample, and draw where overfitting stays benign.

    \b
    Start with:  bo-sweep launch digits-grid
    """


@main.group()
def spaces() -> None:
    """Search spaces that come with bo-sweep.

    \b
    Example:  bo-sweep spaces list
    """


@spaces.command("list")
@json_option
def spaces_list(as_json: bool) -> None:
    """List the built-in search spaces.

    \b
    Example:  bo-sweep spaces list
    """
    from orchestrator.console import RESULTS, print_json
    from search_spaces.catalog import builtin_names, load_space
    from search_spaces.runs import expand

    with user_errors():
        found = [(space, len(expand(space))) for space in map(load_space, builtin_names())]
    if as_json:
        print_json({"spaces": [{"name": s.name, "runs": count, "description": s.description} for s, count in found]})
        return
    for space, count in found:
        RESULTS.print(f"[bold]{space.name}[/bold]  ({count} runs)\n    {space.description}")


@spaces.command("show")
@click.argument("space", shell_complete=_complete_spaces)
def spaces_show(space: str) -> None:
    """Print the YAML of a search space, to copy and change.

    \b
    Example:  bo-sweep spaces show digits-grid > mine.yaml
    """
    from search_spaces.catalog import read_text

    with user_errors():
        click.echo(read_text(space), nl=False)


@main.command()
@space_options
@sweep_options
@launch_options
@json_option
def plan(
    space: str,
    overrides: tuple[str, ...],
    seeds: int | None,
    storage: Path,
    name: str | None,
    workers: int | None,
    retry_failed: bool,
    as_json: bool,
) -> None:
    """Show what a launch would do: runs, realised p, n and p/n, packs, time.

    \b
    Example:  bo-sweep plan imagenet-grid --set noise.rates=[0,0.4]
    """
    from orchestrator.console import print_json, print_next
    from orchestrator.launch import LaunchOptions, plan_launch
    from orchestrator.slots import any_hardware
    from orchestrator.summaries import plan_document, print_plan

    with user_errors():
        parsed = _load(space, overrides, seeds)
        options = LaunchOptions(storage, name or parsed.name, default_data_folder(), None, workers, retry_failed)
        made = plan_launch(parsed, options, any_hardware(parsed.resources))
    if as_json:
        print_json(plan_document(made))
        return
    print_plan(made)
    if made.packs:
        print_next(f"bo-sweep launch {space}")


@main.command()
@space_options
@sweep_options
@launch_options
@click.option("--dry-run", is_flag=True, help="Print the plan and stop.")
@click.option("--address", help="Address of a running Ray cluster; by default one is started here.")
@click.option(
    "--data",
    "data_folder",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="BO_SWEEP_DATA",
    help="Folder with the betons.  [default: the user's cache folder]",
)
@json_option
def launch(
    space: str,
    overrides: tuple[str, ...],
    seeds: int | None,
    storage: Path,
    name: str | None,
    workers: int | None,
    retry_failed: bool,
    dry_run: bool,
    address: str | None,
    data_folder: Path | None,
    as_json: bool,
) -> None:
    """Run what is missing of a search space, then draw its phase diagram.

    Resuming, retrying and growing a sweep are all "launch again".

    \b
    Example:  bo-sweep launch digits-grid --seeds 5
    """
    from orchestrator.console import LOG, print_json, print_next
    from orchestrator.launch import LaunchOptions, interruptible, plan_launch
    from orchestrator.launch import launch as run_launch
    from orchestrator.slots import any_hardware
    from orchestrator.summaries import diagram_document, plan_document, print_diagram, print_plan

    with user_errors():
        parsed = _load(space, overrides, seeds)
        sweep = name or parsed.name
        options = LaunchOptions(storage, sweep, data_folder or default_data_folder(), address, workers, retry_failed)
        if dry_run:
            made = plan_launch(parsed, options, any_hardware(parsed.resources))
            print_json(plan_document(made)) if as_json else print_plan(made)
            return
        again = _again("launch", space, storage, name, overrides, seeds)
        try:
            with interruptible():
                made = run_launch(parsed, options)
        except KeyboardInterrupt:
            LOG.print("\nStopped. All that was committed stays; the same command goes on from there.")
            print_next(again)
            raise SystemExit(STOPPED) from None
        if made.is_complete:
            LOG.print(f"The ledger of {sweep} is complete: {len(made.runs)} of {len(made.runs)} runs.")
        if made.count("failed"):
            LOG.print(f"[bold]{made.count('failed')} runs failed[/bold]")
        diagram = _analyse_if_possible(storage, sweep, made)
    if as_json:
        print_json(plan_document(made) | (diagram_document(diagram) if diagram else {}))
    elif diagram:
        print_diagram(diagram)
    failed = made.count("failed")
    print_next(
        *([f"{again} --retry-failed"] if failed else []),
        _again("status", sweep, storage),
        _again("phase", sweep, storage) + " --metric excess_risk --format pdf",
        f"{_again('launch', space, storage, name, overrides, len(parsed.seeds) + 2)}    # trains only the new seeds",
    )
    if failed:
        raise SystemExit(SOME_RUNS_FAILED)


def _analyse_if_possible(storage: Path, sweep: str, made: Plan) -> Any:
    """The diagram of a sweep, or None where nothing has finished."""
    from orchestrator.analysis import analyse
    from orchestrator.ledger import open_ledger

    return analyse(open_ledger(storage, sweep)) if made.count("done") else None


def _again(
    command: str,
    subject: str,
    storage: Path,
    name: str | None = None,
    overrides: tuple[str, ...] = (),
    seeds: int | None = None,
) -> str:
    """The command line that addresses the same sweep."""
    import shlex

    parts = ["bo-sweep", command, subject]
    parts += ["--storage", str(storage)] if storage != Path("sweeps") else []
    parts += ["--name", name] if name else []
    parts += [part for override in overrides for part in ("--set", override)]
    parts += ["--seeds", str(seeds)] if seeds else []
    return shlex.join(parts)


@main.command()
@click.argument("sweep")
@sweep_options
@json_option
def status(sweep: str, storage: Path, as_json: bool) -> None:
    """Show how far a sweep is: runs by status, cells, failures by cause.

    \b
    Example:  bo-sweep status digits-grid
    """
    from orchestrator.console import print_json, print_next
    from orchestrator.ledger import open_ledger
    from orchestrator.summaries import print_status, status_document

    with user_errors():
        document = status_document(open_ledger(storage, sweep))
    if as_json:
        print_json(document)
        return
    print_status(document)
    runs = document["runs"]
    launch_again = _again("launch", document["space"], storage, sweep if sweep != document["space"] else None)
    if runs["new"]:
        print_next(launch_again)
    elif runs["failed"]:
        print_next(f"{launch_again} --retry-failed")
    else:
        print_next(_again("phase", sweep, storage))


@main.command()
@click.argument("sweep")
@sweep_options
@click.option("--metric", "metrics", multiple=True, help="Metric to draw; repeatable.  [default: the usual four]")
@click.option("--format", "formats", default="png,svg", show_default=True, help="Of png, svg, pdf, by comma.")
@json_option
def phase(sweep: str, storage: Path, metrics: tuple[str, ...], formats: str, as_json: bool) -> None:
    """Analyse a sweep and draw its phase diagram, from the ledger alone.

    \b
    Example:  bo-sweep phase digits-grid --metric noise_cost --format pdf
    """
    from orchestrator.analysis import HEAT_MAPS, analyse
    from orchestrator.console import print_json, print_next
    from orchestrator.ledger import open_ledger
    from orchestrator.summaries import diagram_document, print_diagram

    with user_errors():
        wanted = [part.strip() for part in formats.split(",") if part.strip()]
        diagram = analyse(open_ledger(storage, sweep), metrics=metrics or HEAT_MAPS, formats=wanted)
    if as_json:
        print_json(diagram_document(diagram))
        return
    print_diagram(diagram, metrics=metrics)
    print_next(_again("status", sweep, storage))


@main.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell.

    \b
    Example:  eval "$(bo-sweep completion bash)"
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(main, {}, "bo-sweep", "_BO_SWEEP_COMPLETE").source())


if __name__ == "__main__":
    main()
