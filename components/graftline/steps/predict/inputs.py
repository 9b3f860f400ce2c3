"""Which images are meant: files, folders, patterns, tables and S3 prefixes, in a stable order."""

import glob
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from graftline.data.sources.base import ARCHIVES, TABLES, hidden
from graftline.data.sources.table_images import ImageFinder, is_image
from graftline.data.sources.table_rows import near_names, read_rows
from graftline.errors import ConfigurationError, DataError
from graftline.stats.wording import counted
from graftline.storage import open_store
from graftline.storage.base import Store
from graftline.storage.uri import local_path, parent_and_name, scheme
from graftline.storage.zip_archive import ZIP

PATTERN = "*?["


@dataclass(frozen=True)
class Item:
    """One image to classify.

    Attributes:
        name: As the user knows it: the path below what was given, or the cell of a table.
        read: Gives its bytes.
    """

    name: str
    read: Callable[[], bytes]


@dataclass
class Found:
    """The images, and what beside them was left out.

    Attributes:
        items: In order: of a folder by path, of a table by row.
        skipped: Files in folders that are no images by their names.
    """

    items: list[Item] = field(default_factory=list)
    skipped: int = 0


def find_images(inputs: Sequence[str], image_column: str = "image") -> Found:
    """List what is to be classified.

    Args:
        inputs: Image files, folders, patterns such as ``photos/*.jpg``, tables of images,
            ``s3://`` objects and prefixes.
        image_column: Of the tables.

    Raises:
        ConfigurationError: An input names nothing.
        DataError: A table cannot be read or has no such column.
        StoreError: A prefix cannot be listed.
    """
    found = Found()
    for given in inputs:
        if not given.strip():  # as a path it would be the working folder
            raise ConfigurationError(
                "The name of an image is empty.", fix="Give a file, a folder, a pattern or a table."
            )
        path = local_path(given)
        if given.lower().endswith((*ARCHIVES, ZIP)):
            raise ConfigurationError(
                f"{given} is an archive.", fix="Unpack it, or give the images in it."
            )
        if given.lower().endswith(TABLES) and not (path is not None and _is(path.is_dir)):
            found.items += _table(given, image_column)
        elif path is None:
            _store(given, found)
        elif _is(path.is_dir):
            _listed(open_store(str(path)), f"{given.rstrip('/')}/", found)
        elif _is(path.exists) or not any(sign in given for sign in PATTERN):
            # A missing file is one row with a reason, beside the others.
            found.items.append(Item(given, path.read_bytes))
        else:
            _pattern(given, path, found)
    if not found.items:
        raise ConfigurationError(
            f"There are no images in {', '.join(inputs)}.",
            why=f"Not taken for images, by their endings: {counted(found.skipped, 'file')}."
            if found.skipped
            else None,
            fix="Give image files, a folder, a pattern in quotes, a table or an s3:// prefix.",
        )
    return found


def _pattern(given: str, path: Path, found: Found) -> None:
    """What the shell left for us: a pattern in quotes, also with ``**``."""
    # Path.glob takes no pattern with folders before it that starts at the root.
    for name in sorted(glob.glob(str(path), recursive=True)):  # noqa: PTH207
        match = Path(name)
        if match.is_dir():
            _listed(open_store(name), f"{name.rstrip('/')}/", found)
        elif is_image(name) or "." in given.rpartition("/")[2]:  # its ending was asked for
            found.items.append(Item(name, match.read_bytes))
        else:
            found.skipped += 1


def _store(given: str, found: Found) -> None:
    """An object, or all below a prefix."""
    if is_image(given):
        folder, name = parent_and_name(given)
        found.items.append(_item(open_store(folder), name, given))
        return
    prefix = given.rstrip("/")
    _listed(open_store(prefix), f"{prefix}/", found)


def _listed(store: Store, shown: str, found: Found) -> None:
    for info in store.list():
        if hidden(info.key):
            continue
        if is_image(info.key):
            found.items.append(_item(store, info.key, shown + info.key))
        else:
            found.skipped += 1


def _item(store: Store, key: str, name: str) -> Item:
    return Item(name, lambda: store.read(key))


def _table(given: str, column: str) -> Iterator[Item]:
    """The images that a table names, a row each, whatever else is in it."""
    path = local_path(given)
    folder, name = parent_and_name(given if path is None else str(path.absolute()))
    store = open_store(folder)
    header, rows = read_rows(store.read(name), given)
    if column not in header:
        near = near_names(column, header)
        raise DataError(
            f"The table {given} has no column {column!r}",
            why=f"its columns are {', '.join(map(repr, header))}",
            fix=(f"Did you mean {near[0]!r}? " if near else "")
            + "Name the column with --image-column, or with predict.image_column in a run file.",
        )
    finder = ImageFinder(store, whole=False)
    for row in rows:
        image = row.cells.get(column) or ""
        location = finder.location(image, name)
        why = row.problem or finder.unreadable.get(image) or (None if image else "no image")
        if why is not None or (scheme(location) and scheme(location) != "s3"):
            yield Item(image or f"row {row.line}", _refusing(why or "cannot be read"))
            continue
        place, key = finder.store_of(location)
        yield _item(place, key, image)


def _refusing(reason: str) -> Callable[[], bytes]:
    def read() -> bytes:
        raise DataError(reason)

    return read


def _is(question: Callable[[], bool]) -> bool:
    """The answer; no for a name that no file can have."""
    try:
        return question()
    except OSError:
        return False
