"""Names of all files and folders of a sweep, in one place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SweepPaths:
    """The folder of one sweep: `<storage>/<sweep name>`."""

    folder: Path

    @property
    def manifest(self) -> Path:
        """What was launched: the resolved space, versions, the number of launches."""
        return self.folder / "sweep.json"

    @property
    def runs(self) -> Path:
        """Parquet: a row a planned run, with its hyperparameters."""
        return self.folder / "runs"

    @property
    def rows(self) -> Path:
        """Parquet: a row an evaluation."""
        return self.folder / "rows"

    @property
    def ends(self) -> Path:
        """Parquet: a row a finished attempt; written after its rows, it is what makes a run count as done."""
        return self.folder / "ends"

    @property
    def phase(self) -> Path:
        """Tables and figures; all of it can be drawn again from the rest."""
        return self.folder / "phase"
