"""Forms in which well-known data sets are published: read as they are, or by the error's line."""

import gzip
import json
import re
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

from graftline.data.sources.base import Columns, Reading
from graftline.errors import GraftlineError

sys.path.insert(0, str(Path(__file__).parent))

from data_set_files import Files, classes, read, table

PETS = ("cat", "dog", "bird")
SPLITS = ("train", "val", "test")
KINDS = dict.fromkeys(PETS, 4)


def lab(n: int) -> str:
    return PETS[n % 3]


def birds(images: str = "{c}_{n}.jpg", *, names: bool = True, splits: bool = True) -> Files:
    """As Caltech numbers its birds; the numbers of the images begin at 1."""
    paths = [images.format(c=lab(n), n=n, k=n % 3 + 1) for n in range(12)]
    files: Files = {f"images/{path}": "" for path in paths}
    files["images.txt"] = "\n".join(f"{n} {path}" for n, path in enumerate(paths, 1))
    files["image_class_labels.txt"] = "\n".join(f"{n + 1} {n % 3 + 1}" for n in range(12))
    files["bounding_boxes.txt"] = "\n".join(f"{n} 1.0 2.0 30.0 40.0" for n in range(1, 13))
    if names:
        files["classes.txt"] = "\n".join(f"{k} {c}" for k, c in enumerate(PETS, 1))
    if splits:
        files["train_test_split.txt"] = "\n".join(f"{n} {int(n < 7)}" for n in range(1, 13))
    return files


def of_splits(kinds: dict[str, int], count: int) -> dict[str, int]:
    return {f"{kind} {s}": count for kind in kinds for s in ("train", "test")}


def aircraft(*kinds: str) -> Files:
    """Names with blanks, a list for each split, and one of train and val together."""
    names = {"variant": ("707-320", "A300 B4", "DH.82 Moth"), "family": ("707", "A300", "DH-82")}
    files: Files = {f"data/images/{1000000 + n}.jpg": "" for n in range(36)}
    parts = {"train": range(12), "val": range(12, 24), "test": range(24, 36)}
    parts["trainval"] = range(24)
    for split, numbers in parts.items():
        files[f"data/images_{split}.txt"] = "\n".join(f"{1000000 + n}" for n in numbers)
        for kind in kinds:
            lines = (f"{1000000 + n} {names[kind][n % 3]}" for n in numbers)
            files[f"data/images_{kind}_{split}.txt"] = "\n".join(lines)
    files["data/images_box.txt"] = "\n".join(f"{1000000 + n} 1 2 {n} 9" for n in range(36))
    return files


def alike(line: str) -> Files:
    """Images of the same names in the folders of two splits, with other labels."""
    files: Files = {f"{s}/{n}.jpg": "" for s in ("train", "val") for n in range(12)}
    for k, split in enumerate(("train", "val")):
        files[f"{split}.txt"] = "\n".join(
            line.format(n=n, c=lab(n + k), i=n % 3) for n in range(12)
        )
    return files


READ: dict[str, tuple[Files, dict[str, int]]] = {
    "CUB in one folder": (birds(), of_splits(KINDS, 2)),
    "CUB without splits": (birds(splits=False), KINDS),
    "CUB without names": (birds(names=False), of_splits(dict.fromkeys("123", 1), 2)),
    "CUB, images called by number": (birds("{n}.jpg"), of_splits(KINDS, 2)),
    "CUB in class folders": (
        birds("{k:03}.{c}/{c}_{n}.jpg", names=False),
        of_splits(dict.fromkeys(["001.cat", "002.dog", "003.bird"], 1), 2),
    ),
    "aircraft": (
        aircraft("variant"),
        {f"{c} {s}": 4 for c in ("707-320", "A300 B4", "DH.82 Moth") for s in SPLITS},
    ),
    "images of one name in two splits": (
        alike("{n}.jpg {c}"),
        {f"{c} {s}": 4 for c in PETS for s in ("train", "val")},
    ),
    "the same, by tabs": (
        alike("{n}.jpg\t{c}"),
        {f"{c} {s}": 4 for c in PETS for s in ("train", "val")},
    ),
}


@pytest.mark.parametrize("name", READ)
def test_it_is_read_as_its_makers_meant(name: str, tmp_path: Path) -> None:
    files, meant = READ[name]
    entries, _ = read(tmp_path, files)
    assert classes(entries) == meant


