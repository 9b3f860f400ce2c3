"""Folders that hold the same pictures in another form (HR and LR, rgb and depth): no classes.

Files of the same names give them away, unless these are mere numbers: cat/0.jpg and dog/0.jpg
have nothing in common. Then the names of the folders must say it, too.
"""

import math
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence

from graftline.data.sources.label_text import words_of
from graftline.data.sources.layouts.folder_names import MASKS, PLAIN, Folders
from graftline.data.sources.split_names import names_split, splits_of

MOST = 0.8  # of the names in a folder are those in another one
FEWEST = 5  # names, under which nothing can be told from them
DENSE = 0.3  # of all numbers between the first and the last: such names only count
SAMPLED = 100_000  # names that are compared first
WORDS = 12  # names without a number, under which they are those of views
WIDEST = 16  # folders with a name in common: in more of them it is a name like index
# Forms of a picture. No class of anything is called so.
_FORMS = (PLAIN | MASKS) - words_of("data files crops label mask masks manual depth") | words_of(
    "hr lr hires lores highres lowres original originals augmented augmentation aug augs "
    "processed preprocessed unprocessed cropped uncropped resized scaled enhanced thumbnail thumbs "
    "thumbnails grayscale greyscale segmented tif tiff bmp webp gif jpe "
    "heatmap heatmaps normalized normalised"
)
# Forms too, but a class may be called so: they count where the files have the same names, too.
_PERHAPS = words_of(
    "nir ir thermal infrared visible vis depth disparity input inputs target targets output "
    "outputs clean noisy noise blur blurred blurry sharp gt reference ref color colour gray grey "
    "fft ela edges edge canny hsv lab left right before after pre post previous current past "
    "front back rear flair adc dwi swi t1w t2w t1c t1ce t1gd label labels mask masks cc mlo ap pa"
)
_NUMBERED = re.compile(r"(?:t|time|date|phase|view|camera|cam|channel|ch|band|b|frame|step|w)\d+a?")
# Domains of paired pictures; small letters are anything.
_PAIRS = tuple(map(frozenset, ({"A", "B"}, {"X", "Y"}, {"L", "R"}, {"OD", "OS"})))
_PICTURES = words_of("image images img imgs photo photos picture pictures pics jpegimages")
_WHOLE = words_of(
    "color colour rgb hr hires highres original originals raw images image clean sharp"
)
_SIZE = re.compile(r"x?\d+x?|\d+x\d+(?:px)?|\d+px")


def _words(name: str) -> list[str]:
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return re.findall(r"[^\W_]+", apart.lower())


def forms(names: Collection[str], *, perhaps: bool = False) -> bool:
    """Whether each of these names says in what form its pictures are: raw, 512x512, png.

    Args:
        names: Of folders.
        perhaps: Whether words count that may as well name a class.
    """
    words = _FORMS | _PERHAPS if perhaps else _FORMS
    rest = [[one for one in _words(name) if one not in words] for name in names]
    left = {one for some in rest for one in some}
    if perhaps:
        left = {one for one in left if not _NUMBERED.fullmatch(one)}
        pair = next((pair for pair in _PAIRS if pair <= set(names)), frozenset())
        left -= {name.lower() for name in pair}
    sizes = all(map(_SIZE.fullmatch, left))
    return sizes and not all(re.fullmatch(r"[\d\W_]*", name) for name in names)


def containers(names: Collection[str]) -> list[str]:
    """Names that say that pictures are in the folder, and not what they show: raw_images, test."""
    return sorted(
        name
        for name in names
        if (words := set(_words(name)))
        and (
            (words & _PICTURES and words <= _FORMS | PLAIN)
            or (names_split(name) and splits_of([name])[name] == "test")
        )
    )


def forms_of_others(names: Collection[str]) -> list[str]:
    """Names of which another one is left without the form of pictures: cats_cropped, cats."""
    words = {name: _words(name) for name in names}
    whole = {" ".join(of) for of in words.values()}
    return sorted(
        name
        for name, of in words.items()
        if (rest := [one for one in of if one not in _FORMS]) != of and " ".join(rest) in whole
    )


def rank_of_form(name: str) -> tuple[int, int, str]:
    """An order in which the form comes first that has most of the picture."""
    words = set(_words(name))
    best = not words.isdisjoint(_WHOLE)
    numbers = [int(n) for n in re.findall(r"\d+", name)]
    return (0 if best else 1, -max(numbers, default=0), name)


