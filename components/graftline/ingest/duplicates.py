"""Near-duplicates: the same picture saved again, resized, or one frame later.

Candidates are pairs whose difference hashes are a few bits apart. Tiny or plain images share
hashes without being alike (an 8 x 8 digit has little to hash), so each pair is then compared
by small thumbnails, against the contrast that the picture has.
"""

import dataclasses
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from PIL import Image

from graftline.pixels import Pixels

DISTANCE = 4  # bits of 64 that may differ
BITS = 64
LUMA, CHROMA = 16, 4  # thumbnail sides
THUMBNAIL_BYTES = LUMA * LUMA + 2 * CHROMA * CHROMA
MAX_DIFFERENCE = 6.0  # grey levels, root mean square, after the mean brightness is taken off
MIN_DIFFERENCE = 1.5
CONTRAST_SHARE = 0.15  # of the thumbnail's standard deviation; a correlation of about 0.99
MAX_SHIFT = 24.0  # grey levels that the mean brightness may differ by
BLOCK = 2048  # rows of a pair matrix at a time: 2048^2 floats are 16 MiB

Thumbnails = npt.NDArray[np.uint8]


@dataclasses.dataclass(frozen=True, slots=True)
class Looks:
    """What of an image is kept to compare it by.

    Attributes:
        dhash: 64 bits: whether each of 8 x 8 cells is brighter than its right neighbour
            (Krawetz, "Kind of like that", 2013).
        thumbnail: 16 x 16 luma, then 4 x 4 blue and 4 x 4 red difference.
    """

    dhash: int
    thumbnail: bytes


def looks_of(pixels: Pixels) -> Looks:
    """Hash and thumbnail of a decoded image."""
    image = Image.fromarray(pixels)
    if min(image.size) > 4 * LUMA:  # fast averaging first; it costs most of the time otherwise
        image = image.reduce(min(image.size) // (4 * LUMA) + 1)
    luma, blue, red = image.convert("YCbCr").split()
    cells = np.asarray(luma.resize((9, 8), Image.Resampling.BILINEAR), dtype=np.int16)
    bits = (cells[:, 1:] > cells[:, :-1]).ravel()
    parts = [luma.resize((LUMA, LUMA), Image.Resampling.BILINEAR)]
    parts += [band.resize((CHROMA, CHROMA), Image.Resampling.BILINEAR) for band in (blue, red)]
    return Looks(
        int.from_bytes(np.packbits(bits).tobytes(), "big"), b"".join(p.tobytes() for p in parts)
    )


def near_duplicates(
    hashes: npt.NDArray[np.uint64], thumbnails: Thumbnails, distance: int = DISTANCE
) -> npt.NDArray[np.int64]:
    """Pairs of rows that show the same picture.

    Two hashes at most ``distance`` bits apart agree in one of ``distance + 1`` bands of bits, so
    only rows that share a band are compared.

    Args:
        hashes: (N,)
        thumbnails: (N, :data:`THUMBNAIL_BYTES`)
        distance: Bits that may differ.

    Returns:
        (P, 2), the smaller row first, each pair once, sorted.
    """
    found: list[npt.NDArray[np.int64]] = [np.empty((0, 2), dtype=np.int64)]
    bounds = np.linspace(0, BITS, distance + 2).astype(int)
    for low, high in pairwise(bounds):
        mask = np.uint64((1 << int(high - low)) - 1)
        band = (hashes >> np.uint64(low)) & mask
        for rows in _buckets(band):
            found.extend(_pairs_within(rows, hashes, thumbnails, distance))
    return np.unique(np.concatenate(found), axis=0)


def _buckets(values: npt.NDArray[np.uint64]) -> Iterator[npt.NDArray[np.int64]]:
    """Rows that hold the same value, for every value that two rows hold."""
    order = np.argsort(values, kind="stable")
    edges = np.flatnonzero(np.diff(values[order])) + 1
    for rows in np.split(order, edges):
        if len(rows) > 1:
            yield np.sort(rows)


def _pairs_within(
    rows: npt.NDArray[np.int64],
    hashes: npt.NDArray[np.uint64],
    thumbnails: Thumbnails,
    distance: int,
) -> Iterator[npt.NDArray[np.int64]]:
    """Pairs among rows that share a band of bits, a block of the pair matrix at a time."""
    for start in range(0, len(rows), BLOCK):
        first = rows[start : start + BLOCK]
        for other in range(start, len(rows), BLOCK):
            second = rows[other : other + BLOCK]
            close = np.bitwise_count(hashes[first, None] ^ hashes[None, second]) <= distance
            close &= first[:, None] < second[None, :]
            if np.count_nonzero(close) > BLOCK:  # plain images: too many to look at singly
                close &= _luma_close(thumbnails[first], thumbnails[second])
            left, right = np.nonzero(close)
            for part in range(0, len(left), BLOCK * 8):
                chosen = slice(part, part + BLOCK * 8)
                pairs = np.stack([first[left[chosen]], second[right[chosen]]], axis=1)
                yield pairs[_alike(thumbnails[pairs[:, 0]], thumbnails[pairs[:, 1]])]


def _luma_close(first: Thumbnails, second: Thumbnails) -> npt.NDArray[np.bool_]:
    """A necessary condition for :func:`_alike`, for all pairs by one matrix product."""
    a, b = (x[:, : LUMA * LUMA].astype(np.float32) for x in (first, second))
    shift = a.mean(axis=1)[:, None] - b.mean(axis=1)[None, :]
    a -= a.mean(axis=1, keepdims=True)
    b -= b.mean(axis=1, keepdims=True)
    squares = np.square(a).sum(axis=1)[:, None] + np.square(b).sum(axis=1)[None, :]
    distance = (squares - 2 * (a @ b.T)) / (LUMA * LUMA)
    lowest = np.minimum(a.std(axis=1)[:, None], b.std(axis=1)[None, :])
    allowed = np.clip(CONTRAST_SHARE * lowest, MIN_DIFFERENCE, MAX_DIFFERENCE) + 0.1
    close: npt.NDArray[np.bool_] = (distance <= allowed**2) & (np.abs(shift) <= MAX_SHIFT)
    return close


def _alike(first: Thumbnails, second: Thumbnails) -> npt.NDArray[np.bool_]:
    """Whether thumbnails show the same picture, row by row."""
    pixels = LUMA * LUMA
    a, b = first.astype(np.float32), second.astype(np.float32)
    luma_a, luma_b = a[:, :pixels], b[:, :pixels]
    shift = luma_a.mean(axis=1) - luma_b.mean(axis=1)
    contrast = np.minimum(luma_a.std(axis=1), luma_b.std(axis=1))
    allowed = np.clip(CONTRAST_SHARE * contrast, MIN_DIFFERENCE, MAX_DIFFERENCE)
    luma = np.sqrt(np.square(luma_a - luma_b - shift[:, None]).mean(axis=1))
    chroma = np.sqrt(np.square(a[:, pixels:] - b[:, pixels:]).mean(axis=1))
    alike: npt.NDArray[np.bool_] = (
        (luma <= allowed) & (chroma <= MAX_DIFFERENCE) & (np.abs(shift) <= MAX_SHIFT)
    )
    return alike