def test_each_image_of_two_splits_has_its_own_label(tmp_path: Path) -> None:
    entries, _ = read(tmp_path, alike("{n}.jpg {c}"))
    assert {one.path: one.label for one in entries if one.problem is None} == {
        f"{s}/{n}.jpg": lab(n + k) for k, s in enumerate(("train", "val")) for n in range(12)
    }


# Files, columns and the line of the run file that the error must name.
PET_LINES = ["#Image CLASS-ID SPECIES BREED ID"] + [
    f"{lab(n)}_{n} {n % 3 + 1} {n % 2 + 1} {n % 3 + 1}" for n in range(12)
]
OXFORD: Files = {f"images/{lab(n)}_{n}.jpg": "" for n in range(12)}
OXFORD |= {f"annotations/trimaps/{lab(n)}_{n}.png": "" for n in range(12)}
OXFORD |= {f"annotations/xmls/{lab(n)}_{n}.xml": "<annotation/>" for n in range(12)}
OXFORD["annotations/list.txt"] = "\n".join(PET_LINES)
GROCERY: Files = {
    f"{s}/{kind}/{c}/{c}_{n:03}.jpg": ""
    for s in ("train", "test")
    for kind, c in (("Fruit", "apple"), ("Fruit", "pear"), ("Packages", "milk"))
    for n in range(6)
}
GROCERY |= {
    f"{s}.txt": "\n".join(
        f"{s}/{path}_{n:03}.jpg, {k}, {k // 2}"
        for k, path in enumerate(("Fruit/apple/apple", "Fruit/pear/pear", "Packages/milk/milk"))
        for n in range(6)
    )
    for s in ("train", "test")
}
GROCERY |= {f"iconic/Fruit/{c}_Iconic.jpg": "" for c in ("apple", "pear")}
GROCERY["classes.csv"] = table(
    "Class Name (str),Class ID (int),Coarse (str),Iconic Image Path (str)",
    [f"{c},{k},Fruit,/iconic/Fruit/{c}_Iconic.jpg" for k, c in enumerate(("apple", "pear"))],
)
FLAT: Files = {f"images/{n}.jpg": "" for n in range(12)}
NUMBERS = ('data.image_column: "1"', 'data.label_column: "2"')
BY_NUMBER: dict[str, tuple[Files, dict[str, int]]] = {
    "Oxford's pets": (OXFORD, {"1": 4, "2": 4, "3": 4}),
    "groceries": (GROCERY, of_splits(dict.fromkeys("012", 1), 6)),
    "groceries with a text for each product": (
        GROCERY | {f"iconic/Fruit/{n}_Information.txt": "sweet" for n in range(70)},
        of_splits(dict.fromkeys("012", 1), 6),
    ),
    "faces with attributes": (
        {f"img/{n:06}.jpg": "" for n in range(12)}
        | {
            "list_attr.txt": "12\nSmiling Male\n"
            + "\n".join(f"{n:06}.jpg {n % 2 * 2 - 1:2d} -1" for n in range(12)),
            "list_eval_partition.txt": "\n".join(f"{n:06}.jpg {n % 3}" for n in range(12)),
        },
        {"-1": 6, "1": 6},
    ),
    "commas": (FLAT | {"t.csv": "\n".join(f"{n}.jpg,{lab(n)}" for n in range(12))}, KINDS),
    "tabs": (FLAT | {"t.tsv": "\n".join(f"{n}.jpg\t{lab(n)}" for n in range(12))}, KINDS),
    "blanks": (FLAT | {"t.csv": "\n".join(f"{n}.jpg {lab(n)}" for n in range(12))}, KINDS),
    "a split behind the label": (
        FLAT
        | {
            "t.csv": "\n".join(
                f"{n}.jpg {lab(n)} {'train' if n % 2 else 'test'}" for n in range(12)
            )
        },
        of_splits(KINDS, 2),
    ),
    "blanks in labels": (
        FLAT | {"t.csv": "\n".join(f"{n}.jpg big {lab(n)}" for n in range(12))},
        {f"big {c}": 4 for c in PETS},
    ),
}


@pytest.mark.parametrize("name", BY_NUMBER)
def test_columns_without_names_are_called_by_number(name: str, tmp_path: Path) -> None:
    files, meant = BY_NUMBER[name]
    with pytest.raises(GraftlineError) as error:
        read(tmp_path, files)
    lines = re.findall(r"`(data\.\w+_column: [^`]+)`", str(error.value))
    values = [yaml.safe_load(line)[line.partition(":")[0]] for line in lines]
    assert values[:2] == ["1", "2"], error.value  # as they are pasted: texts, not numbers
    assert classes(read(tmp_path, {}, Columns(*values))[0]) == meant


