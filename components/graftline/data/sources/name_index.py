"""Finds images by the end of their path: tables name them by id, or from another folder."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from urllib.parse import unquote

from graftline.data.sources.annotation_tools import names_of_upload
from graftline.data.sources.layouts.folder_names import MASKS
from graftline.data.sources.split_list_files import split_of_list
from graftline.data.sources.table_images import is_image, same_name

_SUFFIXES = {"jpeg": "jpg", "tiff": "tif"}


class NameIndex:
    """Images by their name without suffix.

    Args:
        locations: Of the images.
        inside: What the locations of the source begin with.
        table: The table's name, which stands in `annotations/` beside `images/` in some data sets.
    """

    def __init__(self, locations: Iterable[str], inside: str, table: str) -> None:
        self.inside = inside
        self.folder, _, name = table.rpartition("/")
        self.split = split_of_list(f"{name.rpartition('.')[0]}.txt")
        self.exact: dict[str, list[str]] = defaultdict(list)
        for location in locations:
            self.exact[_bare(location)].append(location)
        self.folded: dict[str, list[str]] = defaultdict(list)  # as a case-blind disk has them
        for bare, same in self.exact.items():
            self.folded[bare.casefold()] += same
        widths = {len(name) for name in self.exact if name.isdecimal()}
        self.width = widths.pop() if len(widths) == 1 else 0  # of all names that are numbers

    def find(self, location: str) -> list[str]:
        """The images that a location may mean which leads nowhere; several are no answer."""
        path = location.removeprefix(self.inside)
        if path == location:
            there = self._of_another_machine(location)
        else:
            ways = [path, path.removeprefix(f"{self.folder}/")]
            there = self._matching(ways) or self._matching(ways, fold=True)
            if not there and path.isdecimal() and self.width > len(path):
                there = self._matching([path.zfill(self.width)])  # a spreadsheet took zeros away
        return self._in_own_split(there) or there

    def _in_own_split(self, there: Sequence[str]) -> list[str]:
        """Of several locations those in a folder that is called as the table: train.csv, train/."""
        if self.split is None or len(there) < 2:
            return []
        folders = {one: one.removeprefix(self.inside).split("/")[:-1] for one in there}
        return [
            one
            for one in there
            if any(split_of_list(f"{part}.txt") == self.split for part in folders[one])
        ]

    def _of_another_machine(self, path: str) -> list[str]:
        """Images whose location ends as an absolute path of elsewhere does, a folder included."""
        parts = path.replace("\\", "/").strip("/").split("/")
        ways = ["/".join(parts[start:]) for start in range(len(parts) - 1)] + names_of_upload(path)
        return next(filter(None, (self._matching([way]) for way in ways)), [])

    def _matching(self, names: Sequence[str], *, fold: bool = False) -> list[str]:
        """Images whose path ends as one of these; without an image's suffix, any suffix fits."""
        ways = dict.fromkeys([*names, *map(unquote, names)])
        there = [one for way in ways for one in self._ending(same_name(way), fold)]
        pictures = [one for one in there if not set(one.lower().split("/")[:-1]) & MASKS]
        return list(dict.fromkeys(pictures or there))

    def _ending(self, name: str, fold: bool) -> Iterator[str]:
        suffix = is_image(name)
        key = _bare(name) if suffix else name.rpartition("/")[2]
        folders = _folders(name, fold)
        index = self.folded if fold else self.exact
        for location in index.get(key.casefold() if fold else key, ()):
            same = not suffix or _suffix(location) == _suffix(name)
            above = _folders(same_name(location), fold)
            if same and above[len(above) - len(folders) :] == folders:
                yield location


def _folders(path: str, fold: bool) -> list[str]:
    return (path.casefold() if fold else path).split("/")[:-1]


def _bare(location: str) -> str:
    return same_name(location.rpartition("/")[2]).rpartition(".")[0]


def _suffix(location: str) -> str:
    suffix = location.rpartition(".")[2].lower()
    return _SUFFIXES.get(suffix, suffix)
