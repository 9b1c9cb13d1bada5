"""Python imports this at its start where this folder is on PYTHONPATH. Packs are trained as always, but from one save
to the next no further than a few steps for as long as the file that BO_SWEEP_TEST_CREEPS names is there: what a test
does in the midst of training is in the midst of it, however late it comes."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Generator
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any


def never() -> bool:
    return False


def creeping(train_pack: Callable[..., Generator[Any]]) -> Callable[..., Generator[Any]]:
    def creeps(*arguments: Any, pause: Callable[[], bool] = never, **options: Any) -> Generator[Any]:
        for progress in train_pack(*arguments, pause=pause, **options):
            yield progress
            while pause is not never and os.path.exists(os.environ["BO_SWEEP_TEST_CREEPS"]) and not pause():
                time.sleep(0.02)

    return creeps


class Finder(PathFinder):
    @classmethod
    def find_spec(cls, fullname: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        spec = super().find_spec(fullname, path, target) if fullname == "workers.train" else None
        if spec is None or spec.loader is None:
            return None
        load = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            load(module)
            module.train_pack = creeping(module.train_pack)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


sys.meta_path.insert(0, Finder)
