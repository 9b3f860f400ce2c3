"""Where the images of a table are: names become locations, and listings say what is there."""

import posixpath
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from graftline.data.sources.label_text import clean_text, clip
from graftline.data.sources.layouts.layout import excluded
from graftline.errors import (
    ConfigurationError,
    GraftlineError,
    StoreAccessDenied,
    StoreError,
    StoreNotFound,
)
from graftline.images.decode import SUFFIXES
from graftline.storage import open_store, uri
from graftline.storage.base import ObjectInfo, Store
from graftline.storage.local import FileStore
from graftline.storage.zip_archive import ZipStore

NOT_FOUND = "file not found"
DRIVE_LETTER = "a path of another machine, with a drive letter"
OTHER_MACHINE = "a path of one machine, in a table that is not on it"
NAME_BYTES = 255  # of one part of a path, on every file system here


# What S3's client sends at all; access points are named by an ARN, which holds slashes.
BUCKET = re.compile(r"[A-Za-z0-9._-]{1,255}|arn:.+")


class ImageFinder:
    """Finds the images that a table names, in its folder or anywhere by full URI.

    Args:
        store: The folder of the source.
        whole: Whether all of that folder is listed, too.
        exclude: What is left out, as :class:`graftline.data.sources.base.Reading` has it.

    Attributes:
        base: The folder's path, or its S3 URI.
        listed: All that was listed so far, by location.
        unreadable: Why a location cannot be read.
        actual: Where the listing spells a name in another Unicode form.
    """

    def __init__(self, store: Store, whole: bool, exclude: Sequence[str] = ()) -> None:
        self.whole = whole
        self.exclude = exclude
        self.store = store
        self.base = str(store.root) if isinstance(store, FileStore) else store.uri
        self.listed: dict[str, ObjectInfo] = {}
        self.unreadable: dict[str, str] = {}
        self.actual: dict[str, str] = {}
        self._stores: dict[str, Store] = {}

    def location(self, image: str, name: str) -> str:
        """The absolute path or S3 URI of an image, however the table names it."""
        reason = _unreadable_name(image)
        local = image.startswith("/") or uri.scheme(image) == "file"
        if reason is None and local and "://" in self.base:
            reason = OTHER_MACHINE
        if reason is not None:
            self.unreadable[image] = reason
            return image
        if uri.scheme(image) == "file":
            try:
                return str(uri.local_path(image))
            except ConfigurationError as error:  # another machine's, or no address: this row alone
                self.unreadable[image] = error.what
                return image
        if not image or "://" in image:
            return image
        if image.startswith("/"):
            return posixpath.normpath(image)
        scheme, _, rest = self.base.rpartition("://")
        folder = f"{rest}/{name}".rpartition("/")[0]
        return f"{scheme}://" * bool(scheme) + posixpath.normpath(f"{folder}/{image}")

    def store_of(self, location: str) -> tuple[Store, str]:
        """The store that holds a location (a bucket, or this machine's files), and its key."""
        if isinstance(self.store, ZipStore) and location.startswith(f"{self.base}/"):
            return self.store, location.removeprefix(f"{self.base}/")
        bucket, key = "", location[1:]
        if "://" in location:
            scheme, _, rest = location.partition("://")
            bucket, _, key = rest.partition("/")
            bucket = f"{scheme}://{bucket}"
        if bucket not in self._stores:
            self._stores[bucket] = open_store(bucket or "/")
        return self._stores[bucket], key

    def with_slashes(self, images: list[str], found: dict[str, ObjectInfo]) -> list[str]:
        """Where a name with backslashes leads nowhere, the same one with slashes, if it does."""
        slashed = {
            image: posixpath.normpath(image.replace("\\", "/"))
            for image in images
            if "\\" in image and "://" not in image and image not in found
        }
        more = self.find(set(slashed.values())) if slashed else {}
        found.update(more)
        return [slashed[i] if slashed.get(i) in more else i for i in images]

    def find(self, images: Iterable[str]) -> dict[str, ObjectInfo]:
        """What the listings of the folders that hold the images say of them.

        Args:
            images: Locations.
        """
        wanted = {image for image in images if image not in self.unreadable}
        done: list[str] = []
        folders: dict[str, list[str]] = defaultdict(list)
        for image in wanted:
            folders[image.rpartition("/")[0] + "/"].append(image)
        if self.whole:
            folders.setdefault(self.base + "/", [])
        for folder in sorted(folders):
            if any(folder.startswith(other) for other in done):
                continue
            try:
                store, prefix = self.store_of(folder)
                if isinstance(store, FileStore) and not folder.startswith(self.base + "/"):
                    # One row with `../../x` would else list all of this machine's files.
                    infos = [store.info(image[1:]) for image in folders[folder]]
                else:
                    infos = list(store.list(prefix))
                for info in filter(None, infos):
                    self.listed[folder + info.key[len(prefix) :]] = info
            except (ConfigurationError, StoreNotFound, StoreAccessDenied) as error:
                self._cannot_read(folder, folders, error)
            except StoreError as error:
                if "://" in folder:
                    raise
                self._cannot_read(folder, folders, error)
            else:
                if folder.startswith(self.base + "/") or "://" in folder:
                    done.append(folder)
        found = {image: self.listed[image] for image in wanted if image in self.listed}
        if len(found) < len(wanted):  # the same name in another Unicode form
            by_name = {same_name(location): location for location in self.listed}
            for image in wanted - found.keys():
                location = by_name.get(same_name(image))
                if location is not None:
                    found[image] = self.listed[location]
                    self.actual[image] = location
        return found

    def may_be_meant(self, location: str) -> bool:
        """Whether a listed file is an image that a table may name by a part of its path."""
        path = location.removeprefix(f"{self.base.rstrip('/')}/")
        hidden = path.startswith(".") or "/." in path
        return is_image(location) and not hidden and not excluded(path, self.exclude)

    def list_all(self) -> None:
        """List all of the source's folder, where that was not done yet."""
        if not self.whole:
            self.whole = True
            self.find(())
            self.whole = False

    def _cannot_read(
        self, folder: str, folders: Mapping[str, list[str]], error: GraftlineError
    ) -> None:
        """The rows that name images in a folder are at fault, not the table."""
        if folder.startswith(self.base + "/") and isinstance(error, StoreAccessDenied):
            raise error
        gone = isinstance(error, StoreNotFound)
        reason = NOT_FOUND if gone else f"cannot be read: {clip(error.what)}"
        self.unreadable.update(dict.fromkeys(folders[folder], reason))


