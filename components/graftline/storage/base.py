"""Where bytes live: an S3 prefix or a folder, behind one interface.

Objects are immutable and named by what they contain; the only mutable ones are small pointers,
changed by compare-and-swap (:meth:`Store.write_if_match`). A reader sees a whole object or none.
Keys are relative names with ``/`` between the parts.
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path

from graftline.errors import StoreError


@dataclasses.dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One listed object.

    Attributes:
        key: Relative to the store's URI.
        size: In bytes.
        version: Changes when the object changes: the ETag on S3, else ``mtime_ns:size``.
        modified: When it was last written, in seconds since 1970; None where that is not known.
    """

    key: str
    size: int
    version: str
    modified: float | None = None


class Store(ABC):
    """A place for objects. Safe to use from several threads; can be sent to another process."""

    uri: str

    @abstractmethod
    def read(self, key: str) -> bytes:
        """The whole object. Raises :class:`StoreNotFound` where there is none."""

    @abstractmethod
    def read_range(self, key: str, offset: int, length: int) -> bytes:
        """``length`` bytes from ``offset``; a shorter object raises :class:`StoreError`.

        A range carries no checksum of its own: the caller compares with the digest it has.
        """

    @abstractmethod
    def read_versioned(self, key: str) -> tuple[bytes, str]:
        """The object and its version, to be handed to :meth:`write_if_match`."""

    @abstractmethod
    def write(self, key: str, data: bytes) -> None:
        """Create or replace the object."""

    @abstractmethod
    def write_if_absent(self, key: str, data: bytes) -> bool:
        """Create the object; False where one by that name was there, which is left as it is."""

    @abstractmethod
    def write_if_match(self, key: str, data: bytes, version: str | None) -> str:
        """Replace the object if it still has this version; the new version comes back.

        Args:
            key: Its name.
            data: The new content.
            version: From :meth:`read_versioned`; None where the object must not exist yet.

        Raises:
            PreconditionFailed: Another writer was faster; read again and decide again.
        """

    @abstractmethod
    def exists(self, key: str) -> bool:
        """Whether there is an object by that name."""

    @abstractmethod
    def size(self, key: str) -> int:
        """Its size in bytes."""

    @abstractmethod
    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """The objects whose keys start with the prefix, sorted by key; no bytes are read."""

    @abstractmethod
    def names(self) -> Sequence[str]:
        """The keys without ``/``, sorted: what stands at the root. No whole listing."""

    @abstractmethod
    def upload(self, path: Path, key: str, *, if_absent: bool = False) -> bool:
        """Create the object from a file, in bounded memory.

        Returns:
            False where ``if_absent`` was asked and one was there already.
        """

    @abstractmethod
    def download(self, key: str, path: Path) -> None:
        """Copy the object to a file, in bounded memory; the file appears whole or not at all."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove the object; nothing happens where there is none."""

    @abstractmethod
    def check_writable(self) -> None:
        """Prove that this store can be written to, or raise the :class:`StoreError` saying why."""

    def check_there(self) -> None:
        """Raise a :class:`StoreError` where this is a place that no store was ever made in."""
        next(iter(self.list()), None)

    @abstractmethod
    def child(self, prefix: str) -> "Store":
        """The part of this store below a prefix."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.uri!r})"


def checked_key(key: str) -> str:
    """The key, if it is a plain relative name.

    Raises:
        StoreError: It is empty, absolute, or climbs out with ``..``.
    """
    parts = key.split("/")
    if not key or "\0" in key or any(part in ("", ".", "..") for part in parts):
        raise StoreError(
            f"{key!r} is not a relative object name",
            fix="Name it without a leading slash, empty parts, `.` and `..`.",
        )
    return key
