"""Cells beside the grid: single points of the diagram that a space holds in addition to its axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from search_spaces.frozen import Frozen
from search_spaces.values import Positive, Rate, Seeds

if TYPE_CHECKING:
    from search_spaces.spec import SearchSpace  # the spec imports this module

Point = tuple[float, int, int]
"""Noise rate, width, samples."""


class Cell(Frozen):
    """A noise rate, a width and a sample count, with the seeds that are trained there."""

    noise_rate: Rate
    width: Positive
    samples: Positive
    seeds: Seeds

    @property
    def point(self) -> Point:
        return (self.noise_rate, self.width, self.samples)


def cell_problems(space: SearchSpace) -> list[str]:
    """What is wrong with the cells of a space, apart from doubles of its grid (`runs.expand` finds those)."""
    problems = []
    held_name, held = ("samples", space.samples) if space.axis == "width" else ("width", space.widths)
    facts = space.dataset.described
    for cell in space.cells:
        where = f"cell at noise rate {cell.noise_rate:g}, width {cell.width}, samples {cell.samples}"
        value = getattr(cell, held_name)
        if held and len(held) == 1 and value != held[0]:
            problems.append(f"{where}: on axis {space.axis} its {held_name} must be {held[0]}, as in the grid")
        if not facts.classes <= cell.samples <= facts.train_samples:
            problems.append(f"{where}: samples must be from {facts.classes} to {facts.train_samples}")
        if space.noise.whole_file and cell.noise_rate not in space.noise.rates:
            problems.append(f"{where}: with `whole_file` the only noise rate is {space.noise.rates[0]:g}")
        if len(set(cell.seeds)) != len(cell.seeds):
            problems.append(f"{where}: `seeds` holds a value twice: {list(cell.seeds)}")
    points = [cell.point for cell in space.cells]
    problems += [
        f"`cells` holds noise rate {point[0]:g}, width {point[1]}, samples {point[2]} twice: give all its seeds in one"
        for point in dict.fromkeys(points)
        if points.count(point) > 1
    ]
    return problems


def merge_cells(cells: Sequence[Cell]) -> tuple[Cell, ...]:
    """The same runs with one cell a point, in the order in which points and seeds first come."""
    seeds: dict[Point, dict[int, None]] = {}
    for cell in cells:
        seeds.setdefault(cell.point, {}).update(dict.fromkeys(cell.seeds))
    return tuple(
        Cell(noise_rate=rate, width=width, samples=samples, seeds=tuple(found))
        for (rate, width, samples), found in seeds.items()
    )
