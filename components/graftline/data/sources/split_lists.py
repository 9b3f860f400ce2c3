"""Splits, and sometimes labels, that lists of images beside folders state: they are obeyed."""

import dataclasses
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from graftline.data.sources.base import MOST, Entry
from graftline.data.sources.label_text import clean_text, clip
from graftline.data.sources.layouts.layout import NO_CLASS, exclude_line
from graftline.data.sources.numbered_tables import IMAGES, by_number, keys_of, text_of
from graftline.data.sources.numbered_tables import SPLITS as NUMBERED_SPLITS
from graftline.data.sources.split_list_files import (
    LARGEST,
    ImageIndex,
    SplitList,
    lists_by_name,
    near_index,
    read_list,
)
from graftline.data.sources.split_tables import lists_of_table
from graftline.data.sources.table_rows import Row, some
from graftline.errors import DataError
from graftline.storage.base import ObjectInfo, Store

SPLITS = ("train", "val", "test")
NOT_LISTED = "in no list of a split"
IGNORE = "`data.format: folders` takes the folders and ignores the lists"


@dataclasses.dataclass(frozen=True)
class SplitLists:
    """What the lists of a source say together.

    Attributes:
        lists: The ones that are read.
        splits: By image.
        labels: By image, where all lists state one.
        units: The folder of an image, where a line names the folder (of a video's frames).
        rest_trains: Whether the images of no list are to train on: only val and test are listed.
        notes: What is to be said of them.
        read: Names of all lists that were looked at, those that say nothing new included.
    """

    lists: tuple[SplitList, ...]
    splits: Mapping[str, str]
    labels: Mapping[str, str]
    units: Mapping[str, str]
    rest_trains: bool
    notes: tuple[str, ...]
    read: frozenset[str] = frozenset()

    def only_some(self, images: int) -> bool:
        """Whether they name some images to train on, and say nothing of the others."""
        return set(self.splits.values()) == {"train"} and len(self.splits) < MOST * images

    def label(self, share: float, images: int) -> bool:
        """Whether they state the label of this share of so many images."""
        return bool(self.labels) and len(self.labels) >= share * images

    @property
    def names(self) -> str:
        """The files, for a sentence."""
        return some(sorted({one.key for one in self.lists}))


def read_split_lists(
    store: Store,
    found: Sequence[ObjectInfo],
    keys: Sequence[str],
    labels: Sequence[str],
    tables: Mapping[str, tuple[Sequence[str], Sequence[Row]]],
) -> SplitLists | None:
    """The lists among the files of a source; None where there are none that name its images.

    Args:
        store: The source.
        found: All its files, without those that are left out.
        keys: Of its images.
        labels: Names of the folders, one of which may be a label in a list.
        tables: Columns and rows of tables that are not read as tables of images.

    Raises:
        DataError: Lists contradict one another.
    """
    candidates = lists_by_name([one.key for one in found])
    cub = keys_of(found, IMAGES, NUMBERED_SPLITS)
    sizes = {one.key: one.size for one in found}
    if not candidates and not cub and not tables:
        return None
    index = ImageIndex(keys)
    lists = []
    for key, split in candidates.items():
        text = text_of(store, key) if sizes[key] <= LARGEST else None
        one = read_list(key, split, text, near_index(key, index), labels) if text else None
        if one is not None and one.missing <= one.lines / 2:
            lists.append(one)
    lists += _cub_lists(store, cub, index) if cub else []
    for name, (header, rows) in tables.items():
        lists += lists_of_table(name, header, rows, index)
    if not lists:
        return None
    read = frozenset(one.key for one in lists)
    lists = _one_version(store.uri, _without_supersets(lists))
    broken = next((one for one in lists if one.missing > (1 - MOST) * one.lines), None)
    if broken is not None:
        raise DataError(
            f"{clip(broken.key)} lists images, and {broken.missing:,} of {broken.lines:,} lines "
            f"name none in {store.uri}",
            why="it would state the split of a part of the images only",
            fix=f"Correct its paths; {IGNORE}.",
        )
    return dataclasses.replace(_together(store.uri, lists), read=read)


