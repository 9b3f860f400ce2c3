"""How everything is committed: objects named by their content first, the manifest last.

An object's name holds the sha256 of its bytes, so writing it twice, by whomever, is harmless, and
whoever reads it compares. A manifest is small JSON that names objects, and makes them current. It
holds its own sha256 and a token of the commit that wrote it, is written if absent or by
compare-and-swap, and read back: the token tells a writer whose acknowledgement was lost (to it, or
to a proxy on the way that asked again by itself) that the manifest in the store is its own.

What earlier versions wrote has neither token nor sha256, and is read as it is.
"""

import contextlib
import hashlib
import tempfile
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graftline.errors import IntegrityError, PreconditionFailed, StoreNotFound
from graftline.files import flush_folder, sha256_of
from graftline.schema import SEAL, parse_json, seal, unseal
from graftline.storage.base import Store

TOKEN = "commit"  # a manifest's key for the token of its writer  # noqa: S105 -- no secret
ANY = "{sha256}"  # where a pattern of object names holds the digest


@dataclass(frozen=True)
class Manifest:
    """A manifest that was read.

    Attributes:
        content: Without sha256 and token.
        version: For :func:`replace`.
        data: As it stands in the store.
    """

    content: dict[str, Any]
    version: str
    data: bytes


def put_file(store: Store, path: Path, pattern: str, *, repair: bool = False) -> str:
    """Store a file as an object that is named by its content; the name comes back.

    Args:
        store: Where.
        path: The file, which must not change meanwhile.
        pattern: The object's key, with ``{sha256}`` in it.
        repair: Write it also if one of that name is there: it may be damaged.
    """
    key = pattern.replace(ANY, sha256_of(path))
    store.upload(path, key, if_absent=not repair)
    return key


def put_bytes(store: Store, data: bytes, pattern: str, *, repair: bool = False) -> str:
    """Store bytes likewise; to repair, what is there is read first."""
    sha256 = hashlib.sha256(data).hexdigest()
    key = pattern.replace(ANY, sha256)
    if not store.write_if_absent(key, data) and repair:
        try:
            fetch_bytes(store, key, sha256)
        except (StoreNotFound, IntegrityError):
            store.write(key, data)
    return key


def fetch_file(store: Store, key: str, sha256: str, path: Path) -> None:
    """Copy an object to a file and compare it with the sha256 that names it.

    Raises:
        StoreNotFound: There is no such object.
        IntegrityError: It holds something else; no file is written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".graftline-", dir=path.parent) as folder:
        fetched = Path(folder) / "object"
        store.download(key, fetched)
        if sha256_of(fetched) != sha256:
            raise _damaged(store, key)
        fetched.replace(path)
        flush_folder(path.parent)


def fetch_bytes(store: Store, key: str, sha256: str) -> bytes:
    """Read an object likewise."""
    data = store.read(key)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise _damaged(store, key)
    return data


def create(store: Store, key: str, content: Mapping[str, Any]) -> bool:
    """Write a manifest where there is none.

    Returns:
        False where another writer's is there, which is left as it is.

    Raises:
        IntegrityError: The store lost what it had accepted.
    """
    data = _signed(content)
    created = store.write_if_absent(key, data)
    mine = _read_back(store, key) == data
    if created and not mine:
        raise _lost(store, key)
    return mine


def replace(store: Store, key: str, content: Mapping[str, Any], version: str | None) -> str:
    """Write a manifest in place of the one that was read; its version comes back.

    Args:
        store: Where.
        key: The manifest.
        content: What it says from now on.
        version: Of the one that was read; None where there must be none.

    Raises:
        PreconditionFailed: Another writer was faster; read again and decide again.
    """
    data = _signed(content)
    try:
        done = store.write_if_match(key, data, version)
    except PreconditionFailed:
        try:
            found, mine = store.read_versioned(key)
        except StoreNotFound:
            found, mine = b"", ""
        if found != data:
            raise
        return mine
    # What another commit has put in its place since is no loss of this one.
    if _read_back(store, key) is None:
        raise _lost(store, key)
    return done


def overwrite(store: Store, key: str, content: Mapping[str, Any]) -> None:
    """Write a manifest whatever is there: a damaged one, or a record of which the last counts."""
    store.write(key, _signed(content))


def read(store: Store, key: str, schema_version: int | None = None) -> Manifest:
    """Read a manifest.

    Args:
        store: Where.
        key: The manifest.
        schema_version: What it must say; None for any. It is looked at first, since another
            version may have another seal.

    Raises:
        StoreNotFound: There is none.
        IntegrityError: It is not the one that was written.
        SchemaVersionError: Another version of Graftline wrote it.
    """
    data, version = store.read_versioned(key)
    if schema_version is not None:
        with contextlib.suppress(ValueError):
            parse_json(data, schema_version, f"{store.uri}/{key}")
    return Manifest(parse(data, f"{store.uri}/{key}"), version, data)


def parse(data: bytes, what: str) -> dict[str, Any]:
    """The content of a manifest, without sha256 and token.

    Raises:
        IntegrityError: It is not the one that was written.
    """
    content = unseal(data, what)
    if content.pop(TOKEN, None) is not None and f'"{SEAL}"'.encode() not in data:
        raise IntegrityError(  # else a bit flipped in that name would make it an old manifest
            f"{what} is damaged: its sha256 is gone", fix="Restore it from a copy, or remove it."
        )
    return content


def _signed(content: Mapping[str, Any]) -> bytes:
    return seal({**content, TOKEN: uuid.uuid4().hex}, indent=1)


def _read_back(store: Store, key: str) -> bytes | None:
    try:
        return store.read(key)
    except (StoreNotFound, IntegrityError):
        return None


def _damaged(store: Store, key: str) -> IntegrityError:
    return IntegrityError(
        f"{store.uri}/{key} is not what its name says: its sha256 is another",
        fix="The object is damaged in the store: remove it, then run again.",
    )


def _lost(store: Store, key: str) -> IntegrityError:
    return IntegrityError(
        f"{store.uri}/{key} is not what was just written there",
        why="The store accepted the write and then answered with something else, or nothing",
        fix="Run `graftline doctor` with this run file: it tries the store out.",
    )
