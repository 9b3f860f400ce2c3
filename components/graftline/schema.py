"""Versioned JSON: what another version wrote is refused with what to do."""

from typing import Any

from graftline.errors import SchemaVersionError


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
