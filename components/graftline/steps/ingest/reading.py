"""How a source was read: kept with the snapshot, and compared with the last time."""

from typing import Any

from graftline.data.snapshot import kept_head
from graftline.data.sources.base import Reading, Source
from graftline.data.sources.layouts.layout import parse
from graftline.errors import DataError, IntegrityError, SchemaVersionError, StoreNotFound
from graftline.steps.ingest.source_index import last_snapshot_id
from graftline.storage.base import Store


def describe(source: Source, missing: tuple[str, ...]) -> dict[str, Any]:
    """The reading of a source as it is kept in `snapshot.json`."""
    return {
        "format": source.format,
        "layout": source.layout.text if source.layout else None,
        "notes": list(dict.fromkeys(source.notes)),
        "tree": source.tree,
        "carved": list(missing),
    }


def check_same_reading(store: Store, source: Source, chosen: Reading) -> None:
    """Refuse folders that are suddenly read in another way than for the last snapshot.

    A few new folders could turn what was a class into a patient while nobody looks.

    Raises:
        DataError: The reading changed, and the run file does not fix it.
    """
    if source.layout is None or parse(chosen.layout) is not None:
        return
    try:
        last = last_snapshot_id(store, source.uri)
        head = kept_head(store, last) if last else {}
    except (StoreNotFound, IntegrityError, SchemaVersionError, ValueError):
        return
    before = (head.get("reading") or {}).get("layout")
    if before is None or before == source.layout.text:
        return
    raise DataError(
        f"The folders of {source.uri} look like {source.layout.text} now; they were read as "
        f"{before} for the last snapshot",
        why=f"the layout is decided from what is there, and that has changed\n{source.tree}",
        fix=f'Set it in the run file: `data.layout: "{before}"` as before, or `data.layout: '
        f'"{source.layout.text}"`.',
    )
