"""Files beside images that hold their labels in another form than a table's: read, or refused."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from graftline.data.sources.base import Columns, Reading
from graftline.errors import GraftlineError

sys.path.insert(0, str(Path(__file__).parent))

from data_set_files import Files, classes, many, read, table

PETS = ("cat", "dog", "bird")
THREE = ("train", "val", "test")
PARTS = list(enumerate(THREE))
FLAT: Files = {f"images/{n}.jpg": "" for n in range(12)}
DEEP: Files = {f"{c}/{c}_{n}.jpg": "" for c in PETS for n in range(6)}
KINDS = dict.fromkeys(PETS, 4)


def lab(n: int) -> str:
    return PETS[n % 3]


def of(key: str) -> str:
    return key.split("/")[0]


def other(key: str) -> str:
    return PETS[(PETS.index(of(key)) + 1) % 3]


def pairs(form: str = "{n}.jpg") -> dict[str, str]:
    return {form.format(n=n): lab(n) for n in range(12)}


def lines(form: str) -> str:
    return "\n".join(form.format(n=n, label=lab(n), i=n % 3) for n in range(12))


def note(value: Any, name: str = "labels.json") -> Files:
    return FLAT | {name: json.dumps(value)}


def coco(**more: Any) -> dict[str, Any]:
    said = [{"id": n, "image_id": n, "category_id": n % 3, **more} for n in range(12)]
    return {
        "info": {},
        "images": [{"id": n, "file_name": f"images/{n}.jpg"} for n in range(12)],
        "annotations": said,
        "categories": [{"id": i, "name": c} for i, c in enumerate(PETS)],
    }


def aircraft(*kinds: str) -> Files:
    files: Files = {f"data/images/{n:07}.jpg": "" for n in range(12)}
    names = {"variant": ("707-320", "A300 B4"), "family": ("707", "A300")}
    return files | {
        f"data/images_{kind}_{s}.txt": "\n".join(
            f"{n:07} {names[kind][n % 2]}" for n in range(4 * k, 4 * k + 4)
        )
        for kind in kinds
        for k, s in enumerate(THREE)
    }


SPLIT = {f"{s}/{s}{n}.jpg": "" for s in ("train", "test") for n in range(9)}
SPLIT |= {
    f"{s}.json": json.dumps({f"{s}{n}.jpg": lab(n) for n in range(9)}) for s in ("train", "test")
}
TWO_SPLITS = {f"{c} {s}": 3 for c in PETS for s in ("train", "test")}


def in_folders(end: str) -> Files:
    """A file of labels in each split's folder; the images are called alike in both."""
    said = {f"{n}.jpg": lab(n) for n in range(9)}
    texts = {
        "json": json.dumps(said),
        "txt": "\n".join(f"{k} {v}" for k, v in said.items()),
        "csv": table("image,label", [f"{k},{v}" for k, v in said.items()]),
    }
    files: Files = {f"{s}/{n}.jpg": "" for s in ("train", "test") for n in range(9)}
    names = {"csv": "{0}/{0}.csv"}
    return files | {
        names.get(end, "{0}/labels." + end).format(s): texts[end] for s in ("train", "test")
    }


