"""Tables with one column for each class, as Roboflow and ISIC have them: read, or refused."""

import json
import sys
from pathlib import Path

import pytest

from graftline.data.sources.base import Columns
from graftline.errors import GraftlineError

sys.path.insert(0, str(Path(__file__).parent))

from data_set_files import Files, classes, read, table

PETS = ("cat", "dog", "bird")
SPLITS = ("train", "valid", "test")
IMAGES: Files = {f"images/{n}.jpg": "" for n in range(12)}


def ones(*held: int) -> str:
    return ",".join(str(int(k in held)) for k in range(3))


def roboflow(several: bool = False) -> Files:
    """As the export writes it: a blank before each class, and a table in each split's folder."""
    files: Files = {"README.roboflow.txt": "x"}
    for s in SPLITS:
        names = [f"{s}{n}_jpg.rf.{n:032x}.jpg" for n in range(12)]
        files |= {f"{s}/{name}": "" for name in names}
        held = [(n % 3, (n + 1) % 3) if several and n == 4 else (n % 3,) for n in range(12)]
        rows = [f"{n},{ones(*h)}".replace(",", ", ") for n, h in zip(names, held, strict=True)]
        files[f"{s}/_classes.csv"] = "\n".join(["filename, cat, dog, bird", *rows])
    return files


def one(head: str, rows: list[str], name: str = "t.csv") -> Files:
    return IMAGES | {name: table(head, rows)}


KINDS = dict.fromkeys(PETS, 4)
READ: dict[str, tuple[Files, Columns | None, dict[str, int]]] = {
    "Roboflow": (
        roboflow(),
        None,
        {f"{c} {s}": 4 for c in PETS for s in ("train", "val", "test")},
    ),
    "floats": (
        one(
            "image,cat,dog,bird",
            [
                f"{n}.jpg,{ones(n % 3)}".replace(",1", ",1.0").replace(",0", ",0.0")
                for n in range(12)
            ],
        ),
        None,
        KINDS,
    ),
    "words": (
        IMAGES
        | {
            "t.jsonl": "\n".join(
                json.dumps(
                    {"file_name": f"images/{n}.jpg"} | {c: k == n % 3 for k, c in enumerate(PETS)}
                )
                for n in range(12)
            )
        },
        None,
        KINDS,
    ),
    "an id, named": (
        one("image_id,cat,dog,bird", [f"{n},{ones(n % 3)}" for n in range(12)]),
        Columns("image_id"),
        KINDS,
    ),
    "a row without any": (
        one("image,cat,dog,bird", [f"{n}.jpg,{ones(n % 3) if n else '0,0,0'}" for n in range(12)]),
        None,
        KINDS | {"cat": 3},
    ),
    "with splits": (
        one(
            "image,split,cat,dog,bird",
            [f"{n}.jpg,{'train' if n < 9 else 'test'},{ones(n % 3)}" for n in range(12)],
        ),
        None,
        {f"{c} {s}": k for c in PETS for s, k in (("train", 3), ("test", 1))},
    ),
}


@pytest.mark.parametrize("name", READ)
def test_the_class_is_the_column_with_the_one(name: str, tmp_path: Path) -> None:
    files, columns, meant = READ[name]
    entries, source = read(tmp_path, files, columns)
    assert classes(entries) == meant
    assert any("one column for each class ('cat', 'dog', 'bird')" in note for note in source.notes)


def test_a_row_without_any_class_is_rejected(tmp_path: Path) -> None:
    entries, _ = read(tmp_path, READ["a row without any"][0])
    assert {e.path: e.problem for e in entries if e.path.endswith("jpg") and e.problem} == {
        "images/0.jpg": "no label"
    }


# What must not be taken for classes, and what the error says.
REFUSED: dict[str, tuple[Files, Columns | None, list[str]]] = {
    "several classes in a row": (
        roboflow(several=True),
        None,
        [
            "1 of 12 rows hold several of the classes",
            "line 6: 'dog', 'bird'",
            "data.label_column: cat",
        ],
    ),
    "two flags of splits": (
        one("image,is_train,is_test", [f"{n}.jpg,{n % 2},{1 - n % 2}" for n in range(12)]),
        None,
        ["no column 'label'"],
    ),
    "properties beside another one": (
        one("image,width,left,right", [f"{n}.jpg,{n},{n % 2},{1 - n % 2}" for n in range(12)]),
        None,
        ["no column 'label'"],
    ),
    "a label that the run file names": (
        one("image,cat,dog,bird", [f"{n}.jpg,{ones(n % 3)}" for n in range(12)]),
        Columns(label="species"),
        ["no column 'species'"],
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_columns_of_yes_and_no_are_no_classes(name: str, tmp_path: Path) -> None:
    files, columns, named = REFUSED[name]
    with pytest.raises(GraftlineError) as error:
        read(tmp_path, files, columns)
    assert all(word in str(error.value) for word in named), error.value


def test_the_line_of_the_error_works(tmp_path: Path) -> None:
    """One class of several can be learned: its column holds yes and no."""
    entries, _ = read(tmp_path, roboflow(several=True), Columns("filename", "cat"))
    assert set(classes(entries)) == {f"{k} {s}" for k in "01" for s in ("train", "val", "test")}


def test_properties_beside_class_folders_stop_the_run(tmp_path: Path) -> None:
    """Indoor and outdoor say more of the pets, or are the classes: nobody knows."""
    files: Files = {f"{c}/{c}{n}.jpg": "" for c in PETS for n in range(6)}
    rows = [f"{c}/{c}{n}.jpg,{n % 2},{1 - n % 2}" for c in PETS for n in range(6)]
    with pytest.raises(GraftlineError, match="two ways") as error:
        read(tmp_path, files | {"t.csv": table("image,indoor,outdoor", rows)})
    assert "`data.format: table`" in str(error.value)
    assert classes(read(tmp_path, {}, kind="table")[0]) == {"indoor": 9, "outdoor": 9}
    assert classes(read(tmp_path, {}, kind="folders")[0]) == dict.fromkeys(PETS, 6)
