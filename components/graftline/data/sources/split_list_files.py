"""Lists of images beside folders (train.txt, meta/test.txt): which they are, and what they name."""

import dataclasses
import posixpath
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from typing_extensions import override

from graftline.data.sources.label_text import clean_text
from graftline.data.sources.split_names import SPLIT_WORDS, clear_splits, split_words
from graftline.images.decode import SUFFIXES

LISTS = (".txt", ".lst", ".list")
LARGEST = 2**28  # bytes of a list
_VIDEOS = (".avi", ".mp4", ".mov", ".mkv", ".webm")
_BESIDE = re.compile(
    r"(?i)(?<![a-z])(?:lists?|labels?|ids?|names?|filenames?|"
    r"paths?|annotations?|anno|annos|index|files?|fold|split|images?|official)(?![a-z])|\d+"
)
_Form = Callable[[str, frozenset[str]], tuple[str, str]]
_SEPARATORS = (r"\s*(?:[,;\t=]|:(?=\s))\s*", r"\s+")


@dataclasses.dataclass(frozen=True)
class SplitList:
    """A file that names the images of one split.

    Attributes:
        key: Its name.
        split: train, val or test.
        images: What it says of each image's label; empty where it says nothing.
        missing: Lines that name no image.
        lines: How many there are.
        units: The folder of each image whose line names that folder.
        absent: What the lines that name no image say: a path and a label.
    """

    key: str
    split: str
    images: Mapping[str, str]
    missing: int
    lines: int
    units: Mapping[str, str] = dataclasses.field(default_factory=dict)
    absent: Sequence[tuple[str, str]] = ()


def split_of_list(key: str) -> str | None:
    """The split that a file of this name lists; None where it is no such name."""
    name = key.rpartition("/")[2]
    if not name.lower().endswith(LISTS):
        return None
    stem = re.sub(r"(?i)(?<=[a-z])(?=(?:lists?|files?|split|labels?|ids?)(?![a-z]))", " ", name)
    stem = re.sub(r"(?i)train[ _-]?val(?![a-z])", "trainval", stem.rpartition(".")[0])
    stem = _BESIDE.sub(" ", stem)
    found = split_words(stem)
    return SPLIT_WORDS[found[0]] if found is not None and not found[1] else None


def lists_by_name(keys: Iterable[str]) -> dict[str, str]:
    """The files that list a split: train.txt, or x_train.txt beside x_test.txt.

    Other words beside the split's count where they are the same in all of them.
    """
    names = [key for key in keys if key.lower().endswith(LISTS)]
    found = {key: split for key in names if (split := split_of_list(key))}
    if found:
        return found
    stems = {key.rpartition("/")[2].rpartition(".")[0]: key for key in names}
    splits = clear_splits(stems)
    if len(set(splits.values())) < 2:
        return {}
    return {stems[stem]: split for stem, split in splits.items()}


class ImageIndex:
    """Finds images by the end of their path, with or without suffix, and folders of frames."""

    def __init__(self, keys: Sequence[str]) -> None:
        self.images: dict[str, list[str]] = defaultdict(list)
        self.folders: dict[str, dict[str, list[str]]] = defaultdict(dict)
        for key in keys:
            folder, _, name = key.rpartition("/")
            self.images[clean_text(_bare(name))].append(key)
            if folder:
                last = clean_text(folder.rpartition("/")[2])
                self.folders[last].setdefault(folder, []).append(key)

    def find(self, text: str) -> list[str]:
        """The images that a line names: one, all of a folder, or none."""
        parts = clean_text(text).replace("\\", "/").split("/")
        parts = [part for part in parts if part not in ("", ".")]
        if not parts:
            return []
        bare = [*parts[:-1], _bare(parts[-1])]
        whole = [parts[-1], bare[-1]]
        for drop in range(max(1, len(parts) - 1)):
            above = bare[drop:-1]
            found = [k for name in dict.fromkeys(whole) for k in self.images.get(name, ())]
            found = [k for k in found if _under(k.split("/")[:-1], above)]
            if len(parts[-1]) > len(bare[-1]) and len(found) > 1:
                found = [k for k in found if k.endswith(parts[-1])] or found
            if len(found) == 1:
                return found
            if found:
                return []
            held = self.folders.get(bare[-1], {})
            inside = [f for f in held if _under(f.split("/")[:-1], above)]
            if len(inside) == 1:
                return held[inside[0]]
        return []


class NearIndex(ImageIndex):
    """An index for a file: images in its own folder come first.

    Args:
        index: Of all images.
        above: The file's folder.
    """

    def __init__(self, index: ImageIndex, above: str) -> None:
        self.images, self.folders, self.above = index.images, index.folders, above

    @override
    def find(self, text: str) -> list[str]:
        place = posixpath.normpath(posixpath.join(self.above, clean_text(text).replace("\\", "/")))
        folder, _, name = place.rpartition("/")
        here = [
            key
            for one in dict.fromkeys((name, _bare(name)))
            for key in self.images.get(one, ())
            if key.rpartition("/")[0] == folder
        ]
        exact = [key for key in here if key.endswith(name)]
        return exact if len(exact) == 1 else here if len(here) == 1 else super().find(text)


