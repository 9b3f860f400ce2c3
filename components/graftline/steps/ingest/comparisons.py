"""Comparing images: candidates by their thumbnails, then by their pixels, each pair once, ever.

An answer depends on the two images alone and is remembered, so a run compares what is new with
everything, and nothing again. The network's features would be another judge, but `ingest` comes
before them and runs where no network is; and features say that two pictures are of one kind,
where what leaks from one split into another is the picture itself.
"""

import dataclasses
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, overload

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits
from typing_extensions import override

from graftline import machine
from graftline.data.shards import read_ranges
from graftline.images.decode import decode_image
from graftline.progress import Progress
from graftline.steps.ingest.near_duplicates.candidates import candidates
from graftline.steps.ingest.near_duplicates.duplicates import near_duplicates
from graftline.steps.ingest.near_duplicates.same_picture import (
    BATCH,
    DETAIL_BYTES,
    detail_of,
    same_picture,
)
from graftline.storage.base import Store

if TYPE_CHECKING:
    from graftline.steps.ingest.known import Known

TINY = 32  # pixels of the longer side up to which the thumbnail shows all there is
ASPECT = 1.35  # the most that a crop changes the ratio of the sides
AHEAD = 64  # images that are decoded at a time

Rows = npt.NDArray[np.int64]


@dataclasses.dataclass
class Comparisons:
    """What is known of pairs.

    Attributes:
        compared: Ids of images that have all been compared with one another.
        answers: Whether two images show the same picture, by their ids, the smaller first.
    """

    compared: set[str] = dataclasses.field(default_factory=set)
    answers: dict[tuple[str, str], bool] = dataclasses.field(default_factory=dict)

    def compare(
        self,
        ids: Sequence[str],
        known: Mapping[str, "Known"],
        sides: npt.NDArray[np.int64],
        store: Store,
        max_pixels: int,
    ) -> list[tuple[int, int]]:
        """Positions of images that show the same picture, the smaller first, sorted.

        Args:
            ids: Of the images, sorted.
            known: What is known of them, by id.
            sides: The split of each one, as a number; newcomers meet every side.
            store: Holds their bytes.
            max_pixels: Of an image.
        """
        images = _Images(ids, known)
        new = np.array([i not in self.compared for i in ids], dtype=bool)
        if new.any():
            asked = [
                (int(a), int(b))
                for a, b in _candidates(images, new, sides)
                if (ids[a], ids[b]) not in self.answers
            ]
            for (a, b), same in zip(asked, _answers(images, asked, store, max_pixels), strict=True):
                self.answers[ids[a], ids[b]] = bool(same)
            self.compared = set(ids)
        if not self.answers:
            return []
        row_of = {image_id: index for index, image_id in enumerate(ids)}
        return sorted(
            (row_of[a], row_of[b])
            for (a, b), same in self.answers.items()
            if same and a in row_of and b in row_of
        )


class _Images(Sequence["Known"]):
    """What is known of images, by their position; asked for one by one."""

    def __init__(self, ids: Sequence[str], known: Mapping[str, "Known"]) -> None:
        self.ids, self.known = ids, known

    @overload
    def __getitem__(self, index: int) -> "Known": ...
    @overload
    def __getitem__(self, index: slice) -> "_Images": ...
    @override
    def __getitem__(self, index: int | slice) -> "Known | _Images":
        if isinstance(index, slice):
            return _Images(self.ids[index], self.known)
        return self.known[self.ids[index]]

    @override
    def __len__(self) -> int:
        return len(self.ids)


def _candidates(
    images: Sequence["Known"], new: npt.NDArray[np.bool_], sides: npt.NDArray[np.int64]
) -> Rows:
    packed = bytearray()  # joined as they come: a list of all pieces would be as large again
    for one in images:
        packed += one.picture_hash.thumbnail
    thumbnails = np.frombuffer(packed, dtype=np.uint8).reshape(len(images), -1)
    tiny = np.array([max(one.width, one.height) <= TINY for one in images], dtype=bool)
    pairs = [np.empty((0, 2), dtype=np.int64)]
    if not tiny.all():
        found = candidates(thumbnails, new, sides)
        shapes = np.array([one.width / one.height for one in images])
        ratio = shapes[found[:, 0]] / shapes[found[:, 1]]
        fits = (ratio <= ASPECT) & (ratio >= 1 / ASPECT)
        pairs.append(found[fits & ~tiny[found].all(axis=1)])
    if (tiny & new).any():
        # Their pixels say no more than the thumbnail: digits of one writer would all be alike
        # if they could be moved and lit as larger pictures are.
        rows = np.flatnonzero(tiny)
        hashes = np.array(
            [images[row].picture_hash.dhash for row in rows.tolist()], dtype=np.uint64
        )
        pairs.append(rows[near_duplicates(hashes, thumbnails[rows], sides=sides[rows])])
    return np.concatenate(pairs)


def _answers(
    images: Sequence["Known"], asked: Sequence[tuple[int, int]], store: Store, max_pixels: int
) -> npt.NDArray[np.bool_]:
    """Whether pairs show the same picture; their images are read from the store once more."""
    if not asked:
        return np.empty(0, dtype=bool)
    pairs = np.array(asked, dtype=np.int64)
    rows = np.unique(pairs)
    with tempfile.TemporaryFile() as file:  # 27 kB an image: too much to hold for a large set
        details = np.memmap(file, np.uint8, "w+", shape=(len(rows), DETAIL_BYTES))
        # Threads for batches, none within: small products cost more to share than to do.
        with threadpool_limits(1, "blas"), ThreadPoolExecutor(machine.cores()) as pool:
            for index, detail in _details(images, rows, store, max_pixels, pool):
                details[index] = detail
            at = np.searchsorted(rows, pairs)
            parts = [at[start : start + BATCH] for start in range(0, len(at), BATCH)]
            with Progress("comparing look-alikes", len(at)) as bar:
                answers = []
                for part, same in zip(
                    parts,
                    pool.map(lambda p: same_picture(details[p[:, 0]], details[p[:, 1]]), parts),
                    strict=True,
                ):
                    answers.append(same)
                    bar.advance(len(part))
        return np.concatenate(answers)


def _details(
    images: Sequence["Known"],
    rows: Rows,
    store: Store,
    max_pixels: int,
    pool: ThreadPoolExecutor,
) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
    """Position in ``rows`` and detail of each, in the order in which the store is read fastest."""
    chosen = [images[row] for row in rows.tolist()]
    order = sorted(
        range(len(chosen)), key=lambda i: (chosen[i].byte_range.shard, chosen[i].byte_range.offset)
    )

    def detail(data: bytes) -> npt.NDArray[np.uint8]:
        return detail_of(decode_image(data, max_pixels=max_pixels).pixels)

    wanted = [(chosen[i].image_id, chosen[i].byte_range) for i in order]
    waiting: list[bytes] = []
    done = 0
    for data in read_ranges(store, wanted):
        waiting.append(data)
        if len(waiting) == AHEAD or done + len(waiting) == len(order):
            for one in pool.map(detail, waiting):
                yield order[done], one
                done += 1
            waiting = []
