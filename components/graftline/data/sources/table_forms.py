"""Tables of images in other forms than a row with a column of images and one of labels."""

import re

from graftline.data.sources.annotation_tools import via_table
from graftline.data.sources.base import Columns, numbered
from graftline.data.sources.one_hot import class_columns, labels_from_columns, said_of_columns
from graftline.data.sources.table_images import is_image
from graftline.data.sources.table_rows import Row, json_row, numbered_rows, read_rows

TEXTS = (".csv", ".tsv")


def table_of_images(data: bytes, uri: str, columns: Columns) -> tuple[list[str], list[Row], str]:
    """The columns' names, the rows, and what is to be said of how they were read.

    Args:
        data: The file.
        uri: Its name, whose ending says which kind it is.
        columns: What the run file calls the columns.

    Raises:
        DataError: It is not of that kind; the message has the line.
    """
    header, rows = _by_name_or_number(data, uri, columns)
    exported = via_table(header, [row.cells for row in rows], columns)
    if exported is not None:
        header = list(dict.fromkeys(column for row in exported for column in row))
        rows = [json_row(number, row) for number, row in enumerate(exported, 2)]
    read = labels_from_columns(header, rows, columns)
    if read is None:
        return header, rows, ""
    return *read, said_of_columns(class_columns(header, rows, columns))


def _by_name_or_number(data: bytes, uri: str, columns: Columns) -> tuple[list[str], list[Row]]:
    """A table; without names of columns, where the run file calls them by their numbers."""
    header, rows = read_rows(data, uri)
    if not numbered(columns) or not uri.lower().endswith(TEXTS):
        return header, rows
    by_number = numbered_rows(data, uri)
    first = by_number[1][0].cells.get(columns.image, "") if by_number[1] else ""
    # Other tables may stand beside the one that is meant: those have names of columns.
    return by_number if is_image(first) or re.search(r"\d", first) else (header, rows)
