"""Writing a beton of images as a stream, in the order of the samples, in the format of FFCV 1.0.2.

FFCV's own DatasetWriter is not used here: it forks, waits for ever when a writing process raises, draws which images
become JPEGs from an unseeded generator, and places samples as its processes happen to be scheduled. The file below is
what it writes with one process, byte for byte (a test holds this): header, descriptions of the fields, one record a
sample, then pages that no sample crosses, then the table of what lies where.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from workers import quiet_ffcv as ffcv
from workers.preparation.images import Encoded

SMALLEST_PAGE = 8 * 2**20
"""Bytes: what FFCV's writer takes by default."""


def page_bytes(max_side: int) -> int:
    """Bytes of a page, a power of 2: the largest raw image fits."""
    largest = 3 * max_side**2
    return max(SMALLEST_PAGE, 1 << (largest - 1).bit_length())


def write_images(path: Path, images: Iterable[Encoded], labels: NDArray[np.int64], *, page: int) -> None:
    """Write the beton at `path`, through to the disk. Until the header is written, last, no reader takes it for one.

    Args:
        images: one a label, used as they come; memory does not grow with them but for 50 bytes a sample.
        labels: int64[N].
        page: bytes of a page, from `page_bytes`.

    Raises:
        OSError: the disk is full or forbids it. Whatever `images` raises passes through.
    """
    fields = {"image": ffcv.RGBImageField(), "label": ffcv.IntField()}
    metadata = np.zeros(len(labels), dtype=ffcv.get_metadata_type(list(fields.values())))
    image_name, label_name = metadata.dtype.names
    table = np.zeros(len(labels), dtype=ffcv.ALLOC_TABLE_TYPE)
    header = np.zeros(1, dtype=ffcv.HeaderType)
    descriptors = _descriptors(fields)
    start = _round_up(header.nbytes + descriptors.nbytes + metadata.nbytes, page)

    written = 0
    with open(path, "wb", buffering=0) as file:  # a buffer that cannot be flushed would raise once more when closed
        position = file.seek(start)
        for index, image in enumerate(images):
            size = len(image.content)
            assert size <= page
            if position % page + size > page:
                position = file.seek(_round_up(position, page))
            _write(file.fileno(), image.content)
            record = metadata[image_name][index : index + 1]
            record["mode"], record["height"], record["width"] = image.mode, image.height, image.width
            record["data_ptr"] = position
            table[index] = (index, position, size)
            position += size
            written = index + 1
        assert written == len(labels)
        metadata[label_name] = labels

        header["version"], header["num_fields"], header["page_size"] = ffcv.CURRENT_VERSION, len(fields), page
        header["num_samples"], header["alloc_table_ptr"] = len(labels), file.seek(_round_up(position, page))
        _write(file.fileno(), table.tobytes())
        file.seek(header.nbytes)
        _write(file.fileno(), descriptors.tobytes() + metadata.tobytes())
        file.seek(0)
        _write(file.fileno(), header.tobytes())
        os.fsync(file.fileno())


def _descriptors(fields: dict[str, ffcv.Field]) -> NDArray[np.void]:
    descriptors = np.zeros(len(fields), dtype=ffcv.FieldDescType)
    type_ids = {handler: number for number, handler in ffcv.TYPE_ID_HANDLER.items()}
    for descriptor, (name, field) in zip(descriptors, fields.items(), strict=True):
        descriptor["type_id"] = type_ids[type(field)]
        descriptor["name"][: len(name)] = np.frombuffer(name.encode("ascii"), dtype=np.uint8)
        descriptor["arguments"][:] = field.to_binary()[0]
    return descriptors


def _round_up(position: int, page: int) -> int:
    return -(-position // page) * page


def _write(descriptor: int, content: bytes) -> None:
    """All of it: the system may take less at a time."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
