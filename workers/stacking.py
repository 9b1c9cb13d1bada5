"""States of several networks in one, and back: every tensor of a fused network is that of its members, one after the
other along the first dimension. Works on the state dicts of modules and of optimisers alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def stacked(states: Sequence[Any]) -> Any:
    """The state of a fused network from the states of its members, all of one shape.

    Tensors are joined along the first dimension, in new memory; what has none (a count of steps, a learning rate) is
    the same in all members and is taken from the first.
    """
    first = states[0]
    if isinstance(first, dict):
        return {key: stacked([state[key] for state in states]) for key in first}
    return torch.cat(list(states)) if _is_of_members(first) else first


def part_of(state: Any, number: int, members: int) -> Any:
    """The state of one of `members` networks, as if it had always been alone; its tensors are copies."""
    if isinstance(state, dict):
        return {key: part_of(value, number, members) for key, value in state.items()}
    return state.chunk(members)[number].clone() if _is_of_members(state) else state


def _is_of_members(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0
