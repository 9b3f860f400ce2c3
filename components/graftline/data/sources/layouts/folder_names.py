"""What names of folders give away: systems, documents, masks, persons and places."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

from graftline.data.sources.label_text import words_of

Folders = tuple[str, ...]
Counts = Mapping[Folders, int]

SYSTEM_FOLDER = "system folder"
MASK = "mask, not a picture of the class"
THUMBNAILS = "thumbnail of another picture"

SYSTEM = (
    *("__macosx", "@eadir", "lost+found", "$recycle.bin", "system volume information"),
    *("__pycache__", "node_modules", "#recycle"),
)
DOCUMENTS = words_of(
    "doc docs documentation annotation annotations labels metadata meta figures figs scripts "
    "src code readme thumbs thumbnails previews logs result results output outputs predictions "
    "preds runs checkpoints screenshots assets tmp temp trash duplicates"
)
MASKS = words_of(
    "mask masks segmentation segmentations segs groundtruth ground_truth annotation annotations "
    "labelmaps trimaps label gt annot manual 1st_manual depth"
)
_SMALL = words_of("thumb thumbs thumbnail thumbnails previews .thumbnails")
UNLABELLED = words_of("unlabeled unlabelled unannotated")
_BESIDE = words_of("data set dataset images image imgs img samples train training extra")
PLAIN = words_of(
    "images image imgs img jpg jpeg jpegs png pngs raw original originals photos pictures pics "
    "crops data files jpegimages rgb"
)
CONTAINERS = PLAIN | words_of("dataset datasets all classes categories")
_CONTAINING = words_of("dataset datasets images imgs labeled labelled train training")
_WHO_OR_WHERE = (
    "patient|pat|subject|subj|sub|person|user|writer|author|participant|case|slide|site|hospital|"
    "centre|center|clinic|lab|camera|cam|scanner|device|sensor|session|visit|day|date|week|month|"
    "year|batch|run|video|clip|sequence|seq|fold|location|loc|farm|station|donor|specimen|cv|study"
)
_PERSON = re.compile(
    r"(?i)(?:patient|pat|subject|subj|sub|person|user|writer|author|participant|case|donor|"
    r"specimen)s?(?:[ _.-]?\d\w*|[ _.-]?[a-z])|(?:p|s|id|pt)[ _.-]?\d+"
)
_IDENTIFIER = re.compile(
    rf"(?i:(?:{_WHO_OR_WHERE})s?(?:[ _.-]?\d\w*|[ _.-]?[a-z]))|(?i:p|s|id|pt)[ _.-]?\d+"
    r"|\d{4}[-_.]?\d\d[-_.]?\d\d(?:[T _-].*)?|\d\d[-_.]\d\d[-_.]\d{4}"
)


def system_folders(counts: Counts) -> dict[Folders, str]:
    """Folders that an operating system or a program made, with the reason to leave them out."""
    found = {}
    for folders in counts:
        for level, name in enumerate(folders):
            if name.lower() in SYSTEM:
                found[folders[: level + 1]] = SYSTEM_FOLDER
    return found


def masks_below(counts: Counts, level: int) -> dict[Folders, str]:
    """Folders of masks or thumbnails below a class that has other folders or images beside them."""
    inside: dict[Folders, set[str]] = defaultdict(set)
    for folders in counts:
        for depth in range(level + 1, len(folders) + 1):
            inside[folders[:depth]].add(folders[depth].lower() if depth < len(folders) else "")
    return {
        folders[: depth + 1]: MASK if folders[depth].lower() in MASKS else THUMBNAILS
        for folders in counts
        for depth in range(level + 1, len(folders))
        if folders[depth].lower() in MASKS | _SMALL and inside[folders[:depth]] - MASKS - _SMALL
    }


def names_masks(name: str) -> bool:
    """Whether a folder's name says that masks are in it: masks, SegmentationClass."""
    return name.lower() in MASKS or not MASKS.isdisjoint(_words(name))


def unlabelled(name: str) -> bool:
    """Whether a folder's name says that its images have no labels: unlabeled, unlabeled_images."""
    words = _words(name)
    return bool(words & UNLABELLED) and words <= UNLABELLED | _BESIDE


def contains(name: str) -> bool:
    """Whether a folder's name says that classes are in it: data, my_dataset, train_images."""
    return name.lower() in CONTAINERS or not _CONTAINING.isdisjoint(_words(name))


