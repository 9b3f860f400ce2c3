"""Folders beside each other that name no classes: forms of the same pictures, parts of a set."""

import sys
from pathlib import Path

import pytest

from graftline.data.sources.base import Reading
from graftline.data.sources.layouts.layout import exclude_line, excluded
from graftline.errors import GraftlineError

sys.path.insert(0, str(Path(__file__).parent))

from data_set_files import Files, below, classes, distinct, many, read

PETS = ("cat", "dog", "cow")
CAMERA = [f"{n * 7919 % 10007:06x}_{n * 31 % 97}" for n in range(30)]  # names that do not count


def named(folders: list[str], stems: list[str] = CAMERA, end: str = "") -> Files:
    return {f"{folder}/{stem}{end}.jpg": "" for folder in folders for stem in stems}


NO_CLASSES = {
    "super-resolution": many(["HR", "LR"], "{:04}.png"),
    "its names with the scale": named(["HR"]) | named(["LR"], end="x2"),
    "augmented": distinct(["original", "augmented"]),
    "formats": distinct(["jpg", "png"]),
    "raw": distinct(["raw", "processed"]),
    "sizes": distinct(["256x256", "512x512"]),
    "photos": distinct(["photos", "pictures"]),
    "pairs": many(["input", "target"]),
    "denoising": many(["clean", "noisy"]),
    "infrared": many(["rgb", "nir"]),
    "sides": many(["left", "right"]),
    "sequences of a scanner": many(["T1", "T2"]),
    "sequences of patients": many(["T1", "T2", "FLAIR"], "sub-{:03}.png", 20),
    "two times": many(["time1", "time2"], "{:05}.png", 20),
    "before and after": many(["before", "after"], "{:03}.png", 20),
    "a disaster": many(["pre", "post"], "hurricane_{:08}.png", 20),
    "two domains": many(["A", "B"], "{}.jpg", 20),
    "two domains with their difference": many(["A", "B", "label"], "{}.png", 20),
    "differences in splits": many(below("train|test", "A", "B", "label"), "train_{}.png"),
    "cameras": distinct(["cam1", "cam2"]),
    "eyes": many(["OD", "OS"], "{:03}.jpg", 20),
    "in splits": many(below("train|test", "HR", "LR")),
    "forged and not, of the same originals": named(["fake", "real"]),
    "numbered": distinct(["images_part_1", "images_part_2"]),
    "lettered": distinct(["Images_A", "Images_B"]),
    "folds": distinct(["fold1", "fold2", "fold3"]),
    "batches": distinct(["batch1", "batch2"]),
    "dates": distinct(["2024-01-05", "2024-02-11"]),
    "years": distinct(["2021", "2022", "2023"]),
    "patients": distinct(["patient_1", "patient_2"]),
}


@pytest.mark.parametrize("name", NO_CLASSES)
def test_folders_that_name_no_classes_are_asked_for(name: str, tmp_path: Path) -> None:
    files = NO_CLASSES[name]
    with pytest.raises(GraftlineError, match="may be no classes") as error:
        read(tmp_path, files)
    deep = all(key.startswith(("train/", "test/")) for key in files)
    line = 'data.layout: "split/class"' if deep else 'data.layout: "class"'
    assert line in str(error.value)
    entries, _ = read(tmp_path, {}, reading=Reading(layout=line.split('"')[1]))
    assert not any(one.problem for one in entries)


