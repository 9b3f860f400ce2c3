"""Lists of splits beside folders, as published data sets have them: obeyed, or said aloud."""

import io
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from graftline.data.sources.base import Reading
from graftline.data.sources.split_list_files import split_of_list
from graftline.errors import GraftlineError

sys.path.insert(0, str(Path(__file__).parent))

from data_set_files import Files, classes, read, table

CL = ("banded", "dotted")
THREE = ("train", "val", "test")
DEEP: Files = {f"images/{c}/{c}_{n:04}.jpg": "" for c in CL for n in range(12)}
FLAT: Files = {f"images/{c}_{n:04}.jpg": "" for c in CL for n in range(12)}
TRAIN_AND_TEST = {f"{c} {s}": n for c in CL for s, n in (("train", 8), ("test", 4))}
ALL = {f"{c} {s}": 4 for c in CL for s in THREE}


def lines(*kinds: int, form: str = "{c}/{c}_{n:04}.jpg", of: int = 3) -> str:
    """A line for each image whose number leaves one of these remainders."""
    found = [(i, c, n) for i, c in enumerate(CL) for n in range(12) if n % of in kinds]
    return "\n".join(form.format(i=i, c=c, n=n) for i, c, n in found)


def two(form: str, train: str = "train.txt", test: str = "test.txt") -> Files:
    return {train: lines(0, 1, form=form), test: lines(2, form=form)}


def many_ways(*numbers: int) -> Files:
    return {
        f"labels/{split}{i}.txt": lines((k + i) % 3)
        for k, split in enumerate(THREE)
        for i in numbers
    }


NUMBERED = list(enumerate([(c, n) for c in CL for n in range(12)], 1))
BIRDS: Files = {
    "images.txt": "\n".join(f"{i} {c}/{c}_{n:04}.jpg" for i, (c, n) in NUMBERED),
    "train_test_split.txt": "\n".join(f"{i} {int(n % 3 < 2)}" for i, (_, n) in NUMBERED),
    "image_class_labels.txt": "1 1",
    "classes.txt": "1 banded",
}
CLIPS: Files = {
    f"{c}/v_{c}_g{g:02}_c01/{n}.jpg": "" for c in CL for g in range(6) for n in range(2)
}
CLIPS |= {
    "trainlist01.txt": "\n".join(f"{c}/v_{c}_g{g:02}_c01.avi 1" for c in CL for g in range(4)),
    "testlist01.txt": "\n".join(f"{c}/v_{c}_g{g:02}_c01.avi" for c in CL for g in (4, 5)),
}
IMAGENET: Files = {f"train/{c}/{c}_{n}.jpg": "" for c in CL for n in range(8)}
IMAGENET |= {f"val/v{n}.jpg": "" for n in range(6)}
IMAGENET["train.txt"] = "\n".join(
    f"{c}/{c}_{n}.jpg {i}" for i, c in enumerate(CL) for n in range(8)
)
IMAGENET["val.txt"] = "\n".join(f"v{n}.jpg {n % 2}" for n in range(6))
TINY: Files = {f"train/{c}/images/{c}_{n}.jpg": "" for c in CL for n in range(8)}
TINY |= {f"val/images/val_{n}.jpg": "" for n in range(6)}
TINY["val/val_annotations.txt"] = "\n".join(
    f"val_{n}.jpg\t{CL[n % 2]}\t0\t0\t6\t7" for n in range(6)
)
FLAT_SPLITS: Files = {f"{s}/v{n}.jpg": "" for s in ("train", "val") for n in range(8)}
FLAT_SPLITS |= {
    f"{s}.txt": "\n".join(f"{s}/v{n}.jpg {n % 2}" for n in range(8)) for s in ("train", "val")
}
WITH_VAL = {f"{c} {s}": n for c in CL for s, n in (("train", 8), ("val", 3))}
NUMBERS = {f"{i} {s}": n for i in range(2) for s, n in (("train", 8), ("test", 4))}


def tables(form: str, head: str) -> Files:
    return {f"{s}.csv": f"{head}{lines(k, form=form)}" for k, s in enumerate(THREE)}


