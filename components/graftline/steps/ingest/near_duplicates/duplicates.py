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

from graftline.images.decode import Pixels

DISTANCE = 4  # bits of 64 that may differ
BITS = 64
LUMA, CHROMA = 16, 4  # thumbnail sides
THUMBNAIL_BYTES = LUMA * LUMA + 2 * CHROMA * CHROMA
MAX_DIFFERENCE = 6.0  # grey levels, root mean square, after the mean brightness is taken off
MIN_DIFFERENCE = 1.5
CONTRAST_SHARE = 0.15  # of the thumbnail's standard deviation; a correlation of about 0.99
MAX_SHIFT = 24.0  # grey levels that the mean brightness may differ by
PARTNERS = 4  # pairs that a row needs with rows of one side
SIDES = 4  # the three splits, and none yet
BLOCK = 2048  # rows of a pair matrix at a time: 2048^2 floats are 16 MiB

Thumbnails = npt.NDArray[np.uint8]


@dataclasses.dataclass(frozen=True, slots=True)
class PictureHash:
    """What of an image is kept to compare it by.

    Attributes:
        dhash: 64 bits: whether each of 8 x 8 cells is brighter than its right neighbour
            (Krawetz, "Kind of like that", 2013).
        thumbnail: 16 x 16 luma, then 4 x 4 blue and 4 x 4 red difference.
    """

    dhash: int
    thumbnail: bytes


