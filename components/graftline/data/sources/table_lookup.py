"""Images that a table names without their folder or suffix, as `image_id` columns do."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from urllib.parse import unquote

from graftline.data.sources.folder_names import MASKS
from graftline.data.sources.label_text import clip
from graftline.data.sources.table_images import NOT_FOUND, ImageFinder, is_image, same_name
from graftline.storage.base import ObjectInfo

SEVERAL = "several files have this name"
MOST = 0.5  # of the images are not where the table says: worth listing all of its folder
_SUFFIXES = {"jpeg": "jpg", "tiff": "tif"}


def found_by_name(finder: ImageFinder, images: Sequence[str], found: dict[str, ObjectInfo]) -> str:
    """Find the images that stand elsewhere, each by the end of its path, and only if it is unique.

    Args:
        finder: Gets the locations, or the reason where several files are called so.
        images: Locations, as the table's rows have them.
        found: What is there; what is found here is added.

    Returns:
        A note for the user; empty where nothing was found.
    """
    missing = [
        one
        for one in dict.fromkeys(images)
        if one and one not in found and finder.unreadable.get(one, NOT_FOUND) == NOT_FOUND
    ]
    if not missing:
        return ""
    if len(missing) > MOST * len(images):
        finder.list_all()
    inside = finder.base.rstrip("/") + "/"
    index: dict[str, list[str]] = defaultdict(list)
    for location in finder.listed:
        rest = location.removeprefix(inside)
        if is_image(location) and "/." not in f"/{rest}":
            index[_bare(location)].append(location)
    examples = []
    for one in missing:
        if not one.startswith(inside):
            continue
        there = _matching(one.removeprefix(inside), index)
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
        f"{len(examples):,} images stand elsewhere than the table says and were found by their "
        f"names, for instance {named} at {location}."
    )


def _matching(name: str, index: dict[str, list[str]]) -> list[str]:
    """Locations that end with this path; a path without an image's suffix takes any suffix."""
    ways = dict.fromkeys([name, unquote(name)])
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
