"""One HTML file from its parts: markup, styles and scripts of static/, the report's data, Plotly, and the downloads.

Scripts are plain ES modules in static/, one subject each, and are joined here into one script: their import lines go,
and they run in one scope, in the order of MODULES. The page's policy (CSP) allows just the scripts whose digests it
names, and no network; so a string that were to slip through unescaped could still run nothing.
"""

from __future__ import annotations

import base64
import functools
import gzip
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import resources
from typing import Any

from orchestrator.report.document import as_json
from orchestrator.report.downloads import HOLDS, Download

MODULES = (
    *("dom", "numbers", "theme", "data", "words", "colours", "axes", "grid-keys", "heat-map", "marks", "overlay"),
    *("legend", "readout", "curves", "plot", "run-list", "downloads", "live", "main"),
)
"""Scripts of static/, each after those that it imports."""
IMPORT = re.compile(r"^import [^;]*;\n", re.MULTILINE)
EXPORT = re.compile(r"^export ", re.MULTILINE)
PLACE = re.compile(r"\{\{(\w+)\}\}")


def assemble(
    title: str,
    document: Mapping[str, Any] | None,
    texts: Mapping[str, str],
    *,
    files: Sequence[Download] = (),
    curves: Iterable[tuple[int, bytes]] = (),
    poll_seconds: float | None = None,
) -> bytes:
    """The whole page.

    texts: HTML by place, as `sections` gives it. files: downloads to carry along. curves: packed curves by the place of
    their cell. poll_seconds: how often a live page asks its server how the sweep is; it has neither curves nor files
    of its own. None for a page that stands by itself.
    """
    script = page_script()
    connect = "'none'" if poll_seconds is None else "'self'"
    policy = (
        f"default-src 'none'; script-src {_allowed(script)} {_allowed(plotly())}; style-src 'unsafe-inline'; "
        f"img-src data: blob:; connect-src {connect}; base-uri 'none'; form-action 'none'"
    )
    parts = {
        "title": escape(title),
        "policy": policy,
        "style": static("page.css"),
        "mode": "file" if poll_seconds is None else "live",
        "every": f"{1000 * (poll_seconds or 0):.0f}",
        "document": as_json(document) if document is not None else "null",
        "script": script,
        "links": links((file.name, file.holds, len(file.content)) for file in files) + _left_out(files),
        "curves": "\n".join(f"{cell} {_base64(content)}" for cell, content in curves),
        "files": "\n".join(_file(file) for file in files),
        "plotly": _base64(_packed_plotly()),
        **dict.fromkeys(("recipe", "about", "headline", "failures", "origin", "definitions", "space"), ""),
        **texts,
    }
    return PLACE.sub(lambda place: parts[place[1]], static("page.html")).encode()


def links(files: Iterable[tuple[str, str, int | None]]) -> str:
    """The list of downloads: name, what it holds, and bytes where known."""
    items = []
    for name, holds, size in files:
        told = f", {_size(size)}" if size is not None else ""
        items.append(
            f'<li><a href="download/{name}" download="{name}" data-file="{name}">{name}</a> ({holds}{told})</li>'
        )
    return "".join(items)


def _left_out(files: Sequence[Download]) -> str:
    """What a page says of a table that is too large for it."""
    absent = [name for name in HOLDS if files and name not in {file.name for file in files}]
    words = "is too large for this page: <code>bo-sweep report SWEEP --live</code> hands it out"
    return "".join(f"<li>{name} {words}</li>" for name in absent)


def page_script() -> str:
    """All modules as one script, in a scope of its own."""
    modules = [EXPORT.sub("", IMPORT.sub("", static(f"{name}.js"))) for name in MODULES]
    script = '(() => {\n"use strict";\n' + "\n".join(modules) + "})();\n"
    assert "</script" not in script.lower()
    return script


@functools.cache
def static(name: str) -> str:
    """A file of static/."""
    return (resources.files("orchestrator.report") / "static" / name).read_text(encoding="utf-8")


@functools.cache
def plotly() -> str:
    """The source of Plotly that the Python package carries."""
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


@functools.cache
def _packed_plotly() -> bytes:
    return gzip.compress(plotly().encode(), 9, mtime=0)


def _file(file: Download) -> str:
    content = gzip.compress(file.content, 6, mtime=0) if file.name.endswith(".csv") else file.content
    kind = "gzip" if file.name.endswith(".csv") else "as is"
    return f'<script type="text/plain" data-content="{file.name}" data-kind="{kind}">{_base64(content)}</script>'


def _allowed(script: str) -> str:
    """The digest by which a policy allows an inline script."""
    return f"'sha256-{_base64(hashlib.sha256(script.encode()).digest())}'"


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{max(1, round(count / 1e3))} KB"