def test_the_values_of_columns_without_names_are_shown(tmp_path: Path) -> None:
    with pytest.raises(GraftlineError) as error:
        read(tmp_path, OXFORD)
    assert "\"2\" has 3 values ('1', '2'), \"3\" has 2 values ('1', '2')" in str(error.value)


def test_a_list_of_boxes_beside_class_folders_changes_nothing(tmp_path: Path) -> None:
    files: Files = {f"{c}/{c}_{n}.jpg": "" for c in PETS for n in range(4)}
    boxes = "\n".join(f"{c}/{c}_{n}.jpg 1 2 3 4" for c in PETS for n in range(4))
    entries, _ = read(tmp_path, files | {"boxes.txt": boxes})
    assert classes(entries) == KINDS


def test_one_list_for_validation_alone_can_be_used_without_its_split(tmp_path: Path) -> None:
    """ImageNet's val.txt: the error's line must work."""
    files: Files = {f"val/v{n}.JPEG": "" for n in range(12)}
    files["val.txt"] = "\n".join(f"v{n}.JPEG {n % 3}" for n in range(12))
    with pytest.raises(GraftlineError, match=r"`data\.split_column: null`"):
        read(tmp_path, files)
    entries, source = read(tmp_path, {}, Columns(split=None))
    assert classes(entries) == {"0": 4, "1": 4, "2": 4}
    assert any("splits of 'val.txt' are not taken" in note for note in source.notes)


@pytest.mark.parametrize("kind", ["labels.txt", "val.txt", "labels.json"])
def test_a_file_of_labels_can_be_the_source(kind: str, tmp_path: Path) -> None:
    said = {f"images/{n}.jpg": lab(n) for n in range(12)}
    lines = "\n".join(f"{path} {label}" for path, label in said.items())
    text = json.dumps(said) if kind.endswith("json") else lines
    read_all(tmp_path, FLAT | {kind: text, "other.txt": lines.replace("cat", "cow")})
    columns = Columns(split=None)
    from graftline.data.sources import open_source

    entries = open_source(str(tmp_path / kind), columns=columns).entries()
    assert classes(entries) == KINDS
    with pytest.raises(GraftlineError, match="does not exist"):
        open_source(str(tmp_path / "none.txt"))
    (tmp_path / "empty.txt").write_text("nothing\n")
    with pytest.raises(GraftlineError, match="states no labels"):
        open_source(str(tmp_path / "empty.txt"))


def read_all(folder: Path, files: Files) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())


def competition(ids: str, name: str = "train/{}.jpg") -> Files:
    """As Kaggle packs one: answers of train, and a form for those of test, of the same ids."""
    files: Files = {name.format(f"{n:05}"): "" for n in range(12)}
    files |= {f"test/{n:05}.jpg": "" for n in range(5)}
    files["train.csv"] = table("id,label", [f"{ids.format(n=n)},{lab(n)}" for n in range(12)])
    files["sample_submission.csv"] = table("id,label", [f"{n:05},cat" for n in range(5)])
    return files


def test_a_form_for_answers_is_no_table_of_labels(tmp_path: Path) -> None:
    with pytest.raises(GraftlineError, match=r"train\.csv has no column 'image'") as error:
        read(tmp_path, competition("{n:05}"))
    assert "`data.image_column: id`" in str(error.value)
    entries, source = read(tmp_path, {}, Columns("id"))
    assert {one.path: one.label for one in entries if one.problem is None} == {
        f"train/{n:05}.jpg": lab(n) for n in range(12)
    }
    assert any("a form for answers: 'sample_submission.csv'" in note for note in source.notes)


def test_zeros_that_a_spreadsheet_took_away_are_put_back(tmp_path: Path) -> None:
    files = {k: v for k, v in competition("{n}").items() if not k.startswith("test/")}
    entries, _ = read(tmp_path / "a", files, Columns("id"))
    assert {one.path: one.label for one in entries if one.problem is None} == {
        f"train/{n:05}.jpg": lab(n) for n in range(12)
    }
    # Where numbers have several widths, 7 may be another picture than 00007.
    with pytest.raises(GraftlineError, match="file not found"):
        read(tmp_path / "b", files | {"train/123.jpg": ""}, Columns("id"))


def test_several_kinds_of_names_stop_the_run_with_a_line_that_works(tmp_path: Path) -> None:
    """What trainval.txt says twice is not asked about."""
    with pytest.raises(GraftlineError, match="6 files that may state the labels") as error:
        read(tmp_path, aircraft("variant", "family"))
    line = re.findall(r"`data\.exclude: (\[[^`]+\])`", str(error.value))[0]
    entries, _ = read(tmp_path, {}, reading=Reading(exclude=tuple(yaml.safe_load(line))))
    assert classes(entries) == {f"{c} {s}": 4 for c in ("707", "A300", "DH-82") for s in SPLITS}


