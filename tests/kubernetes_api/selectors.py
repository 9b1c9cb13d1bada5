"""Label and field selectors."""

from __future__ import annotations

import re
from typing import Any

from tests.kubernetes_api.failures import bad_request
from tests.kubernetes_api.kinds import Kind


def matches_labels(selector: str, labels: dict[str, str]) -> bool:
    """`a=b,c!=d,e in (f, g),h notin (i),j,!k`."""
    for part in filter(None, (part.strip() for part in re.split(r",(?![^(]*\))", selector))):
        among = re.fullmatch(r"(\S+)\s+(in|notin)\s+\(([^)]*)\)", part)
        if among:
            values = {value.strip() for value in among[3].split(",")}
            if (labels.get(among[1]) in values) != (among[2] == "in"):
                return False
        elif "=" in part:
            key, operator, value = re.fullmatch(r"([^!=\s]+)\s*(!=|==?)\s*(\S*)", part).groups()  # type: ignore[union-attr]
            if (labels.get(key) == value) != (operator != "!="):
                return False
        elif (part.lstrip("!") in labels) == part.startswith("!"):
            return False
    return True


def matches_fields(selector: str, item: dict[str, Any], kind: Kind) -> bool:
    """`metadata.name=x,status.phase!=Running`; fields that the kind cannot be selected by are refused."""
    for part in filter(None, selector.split(",")):
        key, operator, value = re.fullmatch(r"([^!=]+)(!=|==?)(.*)", part).groups()  # type: ignore[union-attr]
        if key not in kind.selectable | {"metadata.name", "metadata.namespace"}:
            raise bad_request(f"field label not supported: {key}")
        found: Any = item
        for step in key.split("."):
            found = (found or {}).get(step)
        if (str(found or "") == value) != (operator != "!="):
            return False
    return True