def masks_of_images(names: Iterable[str]) -> set[str]:
    """Folders of masks beside one of images that is called alike: CameraMask, CameraRGB."""
    names = list(names)
    of_images = {_words(name) - PLAIN for name in names if _words(name) & PLAIN}
    return {
        name
        for name in names
        if names_masks(name) and (rest := _words(name) - MASKS) and rest in of_images
    }


def _words(name: str) -> frozenset[str]:
    return frozenset(re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()))


def level_of_kinds(dirs: Counts) -> int:
    """The level of folders that may be classes, with their kinds above them; 0 where there is none.

    Names of a level that return below other kinds are no classes (cat/front, dog/front).
    """
    for level in range(1, max(map(len, dirs))):
        subs: dict[str, set[str]] = {f[0]: set() for f in dirs}
        for folders in dirs:
            subs[folders[0]].update(folders[level : level + 1])
        plain = {top: {s for s in names if s.lower() not in PLAIN} for top, names in subs.items()}
        if kinds_above_classes(plain) and not shared(plain):
            return level
    return 0


def shared(subs: Mapping[str, set[str]]) -> bool:
    """Whether half of the folders below return below another one."""
    pairs = Counter(sub for names in subs.values() for sub in names)
    return sum(n for n in pairs.values() if n > 1) >= sum(pairs.values()) / 2


def kinds_above_classes(subs: Mapping[str, set[str]]) -> bool:
    """Whether the folders below may be classes, and those above their kinds (animals/cat)."""
    words = all(not any(map(str.isdigit, sub)) for names in subs.values() for sub in names)
    return words and all(subs.values()) and sum(len(names) > 1 for names in subs.values()) > 1


def identifiers(names: Iterable[str]) -> bool:
    """Whether these name persons, places or times (patient_07, siteA, 2024-05-01), not classes."""
    return all(_IDENTIFIER.fullmatch(name) for name in names)


def persons(names: Iterable[str]) -> bool:
    """Whether these name persons or specimens: what is below belongs to one of them."""
    return all(_PERSON.fullmatch(name) for name in names)


def instances(subs: Mapping[str, set[str]]) -> bool:
    """Whether all folders below are called as the one above, with a number: apple/apple_1."""
    return all(
        re.fullmatch(rf"{re.escape(top)}[ _.-]*\d+", name)
        for top, names in subs.items()
        for name in names
    )


def is_group_column(name: str) -> bool:
    """Whether a column of this name says which person, place or time an image is from."""
    words = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())
    return any(re.fullmatch(f"(?:{_WHO_OR_WHERE})s?", word) for word in words)


def by_top(dirs: Counts) -> Counter[str]:
    """Images below each folder of the first level."""
    tops: Counter[str] = Counter()
    for folders, count in dirs.items():
        tops[folders[0]] += count
    return tops


def subfolders(dirs: Counts) -> dict[str, set[str]]:
    """The names of the folders directly below each folder of the first level."""
    subs: dict[str, set[str]] = defaultdict(set)
    for folders in dirs:
        subs[folders[0]].update(folders[1:2])
    return subs


def one_level_down(dirs: Counts) -> Counts:
    """The same images by their folders without the first level."""
    below: Counter[Folders] = Counter()
    for folders, count in dirs.items():
        if len(folders) > 1:
            below[folders[1:]] += count
    return below


_PARTS = (
    "part|fold|kfold|batch|chunk|shard|split|subset|folder|volume|run|trial|seed|dir|archive|images|"
    "image|imgs|photos|pictures|session|visit|day|date|week|month|year|data|dataset|set|"
    "patient|pat|case|donor|specimen|site|hospital|centre|center|clinic|scanner|video|clip|seq|"
    "sequence|study|cv|camera|cam|sensor|station|location|lab|farm|new folder"
)
_PART = re.compile(
    rf"(?i)(.*[ _.-])?(?:{_PARTS})s?(?:[ _.-]*\(?\d+\)?|[ _.-][a-z])"
    r"|\d{4}[-_.]?\d\d[-_.]?\d\d(?:[T _-].*)?|\d\d[-_.]\d\d[-_.]\d{4}|(?:19|20)\d\d"
)


def parts(names: Iterable[str]) -> bool:
    """Whether these number the parts of one thing (fold1, images_part_2, 2024-05-01), not classes.

    Persons are no such parts: faces are told apart by them.
    """
    found = [_PART.fullmatch(name) for name in names]
    return all(found) and len({one[1] for one in found if one}) == 1