# What a person who reads the lists takes.
OBEYED: dict[str, tuple[Files, dict[str, int]]] = {
    "paths": (DEEP | two("{c}/{c}_{n:04}.jpg"), TRAIN_AND_TEST),
    "paths from the source": (DEEP | two("images/{c}/{c}_{n:04}.jpg"), TRAIN_AND_TEST),
    "paths from another machine": (DEEP | two("/home/me/x/{c}/{c}_{n:04}.jpg"), TRAIN_AND_TEST),
    "Food-101": (
        DEEP | two("{c}/{c}_{n:04}", "meta/train.txt", "meta/test.txt") | {"meta/train.json": "{}"},
        TRAIN_AND_TEST,
    ),
    "one way of DTD's ten": (DEEP | many_ways(1), ALL),
    "three lists and their union": (
        DEEP | {f"{s}.txt": lines(k) for k, s in enumerate(THREE)} | {"trainval.txt": lines(0, 1)},
        ALL,
    ),
    "CUB": (DEEP | BIRDS, TRAIN_AND_TEST),
    "labels by number": (DEEP | two("{c}/{c}_{n:04}.jpg {i}"), TRAIN_AND_TEST),
    "flat, labels by number": (FLAT | two("{c}_{n:04}.jpg {i}"), NUMBERS),
    "flat, labels by name": (FLAT | two("{c}_{n:04}.jpg,{c}"), TRAIN_AND_TEST),
    "flat, label first": (FLAT | two("{c} {c}_{n:04}.jpg"), TRAIN_AND_TEST),
    "ImageNet for Caffe": (IMAGENET, WITH_VAL),
    "tiny ImageNet": (TINY, WITH_VAL),
    "folders of splits without classes": (
        FLAT_SPLITS,
        {f"{i} {s}": 4 for i in range(2) for s in ("train", "val")},
    ),
    "frames of videos": (CLIPS, TRAIN_AND_TEST),
    "the others train": (
        DEEP | {"validation_list.txt": lines(0), "testing_list.txt": lines(1)},
        {f"{c} {s}": 4 for c in CL for s in THREE},
    ),
    "EuroSAT": (
        DEEP | tables("{n},{c}/{c}_{n:04}.jpg,{i},{c}", ",Filename,Label,ClassName\n"),
        ALL,
    ),
    "tables of names": (DEEP | tables("{c}/{c}_{n:04}.jpg", ""), ALL),
    "a column": (
        DEEP
        | {
            "splits.csv": table(
                "path,split",
                [f"{c}/{c}_{n:04}.jpg,{THREE[n % 3]}" for c in CL for n in range(12)],
            )
        },
        ALL,
    ),
}


@pytest.mark.parametrize("name", OBEYED)
def test_lists_of_splits_are_obeyed(name: str, tmp_path: Path) -> None:
    files, meant = OBEYED[name]
    entries, source = read(tmp_path, files)
    assert classes(entries) == meant
    assert any("The splits are those of" in note for note in source.notes) and not source.warnings
    if name == "frames of videos":
        assert len({one.group for one in entries if one.problem is None}) == 12


def test_lists_are_ignored_where_the_run_file_says_folders(tmp_path: Path) -> None:
    entries, _ = read(tmp_path, DEEP | two("{c}/{c}_{n:04}.jpg"), kind="folders")
    assert classes(entries) == dict.fromkeys(CL, 12)


HALF = "\n".join(f"train/{c}/{c}_{n}.jpg" for c in CL for n in range(8))
SPLIT: Files = {f"{s}/{c}/{c}_{n}.jpg": "" for s in ("train", "test") for c in CL for n in range(8)}
REFUSED: dict[str, tuple[Files, list[str]]] = {
    "DTD": (
        DEEP | many_ways(1, 2),
        ['["labels/test2.txt", "labels/train2.txt", "labels/val2.txt"]'],
    ),
    "an image in two lists": (DEEP | {"train.txt": lines(0, 1), "test.txt": lines(1, 2)}, ["two"]),
    "images in none": (
        DEEP | {"train.txt": lines(0, of=6), "test.txt": lines(1, of=6)},
        ["16 of 24"],
    ),
    "names of nothing": (
        DEEP
        | {"train.txt": lines(0, 1) + "\n" + "\n".join(f"x{n}.jpg" for n in range(9))}
        | {"test.txt": lines(2)},
        ["9 of 25 lines"],
    ),
    "other labels": (DEEP | two("{c}/{c}_{n:04}.jpg {n}"), ["otherwise than their folders"]),
    "other splits": (SPLIT | {"train.txt": HALF.replace("train", "test")}, ["in a list for train"]),
}
REFUSED["an image in two lists"][1][:] = ["is in test and in train", "data.exclude"]


