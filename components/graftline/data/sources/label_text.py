"""Labels and names as people see them: equal if they look equal, and short enough to print."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping

from graftline.errors import ConfigurationError, DataError

CLIP = 100
SIMILAR = ("auto", "merge", "refuse", "keep")


def words_of(text: str) -> frozenset[str]:
    """The words of a text, for tables of words in the source."""
    return frozenset(text.split())


# Names of splits. `eval` is a test split, as in the `datasets` library's list of keywords.
SPLIT_WORDS: Mapping[str, str] = {
    **dict.fromkeys(("train", "training", "trn", "trainval"), "train"),
    **dict.fromkeys(("val", "valid", "validate", "validation", "dev", "development"), "val"),
    **dict.fromkeys(("test", "testing", "tst", "eval", "evaluation", "holdout", "heldout"), "test"),
}
EVAL_WORDS = ("eval", "evaluation")
# Words that may stand beside a split's in the name of its folder or shard: training_set, seg_test.
_FILLERS = words_of(
    "set sets data dataset images image imgs img pics seg cls split folder files shard shards "
    "part of the"
)
# Zero-width and direction marks: no reader sees them. Joiners (200C, 200D) stay between letters,
# where some scripts need them, and go at the ends.
_MARKS = dict.fromkeys(
    (
        *(0x00AD, 0x034F, 0x061C, 0x180E, 0x200B, 0x200E, 0x200F, 0x2060, 0xFEFF),
        *range(0x202A, 0x202F),
        *range(0x2061, 0x2065),
        *range(0x2066, 0x2070),
    )
)
_JOINERS = "‌‍"


def clean_text(text: str) -> str:
    """The text in NFC, without marks that nobody sees and without blanks around it."""
    if text.isascii():
        return text.strip()
    plain = unicodedata.normalize("NFC", text.translate(_MARKS))
    if any(joiner in plain for joiner in _JOINERS):
        plain = re.sub(f"(?<![^\\W\\d_])[{_JOINERS}]+|[{_JOINERS}]+(?![^\\W\\d_])", "", plain)
        plain = re.sub(f"(?<=[\x00-\u024f])[{_JOINERS}]+(?=[\x00-\u024f])", "", plain)
    return plain.strip()


def clip(text: str, limit: int = CLIP) -> str:
    """The text, or its beginning with an ellipsis where it is too long to be printed."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def split_words(name: str) -> tuple[str, bool] | None:
    """What split the name of a folder or shard stands for.

    Returns:
        The split's word in lower case and whether the name has other than filling words beside
        it; None where it names no split, or two.
    """
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", clean_text(name))
    text = re.sub(r"(?i)\bhold[-_ ]?out\b|\bheld[-_ ]?out\b", "holdout", text)
    words = re.findall(r"[^\W\d_]+", text.lower())
    known = [word for word in words if word in SPLIT_WORDS]
    if not known or len({SPLIT_WORDS[word] for word in known}) > 1:
        return None
    others = [word for word in words if word not in SPLIT_WORDS and word not in _FILLERS]
    return known[0], bool(others)


def splits_of(names: Iterable[str]) -> dict[str, str]:
    """The split of each name that stands for one; `eval` beside a test split is validation."""
    words = {name: found[0] for name in names if (found := split_words(name)) is not None}
    tested = any(SPLIT_WORDS[w] == "test" and w not in EVAL_WORDS for w in words.values())
    validated = any(SPLIT_WORDS[w] == "val" for w in words.values())
    eval_split = "val" if tested and not validated else "test"
    return {name: eval_split if w in EVAL_WORDS else SPLIT_WORDS[w] for name, w in words.items()}


def unified(labels: Iterable[str], mode: str = "auto") -> tuple[dict[str, str], list[str]]:
    """One label for those that look the same.

    Args:
        labels: As they were written.
        mode: ``auto`` merges what differs invisibly and refuses what differs by case; ``merge``
            merges both, ``refuse`` refuses both, ``keep`` keeps labels of another case apart.

    Returns:
        The label to use for each one written, and a sentence for each merger.

    Raises:
        ConfigurationError: An unknown mode.
        DataError: Labels that look the same, where the mode refuses them.
    """
    if mode not in SIMILAR:
        raise ConfigurationError(
            f"data.similar_labels {clip(mode)!r} is unknown",
            fix=f"Use one of {', '.join(SIMILAR)}.",
        )
    written: dict[str, set[str]] = defaultdict(set)
    for label in labels:
        written[clean_text(label)].add(label)
    cases: dict[str, set[str]] = defaultdict(set)
    for label in written:
        cases[unicodedata.normalize("NFC", label.casefold())].add(label)
    invisible = [(label, ways) for label, ways in sorted(written.items()) if len(ways) > 1]
    by_case = [sorted(ways) for _, ways in sorted(cases.items()) if len(ways) > 1]
    _refuse_similar(invisible if mode == "refuse" else [], by_case, mode)
    notes = [
        f"Labels that differ only in invisible characters are one: {_ascii(ways)}."
        for _, ways in invisible
    ]
    result = {way: label for label, ways in written.items() for way in ways}
    if mode == "merge":
        for ways in by_case:
            one = min(ways, key=lambda way: (way != way.lower(), way))  # whatever has more images
            result.update((way, one) for ways_of in ways for way in written[ways_of])
            notes.append(f"Labels that differ only by case are one, {clip(one)!r}: {_ascii(ways)}.")
    return result, notes


def _refuse_similar(
    invisible: list[tuple[str, set[str]]], by_case: list[list[str]], mode: str
) -> None:
    found = [_ascii(ways) for _, ways in invisible]
    if mode in ("auto", "refuse"):
        found += [_ascii(ways) for ways in by_case]
    if found:
        raise DataError(
            f"Labels look the same and are written differently: {'; '.join(found[:5])}",
            why="they differ by case or in invisible characters, so they may be one class or more",
            fix="Write them alike, or set `data.similar_labels: merge` to make them one class, or "
            "`keep` where upper and lower case are different classes.",
        )


def _ascii(ways: Iterable[str]) -> str:
    """Labels with what is invisible in them shown by its code."""
    return ", ".join(
        clip(ascii(way) if not way.isprintable() or not _seen(way) else repr(way))
        for way in sorted(ways)
    )


def _seen(text: str) -> bool:
    return text == clean_text(text)
