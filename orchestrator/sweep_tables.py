"""Runs, planned cells and curves of one sweep, as slices and comparisons are made from them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import polars as pl

from orchestrator.analysis.curves import read_curves
from orchestrator.analysis.slices import along_axis, axis_size, fit_thresholds
from orchestrator.ledger import Ledger
from orchestrator.phase_diagram import need_finished, planned_cells, planned_runs, run_metrics
from search_spaces.spec import FlowRecipe, SearchSpace


@dataclass(frozen=True)
class SweepTables:
    """What slices are made from: runs and planned cells, and curves that are read once they are wanted."""

    ledger: Ledger
    space: SearchSpace
    runs: pl.DataFrame
    cells: pl.DataFrame
    measured: tuple[str, ...] = ()
    """Columns of the epoch rows that curves are wanted of."""
    beside: int = 0
    """Cells that were left out because their noise rate stands beside the grid."""

    @property
    def axis(self) -> str:
        return self.space.axis

    @property
    def flow(self) -> bool:
        return isinstance(self.space.recipe, FlowRecipe)

    @property
    def logarithmic(self) -> bool:
        """Whether evaluations are log-spaced."""
        return self.flow or self.space.evaluation.spacing == "log"

    @property
    def sizes(self) -> list[int]:
        """What the axis varies, ascending."""
        found: list[int] = self.cells[axis_size(self.axis)].unique().sort().to_list()
        return found

    def along_lines(self) -> SweepTables:
        """The same without single cells at noise rates beside the grid (`SearchSpace.cells`): they make no line."""
        lone = {cell.noise_rate for cell in self.space.cells} - set(self.space.noise.rates)
        left_out = pl.col("noise_rate").is_in(sorted(lone))
        cells, runs = self.cells.filter(~left_out), self.runs.filter(~left_out)
        return replace(self, cells=cells, runs=runs, beside=self.cells.height - cells.height)

    @cached_property
    def curves(self) -> pl.DataFrame:
        return read_curves(self.ledger, self.runs, self.measured)

    @cached_property
    def thresholds(self) -> pl.DataFrame:
        return fit_thresholds(along_axis(self.cells, self.runs, ["train_error_last"]), self.axis)


def read_sweep(ledger: Ledger) -> SweepTables:
    """Runs and planned cells of a sweep. Raises LedgerError where no run has finished, ValueError as `cell_table`."""
    space = ledger.manifest().space
    runs, ends = run_metrics(ledger, space.analysis.last_evaluations)
    need_finished(ledger, runs, f"nothing to draw. Go on with: bo-sweep launch {space.name}")
    planned = planned_runs(space, ends, runs)
    cells = planned_cells(space, runs, planned, bootstrap=1)  # phases are not shown here
    return SweepTables(ledger, space, runs.filter(pl.col("run_id").is_in(planned["run_id"].to_list())), cells)
