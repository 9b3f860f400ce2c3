"""Splits that a table states: in its column, or in the folders that its paths name."""

from collections import Counter
from collections.abc import Mapping, Sequence

from graftline.data.sources.label_text import clean_text, clip
from graftline.data.sources.split_names import (
    is_flag,
    is_split_column,
    split_of_flag,
    split_words,
    splits_of,
    stated_splits,
)
from graftline.data.sources.table_rows import Row, some

MOST_VALUES = 10  # of a column that states splits, with what else it may hold
MOSTLY = 0.5  # of the paths go through folders that name splits
_YES_OR_NO = frozenset(("0", "1", "0.0", "1.0", "true", "false", "yes", "no", "t", "f", "y", "n"))

_NO = frozenset(("0", "0.0", "false", "no", "f", "n"))


def cell(row: Row, column: str | None) -> str:
    """A cell as splits are compared."""
    return clean_text(row.cells.get(column, "")).lower() if column else ""


def splits_of_column(rows: Sequence[Row], column: str | None) -> dict[str, str]:
    """The split that each of a column's cells states; yes and no in `is_valid` do, too."""
    cells = {cell(row, column) for row in rows} - {""}
    flag = flag_splits(column) if column and cells <= _YES_OR_NO else None
    if flag is None:
        return stated_splits(cells)
    return {one: flag[one not in _NO] for one in cells}


def flag_splits(column: str) -> tuple[str, str] | None:
    """The splits that no and yes stand for in a column that is called as one split: is_valid."""
    word = split_of_flag(column)
    if word is None:
        return None
    return "test" if word == "train" else "train", word


def looks_like_split(column: str, rows: Sequence[Row]) -> str | None:
    """What a column holds, where that looks like the split; None where it does not.

    Its name says so (``subset``, ``is_train``), or its values do.
    """
    values = {clean_text(row.cells.get(column, "")) for row in rows if row.surplus <= 0} - {""}
    if not values or len(values) > MOST_VALUES:
        return None
    kinds = set(splits_of(values).values())
    by_value = len(kinds) > 1 and all(split_words(value) is not None for value in values)
    flag = is_flag(column) and {value.lower() for value in values} <= _YES_OR_NO
    named = is_split_column(column) and not is_flag(column)
    return some(sorted(values)) if by_value or flag or named else None


def splits_in_paths(locations: Sequence[str]) -> Mapping[str, str]:
    """The split of each location whose folders name one; empty where they do not.

    A level of folders counts where most paths have a split's name there, one of them train.
    """
    folders = {one: one.split("/")[:-1] for one in locations if one}
    depth = max(map(len, folders.values()), default=0)
    for level in range(depth):
        names = Counter(parts[level] for parts in folders.values() if len(parts) > level)
        named = stated_splits(names)
        kinds = set(named.values())
        share = sum(names[name] for name in named)
        if len(kinds) > 1 and "train" in kinds and share >= MOSTLY * len(folders):
            return {
                one: named[parts[level]]
                for one, parts in folders.items()
                if len(parts) > level and parts[level] in named
            }
    return {}


def said_of_paths(found: Mapping[str, str]) -> str:
    """The note on splits that are in the paths."""
    kinds = ", ".join(sorted(set(found.values())))
    return (
        f"The folders in the table's paths say which split an image is for ({clip(kinds)}); "
        "`data.split_column: null` has the splits chosen."
    )