class FileNames:
    """Names of a source's images, by their folders.

    Args:
        keys: Of images.
        taken: The folders whose images count; all where it is None.
    """

    def __init__(self, keys: Sequence[str], taken: Collection[Folders] | None = None) -> None:
        self.keys = keys
        self.taken = taken

    def views(self, level: int, folders: Collection[str], *, numbers: bool = False) -> list[str]:
        """Folders of a level that hold files of the same names as another one of them.

        Args:
            level: Of the folders, from the source down.
            folders: Those of the level that are compared.
            numbers: Whether names that are mere numbers count, too.
        """
        every = len(self.keys) // SAMPLED
        if every > 1:  # a million names take seconds, and most sets have no name twice
            some = self._names(level, folders, every)
            folders = _same(some, {place: list(stems) for place, stems in some.items()})
        names = self._names(level, folders, 1)
        bare = {
            place: without_ends(stems) if len(stems) >= FEWEST else []
            for place, stems in names.items()
        }
        if not numbers:
            bare = {p: [] if _only_counts(stems) else stems for p, stems in bare.items() if stems}
        return _same(names, bare)

    def alike(self, level: int, names: Collection[str]) -> bool:
        """Whether all these folders hold files of the same names."""
        there = {key.split("/")[level] for key in self.keys if key.count("/") > level}
        same = set(names) <= there and set(names) == {*self.views(level, names)}
        return same or self.are_views(level, names)

    def are_views(self, level: int, names: Collection[str]) -> bool:
        """Whether folders called left and right, T1 and T2 hold files of the same names."""
        some = forms(names, perhaps=True)
        return some and set(names) == {*self.views(level, names, numbers=True)}

    def _names(
        self, level: int, folders: Collection[str], every: int
    ) -> dict[tuple[Folders, str], set[str]]:
        """Names without suffix, by the other folders above and the one of this level."""
        found: dict[tuple[Folders, str], set[str]] = defaultdict(set)
        if not folders:
            return found
        for key in self.keys:
            above, _, name = key.rpartition("/")
            stem = name.rpartition(".")[0] or name
            if every > 1 and zlib.crc32(stem.encode()) % every:
                continue
            parts = tuple(above.split("/"))
            counts = len(parts) > level and parts[level] in folders
            if counts and (self.taken is None or parts in self.taken):
                found[(*parts[:level], *parts[level + 1 :]), parts[level]].add(stem)
        return found


def _same(
    names: Mapping[tuple[Folders, str], Collection[str]],
    compared: Mapping[tuple[Folders, str], Sequence[str]],
) -> list[str]:
    """Folders of which most names return in one other folder.

    Args:
        names: All of each folder.
        compared: The names, as they are compared.
    """
    holders: dict[tuple[Folders, str], set[str]] = defaultdict(set)
    sizes: Counter[str] = Counter()
    for (_, folder), stems in names.items():
        sizes[folder] += len(stems)
    for (place, folder), stems in compared.items():
        for stem in stems:
            holders[place, stem].add(folder)
    pairs: Counter[tuple[str, str]] = Counter()
    for same in holders.values():
        if 1 < len(same) <= WIDEST:
            pairs.update((one, other) for one in same for other in same if one != other)
    found = [pair for pair, count in pairs.items() if count >= max(FEWEST, MOST * sizes[pair[0]])]
    return sorted({name for pair in found for name in pair})


def without_ends(stems: Collection[str]) -> list[str]:
    """The names, in order, without what is before or behind all of them (0001x2, 0002x2)."""
    if len(stems) < 2:
        return list(stems)
    start = re.sub(r"\d+$", "", _start(list(stems)))
    rest = [stem.removeprefix(start) for stem in stems]
    end = _start([one[::-1] for one in rest])[::-1]
    end = re.sub(r"^\d+", "", end)
    return [one.removesuffix(end) for one in rest]


def _start(names: Sequence[str]) -> str:
    """The characters that all names begin with."""
    first, last = min(names), max(names)
    same = (n for n, (one, other) in enumerate(zip(first, last, strict=False)) if one != other)
    return first[: next(same, min(len(first), len(last)))]


def _only_counts(stems: Collection[str]) -> bool:
    """Whether these are numbers without gaps: 0, 1, 2; 10, 20, 30; 3_1, 3_2; or a few words."""
    if len(stems) < WORDS and not any(re.search(r"\d", stem) for stem in stems):
        return True  # front, back, side; a, b, c
    kinds: dict[str, list[tuple[int, ...]]] = defaultdict(list)
    for stem in stems:
        kinds[re.sub(r"\d+", "#", stem)].append(tuple(int(n) for n in re.findall(r"\d+", stem)))
    counted = [numbers for form, numbers in kinds.items() if "#" in form and _dense(numbers)]
    return len(counted) <= WIDEST and sum(map(len, counted)) >= MOST * len(stems)


def _dense(numbers: Sequence[tuple[int, ...]]) -> bool:
    """Whether names of one form use most of the numbers between their first and their last."""
    possible = 1
    for values in zip(*numbers, strict=True):
        step = math.gcd(*(value - min(values) for value in values)) or 1
        possible *= (max(values) - min(values)) // step + 1
    return len(numbers) >= max(2, DENSE * possible)
