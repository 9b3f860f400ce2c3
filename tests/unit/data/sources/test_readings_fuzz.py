"""Random trees, tables and shards: each image is taken as a person reads it, counted, or refused.

The judge knows how a data set was made: which label, split and group its maker meant for each
picture. It shares no code with what reads them.
"""

import io
import json
import shutil
import tarfile
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from graftline.data.snapshot import read_snapshot
from graftline.errors import GraftlineError
from graftline.steps.ingest.step import run

CLASSES = ["cat", "dog", "cow", "Käse", "n01440764", "class 7", "no_mask", "mask", "plane", "trunk"]
TRAIN = ["train", "Training", "training_set", "seg_train"]
VAL = ["val", "valid", "validation", "dev", "validate"]
TEST = ["test", "Test", "test_set", "holdout", "seg_test"]
WHO = [
    ["patient1", "patient2", "patient3", "patient4"],
    ["site_a", "site_b", "site_c"],
    ["fold1", "fold2", "fold3", "fold4", "fold5"],
    ["2024-01-05", "2024-02-11", "2024-03-30"],
    ["north", "south", "east"],
    ["001", "002", "003", "004"],
]
JUNK = [
    *(".git/x.png", ".ipynb_checkpoints/1.png", "__MACOSX/cat/1.png", "README.md", "notes.txt"),
    *(
        "docs/figure.png",
        "annotations/1.xml",
        "stray.png",
        "Thumbs.db",
        ".DS_Store",
        "labels/1.txt",
    ),
]


@dataclass
class Made:
    """A data set, and what its maker meant: by file name (label, split or None)."""

    files: dict[str, bytes] = field(default_factory=dict)
    meant: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)
    counter: int = 0

    def picture(self) -> bytes:
        self.counter += 1
        pixels = np.random.default_rng(self.counter).integers(0, 256, (6, 5, 3), np.uint8)
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "PNG")
        return stream.getvalue()

    def add(self, name: str, label: str, split: str | None, group: str | None = None) -> None:
        self.files[name] = self.picture()
        self.meant[name] = (label, split)
        if group is not None:
            self.groups[name] = group


@st.composite
def trees(draw: st.DrawFn) -> Made:
    """Folders in the ways people make them, with what lies about beside them."""
    made = Made()
    classes = draw(st.lists(st.sampled_from(CLASSES), min_size=2, max_size=4, unique=True))
    split_names = {"train": draw(st.sampled_from(TRAIN))}
    if draw(st.booleans()):
        split_names["val"] = draw(st.sampled_from(VAL))
    if draw(st.booleans()) or "val" not in split_names:
        split_names["test"] = draw(st.sampled_from(TEST))
    who = draw(st.sampled_from(WHO))
    levels = draw(
        st.sampled_from(
            [
                *(["class"], ["split", "class"], ["class", "split"], ["who", "class"]),
                *(["wrap", "class"], ["wrap", "split", "class"], ["split", "who", "class"]),
                *(["class", "free"], ["split", "class", "free"], ["wrap", "who", "class"]),
            ]
        )
    )
    free = draw(st.sampled_from([["images"], ["a", "b"], ["day1", "day2"], ["front", "back"]]))
    combos: list[dict[str, str]] = [{}]
    for level in levels:
        values = {"class": classes, "split": list(split_names), "who": who, "wrap": ["my data"]}
        values["free"] = free
        combos = [{**one, level: value} for one in combos for value in values[level]]
    each = draw(st.integers(1, 3)) if len(combos) > 12 else draw(st.integers(2, 5))
    for combo in combos:
        parts = [split_names[combo[n]] if n == "split" else combo[n] for n in levels]
        for n in range(each):
            name = "/".join([*parts, f"{n}.png"])
            made.add(name, combo["class"], combo.get("split"), combo.get("who"))
    for name in draw(st.lists(st.sampled_from(JUNK), max_size=4, unique=True)):
        made.files[name] = made.picture() if name.endswith("png") else b"x"
    return made


