"""Tables beside class folders that say which split an image is for, and nothing else of it."""

from collections import defaultdict
from collections.abc import Sequence

from graftline.data.sources.base import MOST
from graftline.data.sources.label_text import clean_text
from graftline.data.sources.split_list_files import ImageIndex, SplitList, split_of_list
from graftline.data.sources.split_names import stated_splits
from graftline.data.sources.table_rows import Row
from graftline.data.sources.table_splits import MOST_VALUES


def lists_of_table(
    name: str, header: Sequence[str], rows: Sequence[Row], index: ImageIndex
) -> list[SplitList]:
    """The splits that a table states, by a column or by its name; none where it states none.

    Args:
        name: The file's.
        header: The names of its columns.
        rows: Its rows.
        index: Finds the images.
    """
    column, images = _column_of_images(header, rows, index)
    if column is None:
        return []
    by_column = _column_of_splits([one for one in header if one != column], rows)
    whole = split_of_list(f"{name.rpartition('.')[0]}.txt")
    if by_column is None and whole is None:
        return []
    found: dict[str, dict[str, str]] = defaultdict(dict)
    missing = 0
    for row, path in zip(rows, images, strict=True):
        cell = clean_text(row.cells.get(by_column[0], "")) if by_column else ""
        split = by_column[1].get(cell) if by_column else whole
        if path is None or split is None:
            missing += 1
            continue
        found[split][path] = ""
    if by_column is None and (there := index.find(column)):
        found[str(whole)][there[0]] = ""  # a table without a line of names
    return [
        SplitList(name, split, paths, missing if number == 0 else 0, len(paths) + missing)
        for number, (split, paths) in enumerate(sorted(found.items()))
    ]


def _column_of_images(
    header: Sequence[str], rows: Sequence[Row], index: ImageIndex
) -> tuple[str | None, list[str | None]]:
    """The column that names most images, and the image of each row."""
    best: tuple[str | None, list[str | None]] = (None, [])
    most = MOST * len(rows) - 1
    for column in header:
        found = [index.find(row.cells.get(column, "")) for row in rows]
        one = [there[0] if len(there) == 1 else None for there in found]
        count = sum(path is not None for path in one)
        if count > most and count > 0:
            best, most = (column, one), count
    return best


def _column_of_splits(
    header: Sequence[str], rows: Sequence[Row]
) -> tuple[str, dict[str, str]] | None:
    """The column of which every value states a split, train among them."""
    for column in header:
        cells = {clean_text(row.cells.get(column, "")) for row in rows} - {""}
        splits = stated_splits(cells)
        every = 1 < len(cells) <= MOST_VALUES and len(splits) == len(cells)
        if every and {"train"} < set(splits.values()):
            return column, splits
    return None
