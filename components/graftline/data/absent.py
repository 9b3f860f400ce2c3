"""The answer to a source that is not there, before any library that would read it is imported."""

import difflib
from contextlib import suppress
from pathlib import Path

from graftline.errors import StoreNotFound
from graftline.storage.uri import local_path

FIX = "Correct `data.source`."


def refuse_absent(uri: str, fix: str = FIX) -> None:
    """Refuse a source on this machine that does not exist; one elsewhere is not asked.

    Args:
        uri: The source.
        fix: What to do where no name beside it is like it.

    Raises:
        StoreNotFound: With the name beside it that was probably meant.
    """
    path = local_path(uri)
    if path is None:
        return
    with suppress(OSError):  # of rights on the way there, or of the name: said where it is opened
        if not path.exists():
            raise absent(path, fix)


def absent(path: Path, fix: str = FIX) -> StoreNotFound:
    """The error for a folder or file that does not exist."""
    path = path.absolute()
    there = next((one for one in path.parents if one.is_dir()), path.parent)
    meant = path.relative_to(there).parts[0]
    names: list[str] = []
    with suppress(OSError):
        names = sorted(one.name for one in there.iterdir() if not one.name.startswith("."))
    near = difflib.get_close_matches(meant, names, 1)
    did = f"Did you mean {there / near[0]}? " if near else ""
    if "$" in str(path):
        did = "Write the path itself: variables are not replaced. "
    return StoreNotFound(f"The source {path} does not exist", fix=f"{did}{fix}")
