"""A source that was moved: what the store remembers of it is found under its new name."""

from pathlib import Path

from graftline.errors import StoreNotFound
from graftline.steps.ingest.source_index import memory_key
from graftline.storage.base import Store


def carry_memory(store: Store, before: str, now: str) -> bool:
    """Let a source at its new place keep what was looked at, and every split.

    What is remembered of the new place already stays.

    Args:
        store: Holds the memory.
        before: The source's URI as it was.
        now: As it is.

    Returns:
        Whether there was anything, and it is used from now on.
    """
    try:
        pointer = store.read(memory_key(before))
    except StoreNotFound:
        return False
    return store.write_if_absent(memory_key(now), pointer)


def uri_before(uri: str, before: Path, now: Path) -> str | None:
    """The URI that a source had in a folder that was moved; None for one that is not in it.

    Args:
        uri: As it is now.
        before: The folder's path as it was.
        now: As it is.
    """
    here = now.as_uri()
    if uri != here and not uri.startswith(f"{here}/"):
        return None
    return before.as_uri() + uri.removeprefix(here)
