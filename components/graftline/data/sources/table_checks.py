"""Whether a table has the columns that the run file names, and a column of splits means splits."""

from graftline.data.sources.base import Columns
from graftline.data.sources.label_text import clip
from graftline.data.sources.layouts.layout import quoted
from graftline.data.sources.split_names import only_splits
from graftline.data.sources.table_rows import Row, columns_named, near_names, some
from graftline.data.sources.table_splits import (
    cell,
    flag_splits,
    looks_like_split,
    splits_of_column,
)
from graftline.errors import ConfigurationError, DataError

UNKNOWN_SPLITS = 0.05  # of the rows: with more, the column is another one than was thought


def check_header(header: list[str], uri: str, columns: Columns) -> None:
    """Refuse a table without the columns that are named, or with two of one name.

    Raises:
        ConfigurationError: With the columns that it has.
    """
    uri = clip(uri, 300)
    wanted = columns.wanted()
    asked = [*wanted, *([columns.split] if columns.split else [])]
    twice = sorted({column for column in asked if header.count(column) > 1})
    if twice:
        raise ConfigurationError(
            f"The table {uri} has more than one column {', '.join(map(repr, twice))}",
            fix="Rename or remove the others: Graftline cannot know which one counts.",
        )
    missing = [column for column in wanted if column not in header]
    if missing:
        near = {column: near_names(column, header) for column in missing}
        lines = [f"data.{wanted[c]}: {quoted(clip(n[0]))}" for c, n in near.items() if n]
        meant = f" Is it meant: {'; '.join(lines)}?" if lines else ""
        raise ConfigurationError(
            f"The table {uri} has no {columns_named(missing)}",
            why=f"its first line names {some(header)}" if any(header) else "it is empty",
            fix="Write a first line with the names of the columns, and a line for each image."
            if not any(header)
            else "Correct the first line, or name the columns in the run file: "
            "data.image_column, data.label_column, data.split_column, data.group_column, "
            f"data.attributes.{meant}",
        )


def check_splits(header: list[str], rows: list[Row], uri: str, columns: Columns) -> None:
    """Refuse a column of splits that is no such column, or has another name than was thought.

    Raises:
        DataError: The column holds something else.
        ConfigurationError: Another column holds the splits.
    """
    uri = clip(uri, 300)
    labels = {row.cells.get(columns.label, "") for row in rows}
    if only_splits(labels):
        raise DataError(
            f"The column {columns.label!r} of {uri} holds the names of splits",
            why=f"its values are {some(sorted(labels))}",
            fix="Name the column of the labels in `data.label_column`, and set "
            f"`data.split_column: {quoted(clip(columns.label))}`.",
        )
    if not columns.split:
        return
    if columns.split not in header:
        _check_other_splits(header, rows, uri, columns)
        return
    whole = [row for row in rows if row.surplus <= 0 and row.problem is None]
    cells = [cell(row, columns.split) for row in whole]
    stated = splits_of_column(whole, columns.split)
    unknown = [one for one in cells if one and one not in stated]
    if len(unknown) > UNKNOWN_SPLITS * len(rows):
        raise DataError(
            f"The column {columns.split!r} of {uri} holds {some(sorted(set(unknown)))}",
            fix="Use train, val and test, or leave a cell empty to have it chosen. If the "
            "column says something else, set `data.split_column` to another one or to null.",
        )


def _check_other_splits(header: list[str], rows: list[Row], uri: str, columns: Columns) -> None:
    """Refuse to pass over a column of splits that has another name."""
    for column in header:
        if column in used(columns):
            continue
        holds = looks_like_split(column, rows)
        flag = flag_splits(column)
        if holds is not None:
            meant = (
                f"to take yes for {flag[1]} and no for {flag[0]}"
                if flag
                else "if it holds train, val and test (write these words there)"
            )
            raise ConfigurationError(
                f"The table {uri} has no column {columns.split!r}, and its column "
                f"{clip(column)!r} looks like the split",
                why=f"it holds {holds}",
                fix=f"Set `data.split_column: {quoted(clip(column))}` {meant}, or "
                "`data.split_column: null` to have the splits chosen.",
            )


def used(columns: Columns) -> set[str | None]:
    """The columns that are read."""
    return {columns.image, columns.label, columns.split, columns.group, *columns.attributes}
