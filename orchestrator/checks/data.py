"""Checks of the data: are the betons there, whole, and of the data set that they claim to be?"""

from __future__ import annotations

from pathlib import Path

from orchestrator.checks.finding import Finding, failed, ok
from search_spaces.datasets import DATASETS, Dataset
from workers.preparation.advice import how_to_prepare


def data_sets_in(folder: Path) -> list[str]:
    """Known data sets that have a beton in the data folder, in the order in which they are defined."""
    return [name for name in DATASETS if next((folder / name).glob("*.beton"), None)]


def check_betons(name: str, folder: Path) -> Finding:
    """Every beton of a data set is there and sound; the whole file is hashed where a manifest tells its checksum.

    Raises:
        BetonError: one cannot be used; the message says which one, why and what to do.
    """
    dataset = DATASETS[name]
    own = folder / name
    if dataset.name == "gaussian-mixture":
        expected: dict[Path, int | None] = dict.fromkeys(sorted(own.glob("*.beton")))
    else:
        expected = {own / "train.beton": dataset.train_samples, own / "test.beton": dataset.test_samples}
    if dataset.embedded and not any(path.exists() for path in expected):
        return ok(f"not there yet; made in {own} on first use")
    missing = [str(path) for path in expected if not path.exists()]
    if missing and not dataset.embedded:
        return failed(
            f"there is no {' and no '.join(missing)}",
            f"{how_to_prepare(name)}; or name the data folder that has it with --data",
        )
    return ok("; ".join(_check(path, dataset, samples) for path, samples in expected.items() if path.exists()))


def _check(path: Path, dataset: Dataset, samples: int | None) -> str:
    """What a sound beton holds; `samples` is how many are wanted, None for any number. Raises BetonError."""
    from workers.beton_file import BetonError, check_beton, read_beton, read_manifest

    check_beton(path, samples=samples, thorough=True)
    beton = read_beton(path)
    first, last = int(beton.labels.min()), int(beton.labels.max())
    if first < 0 or last >= dataset.classes:
        raise BetonError(path, f"labels lie in {first}..{last}, not 0..{dataset.classes - 1}", "write it again")
    manifest = read_manifest(path)
    if manifest and manifest.get("version") != dataset.version:
        raise BetonError(
            path, f"it holds version {manifest.get('version')!r}, not {dataset.version!r}", "prepare it again"
        )
    checked = "its checksum fits" if manifest else "no manifest, so no checksum to compare with"
    version = f"version {manifest['version']}" if manifest else "version not told"
    return (
        f"{path.name}: {beton.samples:,} samples, {path.stat().st_size / 1e6:.1f} MB, labels {first} to {last}, "
        f"{version}, {checked}"
    )
