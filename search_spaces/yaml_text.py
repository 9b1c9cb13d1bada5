"""YAML as users write it: a key that stands twice is a mistake, not the last of them."""

from __future__ import annotations

from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            name = (key.tag, str(key.value))
            if name in seen:
                raise yaml.MarkedYAMLError(problem=f"the key {key.value!r} stands twice", problem_mark=key.start_mark)
            seen.add(name)
        return node


def read_yaml(text: str) -> Any:
    """The content of a YAML document. Raises yaml.YAMLError, also for keys that stand twice."""
    return yaml.load(text, Loader=_Loader)
