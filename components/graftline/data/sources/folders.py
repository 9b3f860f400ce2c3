"""Class folders: the first folder below the source is the label."""

from typing import TYPE_CHECKING

from typing_extensions import override

from graftline.errors import StoreError
from graftline.images.decode import SUFFIXES
from graftline.storage.base import ObjectInfo, Store, checked_key

if TYPE_CHECKING:
    pass
from graftline.data.sources.base import SPLIT_NAMES, Entry, Source, listing


class FolderSource(Source):
    """Class folders: the first folder below the source is the label, however deep the file is.

    Where these folders are called train, val and test (and the like), they are the splits and
    the folders below them are the labels.
    """

    format = "folders"

    def __init__(self, store: Store) -> None:
        super().__init__()
        self.store = store
        self.uri = store.uri

    @override
    def entries(self) -> list[Entry]:
        found = list(listing(self.store))
        tops = {info.key.split("/")[0] for info in found if "/" in info.key}
        visible = {top for top in tops if not top.startswith(".")}
        by_split = "train" in {SPLIT_NAMES.get(top.lower()) for top in visible}
        by_split = by_split and len(visible) > 1 and all(t.lower() in SPLIT_NAMES for t in visible)
        by_split = by_split and any(info.key.count("/") >= 2 for info in found)
        if by_split:
            names = ", ".join(sorted(visible))
            self.notes.append(f"The folders {names} are taken as splits, those below as labels.")
        elif any(info.key.count("/") >= 2 for info in found):
            self.notes.append("Folders are nested: the first one below the source is the label.")
        return [self._entry(info, by_split) for info in found]

    def _entry(self, info: ObjectInfo, by_split: bool) -> Entry:
        try:
            checked_key(info.key).encode()
        except (StoreError, UnicodeEncodeError):  # S3 allows "a//b", Linux any bytes
            shown = info.key.encode("utf-8", "backslashreplace").decode()
            return Entry(shown, info.version, info.size, problem="name cannot be used")
        *folders, name = info.key.split("/")
        split = SPLIT_NAMES[folders[0].lower()] if by_split and len(folders) > 0 else None
        if by_split:
            folders = folders[1:]
        label = folders[0] if folders else None
        problem = None
        if any(part.startswith(".") for part in info.key.split("/")):
            problem = "hidden file"
        elif not _may_be_image(name):
            problem = "not an image file"
        elif label is None:
            problem = "not in a class folder"
        return Entry(info.key, info.version, info.size, label, split, problem=problem)

    @override
    def read(self, entry: Entry) -> bytes:
        return self.store.read(entry.path)


def _may_be_image(name: str) -> bool:
    suffix = "." + name.rpartition(".")[2].lower() if "." in name else ""
    return suffix in SUFFIXES or suffix == ""
