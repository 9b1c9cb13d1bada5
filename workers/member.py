"""One run inside a pack, apart from its network: its labels, what its early stop watches, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass, field

from search_spaces.recipe import Recipe
from search_spaces.runs import Run
from workers.batches import GivenLabels
from workers.checkpoint import Engine, Spent
from workers.early_stop import Watch


@dataclass(frozen=True)
class RunEnd:
    """How a run ended, and the facts of its data that stand beside every row."""

    run_id: str
    status: str
    mask_hash: str
    subset_hash: str
    noise_rate_realised: float
    seconds: float
    """The run's share of the wall time of its packs."""
    evaluations: int
    """Rows that the run has in all, those from before a checkpoint too."""
    engine: Engine | None
    """What its network was trained by; None where it is no network."""


@dataclass(eq=False)
class Member:
    """A run in training. Its network is part of a stack (stack.py)."""

    run: Run
    given: GivenLabels
    spent_before: Spent = field(default_factory=Spent)
    """In the packs before this one."""
    diverged: bool = False
    watch: Watch = field(init=False)

    def __post_init__(self) -> None:
        assert isinstance(self.run.recipe, Recipe)
        self.watch = Watch(self.run.recipe.early_stop)

    def end(self, subset_hash: str, elapsed: Spent, evaluations: int, engine: Engine) -> RunEnd:
        """How it ended, after its last evaluation."""
        return RunEnd(
            run_id=self.run.run_id,
            status="diverged" if self.diverged else "done",
            mask_hash=self.given.mask_hash,
            subset_hash=subset_hash,
            noise_rate_realised=self.given.realised_rate,
            seconds=(self.spent_before + elapsed).share,
            evaluations=evaluations,
            engine=engine,
        )
