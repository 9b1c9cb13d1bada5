"""Manifests as YAML: the same bytes for the same content, and a text of several lines as such."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import yaml

Manifest = dict[str, Any]
NO_TEXT = re.compile(r"[yYnN]|0[oO][0-7_]+|[-+]?(\.[0-9_]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?")
"""Texts that stand without quotes in Python's YAML, and are no texts in kubectl's: y is true there, 0089 and 1e5 are
numbers."""


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as such, and nothing as a reference to something above."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else "'" if NO_TEXT.fullmatch(text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def to_yaml(manifests: Sequence[Manifest]) -> str:
    """Manifests as a stream of YAML documents."""
    text: str = yaml.dump_all(
        manifests, Dumper=_Dumper, sort_keys=False, explicit_start=True, allow_unicode=True, width=1_000_000
    )
    return text
