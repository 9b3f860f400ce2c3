"""Shards: uncompressed tar files that hold the images in the store.

Each image is a pair that WebDataset reads, ``<image id>.<ext>`` and ``<image id>.json`` with its
label at the time of packing (the manifest has the last word). A shard is named by the sha256 of
its bytes, written once, and read by ranges.
"""

import dataclasses
import hashlib
import json
import tarfile
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO

from graftline.errors import IntegrityError
from graftline.files import os_errors
from graftline.storage.base import Store

SHARD_BYTES = 128 * 2**20
BLOCK = 512
RANGE_BYTES = 8 * 2**20  # the longest range that is read at once
GAP_BYTES = 64 * 2**10  # reading this much in vain is cheaper than another request
READERS = 8
EXTENSIONS = {"jpeg": "jpg", "mpo": "jpg", "tiff": "tif", "jpeg2000": "jp2"}


@dataclasses.dataclass(frozen=True, slots=True)
class ByteRange:
    """Where an image's bytes stand: ``length`` bytes from ``offset`` of the shard."""

    shard: str
    offset: int
    length: int


def shard_key(shard: str) -> str:
    """The store's key for a shard."""
    return f"shards/{shard}.tar"


class ShardWriter:
    """Packs images into shards, one after the other, on local disk and then in the store.

    The same images in the same order give the same shards, so work that was interrupted and is
    done again leaves nothing double.
    """

    def __init__(self, store: Store, *, shard_bytes: int = SHARD_BYTES) -> None:
        self.store = store
        self.shard_bytes = shard_bytes
        self.byte_ranges: dict[str, ByteRange] = {}
        self._pending: list[tuple[str, int, int]] = []
        self._file: IO[bytes] | None = None
        self._digest = hashlib.sha256()
        self._position = 0

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        elif self._file is not None:
            self._file.close()
            Path(self._file.name).unlink(missing_ok=True)

    def add(self, image_id: str, data: bytes, image_format: str, label: str) -> None:
        """Append an image. Its place is known once its shard is full or closed."""
        if self._file is None:
            with os_errors(tempfile.gettempdir(), "write"):
                self._file = tempfile.NamedTemporaryFile(suffix=".tar", delete=False)  # noqa: SIM115
        extension = EXTENSIONS.get(image_format, image_format)
        note = json.dumps({"label": label}, ensure_ascii=False).encode()
        self._pending.append((image_id, self._position + BLOCK, len(data)))
        # In one piece: each call gives way to the threads that decode, and has to wait for them.
        self._append(_member(f"{image_id}.{extension}", data) + _member(f"{image_id}.json", note))
        if self._position >= self.shard_bytes:
            self.close()

    def _append(self, data: bytes) -> None:
        assert self._file is not None
        with os_errors(self._file.name, "write"):
            self._file.write(data)
        self._digest.update(data)
        self._position += len(data)

    def close(self) -> None:
        """Finish the open shard and put it in the store."""
        if self._file is None:
            return
        self._append(b"\0" * 2 * BLOCK)
        path = Path(self._file.name)
        try:
            with os_errors(self._file.name, "write"):
                self._file.close()
            shard = self._digest.hexdigest()
            self.store.upload(path, shard_key(shard), if_absent=True)
        finally:
            path.unlink(missing_ok=True)
        for image_id, offset, length in self._pending:
            self.byte_ranges[image_id] = ByteRange(shard, offset, length)
        self._file, self._pending, self._position = None, [], 0
        self._digest = hashlib.sha256()


def _member(name: str, data: bytes) -> bytes:
    """A file as it is in a tar archive: one block of header, then the bytes."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o644
    return b"".join([info.tobuf(tarfile.USTAR_FORMAT), data, b"\0" * (-len(data) % BLOCK)])


def read_ranges(store: Store, wanted: Sequence[tuple[str, ByteRange]]) -> Iterator[bytes]:
    """The images' bytes, in the order asked for, each compared with its sha256.

    Neighbours within a shard are read as one range, and a few ranges are read ahead: at most
    ``READERS * RANGE_BYTES`` of memory, or that many single images where they are larger.

    Args:
        store: Where the shards are.
        wanted: Image ids and their places.

    Raises:
        IntegrityError: The bytes are not the image's, twice in a row.
    """
    ranges = _coalesced([byte_range for _, byte_range in wanted])
    with ThreadPoolExecutor(READERS) as pool:
        ahead: deque[Future[list[bytes]]] = deque()
        try:
            for start, stop in ranges:
                ahead.append(pool.submit(_read_run, store, wanted[start:stop]))
                if len(ahead) > READERS:
                    yield from ahead.popleft().result()
            while ahead:
                yield from ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


def _coalesced(byte_ranges: Sequence[ByteRange]) -> Iterator[tuple[int, int]]:
    """Index ranges of places that follow each other closely enough to be read as one."""
    start = 0
    for index in range(1, len(byte_ranges) + 1):
        if index < len(byte_ranges):
            first, last, byte_range = byte_ranges[start], byte_ranges[index - 1], byte_ranges[index]
            gap = byte_range.offset - (last.offset + last.length)
            near = byte_range.shard == first.shard and 0 <= gap <= GAP_BYTES
            if near and byte_range.offset + byte_range.length - first.offset <= RANGE_BYTES:
                continue
        if index > start:
            yield start, index
        start = index


def _read_run(store: Store, run: Sequence[tuple[str, ByteRange]]) -> list[bytes]:
    first, last = run[0][1], run[-1][1]
    length = last.offset + last.length - first.offset
    block = store.read_range(shard_key(first.shard), first.offset, length)
    images = []
    for image_id, byte_range in run:
        start = byte_range.offset - first.offset
        data = block[start : start + byte_range.length]
        if hashlib.sha256(data).hexdigest() != image_id:
            data = _read_again(store, image_id, byte_range)
        images.append(data)
    return images


def _read_again(store: Store, image_id: str, byte_range: ByteRange) -> bytes:
    key = shard_key(byte_range.shard)
    data = store.read_range(key, byte_range.offset, byte_range.length)
    if hashlib.sha256(data).hexdigest() != image_id:
        raise IntegrityError(
            f"Image {image_id} in {store.uri}/{key} is damaged",
            why=f"the {byte_range.length} bytes at {byte_range.offset} do not have its sha256",
            fix="Remove that shard and run `ingest` again: the images are packed again.",
        )
    return data
