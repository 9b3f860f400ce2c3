"""An object of a store as a file: only what is read of it is asked for."""

import io

from typing_extensions import override

from graftline.storage.base import Store


class RangedFile(io.RawIOBase):
    """An object in a store as a file that can be read from any position."""

    def __init__(self, store: Store, key: str) -> None:
        super().__init__()
        self.store, self.key = store, key
        self.length = store.size(key)
        self.position = 0

    @override
    def readable(self) -> bool:
        return True

    @override
    def seekable(self) -> bool:
        return True

    @override
    def tell(self) -> int:
        return self.position

    @override
    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.length}[whence]
        if start + offset < 0:
            raise ValueError("a position before the beginning of the object")
        self.position = start + offset
        return self.position

    @override
    def read(self, size: int = -1) -> bytes:
        left = max(0, self.length - self.position)
        count = left if size is None or size < 0 else min(size, left)
        data = self.store.read_range(self.key, self.position, count) if count else b""
        self.position += len(data)
        return data

    @override
    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
