"""Labels that look the same, or that are made of several: merged, refused, or kept apart."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence

from graftline.data.sources.label_text import clean_text, clip, words_of
from graftline.errors import ConfigurationError, DataError

SIMILAR = ("auto", "merge", "refuse", "keep")
# Letters of other scripts that look like Latin ones; they count where a label mixes both.
_LOOK_ALIKE = str.maketrans(
    "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0458\u0455\u0410\u0412\u0415\u041a\u041c"
    "\u041d\u041e\u0420\u0421\u0422\u0425\u03bf\u03b1\u03c1\u0391\u0392\u0395\u0396\u0397\u0399\u039a"
    "\u039c\u039d\u039f\u03a1\u03a4\u03a5\u03a7",
    "aeopcyxijsABEKMHOPCTXoapABEZHIKMNOPTYX",
)
# What file managers make of a name that is there already, in several languages.
_COPY = re.compile(
    r"^(?:copy of|kopie von|copie de|copia de|c\u00f3pia de) | (?:\(\d+\)|\(?(?:copy|kopie|copie|"
    r"copia|c\u00f3pia)\)?(?: \(?\d+\)?)?)$"
)
_SAME_ANSWERS = (
    *(("true", "1"), ("false", "0"), ("yes", "true"), ("no", "false"), ("yes", "1"), ("no", "0")),
    *(("yes", "y"), ("no", "n"), ("true", "t"), ("false", "f")),
)
_NO_CLASS = words_of("none null nil unknown undefined unclassified missing tbd todo na nolabel")
_SEVERAL = [re.compile(r) for r in (r"\s*[|;,+&/]\s*", r"\s+(?:and|und|et|y|e)\s+", r"\s+")]
_LISTS = re.compile(r"\s*[|;]\s*")
_NUMBERS = re.compile(r"-?\d+(?:[\s,|;]+-?\d+)+")  # 0 2, in a .cls
_SEVERAL_NUMBERS = re.compile(r"[\s,|;]+")


def unified(labels: Iterable[str], mode: str = "auto") -> tuple[dict[str, str], list[str]]:
    """One label for those that look the same.

    Args:
        labels: As they were written.
        mode: ``auto`` merges what differs invisibly and refuses what looks the same otherwise (by
            case, by ``_`` for a blank); ``merge`` merges both, ``refuse`` refuses both, ``keep``
            keeps what differs visibly apart, and takes ``cat|dog`` for a class of its own.

    Returns:
        The label to use for each one written, and a sentence for each merger.

    Raises:
        ConfigurationError: An unknown mode.
        DataError: Labels that look the same, where the mode refuses them, or that name several
            classes.
    """
    if mode not in SIMILAR:
        raise ConfigurationError(
            f"data.similar_labels {clip(mode)!r} is unknown",
            fix=f"Use one of {', '.join(SIMILAR)}.",
        )
    written: dict[str, set[str]] = defaultdict(set)
    for label in labels:
        written[plain_label(label)].add(label)
    looks: dict[str, set[str]] = defaultdict(set)
    for label in written:
        looks[_look(label)].add(label)
    invisible = [(label, ways) for label, ways in sorted(written.items()) if len(ways) > 1]
    for one, other in _SAME_ANSWERS:
        if one in looks and other in looks:
            looks[one] |= looks.pop(other)
    alike = [sorted(ways) for _, ways in sorted(looks.items()) if len(ways) > 1]
    _refuse_similar(invisible if mode == "refuse" else [], alike, mode)
    if mode != "keep":
        _refuse_several(written)
    notes = [
        f"Labels that differ only in invisible characters are one: {_ascii(ways)}."
        for _, ways in invisible
    ]
    unsure = [one for one in sorted(written) if re.sub(r"[\W_]+", "", one.casefold()) in _NO_CLASS]
    if {"-1", "0"} <= written.keys():
        unsure.append("-1")
    if unsure and mode != "keep":
        notes.append(
            f"Treated as classes: {_ascii(unsure)}. Leave these images out, or their "
            "labels empty, if they have no label."
        )
    if mode != "keep":
        notes += _two_kinds(written)
    result = {way: label for label, ways in written.items() for way in ways}
    if mode == "merge":
        for ways in alike:
            one = min(ways, key=lambda way: (way != way.lower(), way))  # whatever has more images
            result.update((way, one) for ways_of in ways for way in written[ways_of])
            by_case = len({way.casefold() for way in ways}) == 1
            how = "differ only by case" if by_case else "look the same"
            notes.append(f"Labels that {how} are one, {clip(one)!r}: {_ascii(ways)}.")
    return result, notes


def _two_kinds(labels: Collection[str]) -> list[str]:
    """The note on labels of which some are numbers and others words: 0, 1 and cat, dog."""
    numbers = sorted(one for one in labels if re.fullmatch(r"\d+(\.0+)?", one))
    words = sorted(one for one in labels if len(re.findall(r"[^\W\d_]", one)) > 1)
    if len(numbers) < 2 or len(words) < 2 or len(numbers) + len(words) < len(labels):
        return []
    return [
        f"Some labels are numbers ({_ascii(numbers[:3])}) and others names ({_ascii(words[:3])}): "
        "if the numbers stand for the names, write one of both everywhere."
    ]


def plain_label(label: str) -> str:
    """A label without what nobody sees; blanks of any kind and number are one."""
    return " ".join(clean_text(label).split())


def _look(label: str) -> str:
    """What labels that a person may take for one have in common."""
    text = unicodedata.normalize("NFKC", label)
    if re.search("[A-Za-z]", text) and not text.isascii():
        text = text.translate(_LOOK_ALIKE)
    text = unicodedata.normalize("NFC", text.casefold())
    text = re.sub(r"(?<=\w)[\s_-]+(?=[^\s_-])", " ", text)
    text = _COPY.sub("", text)
    number = re.fullmatch(r"0*(\d+)(?:\.0+)?", text)
    return (number[1] if number else text) or label


def _refuse_similar(
    invisible: list[tuple[str, set[str]]], alike: list[list[str]], mode: str
) -> None:
    found = [_ascii(ways) for _, ways in invisible]
    if mode in ("auto", "refuse"):
        found += [_ascii(ways) for ways in alike]
    if found:
        raise DataError(
            f"Labels look the same and are written differently: {'; '.join(found[:5])}",
            why="they differ by case, by blanks or in characters that look alike, so they may be "
            "one class or more",
            fix="Write them alike, or set `data.similar_labels: merge` to make them one class, or "
            "`keep` where they are different classes.",
        )


def _refuse_several(labels: Collection[str]) -> None:
    """Refuse labels that are put together from others: an image of several classes."""
    several = {}
    parts_of: dict[str, set[str]] = defaultdict(set)
    together: list[set[str]] = []
    for label in labels:
        for separator in _SEVERAL:
            parts = [part for part in separator.split(label) if part]
            if len(set(parts)) > 1 and all(part in labels for part in parts):
                several[label] = parts
        together.append({part for part in re.split(r"\s*[,+&]\s*", label) if part})
        numbers = _NUMBERS.fullmatch(label) is not None
        for part in set((_SEVERAL_NUMBERS if numbers else _LISTS).split(label)) - {label, ""}:
            parts_of[part].add(label)
    shared = {part for part, wholes in parts_of.items() if len(wholes) > 1}
    several.update({one: sorted(shared) for part in sorted(shared) for one in parts_of[part]})
    several.update(_of_shared_parts(labels, together))
    if several:
        one, parts = min(several.items())
        raise DataError(
            f"{len(several):,} labels name several classes, for instance {clip(one)!r}",
            why=f"{', '.join(repr(clip(part)) for part in parts[:3])} are classes too, and each "
            "image has one class here",
            fix="Give each image one label, leave these images out, or set `data.similar_labels: "
            "keep` to make each combination a class of its own.",
        )


def _of_shared_parts(
    labels: Collection[str], parts: Sequence[Collection[str]]
) -> dict[str, list[str]]:
    """Labels of which every part returns in another one: `cat,dog` and `dog,bird`, `bird,cat`.

    Synonyms do not (`tench, Tinca tinca`).
    """
    counts = Counter(part for one in parts for part in one)
    return {
        label: sorted(one)
        for label, one in zip(labels, parts, strict=True)
        if len(one) > 1 and all(counts[part] > 1 for part in one)
    }


def _ascii(ways: Iterable[str]) -> str:
    """Labels with what is invisible in them shown by its code."""
    return ", ".join(clip(_shown(way)) for way in sorted(ways))


def _shown(way: str) -> str:
    plain = way.isprintable() and way == clean_text(way) and "\u00a0" not in way
    mixed = re.search("[A-Za-z]", way) and way != way.translate(_LOOK_ALIKE)
    return repr(way) if plain and not mixed else ascii(way)
