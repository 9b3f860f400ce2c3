"""Files beside images that state their labels in another form than a table's.

JSON (`{file: label}`, a list of objects, `{class: [files]}`, `{split: ...}`, COCO's without
boxes), the exports of annotation tools, and text with an image and its label on each line. They
become rows of a table.
"""

import dataclasses
import json
import posixpath
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from graftline.data.sources.annotation_tools import (
    cvat_rows,
    exported_rows,
    manifest_rows,
    names_of_upload,
)
from graftline.data.sources.base import Columns, Reading, numbered
from graftline.data.sources.label_text import clean_text
from graftline.data.sources.layouts.folder_names import MASKS
from graftline.data.sources.numbered_tables import numbered_labels, text_of
from graftline.data.sources.split_list_files import (
    LARGEST,
    LISTS,
    ImageIndex,
    lists_by_name,
    near_index,
    read_list,
)
from graftline.data.sources.split_names import names_split, only_splits, splits_of
from graftline.data.sources.table import HUGGING_FACE, TableSource
from graftline.data.sources.table_advice import called_as_splits, is_document, label_columns
from graftline.data.sources.table_images import is_image
from graftline.data.sources.table_rows import Row, json_row, numbered_rows, read_rows
from graftline.errors import DataError, StoreError
from graftline.storage.base import ObjectInfo, Store

JSON, XML, MANIFEST = ".json", ".xml", ".manifest"
OBJECTS = (JSON, XML, MANIFEST)
LARGEST_JSON = 2**26  # bytes, which are eight times as many as objects
MOST_FILES = 64  # more files of one ending are each about one image
MOST_UNNAMED = 2  # columns: a path and a label are read as they are
MOST_FOLDS = 20
HALF = 0.5  # of its entries name images, or it is about something else
Rows = tuple[list[str], list[Row]]
_BOXES = ("bbox", "bboxes", "segmentation", "keypoints")


class LabelFiles(TableSource):
    """Files that state labels, read as a table.

    Args:
        store: The folder of the source.
        read: Columns and rows by the file's name.
        columns: What the columns are called.
        reading: How labels are compared, and what is left out.
    """

    def __init__(
        self, store: Store, read: Mapping[str, Rows], columns: Columns, reading: Reading
    ) -> None:
        super().__init__(store, sorted(read), columns, reading, whole=True)
        self.uri = store.uri
        self.read_rows = read

    def rows(self, name: str) -> Rows:
        """The columns' names and the rows of one of the files."""
        return self.read_rows[name]


def label_files(
    store: Store, found: Sequence[ObjectInfo], columns: Columns, *, only: str | None = None
) -> tuple[dict[str, Rows], dict[str, Rows]]:
    """The files that state labels, and those that state splits alone, each as a table.

    Args:
        store: The source.
        found: All its files, without those that are left out.
        columns: What the columns of the table are called.
        only: The one that is meant, where the user named it.
    """
    labels: dict[str, Rows] = {}
    splits: dict[str, Rows] = {}
    keys = _pictures(found)
    candidates = _candidates(found, keys, lists=numbered(columns) or only is not None)
    if not candidates or not keys:
        return labels, splits
    index = ImageIndex(keys)
    of_numbers = numbered_labels(store, found)
    if of_numbers is not None:
        key, pairs = of_numbers
        candidates = [one for one in candidates if one != key]
        labels[key] = _rows(key, list(pairs), near_index(key, index), columns)
    folders = {name for key in keys for name in key.split("/")[:-1]}
    for key in candidates:
        try:
            data = store.read(key)
        except StoreError:
            continue
        rows = _table(key, data, near_index(key, index), columns)
        if rows is None:
            continue
        rows = _as_splits(rows, columns)
        if columns.label in rows[0] and {columns.image, HUGGING_FACE} & set(rows[0]):
            if called_as_splits(key) and _few_numbers(rows, columns):
                continue  # parts of the set by number (CelebA), whatever each means
            if not _counts_images(rows, columns, folders):
                labels[key] = rows
        elif columns.split in rows[0]:
            splits[key] = rows
        elif label_columns(rows[0]):
            labels[key] = rows  # its columns have other names, which the error says
    return labels, splits


def _pictures(found: Sequence[ObjectInfo]) -> list[str]:
    """The images that a file may speak of: masks are called like them (Oxford's pets)."""
    keys = [one.key for one in found if is_image(one.key)]
    return [key for key in keys if not set(key.lower().split("/")[:-1]) & MASKS] or keys


def unnamed_columns(store: Store, found: Sequence[ObjectInfo], columns: Columns) -> dict[str, Rows]:
    """Texts that say several things of each image, by the numbers of their columns.

    Args:
        store: The source.
        found: All its files, without those that are left out.
        columns: What the columns of the table are called.
    """
    keys = _pictures(found)
    names = [key for key in _candidates(found, keys, lists=True) if key.lower().endswith(LISTS)]
    index = ImageIndex(keys)
    tables: dict[str, Rows] = {}
    for key in names:
        text = text_of(store, key)
        rows = text and _numbered_table(key, text.encode(), near_index(key, index), "1")
        if rows and len(rows[0]) > MOST_UNNAMED:
            tables[key] = rows
    return tables


