"""The compiled inner loops of the data stream: bytes of a beton in, uint8 samples out.

Numba compiles them once per machine, not per process or FFCV Loader: machine code is kept on disk (beside
this file, or where NUMBA_CACHE_DIR says). For that FFCV's C functions are called by symbol; as ctypes objects
they could not be kept. Every loop releases the GIL.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any, cast

import llvmlite.binding
import numba
import numpy as np
from numba import types
from numpy.typing import NDArray

from workers.quiet_ffcv import native_library

for _name in ("imdecode", "resize"):
    _address = ctypes.cast(getattr(native_library, _name), ctypes.c_void_p).value
    llvmlite.binding.add_symbol(f"ffcv_{_name}", _address)

# The signatures of ffcv/libffcv.py. imdecode returns 0 when the JPEG was read without complaint.
_decode_jpeg = types.ExternalFunction(
    "ffcv_imdecode",
    types.int32(
        types.uintp,
        types.uint64,
        types.uint32,
        types.uint32,
        types.uintp,
        *6 * [types.uint32],
        *2 * [types.bool_],
    ),
)
_resize = types.ExternalFunction("ffcv_resize", types.void(*11 * [types.int64]))

_ROW, _ROWS = (types.Array(types.int64, dimensions, "C", readonly=True) for dimensions in (1, 2))
_BYTES = types.Array(types.uint8, 1, "C", readonly=True)
_IMAGE, _IMAGES = types.uint8[:, :, ::1], types.uint8[:, :, :, ::1]
_ARRAYS = types.uint8[:, ::1]
_INPUTS = types.float32[:, :, :, ::1]
_CONSTANTS = types.Array(types.float32, 1, "C", readonly=True)


def _compiled(signature: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile now, for these types alone; keep the machine code on disk unless this user can write nowhere.

    Left to find signatures by itself, Numba can go round in circles for ever once a function has two that differ in
    nothing but whether an array may be written.
    """

    def compile_(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            compiled = numba.njit(signature, nogil=True, error_model="numpy", cache=True)(function)
        except RuntimeError:
            compiled = numba.njit(signature, nogil=True, error_model="numpy")(function)
        return cast("Callable[..., Any]", compiled)

    return compile_


def _exactly(compiled: Any) -> Callable[..., int]:
    """Call it with arrays of just the types that it is compiled for: all but the destination are only read."""

    @functools.wraps(compiled.py_func)
    def call(windows: Any, places: Any, file: Any, destination: Any, **constants: Any) -> int:
        read = (_read_only(array) for array in constants.values())
        return int(compiled(_read_only(windows), _read_only(places), _read_only(file), destination, *read))

    vars(call)["py_func"] = compiled.py_func
    return call


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    if not array.flags.writeable:
        return array
    view = array.view()
    view.flags.writeable = False
    return view


@_compiled(types.int64(_ROWS, _ROWS))
def _largest_jpeg(windows: Any, places: Any) -> int:
    """Bytes of the largest of these JPEGs once it is decoded."""
    largest = 0
    for i in range(len(windows)):
        place = places[windows[i, 0]]
        if place[4]:
            largest = max(largest, place[2] * place[3])
    return 3 * largest


@_compiled(types.void(_BYTES, *4 * [types.int64], _IMAGE))
def _copy_window(pixels: Any, height: int, width: int, top: int, left: int, target: Any) -> None:
    rows, columns = target.shape[:2]
    first, last = max(0, -left), min(columns, width - left)
    for row in range(rows):
        source_row = top + row
        if source_row < 0 or source_row >= height or first >= last:
            target[row] = 0
            continue
        start = 3 * (source_row * width + left)
        line = target[row].reshape(-1)
        line[: 3 * first] = 0
        line[3 * first : 3 * last] = pixels[start + 3 * first : start + 3 * last]
        line[3 * last :] = 0


@_compiled(types.void(_IMAGE))
def _mirror(target: Any) -> None:
    rows, columns = target.shape[:2]
    for row in range(rows):
        for column in range(columns // 2):
            for channel in range(3):
                kept = target[row, column, channel]
                target[row, column, channel] = target[row, columns - 1 - column, channel]
                target[row, columns - 1 - column, channel] = kept


@_compiled(types.boolean(_ROW, _ROW, _BYTES, _BYTES, _IMAGE))
def _decode_image(window: Any, place: Any, file: Any, scratch: Any, target: Any) -> bool:
    """Read one window; a raw image is read where it lies, a JPEG is decoded into `scratch`. False: it is damaged."""
    rows, columns = target.shape[:2]
    _, top, left, window_height, window_width, mirrored = window
    start, size, height, width, is_jpeg = place
    source = file.ctypes.data + start
    if is_jpeg:
        decoded = scratch.ctypes.data
        if _decode_jpeg(source, size, height, width, decoded, height, width, 0, 0, 1, 1, False, False):
            return False
        source = decoded
    if window_height == rows and window_width == columns:
        if is_jpeg:
            _copy_window(scratch, height, width, top, left, target)
        else:
            _copy_window(file[start : start + size], height, width, top, left, target)
    else:
        bottom, right = top + window_height, left + window_width
        _resize(0, source, height, width, top, bottom, left, right, target.ctypes.data, rows, columns)
    if mirrored:
        _mirror(target)
    return True


@_exactly
@_compiled(types.int64(_ROWS, _ROWS, _BYTES, _IMAGES))
def decode_images(
    windows: NDArray[np.int64],
    places: NDArray[np.int64],
    file: NDArray[np.uint8],
    destination: NDArray[np.uint8],
) -> int:
    """Read a window of each image into `destination`, uint8[m, H, W, 3].

    A window of H x W is copied, black where it reaches over the edge; any other lies inside and is resized
    (area interpolation). `windows` are those of `workers.augment.windows`, `places` those of
    `workers.beton_file.Beton`.

    Returns:
        -1, or the index of the first sample whose JPEG is damaged.
    """
    scratch = np.empty(_largest_jpeg(windows, places), dtype=np.uint8)
    for i in range(destination.shape[0]):
        if not _decode_image(windows[i], places[windows[i, 0]], file, scratch, destination[i]):
            return int(windows[i, 0])
    return -1


@_compiled(types.float32[:, ::1](_CONSTANTS, _CONSTANTS))
def _normalised_values(mean: Any, std: Any) -> Any:
    """What each byte becomes in each channel, float32[3, 256]."""
    table = np.empty((3, 256), dtype=np.float32)
    for channel in range(3):
        for value in range(256):
            table[channel, value] = (np.float32(value) - mean[channel]) / std[channel]
    return table


@_compiled(types.void(_BYTES, *4 * [types.int64], types.boolean, types.float32[:, ::1], types.float32[:, :, ::1]))
def _normalise_window(
    pixels: Any, height: int, width: int, top: int, left: int, mirrored: bool, table: Any, target: Any
) -> None:
    """Copy, mirror and normalise in one pass: for small images each further pass costs as much as the first."""
    rows, columns = target.shape[:2]
    red, green, blue = table[0], table[1], table[2]
    for row in range(rows):
        source_row = top + row
        inside = 0 <= source_row < height
        for column in range(columns):
            source = left + (columns - 1 - column if mirrored else column)
            if inside and 0 <= source < width:
                start = 3 * (source_row * width + source)
                target[row, column, 0] = red[pixels[start]]
                target[row, column, 1] = green[pixels[start + 1]]
                target[row, column, 2] = blue[pixels[start + 2]]
            else:
                target[row, column, 0] = red[0]
                target[row, column, 1] = green[0]
                target[row, column, 2] = blue[0]


@_exactly
@_compiled(types.int64(_ROWS, _ROWS, _BYTES, _INPUTS, _CONSTANTS, _CONSTANTS))
def decode_normalised_images(
    windows: NDArray[np.int64],
    places: NDArray[np.int64],
    file: NDArray[np.uint8],
    destination: NDArray[np.float32],
    mean: NDArray[np.float32],
    std: NDArray[np.float32],
) -> int:
    """As `decode_images`, and normalise each image while it is in the cache: (pixel - mean) / std in float32.

    `destination` is float32[m, H, W, 3], the constants are those of a line of pixels, float32[3 * W].
    """
    count, rows, columns = destination.shape[:3]
    scratch = np.empty(_largest_jpeg(windows, places), dtype=np.uint8)
    pixels = np.empty((rows, columns, 3), dtype=np.uint8)
    table = _normalised_values(mean, std)
    for i in range(count):
        place = places[windows[i, 0]]
        _, top, left, window_height, window_width, mirrored = windows[i]
        if window_height == rows and window_width == columns and not place[4]:
            stored = file[place[0] : place[0] + place[1]]
            _normalise_window(stored, place[2], place[3], top, left, mirrored != 0, table, destination[i])
            continue
        if not _decode_image(windows[i], place, file, scratch, pixels):
            return int(windows[i, 0])
        for row in range(rows):
            stored, line = pixels[row].reshape(-1), destination[i, row].reshape(-1)
            for position in range(line.size):
                line[position] = (np.float32(stored[position]) - mean[position]) / std[position]
    return -1


@_exactly
@_compiled(types.int64(_ROWS, _ROWS, _BYTES, _ARRAYS))
def decode_arrays(
    windows: NDArray[np.int64],
    places: NDArray[np.int64],
    file: NDArray[np.uint8],
    destination: NDArray[np.uint8],
) -> int:
    """Copy the bytes of each array into `destination`, uint8[m, bytes of a sample]. Returns -1."""
    for i in range(destination.shape[0]):
        start, size = places[windows[i, 0], 0], places[windows[i, 0], 1]
        destination[i] = file[start : start + size]
    return -1
