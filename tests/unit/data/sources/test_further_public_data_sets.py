"""Further published data sets and reports, by their descriptions: read as a person does, or asked.

What is expected comes from the description of each data set, not from the rules of the reader.
"""

import json
import sys
from pathlib import Path

import pytest

from graftline.data.sources.base import Columns
from graftline.errors import GraftlineError

sys.path.insert(0, str(Path(__file__).parent))

from data_set_files import Files, below, classes, many, read, table

PETS = ("cat", "dog", "bird")
I12: Files = {f"images/{n}.jpg": "" for n in range(12)}
DEEP: Files = {f"{c}/{c}_{n}.jpg": "" for c in PETS for n in range(6)}


def lab(n: int) -> str:
    return PETS[n % 3]


def csv(head: str, form: str, count: int = 12) -> Files:
    rows = [form.format(n=n, c=lab(n), i=n % 3) for n in range(count)]
    return {"t.csv": table(head, rows)}


def hugging_face(split: str) -> Files:
    rows = [f"{n}.jpg,{lab(n)}" for n in range(9)]
    files: Files = {f"{split}/{n}.jpg": "" for n in range(9)}
    return files | {f"{split}/metadata.csv": table("file_name,label", rows)}


def each(labels: tuple[str, ...], *splits: str, count: int = 6) -> dict[str, int]:
    return {f"{c} {s}": count for c in labels for s in splits} or dict.fromkeys(labels, count)


NOISY = table(
    "path,noisy_labels_0,noisy_labels_1,is_valid",
    [
        f"{s}/{c}/{c}_{n}{s}.JPEG,{c},{('n02', 'n03')[n % 2]},{s == 'val'}"
        for s in ("train", "val")
        for c in ("n02", "n03")
        for n in range(6)
    ],
)
WOOF: Files = {
    f"{s}/{c}/{c}_{n}{s}.JPEG": ""
    for s in ("train", "val")
    for c in ("n02", "n03")
    for n in range(6)
}
READ: dict[str, tuple[Files, Columns | None, dict[str, int]]] = {
    "a split's name before each class folder's": (
        many(below("x_train|x_test|x_val", *PETS)),
        None,
        each(PETS, "train", "test", "val"),
    ),
    "the faces of FER": (
        many(below("Training|PublicTest|PrivateTest", "angry", "happy")),
        None,
        each(("angry", "happy"), "train") | each(("angry", "happy"), "test", count=12),
    ),
    "two test sets": (
        many(below("train|test_A|test_B", *PETS)),
        None,
        each(PETS, "train") | each(PETS, "test", count=12),
    ),
    "days": (many(below("2024_01_05|2024_02_11", *PETS)), None, each(PETS, count=12)),
    "digits": (
        many(below("training|testing", *map(str, range(10))), "{}.png"),
        None,
        each(tuple(map(str, range(10))), "train", "test"),
    ),
    "processed pictures below the others": (
        many(["positive", "negative", "positive/processed", "negative/processed"], "{c}{}.jpg"),
        None,
        each(("positive", "negative"), count=12),
    ),
    "augmented ones beside train": (
        many(below("train|train_augmented|test", *PETS)),
        None,
        each(PETS, "train", count=12) | each(PETS, "test"),
    ),
    "resource forks of macOS": (
        DEEP | {f"{c}/._{c}_{n}.jpg": "" for c in PETS for n in range(6)},
        None,
        each(PETS),
    ),
    "loose pictures": (DEEP | {f"loose{n}.jpg": "" for n in range(9)}, None, each(PETS)),
    "sentences": (
        many(["a photo of a cat", "a photo of a dog"]),
        None,
        each(("a photo of a cat", "a photo of a dog")),
    ),
    "boxes, one in each image": (
        I12 | csv("image,label,xmin,ymin", "images/{n}.jpg,{c},1,2"),
        None,
        each(PETS, count=4),
    ),
    "blanks behind commas": (
        I12 | csv("image, label", "images/{n}.jpg, {c}"),
        None,
        each(PETS, count=4),
    ),
    "a comma at the end": (
        I12 | csv("image,label,", "images/{n}.jpg,{c},"),
        None,
        each(PETS, count=4),
    ),
    "a line of sums": (
        I12 | {"t.csv": csv("image,label", "images/{n}.jpg,{c}")["t.csv"] + "\nTotal,12"},  # type: ignore[operator]
        None,
        each(PETS, count=4),
    ),
    "a table of features beside": (
        I12
        | csv("image,label", "images/{n}.jpg,{c}")
        | {"f.csv": table("image,f1", [f"images/{n}.jpg,.1" for n in range(12)])},
        None,
        each(PETS, count=4),
    ),
    "a table for each split": (
        {f"{s}/{s}{n}.jpg": "" for s in ("train", "test") for n in range(9)}
        | {
            f"{s}_labels.csv": table("image,label", [f"{s}{n}.jpg,{lab(n)}" for n in range(9)])
            for s in ("train", "test")
        },
        None,
        each(PETS, "train", "test", count=3),
    ),
    "Hugging Face, in splits": (
        hugging_face("train") | hugging_face("test"),
        None,
        each(PETS, "train", "test", count=3),
    ),
    "Hugging Face, in data": (
        {f"data/{k}": v for s in ("train", "test") for k, v in hugging_face(s).items()},
        None,
        each(PETS, "train", "test", count=3),
    ),
    "Hugging Face, with captions": (
        {f"train/{c}/{n}.jpg": "" for c in PETS for n in range(6)}
        | {"train/metadata.csv": table("file_name,text", [f"{c}/1.jpg,a {c}" for c in PETS])},
        None,
        each(PETS, "train"),
    ),
    "an export of Roboflow": (
        {
            f"pets.v1i.folder/{s}/{c}/{n}_jpg.rf.{7919 * n + k:08x}.jpg": ""
            for k, (s, c) in enumerate((s, c) for s in ("train", "valid") for c in PETS)
            for n in range(5)
        }
        | {"pets.v1i.folder/README.roboflow.txt": ""},
        None,
        each(PETS, "train", "val", count=5),
    ),
    "Imagewoof with its column": (
        WOOF | {"noisy.csv": NOISY},
        Columns("path", "noisy_labels_0", "is_valid"),
        each(("n02", "n03"), "train", "val"),
    ),
    "faces by person": (
        {f"lfw/{p}/{p}_{n:04}.jpg": "" for p in ("Aaron", "Abel") for n in range(1, 6)}
        | {"pairs.txt": "10 300\nAaron 1 2"},
        None,
        each(("Aaron", "Abel"), count=5),
    ),
    "the macOS twin of a data set": (
        many(below("chest/train|chest/test", "NORMAL", "SICK"), "{c}-{}.jpeg")
        | {f"chest/__MACOSX/chest/train/NORMAL/._{n}.jpeg": "" for n in range(3)},
        None,
        each(("NORMAL", "SICK"), "train", "test"),
    ),
    "magnifications below classes": (
        many(below("benign|malignant", "40X", "100X"), "{c}-{}.png"),
        None,
        each(("benign", "malignant"), count=12),
    ),
    "names of classes in YAML": (
        many(below("train", *PETS)) | {"data.yaml": "names: [cat, dog]"},
        None,
        each(PETS, "train"),
    ),
}