def near_index(key: str, index: ImageIndex) -> NearIndex:
    """An index for a file: images beside it come first.

    For `train.txt` beside the folders `train` and `val`, that is `train`.
    """
    above = posixpath.dirname(key)
    split = split_of_list(key)
    if split is None:
        return NearIndex(index, above)
    start = f"{above}/" if above else ""
    beside = {
        folder[len(start) :].partition("/")[0]
        for held in index.folders.values()
        for folder in held
        if folder.startswith(start)
    }
    own = [name for name in beside if split_of_list(f"{name}.txt") == split]
    return NearIndex(index, f"{start}{own[0]}" if len(own) == 1 else above)


def _under(folders: Sequence[str], above: Sequence[str]) -> bool:
    return [clean_text(one) for one in folders[len(folders) - len(above) :]] == list(above)


def _bare(name: str) -> str:
    start, _, end = name.rpartition(".")
    return start if start and "." + end.lower() in (*SUFFIXES, *_VIDEOS) else name


def read_list(
    key: str, split: str, text: str, index: ImageIndex, labels: Iterable[str]
) -> SplitList | None:
    """What a list names, where its lines have one form; None where they name nothing here.

    A line is a path, or a path and a label; further numbers (boxes, kinds) are passed over.
    """
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if not all(map(_QUOTED.fullmatch, lines)):
        lines = [line.strip('"') for line in lines if line.strip('"')]
    known = frozenset(labels)
    best: SplitList | None = None
    for form in _forms(lines):
        one = _read_as(form, key, split, lines, index, known)
        if one is None or (best is not None and one.missing > best.missing):
            continue
        if best is None or one.missing < best.missing or _says_more(one, best):
            best = one
        if not best.missing and all(best.images.values()):
            break
    return best


def _read_as(
    form: _Form,
    key: str,
    split: str,
    lines: Sequence[str],
    index: ImageIndex,
    known: frozenset[str],
) -> SplitList | None:
    images: dict[str, str] = {}
    units: dict[str, str] = {}
    absent: list[tuple[str, str]] = []
    for line in lines:
        path, label = form(line, known)
        found = index.find(path)
        if not found:
            absent.append((path, label))
        images.update(dict.fromkeys(found, label))
        if len(found) > 1:
            units.update((image, image.rpartition("/")[0]) for image in found)
    return SplitList(key, split, images, len(absent), len(lines), units, absent) if images else None


def _says_more(one: SplitList, best: SplitList) -> bool:
    """Whether a form gives each image a label where the one before gave some none.

    Of all lines alike, or of each line its own, it is a part of a path or a caption.
    """
    names = set(one.images.values())
    few = 1 < len(names) <= len(one.images) / 2
    return few and "" not in names and not all(best.images.values())


def _forms(lines: Sequence[str]) -> tuple[_Form, ...]:
    if all(map(_INDEXED.fullmatch, lines)):
        return (_indexed,)
    if all(map(_QUOTED.fullmatch, lines)):
        return (_quoted,)
    return (_named, *_FORMS) if _have_names(lines) else _FORMS


def _whole(line: str, known: frozenset[str]) -> tuple[str, str]:
    return line, ""


def _ended(separator: str) -> _Form:
    """A path and what is behind it: a label, or a label and numbers, or numbers alone."""

    def parts(line: str, known: frozenset[str]) -> tuple[str, str]:
        path, *rest = (part.strip("\"'") for part in re.split(separator, line))
        if len(rest) == 1 or (rest and rest[0] in known):
            return path, rest[0]
        return path, ""

    return parts


def _have_names(lines: Sequence[str]) -> bool:
    """Whether names with blanks stand behind the paths: `0034309 A300 B4`, `1025794 707-320`."""
    behind = [re.split(r"\s+", line)[1:] for line in lines]
    counts = {len(rest) for rest in behind}
    words = any(not re.fullmatch(r"-?[\d.]+", one) for rest in behind for one in rest[1:])
    names = {" ".join(rest) for rest in behind}
    few = len(names) <= len(lines) / 2  # captions are many
    return min(counts, default=0) > 0 and len(counts) > 1 and words and few


def _named(line: str, known: frozenset[str]) -> tuple[str, str]:
    """A path without blanks, and a name with them."""
    path, *rest = re.split(r"\s+", line)
    return path, " ".join(rest)


def _last(line: str, known: frozenset[str]) -> tuple[str, str]:
    """A path with blanks in it, and a label."""
    path, _, label = line.rpartition(" ")
    return path, label


def _first(line: str, known: frozenset[str]) -> tuple[str, str]:
    """A label or a number, and a path."""
    label, _, path = line.partition(" ")
    return path, label


def _indexed(line: str, known: frozenset[str]) -> tuple[str, str]:
    """A number, a label and a path, as MXNet's `.lst` files have them."""
    _, label, path = line.split("\t")
    return path, re.sub(r"\.0+$", "", label)


def _quoted(line: str, known: frozenset[str]) -> tuple[str, str]:
    """A path in quotation marks, which may hold blanks, and a label."""
    found = _QUOTED.fullmatch(line)
    return (found["path"], found["label"] or "") if found else (line, "")


_QUOTED = re.compile(r"""(["'])(?P<path>[^"']+)\1(?:[\s,;]+(["']?)(?P<label>[^"']+)\3)?""")
_INDEXED = re.compile(r"\d+\t[^\t]+\t[^\t]+\.\w+")
_FORMS: tuple[_Form, ...] = (_whole, *map(_ended, _SEPARATORS), _last, _first)
