"""The entry point of a Ray job: one simple command, since KubeRay pastes it as it is into a script of bash."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress

from orchestrator.entry_point import LaunchRequest
from orchestrator.ray_environment import REPLACE_SHELL
from search_spaces.selectors import parse_selector

CELLS_VARIABLE = "BO_SWEEP_CELLS"
SIGNATURE_VARIABLE = "BO_SWEEP_SIGNATURE"
SAFE = re.compile(r"[A-Za-z0-9_@%+=:,./-]")
"""What bash leaves alone, wherever it stands in a word."""
MEANINGS = {
    " ": "splits it",
    "\t": "splits it",
    "\n": "ends the command there",
    ";": "ends the command there",
    "&": "starts it in the background",
    "|": "pipes it",
    "$": "puts in a variable",
    "`": "runs what it encloses",
    "'": "takes quotes away",
    '"': "takes quotes away",
    "\\": "takes it away",
    "<": "reads from a file",
    ">": "writes into a file",
    "(": "starts a subshell",
    ")": "ends a subshell",
    "*": "puts in names of files",
    "?": "puts in names of files",
    "[": "puts in names of files",
    "]": "puts in names of files",
    "{": "makes several words of it",
    "}": "makes several words of it",
    "~": "puts in a home folder",
    "#": "takes it for a comment",
    "!": "negates it",
    "^": "pipes it in old shells",
}
"""What bash does with the others."""


def entry_point(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """The command line of `bo-sweep` with these arguments, and which of them it cannot carry."""
    problems = []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        option = f"{before} " if before.startswith("--") else ""
        if wrong := word_problem(argument):
            problems.append(
                f"{option}{argument!r} cannot stand in the entry point of a RayJob, which goes through bash as it is: "
                f"{wrong}. Give a value of A-Z a-z 0-9 _ @ % + = : , . / -"
            )
    return " ".join([REPLACE_SHELL, "bo-sweep", *arguments]), problems


def launch_environment(request: LaunchRequest) -> dict[str, str]:
    """Variables from which `bo-sweep launch` takes the options that no simple command can hold."""
    given = {}
    if request.signature is not None:
        given[SIGNATURE_VARIABLE] = request.signature
    if request.cells:
        with suppress(ValueError):  # told where all conditions are checked
            # Words are given one after another, so conditions that go together are joined by commas.
            given[CELLS_VARIABLE] = " ".join(str(parse_selector(text)).replace(" ", ",") for text in request.cells)
    return given


def word_problem(word: str) -> str:
    """What bash would do to a word; nothing where it leaves it alone."""
    if not word:
        return "an empty word is lost"
    unsafe = dict.fromkeys(character for character in word if not SAFE.match(character))
    return ", ".join(
        f"bash {MEANINGS.get(character, 'may change')} at {character!r}"
        if character in MEANINGS
        else f"{character!r} is no plain character"
        for character in unsafe
    )


def command_problem(command: str) -> str:
    """What bash would do to a whole command line, apart from splitting it at blanks; nothing where that is all."""
    if not command.strip():
        return "it is empty"
    if "=" in command.split()[0]:
        return "it starts with a variable, not with a command"
    return ", ".join(dict.fromkeys(filter(None, map(word_problem, re.split(" +", command.strip(" "))))))