BY_CLASS = {c: [f"{n}.jpg" for n in range(12) if lab(n) == c] for c in PETS}
NUMBERS = {str(i): 4 for i in range(3)}
READ: dict[str, tuple[Files, dict[str, int]]] = {
    "a mapping": (note(pairs()), KINDS),
    "a mapping in the folder of the images": (note(pairs(), "images/labels.json"), KINDS),
    "a mapping beside the images": (
        {f"{n}.jpg": "" for n in range(12)} | {"labels.json": json.dumps(pairs())},
        KINDS,
    ),
    "a mapping by paths": (note(pairs("images/{n}.jpg")), KINDS),
    "a mapping without suffixes": (note(pairs("{n}")), KINDS),
    "a mapping to objects": (
        note({k: {"label": v, "age": 3} for k, v in pairs().items()}),
        KINDS,
    ),
    "a list of objects": (
        note([{"image": f"images/{n}.jpg", "label": lab(n)} for n in range(12)], "data.json"),
        KINDS,
    ),
    "StyleGAN": (
        note({"labels": [[f"images/{n}.jpg", n % 3] for n in range(12)]}, "dataset.json"),
        NUMBERS,
    ),
    "files of each class": (note(BY_CLASS), KINDS),
    "iNaturalist": (note(coco(), "train2021.json"), KINDS),
    "without some labels": (
        note({k: None if k == "0.jpg" else v for k, v in pairs().items()}),
        {"cat": 3, "dog": 4, "bird": 4},
    ),
    "one for each split": (SPLIT, {f"{c} {s}": 3 for c in PETS for s in ("train", "test")}),
    "lines with blanks": (FLAT | {"labels.txt": lines("{n}.jpg {label}")}, KINDS),
    "lines with commas": (FLAT | {"labels.txt": lines("{n}.jpg,{label}")}, KINDS),
    "lines with tabs": (FLAT | {"annotations.txt": lines("images/{n}.jpg\t{i}")}, NUMBERS),
    "the label first": (FLAT | {"gt.txt": lines("{label} {n}.jpg")}, KINDS),
    "lines with colons": (FLAT | {"labels.txt": lines("{n}.jpg: {label}")}, KINDS),
    "lines with quotes": (FLAT | {"labels.txt": lines('"{n}.jpg" "{label}"')}, KINDS),
    "blanks within quotes": (
        {f"my images/pic {n}.jpg": "" for n in range(12)}
        | {"labels.txt": lines('"my images/pic {n}.jpg" "big {label}"')},
        {f"big {c}": 4 for c in PETS},
    ),
    "lines with an equals sign": (FLAT | {"labels.txt": lines("{n}.jpg={label}")}, KINDS),
    "labels with blanks": (
        FLAT | {"labels.txt": lines("{n}.jpg\tbig {label}")},
        {f"big {c}": 4 for c in PETS},
    ),
    "paths with blanks": (
        {f"my images/pic {n}.jpg": "" for n in range(12)}
        | {"labels.txt": lines("my images/pic {n}.jpg {label}")},
        KINDS,
    ),
    "the label before a path": (FLAT | {"gt.txt": lines("{label} images/{n}.jpg")}, KINDS),
    "paths of another machine": (
        FLAT | {"labels.txt": lines("/home/me/images/{n}.jpg {label}")},
        KINDS,
    ),
    "MXNet": (
        FLAT | {"all.lst": lines("{n}\t{i}.000000\timages/{n}.jpg")},
        NUMBERS,
    ),
    "MXNet's split": (
        FLAT | {"train.lst": lines("7{n}\t{i}.000000\timages/{n}.jpg")},
        {f"{i} train": 4 for i in range(3)},
    ),
    "JSON in each split's folder": (in_folders("json"), TWO_SPLITS),
    "lines in each split's folder": (in_folders("txt"), TWO_SPLITS),
    "a table in each split's folder": (in_folders("csv"), TWO_SPLITS),
    "lines with a first line": (
        FLAT | {"labels.txt": table("image,label", lines("{n}.jpg,{label}").split())},
        KINDS,
    ),
    "FGVC aircraft": (
        aircraft("variant"),
        {f"{c} {s}": 2 for c in ("707-320", "A300 B4") for s in THREE},
    ),
}
READ["CoOp's"] = (
    note({s: [[f"{n}.jpg", n % 3, lab(n)] for n in range(12) if n // 4 == k] for k, s in PARTS}),
    {f"{lab(n)} {s}": 1 + (n % 4 == 0) for k, s in PARTS for n in range(4 * k, 4 * k + 3)},
)


@pytest.mark.parametrize("name", READ)
def test_labels_beside_images_are_read(name: str, tmp_path: Path) -> None:
    files, meant = READ[name]
    entries, source = read(tmp_path, files)
    assert classes(entries) == meant
    assert sum("The labels are those of '" in n or "labels, too" in n for n in source.notes) == 1


def test_columns_of_a_json_are_named_like_those_of_a_table(tmp_path: Path) -> None:
    rows = [{"filename": f"{n}.jpg", "category": lab(n)} for n in range(12)]
    with pytest.raises(GraftlineError) as error:
        read(tmp_path, note(rows))
    line = "`data.image_column: filename` and `data.label_column: category`"
    assert line in str(error.value)
    assert classes(read(tmp_path, {}, Columns("filename", "category"))[0]) == KINDS


WAYS = {
    "JSON": {"labels.json": json.dumps({key: other(key) for key in DEEP})},
    "lines": {"labels.txt": "\n".join(f"{key} {other(key)}" for key in DEEP)},
    "breeds": {"breeds.txt": "\n".join(f"{k} breed{i % 5}" for i, k in enumerate(DEEP))},
    "some of them": {"fix.json": json.dumps({"cat/cat_0.jpg": "dog", "dog/dog_1.jpg": "bird"})},
}


@pytest.mark.parametrize("name", WAYS)
def test_labels_that_contradict_the_folders_stop_the_run(name: str, tmp_path: Path) -> None:
    with pytest.raises(GraftlineError, match="two ways") as error:
        read(tmp_path, DEEP | WAYS[name])
    assert next(iter(WAYS[name])) in str(error.value)
    assert "`data.format: folders`" in str(error.value)
    entries, _ = read(tmp_path, {}, kind="folders")
    assert classes(entries) == dict.fromkeys(PETS, 6)
    if name != "some of them":
        entries, _ = read(tmp_path, {}, kind="table")
        meant = {other(k) for k in DEEP} if name != "breeds" else {f"breed{i}" for i in range(5)}
        assert set(classes(entries)) == meant and len(entries) == len(DEEP)


@pytest.mark.parametrize("numbers", [False, True])
def test_labels_that_say_what_the_folders_say_change_nothing(numbers: bool, tmp_path: Path) -> None:
    said = {key: str(PETS.index(of(key))) if numbers else of(key) for key in DEEP}
    entries, source = read(tmp_path, DEEP | {"labels.json": json.dumps(said)})
    assert classes(entries) == dict.fromkeys(PETS, 6)
    assert "'labels.json' says of the images what their folders say." in source.notes


def test_splits_of_a_json_are_obeyed(tmp_path: Path) -> None:
    """Whether it holds labels, which say what the folders say, or not."""
    parts = {s: [key for n, key in enumerate(DEEP) if n % 3 == k] for k, s in enumerate(THREE)}
    labelled = {s: [[k, PETS.index(of(k)), of(k)] for k in keys] for s, keys in parts.items()}
    for number, value in enumerate((parts, labelled)):
        folder = tmp_path / str(number)
        entries, source = read(folder, DEEP | {"split_zhou.json": json.dumps(value)})
        assert {one.path: one.split for one in entries if one.problem is None} == {
            key: s for s, keys in parts.items() for key in keys
        }
        assert not source.warnings


SEVERAL = {
    "versions": (
        FLAT
        | {
            f"labels_v{k}.json": json.dumps({f"{n}.jpg": lab(n + k) for n in range(12)})
            for k in (1, 2)
        },
        ["labels_v2.json"],
    ),
    "levels of names": (
        aircraft("variant", "family"),
        [f"data/images_variant_{s}.txt" for s in THREE],
    ),
}


@pytest.mark.parametrize("name", SEVERAL)
def test_several_files_of_labels_stop_the_run(name: str, tmp_path: Path) -> None:
    files, out = SEVERAL[name]
    with pytest.raises(GraftlineError, match="files that may state the labels") as error:
        read(tmp_path, files)
    assert all(one in str(error.value) for one in out)
    assert len(classes(read(tmp_path, {}, reading=Reading(exclude=tuple(out)))[0])) > 1


# Files that say something else of the images than labels: named, and never taken for labels.
NOTHING = {
    "checksums": {"sums.txt": "\n".join(f"{n * 7919:032x}  {key}" for n, key in enumerate(DEEP))},
    "a list of files": {"files.txt": "\n".join(DEEP)},
    "sizes": {"sizes.json": json.dumps({key: [640, 480] for key in DEEP})},
    "objects": {"meta.json": json.dumps({key: {"width": 640} for key in DEEP})},
    "one source": {"source.json": json.dumps(dict.fromkeys(DEEP, "flickr"))},
    "names of classes": {"cat_to_name.json": json.dumps({"cat": "Felis", "dog": "Canis"})},
    "annotations of MATLAB": {"cars_annos.mat": "x"},
    "a mapping of numbers": {"idx_to_class.json": json.dumps({"0": "cat", "1": "dog"})},
    "captions": {"captions.txt": "\n".join(f"{k}\tphoto {n} of it" for n, k in enumerate(DEEP))},
}


@pytest.mark.parametrize("name", NOTHING)
def test_files_that_say_something_else_are_named(name: str, tmp_path: Path) -> None:
    entries, source = read(tmp_path, DEEP | NOTHING[name])
    assert classes(entries) == dict.fromkeys(PETS, 6)
    assert any("may say more" in n and next(iter(NOTHING[name])) in n for n in source.notes)


@pytest.mark.parametrize("end", ["txt", "json", "xml"])
def test_files_called_like_the_images_are_named(end: str, tmp_path: Path) -> None:
    beside = {f"{key[:-3]}{end}": "dog" for key in DEEP}
    _, source = read(tmp_path, DEEP | beside)
    assert (
        f"Not read: 18 files that are called like an image, as bird/bird_0.{end}." in source.notes
    )


@pytest.mark.parametrize("name", ["README.md", "LICENSE.txt", "dataset_infos.json", "citation.txt"])
def test_documents_are_not_named(name: str, tmp_path: Path) -> None:
    _, source = read(tmp_path, DEEP | {name: "{}"})
    assert not any(name in note for note in source.notes)


REFUSED = {
    "boxes": (note(coco(bbox=[1, 2, 3, 4]), "annotations/instances_all.json"), "boxes around"),
    "several labels": (note({k: [v, "x"] for k, v in pairs().items()}), "label is a list"),
    "labels in their order": (FLAT | {"labels.txt": lines("{label}")}, "labels.txt"),
    "boxes in lines": (FLAT | {"gt.txt": lines("{n}.jpg 1 2 3 4")}, "gt.txt"),
    "one file each": (
        FLAT | {f"images/{n}.txt": lab(n) for n in range(12)},
        "may hold labels",
    ),
    "classes by number": (
        FLAT | {"classes.txt": "\n".join(f"{i} {c}" for i, c in enumerate(PETS))},
        "classes.txt",
    ),
    "cut short": (FLAT | {"labels.json": json.dumps(pairs())[:-9]}, "labels.json"),
    "of other images": (note(pairs("other_{n}.jpg")), "labels.json"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_labels_that_cannot_be_read_are_refused_by_name(name: str, tmp_path: Path) -> None:
    files, word = REFUSED[name]
    with pytest.raises(GraftlineError) as error:
        read(tmp_path, files)
    assert word in str(error.value)


def test_answers_of_a_test_split_in_a_json(tmp_path: Path) -> None:
    """Images in class folders train; the file labels those that stand in none."""
    files = many([f"train/{c}" for c in PETS], "{c}{}.jpg") | many(["test"], "t{}.jpg", 9)
    said = {f"t{n}.jpg": lab(n) for n in range(9)}
    entries, _ = read(tmp_path, files | {"answers.json": json.dumps(said)})
    assert classes(entries) == {f"{c} {s}": k for c in PETS for s, k in (("train", 6), ("test", 3))}
