"""`bo-sweep spaces`: the search spaces that come with it."""

from __future__ import annotations

import click

from orchestrator.commands.options import complete_spaces, json_option, user_errors


@click.group()
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
@click.argument("space", shell_complete=complete_spaces)
def spaces_show(space: str) -> None:
    """Print the YAML of a search space, to copy and change.

    \b
    Example:  bo-sweep spaces show digits-grid > mine.yaml
    """
    from search_spaces.catalog import read_text

    with user_errors():
        click.echo(read_text(space), nl=False)
