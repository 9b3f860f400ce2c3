"""Data sets as they are published: read as a person reads them, or refused with what to write.

The files of each are a few names of the real ones; what is expected comes from the description of
the data set, not from the rules of the reader.
"""

import io
import json
import struct
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from graftline.data.sources import open_source
from graftline.data.sources.base import Columns, Entry, Reading
from graftline.errors import GraftlineError
from graftline.steps.ingest.checks import check_given, check_listing
from graftline.steps.ingest.step import run

SHARES = {"train": 0.7, "val": 0.15, "test": 0.15}
PETS = ("cat", "dog", "bird")


def many(folders: list[str], names: str = "{}.jpg", each: int = 6) -> dict[str, str]:
    """Files in folders; the folder's name is part of the pictures' names where {c} is in them."""
    return {
        f"{folder}/{names.format(n, c=folder.rpartition('/')[2])}": ""
        for folder in folders
        for n in range(each)
    }


def table(head: str, rows: list[str], mark: str = ",") -> str:
    return "\n".join([head, *rows]).replace(",", mark)


def below(tops: str, *subs: str) -> list[str]:
    return [f"{top}/{sub}" for top in tops.split("|") for sub in subs]


@pytest.fixture
def listed(tmp_path: Path) -> Callable[..., tuple[list[Entry], Any]]:
    """What `check` knows: the listing, and everything that it refuses."""

    def call(
        files: dict[str, str], columns: Columns | None = None, reading: Reading | None = None
    ) -> tuple[list[Entry], Any]:
        for name, text in files.items():
            path = tmp_path / "x" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        source = open_source(str(tmp_path / "x"), "auto", columns, reading)
        entries = source.entries()
        check_listing(source, entries, 3)
        check_given(source, entries, SHARES, 3, "carve")
        return entries, source

    return call


ISIC = [f"ISIC_{n:07}" for n in range(16)]
HAM = {f"HAM10000_images_part_{1 + n // 8}/{name}.jpg": "" for n, name in enumerate(ISIC)}
HAM["HAM10000_metadata.csv"] = table(
    "lesion_id,image_id,dx,age",
    [f"HAM_{n // 2},{name},{'mel' if n % 4 < 2 else 'nv'},40" for n, name in enumerate(ISIC)],
)
BREEDS = {
    **many(["train"], "{:08x}.jpg", 12),
    "labels.csv": table("id,breed", [f"{n:08x},{PETS[n % 3]}" for n in range(12)]),
    **many(["test"], "t{:07x}.jpg"),
    "sample_submission.csv": table("id,cat,dog,bird", [f"t{n:07x},.3,.3,.3" for n in range(6)]),
}
CASSAVA = {
    **many(["train_images"], "{}.jpg", 12),
    "train.csv": table("image_id,label", [f"{n}.jpg,{n % 3}" for n in range(12)]),
    "label_num_to_disease_map.json": '{"0": "CBB"}',
}
ANSWERS = {
    **many(below("train", *PETS), "{c}{}.jpg"),
    **many(["test"], "t{}.jpg"),
}

