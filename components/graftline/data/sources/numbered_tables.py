"""Texts that number the images and speak of the numbers, as Caltech's birds (CUB) come with.

`images.txt` numbers them, `image_class_labels.txt` and `classes.txt` state their labels, and
`train_test_split.txt` says which numbers train.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from graftline.errors import StoreError
from graftline.storage.base import ObjectInfo, Store

IMAGES, LABELS, CLASSES = "images.txt", "image_class_labels.txt", "classes.txt"
SPLITS = "train_test_split.txt"


def keys_of(found: Sequence[ObjectInfo], *names: str) -> list[str]:
    """The one file of each name, wherever it stands; empty where one is missing or is there twice.

    Args:
        found: The files of the source.
        names: Without folders.
    """
    keys: dict[str, list[str]] = defaultdict(list)
    for one in found:
        keys[one.key.rpartition("/")[2]].append(one.key)
    ways = [keys[name] for name in names]
    return [way[0] for way in ways] if all(len(way) == 1 for way in ways) else []


def by_number(store: Store, key: str) -> dict[str, str]:
    """What a file says of each number; empty where its lines have another form."""
    rows = [
        line.split(None, 1) for line in (text_of(store, key) or "").splitlines() if line.strip()
    ]
    if any(len(row) != 2 for row in rows):
        return {}
    return {number: said.strip() for number, said in rows}


def numbered_labels(
    store: Store, found: Sequence[ObjectInfo]
) -> tuple[str, Iterator[tuple[str, str]]] | None:
    """The file that labels the numbers, and each image's path and label; None without one.

    The labels are the names of the classes, where all of them have one.
    """
    keys = keys_of(found, IMAGES, LABELS)
    if not keys:
        return None
    paths, labels = (by_number(store, key) for key in keys)
    named = keys_of(found, CLASSES)
    names = by_number(store, named[0]) if named else {}
    if not paths or not labels:
        return None
    if not set(labels.values()) <= names.keys():
        names = {}
    pairs = ((paths.get(n, n), names.get(label, label)) for n, label in labels.items())
    return keys[1], pairs


def text_of(store: Store, key: str) -> str | None:
    """A file of text; None where it cannot be read."""
    try:
        return store.read(key).decode("utf-8-sig")
    except (StoreError, UnicodeDecodeError):
        return None
