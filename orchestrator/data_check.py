"""A look at the data before any worker starts: every beton that a launch reads is there and whole."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from orchestrator.executor import run_on_worker
from search_spaces.packs import Pack
from search_spaces.runs import Run
from search_spaces.spec import FlowRecipe


def check_where_trained(packs: Sequence[Pack], folder: Path, *, elsewhere: bool) -> None:
    """`check_data` where the workers are: on the connected cluster, or here. Raises what it raises.

    Here it is done in another process, as torch and FFCV would stay in the memory of this one.
    """
    if elsewhere:
        run_on_worker(check_data, packs, folder.absolute())
        return
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as child:
        child.submit(check_data, packs, folder).result()


def check_data(packs: Sequence[Pack], folder: Path) -> None:
    """Check every beton that `packs` read before any worker starts; embedded data sets are written on the way.

    Raises:
        BetonError: a beton is missing, damaged or of another size.
    """
    from workers.betons import betons_for

    largest: dict[tuple[int, int], Run] = {}  # a mixture of many dimensions holds those of few
    for pack in packs:
        run = pack.runs[0]
        key = (run.seed, run.samples) if isinstance(run.recipe, FlowRecipe) else (0, 0)
        if key not in largest or run.width > largest[key].width:
            largest[key] = run
    for run in largest.values():
        betons_for(
            run.dataset.described,
            folder,
            seed=run.seed,
            samples=run.samples,
            dimension=run.parameters,
            signal=run.dataset.signal,
        )
