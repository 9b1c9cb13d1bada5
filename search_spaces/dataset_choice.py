"""Which data a space trains on: a data set that bo-sweep knows, or an image folder of the user's own."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from search_spaces.datasets import DATASETS, Dataset, dataset_of
from search_spaces.frozen import Frozen

Colour = tuple[float, float, float]


class OwnFacts(Frozen):
    """Facts of a prepared image folder, as `bo-sweep prepare folder` prints them.

    `version` hashes the images and their order: it makes them part of every run's identity. Pixel statistics are in
    stored units (0 to 255), one a channel.
    """

    version: str = Field(min_length=1)
    classes: int = Field(ge=2)
    resolution: int = Field(ge=8)
    train_samples: int = Field(ge=1)
    test_samples: int = Field(ge=1)
    pixel_mean: Colour
    pixel_std: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]


class DatasetChoice(Frozen):
    """Which data, and how much of its official test split is held out for validation."""

    name: str = Field(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", max_length=38)
    facts: OwnFacts | None = None
    """Of an image folder of the user's own; not given for a data set that bo-sweep knows."""
    validation_samples: int = Field(default=0, ge=0)
    resolution: int | None = Field(default=None, ge=8)
    """Input side in pixels, where not the data set's own."""
    signal: float | None = Field(default=None, gt=0)
    """R = |mu| of the Gaussian mixture."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.facts is None and self.name not in DATASETS:
            raise ValueError(
                f"name {self.name!r}: must be one of {', '.join(DATASETS)}; for images of your own give `facts` too, "
                "as bo-sweep prepare folder prints them"
            )
        if self.facts is not None and self.name in DATASETS:
            raise ValueError(
                f"`facts` of {self.name} are known: leave them out, or choose another name for your images"
            )
        described = self.described
        if described.kind == "vector" and self.signal is None:
            raise ValueError(f"{self.name} needs `signal`, the length R of the mean vector, for example 10")
        if described.kind == "image" and self.signal is not None:
            raise ValueError(f"`signal` belongs to gaussian-mixture, not to {self.name}: remove it")
        if described.test_samples and self.validation_samples >= described.test_samples:
            raise ValueError(
                f"validation_samples {self.validation_samples}: must be below the {described.test_samples} test "
                f"samples of {self.name}, from which they are cut"
            )
        if not described.test_samples and self.validation_samples:
            raise ValueError(f"{self.name} has an exact test error and no test samples: set validation_samples to 0")
        return self

    @property
    def described(self) -> Dataset:
        """What is known of the data set."""
        if self.facts is None:
            return dataset_of(self.name)
        return Dataset(name=self.name, kind="image", channels=3, **self.facts.model_dump())

    @property
    def input_resolution(self) -> int:
        return self.resolution or self.described.resolution