def _cub_lists(store: Store, keys: Sequence[str], index: ImageIndex) -> list[SplitList]:
    """`images.txt` numbers the images, `train_test_split.txt` says which numbers train."""
    paths, trains = (by_number(store, key) for key in keys)
    if not paths or not trains:
        return []
    images: dict[str, dict[str, str]] = {"train": {}, "test": {}}
    missing = 0
    for number, flag in trains.items():
        there = index.find(paths.get(number, ""))
        missing += not there or flag not in ("0", "1")
        images["train" if flag == "1" else "test"].update(dict.fromkeys(there, ""))
    half = len(trains) // 2
    return [SplitList(keys[1], split, images[split], missing // 2, half) for split in images]


def _without_supersets(lists: list[SplitList]) -> list[SplitList]:
    """Without trainval.txt, where train.txt and val.txt are there, too."""
    both = [one for one in lists if "trainval" in re.sub(r"[\W_]", "", one.key.lower())]
    rest = [one for one in lists if one not in both]
    if {"train", "val"} <= {one.split for one in rest}:
        return rest
    held = {image for one in rest if one.split == "val" for image in one.images}
    if not held:
        return lists
    less = [
        dataclasses.replace(one, images={k: v for k, v in one.images.items() if k not in held})
        for one in both
    ]
    return [*less, *rest]


def _one_version(uri: str, lists: list[SplitList]) -> list[SplitList]:
    """Refuse lists of several ways to split the same images: train1.txt, train2.txt."""
    kept: list[SplitList] = []
    for one in lists:
        if any(one.split == other.split and one.images == other.images for other in kept):
            continue  # the same list in two places
        kept.append(one)
    for one in kept:
        for other in kept:
            if other is one or one.split != other.split:
                continue
            if one.images.keys() & other.images.keys():
                why = f"{some([one.key, other.key])} list some images for the same split again"
                raise _several_ways(uri, kept, why)
    return kept


def _several_ways(uri: str, lists: Sequence[SplitList], why: str) -> DataError:
    """The error where lists contradict one another, as several ways to split the same images."""
    names = sorted({one.key for one in lists})
    numbers = sorted({_number(name) for name in names}, key=lambda n: (len(n), n))
    rest = [name for name in names if _number(name) not in ("", numbers[0] or numbers[-1])]
    one = f"Select one way by leaving the other lists out: `{exclude_line(rest)}`. " if rest else ""
    return DataError(
        f"The lists {some(names)} of {uri} contradict one another",
        why=why,
        fix=f"{one or 'Correct the lists, or leave some of them out with data.exclude. '}{IGNORE}.",
    )


def _number(key: str) -> str:
    return "/".join(re.findall(r"\d+", key.rpartition("/")[2]))


def _together(uri: str, lists: list[SplitList]) -> SplitLists:
    splits: dict[str, str] = {}
    twice: list[tuple[str, str, str]] = []
    for one in lists:
        for image in one.images:
            if splits.setdefault(image, one.split) != one.split:
                twice.append((image, splits[image], one.split))
    if twice:
        image, first, second = twice[0]
        why = f"{clip(image)} is in {first} and in {second}, like {len(twice):,} images in all"
        raise _several_ways(uri, lists, why)
    stated = all(label for one in lists for label in one.images.values())
    stated = stated and not _numbers_images(max(lists, key=lambda one: len(one.images)))
    labels = {i: label for one in lists for i, label in one.images.items()} if stated else {}
    units = {image: folder for one in lists for image, folder in one.units.items()}
    counts = Counter(splits.values())
    said = ", ".join(f"{split} {counts[split]:,}" for split in SPLITS if counts[split])
    rest_trains = "train" not in counts
    notes = [
        f"The splits are those of {some(sorted({one.key for one in lists}))}: {said}"
        f"{', the others train' * rest_trains}. {IGNORE}."
    ]
    missing = sum(one.missing for one in lists)
    if missing:
        notes.append(f"{missing:,} lines of the lists name no image.")
    return SplitLists(tuple(lists), splits, labels, units, rest_trains, tuple(notes))


def _numbers_images(one: SplitList) -> bool:
    """Whether what stands beside the paths counts them (train_cls.txt of ImageNet)."""
    return 1 < len(one.images) == len(set(one.images.values()))


def split_only(lists: SplitLists, entries: Sequence[Entry], uri: str) -> list[Entry]:
    """The entries of a table with the splits of lists beside it."""
    plain = dataclasses.replace(lists, labels={}, units={})
    return with_lists(plain, entries, uri, folders=True)


def with_lists(
    lists: SplitLists, entries: Sequence[Entry], uri: str, *, folders: bool
) -> list[Entry]:
    """The entries with the splits of the lists, and their labels where folders state none.

    Args:
        lists: What they say.
        entries: As the folders say.
        uri: Of the source.
        folders: Whether the folders can be read.

    Raises:
        DataError: Folders and lists say different things.
    """
    listed = {path: clean_text(label) for path, label in lists.labels.items()}
    names = {one.label for one in entries if one.problem is None and one.label}
    known: dict[str, str] = {}
    use = bool(listed) and not (folders and len(names) > 1)
    if listed and not use:
        known = {name: name for name in names} | _same_labels(entries, listed, uri)
    result = []
    for one in entries:
        split, label = lists.splits.get(one.path), listed.get(one.path)
        label = label if use or label is None else known.get(label)
        if label is not None and one.problem in (None, NO_CLASS):
            one = dataclasses.replace(one, label=label, problem=None)
        if one.path in lists.units and one.group is None:
            one = dataclasses.replace(one, group=clean_text(lists.units[one.path]))
        result.append(_placed(one, split, lists.rest_trains and not use, uri))
    _refuse_few(lists, result, uri)
    return result


def _placed(one: Entry, split: str | None, rest_trains: bool, uri: str) -> Entry:
    if one.problem is not None:
        return one
    if split is None:
        if rest_trains:
            return dataclasses.replace(one, split=one.split or "train")
        if one.split is not None:
            return one  # its folder says it
        return dataclasses.replace(one, problem=NOT_LISTED)
    if one.split not in (None, split, "train"):
        raise DataError(
            f"{uri} can be split in two ways",
            why=f"{clip(one.path)} stands in a folder for {one.split} and in a list for {split}",
            fix=f"Correct one of them; {IGNORE}.",
        )
    return dataclasses.replace(one, split=split)


def _same_labels(entries: Sequence[Entry], listed: Mapping[str, str], uri: str) -> dict[str, str]:
    """The folder's name for each label of the lists.

    Raises:
        DataError: They are others than those of the folders, under whatever names.
    """
    ways: dict[str, set[str]] = defaultdict(set)
    back: dict[str, set[str]] = defaultdict(set)
    for one in entries:
        label = listed.get(one.path)
        if one.problem is None and one.label and label is not None:
            ways[label].add(one.label)
            back[one.label].add(label)
    odd = [label for label, names in ways.items() if len(names) > 1]
    odd += [name for name, labels in back.items() if len(labels) > 1]
    if odd:
        raise DataError(
            f"{uri} can be read in two ways",
            why=f"lists of images label them otherwise than their folders, for instance "
            f"{clip(odd[0])!r}",
            fix=f"Correct the lists; {IGNORE}.",
        )
    return {label: next(iter(found)) for label, found in ways.items()}


def _refuse_few(lists: SplitLists, after: Sequence[Entry], uri: str) -> None:
    left = [one.path for one in after if one.problem == NOT_LISTED]
    usable = sum(one.problem is None for one in after)
    if len(left) > (1 - MOST) * (usable + len(left)):
        raise DataError(
            f"{lists.names} of {uri} leave out {len(left):,} of {usable + len(left):,} images",
            why=f"a list of images to train on is there, and {clip(left[0])} is in none",
            fix=f"Complete the lists, or remove them; {IGNORE}.",
        )