@st.composite
def tables(draw: st.DrawFn) -> Made:
    """Tables beside pictures, some of their rows odd."""
    made = Made()
    classes = draw(st.lists(st.sampled_from(CLASSES), min_size=2, max_size=3, unique=True))
    kind = draw(st.sampled_from(["t.csv", "t.jsonl", "metadata.csv", "metadata.jsonl"]))
    image = "file_name" if kind.startswith("metadata") else "image"
    split_column = draw(st.sampled_from([None, None, "split", "Split", "subset"]))
    folder = draw(st.sampled_from(["images", "", "by class"]))
    rows: list[dict[str, Any]] = []
    for n in range(draw(st.integers(9, 24))):
        label = classes[n % len(classes)]
        inside = f"by class/{label}" if folder == "by class" else folder
        name = f"{inside}/{n}.png".lstrip("/")
        split = ["train", "val", "test"][n // len(classes) % 3] if split_column else None
        made.add(name, label, split)
        rows.append({image: name, "label": label, **({split_column: split} if split else {})})
    odd = ["gs://b/1.png", "https://h/1.png", "data:image/png;base64,A", "d" * 300 + "/1.png", ""]
    for name in draw(st.lists(st.sampled_from(odd), max_size=3, unique=True)):
        rows.append({**rows[0], image: name})
    for n in range(draw(st.integers(0, 3))):
        made.files[f"more/{n}.png"] = made.picture()
    if kind.endswith("csv"):
        text = "\n".join(
            ",".join(map(str, one)) for one in [rows[0].keys(), *(r.values() for r in rows)]
        )
    else:
        text = "\n".join(json.dumps(row) for row in rows)
    made.files[kind] = text.encode()
    return made


@st.composite
def shards(draw: st.DrawFn) -> Made:
    """Tar shards whose labels stand in all the places where people put them."""
    made = Made()
    classes = draw(st.lists(st.sampled_from(CLASSES), min_size=2, max_size=3, unique=True))
    form = draw(
        st.sampled_from(["cls", "txt", "class", "json", "list", "kind", "latin", "folder", "apart"])
    )
    names = draw(st.sampled_from([["0.tar", "1.tar"], ["train-0.tar", "val-0.tar", "test-0.tar"]]))
    prefix = draw(st.sampled_from(["", "ward/", "ward/", "v1.0-"]))
    views = draw(st.sampled_from([[""], [".left", ".right"], ["", ".mask"]]))
    for number, archive in enumerate(names):
        members: list[tuple[str, bytes]] = []
        late: list[tuple[str, bytes]] = []
        for n in range(4 * len(classes)):
            label = classes[n % len(classes)]
            key = f"{prefix.replace('/', f' {n % 3}/')}{n:03}"  # folders that are no labels
            key = key if form != "folder" else f"{label}/{n:03}"
            split = archive.partition("-")[0] if "-" in archive else None
            for view in views:
                name = f"{archive}#{key}{view}.png"
                data = made.picture()
                members.append((f"{key}{view}.png", data))
                if view != ".mask":
                    made.meant[name] = (label, split)
                    made.groups[name] = f"{number}{n}"
            note = {
                "json": json.dumps({"label": label}).encode(),
                "list": json.dumps({"label": [label]}).encode(),
                "kind": json.dumps({"kind": label}).encode(),
                "latin": label.encode("latin-1"),
            }.get(form, label.encode())
            end = {"list": "json", "kind": "json", "latin": "cls", "apart": "cls"}.get(form, form)
            if form != "folder":
                (late if form == "apart" else members).append((f"{key}.{end}", note))
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as tar:
            for name, data in [*members, *late]:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        made.files[archive] = stream.getvalue()
    return made


def judge(made: Made, folder: Path) -> str:
    """Ingest it, and compare with what was meant; says how it ended."""
    for name, data in made.files.items():
        (folder / "x" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "x" / name).write_bytes(data)
    try:
        result = run(
            source=str(folder / "x"),
            store=str(folder / "store"),
            snapshot_folder=folder / "snapshot",
            near_duplicates=None,
            min_images_per_class=1,
        )
    except GraftlineError as error:
        assert error.fix and len(error.what) < 500, error
        return "refused"
    snapshot = read_snapshot(folder / "snapshot")
    sides: dict[str, set[str]] = {}
    for row in snapshot.manifest.to_pylist():
        name = row["source"]
        assert name in made.meant, f"{name} was no picture of anything: {result.reading}"
        label, split = made.meant[name]
        assert row["label"] == label, (name, row["label"], result.reading)
        if split is not None and split != "train":
            assert row["split"] == split, (name, row["split"], result.reading)
        if split == "train":
            assert row["split"] in ("train", *result.reading["carved"]), (name, result.reading)
        if name in made.groups:
            sides.setdefault(made.groups[name], set()).add(row["split"] if split is None else "")
    assert all(len(side) == 1 for side in sides.values()), (sides, result.reading)
    counted = {row["source"] for row in snapshot.set_aside.to_pylist()}
    taken = {row["source"] for row in snapshot.manifest.to_pylist()}
    pictures = {name for name in made.files if name.endswith(".png")} | set(made.meant)
    assert pictures - taken <= counted, (pictures - taken - counted, result.reading)
    return "taken"


def check(made: Made) -> None:
    folder = Path(tempfile.mkdtemp(prefix="graftline-fuzz-"))
    try:
        judge(made, folder)
    finally:
        shutil.rmtree(folder)


QUICK = settings(
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
LONG = settings(QUICK, max_examples=400, derandomize=False)


@pytest.mark.parametrize(("kind", "examples"), [(trees, 12), (tables, 12), (shards, 16)])
def test_each_image_is_taken_as_meant_or_counted_or_refused(kind: Any, examples: int) -> None:
    settings(QUICK, max_examples=examples)(given(kind())(check))()


@pytest.mark.slow
@pytest.mark.parametrize("kind", [trees, tables, shards], ids=lambda kind: kind.__name__)
def test_each_image_of_many_data_sets(kind: Any) -> None:
    LONG(given(kind())(check))()


def test_the_usual_ways_are_not_refused(tmp_path: Path) -> None:
    """The judge would be content with a program that refuses everything."""
    for number, names in enumerate(
        (["cat", "dog"], ["train/cat", "train/dog", "val/cat", "val/dog"])
    ):
        made = Made()
        for folder in names:
            for n in range(5):
                *above, label = folder.split("/")
                made.add(f"{folder}/{n}.png", label, above[0] if above else None)
        assert judge(made, tmp_path / str(number)) == "taken"