def _candidates(
    found: Sequence[ObjectInfo], images: Sequence[str], *, lists: bool = False
) -> list[str]:
    """Files that may state labels: none that is called like one image, and no list of a split."""
    names = [
        one.key
        for one in found
        if one.key.lower().endswith((*OBJECTS, *LISTS))
        and 0 < one.size <= (LARGEST_JSON if one.key.lower().endswith(OBJECTS) else LARGEST)
        and not is_document(one.key)
    ]
    if not names:
        return []
    by_name = lists_by_name([one.key for one in found])
    of_splits = {} if lists else by_name
    stems = {posixpath.basename(key).rpartition(".")[0] for key in images}
    names = [
        name
        for name in names
        if name not in of_splits and posixpath.basename(name).rpartition(".")[0] not in stems
    ]
    ends = Counter(name.rpartition(".")[2].lower() for name in names)
    few = len(by_name) <= MOST_FILES
    return [
        name
        for name in names
        if ends[name.rpartition(".")[2].lower()] <= MOST_FILES or (few and name in by_name)
    ]


def _counts_images(rows: Rows, columns: Columns, folders: Collection[str]) -> bool:
    """Whether each row has a label of its own, which numbers or describes the images."""
    values = [row.cells.get(columns.label, "") for row in rows[1]]
    own = len(values) > 1 and len(set(values)) == len(values)
    return own and not set(values) <= set(folders)


def _table(key: str, data: bytes, index: ImageIndex, columns: Columns) -> Rows | None:
    """What a file says as a table; None where it says nothing of the images."""
    kind = posixpath.splitext(key)[1].lower()
    if kind == JSON:
        return _json_table(key, data, index, columns)
    if kind == XML:
        return _table_of(key, cvat_rows(data, columns), index, columns)
    if kind == MANIFEST:
        return _table_of(
            key, manifest_rows(data.decode("utf-8-sig", "replace"), columns), index, columns
        )
    return _text_table(key, data, index, columns)


def _as_splits(rows: Rows, columns: Columns) -> Rows:
    """Rows whose labels are train and test, as rows that state splits."""
    values = [row.cells.get(columns.label, "") for row in rows[1]]
    if columns.split in (None, *rows[0]) or not only_splits(values):
        return rows
    named = {columns.label: str(columns.split)}
    return [named.get(name, name) for name in rows[0]], [
        dataclasses.replace(row, cells={named.get(k, k): v for k, v in row.cells.items()})
        for row in rows[1]
    ]


def _few_numbers(rows: Rows, columns: Columns) -> bool:
    """Whether the labels are a few numbers, as those of splits or folds are."""
    values = {row.cells.get(columns.label, "") for row in rows[1]}
    return len(values) <= MOST_FOLDS and all(value.isdecimal() for value in values)


# -- text -----------------------------------------------------------------------------------------


def _text_table(key: str, data: bytes, index: ImageIndex, columns: Columns) -> Rows | None:
    if numbered(columns):
        return _numbered_table(key, data, index, columns.image)
    try:
        header, rows = read_rows(data, f"{key}.csv")
    except DataError:
        header, rows = [], []
    if columns.label in header and {columns.image, HUGGING_FACE} & set(header):
        return header, rows
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    one = read_list(key, "", text, index, ())
    if one is None or one.units or one.missing > HALF * one.lines:
        return None
    if not all(one.images.values()):
        return None
    pairs = [*one.images.items(), *((path, label) for path, label in one.absent if path)]
    return _rows(key, pairs, index, columns)


def _numbered_table(key: str, data: bytes, index: ImageIndex, image: str) -> Rows | None:
    """A text whose columns have no names; None where that column does not name the images."""
    try:
        header, rows = numbered_rows(data, key)
    except DataError:
        return None
    named = [row for row in rows if len(_found(row.cells.get(image, ""), index)) == 1]
    if len(named) <= HALF * len(rows):
        return None
    above = posixpath.dirname(key)
    for row in named:
        row.cells[image] = _relative(row.cells[image], above, index)
    return header, rows


def _rows(key: str, pairs: Sequence[tuple[str, str]], index: ImageIndex, columns: Columns) -> Rows:
    """A table of images and their labels, with the paths as from the file's folder."""
    above = posixpath.dirname(key)
    return [columns.image, columns.label], [
        Row(line, {columns.image: _relative(image, above, index), columns.label: label})
        for line, (image, label) in enumerate(pairs, 1)
    ]


def _relative(path: str, above: str, index: ImageIndex) -> str:
    """An image as a file in a folder names it; as it is written where no such image is there."""
    found = _found(path, index)
    if len(found) != 1:
        return path
    return posixpath.relpath(found[0], above) if above else found[0]