def _unreadable_name(image: str) -> str | None:
    """Why a name cannot be that of an image here, where it tells by itself."""
    scheme = image.partition(":")[0].lower() if ":" in image[:20] else ""
    if scheme == "data" and "," in image:
        return "a data: URI, not the name of a file"
    if "://" in image and scheme not in ("s3", "file"):
        return f"address of a kind that cannot be read ({clip(scheme, 20)}://)"
    if len(scheme) == 1 and image[2:3] in ("\\", "/"):
        return DRIVE_LETTER
    parts = image.partition("://")[2].split("/") if "://" in image else image.split("/")
    if scheme == "s3" and "://" in image and not BUCKET.fullmatch(parts[0]):
        return "not the name of a bucket"
    if any(len(part.encode("utf-8", "surrogatepass")) > NAME_BYTES for part in parts):
        return "name is too long"
    if "\0" in image or "\n" in image or "\r" in image:
        return "name cannot be used"
    return None


def same_name(location: str) -> str:
    """A location as it is compared with another one."""
    return clean_text(location)


def printable(path: str) -> str:
    """A path that can be written as UTF-8, whatever bytes a disk has in it."""
    return path.encode("utf-8", "backslashreplace").decode()


def is_image(location: str) -> bool:
    """Whether its suffix is an image's."""
    name = location.rpartition("/")[2]
    return "." in name and "." + name.rpartition(".")[2].lower() in SUFFIXES
