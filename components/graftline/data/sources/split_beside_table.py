"""Lists of splits beside a table of images that states none: test_list.txt of the chest X-rays."""

from collections.abc import Mapping, Sequence

from graftline.data.sources.base import TABLES, Entry
from graftline.data.sources.split_list_files import split_of_list
from graftline.data.sources.split_lists import IGNORE, read_split_lists, split_only
from graftline.data.sources.table_advice import files_of_splits, unread_splits
from graftline.data.sources.table_rows import Row
from graftline.storage.base import ObjectInfo, Store

IGNORE_BESIDE = "`data.split_column: null` ignores the lists"


def lists_beside(
    store: Store,
    files: Sequence[ObjectInfo],
    entries: list[Entry],
    uri: str,
    tables: Mapping[str, tuple[Sequence[str], Sequence[Row]]],
) -> tuple[list[Entry], frozenset[str], list[str], list[str]]:
    """The entries of a table with the splits of the lists beside it.

    Args:
        store: The folder.
        files: All in it.
        entries: As the table says, without splits.
        uri: Of the source.
        tables: Columns and rows of files that state splits alone.

    Returns:
        The entries, the lists that were read, notes and warnings.
    """
    keys = [one.path for one in entries if one.problem is None]
    lists = read_split_lists(store, files, keys, (), tables)
    if lists is None or lists.only_some(len(keys)):
        # test.csv of a competition has no labels, and states no split of these images.
        unread = files_of_splits([one.key for one in files if not _table_of_split(one.key)])
        return entries, frozenset(), [], [unread_splits(unread)] if unread else []
    notes = [note.replace(IGNORE, IGNORE_BESIDE) for note in lists.notes]
    return split_only(lists, entries, uri), lists.read, notes, []


def _table_of_split(key: str) -> bool:
    start, _, end = key.rpartition(".")
    return f".{end.lower()}" in TABLES and split_of_list(f"{start}.txt") is not None
