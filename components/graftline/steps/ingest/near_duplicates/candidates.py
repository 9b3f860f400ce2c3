"""Which images are worth comparing: those whose thumbnails are near in their low frequencies.

A hash finds copies saved again; of a cropped or much brighter copy too many bits differ. The low
frequencies of a thumbnail change little under a crop, and not at all under another contrast once
their length is taken off. Of each image only its nearest few are compared, so that a folder of
frames of one camera costs a few comparisons an image, too.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from graftline.steps.ingest.near_duplicates.duplicates import CHROMA, LUMA, Thumbnails

FREQUENCIES = 6  # of each axis; 35 numbers without the mean
PLAIN = 2.0  # grey levels of contrast under which images are alike in that they are plain
SIMILAR = 0.7  # cosine of two images that are compared
PARTNERS = 8  # images of one side that an image is compared with
MAX_COLOUR = (8.0, 0.5)  # grey levels, and share of the colour, that thumbnails may differ by
ALL_PAIRS = 2**29  # products of all with all, beyond which neighbourhoods are searched
ROWS = 256  # at a time
PART = 8192  # thumbnails that are floats at a time
TABLES, BITS, PROBES, WINDOW = 6, 12, 4, 16  # of the search in neighbourhoods

Rows = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


def candidates(
    thumbnails: Thumbnails, new: npt.NDArray[np.bool_], sides: npt.NDArray[np.int64]
) -> Rows:
    """Pairs of rows that may show the same picture; at least one row of a pair is new.

    Args:
        thumbnails: (N, ``THUMBNAIL_BYTES``)
        new: (N,) rows that have not been compared yet.
        sides: (N,) the split that a row has; the nearest few of each are found.

    Returns:
        (P, 2), the smaller row first, each pair once, sorted.
    """
    wanted = np.flatnonzero(new)
    vectors = low_frequencies(thumbnails)
    found = [np.empty((0, 2), dtype=np.int64)]
    search = _among_all if len(wanted) * len(vectors) <= ALL_PAIRS else _among_neighbours
    for pairs in search(vectors, wanted, sides):
        colours = _colours_agree(thumbnails[pairs[:, 0]], thumbnails[pairs[:, 1]])
        found.append(np.sort(pairs[colours], axis=1))
    return np.unique(np.concatenate(found), axis=0)


def low_frequencies(thumbnails: Thumbnails) -> Floats:
    """(N, 36) of length 1: the lowest cosine frequencies of the luma, and how plain it is."""
    waves = np.cos(np.pi * np.outer(np.arange(FREQUENCIES), np.arange(LUMA) + 0.5) / LUMA)
    waves *= np.sqrt(np.where(np.arange(FREQUENCIES) == 0, 1, 2) / LUMA)[:, None]
    basis = np.kron(waves, waves).astype(np.float32)[1:]
    luma = thumbnails[:, : LUMA * LUMA]
    # In parts, and none of them small: as floats, all of them would be a kilobyte an image.
    parts = np.array_split(luma, max(1, -(-len(luma) // PART)))
    vectors = np.concatenate([part.astype(np.float32) @ basis.T for part in parts])
    plain = np.full((len(vectors), 1), LUMA * PLAIN, dtype=np.float32)
    vectors = np.concatenate([vectors, plain], axis=1)
    unit: Floats = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def _colours_agree(first: Thumbnails, second: Thumbnails) -> npt.NDArray[np.bool_]:
    start, each = LUMA * LUMA, CHROMA * CHROMA
    a, b = (one[:, start:].astype(np.float32) - 128 for one in (first, second))
    colour = np.sqrt(np.maximum(np.square(a), np.square(b)).mean(axis=1))
    differ = np.sqrt(np.square(a - b).reshape(-1, 2, each).mean(axis=(1, 2)))
    agree: npt.NDArray[np.bool_] = differ <= MAX_COLOUR[0] + MAX_COLOUR[1] * colour
    return agree


def _among_all(vectors: Floats, wanted: Rows, sides: npt.NDArray[np.int64]) -> Iterator[Rows]:
    """Each wanted row with its nearest of each side, by the products of all with all."""
    for side in np.unique(sides):
        columns = np.flatnonzero(sides == side)
        others = vectors[columns].T
        for start in range(0, len(wanted), ROWS):
            rows = wanted[start : start + ROWS]
            near = vectors[rows] @ others
            itself = np.searchsorted(columns, rows).clip(0, len(columns) - 1)
            own = np.flatnonzero(columns[itself] == rows)
            near[own, itself[own]] = -1
            left, right = np.divmod(np.flatnonzero(near.ravel() >= SIMILAR), len(columns))
            crowded = np.flatnonzero(np.bincount(left, minlength=len(rows)) > PARTNERS)
            if len(crowded):
                nearest = np.argpartition(-near[crowded], PARTNERS, axis=1)[:, :PARTNERS]
                others_too = ~np.isin(left, crowded)
                left = np.concatenate([left[others_too], np.repeat(crowded, PARTNERS)])
                right = np.concatenate([right[others_too], nearest.ravel()])
            yield np.stack([rows[left], columns[right]], axis=1)


def _among_neighbours(
    vectors: Floats, wanted: Rows, sides: npt.NDArray[np.int64]
) -> Iterator[Rows]:
    """Each wanted row with its nearest of each side, where all with all would be too many.

    In each of several tables the rows are sorted by the signs of random projections, rows of
    equal signs by one more projection (locality-sensitive hashing: Charikar, 2002). A row is
    compared with those before and after it, and with those where it would stand if one of its
    least certain signs were the other one.
    """
    rng = np.random.default_rng(0)  # the same tables in every run: a pair is found or is not
    for side in np.unique(sides):
        columns = np.flatnonzero(sides == side)
        pairs, cosine = np.empty((0, 2), dtype=np.int64), np.empty(0, dtype=np.float32)
        for _ in range(TABLES):
            planes = rng.standard_normal((vectors.shape[1] - 1, BITS + 1)).astype(np.float32)
            found = _table(vectors, vectors[:, :-1] @ planes, wanted, columns)
            # After each table only the nearest stay: the nearest of all are among them.
            pairs, cosine = _nearest(
                np.concatenate([pairs, *(p for p, _ in found)]),
                np.concatenate([cosine, *(c for _, c in found)]),
            )
        yield pairs


def _table(
    vectors: Floats, projected: Floats, wanted: Rows, columns: Rows
) -> list[tuple[Rows, Floats]]:
    powers = 1 << np.arange(BITS, dtype=np.int64)
    last_axis = ((projected[:, -1].clip(-8, 8) + 8) * 2**20).astype(np.int64)
    codes = (projected[:, :-1] > 0) @ powers
    keys = (codes << 32) | last_axis
    order = columns[np.argsort(keys[columns], kind="stable")]
    ordered = keys[order]
    doubtful = np.argsort(np.abs(projected[wanted, :-1]), axis=1)[:, : PROBES - 1]
    flips = np.concatenate([np.zeros((len(wanted), 1), np.int64), powers[doubtful]], axis=1)
    found = []
    for probe in range(PROBES):
        code = codes[wanted] ^ flips[:, probe]
        at = np.searchsorted(ordered, (code << 32) | last_axis[wanted])
        for step in range(-WINDOW, WINDOW):
            there = (at + step).clip(0, len(order) - 1)
            hit = np.flatnonzero((ordered[there] >> 32 == code) & (order[there] != wanted))
            rows, others = wanted[hit], order[there[hit]]
            cosine = np.einsum("ij,ij->i", vectors[rows], vectors[others])
            close = cosine >= SIMILAR
            found.append((np.stack([rows[close], others[close]], axis=1), cosine[close]))
    return found


def _nearest(pairs: Rows, cosine: Floats) -> tuple[Rows, Floats]:
    """Of each first row, the pairs with its nearest few, and how near they are."""
    pairs, first = np.unique(pairs, axis=0, return_index=True)
    order = np.lexsort((-cosine[first], pairs[:, 0]))
    pairs, cosine = pairs[order], cosine[first][order]
    near = np.arange(len(pairs)) - np.searchsorted(pairs[:, 0], pairs[:, 0]) < PARTNERS
    return pairs[near], cosine[near]
