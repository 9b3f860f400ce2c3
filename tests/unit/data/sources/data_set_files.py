"""Small data sets as dictionaries of files, and what `check` knows of them: listings, no pixels."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from graftline.data.sources import open_source
from graftline.data.sources.base import Columns, Entry, Reading, Source
from graftline.steps.ingest.checks import check_given, check_listing

SHARES = {"train": 0.7, "val": 0.15, "test": 0.15}
Files = dict[str, str | bytes]


def many(folders: Iterable[str], names: str = "{}.jpg", each: int = 6) -> Files:
    """Files in folders; the folder's name is part of the pictures' names where {c} is in them."""
    return {
        f"{folder}/{names.format(n, c=folder.rpartition('/')[2])}".lstrip("/"): ""
        for folder in folders
        for n in range(each)
    }


def distinct(folders: Iterable[str], each: int = 6) -> Files:
    """Files of which no two have one name."""
    places = [folder for folder in folders for _ in range(each)]
    return {f"{folder}/IMG_{n:05}.jpg": "" for n, folder in enumerate(places)}


def below(tops: str, *subs: str) -> list[str]:
    return [f"{top}/{sub}" for top in tops.split("|") for sub in subs]


def table(head: str, rows: Iterable[str], mark: str = ",") -> str:
    return "\n".join([head, *rows]).replace(",", mark)


def read(
    folder: Path,
    files: Files,
    columns: Columns | None = None,
    reading: Reading | None = None,
    kind: str = "auto",
) -> tuple[list[Entry], Source]:
    """Write the files and list them, with everything that refuses a listing.

    Raises:
        GraftlineError: As `check` would.
    """
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    source = open_source(str(folder), kind, columns, reading)
    entries = source.entries()
    check_listing(source, entries, 3)
    check_given(source, entries, SHARES, 3, "carve")
    return entries, source


def classes(entries: Iterable[Entry]) -> dict[str, int]:
    """Images by class, or by class and split where splits are stated."""
    taken = [one for one in entries if one.problem is None]
    return dict(
        Counter(f"{one.label} {one.split}" if one.split else str(one.label) for one in taken)
    )
