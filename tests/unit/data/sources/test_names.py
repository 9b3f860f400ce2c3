"""Classes in the names of files: refused with a pattern that works, and read by it."""

import re
import sys
from pathlib import Path

import pytest
import yaml

from graftline.data.source_settings import SourceSettings
from graftline.data.sources.base import Columns, Reading
from graftline.errors import GraftlineError

sys.path.insert(0, str(Path(__file__).parent))

from data_set_files import Files, classes, read

BREEDS = ("Abyssinian", "american_bulldog", "Maine Coon")
PETS = ("cat", "dog")


def names(form: str, kinds: tuple[str, ...] = PETS, each: int = 6) -> Files:
    return {form.format(c=c, n=n): "" for c in kinds for n in range(each)}


# Files, and images of each class and split.
READ: dict[str, tuple[Files, dict[str, int]]] = {
    "cats and dogs": (
        names("train/{c}.{n}.jpg") | {f"test/{n}.jpg": "" for n in range(1, 30)},
        dict.fromkeys(PETS, 6),  # nothing of test has a label, so that no split is stated
    ),
    "pets": (names("images/{c}_{n}.jpg", BREEDS), dict.fromkeys(BREEDS, 6)),
    "in one folder": (names("{c} ({n}).JPG"), dict.fromkeys(PETS, 6)),
    "in splits": (
        names("train/{c}{n}.png") | names("test/{c}{n}.png", each=3),
        {f"{c} {s}": k for c in PETS for s, k in (("train", 6), ("test", 3))},
    ),
    "with masks": (
        names("images/{c}_{n}.jpg") | names("masks/{c}_{n}.png") | names("images/{c}_{n}_mask.png"),
        dict.fromkeys(PETS, 6),
    ),
    "with lists": (
        names("images/{c}_{n}.jpg")
        | {
            f"{s}.txt": "\n".join(f"images/{c}_{n}.jpg" for c in PETS for n in numbers)
            for s, numbers in (("train", range(4)), ("test", range(4, 6)))
        },
        {f"{c} {s}": k for c in PETS for s, k in (("train", 4), ("test", 2))},
    ),
}


def line_of(error: GraftlineError) -> str:
    line = re.findall(r"`(data\.label_pattern: [^`]+)`", str(error))[0]
    return str(yaml.safe_load(line)["data.label_pattern"])


@pytest.mark.parametrize("name", READ)
def test_the_pattern_of_the_error_reads_them(name: str, tmp_path: Path) -> None:
    files, meant = READ[name]
    try:
        read(tmp_path, files)
    except GraftlineError as error:
        pattern = line_of(error)
    assert SourceSettings(label_pattern=pattern).reading.label_pattern == pattern
    entries, source = read(tmp_path, {}, reading=Reading(label_pattern=pattern))
    assert classes(entries) == meant
    assert any("data.label_pattern" in note for note in source.notes)
    assert all(one.label in Path(one.path).name for one in entries if one.problem is None)


def test_what_does_not_match_is_rejected_and_counted(tmp_path: Path) -> None:
    files = names("{c}.{n}.jpg") | {"12.jpg": "", "readme.txt": "", ".x/cat.1.jpg": ""}
    entries, _ = read(tmp_path, files, reading=Reading(label_pattern=r"^(\D+?)\.\d"))
    assert {one.path: one.problem for one in entries if one.problem} == {
        "12.jpg": "the name does not match data.label_pattern",
        "readme.txt": "not an image file",
        ".x/cat.1.jpg": "hidden file",
    }


def test_a_pattern_of_the_users_own(tmp_path: Path) -> None:
    """The class at the end; labels that differ by case are refused as elsewhere."""
    files = {f"{n:04}_{n % 3}.png": "" for n in range(12)}
    entries, _ = read(tmp_path / "a", files, reading=Reading(label_pattern=r"_(\d)\."))
    assert classes(entries) == {"0": 4, "1": 4, "2": 4}
    files |= names("x{n}_{c}.png", ("cat", "Cat"))
    with pytest.raises(GraftlineError, match="look the same"):
        read(tmp_path / "b", files, reading=Reading(label_pattern=r"_(\w+)\."))


def test_splits_can_be_left_to_graftline(tmp_path: Path) -> None:
    files, _ = READ["in splits"]
    reading = Reading(label_pattern=r"^(\D+?)\d")
    entries, _ = read(tmp_path, files, Columns(split=None), reading)
    assert classes(entries) == {}.fromkeys(PETS, 9)


@pytest.mark.parametrize(("pattern", "word"), [("(", "no regular expression"), ("cat", "no group")])
def test_a_pattern_that_cannot_be_used_is_refused(pattern: str, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        SourceSettings(label_pattern=pattern)
