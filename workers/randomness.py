"""Keyed randomness: every random number is a pure function of (stream, seed, epoch, index).

There is no state, so a number is the same whatever was drawn before it, in whatever process, batch or order. The
scheme is SplitMix64 (Steele, Lea & Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014) read at a
position instead of in sequence. All arithmetic is on unsigned 64-bit integers and wraps modulo 2**64:

    key(stream, seed, epoch)  = the 8-byte BLAKE2b digest of the ASCII text "stream/seed/epoch", little-endian
    bits(stream, seed, i, epoch) = mix(key + GOLDEN * (i + 1))
    mix(z):  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9
             z = (z ^ (z >> 27)) * 0x94D049BB133111EB
             return z ^ (z >> 31)
    uniform = (bits >> 11) * 2**-53

`mix` is a bijection and GOLDEN is odd, so within one (stream, seed, epoch) distinct indices never share their bits:
sorting by them has no ties. The text of the key, and so every number, is fixed: changing it changes results.
"""

import hashlib

import numpy as np
from numpy.typing import ArrayLike, NDArray

GOLDEN = 0x9E3779B97F4A7C15  # 2**64 / golden ratio, rounded to odd: SplitMix64's increment
MULTIPLIERS = (
    0xBF58476D1CE4E5B9,
    0x94D049BB133111EB,
)  # Stafford's "variant 13", as in SplitMix64
SHIFTS = (30, 27, 31)


def key(stream: str, seed: int, *, epoch: int = 0) -> int:
    """The 64-bit key of one stream of numbers, e.g. `key("order", seed=0, epoch=3)`."""
    digest = hashlib.blake2b(f"{stream}/{int(seed)}/{int(epoch)}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser, elementwise on uint64: a bijection of 64-bit words that looks random."""
    first, second, third = (np.uint64(shift) for shift in SHIFTS)
    values = (values ^ (values >> first)) * np.uint64(MULTIPLIERS[0])
    values = (values ^ (values >> second)) * np.uint64(MULTIPLIERS[1])
    return values ^ (values >> third)


def bits(stream: str, seed: int, indices: ArrayLike, *, epoch: int = 0) -> NDArray[np.uint64]:
    """64 random bits per index, of the shape of `indices` (integers >= 0)."""
    positions = np.atleast_1d(np.asarray(indices)).astype(np.uint64)  # at least 1-d: NumPy warns when scalars wrap
    positions += np.uint64(1)
    positions *= np.uint64(GOLDEN)
    positions += np.uint64(key(stream, seed, epoch=epoch))
    return mix(positions).reshape(np.shape(indices))


def uniform(stream: str, seed: int, indices: ArrayLike, *, epoch: int = 0) -> NDArray[np.float64]:
    """One uniform number in [0, 1) per index: the top 53 bits, so every value is an exact multiple of 2**-53."""
    return (bits(stream, seed, indices, epoch=epoch) >> np.uint64(11)).astype(np.float64) / 2**53


def order(stream: str, seed: int, indices: ArrayLike, *, epoch: int = 0) -> NDArray[np.int64]:
    """The indices in random order: sorted by their bits, so the arrangement they come in does not matter.

    Nested sets keep their relative order: the order of a subset is the order of the whole with the others left out.
    """
    indices = np.asarray(indices, dtype=np.int64)
    return indices[np.argsort(bits(stream, seed, indices, epoch=epoch))]


def torch_seed(stream: str, seed: int) -> int:
    """A 63-bit seed for `torch.Generator.manual_seed`."""
    return key(stream, seed) >> 1
