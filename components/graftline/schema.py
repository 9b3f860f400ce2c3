"""Versioned JSON: what another version wrote is refused with what to do."""

import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graftline.errors import GraftlineError, IntegrityError, SchemaVersionError, StoreNotFound
from graftline.files import write_atomic

SEAL = "seal"  # the key of a document's own sha256


def check_schema_version(head: Any, version: int, what: str) -> None:
    """Refuse what another version wrote.

    Raises:
        SchemaVersionError: With which of the two is the older one.
    """
    found = head.get("schema_version") if isinstance(head, dict) else None
    if found == version:
        return
    newer = isinstance(found, int) and found > version
    raise SchemaVersionError(
        f"{what} has schema version {found}; this Graftline reads version {version}",
        fix="Use the newer Graftline that wrote it."
        if newer
        else "An older Graftline wrote it: run the step that writes it again.",
    )


def parse_json(text: str | bytes, version: int, what: str) -> dict[str, Any]:
    """The content of a JSON document of one version.

    Raises:
        ValueError: It is not JSON.
        SchemaVersionError: Another version wrote it.
    """
    head = json.loads(text)
    check_schema_version(head, version, what)
    content: dict[str, Any] = head
    return content


def seal(content: Mapping[str, Any], *, indent: int | None = None) -> bytes:
    """JSON with its own sha256 in it: a bit that flips on a disk is noticed by :func:`unseal`."""
    return json.dumps({**content, SEAL: _seal_of(content)}, indent=indent, sort_keys=True).encode()


def unseal(data: bytes, what: str) -> dict[str, Any]:
    """The content of a sealed JSON document; what earlier versions wrote has no seal.

    Raises:
        IntegrityError: It is not the document that was written.
    """
    fix = "Restore it from a copy, or remove it: then it is made again where that is possible."
    try:
        content = json.loads(data)
        sealed = content.pop(SEAL, None)
    except (ValueError, AttributeError, TypeError) as error:
        raise IntegrityError(f"{what} is damaged: {error}", fix=fix) from error
    if sealed is not None and sealed != _seal_of(content):
        raise IntegrityError(f"{what} is damaged: it does not have its sha256", fix=fix)
    found: dict[str, Any] = content
    return found


def _seal_of(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def write_json(
    path: Path, content: Mapping[str, Any], *, sort_keys: bool = False, allow_nan: bool = False
) -> None:
    """Write a JSON file, whole or not at all. Equal content gives equal bytes."""
    text = json.dumps(content, indent=1, sort_keys=sort_keys, allow_nan=allow_nan)
    write_atomic(path, f"{text}\n".encode())


def read_json(
    path: Path,
    *,
    kind: str | None,
    version: int | Collection[int],
    missing: GraftlineError,
    damaged: Callable[[str], GraftlineError],
    outdated: Callable[[Any], GraftlineError],
) -> dict[str, Any]:
    """Read a JSON file that states its kind and version.

    Args:
        path: The file.
        kind: What its ``kind`` must be; None where the file states none.
        version: What its ``schema_version`` must be, or be one of.
        missing: Raised where there is no such file.
        damaged: Makes the error for a file that is something else, from the reason.
        outdated: Makes the error for another version, from that version.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise missing from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise damaged(f"it is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise damaged("it is not a JSON object")
    if kind is not None and content.get("kind") != kind:
        raise damaged(f"its kind is not {kind}")
    readable = [version] if isinstance(version, int) else version
    if content.get("schema_version") not in readable:
        raise outdated(content.get("schema_version"))
    return content


@dataclass(frozen=True, kw_only=True)
class Record:
    """A JSON file that one step hands to another.

    Attributes:
        name: What it is called, such as "verdict".
        kind: What its ``kind`` says.
        versions: The schema versions that are read.
        writer: The step or steps that write it.
    """

    name: str
    kind: str
    versions: tuple[int, ...]
    writer: str

    def read(self, path: Path) -> dict[str, Any]:
        """The content of the file.

        Raises:
            StoreNotFound: There is no such file.
            IntegrityError: It is something else.
            SchemaVersionError: Another version of Graftline wrote it.
        """
        return read_json(
            path,
            kind=self.kind,
            version=self.versions,
            missing=StoreNotFound(
                f"there is no {self.name} at {path}",
                fix=f"pass the file that {self.writer} wrote",
            ),
            damaged=lambda why: self.damaged(path, why),
            outdated=lambda version: self.outdated(path, version),
        )

    def damaged(self, where: Path | str, why: str) -> IntegrityError:
        """The error for content that is not this record."""
        return IntegrityError(
            f"{where} is not a {self.name}",
            why=why,
            fix=f"pass the file that {self.writer} wrote, unchanged",
        )

    def outdated(self, where: Path | str, version: Any) -> SchemaVersionError:
        """The error for a version that is not read."""
        return SchemaVersionError(
            f"the {self.name} {where} has schema version {version}; "
            f"this Graftline reads {' and '.join(map(str, self.versions))}",
            why="it was written by another version of Graftline",
            fix=f"run {self.writer} again with this version",
        )
