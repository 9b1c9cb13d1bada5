"""The optimiser of a fused network: all its parameters lie in one piece of memory, and a step is one pass over it.

A step on each tensor would cost more than the arithmetic of a small network. And what a step gives an element must not
depend on where it stands: CPU kernels treat the last elements of a tensor, which do not fill a vector, by other
instructions that round otherwise. So the memory ends with elements of nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from search_spaces.recipe import Recipe
from workers.optimization import build_optimizer

VECTOR = 16
"""Elements that a CPU treats at once, at most (float32)."""


@dataclass(frozen=True)
class _Piece:
    """Parameters that the optimiser treats alike, one after the other in one tensor."""

    flat: nn.Parameter
    parameters: Sequence[nn.Parameter]

    def view(self, values: Tensor, number: int) -> Tensor:
        """The part of parameter `number` in a tensor like `flat`, in the parameter's shape and memory order."""
        parameter = self.parameters[number]
        start = sum(each.numel() for each in self.parameters[:number])
        return values.as_strided(parameter.shape, parameter.stride(), start)


class FlatOptimizer:
    """As `build_optimizer(model, recipe)`, with the same state dict; moves the model's parameters on the way.

    Parameters keep shape and memory order. They also keep their gradients, which add up until `zero_grad`.
    """

    def __init__(self, model: nn.Module, recipe: Recipe) -> None:
        self._optimizer = build_optimizer(model, recipe)
        self._pieces = [_flatten(group["params"]) for group in self._optimizer.param_groups]
        for group, piece in zip(self._optimizer.param_groups, self._pieces, strict=True):
            group["params"] = [piece.flat]

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Those of the optimiser behind, to set a learning rate."""
        return self._optimizer.param_groups

    def step(self, closure: Callable[[], float] | None = None) -> None:
        """One step with the gradients."""
        self._optimizer.step(closure)  # type: ignore[arg-type]

    def zero_grad(self) -> None:
        """Set all gradients to zero, in place."""
        self._optimizer.zero_grad(set_to_none=False)

    def state_dict(self) -> dict[str, Any]:
        """As if every parameter had its own state; its tensors are those in use."""
        states: dict[int, dict[str, Any]] = {}
        groups = []
        for group, piece in zip(self.param_groups, self._pieces, strict=True):
            numbers = range(first := len(states), first + len(piece.parameters))
            groups.append({name: value for name, value in group.items() if name != "params"} | {"params": [*numbers]})
            whole = self._optimizer.state.get(piece.flat, {})
            for number in range(len(piece.parameters)):
                states[first + number] = {
                    name: piece.view(value, number) if _is_elementwise(value) else value
                    for name, value in whole.items()
                }
        return {"state": states if any(states.values()) else {}, "param_groups": groups}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state dict, whose tensors stay as they are."""
        first = 0
        for group, loaded, piece in zip(self.param_groups, state["param_groups"], self._pieces, strict=True):
            group.update({name: value for name, value in loaded.items() if name != "params"})
            if state["state"]:
                own = [state["state"][first + number] for number in range(len(piece.parameters))]
                self._optimizer.state[piece.flat] = {
                    name: _gathered(piece, [each[name] for each in own]) for name in own[0]
                }
            first += len(piece.parameters)


def _is_elementwise(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0


def _gathered(piece: _Piece, values: Sequence[Any]) -> Any:
    """One state of all parameters of a piece."""
    if not _is_elementwise(values[0]):
        return values[0].clone() if isinstance(values[0], Tensor) else values[0]
    flat = torch.zeros_like(piece.flat.detach())
    for number, value in enumerate(values):
        piece.view(flat, number).copy_(value)
    return flat


def _flatten(parameters: Sequence[nn.Parameter]) -> _Piece:
    """Move parameters and their gradients into one tensor each."""
    size = sum(parameter.numel() for parameter in parameters)
    flat = parameters[0].detach().new_zeros(-(-size // VECTOR) * VECTOR)
    piece = _Piece(nn.Parameter(flat), parameters)
    piece.flat.grad = torch.zeros_like(flat)
    for number, parameter in enumerate(parameters):
        view = piece.view(flat, number)
        view.copy_(parameter.detach())
        parameter.data = view
        parameter.grad = piece.view(piece.flat.grad, number)
    return piece
