"""The form of stored features: Parquet parts of image id and vector, and finding ids in them."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from graftline.schema import check_schema_version
from graftline.storage.base import ObjectInfo, Store

Ids = npt.NDArray[np.uint8]
Vectors = npt.NDArray[np.float32]
Content = tuple[Ids, Vectors]

SCHEMA_VERSION = 1


class IdIndex:
    """Finds rows by binary image id, without a Python object for each.

    Args:
        ids: (N, 32) SHA-256 digests, all different.
    """

    def __init__(self, ids: Ids) -> None:
        keys = _keys(ids)
        self._order = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]
        self._ids = ids

    def __len__(self) -> int:
        return len(self._ids)

    def rows(self, ids: Ids) -> npt.NDArray[np.int64]:
        """The row of each id, -1 for one that is not here."""
        if not len(self._keys):
            return np.full(len(ids), -1, np.int64)
        keys = _keys(ids)
        at = np.searchsorted(self._keys, keys)
        found = np.full(len(ids), -1, np.int64)
        open_ = np.arange(len(ids))
        while len(open_):  # once, unless two ids share their first eight bytes
            at_open = at[open_]
            inside = at_open < len(self._keys)
            open_, at_open = open_[inside], at_open[inside]
            same = self._keys[at_open] == keys[open_]
            open_, at_open = open_[same], at_open[same]
            rows = self._order[at_open]
            equal = (self._ids[rows] == ids[open_]).all(axis=1)
            found[open_[equal]] = rows[equal]
            open_ = open_[~equal]
            at[open_] += 1
        return found


def binary_ids(image_ids: pa.ChunkedArray | Sequence[str]) -> Ids:
    """Hexadecimal image ids to (N, 32) bytes."""
    column = image_ids if isinstance(image_ids, pa.ChunkedArray) else pa.chunked_array([image_ids])
    joined = b"".join(
        np.frombuffer(chunk.buffers()[2], np.uint8)[_span(chunk)].tobytes()
        for chunk in column.cast(pa.large_string()).chunks
        if len(chunk)
    )
    return np.frombuffer(bytes.fromhex(joined.decode("ascii")), np.uint8).reshape(-1, 32)


@dataclass(frozen=True)
class Part:
    """A part by name.

    Attributes:
        key: Relative to the fingerprint's folder.
        rows: How many vectors it holds.
        size: In bytes.
    """

    key: str
    rows: int
    size: int

    @property
    def digest(self) -> str:
        """SHA-256 that its bytes must have."""
        return self.key.rpartition("/")[2].partition("-")[0]


def encode_part(ids: Ids, vectors: Vectors, about: Mapping[str, str]) -> bytes:
    """A part's bytes; vectors are little-endian float32, side by side.

    Args:
        ids: (N, 32).
        vectors: (N, D).
        about: What the file's own metadata says.
    """
    width = vectors.shape[1]
    plain = np.ascontiguousarray(vectors, dtype="<f4")
    columns = [
        pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(size), len(ids), [None, pa.py_buffer(content.reshape(-1).view(np.uint8))]
        )
        for size, content in ((32, np.ascontiguousarray(ids)), (4 * width, plain))
    ]
    schema = pa.schema(
        [("image_id", pa.binary(32)), ("vector", pa.binary(4 * width))],
        metadata={
            **about,
            "schema_version": str(SCHEMA_VERSION),
            "dtype": "float32",
            "dim": str(width),
        },
    )
    sink = pa.BufferOutputStream()
    pq.write_table(
        pa.Table.from_arrays(columns, schema=schema),
        sink,
        compression="none",  # float32 features hardly shrink
        use_dictionary=False,
        write_statistics=False,
        write_page_checksum=True,
        row_group_size=max(1, len(ids)),
    )
    data: bytes = sink.getvalue().to_pybytes()
    return data


def decode_part(data: bytes, part: Part) -> Content:
    """Ids and vectors of a part.

    Raises:
        DamagedPart: The bytes are not those that were written, or no part at all.
        SchemaVersionError: Another version of Graftline wrote it.
    """
    if hashlib.sha256(data).hexdigest() != part.digest:
        raise DamagedPart("its SHA-256 is not the one in its name")
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        _check_version(file, part)
        table = file.read(columns=["image_id", "vector"])
        ids, vectors = _fixed(table["image_id"], np.uint8), _fixed(table["vector"], "<f4")
    except PARQUET_ERRORS as error:
        raise DamagedPart(_first_line(error)) from error
    _check_shape(ids, part)
    return ids, vectors


def read_ids(store: Store, part: Part) -> Ids:
    """The ids of a part without its vectors, compared with the pages' checksums.

    Raises:
        DamagedPart: They are not what was written.
        SchemaVersionError: Another version of Graftline wrote the part.
        StoreNotFound: The part is gone.
    """
    try:
        file = pq.ParquetFile(
            pa.PythonFile(_Ranges(store, part), mode="r"), page_checksum_verification=True
        )
        _check_version(file, part)
        ids = _fixed(file.read(columns=["image_id"])["image_id"], np.uint8)
    except PARQUET_ERRORS as error:
        raise DamagedPart(_first_line(error)) from error
    _check_shape(ids, part)
    return ids


class DamagedPart(Exception):  # noqa: N818 -- caught where parts are read, never shown by itself
    """A part cannot be used; the message says why."""


# What Parquet raises over bytes that are not Parquet.
PARQUET_ERRORS = (pa.ArrowException, OSError, ValueError, KeyError, TypeError, IndexError)


def _check_version(file: pq.ParquetFile, part: Part) -> None:
    about = file.schema_arrow.metadata or {}
    found = about.get(b"schema_version", b"").decode("ascii", "replace")
    if not found:
        raise DamagedPart("it is a Parquet file, but none of stored features")
    if found != str(SCHEMA_VERSION):
        check_schema_version(
            {"schema_version": int(found) if found.isdigit() else found},
            SCHEMA_VERSION,
            f"Part {part.key} of the stored features",
        )


def _check_shape(ids: Ids, part: Part) -> None:
    if ids.shape != (part.rows, 32):
        raise DamagedPart(f"it holds {ids.shape} ids, not the {part.rows} of its name")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class _Ranges:
    """An object of a store as a file that can be read in pieces."""

    def __init__(self, store: Store, part: Part) -> None:
        self._store, self._part, self._position = store, part, 0
        self.closed = False

    def read(self, size: int = -1) -> bytes:
        left = self._part.size - self._position
        length = left if size < 0 else min(size, left)
        if length <= 0:
            return b""
        data = self._store.read_range(self._part.key, self._position, length)
        self._position += length
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        base = (0, self._position, self._part.size)[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self.closed = True


def _fixed(column: pa.ChunkedArray, dtype: Any) -> npt.NDArray[Any]:
    """A fixed-size binary column as rows of an array, not copied where it is one chunk."""
    chunks = []
    for chunk in column.chunks:
        width = chunk.type.byte_width
        content = np.frombuffer(chunk.buffers()[1], np.uint8)
        content = content[chunk.offset * width : (chunk.offset + len(chunk)) * width]
        chunks.append(content.view(dtype).reshape(len(chunk), width // np.dtype(dtype).itemsize))
    return chunks[0] if len(chunks) == 1 else np.concatenate(chunks)


def part_of(info: ObjectInfo) -> Part | None:
    """The part that a listed object is, None for anything else."""
    digest, _, rows = info.key.rpartition("/")[2].removesuffix(".parquet").partition("-")
    if len(digest) != 64 or not rows.isdigit() or not info.key.endswith(".parquet"):
        return None
    return Part(info.key, int(rows), info.size)


def sorted_once(ids: Ids, vectors: Vectors) -> Content:
    """Sorted by id, each id once: the same rows give the same part whoever folds them."""
    order = np.lexsort(tuple(_words(ids)[:, column] for column in (3, 2, 1, 0)))
    ids = ids[order]
    first = np.ones(len(ids), bool)
    first[1:] = (ids[1:] != ids[:-1]).any(axis=1)
    return ids[first], vectors[order[first]]


def repeated(parts: Sequence[Ids]) -> list[npt.NDArray[np.bool_]]:
    """Which rows of each part an earlier part holds, or an earlier row of the same one."""
    if not parts:
        return []
    words = _words(np.concatenate(parts))
    order = np.lexsort(tuple(words[:, column] for column in (3, 2, 1, 0)))  # stable
    again = np.zeros(len(words), bool)
    again[order[1:]] = (words[order[1:]] == words[order[:-1]]).all(axis=1)
    return np.split(again, np.cumsum([len(ids) for ids in parts])[:-1])


def unique_ids(ids: Ids) -> Ids:
    """Sorted, each once."""
    return sorted_once(ids, np.zeros((len(ids), 0), np.float32))[0]


def _words(ids: Ids) -> npt.NDArray[np.uint64]:
    return np.ascontiguousarray(ids).view(">u8").astype(np.uint64)


def _keys(ids: Ids) -> npt.NDArray[np.uint64]:
    """The first eight bytes of each id, in byte order."""
    return _words(ids)[:, 0].copy()


def _span(chunk: pa.Array) -> slice:
    """The bytes of a large string array's values."""
    offsets = np.frombuffer(chunk.buffers()[1], np.int64)[chunk.offset :]
    return slice(int(offsets[0]), int(offsets[len(chunk)]))