CLASSES = {
    "numbered alike": many(["Cat", "Dog"], "{}.jpg", 30),
    "numbered with the class": many(["cat", "dog"], "{c}.{}.jpg", 30),
    "every tenth frame": {
        f"{c}/f{n:05}.jpg": "" for c in ("run", "jump") for n in range(0, 300, 10)
    },
    "two cameras": {
        f"{c}/IMG_{2000 + n * k}.jpg": "" for c, k in (("cat", 3), ("dog", 5)) for n in range(30)
    },
    "faces": many([f"s{n}" for n in range(1, 9)], "{}.pgm", 10),
    "persons": many(["person1", "person2"]),
    "letters": many(["A", "B", "C"]),
    "small letters": many(["a", "b"]),
    "sides": distinct(["left", "right"]),
    "domains without pairs": distinct(["A", "B"]),
    "sides and more": many(["left", "right", "straight"]),
    "sides of each": {f"{c}/{n}_{v}.jpg": "" for c in PETS for n in range(9) for v in "LR"},
    "numbers of two kinds": {
        f"{c}/{k}{n}.jpg": "" for c in PETS for k in ("a_", "b_") for n in range(9)
    },
    "views of each": {f"{c}/{v}.jpg": "" for c in PETS for v in ("front", "back", "side")},
    "letters for names": {f"{c}/{n}.jpg": "" for c in PETS for n in "abcdefgh"},
    "a folder of images with other folders in it": {
        f"{c}/images/{c} indoors/{n}.jpg": "" for c in PETS for n in range(6)
    },
    "grades": many(["grade1", "grade2", "class 3"]),
    "numbers": many(["100", "200", "2000"]),
    "crops and weeds": many(["crops", "weeds"]),
}


@pytest.mark.parametrize("name", CLASSES)
def test_folders_of_classes_are_not_asked_for(name: str, tmp_path: Path) -> None:
    entries, _ = read(tmp_path, CLASSES[name])
    assert {one.label for one in entries} == {key.split("/")[0] for key in CLASSES[name]}


ABOVE = {
    "plants in color": (
        named(below("color|grayscale", "Apple"))
        | named(below("segmented", "Apple"), end="_masked"),
        ["grayscale", "segmented"],
    ),
    "resolutions": ({}, ["LR"]),
    "augmented": ({}, ["augmented"]),
    "sizes": ({}, ["256x256"]),
}
ABOVE["sides"] = (many(below("front|back", "cat", "dog")), ["front"])
ABOVE["infrared"] = (many(below("rgb|nir", "cat", "dog"), "{:04}.tif"), ["nir"])
ABOVE["plants in color"][0].update(many(below("color|grayscale|segmented", "Corn")))
ABOVE["resolutions"][0].update(many(below("HR|LR", "cat", "dog")))
ABOVE["augmented"][0].update(distinct(below("original|augmented", "cat", "dog")))
ABOVE["sizes"][0].update(many(below("256x256|512x512", "cat", "dog")))


@pytest.mark.parametrize("name", ABOVE)
def test_forms_above_the_classes_are_left_out_by_the_line_that_is_printed(
    name: str, tmp_path: Path
) -> None:
    files, out = ABOVE[name]
    with pytest.raises(GraftlineError, match="two ways") as error:
        read(tmp_path, files)
    assert f"`{exclude_line(out)}`" in str(error.value)
    entries, source = read(tmp_path, {}, reading=Reading(exclude=tuple(out)))
    assert source.layout is not None and source.layout.text == "*/class"
    kept = {path.split("/")[0] for path in files} - set(out)
    assert {one.path.split("/")[0] for one in entries if one.problem is None} == kept


@pytest.mark.parametrize(
    "files",
    [
        many(below("cat|dog", "HR", "LR")),
        many(below("cat|dog", "original", "augmented")),
        many(below("cat|dog", "left", "right"), "{:03}.png"),
        many(below("cat|dog", "T1", "T2")),
        many(below("cat|dog", "before", "after")),
        many(below("cat|dog", "A", "B")),
        {f"{c}/{v}/{c}{s}.jpg": "" for c in ("cat", "dog") for v in ("a", "b") for s in CAMERA},
        {
            f"{c}/{v}/{c}{n:04}{x}.png": ""
            for c in ("cat", "dog")
            for v, x in (("HR", ""), ("LR", "x2"))
            for n in range(9)
        },
    ],
    ids=range(8),
)
def test_forms_below_a_class_are_one_group(files: Files, tmp_path: Path) -> None:
    """Else one form of a picture is trained on and the other tested on."""
    try:
        entries, _ = read(tmp_path, files)
    except GraftlineError as error:
        assert '"class"' in str(error)  # folders a and b may be the classes
        entries, _ = read(tmp_path, files, reading=Reading(layout="class"))
    assert set(classes(entries)) == {"cat", "dog"}
    groups: dict[str | None, list[str]] = {}
    for one in entries:
        groups.setdefault(one.group, []).append(one.path)
    assert None not in groups and {len(paths) for paths in groups.values()} == {2}
    for first, second in groups.values():
        assert Path(first).stem == Path(second).stem.removesuffix("x2")


