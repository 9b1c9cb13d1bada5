"""The subjects: every module of the package `benchmarks` but `__main__`."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import benchmarks
from benchmarks.measuring.figures import Figure


@dataclass(frozen=True)
class Subject:
    """One subject. `measure(quick)` yields its figures as they come."""

    name: str
    title: str
    measure: Callable[[bool], Iterable[Figure]]


def subject_names() -> list[str]:
    """Names of all subjects, sorted; imports none of them."""
    found = pkgutil.iter_modules(benchmarks.__path__)
    return sorted(module.name for module in found if not module.ispkg and module.name != "__main__")


def load_subject(name: str) -> Subject:
    """Import one subject. Raises ImportError or AttributeError where the module is no subject."""
    module = importlib.import_module(f"benchmarks.{name}")
    title = (module.__doc__ or name).strip().splitlines()[0].rstrip(".")
    return Subject(name, title, module.measure)
