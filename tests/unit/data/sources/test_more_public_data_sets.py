"""More published data sets, by their descriptions: read as a person reads them, or refused."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from graftline.data.sources.base import Columns
from graftline.errors import GraftlineError

sys.path.insert(0, str(Path(__file__).parent))

from data_set_files import Files, below, classes, many, read, table

PETS = ("cat", "dog", "bird")
IMAGES = many(["images"], "{}.jpg", 12)
SPLITS = ("train", "valid", "test")


def rows(form: str, values: tuple[str, ...] = PETS, count: int = 12) -> list[str]:
    return [
        form.format(n=n, label=values[n % len(values)], i=n % len(values)) for n in range(count)
    ]


def labelled(*values: str) -> Files:
    return IMAGES | {"t.csv": table("image,label", rows("{n}.jpg,{label}", values))}


def lines(form: str, numbers: range, **values: Any) -> str:
    return "\n".join(form.format(n=n, **values) for n in numbers)


IMAGENET: Files = {
    f"Data/train/{c}/{c}_{n}.JPEG": "" for c in ("n01440764", "n01443537") for n in range(6)
}
IMAGENET |= many(["Data/val"], "ILSVRC2012_val_{:08}.JPEG")
IMAGENET["ImageSets/train_cls.txt"] = "\n".join(
    f"{key[11:-5]} {n}" for n, key in enumerate(list(IMAGENET)[:12], 1)
)
IMAGENET["LOC_synset_mapping.txt"] = "n01440764 tench"
XRAYS = {f"images_{k:03}/images/{k:05}_{n:03}.png": "" for k in range(1, 7) for n in range(4)}
FINDINGS = ("No Finding", "Mass", "Nodule", "Effusion")
XRAYS["Data_Entry.csv"] = table(
    "Image Index,Finding Labels,Patient ID",
    [f"{key[18:]},{FINDINGS[n % 4]},{n // 4}" for n, key in enumerate(list(XRAYS))],
)
XRAYS["train_val_list.txt"] = "\n".join(
    f"{k:05}_{n:03}.png" for k in (1, 2, 4, 5) for n in range(4)
)
XRAYS["test_list.txt"] = "\n".join(f"{k:05}_{n:03}.png" for k in (3, 6) for n in range(4))
OF_XRAYS = Columns("Image Index", "Finding Labels", group="Patient ID")
TRASH = many(below("Garbage classification/Garbage classification", "glass", "paper"), "{c}{}.jpg")
TRASH |= {
    f"one-indexed-notrash_{s}.txt": "\n".join(
        f"{c}{n}.jpg {i}" for i, c in enumerate(("glass", "paper"), 1) for n in numbers
    )
    for s, numbers in (("train", range(4)), ("test", range(4, 6)))
}
PAGES: Files = {f"images/imagesa/a/a/{n}.tif": "" for n in range(12)}
PAGES["labels/train.txt"] = "\n".join(f"imagesa/a/a/{n}.tif {n % 4}" for n in range(8))
PAGES["labels/test.txt"] = "\n".join(f"imagesa/a/a/{n}.tif {n % 4}" for n in range(8, 12))
CAPTIONED = {f"{s}/{n}.jpg": "" for s in ("train", "test") for n in range(6)}
CAPTIONED |= {
    f"{s}/metadata.jsonl": "\n".join(
        json.dumps({"file_name": f"{n}.jpg", "label": PETS[n % 3]}) for n in range(6)
    )
    for s in ("train", "test")
}
VISDA: Files = {
    f"{d}/{c}/{d}{n}.jpg": "" for d in ("train", "validation") for c in PETS for n in range(6)
}
VISDA |= {
    f"{d}/image_list.txt": "\n".join(
        f"{c}/{d}{n}.jpg {i}" for i, c in enumerate(PETS) for n in range(6)
    )
    for d in ("train", "validation")
}
ANSWERS = {
    **many(below("train", *PETS), "{c}{}.jpg"),
    **many(["test"], "t{}.jpg"),
    "test.csv": table("file,kind", rows("t{n}.jpg,{label}", count=6)),
}
TWO = {f"{c} {s}": n for c in ("glass", "paper") for s, n in (("train", 4), ("test", 2))}

# Files, columns, and images of each class and split.
READ: dict[str, tuple[Files, Columns | None, dict[str, int]]] = {
    "ImageNet, with a list that counts": (
        IMAGENET,
        None,
        {"n01440764 train": 6, "n01443537 train": 6},
    ),
    "chest X-rays": (
        XRAYS,
        OF_XRAYS,
        {f"{c} {s}": n for c in FINDINGS for s, n in (("train", 4), ("test", 2))},
    ),
    "garbage": (TRASH, None, TWO),
    "pages": (
        PAGES,
        None,
        {f"{i} {s}": n for i in range(4) for s, n in (("train", 2), ("test", 1))},
    ),
    "metadata.jsonl": (CAPTIONED, None, {f"{c} {s}": 2 for c in PETS for s in ("train", "test")}),
    "VisDA": (VISDA, None, {f"{c} {s}": 6 for c in PETS for s in ("train", "val")}),
    "answers of the test in a table": (
        ANSWERS,
        Columns("file", "kind"),
        {f"{c} {s}": n for c in PETS for s, n in (("train", 6), ("test", 2))},
    ),
    "Intel": (
        many(below("seg_train/seg_train|seg_test/seg_test", "sea", "forest"))
        | many(["seg_pred/seg_pred"]),
        None,
        {f"{c} {s}": 6 for c in ("sea", "forest") for s in ("train", "test")},
    ),
    "chest X-rays twice": (
        many(below("cx/train|cx/val|cx/test|cx/cx/train|cx/cx/val|cx/cx/test", "NORMAL", "SICK")),
        None,
        {f"{c} {s}": 6 for c in ("NORMAL", "SICK") for s in ("train", "val", "test")},
    ),
    "retinopathy": (
        many(["train"], "{:x}.png", 15)
        | {"train.csv": table("id_code,diagnosis", [f"{n:x},{n % 5}" for n in range(15)])}
        | many(["test"], "t{}.png")
        | {"test.csv": table("id_code", ["t0", "t1"])},
        Columns("id_code", "diagnosis"),
        {str(n): 3 for n in range(5)},
    ),
    "CelebA, one attribute": (
        many(["img/img"], "{:06}.jpg", 12)
        | {
            "attr.csv": table(
                "image_id,Smiling,Male", [f"{n:06}.jpg,{n % 2 * 2 - 1},1" for n in range(12)]
            )
        },
        Columns("image_id", "Smiling"),
        {"-1": 6, "1": 6},
    ),
    "exported by Excel": (
        IMAGES | {"t.csv": "\ufeffimage;label\r\n" + "\r\n".join(rows("images\\{n}.jpg;{label}"))},
        None,
        dict.fromkeys(PETS, 4),
    ),
    "UTF-16": (
        IMAGES | {"t.csv": table("image\tlabel", rows("{n}.jpg\t{label}")).encode("utf-16")},
        None,
        dict.fromkeys(PETS, 4),
    ),
    "with an index": (
        IMAGES | {"t.csv": table("Unnamed: 0,image,label", rows("{n},{n}.jpg,{label}"))},
        None,
        dict.fromkeys(PETS, 4),
    ),
    "leading zeros": (labelled("007", "008", "012"), None, {"007": 4, "008": 4, "012": 4}),
    "floats": (labelled("0.0", "1.0"), None, {"0.0": 6, "1.0": 6}),
    "missing values": (labelled("nan", "1.0", "0.0", ""), None, {"1.0": 3, "0.0": 3}),
    "blanks": (labelled(" cat", "cat ", "dog"), None, {"cat": 8, "dog": 4}),
    "booleans": (labelled("True", "False"), None, {"True": 6, "False": 6}),
    "numbers and their names": (
        IMAGES | {"t.csv": table("image,label,label_name", rows("{n}.jpg,{i},{label}"))},
        None,
        {"0": 4, "1": 4, "2": 4},
    ),
    "numbered folders": (
        many(["0", "1", "2"]) | {"classes.txt": "cat"},
        None,
        {"0": 6, "1": 6, "2": 6},
    ),
    "dataset_infos": (
        many(below("train|test", *PETS)) | {"dataset_infos.json": "{}", "README.md": ""},
        None,
        {f"{c} {s}": 6 for c in PETS for s in ("train", "test")},
    ),
    "rice": (
        many(below("Rice", "Arborio", "Basmati"), "{c} ({}).jpg") | {"Rice/Citation.txt": ""},
        None,
        {"Arborio": 6, "Basmati": 6},
    ),
    "birds by number": (
        many(["001.Albatross", "002.Auklet"]),
        None,
        {"001.Albatross": 6, "002.Auklet": 6},
    ),
    "NIST": (many(below("by_class", "30", "4a"), "hsf_{}.png"), None, {"30": 6, "4a": 6}),
    "CIFAR": (
        many(below("cifar/train|cifar/test", "frog", "ship"), "{:04}_{c}.png")
        | {"cifar/labels.txt": "frog"},
        None,
        {f"{c} {s}": 6 for c in ("frog", "ship") for s in ("train", "test")},
    ),
    "frames of videos": (
        {f"{c}/clip_{k}/{n}.jpg": "" for c in ("run", "walk") for k in range(4) for n in range(5)},
        None,
        {"run": 20, "walk": 20},
    ),
    "without suffixes": (
        {f"{c}/IM{n:06}": "" for c in ("benign", "malign") for n in range(6)},
        None,
        {"benign": 6, "malign": 6},
    ),
    "patients with a folder of images": (
        {f"patient_{p}/images/{c}/{n}.png": "" for p in range(5) for c in PETS for n in range(2)},
        None,
        dict.fromkeys(PETS, 10),
    ),
    "synonyms": (
        many(["tench, Tinca tinca", "cardigan", "cardigan, Welsh corgi"]),
        None,
        {"tench, Tinca tinca": 6, "cardigan": 6, "cardigan, Welsh corgi": 6},
    ),
}


@pytest.mark.parametrize("name", READ)
def test_data_sets_that_a_person_reads_in_one_way(name: str, tmp_path: Path) -> None:
    files, columns, meant = READ[name]
    entries, _ = read(tmp_path, files, columns)
    assert classes(entries) == meant


COCO = json.dumps({"images": [], "annotations": [], "categories": [{"id": 1, "name": "cat"}]})
YOLO = {f"{s}/labels/{n}.txt": "0 .5 .5 1 1" for s in SPLITS for n in range(6)}
DOMAINS = {
    f"{d}/images/{c}/frame_{n:04}.jpg": ""
    for d in ("amazon", "dslr")
    for c in ("bike", "mug")
    for n in range(6)
}
ONE_HOT = table("image_id,healthy,rust", [f"{n},{n % 2},{1 - n % 2}" for n in range(12)])

# Files, and what the error must say.
REFUSED: dict[str, tuple[Files, list[str]]] = {
    "COCO": (
        many(["train2017"]) | {"annotations/instances_train2017.json": COCO},
        ["boxes around"],
    ),
    "COCO of Roboflow": (
        many(SPLITS) | {f"{s}/_annotations.coco.json": COCO for s in SPLITS},
        ["boxes around", "without class folders"],
    ),
    "YOLO": (
        many(["images/train", "images/val"])
        | {f"labels/{s}/{n}.txt": "0 .5 .5 1 1" for s in ("train", "val") for n in range(6)},
        ["boxes around"],
    ),
    "YOLO of Roboflow": (many(below("|".join(SPLITS), "images")) | YOLO, ["boxes around"]),
    "Pascal VOC": (
        many(["VOC/JPEGImages"], "2007_{:06}.jpg")
        | {"VOC/ImageSets/Main/train.txt": lines("2007_{n:06}", range(3))}
        | {f"VOC/Annotations/2007_{n:06}.xml": "" for n in range(6)},
        ["boxes around"],
    ),
    "CelebA": (
        many(["img"], "{:06}.jpg", 12)
        | {"attr.csv": table("image_id,Smiling,Male", [f"{n:06}.jpg,1,-1" for n in range(12)])},
        ["let one of them be the label", "data.label_column: Smiling"],
    ),
    "one-hot": (
        IMAGES | {"train.csv": ONE_HOT},
        ["`data.image_column: image_id`: the other columns are one for each class"],
    ),
    "ids without suffix": (
        IMAGES
        | {"train.csv": table("id_code,diagnosis", [f"{n},{n % 3}" for n in range(12)])}
        | {"test.csv": table("id_code", ["t1"])},
        ["`data.image_column: id_code` and `data.label_column: diagnosis`"],
    ),
    "lists of labels": (
        IMAGES
        | {
            "t.csv": table(
                "image;label", ["0.jpg;cat,dog", "1.jpg;dog,bird", "2.jpg;bird,cat"], "|"
            )
        },
        ["name several classes"],
    ),
    "a mapping in JSON": (
        IMAGES | {"labels.json": json.dumps({"0.jpg": "cat"})},
        ["one label 'cat'", "not in the table (11)"],
    ),
    "nested labels": (
        IMAGES
        | {
            "t.jsonl": "\n".join(
                json.dumps({"image": f"images/{n}.jpg", "label": {"name": "cat"}})
                for n in range(12)
            )
        },
        ["label is an object", "Write one text or number"],
    ),
    "labels in an annotation": (
        IMAGES
        | {
            "t.jsonl": "\n".join(
                json.dumps({"image": f"images/{n}.jpg", "annotation": {"label": "cat"}})
                for n in range(12)
            )
        },
        ["No column looks like a label", "add one that is called `label`"],
    ),
    "zipped inside": (
        {"images/train.zip": "", "images/x.csv": "a,b"},
        ["train.zip", "unpack them"],
    ),
    "twice by case": (many(["Cat", "cat", "dog"]), ["'Cat', 'cat'", "data.similar_labels: merge"]),
    "007 and 7": (labelled("007", "7", "12"), ["'007', '7'"]),
    "booleans of two kinds": (labelled("True", "False", "1", "0"), ["'0', 'False'; '1', 'True'"]),
    "yes and true": (labelled("yes", "no", "true", "false"), ["'no'", "'true', 'yes'"]),
    "dates": (
        IMAGES
        | {"t.csv": table("image,label", lines("{n}.jpg,2024-01-{n:02}", range(12)).split())},
        ["Too few images"],
    ),
    "Office-31": (DOMAINS, ['"class"', '"group/*/class"', "bike, mug"]),
    "PACS": (many(below("photo|sketch", "dog", "house")), ['"class"', '"group/class"']),
    "cats and dogs": (
        many(["train"], "cat.{}.jpg") | many(["train"], "dog.{}.jpg") | many(["test"], "{}.jpg"),
        ["names of the files may hold the classes ('cat', 'dog')"],
    ),
    "cats and dogs, nested": (
        many(["train/train"], "cat.{}.jpg")
        | many(["train/train"], "dog.{}.jpg")
        | many(["test1/test1"]),
        ["names of the files may hold the classes ('cat', 'dog')"],
    ),
    "no names of columns": (
        IMAGES | {"t.csv": "\n".join(rows("TRAIN,images/{n}.jpg,{label}"))},
        ["add a line `split,image,label`"],
    ),
    "addresses": (
        {"t.csv": table("image_url,label", ["https://x/1.jpg,cat"])},
        ["No column names the"],
    ),
    "captions": (
        many(["train"])
        | {"train/metadata.csv": table("file_name,text", rows("{n}.jpg,a cat", count=6))},
        ["No column looks like a label ('file_name', 'text')"],
    ),
    "pixels in a table": (
        {"t.csv": "emotion,pixels,Usage\n0,1 2 3,Training"},
        ["No column names the"],
    ),
    "MNIST": (
        {
            f"{part}-{kind}-ubyte.gz": ""
            for part in ("train", "t10k")
            for kind in ("images-idx3", "labels-idx1")
        },
        ["t10k-images-idx3-ubyte.gz", "in a form that is not read", "docs/data.md"],
    ),
    "CIFAR-100": (
        {f"cifar-100-python/{name}": "" for name in ("train", "test", "meta")},
        ["'cifar-100-python/test', 'cifar-100-python/train' may hold images"],
    ),
    "a pickle": (IMAGES | {"train.pkl": ""}, ["train.pkl", "could run code"]),
    "HDF5": ({"train_x.h5": ""}, ["in a form that is not read"]),
    "MATLAB": (
        many(["jpg"]) | {"imagelabels.mat": "", "setid.mat": ""},
        ["imagelabels.mat", "docs/data.md"],
    ),
    "one class in another format": (
        many(["a", "b"], "{}.dcm") | many(["a"]),
        ["convert 'a/0.dcm'"],
    ),
    "a part that is unassigned": (
        IMAGES
        | {
            "t.csv": table(
                "image,label,split",
                [f"{n}.jpg,cat,{('TRAIN', 'UNASSIGNED')[n % 2]}" for n in range(12)],
            )
        },
        ["holds 'unassigned'"],
    ),
    "an image in several rows": (
        IMAGES | {"t.csv": table("image,label", [f"{n % 4}.jpg,{PETS[n % 3]}" for n in range(12)])},
        ["conflicting labels (12)"],
    ),
    "scenes of a super-resolution set": (
        many(["DIV2K_train_HR", "DIV2K_train_LR_bicubic/X2", "DIV2K_valid_HR"], "{:04}.png"),
        ["without class folders"],
    ),
    "patches by patient": (
        {
            f"{p}/{k}/{p}_idx5_x{n}_y{k}.png": ""
            for p in (8863, 9036)
            for k in (0, 1)
            for n in range(4)
        },
        ['"class"', '"group/class"'],
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_data_sets_that_are_refused_with_what_to_do(name: str, tmp_path: Path) -> None:
    files, words = REFUSED[name]
    with pytest.raises(GraftlineError) as error:
        read(tmp_path, files)
    assert all(word in str(error.value) for word in words), error.value