@pytest.mark.parametrize(
    "name", ["a, b", "[x]", "*", "yes", "2021", "c: d", "x#", 'q"', "é f", "-"]
)
def test_line_that_leaves_a_folder_out_can_be_copied(name: str) -> None:
    import yaml

    line = exclude_line([name, "other"]).removeprefix("data.")
    patterns = yaml.safe_load(line)["exclude"]
    assert all(isinstance(one, str) for one in patterns)
    assert excluded(f"x/{name}/1.png", patterns) and not excluded("x/more/1.png", patterns)


def test_forms_above_the_classes_that_are_all_taken_are_one_group(tmp_path: Path) -> None:
    """The line for it is in the error; else left/cat/1.png trains and right/cat/1.png tests."""
    files = many(below("left|right", "cat", "dog"))
    with pytest.raises(GraftlineError, match=r'take all forms.*"\*/class"'):
        read(tmp_path, files)
    entries, source = read(tmp_path, {}, reading=Reading(layout="*/class"))
    assert classes(entries) == {"cat": 12, "dog": 12}
    groups = {one.path: one.group for one in entries}
    assert all(groups[f"left/{p}"] == groups[f"right/{p}"] for p in ("cat/1.jpg", "dog/5.jpg"))
    assert len(set(groups.values())) == 12
    assert any("returns in a folder beside theirs" in note for note in source.notes)


def test_folders_called_like_a_class_and_a_form_hold_it_again(tmp_path: Path) -> None:
    with pytest.raises(GraftlineError, match="called like other folders") as error:
        read(tmp_path, distinct(["cats", "dogs", "cats_cropped", "dogs_cropped"]))
    assert "`data.exclude: [cats_cropped, dogs_cropped]`" in str(error.value)
    out = Reading(exclude=("cats_cropped", "dogs_cropped"))
    assert classes(read(tmp_path, {}, reading=out)[0]) == {"cats": 6, "dogs": 6}


def test_a_second_copy_is_left_out_by_its_path(tmp_path: Path) -> None:
    """The archive's own folder has the name of the copy in it: leaving that out leaves nothing."""
    files = many(below("Plants|Plants/Plants", "healthy", "rust"))
    with pytest.raises(GraftlineError, match="two ways") as error:
        read(tmp_path, files)
    assert '`data.exclude: ["Plants/Plants"]`' in str(error.value)
    out = Reading(exclude=("Plants/Plants",))
    assert classes(read(tmp_path, {}, reading=out)[0]) == {"healthy": 6, "rust": 6}


def test_images_without_labels_beside_classes(tmp_path: Path) -> None:
    files = many([*below("train_images", *PETS), "unlabeled_images"])
    assert set(classes(read(tmp_path / "a", files)[0])) == {f"{c} train" for c in PETS}
    with pytest.raises(GraftlineError, match="two ways") as error:
        read(tmp_path / "b", many([*below("labeled_images", *PETS), "extra"]))
    assert "data.exclude: [extra]" in str(error.value)


def test_thumbnails_below_classes_are_not_taken(tmp_path: Path) -> None:
    entries, _ = read(tmp_path, many(["cat", "dog", "cat/thumbs", "dog/thumbnails"]))
    assert classes(entries) == {"cat": 6, "dog": 6}
    assert {o.problem for o in entries} == {None, "thumbnail of another picture"}