@pytest.mark.parametrize("name", READ)
def test_data_sets_that_have_one_reading(name: str, tmp_path: Path) -> None:
    files, columns, meant = READ[name]
    entries, _ = read(tmp_path, files, columns)
    assert classes(entries) == meant


STUDIO = json.dumps(
    [
        {"id": n, "data": {"image": f"/u/{n}.jpg"}, "annotations": [{"choices": [lab(n)]}]}
        for n in range(12)
    ]
)
REFUSED: dict[str, tuple[Files, list[str]]] = {
    "shares in the names of splits": (
        many(below("data_60|data_20|data_20b", *PETS)),
        ['"group/class"', "call them train"],
    ),
    "gallery and query": (many(below("train|query|gallery", *PETS)), ['"group/class"', "train"]),
    "two versions": (many(below("v1/train|v1/val|v2/train|v2/val", *PETS)), ["data.source"]),
    "domains": (many(below("clipart|real|sketch", *PETS)), ['"class"', '"group/class"']),
    "train_cat and test_cat": (
        many([f"{s}_{c}" for s in ("train", "test") for c in PETS]),
        ["without class folders"],
    ),
    "first letters above classes": (
        many(["SUN/a/abbey", "SUN/a/airport", "SUN/b/bar", "SUN/b/beach"]),
        ['"*/class"', '"*/*/class"'],
    ),
    "numbers for splits": (
        I12 | csv("image,label,split", "images/{n}.jpg,{c},{i}"),
        ["'0', '1', '2'", "data.split_column"],
    ),
    "a column of words for splits": (
        I12
        | {
            "t.csv": table(
                "image,label,part",
                [
                    f"images/{n}.jpg,{lab(n)},{w}"
                    for n, w in enumerate(["train", "valid", "test"] * 4)
                ],
            )
        },
        ["`data.split_column: part`"],
    ),
    "addresses": (
        I12 | csv("image,label", "https://x.org/{n}.jpg,{c}"),
        ["address of a kind that cannot be read (https://) (12)"],
    ),
    "numbers to be estimated": (
        I12 | csv("image,label", "images/{n}.jpg,{n}.137"),
        ["Too few images"],
    ),
    "another suffix": (
        I12 | csv("image,label", "images/{n}.png,{c}"),
        ["12 of them are like the name of an image elsewhere"],
    ),
    "German columns": (
        I12 | csv("Datei,Klasse", "images/{n}.jpg,{c}"),
        ["`data.image_column: Datei` and `data.label_column: Klasse`"],
    ),
    "Label Studio": (I12 | {"export.json": STUDIO}, ["export.json", "not read"]),
    "Vertex AI": (
        I12
        | {
            "data.jsonl": "\n".join(
                json.dumps({"imageGcsUri": f"gs://b/images/{n}.jpg", "a": {"displayName": lab(n)}})
                for n in range(12)
            )
        },
        ["'imageGcsUri' names 12", "add one that is called `label`"],
    ),
    "labelme": (
        I12 | {f"images/{n}.json": json.dumps({"shapes": []}) for n in range(12)},
        ["images/0.json", "not read"],
    ),
    "CVAT": (I12 | {"annotations.xml": "<a/>"}, ["annotations.xml"]),
    "a zipped table": (I12 | {"labels.csv.gz": "x"}, ["labels.csv.gz"]),
    "Imagewoof": (WOOF | {"noisy.csv": NOISY}, ["`data.split_column: is_valid`"]),
    "Latin-1 lines": (
        I12
        | {"labels.txt": "\n".join(f"{n}.jpg Käse{n % 2}" for n in range(12)).encode("latin-1")},
        ["labels.txt"],
    ),
    "persons in the names of files": (
        {
            f"bounding_box_train/{p:04}_c{k}s1_{n}.jpg": ""
            for p in range(6)
            for k in (1, 2)
            for n in range(3)
        },
        ["one label 'bounding_box_train'"],
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_data_sets_that_are_asked_about(name: str, tmp_path: Path) -> None:
    files, words = REFUSED[name]
    with pytest.raises(GraftlineError) as error:
        read(tmp_path, files)
    assert all(word in str(error.value) for word in words), error.value