@pytest.mark.parametrize("name", REFUSED)
def test_lists_that_cannot_be_obeyed_stop_the_run(name: str, tmp_path: Path) -> None:
    files, words = REFUSED[name]
    with pytest.raises(GraftlineError) as error:
        read(tmp_path, files)
    assert all(word in str(error.value) for word in [*words, "data.format: folders"]), error.value
    assert len(classes(read(tmp_path, {}, kind="folders")[0])) >= 2


@pytest.mark.parametrize(
    "name", ["lists/train_list.mat", "train.json", "split_1.json", "setid_split.mat", "train.txt"]
)
def test_splits_that_are_not_obeyed_are_a_warning(name: str, tmp_path: Path) -> None:
    entries, source = read(tmp_path, DEEP | {name: "banded/banded_0000.jpg"})
    assert classes(entries) == dict.fromkeys(CL, 12)
    (warning,) = source.warnings
    assert name in warning and "Graftline chooses the splits" in warning


def test_lists_that_say_what_the_folders_say_change_nothing(tmp_path: Path) -> None:
    entries, _ = read(tmp_path, SPLIT | {"train.txt": HALF})
    assert classes(entries) == {f"{c} {s}": 8 for c in CL for s in ("train", "test")}


@pytest.mark.parametrize(
    ("name", "split"),
    [
        *(("train.txt", "train"), ("val_list.txt", "val"), ("a/trainlist01.txt", "train")),
        *(("testing_list.txt", "test"), ("trainval.txt", "train"), ("test_images.lst", "test")),
        *(("places365_val.txt", None), ("aeroplane_train.txt", None), ("README.txt", None)),
        *(("train_log.txt", None), ("train.json", None), ("train_test_split.txt", None)),
    ],
)
def test_names_of_lists(name: str, split: str | None) -> None:
    assert split_of_list(name) == split


# -- several Parquet data sets in one folder ------------------------------------------------------


def parquet(*names: str) -> Files:
    stream = io.BytesIO()
    columns: dict[str, Any] = {"image": [{"bytes": b"x", "path": None}] * 3, "label": ["a"] * 3}
    pq.write_table(pa.table(columns), stream)
    return dict.fromkeys(names, stream.getvalue())


@pytest.mark.parametrize(
    "files",
    [
        parquet("config_a/train-0.parquet", "config_b/train-0.parquet"),
        parquet("default/train/0.parquet", "default/test/0.parquet", "other/train/0.parquet"),
        parquet("v1/a.parquet", "v2/a.parquet"),
    ],
    ids=range(3),
)
def test_several_parquet_data_sets_are_asked_for(files: Files, tmp_path: Path) -> None:
    with pytest.raises(GraftlineError, match="as many data sets") as error:
        read(tmp_path, files)
    one, other = sorted({name.split("/")[0] for name in files})
    said = str(error.value)
    assert f"`{tmp_path}/{one}`" in said and f"`data.exclude: [{other}]`" in said
    entries, _ = read(tmp_path, {}, reading=Reading(exclude=(other,)))
    assert {e.path.split("/")[0] for e in entries if e.problem is None} == {one}
    entries, _ = read(tmp_path, {}, kind="table")
    assert {e.path for e in entries if e.archive} == set(files)


@pytest.mark.parametrize(
    "files",
    [
        parquet("data/train-0.parquet", "data/test-0.parquet"),
        parquet("train/0.parquet", "test/0.parquet"),
        parquet("default/partial-train/0.parquet", "default/partial-test/0.parquet"),
        parquet("year=2023/0.parquet", "year=2024/0.parquet"),
        parquet("0/0.parquet", "1/0.parquet"),
    ],
    ids=range(5),
)
def test_parquet_files_of_one_data_set_are_read_together(files: Files, tmp_path: Path) -> None:
    entries, _ = read(tmp_path, files)
    assert {e.path for e in entries if e.archive} == set(files)
