"""`python -m benchmarks`: measure every subject, or those named, then print one table."""

from __future__ import annotations

import json
from pathlib import Path

import click

from benchmarks.measuring.registry import subject_names


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--quick", is_flag=True, help="One short round of each: does it run? Its figures prove nothing.")
@click.option("--json", "json_path", type=click.Path(path_type=Path, dir_okay=False), help="Write all figures there.")
def main(names: tuple[str, ...], quick: bool, json_path: Path | None) -> None:
    """Measure what is claimed about speed, side by side on this machine.

    \b
    Example:  python -m benchmarks orchestration --json figures.json
    """
    known = subject_names()
    unknown = [name for name in names if name not in known]
    if unknown:
        raise click.UsageError(f"unknown subjects: {', '.join(unknown)}. There are: {', '.join(known)}")
    if json_path and not json_path.absolute().parent.is_dir():
        raise click.UsageError(f"--json {json_path}: its folder does not exist; make it, or choose another")

    from benchmarks.measuring.machine import describe_machine
    from benchmarks.measuring.registry import load_subject
    from benchmarks.measuring.table import document, print_table
    from orchestrator.stops import interruptible

    machine = describe_machine()
    found = {}
    with interruptible():
        for name in names or known:
            subject = load_subject(name)
            found[subject.title] = list(subject.measure(quick))
    if json_path:
        json_path.write_text(json.dumps(document(machine, found, quick), indent=2, allow_nan=False) + "\n")
    print_table(machine, found, quick)


if __name__ == "__main__":
    main(prog_name="python -m benchmarks")
