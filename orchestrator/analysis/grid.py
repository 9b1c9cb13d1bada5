"""Which cells make up the rows and columns of a heat map, and which lie beside them."""

from __future__ import annotations

from collections.abc import Collection

Point = tuple[float, int, int]
"""Noise rate, width, samples."""
SHARE = 0.5
"""A row or column that the space does not plan belongs to the grid where more than this share of it was measured."""


def grid_cells(planned: Collection[Point], others: Collection[Point]) -> set[Point]:
    """The points among `planned`, the grid of a space, and `others` that are in the grid.

    others: points that were measured beside it. Runs of an earlier, larger launch fill rows (noise rates) and columns
    (widths and samples) of their own, and join the grid; a point that was placed alone, near a boundary, would tear a
    row and a column of holes into every map, and stays beside.
    """
    rates, sizes = {point[0] for point in planned}, {point[1:] for point in planned}
    known = {*planned, *others}

    def row_is_full(rate: float) -> bool:
        return sum((rate, *size) in known for size in sizes) > SHARE * len(sizes)

    def column_is_full(size: tuple[int, int]) -> bool:
        return sum((rate, *size) in known for rate in rates) > SHARE * len(rates)

    rows = rates | {point[0] for point in others if row_is_full(point[0])}
    columns = sizes | {point[1:] for point in others if column_is_full(point[1:])}
    return {point for point in known if point[0] in rows and point[1:] in columns}
