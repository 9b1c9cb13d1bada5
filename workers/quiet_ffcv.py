"""FFCV, imported without what it does to the process that imports it. Everything of ours takes FFCV from here.

Switched off are:

- thread counts. The import and the Loader set those of torch and numba for the whole process (and through torch, from
  the loader's own thread, MKL's): training would change its speed. Our decoders split batches over threads themselves.
- compiling. The import fills a `numba.typed.Dict` of two entries, which compiles for two seconds; every Loader compiles
  its pipeline for seconds more. Our decoders (`workers.decoders`) come compiled.
- the Loader's dictionaries of every sample, which only its other memory manager reads: two seconds and 670 MB for
  ImageNet.
"""

from __future__ import annotations

from typing import Any
from unittest import mock

import numba
import numba.typed
import numpy as np
import torch


def _leave_alone(threads: int) -> None:
    """Stands in for the functions that set thread counts."""


_torch_threads = torch.get_num_threads()
with mock.patch.object(numba, "set_num_threads", _leave_alone), mock.patch.object(numba.typed, "Dict", dict):
    from ffcv.fields import IntField, NDArrayField, RGBImageField
    from ffcv.fields.base import Field
    from ffcv.libffcv import lib as native_library
    from ffcv.loader import Loader
    from ffcv.loader import loader as loader_module
    from ffcv.loader.epoch_iterator import IS_CUDA, EpochIterator
    from ffcv.memory_allocator import MemoryAllocator
    from ffcv.memory_managers.os_cache import OSCacheContext, OSCacheManager
    from ffcv.pipeline import Compiler, PipelineSpec
    from ffcv.pipeline.allocation_query import AllocationQuery
    from ffcv.pipeline.operation import Operation
    from ffcv.pipeline.state import State
    from ffcv.transforms import ToDevice, ToTensor
    from ffcv.types import (
        ALLOC_TABLE_TYPE,
        CURRENT_VERSION,
        TYPE_ID_HANDLER,
        FieldDescType,
        HeaderType,
        get_metadata_type,
    )
    from ffcv.writer import DatasetWriter
torch.set_num_threads(_torch_threads)

Compiler.set_enabled(False)
Compiler.set_num_threads = _leave_alone


class _MappedFile(OSCacheManager):  # type: ignore[misc]
    """FFCV's memory map of a beton, without its dictionaries."""

    def __init__(self, reader: Any) -> None:
        self.reader, self.context = reader, OSCacheContext(self)
        self.ptrs = self.sizes = np.empty(0, dtype=np.uint64)  # the decoders bring their own


loader_module.OSCacheManager = _MappedFile

__all__ = [
    "ALLOC_TABLE_TYPE",
    "CURRENT_VERSION",
    "IS_CUDA",
    "TYPE_ID_HANDLER",
    "AllocationQuery",
    "DatasetWriter",
    "EpochIterator",
    "Field",
    "FieldDescType",
    "HeaderType",
    "IntField",
    "Loader",
    "MemoryAllocator",
    "NDArrayField",
    "Operation",
    "PipelineSpec",
    "RGBImageField",
    "State",
    "ToDevice",
    "ToTensor",
    "get_metadata_type",
    "native_library",
]