def same_names(first: str, second: str) -> Files:
    """A table of names alone, which two folders hold."""
    files: Files = {f"{folder}/{n}.jpg": "" for folder in (first, second) for n in range(12)}
    return files | {"labels.csv": table("image,label", [f"{n}.jpg,{lab(n)}" for n in range(12)])}


@pytest.mark.parametrize("folders", [("original", "small"), ("images", "thumbnails")])
def test_names_that_several_folders_hold_stop_the_run(
    folders: tuple[str, str], tmp_path: Path
) -> None:
    """The folders were taken for the classes."""
    with pytest.raises(GraftlineError, match="several files have the name") as error:
        read(tmp_path, same_names(*folders))
    line = re.findall(r"`data\.exclude: (\[[^`]+\])`", str(error.value))[0]
    entries, _ = read(tmp_path, {}, reading=Reading(exclude=tuple(yaml.safe_load(line))))
    assert classes(entries) == KINDS


def test_class_folders_that_number_alike_are_read_beside_their_table(tmp_path: Path) -> None:
    files: Files = {f"{c}/{n}.jpg": "" for c in PETS for n in range(4)}
    rows = [f"{n}.jpg,{c}" for c in PETS for n in range(4)]
    entries, source = read(tmp_path, files | {"labels.csv": table("image,label", rows)})
    assert classes(entries) == KINDS and source.format == "folders"


@pytest.mark.parametrize(
    "names", [("train.csv", "test.csv"), ("train_labels.csv", "test_labels.csv")]
)
@pytest.mark.parametrize("folder", ["", "csv/"])
def test_tables_of_splits_name_the_images_in_the_folder_of_their_split(
    names: tuple[str, str], folder: str, tmp_path: Path
) -> None:
    files: Files = {f"{s}/{n}.jpg": "" for s in ("train", "test") for n in range(12)}
    for k, name in enumerate(names):
        rows = [f"{n}.jpg,{lab(n + k)}" for n in range(12)]
        files[folder + name] = table("image,label", rows)
    entries, _ = read(tmp_path, files)
    found = {one.path: (one.label, one.split) for one in entries if one.problem is None}
    assert found == {
        f"{s}/{n}.jpg": (lab(n + k), s) for k, s in enumerate(("train", "test")) for n in range(12)
    }


def test_capitals_in_names_do_not_matter_where_one_image_fits(tmp_path: Path) -> None:
    rows = [f"img_{n}.jpg,{lab(n)}" for n in range(12)]
    files: Files = {f"images/IMG_{n}.JPG": "" for n in range(12)}
    files["t.csv"] = table("image,label", rows)
    assert classes(read(tmp_path / "a", files)[0]) == KINDS
    both = files | {f"images/Img_{n}.jpg": "" for n in range(12)}
    with pytest.raises(GraftlineError, match="several files have the name"):
        read(tmp_path / "b", both)


def test_the_lines_of_the_docs_for_mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are run as they stand, on files as MNIST's are made."""
    docs = Path(__file__).parents[4] / "docs" / "data.md"
    section = docs.read_text().split("### Arrays and MATLAB")[1].split("CIFAR-10's")[0]
    lines = [line[4:] for line in section.splitlines() if line.startswith("    ") or not line]
    (tmp_path / "raw").mkdir()
    for part, first in (("train", 0), ("t10k", 100)):
        pixels = bytes((first + n) % 256 for n in range(12) for _ in range(28 * 28))
        labels = bytes(n % 3 for n in range(12))
        for kind, head, data in (("images-idx3", 16, pixels), ("labels-idx1", 8, labels)):
            path = tmp_path / "raw" / f"{part}-{kind}-ubyte.gz"
            path.write_bytes(gzip.compress(b"\0" * head + data))
    monkeypatch.chdir(tmp_path)
    exec("\n".join(lines), {})
    entries, _ = read(tmp_path / "mnist", {})
    assert classes(entries) == {f"{k} {s}": 4 for k in "012" for s in ("train", "test")}
    with Image.open(tmp_path / "mnist" / "test" / "1" / "4.png") as image:
        assert image.size == (28, 28) and image.getextrema() == (104, 104)