def _found(path: str, index: ImageIndex) -> list[str]:
    """The images that a path means, which may be one of an annotation server."""
    return next(filter(None, map(index.find, [path, *names_of_upload(path)])), [])


# -- JSON -----------------------------------------------------------------------------------------


def _json_table(key: str, data: bytes, index: ImageIndex, columns: Columns) -> Rows | None:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = _json_lines(data)
    rows = exported_rows(value, columns)
    if rows is None:
        rows = list(_json_rows(value, index, columns, None))
    return _table_of(key, rows, index, columns)


def _json_lines(data: bytes) -> list[Any] | None:
    """An object on each line, as some programs call JSON, too."""
    try:
        return [json.loads(line) for line in data.splitlines() if line.strip()]
    except (ValueError, RecursionError):
        return None


def _table_of(
    key: str, rows: list[dict[str, Any]] | None, index: ImageIndex, columns: Columns
) -> Rows | None:
    """A table of what a file says of images; None where most of it names none of the source."""
    if not rows:
        return None
    names = _column_of_images(rows, index, columns)
    if names is None:
        return None
    above = posixpath.dirname(key)
    for row in rows:
        if isinstance(row.get(names), str):
            row[names] = _relative(row[names], above, index)
    header = list(dict.fromkeys(name for row in rows for name in row))
    return header, [json_row(number, row) for number, row in enumerate(rows, 1)]


def _json_rows(
    value: Any, index: ImageIndex, columns: Columns, split: str | None
) -> Iterator[dict[str, Any]]:
    """A row for each image that a JSON value speaks of."""
    more = {columns.split: split} if split is not None and columns.split else {}
    if isinstance(value, list):
        for one in value:
            yield from ({**row, **more} for row in _of_item(one, columns))
        return
    if not isinstance(value, dict) or not value:
        return
    if {"images", "annotations", "categories"} <= value.keys():
        yield from ({**row, **more} for row in _of_coco(value, columns))
        return
    if all(map(names_split, value)) and len(set(splits_of(value).values())) > 1:
        for name, inside in value.items():
            yield from _json_rows(inside, index, columns, name)
        return
    if len(value) <= len(_SECTIONS) and (held := _SECTIONS & value.keys()):
        for name in sorted(held):
            inside = _with_names(value[name], value.get("classes"))
            yield from _json_rows(inside, index, columns, split)
        return
    of_classes = all(isinstance(one, list) for one in value.values())
    for name, inside in value.items():
        name = clean_text(str(name))
        if of_classes and not index.find(name):
            images = [one for one in inside if isinstance(one, str)]
            yield from ({columns.image: one, columns.label: name, **more} for one in images)
        elif isinstance(inside, dict):
            yield {**inside, columns.image: name, **more}
        else:
            yield {columns.image: name, columns.label: inside, **more}


_SECTIONS = {"labels", "annotations", "images", "data", "samples", "items"}


def _with_names(value: Any, names: Any) -> Any:
    """Labels that count the classes of a list beside them (FiftyOne), by their names."""
    if not isinstance(value, dict) or not isinstance(names, list):
        return value
    numbers = all(type(one) is int and 0 <= one < len(names) for one in value.values())
    return {k: names[one] for k, one in value.items()} if value and numbers else value


def _of_item(one: Any, columns: Columns) -> Iterator[dict[str, Any]]:
    """A row of a list: an object, a path alone, or a path and a label (and its number)."""
    if isinstance(one, dict):
        yield one
    elif isinstance(one, str):
        yield {columns.image: one}
    elif isinstance(one, list) and len(one) > 1 and isinstance(one[0], str):
        names = [cell for cell in one[1:] if isinstance(cell, str)]
        yield {columns.image: one[0], columns.label: names[-1] if names else one[1]}


def _of_coco(value: Mapping[str, Any], columns: Columns) -> Iterator[dict[str, Any]]:
    """One category for each image; nothing where the annotations are boxes."""
    try:
        files = {one["id"]: one["file_name"] for one in value["images"]}
        names = {one["id"]: one["name"] for one in value["categories"]}
        said = [(one, files[one["image_id"]]) for one in value["annotations"]]
        if any(one.get(box) for one, _ in said for box in _BOXES):
            return
        rows = [{columns.image: f, columns.label: names[one["category_id"]]} for one, f in said]
    except (KeyError, TypeError, AttributeError):
        return
    yield from rows


def _column_of_images(
    rows: Sequence[Mapping[str, Any]], index: ImageIndex, columns: Columns
) -> str | None:
    """The key whose values name images of the source in most rows."""
    usual = [columns.image, HUGGING_FACE]
    keys = dict.fromkeys([*usual, *(name for row in rows[:MOST_FILES] for name in row)])
    for name in keys:
        texts = [row.get(name) for row in rows]
        named = sum(isinstance(one, str) and len(_found(one, index)) == 1 for one in texts)
        if named > HALF * len(rows):
            return name
    return None
