"""Which command makes the betons of a data set."""

from __future__ import annotations

from search_spaces.datasets import DATASETS


def how_to_prepare(dataset: str) -> str:
    """The next step for someone whose betons are missing or unfit, for the end of a message."""
    if dataset.startswith("cifar"):
        return f"prepare it with: bo-sweep prepare {dataset} --download --source DOWNLOADS --out DATA_FOLDER"
    if dataset in DATASETS:
        return f"prepare it with: bo-sweep prepare {dataset} --source ILSVRC2012 --out DATA_FOLDER"
    return f"prepare it with: bo-sweep prepare folder --name {dataset} --source IMAGES --out DATA_FOLDER"
