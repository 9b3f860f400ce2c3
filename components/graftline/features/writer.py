"""Writing features as they are computed: each batch at once, beside the computation."""

import queue
import threading
from collections.abc import Mapping, Sequence

import numpy as np

from graftline.errors import DataError
from graftline.features.parts import Ids, Vectors, sorted_once
from graftline.features.store import FeatureStore

FOLD_BYTES = 16 << 20  # what a writer gathers before it folds its own small parts
FOLD_PARTS = 64
WAITING_BATCHES = 2  # for the store, before the network waits


class PartWriter:
    """Writes batches as they come, beside the computation, and folds them as they gather.

    Leaving the ``with`` block waits until everything is stored. A failed write raises at the next
    call.

    Args:
        features: Where to.
        dim: Width of the vectors.
        about: What each part's own metadata says.
    """

    def __init__(self, features: FeatureStore, dim: int, about: Mapping[str, str]) -> None:
        self._features, self._about = features, {**about, "dim": str(dim)}
        self._waiting: queue.Queue[tuple[Ids, Vectors] | None] = queue.Queue(WAITING_BATCHES)
        self._error: BaseException | None = None
        self._mine: list[tuple[str, Ids, Vectors]] = []
        self._thread = threading.Thread(target=self._work, name="features", daemon=True)

    def __enter__(self) -> "PartWriter":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._waiting.put(None)
        self._thread.join()
        if kind is None:
            self._raise()

    def add(self, ids: Ids, vectors: Vectors) -> None:
        """Hand over one batch; it is written at once, beside the caller.

        Raises:
            DataError: A vector is not finite: it would be reused for ever.
        """
        self._raise()
        broken = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        if len(broken):
            raise DataError(
                f"The network gives values that are not finite for {len(broken)} of "
                f"{len(vectors)} images, the first {ids[broken[0]].tobytes().hex()}.",
                why="Its weights are damaged, or it overflows at this precision.",
                fix="Try `precision: fp32`, and check the weights.",
            )
        self._waiting.put((ids, vectors))

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        last = False
        while not last:
            batches = [self._waiting.get()]
            while not self._waiting.empty():  # a slow store gets larger parts
                batches.append(self._waiting.get())
            last = batches[-1] is None
            full = [batch for batch in batches if batch is not None]
            if self._error is not None:
                continue  # keep taking, so that the caller never waits for ever
            try:
                if full:
                    self._write(full)
                if last or self._is_much():
                    self._fold()
            except BaseException as error:
                self._error = error

    def _write(self, batches: Sequence[tuple[Ids, Vectors]]) -> None:
        ids = np.concatenate([ids for ids, _ in batches])
        vectors = np.concatenate([vectors for _, vectors in batches])
        key = self._features.write_part(ids, vectors, self._about)
        self._mine.append((key, ids, vectors))

    def _is_much(self) -> bool:
        size = sum(vectors.nbytes for _, _, vectors in self._mine)
        return len(self._mine) >= FOLD_PARTS or size >= FOLD_BYTES

    def _fold(self) -> None:
        """One part in place of this writer's own small ones."""
        self._features.describe_again()
        if len(self._mine) > 1:
            ids, vectors = sorted_once(
                np.concatenate([ids for _, ids, _ in self._mine]),
                np.concatenate([vectors for _, _, vectors in self._mine]),
            )
            kept = self._features.write_part(ids, vectors, self._about)
            for key, _, _ in self._mine:
                if key != kept:
                    self._features.store.delete(key)
        self._mine = []
