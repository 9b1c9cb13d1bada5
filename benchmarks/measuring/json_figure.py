"""A figure as a command: from what a benchmark wrote with --json to a picture."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def draw_as_asked(draw: Callable[[list[dict[str, Any]], Path], None], usage: str) -> None:
    """Call `draw` with the figures of the JSON file and the path that the command line names, in this order.

    Raises SystemExit with `usage` unless it names two.
    """
    if len(sys.argv) != 3:
        raise SystemExit(f"usage: {usage}")
    source, path = map(Path, sys.argv[1:])
    draw(json.loads(source.read_text())["figures"], path)
