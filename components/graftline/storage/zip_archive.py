"""A ZIP archive as a store that can only be read: its members are objects.

Nothing is unpacked to disk. Only the archive's directory and what is asked for are read, also on
S3. A member's version is the checksum of its content, so another archive of the same files holds
nothing new.
"""

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import IO, NoReturn, cast

from typing_extensions import override

from graftline.errors import StoreError, StoreNotFound
from graftline.files import write_atomic
from graftline.storage.base import ObjectInfo, Store
from graftline.storage.ranged_file import RangedFile

ZIP = ".zip"
LARGEST_MEMBER = 2**30  # what a table may come to; images are limited where they are read
_AHEAD = 2**18  # bytes that are read at once of the directory at the archive's end
_HEADER = struct.Struct("<4s5H3L2H")  # before each member's bytes; its last two are lengths
_EXTRA = 1024  # bytes of other fields before the content, which its own header alone tells
# What the module raises for broken archives.
_FAULTS = (
    *(zipfile.BadZipFile, NotImplementedError, ValueError, struct.error),
    *(IndexError, OverflowError, EOFError),
)
_UTF8, _ENCRYPTED = 0x800, 0x1


class ZipStore(Store):
    """The members of a ZIP archive in another store.

    Args:
        store: Holds the archive.
        name: The archive's key there.
        prefix: Of the members that are seen; it is left out of their keys.
    """

    def __init__(self, store: Store, name: str, prefix: str = "") -> None:
        self.archive = store
        self.name = name
        self.prefix = prefix
        self.uri = f"{store.uri}/{name}" + (f"/{prefix}" if prefix else "").rstrip("/")
        self._found: dict[str, zipfile.ZipInfo] | None = None
        self._size = 0  # of the archive, once its directory is read
        self._lock = Lock()

    def __reduce__(self) -> tuple[object, tuple[Store, str, str]]:
        return ZipStore, (self.archive, self.name, self.prefix)

    @property
    def _members(self) -> dict[str, zipfile.ZipInfo]:
        with self._lock:
            if self._found is None:
                self._found = self._directory()
            return self._found

    def _directory(self) -> dict[str, zipfile.ZipInfo]:
        ranges = RangedFile(self.archive, self.name)
        self._size = ranges.length
        stream = io.BufferedReader(ranges, _AHEAD)
        try:
            with zipfile.ZipFile(cast(IO[bytes], stream)) as archive:
                found = archive.infolist()
        except _FAULTS as error:
            told = isinstance(error, zipfile.BadZipFile | NotImplementedError)
            raise StoreError(
                f"{self.uri} is not a readable ZIP archive",
                why=str(error) if told else "the directory at its end cannot be read",
                fix="Pack the images again, or let `data.source` name the unpacked folder.",
            ) from error
        infos = [info for info in found if not f"/{info.orig_filename}".endswith("/")]
        keys = [_key(info) for info in infos]
        if not any("/" in key for key in keys):  # some programs of Windows write no slashes
            keys = [key.replace("\\", "/") for key in keys]
        members = dict(zip(keys, infos, strict=True))
        start = len(self.prefix)
        return {key[start:]: members[key] for key in sorted(members) if key.startswith(self.prefix)}

    def _member(self, key: str) -> zipfile.ZipInfo:
        info = self._members.get(key)
        if info is None:
            raise StoreNotFound(f"{self.uri}/{key} is not in the archive", fix="Check the name.")
        return info

    @override
    def read(self, key: str) -> bytes:
        info = self._member(key)
        if info.flag_bits & _ENCRYPTED:
            raise self._unreadable(key, "it is encrypted")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise self._unreadable(key, f"its compression (kind {info.compress_type}) is not known")
        if info.file_size > LARGEST_MEMBER:
            raise self._unreadable(key, f"it is larger than {LARGEST_MEMBER:,} bytes")
        data = self._content(info)
        try:
            if info.compress_type == zipfile.ZIP_DEFLATED:
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, info.file_size + 1)
        except zlib.error as error:
            raise self._unreadable(key, str(error)) from error
        if len(data) != info.file_size or zlib.crc32(data) != info.CRC:
            raise self._unreadable(
                key, "its bytes do not have the checksum that the archive states"
            )
        return data

    def _content(self, info: zipfile.ZipInfo) -> bytes:
        """The packed bytes of a member, mostly in one request."""
        ahead = _HEADER.size + len(info.orig_filename.encode()) + _EXTRA
        length = min(ahead + info.compress_size, self._size - info.header_offset)
        data = self.archive.read_range(self.name, info.header_offset, max(0, length))
        if len(data) < _HEADER.size or not data.startswith(b"PK\3\4"):
            raise self._unreadable(info.filename, "the archive is damaged")
        name, extra = _HEADER.unpack_from(data)[-2:]
        start = _HEADER.size + name + extra
        if start + info.compress_size > len(data):
            offset = info.header_offset + start
            return self.archive.read_range(self.name, offset, info.compress_size)
        return data[start : start + info.compress_size]

    def _unreadable(self, key: str, why: str) -> StoreError:
        return StoreError(
            f"{self.uri}/{key} cannot be read",
            why=why,
            fix="Pack it again, or let `data.source` name the unpacked folder.",
        )

    @override
    def read_range(self, key: str, offset: int, length: int) -> bytes:
        data = self.read(key)[offset : offset + length]
        if len(data) != length:
            raise self._unreadable(key, f"it ends before byte {offset + length:,}")
        return data

    @override
    def read_versioned(self, key: str) -> tuple[bytes, str]:
        return self.read(key), _version(self._member(key))

    @override
    def exists(self, key: str) -> bool:
        return key in self._members

    @override
    def size(self, key: str) -> int:
        return self._member(key).file_size

    @override
    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        for key, info in self._members.items():
            if key.startswith(prefix):
                yield ObjectInfo(key, info.file_size, _version(info))

    @override
    def names(self) -> Sequence[str]:
        return [key for key in self._members if "/" not in key]

    @override
    def download(self, key: str, path: Path) -> None:
        write_atomic(path, self.read(key))

    @override
    def child(self, prefix: str) -> "ZipStore":
        return ZipStore(self.archive, self.name, f"{self.prefix}{prefix.strip('/')}/")

    # -- an archive is not written to --------------------------------------------------------------

    def _refuse(self) -> NoReturn:
        raise StoreError(
            f"{self.uri} is an archive and cannot be written to",
            fix="Name a folder or an S3 prefix.",
        )

    @override
    def write(self, key: str, data: bytes) -> None:
        self._refuse()

    @override
    def write_if_absent(self, key: str, data: bytes) -> bool:
        self._refuse()

    @override
    def write_if_match(self, key: str, data: bytes, version: str | None) -> str:
        self._refuse()

    @override
    def upload(self, path: Path, key: str, *, if_absent: bool = False) -> bool:
        self._refuse()

    @override
    def delete(self, key: str) -> None:
        self._refuse()

    @override
    def check_writable(self) -> None:
        self._refuse()


def _version(info: zipfile.ZipInfo) -> str:
    return f"{info.CRC:08x}:{info.file_size}"


def _key(info: zipfile.ZipInfo) -> str:
    """A member's name; bytes that are no UTF-8 stay such, and the name cannot be used.

    Without the flag a name is in some code page that the archive does not tell. Most programs
    write UTF-8 there all the same.
    """
    name = info.orig_filename
    if info.flag_bits & _UTF8 or name.isascii():
        return name
    return name.encode("cp437").decode("utf-8", "surrogateescape")
