"""Stored features: append-only Parquet parts of image id and vector, under a fingerprint.

    features/<fingerprint>/backbone.json                        what made them
    features/<fingerprint>/engine.json                          which engine computes them
    features/<fingerprint>/agreement/<engine>.json              with PyTorch in fp32, on a sample
    features/<fingerprint>/parts/<sha256>-<rows>.parquet        written once, never changed
    features/<fingerprint>/damaged/<sha256>-<rows>.parquet      bytes that are not what they were

Each batch becomes a part as soon as it is computed, so a killed run loses at most the batches in
flight: the one being computed and, where the store is slow, those that wait for it. Small parts
are folded into larger ones: the larger one is written before the small ones are removed, so
readers find every row at every moment, some of them twice. Several runs may fill the same
fingerprint; a row that two of them computed is kept once by the next run that reads it.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from graftline.errors import IntegrityError, StoreNotFound
from graftline.features.engine_record import KEY as ENGINE_KEY
from graftline.features.engine_record import EngineRecord, read_engine, record_engine
from graftline.features.part_reader import PartReader, width
from graftline.features.parts import (
    DamagedPart,
    IdIndex,
    Ids,
    Part,
    Vectors,
    encode_part,
    repeated,
    sorted_once,
    unique_ids,
)
from graftline.schema import check_schema_version
from graftline.storage import commit
from graftline.storage.base import Store

PART_BYTES = 64 << 20  # a folded part; with the readers below it bounds the memory of a reader
SMALL_PARTS = 32  # more parts than this below a quarter of PART_BYTES are folded after a run

SCHEMA_VERSION = 1  # of backbone.json

log = logging.getLogger(__name__)


class FeatureStore:
    """The stored features of one fingerprint.

    Attributes:
        fingerprint: Of the backbone, its weights, preprocessing and precision.
        store: The part of the store below it.
        reader: Of its parts.
    """

    def __init__(self, store: Store, fingerprint: str) -> None:
        self.fingerprint = fingerprint
        self.store = store.child(f"features/{fingerprint}")
        self.reader = PartReader(self.store, fingerprint)
        self._said: dict[str, dict[str, Any]] = {}
        self._read_twice = False  # a row was found in more than one part

    def describe(self, description: Mapping[str, Any]) -> None:
        """Say what made these features, once."""
        self._said["backbone.json"] = {"schema_version": SCHEMA_VERSION, **description}
        self.describe_again()

    def describe_again(self) -> None:
        """Say it once more: a collection of garbage may have removed it before the first part."""
        for key, content in self._said.items():
            if not self.store.exists(key):
                commit.create(self.store, key, content)

    def engine(self) -> EngineRecord | None:
        """What these features are computed with; None where nothing was computed yet."""
        return read_engine(self.store)

    def keep_engine(self, record: EngineRecord) -> EngineRecord:
        """Say what computes these features, once; what counts comes back, another run's perhaps."""
        counts = record_engine(self.store, record)
        self._said[ENGINE_KEY] = counts.to_json()
        return counts

    def description(self) -> dict[str, Any]:
        """What made these features; empty where it was never said, or is damaged.

        Raises:
            SchemaVersionError: Another version of Graftline said so.
        """
        try:
            content = commit.read(self.store, "backbone.json").content
        except (StoreNotFound, IntegrityError):
            return {}
        if "schema_version" not in content:
            return {}
        what = f"The description of the features {self.fingerprint}"
        check_schema_version(content, SCHEMA_VERSION, what)
        return content

    def keep_agreement(self, engine: str, agreement: Mapping[str, float]) -> None:
        """Say how close an engine that computed some of these features is to PyTorch in fp32."""
        content = {"schema_version": SCHEMA_VERSION, **agreement}
        commit.overwrite(self.store, f"agreement/{engine}.json", content)

    def agreement(self) -> dict[str, float]:
        """Of the engine that agrees least of those that computed them; empty where none said so."""
        found = []
        for info in self.store.list("agreement/"):
            try:
                content = commit.read(self.store, info.key).content
                if content.pop("schema_version") == SCHEMA_VERSION:
                    found.append((float(content["cosine"]), content))
            except (StoreNotFound, IntegrityError, ValueError, KeyError, TypeError, AttributeError):
                continue
        return min(found, key=lambda each: each[0])[1] if found else {}

    def forget(self) -> None:
        """Remove what is said of features that are no more."""
        agreements = [info.key for info in self.store.list("agreement/")]
        for key in ["backbone.json", ENGINE_KEY, *agreements]:
            self.store.delete(key)

    def parts(self) -> list[Part]:
        """All parts, by name."""
        return self.reader.parts()

    def ids(self) -> Ids:
        """(N, 32) ids that are stored, each once. Reads the id columns only."""
        found = [ids for ids, _ in self.reader.each(self.parts(), vectors=False)]
        return unique_ids(np.concatenate(found)) if found else np.zeros((0, 32), np.uint8)

    def load(self, index: IdIndex, matrix: Vectors, filled: npt.NDArray[np.bool_]) -> None:
        """Copy the stored vectors of wanted images into their rows.

        Args:
            index: The wanted images.
            matrix: (N, D), written in place.
            filled: (N,), set where a row was written.

        A damaged part, and one of another width, is named, put under ``damaged/`` and left out.
        Memory is bounded by the size of a few parts.

        Raises:
            SchemaVersionError: Another version of Graftline wrote a part.
        """
        for ids, vectors in self.reader.each(self.parts(), vectors=True, dim=matrix.shape[1]):
            rows = index.rows(ids)
            wanted = rows >= 0
            known = filled[rows[wanted]]
            self._read_twice |= bool(known.any())
            wanted[wanted] = ~known
            matrix[rows[wanted]] = vectors[wanted]
            filled[rows[wanted]] = True

    def write_part(self, ids: Ids, vectors: Vectors, about: Mapping[str, str]) -> str:
        """Write one part; its key comes back. The same content gives the same part."""
        data = encode_part(ids, vectors, about)
        pattern = f"parts/{commit.ANY}-{len(ids)}.parquet"
        return commit.put_bytes(self.store, data, pattern, repair=True)

    def compact(self) -> int:
        """Fold small parts into large ones where there are many; how many were folded.

        Rows that :meth:`load` found in several parts are kept in one of them.
        """
        small = [part for part in self.parts() if part.size < PART_BYTES // 4]
        folded = 0
        if len(small) > SMALL_PARTS:
            for group in _groups(small):
                folded += self._fold(group)
        if self._read_twice:
            self._drop_repeated()
        return folded

    def _drop_repeated(self) -> None:
        """Of a row in several parts, keep the one in the first part by name.

        Whoever else does so at the same time, with other parts in sight, never removes the copy in
        the first part that either sees.
        """
        read = [
            (part, ids)
            for part in self.parts()
            for ids, _ in self.reader.each([part], vectors=False, again=False)
        ]
        again = repeated([ids for _, ids in read])
        for (part, _), more in zip(read, again, strict=True):
            if more.any():
                self._rewrite(part, partial(_all_but, more))  # a part never changes
        self._read_twice = False

    def unused(self, part: Part, used: IdIndex) -> tuple[int, int]:
        """Count what of a part no one uses; nothing in the store is touched.

        Returns:
            Vectors in the part, and those of them whose images are not in ``used``; none where
            the part is damaged.
        """
        total = unwanted = 0
        for ids, _ in self.reader.each([part], vectors=False, again=False, move_damaged=False):
            total += len(ids)
            unwanted += int((used.rows(ids) < 0).sum())
        return total, unwanted

    def drop_unused(self, part: Part, used: Callable[[], IdIndex]) -> None:
        """Remove what of a part no one uses.

        Args:
            part: Which.
            used: Says what is used now; asked when the part has been read.
        """
        self._rewrite(part, lambda ids: used().rows(ids) >= 0)

    def _rewrite(self, part: Part, wanted: Callable[[Ids], npt.NDArray[np.bool_]]) -> None:
        """Put a part with the wanted rows alone in its place; none where none is wanted."""
        for ids, vectors in self.reader.each([part], vectors=True, again=False):
            stays = wanted(ids)
            if stays.all():
                continue
            if stays.any():
                self.write_part(ids[stays], vectors[stays], {})
            self.store.delete(part.key)

    def check(self) -> Iterator[tuple[Part, str | None]]:
        """Read every part; each with what is wrong with it, None for nothing. Changes nothing."""
        for part in self.parts():
            try:
                self.reader.content(part)
            except StoreNotFound:
                continue  # folded meanwhile
            except DamagedPart as reason:
                yield part, str(reason)
            else:
                yield part, None

    def _fold(self, parts: Sequence[Part]) -> int:
        read = list(self.reader.each(parts, vectors=True, again=False))
        if len(read) < len(parts) or len({width(content) for content in read}) > 1:
            return 0  # another run is folding the same ones, or one is damaged: next time
        ids, vectors = sorted_once(
            np.concatenate([ids for ids, _ in read]),
            np.concatenate([vectors for _, vectors in read]),
        )
        kept = self.write_part(ids, vectors, {"folded": str(len(parts))})
        for part in parts:
            if part.key != kept:
                self.store.delete(part.key)
        return len(parts)


def _all_but(rows: npt.NDArray[np.bool_], _: Ids) -> npt.NDArray[np.bool_]:
    return ~rows


def _groups(parts: Sequence[Part]) -> Iterator[list[Part]]:
    """Parts that together make one of about ``PART_BYTES``; never a single one."""
    group: list[Part] = []
    for part in parts:
        if group and sum(each.size for each in group) + part.size > PART_BYTES:
            if len(group) > 1:
                yield group
            group = []
        group.append(part)
    if len(group) > 1:
        yield group
