"""Images whose names say that they are made from one picture: 7_rot90, 7_flip, 7_B02, 7.rf.1a2b3c.

In two splits, one would be trained on and the other tested on; turned and mirrored pictures are
not found by their looks.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Protocol

from graftline.data.sources.label_text import clip

# What programs put behind a name when they write a changed copy.
_MADE = (
    r"rot(?:ated?|ation)?[ _-]?-?\d{0,3}|[hv]?flip(?:ped)?(?:[ _-]?(?:h|v|x|y|lr|ud|horizontal|"
    r"vertical))?|mirror(?:ed)?|aug(?:mented|mentation)?[ _-]?\d*|rf\.[0-9a-f]{6,}|"
    r"(?:bright|dark|blur|nois|contrast|crop|zoom|shear|shift|sharpen|equali[sz]|clahe|"
    r"gauss|gamma|jitter)[a-z]*[ _-]?\d*"
)
# Several pictures of one thing: bands, channels, views. Only beside others of the kind.
_VIEWS = (
    r"left|right|l|r|od|os|before|after|pre|post|front|back|rgb|nir|ir|thermal|r\d{1,3}|"
    r"b\d\d?a?|ch\d\d?|w\d"
)
_MADE_END = re.compile(rf"(?i)(?<=.)(?:[ _.-]+(?:{_MADE}))+$")
_VIEW_END = re.compile(rf"(?i)(?<=.)[ _.-]+(?:{_VIEWS})(?:[ _-]disaster)?$")
MOST = 0.8  # of the images with a view's name have another view beside them
FEWEST = 5  # images, under which nothing can be told from their names
FEW = 0.1  # a share of the images that says nothing
_LOSSY = ("jpg", "jpeg", "jpe", "jfif", "webp")  # compression would blur a mask's labels


def twins(keys: Sequence[str]) -> str | None:
    """The suffix of the images that mostly stand beside one of the same name: 1.png, 1.jpg.

    They are masks, or the same pictures again. None where there are few.
    """
    suffixes = Counter(key.rpartition(".")[2].lower() for key in keys if "." in key)
    if len(suffixes) < 2:
        return None
    held: dict[str, set[str]] = defaultdict(set)
    for key in keys:
        stem, _, suffix = key.rpartition(".")
        held[stem].add(suffix.lower())
    paired = Counter(suffix for some in held.values() if len(some) > 1 for suffix in some)
    found = [
        suffix
        for suffix, count in paired.items()
        if count >= max(FEWEST, MOST * suffixes[suffix], FEW * len(keys))
    ]
    return min(found, key=lambda suffix: (suffix in _LOSSY, suffix), default=None)


class Named(Protocol):
    """An image as a source lists it."""

    @property
    def path(self) -> str:
        """Its name within the source."""

    @property
    def split(self) -> str | None:
        """The split that the source states."""


def variants(images: Sequence[Named]) -> dict[str, str]:
    """The group of each image that is made from one picture like another one.

    Names count within a folder; those of views in all folders, where each is there once.
    """
    told = any(_MADE_END.search(stem) or _VIEW_END.search(stem) for stem in _stems(images))
    if not told and twins([one.path for one in images]) is None:
        return {}
    cores = [_MADE_END.sub("", stem) for stem in _stems(images)]
    pictures = Counter(
        (core, one.split)
        for core, stem, one in zip(cores, _stems(images), images, strict=True)
        if core == stem
    )
    once = max(pictures.values(), default=2) == 1
    views = [core for core in cores if _VIEW_END.search(core)]
    whole: dict[tuple[str, str], set[str]] = defaultdict(set)
    for core, one in zip(cores, images, strict=True):
        if views and _VIEW_END.search(core):
            whole[_place(one, once), _VIEW_END.sub("", core)].add(core)
    paired = sum(len(cores_of) for cores_of in whole.values() if len(cores_of) > 1)
    are_views = paired >= MOST * sum(map(len, whole.values()))
    members: dict[tuple[str, str], list[str]] = defaultdict(list)
    for core, one in zip(cores, images, strict=True):
        base = _VIEW_END.sub("", core) if are_views else core
        place = _place(one, once and are_views and (_place(one, once), base) in whole)
        members[place, base].append(one.path)
    return {
        path: f"{place}/{base}".strip("/")
        for (place, base), paths in members.items()
        if len(paths) > 1
        for path in paths
    }


def _place(one: Named, everywhere: bool) -> str:
    """The part of a source within which a name is one picture's."""
    return one.split or "" if everywhere else f"{one.split or ''}/{one.path.rpartition('/')[0]}"


def _stems(images: Sequence[Named]) -> Iterator[str]:
    for one in images:
        name = one.path.rpartition("/")[2]
        yield name.rpartition(".")[0] or name


def said_of_variants(groups: dict[str, str]) -> str:
    """The note on images that are one picture by their names."""
    paths = sorted(groups, key=lambda path: (groups[path], path))
    shown = ", ".join(clip(path) for path in paths[:2])
    return (
        f"{len(groups):,} images are views or changed copies of one picture by their names, as "
        f"{shown}: they are a group, which stays in one split."
    )
