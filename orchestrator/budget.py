"""Budgets of one launch: where they end, nothing more is handed out, and what runs is saved."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from search_spaces.packs import Pack
from search_spaces.spec import Resources

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True)
class Budget:
    """Caps of one launch; None is no cap."""

    gpu_hours: float | None = None
    wall_seconds: float | None = None
    runs: int | None = None
    used_runs: int = 0
    """Used up by earlier trainings of the same launch, as are the two below."""
    used_wall_seconds: float = 0.0
    used_gpu_seconds: float = 0.0

    def check(self, resources: Resources) -> None:
        """Raises ValueError where a cap could never be reached."""
        if self.gpu_hours is not None and not resources.gpus_per_worker:
            raise ValueError(
                f"--max-gpu-hours {self.gpu_hours:g}: this space trains without GPUs, so it would never be reached. "
                "Use --max-wall or --max-runs"
            )

    def spent(self, *, wall_seconds: float, gpu_seconds: float) -> str | None:
        """Which cap is reached by what one more training has taken, in words; None while none is."""
        hours = (self.used_gpu_seconds + gpu_seconds) / 3600
        wall_seconds += self.used_wall_seconds
        if self.gpu_hours is not None and hours >= self.gpu_hours:
            return f"{hours:.2f} of {self.gpu_hours:g} GPU-hours are spent"
        if self.wall_seconds is not None and wall_seconds >= self.wall_seconds:
            return f"{wall_seconds:.0f} of {self.wall_seconds:g} seconds of wall time are spent"
        return None

    def after(self, *, runs: int, wall_seconds: float, gpu_seconds: float) -> Budget:
        """The same caps, with so many runs and GPU-seconds more used up, and so much wall time in all."""
        return replace(
            self,
            used_runs=self.used_runs + runs,
            used_wall_seconds=wall_seconds,
            used_gpu_seconds=self.used_gpu_seconds + gpu_seconds,
        )

    @property
    def exhausted(self) -> str | None:
        """Which cap leaves nothing for another training, in words; None while none does."""
        if self.runs is not None and self.used_runs >= self.runs:
            return self.runs_text
        return self.spent(wall_seconds=0.0, gpu_seconds=0.0)

    @property
    def runs_text(self) -> str:
        return f"{self.runs} runs were allowed"

    def admit(self, packs: Sequence[Pack]) -> list[Pack]:
        """The first packs, cut to the number of runs allowed."""
        if self.runs is None:
            return list(packs)
        admitted, room = [], self.runs - self.used_runs
        for pack in packs:
            if room <= 0:
                break
            admitted.append(Pack(pack.runs[:room]))
            room -= len(pack.runs)
        return admitted


def parse_duration(text: str) -> float:
    """Seconds of "90", "90s", "30m", "1.5h", "2d" or sums such as "1h30m". Raises ValueError."""
    parts = re.findall(r"([0-9]*\.?[0-9]+)([smhd]?)", text.strip().lower())
    if not parts or "".join(number + unit for number, unit in parts) != text.strip().lower():
        raise ValueError(f"{text!r} is no duration: write seconds, or 30m, 1.5h, 2d, 1h30m")
    seconds = sum(float(number) * UNITS[unit or "s"] for number, unit in parts)
    if seconds <= 0:
        raise ValueError(f"{text!r} must be more than nothing")
    return seconds
