"""Images that a table names without their folder or suffix, as `image_id` columns do."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from urllib.parse import unquote

from graftline.data.sources.annotation_tools import names_of_upload
from graftline.data.sources.label_text import clip
from graftline.data.sources.layouts.folder_names import MASKS
from graftline.data.sources.split_list_files import split_of_list
from graftline.data.sources.table_images import (
    NOT_FOUND,
    OTHER_MACHINE,
    ImageFinder,
    is_image,
    same_name,
)
from graftline.storage.base import ObjectInfo

SEVERAL = "several files have this name"
MOST = 0.5  # of the images are not where the table says: worth listing all of its folder
ELSEWHERE = (NOT_FOUND, OTHER_MACHINE)
_SUFFIXES = {"jpeg": "jpg", "tiff": "tif"}


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
    """
    missing = [
        one
        for one in dict.fromkeys(images)
        if one and one not in found and finder.unreadable.get(one, NOT_FOUND) in ELSEWHERE
    ]
    if not missing:
        return ""
    inside = finder.base.rstrip("/") + "/"
    folder = name.rpartition("/")[0]
    examples: list[tuple[str, str]] = []
    if len(missing) > MOST * len(images):
        if "/" not in name:
            examples = _in_parent(finder, inside, missing, found)
        if not examples:
            finder.list_all()
    index: dict[str, list[str]] = defaultdict(list)
    for location in finder.listed:
        rest = location.removeprefix(inside)
        if is_image(location) and "/." not in f"/{rest}":
            index[_bare(location)].append(location)
    split = split_of_list(f"{name.rpartition('/')[2].rpartition('.')[0]}.txt")
    width = _width_of_numbers(index)
    for one in missing:
        if one in found or ("://" in one and not one.startswith(inside)):
            continue
        path = one.removeprefix(inside)
        ways = [path, path.removeprefix(f"{folder}/")]
        there = _matching(ways, index) if path != one else _of_another_machine(one, index)
        if not there and path.isdecimal() and width > len(path):
            there = _matching([path.zfill(width)], index)  # a spreadsheet took the zeros away
        if len(there) > 1:
            there = _in_own_split(there, inside, split) or there
        if len(there) == 1:
            found[one] = finder.listed[there[0]]
            finder.actual[one] = there[0]
            finder.unreadable.pop(one, None)
            examples.append((one, there[0]))
        elif there:
            finder.unreadable[one] = SEVERAL
    if not examples:
        return ""
    named, location = (clip(text.removeprefix(inside)) for text in examples[0])
    return (
        f"{len(examples):,} images are not where the table says and were found by their "
        f"names, for instance {named} at {location}."
    )


def _in_own_split(there: Sequence[str], inside: str, split: str | None) -> list[str]:
    """Of several locations those in a folder that is called as the table: train.csv, train/."""
    folders = {
        one: {split_of_list(f"{part}.txt") for part in one.removeprefix(inside).split("/")[:-1]}
        for one in there
    }
    return [one for one in there if split is not None and split in folders[one]]


def _width_of_numbers(index: dict[str, list[str]]) -> int:
    """How many digits the names of images have that are numbers, if all have as many; else 0."""
    widths = {len(name) for name in index if name.isdecimal()}
    return widths.pop() if len(widths) == 1 else 0


def _of_another_machine(path: str, index: dict[str, list[str]]) -> list[str]:
    """Locations that end as an absolute path does that leads nowhere here, a folder included."""
    parts = path.strip("/").split("/")
    ways = ["/".join(parts[start:]) for start in range(len(parts) - 1)] + names_of_upload(path)
    return next(filter(None, (_matching([way], index) for way in ways)), [])


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


def _matching(names: Sequence[str], index: dict[str, list[str]]) -> list[str]:
    """Locations that end with one of these paths; without an image's suffix, any suffix fits."""
    ways = dict.fromkeys([*names, *map(unquote, names)])
    there = [location for way in ways for location in _ending(same_name(way), index)]
    pictures = [one for one in there if not set(one.lower().split("/")[:-1]) & MASKS]
    return list(dict.fromkeys(pictures or there))


def _ending(name: str, index: dict[str, list[str]]) -> Iterable[str]:
    suffix = is_image(name)
    key = _bare(name) if suffix else name.rpartition("/")[2]
    folders = name.split("/")[:-1]
    for location in index.get(key, ()):
        same = not suffix or _suffix(location) == _suffix(name)
        above = same_name(location).split("/")[:-1]
        if same and above[len(above) - len(folders) :] == folders:
            yield location


def _bare(location: str) -> str:
    return same_name(location.rpartition("/")[2]).rpartition(".")[0]


def _suffix(location: str) -> str:
    suffix = location.rpartition(".")[2].lower()
    return _SUFFIXES.get(suffix, suffix)
