"""Values of a cluster's profile: sizes, times, names and texts as Kubernetes takes them and as YAML gives them."""

from __future__ import annotations

import json
import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from orchestrator.budget import parse_duration
from orchestrator.k8s.names import DNS_SUBDOMAIN

SIZE = re.compile(r"[0-9]+(\.[0-9]+)?([kMGTP]|[KMGTP]i)?")
LEAST_SIZE_BYTES = 2**20
_FACTORS = {"n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1.0, "k": 1e3, "Ki": 2.0**10} | {
    f"{letter}{binary}": (1024.0 if binary else 1000.0) ** power
    for power, letter in enumerate("MGTPE", 2)
    for binary in ("", "i")
}
MOST_SECONDS = 2**31 - 1
"""KubeRay keeps times in 32 bits."""


def amount_of(quantity: str) -> float:
    """A quantity as Kubernetes writes it: 8, 500m, 900Gi, 12e6. Raises ValueError for what is none."""
    found = re.fullmatch(r"([+-]?[0-9.]+)(?:([eE][+-]?[0-9]+)|([numkKMGTPE]?i?))", quantity)
    if found is None or (found[3] or "") not in _FACTORS:
        raise ValueError(f"{quantity!r} is no quantity of Kubernetes: write for example 900Gi or 500m")
    return float(f"{found[1]}{found[2] or ''}") * _FACTORS[found[3] or ""]


def seconds_of(duration: str) -> int:
    """A duration in whole seconds, at least 1."""
    return max(1, round(parse_duration(duration)))


def _size(text: str) -> str:
    if not SIZE.fullmatch(text):
        raise ValueError(f"{text!r} is no quantity of Kubernetes for bytes: write for example 900Gi or 500Mi")
    if amount_of(text) < LEAST_SIZE_BYTES:
        raise ValueError(f"{text!r} is {amount_of(text):g} bytes: write for example 900Gi or 500Mi")
    return text


def _text(value: object) -> object:
    """As it is, but for what YAML makes of texts without quotes, and --cluster-set of keys with dots."""
    if isinstance(value, bool | int | float):
        raise ValueError(f"{json.dumps(value)} is no text in YAML: write {json.dumps(json.dumps(value))}")
    if isinstance(value, dict):
        raise ValueError("a section where a text should be; keys with dots are given within braces: {a.b/c: d}")
    return value


def _number(value: object) -> object:
    """As it is, but for YAML's yes and no, which count as 1 and 0 in Python."""
    if isinstance(value, bool):
        raise ValueError(f"{json.dumps(value)} where a number should be: write for example 4")
    return value


def _matching(pattern: str, rule: str) -> AfterValidator:
    """Takes texts that match as a whole; `rule` says in words what they must."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"{text!r} must {rule}")
        return text

    return AfterValidator(check)


def _duration(text: str) -> str:
    if parse_duration(text) > MOST_SECONDS:
        raise ValueError(f"{text!r} is longer than KubeRay counts: at most {MOST_SECONDS // 86400}d")
    return text


Count = Annotated[int, BeforeValidator(_number)]
Gigabytes = Annotated[float, BeforeValidator(_number)]
Size = Annotated[str, AfterValidator(_size)]
"""Bytes, as Kubernetes writes them: 900Gi."""
Duration = Annotated[str, AfterValidator(_duration)]
"""As on the command line: 90s, 30m, 1.5h, 2d."""
ENDS = "starting and ending with a letter or digit"
Name = Annotated[str, _matching(DNS_SUBDOMAIN, f"hold only a-z 0-9 - ., {ENDS}"), Field(max_length=253)]
Namespace = Annotated[
    str, _matching(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", f"hold only a-z 0-9 -, {ENDS}"), Field(max_length=63)
]
SecretValue = Annotated[str, _matching(r"[-._a-zA-Z0-9]+", "be a key of a secret: A-Z a-z 0-9 - _ .")]
Variable = Annotated[
    str, _matching(r"[A-Za-z_][A-Za-z0-9_]*", "be the name of a variable: A-Z a-z 0-9 _, no digit first")
]
Version = Annotated[str, _matching(r"[0-9]+\.[0-9]+\.[0-9]+", "be a version such as 2.60.0")]
Text = Annotated[str, BeforeValidator(_text)]
Labels = dict[str, Text]
