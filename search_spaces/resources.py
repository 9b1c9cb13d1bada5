"""What a worker gets. Placement only: nothing here is part of a run's identity."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from search_spaces.frozen import Frozen


class Resources(Frozen):
    """The shape of a worker: one process, or several that train each run together (data-parallel)."""

    cpus_per_worker: float = Field(default=1, gt=0)
    """CPU cores of a worker with up to one GPU; one with several has this many for each."""
    gpus_per_worker: float | Literal["auto"] = 0.0
    """A share of a GPU, one, or several; "auto" chooses for each width by memory and time (see shapes.py)."""
    processes_per_worker: int = Field(default=1, ge=1)
    """Processes that train a run together on CPUs, each with its `cpus_per_worker`; on GPUs it is one a GPU."""
    gpu_memory_gb: float = Field(default=80, gt=0)
    longest_run_hours: float = Field(default=48, gt=0)
    """With gpus_per_worker "auto": a run that takes longer on one GPU gets several."""
    most_gpus_per_run: int = Field(default=8, ge=1)
    """With gpus_per_worker "auto": no run gets more."""
    engine: Literal["auto", "sequential", "fused"] = "auto"
    """How the networks of a pack are trained: one after another, several as one network of grouped convolutions, or as
    is faster, which is measured. The two differ by rounding; each gives the same in packs of any size."""
    compile: bool = False
    """Whether networks go through torch.compile: minutes at the start of each width, then faster steps on GPUs."""
    cuda_graphs: bool = False
    """Whether steps on a GPU are replayed as CUDA graphs, which launch all kernels of a narrow network at once."""
    checkpoint_seconds: float = Field(default=60, gt=0)
    """How often runs in training are saved (less often where saving takes over 2 % of the time)."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = []
        gpus = self.gpus_per_worker
        if not isinstance(gpus, str):
            if gpus < 0 or (gpus > 1 and gpus != int(gpus)):
                problems.append(f"gpus_per_worker {gpus:g}: must be a share from 0 to 1, or a whole number above it")
            if gpus > 0 and self.processes_per_worker > 1:
                problems.append("processes_per_worker is for CPUs; on GPUs there is one process a GPU: leave it out")
        elif self.processes_per_worker > 1:
            problems.append("processes_per_worker is for CPUs: leave it out, or train without GPUs (gpus_per_worker 0)")
        if problems:
            raise ValueError("; ".join(problems))
        return self