# Files, settings, images of each class, and words of a note.
READ: dict[str, tuple[dict[str, str], dict[str, Any], dict[str, int], list[str]]] = {
    "HAM10000": (
        HAM,
        {"columns": Columns("image_id", "dx", group="lesion_id")},
        {"mel": 8, "nv": 8},
        ["16 images are not where the table says", "HAM10000_images_part_1/ISIC_0000000.jpg"],
    ),
    "dog breeds": (
        BREEDS,
        {"columns": Columns("id", "breed")},
        {"cat": 4, "dog": 4, "bird": 4},
        ["'sample_submission.csv'"],
    ),
    "cassava": (
        CASSAVA,
        {"columns": Columns("image_id")},
        {"0": 4, "1": 4, "2": 4},
        ["label_num_to_disease_map.json", "The labels are numbers"],
    ),
    "ASL": (
        {
            **many(below("asl_train/asl_train", "A", "B", "space")),
            **many(["asl_test/asl_test"], "A_test{}.jpg", 2),
        },
        {},
        {"A": 6, "B": 6, "space": 6},
        ["asl_test (test)"],
    ),
    "GTSRB": (
        {
            **many(below("Final_Training/Images", "00000", "00001"), "{}.ppm"),
            **many(["Final_Test/Images"], "{}.ppm"),
            "Final_Test/Images/GT-final_test.test.csv": "Filename;Width",
        },
        {},
        {"00000": 6, "00001": 6},
        ["split/*/class", "GT-final_test.test.csv"],
    ),
    "tiny-imagenet": (
        {
            **many(["train/n01443537/images", "train/n01629819/images", "val/images"]),
            "val/val_annotations.txt": "val_0.JPEG\tn01443537",
        },
        {},
        {"n01443537": 6, "n01629819": 6},
        ["val/images/ not taken", "val_annotations.txt"],
    ),
    "vehicles": (
        many(below("train|test", "car", "train", "bus")),
        {},
        {"car": 12, "train": 12, "bus": 12},
        [],
    ),
    "face masks": (
        many(below("data", "with_mask", "without_mask")),
        {},
        dict.fromkeys(["with_mask", "without_mask"], 6),
        [],
    ),
    "food-101": (
        {**many(below("images", "sushi", "bibimbap")), "meta/train.txt": "sushi/1"},
        {},
        {"sushi": 6, "bibimbap": 6},
        ["Not read, though it may say more of the images: 'meta/train.txt'"],
    ),
    "photos of a telephone": (
        {**many(["cat", "dog"]), **many(["cat", "dog"], "{}.heic"), "bird.zip": ""},
        {},
        {"cat": 6, "dog": 6},
        ["Not unpacked: 'bird.zip'", "convert them", "'cat/0.heic'"],
    ),
    "competition with a test table without labels": (
        {
            **many(["images"], "{}.jpg", 12),
            "train.csv": table("image,label", [f"images/{n}.jpg,{PETS[n % 3]}" for n in range(9)]),
            "test.csv": table("image", [f"images/{n}.jpg" for n in range(9, 12)]),
        },
        {},
        {"cat": 3, "dog": 3, "bird": 3},
        ["'test.csv'"],
    ),
    "train by folders, test without labels, a submission": (
        {**ANSWERS, "sample_submission.csv": table("id,label", [f"t{n},cat" for n in range(6)])},
        {},
        dict.fromkeys(PETS, 6),
        ["a form for answers: 'sample_submission.csv'"],
    ),
    "emoji": (many(["🐱", "👩‍👩‍👧"]), {}, {"🐱": 6, "👩‍👩‍👧": 6}, []),
    "system folders": (
        {**many(["cat", "dog"]), "@eaDir/cat/1.jpg": "", "cat/@eaDir/0.jpg/T.jpg": ""},
        {},
        {"cat": 6, "dog": 6},
        ["each folder is a class; @eaDir/"],
    ),
    "a table that corrects folders": (
        {
            **many(["cat", "dog"]),
            "t.csv": table(
                "image,label",
                [f"{c}/{n}.jpg,{'dog' if n == 0 else c}" for c in ("cat", "dog") for n in range(6)],
            ),
        },
        {},
        {"cat": 5, "dog": 7},
        ["1 images another label than the folder", "cat/0.jpg (dog)"],
    ),
    "a table in annotations": (
        {
            **many(["images"], "{}.jpg", 12),
            "annotations/labels.csv": table(
                "image,label", [f"images/{n}.jpg,{PETS[n % 3]}" for n in range(12)]
            ),
        },
        {},
        dict.fromkeys(PETS, 4),
        ["12 images are not where the table says"],
    ),
    "a table in the folder of each split": (
        {
            **many(["train", "valid", "test"], "{}.jpg"),
            **{
                f"{s}/labels.csv": table(
                    "image,label", [f"{n}.jpg,{PETS[n % 3]}" for n in range(6)]
                )
                for s in ("train", "valid", "test")
            },
        },
        {},
        dict.fromkeys(PETS, 6),
        [],
    ),
    "one of several tables": (
        {**BREEDS, "other.csv": table("id,breed", ["0,x"])},
        {"columns": Columns("id", "breed"), "reading": Reading(exclude=("other.csv",))},
        {"cat": 4, "dog": 4, "bird": 4},
        [],
    ),
    "numbers with -1": (
        {
            **many(["images"], "{}.jpg", 12),
            "t.csv": table("image,label", [f"images/{n}.jpg,{n % 3 - 1}" for n in range(12)]),
        },
        {},
        {"-1": 4, "0": 4, "1": 4},
        ["Treated as classes: '-1'"],
    ),
    "cells that say that there is no label": (
        {
            **many(["images"], "{}.jpg", 12),
            "t.csv": table(
                "image,label",
                [f"images/{n}.jpg,{[*PETS, '?', 'unlabeled', '-'][n % 6]}" for n in range(12)]
                + [f"images/{n}.jpg,{PETS[n % 3]}" for n in range(12, 15)],
            ),
            **many(["images"], "{}.jpg", 15),
        },
        {},
        {"cat": 3, "dog": 3, "bird": 3},
        [],
    ),
}


