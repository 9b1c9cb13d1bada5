"""A launch that is carried out elsewhere: what is asked for, and the command line that asks for it there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from search_spaces.spec import SearchSpace


@dataclass(frozen=True)
class LaunchRequest:
    """What `bo-sweep launch` was asked for, apart from where: it reads the same on a laptop, in a pod, in a Ray job.

    Attributes:
        space: resolved, with all overrides.
        sweep: its name in storage.
        retry_failed: run failed runs again, those with `signature` if one is given.
        cells: conditions of `--cells`, as given.
        max_wall: a duration, as given.
        refine: target of a refinement, with `budget` runs at most and to `precision`.
        wandb: publish to W&B beside it.
    """

    space: SearchSpace
    sweep: str
    workers: int | None = None
    retry_failed: bool = False
    signature: str | None = None
    cells: tuple[str, ...] = ()
    max_gpu_hours: float | None = None
    max_wall: str | None = None
    max_runs: int | None = None
    reuse: tuple[str, ...] = ()
    refine: str | None = None
    budget: int | None = None
    precision: float | None = None
    figures: bool = True
    wandb: bool = False

    def arguments(self, space_file: str, *, storage: str, data_folder: str | None, address: str) -> list[str]:
        """The arguments of `bo-sweep` that carry it out where `space_file` holds the space.

        The job ends with exit code 0 also where a retry could change nothing (--as-job).
        """
        place = {"--storage": storage, "--name": self.sweep, "--data": data_folder, "--address": address}
        budgets = {
            "--max-gpu-hours": self.max_gpu_hours,
            "--max-wall": self.max_wall,
            "--max-runs": self.max_runs,
        }
        values = place | self._choices() | budgets | self._refinement()
        return ["launch", space_file, *_pairs(values), "--as-job", *self._flags()]

    def options_to_go_on(self) -> list[str]:
        """The options that the launch which goes on is given again: all but budgets, which are for the user to set."""
        return [*_pairs(self._choices() | self._refinement()), *self._flags()]

    def _choices(self) -> dict[str, object]:
        return {"--workers": self.workers, "--signature": self.signature}

    def _refinement(self) -> dict[str, object]:
        return {"--refine": self.refine, "--budget": self.budget, "--precision": self.precision}

    def _flags(self) -> list[str]:
        """And what may be given several times."""
        flags = {"--retry-failed": self.retry_failed, "--no-figures": not self.figures, "--wandb": self.wandb}
        lists = {"--cells": self.cells, "--reuse": self.reuse}
        return [
            *(name for name, given in flags.items() if given),
            *(part for name, several in lists.items() for value in several for part in (name, value)),
        ]


def _pairs(values: Mapping[str, object]) -> list[str]:
    return [part for name, value in values.items() if value is not None for part in (name, f"{value}")]
