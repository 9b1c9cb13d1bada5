"""Showing what changes, over and over."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType

Document = dict[str, Any]


def watch(
    document: Document,
    read: Callable[[], Document],
    view: Callable[[Document], RenderableType],
    is_over: Callable[[Document], bool],
    *,
    seconds: float,
    news: Callable[[Document], Any] | None = None,
) -> Document:
    """Show a document until it is over or Ctrl-C, which leaves it running; returns the last one.

    In place on a terminal, elsewhere one after another: each, or with `news` those whose news differ.
    """
    from rich.live import Live

    from orchestrator.console import RESULTS

    try:
        if not RESULTS.is_terminal:
            shown: list[Any] = []
            while True:
                now = [news(document)] if news else []
                if not now or now != shown:
                    RESULTS.print(view(document))
                    shown = now
                if is_over(document):
                    return document
                time.sleep(seconds)
                document = read()
        with Live(view(document), console=RESULTS, auto_refresh=False) as live:
            while not is_over(document):
                time.sleep(seconds)
                document = read()
                live.update(view(document), refresh=True)
    except KeyboardInterrupt:
        pass
    return document
