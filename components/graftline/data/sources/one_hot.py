"""Tables with one column for each class: the class of a row is the column that holds the 1."""

from collections.abc import Mapping, Sequence

from graftline.data.sources.base import Columns
from graftline.data.sources.label_text import clip
from graftline.data.sources.split_names import is_flag, is_split_column
from graftline.data.sources.table_rows import Row, some

FILENAME = "filename"  # as Roboflow's `_classes.csv` calls the column of images
_YES = frozenset(("1", "1.0", "true", "True"))
_NO = frozenset(("0", "0.0", "false", "False", ""))


def class_columns(header: Sequence[str], rows: Sequence[Row], columns: Columns) -> list[str]:
    """The columns that say yes or no of a class each; empty where the table has another form.

    All columns but those that the run file names must be of that kind: a `width` or a `caption`
    beside two flags tells that they are two properties, not the classes.

    Args:
        header: The columns' names.
        rows: All of them.
        columns: What the run file calls them.
    """
    image = image_column(header, columns)
    if image is None or columns.label in header or columns.label != Columns().label:
        return []  # the run file says which column is meant
    others = {image, Columns().split, columns.split, columns.group, *columns.attributes}
    names = [name for name in header if name not in others]
    whole = [row for row in rows if row.surplus <= 0 and not row.odd and row.problem is None]
    if any(is_flag(name) or is_split_column(name) for name in names):
        return []  # is_train beside is_test
    flags = all(row.cells.get(name, "") in _YES | _NO for row in whole for name in names)
    return names if whole and flags and len(set(names)) == len(names) > 1 else []


def image_column(header: Sequence[str], columns: Columns) -> str | None:
    """The column of images in a table with one column for each class; None where there is none."""
    usual = columns.image == Columns().image
    ways = [columns.image, *(("file_name", FILENAME) if usual else ())]
    return next((name for name in ways if name in header), None)


def several_classes(rows: Sequence[Row], names: Sequence[str]) -> str:
    """What is to be said of rows that hold several classes; empty where there are none."""
    several = [(row, held) for row in rows if len(held := _held(row.cells, names)) > 1]
    if not several:
        return ""
    row, held = several[0]
    return (
        f"{len(several):,} of {len(rows):,} rows hold several of the classes {some(names)} "
        f"(line {row.line}: {some(held)}), and here each image has one"
    )


def labels_from_columns(
    header: Sequence[str], rows: Sequence[Row], columns: Columns
) -> tuple[list[str], list[Row]] | None:
    """The table with a column of labels in place of one for each class; None where it is not so.

    A row without any 1 has no label. With several it names several classes, and the table stays
    as it is, which is refused.

    Args:
        header: The columns' names.
        rows: All of them.
        columns: What the run file calls them.
    """
    names = class_columns(header, rows, columns)
    image = image_column(header, columns)
    if not names or image is None or several_classes(rows, names):
        return None
    if not any(_held(row.cells, names) for row in rows):
        return None
    kept = {name: columns.image if name == image else name for name in header if name not in names}
    return [*kept.values(), columns.label], [
        Row(
            row.line,
            {kept[k]: v for k, v in row.cells.items() if k in kept}
            | {columns.label: next(iter(_held(row.cells, names)), "")},
            row.surplus,
            row.odd,
            row.problem,
        )
        for row in rows
    ]


def said_of_columns(names: Sequence[str]) -> str:
    """The note on a table that was read so."""
    return (
        f"The table has one column for each class ({some([clip(one) for one in names])}): the "
        "label is the one that holds the 1."
    )


def _held(cells: Mapping[str, str], names: Sequence[str]) -> list[str]:
    return [name for name in names if cells.get(name, "") in _YES]
