"""Images that a table names without their folder or suffix, as `image_id` columns do."""

from collections.abc import Mapping, Sequence

from graftline.data.sources.label_text import clip
from graftline.data.sources.layouts.layout import exclude_line
from graftline.data.sources.name_index import NameIndex
from graftline.data.sources.table_images import (
    DRIVE_LETTER,
    NOT_FOUND,
    OTHER_MACHINE,
    ImageFinder,
)
from graftline.errors import DataError
from graftline.storage.base import ObjectInfo

SEVERAL = "several files have this name"
MOST = 0.5  # of the images are not where the table says: worth listing all of its folder
ELSEWHERE = (NOT_FOUND, OTHER_MACHINE, DRIVE_LETTER)


def found_by_name(
    finder: ImageFinder, name: str, images: Sequence[str], found: dict[str, ObjectInfo]
) -> str:
    """Find images that are not where the table says, by the end of their path if it is unique.

    Args:
        finder: Gets the locations, or the reason where several files are called so.
        name: The table's, which stands in `annotations/` beside `images/` in some data sets.
        images: Locations, as the table's rows have them.
        found: What is there; what is found here is added.

    Returns:
        A note for the user; empty where nothing was found.

    Raises:
        DataError: Most names are those of several images.
    """
    missing = [
        one
        for one in dict.fromkeys(images)
        if one and one not in found and finder.unreadable.get(one, NOT_FOUND) in ELSEWHERE
    ]
    if not missing:
        return ""
    inside = finder.base.rstrip("/") + "/"
    examples: list[tuple[str, str]] = []
    if len(missing) > MOST * len(images):
        if "/" not in name:
            examples = _in_parent(finder, inside, missing, found)
        if not examples:
            finder.list_all()
    index = NameIndex((one for one in finder.listed if finder.may_be_meant(one)), inside, name)
    several: dict[str, list[str]] = {}
    where_it_says = set(found)  # an image that is there under its own path is meant by no other
    for one in missing:
        if one in found or ("://" in one and not one.startswith(inside)):
            continue
        there = index.find(one)
        if len(there) == 1 and there[0] in where_it_says:
            continue
        if len(there) == 1:
            found[one] = finder.listed[there[0]]
            finder.actual[one] = there[0]
            finder.unreadable.pop(one, None)
            examples.append((one, there[0]))
        elif there:
            finder.unreadable[one] = SEVERAL
            several[one] = there
    if len(several) > MOST * len(images):
        raise _several(name, several, inside)
    if not examples:
        return ""
    named, location = (clip(text.removeprefix(inside)) for text in examples[0])
    return (
        f"{len(examples):,} images are not where the table says and were found by their "
        f"names, for instance {named} at {location}."
    )


def _several(name: str, several: Mapping[str, Sequence[str]], inside: str) -> DataError:
    """The error where a table's names are those of images in several folders: orig/, resized/."""
    one, there = next(iter(several.items()))
    paths = [location.removeprefix(inside) for location in there]
    folders = [path.split("/")[:-1] or [""] for path in paths]
    level = next(
        (n for n, parts in enumerate(zip(*folders, strict=False)) if len(set(parts)) > 1), 0
    )
    names = list(dict.fromkeys("/".join(parts[: level + 1]) for parts in folders))
    said = " and ".join(map(clip, paths[:2]))
    return DataError(
        f"{name} names {len(several):,} images of which several files have the name",
        why=f"{clip(one.removeprefix(inside))} may be {said}",
        fix=f"Leave out all folders but one, for instance `{exclude_line(names[1:])}`, or write "
        "the paths in the table with their folders.",
    )


def _in_parent(
    finder: ImageFinder, inside: str, missing: Sequence[str], found: dict[str, ObjectInfo]
) -> list[tuple[str, str]]:
    """Images whose paths are relative to the folder above the table's.

    A name alone is not looked for there: all that is above would be listed for it.
    """
    above = inside.rstrip("/").rpartition("/")[0]
    if not above or above.endswith("/"):
        return []
    paths = {one: one.removeprefix(inside) for one in missing if one.startswith(inside)}
    named = {f"{above}/{path}": one for one, path in paths.items() if "/" in path}
    there = finder.find([one for one in named if not one.startswith(inside)])
    for location, info in there.items():
        found[named[location]] = info
        finder.actual[named[location]] = location
        finder.unreadable.pop(named[location], None)
    return [(named[location], location) for location in there]
