"""Results of steps in the store: found again under the digest of what they were computed from.

::

    results/objects/<sha256>                          files that steps wrote, each once
    results/<step>/<when>-<key>-<state>.json          an entry: the result, and its files' digests

Files come first and the entry last, so an entry that can be read is whole. Each file is compared
with its digest when it is read; an entry that is damaged is ignored and its damaged files are
removed, so that the step computes and keeps them again. Of each step the newest entries stay.
"""

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from graftline.errors import IntegrityError, StoreError, StoreNotFound
from graftline.files import sha256_of
from graftline.progress import message
from graftline.storage import commit
from graftline.storage.base import Store, checked_key

PREFIX = "results"
OBJECTS = f"{PREFIX}/objects"
SCHEMA_VERSION = 1
MOST_ENTRIES = 8  # of one step; older ones make room
FILE = ""  # the name of an output's only file, where the output is a file and no folder


@dataclass(frozen=True)
class Entry:
    """What a step computed.

    Attributes:
        run: The pipeline run that computed it.
        seconds: What that took.
        files: Digest of each file by its path below the output, for each output.
        content: The step's result as JSON.
        key: Of the object that holds the entry.
    """

    run: str
    seconds: float
    files: Mapping[str, Mapping[str, str]]
    content: Mapping[str, Any]
    key: str = ""

    def digests(self) -> set[str]:
        """Digests of all its files."""
        return {digest for files in self.files.values() for digest in files.values()}


def find(store: Store, step: str, key: str, state: str | None = None) -> Iterator[Entry]:
    """The whole entries of a step, the newest first.

    Args:
        store: The store.
        step: The step.
        key: Digest of what the step computed from.
        state: Digest of what it was compared with; None for entries of any.
    """
    wanted = f"-{key}-" if state is None else f"-{key}-{state}.json"
    names = [info.key for info in store.list(f"{PREFIX}/{step}/") if wanted in info.key]
    for name in sorted(names, reverse=True):
        entry = _read(store, name)
        if entry is not None:
            yield entry


def restore(store: Store, entry: Entry, outputs: Mapping[str, Path]) -> bool:
    """Write an entry's files to a step's outputs; False where one is missing or damaged."""
    try:
        for name, path in outputs.items():
            for relative, digest in entry.files[name].items():
                _restore_file(store, digest, path / relative if relative != FILE else path)
    except (StoreNotFound, IntegrityError, KeyError) as error:
        message("Kept results of run %s are damaged and computed again: %s", entry.run, error)
        remove(outputs)
        _delete(store, entry.key)
        return False
    except StoreError:
        remove(outputs)
        raise
    return True


def remove(outputs: Mapping[str, Path]) -> None:
    """Remove what :func:`restore` wrote."""
    for path in outputs.values():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def keep(
    store: Store, step: str, key: str, state: str, entry: Entry, outputs: Mapping[str, Path]
) -> None:
    """Keep what a step wrote, and make room where there are many entries.

    Raises:
        StoreError: The store cannot be written to.
    """
    files = {name: _files(path) for name, path in outputs.items()}
    for name, digests in files.items():
        for relative in digests:
            path = outputs[name] / relative if relative != FILE else outputs[name]
            commit.put_file(store, path, f"{OBJECTS}/{commit.ANY}")
    body = {"run": entry.run, "seconds": entry.seconds, "files": files, "content": entry.content}
    text = json.dumps(body, sort_keys=True)
    head = {"schema_version": SCHEMA_VERSION, "sha256": _digest(text), "entry": text}
    when = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
    commit.create(store, f"{PREFIX}/{step}/{when}-{key}-{state}.json", head)
    _make_room(store, step)


def collect_garbage(store: Store, *, remove: bool) -> tuple[int, int]:
    """Find, and remove, files that no entry names. Returns how many, and their bytes."""
    named = {digest for entry in _entries(store) for digest in entry.digests()}
    orphans = [
        info for info in store.list(f"{OBJECTS}/") if info.key.rpartition("/")[2] not in named
    ]
    for info in orphans if remove else ():
        # A run that is about to name it finds it missing later, and computes it again.
        _delete(store, info.key)
    return len(orphans), sum(info.size for info in orphans)


def _make_room(store: Store, step: str) -> None:
    keys = sorted(info.key for info in store.list(f"{PREFIX}/{step}/"))
    for key in keys[:-MOST_ENTRIES]:
        _delete(store, key)
    if len(keys) > MOST_ENTRIES:
        collect_garbage(store, remove=True)


def _delete(store: Store, key: str) -> None:
    """Remove an object; one that may not be removed only takes room."""
    with contextlib.suppress(StoreError):
        store.delete(key)


def _entries(store: Store) -> Iterator[Entry]:
    for info in store.list(f"{PREFIX}/"):
        if not info.key.startswith(f"{OBJECTS}/"):
            entry = _read(store, info.key)
            if entry is not None:
                yield entry


def _read(store: Store, name: str) -> Entry | None:
    try:
        head = commit.read(store, name).content
        if head["schema_version"] != SCHEMA_VERSION or _digest(head["entry"]) != head["sha256"]:
            return None
        body = json.loads(head["entry"])
        for files in body["files"].values():
            for relative in files:
                if relative != FILE:
                    checked_key(relative)  # an entry from elsewhere may not write outside
        return Entry(body["run"], body["seconds"], body["files"], body["content"], name)
    except (StoreError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _restore_file(store: Store, digest: str, path: Path) -> None:
    key = f"{OBJECTS}/{digest}"
    try:
        commit.fetch_file(store, key, digest, path)
    except IntegrityError:
        _delete(store, key)  # else it would stay: what is there is not written again
        raise


def _files(output: Path) -> dict[str, str]:
    """Digest of each file of an output."""
    if output.is_file():
        return {FILE: sha256_of(output)}
    found = sorted(path for path in output.rglob("*") if path.is_file())
    return {path.relative_to(output).as_posix(): sha256_of(path) for path in found}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