@pytest.mark.parametrize("name", READ)
def test_published_data_sets_are_read_as_described(name: str, listed) -> None:
    files, settings, classes, words = READ[name]
    entries, source = listed(files, **settings)
    assert Counter(one.label for one in entries if one.problem is None) == classes
    said = " ".join(source.notes)
    assert all(word in said for word in words), said


SMALL = many(["JPEGImages"], "2007_{}.jpg")

# Files, and what the error must say.
REFUSED: dict[str, tuple[dict[str, str], list[str]]] = {
    "HAM10000 without columns": (
        HAM,
        ["names 16 of the images", "data.image_column: image_id", "data.label_column: dx"],
    ),
    "Stanford cars": (
        {**many(below("cars_train", "cars_train")), **many(below("cars_test", "cars_test"))},
        ["hold images without class folders", "cars_test, cars_train"],
    ),
    "Pascal VOC": (
        {
            **SMALL,
            **many(["SegmentationClass", "SegmentationObject"], "2007_{}.png"),
            "Annotations/2007_0.xml": "",
        },
        ["one label 'JPEGImages'", "mask, not a picture", "Annotations/2007_0.xml"],
    ),
    "segmentation in splits": (
        many(below("train|val|test", "images", "masks"), "{}.png"),
        ["one label 'images'", "mask, not a picture of the class (18)"],
    ),
    "driving scenes of the Lyft challenge": (
        many(["data/CameraRGB", "data/CameraMask"], "{}.png"),
        ["one label 'CameraRGB'", "mask, not a picture of the class (6)"],
    ),
    "DRIVE": (
        many(below("DRIVE/training|DRIVE/test", "images", "1st_manual", "mask"), "{}.tif"),
        ["one label 'images'", "mask, not a picture of the class (24)"],
    ),
    "MVTec, all objects": (
        many([*below("bottle|cable", "train/good", "test/good", "test/broken")])
        | many(below("bottle|cable", "ground_truth/broken"), "{}_mask.png"),
        ['"*/split/class"', '"group/split/class"'],
    ),
    "MVTec, one object": (
        many(["bottle/train/good", "bottle/test/good", "bottle/test/broken"]),
        ["No image to train on in 'broken'", "data.layout"],
    ),
    "iNaturalist": (
        many(["Plantae/Rosales/Rosa canina", "Plantae/Rosales/Malus"])
        | many(["Animalia/Aves/Corvus", "Animalia/Insecta/Apis"]),
        ['"class"', '"*/*/class"'],
    ),
    "BreakHis": (
        many(below("benign/SOB", "adenosis/p1", "phyllodes/p2"))
        | many(below("malignant/SOB", "ductal/p3", "lobular/p4")),
        ['"class"', '"*/*/class"'],
    ),
    "brain tumours": (
        many(["yes", "no", "brain_tumor_dataset/yes", "brain_tumor_dataset/no"]),
        ["brain_tumor_dataset holds the others again", "data.exclude: [brain_tumor_dataset]"],
    ),
    "old pictures of one class": (
        many(["cat", "dog", "bird", "old/cat"]),
        ["data.exclude: [old]"],
    ),
    "classes in a folder beside pictures": (
        many([*below("data", *PETS), "web"]),
        ["`data.source` be", "/data`", "data.exclude: [web]"],
    ),
    "corruptions, severities, classes": (
        many(below("fog/1|fog/2|snow/1|snow/2", *PETS)),
        ["three ways", '"group/group/class"', "bird, cat, dog"],
    ),
    "GTSRB with its tables": (
        {
            **many(below("Train", "0", "1"), "{c}_{}.png"),
            **many(["Test"], "t{}.png"),
            "Train.csv": table(
                "ClassId,Path", [f"{c},Train/{c}/{c}_{n}.png" for c in (0, 1) for n in range(6)]
            ),
            "Test.csv": table("ClassId,Path", [f"{n % 2},Test/t{n}.png" for n in range(6)]),
            "Meta.csv": table("Path,ClassId", ["Meta/0.png,0"]),
        },
        ["'Path' of Test.csv names 6", "data.image_column: Path", "data.label_column: ClassId"],
    ),
    "answers of the test in a table": (
        {
            **ANSWERS,
            "test.csv": table("file,kind", [f"t{n}.jpg,{PETS[n % 3]}" for n in range(6)]),
        },
        ["'file' of test.csv names 6", "data.image_column: file", "data.label_column: kind"],
    ),
    "three tables": (
        {
            **many(["images"], "{}.jpg", 12),
            **{
                name: table("image,label", [f"images/{n}.jpg,{PETS[n % 3]}" for n in range(12)])
                for name in ("train.csv", "test.csv", "sample.csv")
            },
        },
        ["'sample.csv', 'test.csv', 'train.csv'", "data.exclude", "data.source"],
    ),
    "a folder of results": (many([*PETS, "results"]), ["'results' is no class", "[results]"]),
    "names with the class in them": (
        {f"{c}.{n}.jpg": "" for c in PETS for n in range(6)},
        ["names of the files may hold the classes ('bird', 'cat', 'dog')", "image,label"],
    ),
    "copies": (many(["dog", "Copy of dog", "cat"]), ["'Copy of dog', 'dog'"]),
    "one name in two folders": (
        {
            **many(["train", "test"]),
            "t.csv": table("image,label", [f"{n}.jpg,{PETS[n % 3]}" for n in range(6)]),
        },
        [
            "6 images of which several files have the name",
            "0.jpg may be test/0.jpg and train/0.jpg",
        ],
    ),
    "TFRecord": ({f"train-0000{n}-of-00003": "" for n in range(3)}, ["in a form that is not read"]),
    "RecordIO": ({"train.rec": "", "train.idx": ""}, ["in a form that is not read", "train.rec"]),
    "DICOM": (many(["benign", "malignant"], "{}.dcm"), ["convert 'benign/0.dcm'"]),
    "a manifest": ({**many(["images"]), "output.manifest": "{}"}, ["'output.manifest'"]),
    "no header": (
        {
            **many(["images"]),
            "t.csv": table("images/9.jpg,cat", [f"images/{n}.jpg,{PETS[n % 3]}" for n in range(6)]),
        },
        ["add a line `image,label`"],
    ),
    "a flag of two words": (
        {
            **many(["images"]),
            "t.csv": table(
                "image,label,is_training_image",
                [f"images/{n}.jpg,{PETS[n % 3]},{n % 2}" for n in range(6)],
            ),
        },
        ["'is_training_image' looks like the split"],
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_published_data_sets_are_refused_with_what_to_write(name: str, listed) -> None:
    files, words = REFUSED[name]
    with pytest.raises(GraftlineError) as error:
        listed(files)
    said = str(error.value)
    assert all(word in said for word in words), said


def test_table_that_is_the_source_may_stand_in_annotations(tmp_path: Path) -> None:
    """Its paths are relative to the folder above; a name alone is not looked for up there."""
    for n in range(12):
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / "images" / f"{n}.jpg").write_text("")
    (tmp_path / "annotations").mkdir()
    path = tmp_path / "annotations" / "labels.csv"
    path.write_text(table("image,label", [f"images/{n}.jpg,{PETS[n % 3]}" for n in range(12)]))
    entries = open_source(str(path)).entries()
    assert {one.path: one.label for one in entries if one.problem is None} == {
        str(tmp_path / "images" / f"{n}.jpg"): PETS[n % 3] for n in range(12)
    }
    path.write_text(table("image,label", [f"{n}.jpg,{PETS[n % 3]}" for n in range(12)]))
    assert {one.problem for one in open_source(str(path)).entries()} == {"file not found"}


def test_parquet_files_that_name_the_classes_differently_are_refused(tmp_path: Path) -> None:
    """Else one class would be two: by its number and by its name."""

    def write(name: str, names: list[str] | None, **more: list[str]) -> None:
        columns = {"image": [{"bytes": picture(n), "path": ""} for n in range(4)], **more}
        found = pa.table({**columns, "label": [0, 1, 0, 1]})
        feature = {"label": {"names": names, "_type": "ClassLabel"}}
        kept = json.dumps({"info": {"features": feature if names else {}}})
        pq.write_table(found.replace_schema_metadata({"huggingface": kept}), tmp_path / name)

    write("train-0.parquet", ["cat", "dog"], note=["", "", "", "x"])
    write("train-1.parquet", ["cat", "dog"], note=["", "", "", "x"])
    source = open_source(str(tmp_path))
    assert len(source.entries()) == 2
    assert any("not used: 'note'" in note for note in source.notes)
    write("train-1.parquet", None)
    with pytest.raises(GraftlineError, match=r"name the classes differently") as error:
        open_source(str(tmp_path)).entries()
    assert "'cat', 'dog'" in str(error.value) and "without names" in str(error.value)


def picture(seed: int) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 8, 3), np.uint8)
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def numbered(suffix: str, write: Callable[[int], str | bytes]) -> dict[str, str | bytes]:
    found: dict[str, str | bytes] = {}
    for n in range(12):
        found |= {f"{n:03}.png": "", f"{n:03}{suffix}": write(n)}
    return found


