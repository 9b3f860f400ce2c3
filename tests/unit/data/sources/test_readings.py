"""How a source is read, through the step `ingest` whole: what a person would read, or a refusal."""

import io
import json
import random
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from graftline.data.snapshot import read_snapshot
from graftline.errors import ConfigurationError, DataError, GraftlineError
from graftline.steps.ingest.step import IngestResult, run


def picture(name: str) -> bytes:
    """A small picture that no other name has."""
    pixels = np.random.default_rng(list(name.encode())).integers(0, 256, (12, 10, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def write(root: Path, *folders: str, each: int = 4) -> None:
    """Pictures in folders; a name with a suffix is one file."""
    for folder in folders:
        names = [folder] if "." in folder.rpartition("/")[2] else []
        for name in names or [f"{folder}/{n}.png" for n in range(each)]:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(picture(name) if name.endswith("png") else b"text")


def below(tops: str, *subs: str) -> list[str]:
    return [f"{top}/{sub}" for top in tops.split() for sub in subs]


@pytest.fixture
def ingest(tmp_path: Path) -> Callable[..., IngestResult]:
    def call(source: Path | None = None, **options: Any) -> IngestResult:
        options.setdefault("store", str(tmp_path / "store"))
        options.setdefault("near_duplicates", "off")
        source = source or tmp_path / "x"
        return run(source=str(source), snapshot_folder=tmp_path / "snapshot", **options)

    return call


def rows(tmp_path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = read_snapshot(tmp_path / "snapshot").manifest.to_pylist()
    return found


# -- folders --------------------------------------------------------------------------------------

THREE = ("train", "val", "test")


@pytest.mark.parametrize(
    ("folders", "layout", "splits"),
    [
        (below("train val test", "cat", "dog"), "split/class", THREE),
        (below("training_set validation_set test_set", "cat", "dog"), "split/class", THREE),
        (below("train validate test", "cat", "dog"), "split/class", THREE),
        (below("train val holdout", "cat", "dog"), "split/class", THREE),
        (below("Train Valid Test", "cat", "dog"), "split/class", THREE),
        (below("data/train data/val data/test", "cat", "dog"), "*/split/class", THREE),
        (below("cat dog", "train", "val", "test"), "class/split", THREE),
        (
            [*below("seg_train/seg_train seg_test/seg_test", "a", "b"), "seg_pred"],
            "split/*/class",
            ("train", "test"),
        ),
        (below("train eval", "cat", "dog"), "split/class", ("train", "test")),
        (below("train val", "cat", "dog"), "split/class", ("train", "val")),
        ([*below("train", "cat", "dog"), "test"], "split/class", ("train",)),
        (below("train val test", "p01/cat", "p02/cat", "p01/dog"), "split/group/class", THREE),
        (below("dataset", "cat", "dog"), "*/class", ()),
        (["cat", "dog/day 1", "dog/day 2"], "class", ()),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else None,
)
def test_layouts_that_a_person_reads(
    folders: list[str], layout: str, splits: tuple[str, ...], ingest, tmp_path: Path
) -> None:
    """With folders beside them that hold no data, whose pictures are counted."""
    write(tmp_path / "x", *folders, each=8)
    write(tmp_path / "x", ".git/1.png", ".ipynb_checkpoints/1.png", "__MACOSX/cat/1.png")
    write(tmp_path / "x", "docs/figure.png", "annotations/1.xml", "README.md")
    result = ingest()
    assert result.reading["layout"] == layout
    assert f"read as {layout}" in result.reading["notes"][0] and result.reading["tree"]
    labels = {"a", "b"} if layout == "split/*/class" else {"cat", "dog"}
    assert set(result.classes) == labels and all(result.images.values())
    words = {"eval": "test", "holdout": "test", "validate": "val", "valid": "val"}
    for row in rows(tmp_path):
        parts = row["source"].split("/")
        assert row["label"] in parts[:-1]
        stated = {words.get(w, w) for p in parts for w in p.lower().replace("_", " ").split()}
        stated = {"val" if word == "validation" else word for word in stated}
        stated = {"train" if word == "training" else word for word in stated} & set(THREE)
        if splits and len(splits) == 3:
            assert {row["split"]} == stated
        elif stated and "train" not in stated:
            assert {row["split"]} == stated  # what is missing comes out of train only
    assert set(result.reading["carved"]) == (set(THREE) - set(splits) if splits else set())
    taken = sum(result.images.values())
    files = sum(1 for path in (tmp_path / "x").rglob("*") if path.is_file())
    assert taken + sum(result.set_aside.values()) == files


@pytest.mark.parametrize(
    "folders",
    [
        below("patient_1 patient_2 patient_3 patient_4 patient_5 patient_6", "benign", "malign"),
        [f"siteA/p{n}/{c}" for n in range(5) for c in ("benign", "malign")]
        + [f"siteB/p{n}/{c}" for n in range(5, 9) for c in ("benign", "malign")],
        below("fold1 fold2 fold3 fold4 fold5", "benign", "malign"),
    ],
)
def test_patients_sites_and_folds_are_groups(folders: list[str], ingest, tmp_path: Path) -> None:
    write(tmp_path / "x", *folders)
    result = ingest()
    assert result.classes == ["benign", "malign"]
    sides: dict[str, set[str]] = {}
    for row in rows(tmp_path):
        assert row["source"].startswith(row["group"] + "/")
        sides.setdefault(row["group"], set()).add(row["split"])
    assert all(len(split) == 1 for split in sides.values()) and len(sides) >= 5


@pytest.mark.parametrize(
    ("folders", "lines"),
    [
        (below("north south east west", "cat", "dog"), ["class", "group/class"]),
        (below("001 002 003", "cat", "dog"), ["class", "group/class"]),
        (below("train test extra", "cat", "dog"), ["split/class", "*/class"]),
        ([*below("pets", "cat", "dog"), *below("farm", "cow", "pig")], ["class", "*/class"]),
        (below("house_cat house_martin", "male", "female"), ["class"]),
    ],
)
def test_two_readings_stop_the_run_and_each_can_be_selected(
    folders: list[str], lines: list[str], ingest, tmp_path: Path
) -> None:
    write(tmp_path / "x", *folders, each=8)
    with pytest.raises(DataError, match="two ways") as caught:
        ingest()
    assert not (tmp_path / "snapshot").exists()
    for line in lines:
        assert f'data.layout: "{line}"' in str(caught.value)
        result = ingest(layout=line, store=str(tmp_path / line.replace("/", "-")))
        assert result.reading["layout"] == line
        level = line.split("/").index("class")
        assert all(row["label"] == row["source"].split("/")[level] for row in rows(tmp_path))


@pytest.mark.parametrize("names", [("test", "train"), ("testA", "trainA", "trainB")])
def test_split_folders_without_classes_are_no_classes(
    names: tuple[str, ...], ingest, tmp_path: Path
) -> None:
    write(tmp_path / "x", *names)
    with pytest.raises(DataError, match="without class folders"):
        ingest()
    assert ingest(layout="class").classes == list(names)


def test_documents_that_may_be_a_class_are_asked_for(ingest, tmp_path: Path) -> None:
    write(tmp_path / "x", "cat", "dog", "docs")
    with pytest.raises(DataError, match=r"data\.exclude: \[docs\]"):
        ingest()
    assert ingest(layout="class").classes == ["cat", "docs", "dog"]
    result = ingest(exclude=["docs"])
    assert result.classes == ["cat", "dog"]
    assert result.set_aside == {"excluded by data.exclude": 4}


def test_masks_are_no_pictures_of_the_class(ingest, tmp_path: Path) -> None:
    write(tmp_path / "x", *below("benign malign", "images", "masks"))
    write(tmp_path / "x", "benign/images/0_mask.png", "malign/images/1_mask_1.png")
    result = ingest()
    assert result.per_class == {"benign": 4, "malign": 4}
    assert result.set_aside == {"mask, not a picture of the class": 10}
    write(tmp_path / "y", *below("images masks", "benign", "malign"))
    assert ingest(tmp_path / "y").per_class == {"benign": 4, "malign": 4}
    write(tmp_path / "z", "mask", "no_mask")
    assert ingest(tmp_path / "z").classes == ["mask", "no_mask"]


def test_folders_that_come_to_look_otherwise_stop_the_next_run(ingest, tmp_path: Path) -> None:
    write(tmp_path / "x", *below("cam1 cam2 cam3 cam4 cam5", "street", "park"))
    assert ingest().reading["layout"] == "group/class"
    write(tmp_path / "x", *below("car bus", "street", "park"))
    with pytest.raises(DataError) as caught:
        ingest()
    assert "group/class" in str(caught.value) and "data.layout" in str(caught.value)
    assert ingest(layout="group/class").classes == ["park", "street"]


@pytest.mark.parametrize("layout", ["classes", "split", "class/class", "split/split/class", ""])
def test_layout_that_cannot_be(layout: str, ingest, tmp_path: Path) -> None:
    write(tmp_path / "x", "cat", "dog")
    with pytest.raises(ConfigurationError, match=r"data\.layout"):
        ingest(layout=layout)


# -- splits that are not complete -----------------------------------------------------------------


def test_missing_split_is_taken_out_of_train_by_groups_and_stays(ingest, tmp_path: Path) -> None:
    write(tmp_path / "x", *below("train", *(f"p{n}/{c}" for n in range(9) for c in "ab")))
    write(tmp_path / "x", *below("val", *(f"p{n}/{c}" for n in (10, 11) for c in "ab")))
    result = ingest()
    assert any("no test images" in warning for warning in result.warnings)
    before = {row["image_id"]: (row["split"], row["group"]) for row in rows(tmp_path)}
    source = {row["image_id"]: row["source"] for row in rows(tmp_path)}
    test = {group for split, group in before.values() if split == "test"}
    assert test and test.isdisjoint(
        group
        for i, (split, group) in before.items()
        if source[i].startswith("train") and split == "train"
    )
    assert all(before[i][0] == "val" for i in before if source[i].startswith("val"))
    assert ingest().snapshot_id == result.snapshot_id
    write(tmp_path / "x", "train/p3/a/new.png")
    ingest()
    after = {row["image_id"]: (row["split"], row["group"]) for row in rows(tmp_path)}
    assert before.items() <= after.items()
    with pytest.raises(DataError, match="none is in test"):
        ingest(missing_splits="refuse", store=str(tmp_path / "other"))


def test_splits_that_are_not_read_are_a_warning_of_the_run(ingest, tmp_path: Path) -> None:
    write(tmp_path / "x", "a", "b", "setid_split.mat", each=8)
    assert any("setid_split.mat" in warning for warning in ingest().warnings)
    (tmp_path / "x" / "test.txt").write_text("a/0.png\nb/0.png\n")
    result = ingest(store=str(tmp_path / "other"))
    tested = {row["source"] for row in rows(tmp_path) if row["split"] == "test"}
    assert tested == {"a/0.png", "b/0.png"} and result.reading["carved"] == ["val"]


def test_splits_that_no_later_step_could_use_are_refused(ingest, tmp_path: Path) -> None:
    write(tmp_path / "x", *below("train val", "a", "b"), "test/a")
    with pytest.raises(DataError, match="All test images are of the one class 'a'"):
        ingest()
    write(tmp_path / "y", *below("train val test", "a", "b"), "test/c")
    with pytest.raises(DataError, match="No image to train on in 'c'"):
        ingest(tmp_path / "y")


# -- labels that look the same --------------------------------------------------------------------


def test_labels_that_look_the_same(ingest, tmp_path: Path) -> None:
    write(tmp_path / "x", "K\u00e4se", "Ka\u0308se", "dog", "dog\u200b", each=3)
    result = ingest()
    assert result.per_class == {"Käse": 6, "dog": 6}
    assert sum("invisible" in note for note in result.reading["notes"]) == 2
    with pytest.raises(DataError, match=r"Ka\\u0308se"):
        ingest(similar_labels="refuse")
    write(tmp_path / "x", "Dog", each=3)
    with pytest.raises(DataError, match=r"data\.similar_labels"):
        ingest()
    assert ingest(similar_labels="merge").per_class == {"Käse": 6, "dog": 9}
    assert ingest(similar_labels="keep").per_class == {"Dog": 3, "Käse": 6, "dog": 6}


# -- tables ---------------------------------------------------------------------------------------


def table(root: Path, text: str, name: str = "t.csv") -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


def lines(*rows_of: tuple[Any, ...]) -> str:
    return "\n".join(",".join(map(str, row)) for row in rows_of)


def test_stray_table_does_not_change_the_reading(ingest, tmp_path: Path) -> None:
    write(tmp_path / "x", "a", "b", "c", each=20)
    named = [(f"{'ab'[n % 2]}/{n}.png", "ab"[n % 2]) for n in range(8)]
    table(tmp_path / "x", lines(("image", "label"), *named))
    result = ingest()
    assert result.per_class == {"a": 20, "b": 20, "c": 20}
    assert any("8 of 60" in note for note in result.reading["notes"])
    result = ingest(format="table")
    assert result.per_class == {"a": 4, "b": 4} and result.set_aside == {"not in the table": 52}
    table(tmp_path / "x", lines(("image", "label"), *((name, "q" + x) for name, x in named)))
    with pytest.raises(DataError, match=r"(?s)two ways.*data\.format: table.*folders"):
        ingest()


def test_stray_archive_does_not_change_the_reading(ingest, tmp_path: Path) -> None:
    write(tmp_path / "x", "a", "b")
    shard(tmp_path / "x/backup.tar", samples())
    with pytest.raises(DataError, match=r"(?s)two ways.*data\.format: shards.*folders"):
        ingest()
    result = ingest(format="folders")
    assert result.per_class == {"a": 4, "b": 4} and result.set_aside == {"not an image file": 1}


def test_column_that_is_named_and_is_nowhere_is_an_error(ingest, tmp_path: Path) -> None:
    write(tmp_path / "x", "a", "b")
    with pytest.raises(ConfigurationError, match=r"data\.group_column"):
        ingest(group_column="patient")
    table(tmp_path / "x", "image,label\na/0.png,a\n")
    with pytest.raises(ConfigurationError, match="no column 'diagnosis'"):
        ingest(label_column="diagnosis")


def test_table_of_unknown_columns_is_not_passed_over(ingest, tmp_path: Path) -> None:
    write(tmp_path / "x", "ward a", "ward b", each=12)
    told = [(f"{w}/{n}.png", n % 2) for w in ("ward a", "ward b") for n in range(12)]
    table(tmp_path / "x", lines(("file", "Diagnosis"), *told))
    with pytest.raises(DataError, match=r"(?s)two ways.*no columns 'image' and 'label'"):
        ingest()
    result = ingest(image_column="file", label_column="Diagnosis")
    assert result.per_class == {"0": 12, "1": 12}
    # An index of what the folders say anyway, as many published data sets have it.
    table(tmp_path / "x", lines(("file", "kind"), *((n, n.split("/")[0]) for n, _ in told)))
    assert ingest(store=str(tmp_path / "s")).classes == ["ward a", "ward b"]


def test_tables_of_each_split_are_one(ingest, tmp_path: Path) -> None:
    write(tmp_path / "x", "images", each=18)
    for number, split in enumerate(THREE):
        told = [(f"images/{n}.png", "ab"[n % 2]) for n in range(number * 6, number * 6 + 6)]
        table(tmp_path / "x", lines(("image", "label"), *told), f"{split}.csv")
    result = ingest()
    assert result.images == dict.fromkeys(THREE, 6) and result.per_class == {"a": 9, "b": 9}


@pytest.mark.parametrize("name", ["Split", "SPLIT", "subset"])
def test_column_of_splits_with_another_name_is_asked_for(name: str, ingest, tmp_path: Path) -> None:
    write(tmp_path / "x", "images", each=12)
    told = [(f"images/{n}.png", "ab"[n % 2], THREE[n // 4]) for n in range(12)]
    table(tmp_path / "x", lines(("image", "label", name), *told))
    with pytest.raises(ConfigurationError, match=f"data.split_column: {name}"):
        ingest(tmp_path / "x/t.csv")
    assert ingest(tmp_path / "x/t.csv", split_column=name).images == dict.fromkeys(THREE, 4)
    assert ingest(tmp_path / "x/t.csv", split_column=None, store=str(tmp_path / "s")).images
    with pytest.raises(ConfigurationError, match="no column 'sett'"):
        ingest(tmp_path / "x/t.csv", split_column="sett")


def test_odd_rows_are_rejected_with_their_line(ingest, tmp_path: Path) -> None:
    write(tmp_path / "x", "images", each=12)
    told = [(f"images/{n}.png", "ab"[n % 2]) for n in range(12)]
    odd = ["gs://bucket/1.png", "https://host/1.png", "data:image/png;base64\\,AAAA" * 20000]
    odd += ["http://[::1/1.png", "file://[b/1.png", "file://host/1.png", "s3://[b/1.png"]
    odd += ["d" * 300 + "/1.png", "C:\\photos\\1.png", "s3://", "nul\0/1.png", "x/" * 900 + "1.png"]
    text = lines(("image", "label"), *told, *((f'"{name}"', "a") for name in odd))
    table(tmp_path / "x", text.replace("\\,", ","))
    result = ingest(tmp_path / "x/t.csv")
    assert sum(result.images.values()) == 12 and sum(result.set_aside.values()) == len(odd)
    aside = read_snapshot(tmp_path / "snapshot").set_aside.to_pylist()
    assert all(len(row["source"]) < 130 and len(row["reason"]) < 130 for row in aside)
    assert sum("line " in row["source"] for row in aside) >= len(odd) - 1
    assert sum("cannot be read (gs://)" in row["reason"] for row in aside) == 1


def test_backslashes_of_windows_are_slashes(ingest, tmp_path: Path) -> None:
    write(tmp_path / "x", "images", each=12)
    told = [(f"images\\{n}.png", "ab"[n % 2]) for n in range(12)]
    table(tmp_path / "x", lines(("image", "label"), *told))
    assert ingest(tmp_path / "x/t.csv").per_class == {"a": 6, "b": 6}


def test_json_lines_with_odd_lines(ingest, tmp_path: Path) -> None:
    write(tmp_path / "x", "images", each=14)
    told = [json.dumps({"image": f"images/{n}.png", "label": n % 2}) for n in range(12)]
    told += ["{", json.dumps({"image": "images/12.png", "label": [0]}), json.dumps(["a"])]
    table(tmp_path / "x", "\n".join(told), "t.jsonl")
    result = ingest(tmp_path / "x/t.jsonl")
    assert result.per_class == {"0": 6, "1": 6}
    assert result.set_aside == {"label is a list, not a text": 1, "not a JSON object": 2}


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize("nested", [False, True])
def test_metadata_as_image_folder_has_it(kind: str, nested: bool, ingest, tmp_path: Path) -> None:
    for split in THREE if nested else [""]:
        root = tmp_path / "x" / split
        write(root, *(f"{n}{split}.png" for n in range(6)), "other.png")
        told = [{"file_name": f"{n}{split}.png", "label": "ab"[n % 2]} for n in range(6)]
        text = "\n".join(map(json.dumps, told))
        if kind == "csv":
            text = lines(("file_name", "label"), *(row.values() for row in told))
        table(root, text, f"metadata.{kind}")
    result = ingest()
    assert result.set_aside["not in the table"] in (1, 3) or "exact duplicate" in result.set_aside
    assert result.per_class == ({"a": 9, "b": 9} if nested else {"a": 3, "b": 3})
    if nested:
        assert result.images == dict.fromkeys(THREE, 6)


def parquet(path: Path, rows_of: list[dict[str, Any]], names: list[str] | None = None) -> None:
    """As `datasets.Dataset.to_parquet` writes a table of Image and ClassLabel."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    found = pa.Table.from_pylist(rows_of)
    if names:
        features = {
            "image": {"_type": "Image"},
            "label": {"names": names, "_type": "ClassLabel"},
        }
        kept = {"huggingface": json.dumps({"info": {"features": features}})}
        found = found.replace_schema_metadata(kept)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(found, path)


def test_parquet_with_bytes_and_class_names(ingest, tmp_path: Path) -> None:
    for split in THREE:
        found: list[dict[str, Any]] = [
            {"image": {"bytes": picture(f"{split}{n}"), "path": f"{n}.png"}, "label": n % 2}
            for n in range(6)
        ]
        found.append({"image": {"bytes": picture(f"{split}u"), "path": None}, "label": -1})
        parquet(tmp_path / "x/data" / f"{split}-00000-of-00001.parquet", found, ["cat", "dog"])
    write(tmp_path / "x", "README.md")
    result = ingest()
    assert result.per_class == {"cat": 9, "dog": 9} and result.images == dict.fromkeys(THREE, 6)
    assert result.set_aside == {"no label": 3, "not in the table": 1}
    again = ingest()
    assert again.fetched == 0 and again.snapshot_id == result.snapshot_id
    one = ingest(tmp_path / "x/data/train-00000-of-00001.parquet", min_images_per_class=1)
    assert sum(one.images.values()) == 6


def test_parquet_with_paths(ingest, tmp_path: Path) -> None:
    write(tmp_path / "x", "images", each=12)
    found = [{"image": f"images/{n}.png", "label": "ab"[n % 2]} for n in range(12)]
    parquet(tmp_path / "x/t.parquet", found)
    assert ingest(tmp_path / "x/t.parquet").per_class == {"a": 6, "b": 6}
    parquet(
        tmp_path / "x/t.parquet", [{"image": row["image"], "Label": row["label"]} for row in found]
    )
    with pytest.raises(ConfigurationError, match=r"data\.label_column: Label"):
        ingest(tmp_path / "x/t.parquet")


# -- shards ---------------------------------------------------------------------------------------


def shard(path: Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def samples(count: int = 12, start: str = "") -> dict[str, bytes]:
    members = {}
    for n in range(count):
        members[f"{start}{n:03}.png"] = picture(f"{start}{n}")
        members[f"{start}{n:03}.cls"] = b"ab"[n % 2 : n % 2 + 1]
    return members


@pytest.mark.parametrize(
    ("more", "seen"),
    [
        ({"site/900.png": b"p", "site/900.class": b"a"}, ".class"),
        ({"site/900.png": b"p", "site/900.json": b'{"label": [0]}'}, "'label' holds a list"),
        ({"site/900.png": b"p", "site/900.json": b'{"diagnosis": "benign"}'}, "diagnosis"),
        ({"site/900.png": b"p", "site/900.cls": "Käse".encode("latin-1")}, "0xe4"),
        ({"site/900.png": b"p", "site/900.v2.cls": b"a"}, ".v2.cls"),
        ({"site/900.png": b"p", "site/901.png": b"q", "site/900.cls": b"a"}, "neighbours"),
        ({"site/900.png": b"p", "site/900.json": b"{"}, "no JSON object"),
    ],
)
def test_label_that_is_there_and_not_understood_stops_the_run(
    more: dict[str, bytes], seen: str, ingest, tmp_path: Path
) -> None:
    shard(tmp_path / "x/0.tar", {**samples(), **more})
    with pytest.raises(DataError) as caught:
        ingest()
    assert "900" in str(caught.value) and seen in str(caught.value)


def test_wrong_label_column_of_shards_names_the_keys_seen(ingest, tmp_path: Path) -> None:
    members: dict[str, bytes] = {}
    for n in range(12):
        members[f"s/{n}.png"] = picture(str(n))
        members[f"s/{n}.json"] = json.dumps({"kind": "ab"[n % 2], "width": 3}).encode()
    shard(tmp_path / "x/0.tar", members)
    for column in ("label", "knid"):
        with pytest.raises(DataError, match="kind") as caught:
            ingest(label_column=column)
        assert column in str(caught.value) and "data.label_column" in str(caught.value)
    assert ingest(label_column="kind").per_class == {"a": 6, "b": 6}


def test_names_with_dots_have_labels_of_their_own(ingest, tmp_path: Path) -> None:
    shard(tmp_path / "x/0.tar", samples(start="frame.v1."))
    result = ingest()
    assert result.per_class == {"a": 6, "b": 6} and result.groups == 12


def test_splits_in_the_names_of_shards_are_obeyed(ingest, tmp_path: Path) -> None:
    for split in THREE:
        shard(tmp_path / "x" / f"{split}-000.tar", samples(6, split))
    result = ingest()
    assert result.images == dict.fromkeys(THREE, 6)
    assert all(row["source"].startswith(row["split"]) for row in rows(tmp_path))
    for split in THREE:
        shard(tmp_path / "y" / split / "000.tar", samples(6, split))
    assert ingest(tmp_path / "y").images == dict.fromkeys(THREE, 6)


def test_views_of_one_sample_are_one_group_and_its_mask_is_no_picture(
    ingest, tmp_path: Path
) -> None:
    members: dict[str, bytes] = {}
    for n in range(12):
        members[f"{n}.left.png"] = picture(f"{n}l")
        members[f"{n}.right.png"] = picture(f"{n}r")
        members[f"{n}.mask.png"] = picture(f"{n}m")
        members[f"{n}.cls"] = b"ab"[n % 2 : n % 2 + 1]
    shard(tmp_path / "x/0.tar", members)
    result = ingest()
    assert result.per_class == {"a": 12, "b": 12} and result.groups == 12
    assert result.set_aside == {"mask, not a picture of the class": 12}
    sides: dict[str, set[str]] = {}
    for row in rows(tmp_path):
        sides.setdefault(row["source"].split(".")[1].split("#")[-1], set()).add(row["split"])
    assert all(len(split) == 1 for split in sides.values())


def test_folders_packed_into_shards_are_read_like_folders(ingest, tmp_path: Path) -> None:
    def packed(name: str, folders: list[str]) -> None:
        shard(
            tmp_path / name / "0.tar",
            {f"{f}/{n}.png": picture(f"{f}{n}") for f in folders for n in range(6)},
        )

    packed("x", below("cat dog", "day1", "day2"))
    assert ingest().classes == ["cat", "dog"]
    packed("y", below("p1 p2 p3 p4 p5", "cat", "dog"))
    assert ingest(tmp_path / "y").groups == 5
    packed("z", below("north south", "cat", "dog"))
    with pytest.raises(DataError, match="two ways"):
        ingest(tmp_path / "z")
    assert ingest(tmp_path / "z", layout="class").classes == ["north", "south"]


# -- whatever people call their folders -----------------------------------------------------------


def test_nothing_of_a_thousand_random_names_ends_in_a_traceback(tmp_path: Path) -> None:
    from graftline.data.sources.layouts.decision import decide

    generator = random.Random(0)
    words = ["train", "val", "test", "cat", "dog", "p1", "p2", "masks", "images", "docs", "é", "1"]
    for _ in range(3000):
        counts = {
            tuple(generator.choices(words, k=generator.randint(0, 4))): generator.randint(1, 9)
            for _ in range(generator.randint(1, 9))
        }
        try:
            layout = decide(counts, "x")
        except GraftlineError as error:
            assert "data.layout" in str(error) or "data.exclude" in str(error)
            continue
        for folders in counts:
            place = layout.meaning(folders)
            assert place.problem or place.label in folders
        layout.tree(counts)


@pytest.mark.parametrize("ends", [("", "_rot90"), ("_left", "_right")])
def test_views_in_an_archive_are_one_group(ends: tuple[str, str], ingest, tmp_path: Path) -> None:
    """By their names, and by the folders below a class: as outside of an archive."""
    names = [f"{c}/{n}{end}.png" for c in ("cat", "dog") for n in range(9) for end in ends]
    shard(tmp_path / "x/a.tar", {name: picture(name) for name in names})
    result = ingest()
    assert result.groups == 18 and result.per_class == {"cat": 18, "dog": 18}
    deep = [f"{c}/{v}/{n}.png" for c in ("cat", "dog") for v in ("HR", "LR") for n in range(9)]
    shard(tmp_path / "y/a.tar", {name: picture(name) for name in deep})
    result = ingest(tmp_path / "y")
    assert result.groups == 18 and result.per_class == {"cat": 18, "dog": 18}
    sides: dict[str, set[str]] = {}
    for row in rows(tmp_path):
        sides.setdefault(row["group"], set()).add(row["split"])
    assert all(len(splits) == 1 for splits in sides.values())