def picture_hash(pixels: Pixels) -> PictureHash:
    """Hash and thumbnail of a decoded image."""
    image = Image.fromarray(pixels)
    if min(image.size) > 4 * LUMA:  # fast averaging first; it costs most of the time otherwise
        image = image.reduce(min(image.size) // (4 * LUMA) + 1)
    luma, blue, red = image.convert("YCbCr").split()
    cells = np.asarray(luma.resize((9, 8), Image.Resampling.BILINEAR), dtype=np.int16)
    bits = (cells[:, 1:] > cells[:, :-1]).ravel()
    parts = [luma.resize((LUMA, LUMA), Image.Resampling.BILINEAR)]
    parts += [band.resize((CHROMA, CHROMA), Image.Resampling.BILINEAR) for band in (blue, red)]
    return PictureHash(
        int.from_bytes(np.packbits(bits).tobytes(), "big"), b"".join(p.tobytes() for p in parts)
    )


def near_duplicates(
    hashes: npt.NDArray[np.uint64],
    thumbnails: Thumbnails,
    distance: int = DISTANCE,
    sides: npt.NDArray[np.int64] | None = None,
) -> npt.NDArray[np.int64]:
    """Pairs of rows that show the same picture.

    Two hashes at most ``distance`` bits apart agree in one of ``distance + 1`` bands of bits, so
    only rows that share a band are compared. Where thousands of rows look alike (the frames of a
    camera that does not move), each is paired with a few of each side only: enough to put them
    together, where all pairs would fill the memory.

    Args:
        hashes: (N,)
        thumbnails: (N, :data:`THUMBNAIL_BYTES`)
        distance: Bits that may differ.
        sides: (N,), from 0 to ``SIDES - 1``: in which split a row is already.

    Returns:
        (P, 2), the smaller row first, each pair once, sorted.
    """
    found: list[npt.NDArray[np.int64]] = [np.empty((0, 2), dtype=np.int64)]
    bounds = np.linspace(0, BITS, distance + 2).astype(int)
    masks = [np.uint64((1 << int(high)) - (1 << int(low))) for low, high in pairwise(bounds)]
    quota = _Quota(np.zeros(len(hashes), dtype=np.int64) if sides is None else sides)
    for number, mask in enumerate(masks):
        for rows in _buckets(hashes & mask):
            for first, second in _blocks(rows):
                if quota.full(first, second):
                    continue
                differ = hashes[first, None] ^ hashes[None, second]
                close = np.bitwise_count(differ) <= distance
                close &= first[:, None] < second[None, :]
                for earlier in masks[:number]:  # the pair was met in that band
                    close &= (differ & earlier) != 0
                found.append(_pairs(close, first, second, thumbnails, quota))
    return np.unique(np.concatenate(found), axis=0)


class _Quota:
    """How many pairs each row has with rows of each side; pairs beyond are dropped.

    A pair stays while it is one of the first ``PARTNERS`` for either of its rows.
    """

    def __init__(self, sides: npt.NDArray[np.int64]) -> None:
        self.sides = sides
        self.used = np.zeros(len(sides) * SIDES, dtype=np.int64)

    def full(self, first: npt.NDArray[np.int64], second: npt.NDArray[np.int64]) -> bool:
        """Whether no pair of these could stay."""
        if len(first) * len(second) < BLOCK:  # cheaper to compare than to ask
            return False
        used = self.used.reshape(-1, SIDES) >= PARTNERS
        return bool(
            used[np.ix_(first, np.unique(self.sides[second]))].all()
            and used[np.ix_(second, np.unique(self.sides[first]))].all()
        )

    def within(self, pairs: npt.NDArray[np.int64], allowed: int) -> npt.NDArray[np.int64]:
        """The pairs that are among the first ``allowed`` of one of their rows."""
        keep = np.zeros(len(pairs), dtype=bool)
        for slots in self._slots(pairs):
            order = np.argsort(slots, kind="stable")
            ranked = slots[order]
            rank = np.arange(len(ranked)) - np.searchsorted(ranked, ranked)
            keep[order] |= rank + self.used[ranked] < allowed
        return pairs[keep]

    def take(self, pairs: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Those of the pairs that stay; they are counted."""
        kept = self.within(pairs, PARTNERS)
        for slots in self._slots(kept):
            np.add.at(self.used, slots, 1)
        return kept

    def _slots(self, pairs: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
        for one, other in ((0, 1), (1, 0)):
            yield pairs[:, one] * SIDES + self.sides[pairs[:, other]]


def _buckets(values: npt.NDArray[np.uint64]) -> Iterator[npt.NDArray[np.int64]]:
    """Rows that hold the same value, for every value that two rows hold."""
    order = np.argsort(values, kind="stable")
    edges = np.flatnonzero(np.diff(values[order])) + 1
    for rows in np.split(order, edges):
        if len(rows) > 1:
            yield np.sort(rows)


def _blocks(
    rows: npt.NDArray[np.int64],
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    for start in range(0, len(rows), BLOCK):
        for other in range(start, len(rows), BLOCK):
            yield rows[start : start + BLOCK], rows[other : other + BLOCK]


def _pairs(
    close: npt.NDArray[np.bool_],
    first: npt.NDArray[np.int64],
    second: npt.NDArray[np.int64],
    thumbnails: Thumbnails,
    quota: _Quota,
) -> npt.NDArray[np.int64]:
    """Of one block of the pair matrix, the pairs that look alike and stay within the quota."""
    dense = np.count_nonzero(close) > BLOCK
    if dense:  # too many to look at singly
        close &= _nearly_alike(thumbnails[first], thumbnails[second])
    left, right = np.nonzero(close)
    pairs = np.stack([first[left], second[right]], axis=1)
    if dense:
        pairs = quota.within(pairs, 2 * PARTNERS)
    parts = [pairs[:0]]
    for start in range(0, len(pairs), 8 * BLOCK):
        part = pairs[start : start + 8 * BLOCK]
        parts.append(part[_alike(thumbnails[part[:, 0]], thumbnails[part[:, 1]])])
    found = np.concatenate(parts)
    return quota.take(found) if len(found) else found


def _nearly_alike(first: Thumbnails, second: Thumbnails) -> npt.NDArray[np.bool_]:
    """A necessary condition for :func:`_alike`, for all pairs by matrix products."""
    pixels = LUMA * LUMA
    a, b = first.astype(np.float32), second.astype(np.float32)
    luma_a, luma_b = a[:, :pixels], b[:, :pixels]
    mean_a, mean_b = luma_a.mean(axis=1), luma_b.mean(axis=1)
    lowest = np.minimum(luma_a.std(axis=1)[:, None], luma_b.std(axis=1)[None, :])
    allowed = np.clip(CONTRAST_SHARE * lowest, MIN_DIFFERENCE, MAX_DIFFERENCE) + 0.1
    luma = _squares(luma_a - mean_a[:, None], luma_b - mean_b[:, None])
    close: npt.NDArray[np.bool_] = luma <= allowed**2
    close &= np.abs(mean_a[:, None] - mean_b[None, :]) <= MAX_SHIFT + 0.1
    close &= _squares(a[:, pixels:], b[:, pixels:]) <= (MAX_DIFFERENCE + 0.1) ** 2
    return close


def _squares(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(N, M): the mean squared difference of each row of a and each row of b."""
    own = np.square(a).sum(axis=1)[:, None] + np.square(b).sum(axis=1)[None, :]
    squares: npt.NDArray[np.float32] = (own - 2 * (a @ b.T)) / a.shape[1]
    return squares


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