PACKED = {f"{c}/{n}.png": "" for c in PETS for n in range(6)}
SHARDS: dict[str, tuple[dict[str, str | bytes], list[str]]] = {
    "several numbers": (numbered(".cls", lambda n: f"{n % 3} {(n + 1) % 3}"), ["several classes"]),
    "numbers as bytes": (
        numbered(".cls", lambda n: struct.pack("<q", n % 3)),
        [".cls holds bytes that are no text"],
    ),
    "another key": (
        numbered(".json", lambda n: json.dumps({"label_idx": n % 3})),
        ["the JSON has the keys label_idx"],
    ),
    "no label": ({f"rose_{n}.png": "" for n in range(12)}, ["no label (12)", "001.cls"]),
    "a table inside": ({**PACKED, "splits.csv": "image,split"}, []),
}


@pytest.mark.parametrize("name", SHARDS)
def test_shards_as_people_write_them(name: str, tmp_path: Path) -> None:
    members, words = SHARDS[name]
    (tmp_path / "x").mkdir()
    with tarfile.open(tmp_path / "x" / "a.tar", "w") as tar:
        for number, (member, text) in enumerate(members.items()):
            data = picture(number) if member.endswith("png") else text
            data = data.encode() if isinstance(data, str) else data
            info = tarfile.TarInfo(member)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))

    def ingest() -> Any:
        return run(
            source=str(tmp_path / "x"),
            store=str(tmp_path / "store"),
            snapshot_folder=tmp_path / "snapshot",
            near_duplicates="off",
        )

    if words:
        with pytest.raises(GraftlineError) as error:
            ingest()
        assert all(word in str(error.value) for word in words), error.value
        return
    result = ingest()
    assert result.per_class == dict.fromkeys(sorted(PETS), 6)
    assert result.set_aside == {"not an image file": 1}
    assert any("'splits.csv'" in note for note in result.reading["notes"])