@pytest.mark.parametrize("name", ["list_eval_partition.txt", "folds.txt", "data_split.txt"])
def test_numbers_of_splits_are_no_labels(name: str, tmp_path: Path) -> None:
    """0, 1 and 2 of CelebA's partition were taken for the classes."""
    lines = "\n".join(f"{n}.jpg {n % 3}" for n in range(12))
    with pytest.raises(GraftlineError, match="one label 'images'") as error:
        read(tmp_path / "a", FLAT | {name: lines})
    assert name in str(error.value)
    labels = "\n".join(f"{n}.jpg {lab(n)}" for n in range(12))
    entries, _ = read(tmp_path / "b", FLAT | {name: lines, "labels.txt": labels})
    assert classes(entries) == KINDS


def test_json_lines_may_be_called_json(tmp_path: Path) -> None:
    lines = (json.dumps({"image": f"{n}.jpg", "label": lab(n)}) for n in range(12))
    entries, _ = read(tmp_path, FLAT | {"labels.json": "\n".join(lines)})
    assert classes(entries) == KINDS


def test_paths_of_windows_are_found_by_their_end(tmp_path: Path) -> None:
    rows = [f"C:\\Users\\eve\\images\\{n}.jpg,{lab(n)}" for n in range(12)]
    entries, _ = read(tmp_path, FLAT | {"t.csv": table("image,label", rows)})
    assert classes(entries) == KINDS


def test_a_form_for_answers_alone_states_no_labels(tmp_path: Path) -> None:
    files: Files = {f"test/{n:05}.jpg": "" for n in range(12)}
    files["sample_submission.csv"] = table("image,label", [f"{n:05},{lab(n)}" for n in range(12)])
    with pytest.raises(GraftlineError, match="one label 'test'") as error:
        read(tmp_path, files)
    assert "a form for answers: 'sample_submission.csv'" in str(error.value)


WORDS = ("train", "Val", "TEST")


@pytest.mark.parametrize("name", ["partition.txt", "labels.txt", "labels.json"])
def test_train_and_test_are_no_labels_in_a_file(name: str, tmp_path: Path) -> None:
    """They were the classes where nothing else named any; now they are the splits."""
    said = {f"images/{n}.jpg": WORDS[n // 4] for n in range(12)}
    lines = "\n".join(f"{path} {word}" for path, word in said.items())
    files: Files = FLAT | {name: json.dumps(said) if name.endswith("json") else lines}
    with pytest.raises(GraftlineError, match="one label 'images'"):
        read(tmp_path / "a", files)
    flat = {f"{c}/{c}{n}.jpg": "" for c in PETS for n in range(6)}
    said = {path: ("train", "test")[n % 2] for n, path in enumerate(flat)}
    lines = "\n".join(f"{path} {word}" for path, word in said.items())
    entries, _ = read(
        tmp_path / "b", flat | {name: json.dumps(said) if name.endswith("json") else lines}
    )
    assert {one.path: one.split for one in entries if one.problem is None} == said


def test_train_and_test_are_no_labels_in_a_table(tmp_path: Path) -> None:
    rows = [f"images/{n}.jpg,{WORDS[n % 3]},{lab(n // 3)}" for n in range(12)]
    with pytest.raises(GraftlineError, match="holds the names of splits") as error:
        read(tmp_path, FLAT | {"t.csv": table("image,label,kind", rows)})
    assert "`data.split_column: label`" in str(error.value)
    entries, _ = read(tmp_path, {}, Columns(label="kind", split="label"))
    assert set(classes(entries)) == {f"{c} {s}" for c in PETS for s in SPLITS} | {
        f"cat {s}" for s in SPLITS
    }


def test_splits_in_a_file_of_words_are_obeyed_beside_labels(tmp_path: Path) -> None:
    labels = "\n".join(f"images/{n}.jpg {lab(n)}" for n in range(12))
    parts = "\n".join(f"images/{n}.jpg {WORDS[n // 4]}" for n in range(12))
    entries, _ = read(tmp_path, FLAT | {"labels.txt": labels, "partition.txt": parts})
    found = {one.path: (one.label, one.split) for one in entries if one.problem is None}
    assert found == {f"images/{n}.jpg": (lab(n), SPLITS[n // 4]) for n in range(12)}


def test_what_a_table_below_warns_of_is_said(tmp_path: Path) -> None:
    """A file of splits that cannot be read beside it."""
    labels = "\n".join(f"images/{n}.jpg {lab(n)}" for n in range(12))
    _, source = read(tmp_path, FLAT | {"labels.txt": labels, "split.mat": "MATLAB"})
    assert any("'split.mat' may state which split" in one for one in source.warnings)
