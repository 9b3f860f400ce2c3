"""The same data in a folder, an archive or a bucket gives the same images, labels and splits."""

import hashlib
import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
from PIL import Image

from graftline.data.snapshot import read_snapshot
from graftline.errors import GraftlineError
from graftline.steps.ingest.step import run

Files = dict[str, bytes]
Meant = set[tuple[str, str, str]]  # the image's digest, its label, its split where one is stated


def picture(number: int, kind: str = "PNG") -> bytes:
    """Pictures of many sizes, no two alike."""
    random = np.random.default_rng(number)
    size = (8 + number % 7, 9 + number % 5, 3)
    stream = io.BytesIO()
    Image.fromarray(random.integers(0, 256, size, dtype=np.uint8)).save(stream, kind)
    return stream.getvalue()


class Data:
    """Files, and what a person reads in them."""

    def __init__(self) -> None:
        self.files: Files = {}
        self.meant: Meant = set()
        self.options: dict[str, Any] = {}

    def add(self, name: str, label: str, split: str = "") -> str:
        data = picture(len(self.files), "JPEG" if name.lower().endswith(("jpg", "jpeg")) else "PNG")
        self.files[name] = data
        self.meant.add((hashlib.sha256(data).hexdigest(), label, split))
        return name

    def junk(self) -> "Data":
        """What systems leave behind; none of it is a picture of a class."""
        for name in ("Thumbs.db", ".DS_Store", "desktop.ini"):
            self.files |= {name: b"x", f"cat/{name}": b"x"}
        self.files |= {
            "__MACOSX/cat/._0.png": b"x",
            "cat/._0.png": b"x",
            ".hidden/cat/1.png": picture(1),
        }
        return self


def in_classes(classes: list[str], form: str = "{n}.png", each: int = 4) -> Data:
    data = Data()
    for c in classes:
        for n in range(each):
            data.add(f"{c}/{form.format(n=n, c=c)}", c)
    return data


def in_splits() -> Data:
    data = Data()
    for split in ("train", "val", "test"):
        for c in ("cat", "dog"):
            for n in range(4):
                data.add(f"{split}/{c}/{n}.png", c, split)
    return data


def grouped() -> Data:
    data = Data()
    for who in ("patient_1", "patient_2", "patient_3", "patient_4"):
        for c in ("ill", "well"):
            for n in range(3):
                data.add(f"{who}/{c}/{n}.png", c)
    return data


PLAIN = ["cat", "dog", "eel"]
ODD = ["0", "None", "nan", "true", "1e5", "007"]
LONG = "x" * 180
LAYOUTS: dict[str, Callable[[], Data]] = {
    "classes": lambda: in_classes(PLAIN),
    "splits": in_splits,
    "patients": grouped,
    "classes that look like values": lambda: in_classes(ODD),
    "blanks and marks": lambda: in_classes(["big cat", "dog & co", "eel (old)"], "a b#{n}%20.png"),
    "suffixes in capitals": lambda: in_classes(PLAIN, "IMG_{n}.JPG"),
    "long names": lambda: in_classes(PLAIN, LONG + "{n}.jpeg"),
    "letters of other scripts": lambda: in_classes(
        ["K\u00e4se", "\u732b", "\u043a\u043e\u0442"], "\u00e9{n}.png"
    ),
    "what systems leave": lambda: in_classes(PLAIN).junk(),
    "names without suffix": lambda: in_classes(PLAIN, "{c}{n}jpg"),
    "several dots": lambda: in_classes(PLAIN, "v1.0.{n}.png"),
}
KINDS = ("folder", "zip", "tar", "tar.gz", "s3", "zip in s3")


def as_folder(path: Path, files: Files) -> str:
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return str(path)


def as_zip(path: Path, files: Files) -> str:
    with zipfile.ZipFile(path.with_suffix(".zip"), "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return str(path.with_suffix(".zip"))


def as_tar(path: Path, files: Files, ending: str) -> str:
    name = f"{path}.{ending}"
    with tarfile.open(name, "w:gz" if ending.endswith("gz") else "w") as archive:
        for key, data in files.items():
            info = tarfile.TarInfo(key)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return name


def upload(bucket: str, prefix: str, files: Files) -> str:
    client = boto3.client("s3")
    for name, data in files.items():
        key = f"{prefix}/{name}"
        client.put_object(Bucket=bucket.removeprefix("s3://"), Key=key, Body=data)
    return f"{bucket}/{prefix}"


def stored(kind: str, path: Path, files: Files, bucket: str) -> str:
    """The source's URI, once the files are there."""
    if kind == "folder":
        return as_folder(path, files)
    if kind == "zip":
        return as_zip(path, files)
    if kind == "s3":
        return upload(bucket, path.name, files)
    if kind == "zip in s3":
        archive = Path(as_zip(path, files))
        return upload(bucket, path.name, {"x.zip": archive.read_bytes()}) + "/x.zip"
    return as_tar(path, files, kind)


def taken(source: str, folder: Path, split: bool, **options: Any) -> Meant:
    """What ingest makes of a source: digests, labels and, where they are stated, splits."""
    run(
        source=source,
        store=str(folder / "store"),
        snapshot_folder=folder / "snapshot",
        near_duplicates="off",
        min_images_per_class=3,
        **options,
    )
    snapshot = read_snapshot(folder / "snapshot")
    labels = [snapshot.classes[k] for k in snapshot.labels()]
    splits = snapshot.column("split") if split else [""] * len(labels)
    return set(zip(snapshot.image_ids(), labels, map(str, splits), strict=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", LAYOUTS)
def test_the_same_images_with_the_same_labels(
    name: str, kind: str, s3_bucket: str, tmp_path: Path
) -> None:
    data = LAYOUTS[name]()
    for wrap in ("", "my data/"):
        path = tmp_path / f"source{len(wrap)}"
        source = stored(kind, path, {wrap + k: v for k, v in data.files.items()}, s3_bucket)
        found = taken(source, tmp_path / f"out{len(wrap)}", name == "splits", **data.options)
        assert found == data.meant


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "s3"])
def test_classes_that_differ_invisibly_are_one_and_by_case_refused(
    kind: str, s3_bucket: str, tmp_path: Path
) -> None:
    data = in_classes(["K\u00e4se", "dog"])
    for n in range(4):
        data.add(f"Ka\u0308se/other{n}.png", "K\u00e4se")  # the same letters in another form
    source = stored(kind, tmp_path / "one", data.files, s3_bucket)
    assert taken(source, tmp_path / "a", split=False) == data.meant
    data = in_classes(["Cat", "cat", "dog"])
    source = stored(kind, tmp_path / "two", data.files, s3_bucket)
    with pytest.raises(GraftlineError, match="look the same"):
        taken(source, tmp_path / "b", split=False)
    assert taken(source, tmp_path / "c", split=False, similar_labels="keep") == data.meant


def test_a_tar_of_a_folder_as_people_write_it(tmp_path: Path) -> None:
    """`tar cf x.tar .` begins each name with `./` and lists the folders, an empty one too."""
    data = in_classes(PLAIN)
    as_folder(tmp_path / "in", data.files)
    (tmp_path / "in" / "empty").mkdir()
    for name, form in (("gnu", tarfile.GNU_FORMAT), ("pax", tarfile.PAX_FORMAT)):
        with tarfile.open(tmp_path / f"{name}.tar", "w", format=form) as archive:
            archive.add(tmp_path / "in", ".")
        assert taken(str(tmp_path / f"{name}.tar"), tmp_path / name, split=False) == data.meant


def names_that_are_no_text(kind: str, path: Path, data: Data) -> str:
    """One more picture, whose name has a byte of Latin-1."""
    odd, more = b"cat/K\xe4se.png", picture(77)
    if kind == "folder":
        source = as_folder(path, data.files)
        (path / "cat" / odd.decode("utf-8", "surrogateescape").partition("/")[2]).write_bytes(more)
        return source
    if kind == "tar":
        source = as_tar(path, data.files, "tar")
        with tarfile.open(source, "a", encoding="latin-1", format=tarfile.GNU_FORMAT) as archive:
            info = tarfile.TarInfo(odd.decode("latin-1"))
            info.size = len(more)
            archive.addfile(info, io.BytesIO(more))
        return source
    placeholder = "cat/K~se.png"
    source = as_zip(path, data.files | {placeholder: more})
    raw = Path(source).read_bytes().replace(placeholder.encode(), odd)
    Path(source).write_bytes(raw)
    return source


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_a_name_that_is_no_text_is_rejected_alone(kind: str, tmp_path: Path) -> None:
    data = in_classes(PLAIN)
    source = names_that_are_no_text(kind, tmp_path / "x", data)
    assert taken(source, tmp_path / "out", split=False) == data.meant
    kept = read_snapshot(tmp_path / "out" / "snapshot").set_aside.to_pylist()
    assert [one["reason"] for one in kept] == ["name cannot be used"]


def test_utf8_names_of_a_zip_that_does_not_say_so(tmp_path: Path) -> None:
    """Info-ZIP and macOS write UTF-8 without the flag for it."""
    data = in_classes(["K\u00e4se", "\u732b", "dog"])
    source = Path(as_zip(tmp_path / "x", data.files))
    raw = bytearray(source.read_bytes())
    for start, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = raw.find(start)
        while at >= 0:
            raw[at + place + 1] &= ~0x08
            at = raw.find(start, at + 4)
    source.write_bytes(raw)
    assert zipfile.ZipFile(source).infolist()[0].filename != "K\u00e4se/0.png"
    assert taken(str(source), tmp_path / "out", split=False) == data.meant


def test_a_zip_with_backslashes(tmp_path: Path) -> None:
    data = in_classes(PLAIN)
    source = Path(as_zip(tmp_path / "x", {k.replace("/", "|"): v for k, v in data.files.items()}))
    raw = source.read_bytes()
    for name in data.files:
        raw = raw.replace(name.replace("/", "|").encode(), name.replace("/", "\\").encode())
    source.write_bytes(raw)
    assert taken(str(source), tmp_path / "out", split=False) == data.meant


def test_links_in_a_folder(tmp_path: Path) -> None:
    """They are followed, out of the folder too; a picture that is there twice is a duplicate."""
    data, outside = in_classes(PLAIN), in_classes(["fox"])
    as_folder(tmp_path / "in", data.files)
    as_folder(tmp_path / "other", {k: v + b"" for k, v in outside.files.items()})
    other = {k: picture(500 + n) for n, k in enumerate(outside.files)}
    as_folder(tmp_path / "other", other)
    (tmp_path / "in" / "fox").symlink_to(tmp_path / "other" / "fox")
    (tmp_path / "in" / "cat" / "again.png").symlink_to(tmp_path / "in" / "cat" / "0.png")
    (tmp_path / "in" / "cat" / "ring").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "dog" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    meant = data.meant | {(hashlib.sha256(v).hexdigest(), "fox", "") for v in other.values()}
    assert taken(str(tmp_path / "in"), tmp_path / "out", split=False) == meant


DAMAGED = {
    "cut short": lambda raw: raw[: len(raw) // 2],
    "nothing": lambda raw: b"",
    "text": lambda raw: b"PK is what it begins with",
}


@pytest.mark.parametrize("how", DAMAGED)
def test_a_damaged_zip_is_refused_by_name(how: str, tmp_path: Path) -> None:
    source = Path(as_zip(tmp_path / "x", in_classes(PLAIN).files))
    source.write_bytes(DAMAGED[how](source.read_bytes()))
    with pytest.raises(GraftlineError, match=r"x\.zip is not a readable ZIP archive"):
        taken(str(source), tmp_path / "out", split=False)


def test_a_damaged_member_of_a_zip_stops_the_run_by_name(tmp_path: Path) -> None:
    source = Path(as_zip(tmp_path / "x", in_classes(PLAIN).files))
    raw = bytearray(source.read_bytes())
    raw[60] ^= 0xFF
    source.write_bytes(raw)
    with pytest.raises(GraftlineError, match=r"x\.zip/cat/0\.png cannot be read"):
        taken(str(source), tmp_path / "out", split=False)


def test_a_table_in_a_zip(s3_bucket: str, tmp_path: Path) -> None:
    """Below the archive's one folder, with names alone, on disk and in a bucket."""
    data = in_classes(PLAIN)
    rows = [f"{k.rpartition('/')[2].replace('.png', '')}{k[0]},{k[:3]}" for k in data.files]
    files = {f"set/images/{k[4:-4]}{k[0]}.png": v for k, v in data.files.items()}
    files["set/labels.csv"] = "\n".join(["image,label", *rows]).encode()
    for kind in ("zip", "zip in s3"):
        source = stored(kind, tmp_path / "x", files, s3_bucket)
        assert taken(source, tmp_path / kind, split=False) == data.meant


@pytest.mark.parametrize("kind", ["zip", "zip in s3"])
def test_a_folder_in_a_zip_can_be_the_source(kind: str, s3_bucket: str, tmp_path: Path) -> None:
    """The error on two readings names it, and it is read."""
    data = in_splits()
    files = {f"set/data/{k}": v for k, v in data.files.items()}
    files |= {f"set/other/{n}.png": picture(900 + n) for n in range(2)}
    source = stored(kind, tmp_path / "x", files, s3_bucket)
    assert taken(f"{source}/set/data", tmp_path / "out", split=True) == data.meant


def test_another_archive_of_the_same_files_holds_nothing_new(tmp_path: Path) -> None:
    data = in_classes(PLAIN)
    source = as_zip(tmp_path / "x", data.files)
    arguments = {"source": source, "store": str(tmp_path / "store"), "near_duplicates": "off"}
    first = run(snapshot_folder=tmp_path / "a", **arguments)
    again = data.files | {"cat/new.png": picture(1234)}
    with zipfile.ZipFile(source, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(again, reverse=True):
            archive.writestr(name, again[name])
    second = run(snapshot_folder=tmp_path / "b", **arguments)
    assert (first.fetched, second.fetched, second.reused) == (12, 1, 12)


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_a_table_in_a_tar_is_refused_with_the_way_out(kind: str, tmp_path: Path) -> None:
    data = in_classes(PLAIN)
    files = {f"images/{k[:3]}{k[4:]}": v for k, v in data.files.items()}
    rows = [f"images/{k[:3]}{k[4:]},{k[:3]}" for k in data.files]
    files["labels.csv"] = "\n".join(["image,label", *rows]).encode()
    if kind == "tar":
        with pytest.raises(GraftlineError, match="one label 'images'") as error:
            taken(as_tar(tmp_path / "x", files, "tar"), tmp_path / "out", split=False)
        assert "pack it as ZIP" in str(error.value.fix)
    else:
        assert taken(as_zip(tmp_path / "x", files), tmp_path / "out", split=False) == data.meant


def test_an_archive_of_each_class_is_refused_with_the_way_out(tmp_path: Path) -> None:
    """As ImageNet's training images are published."""
    for k, label in enumerate(PLAIN):
        files = {f"{label}_{n}.jpg": picture(100 * k + n, "JPEG") for n in range(4)}
        as_tar(tmp_path / label, files, "tar")
    with pytest.raises(GraftlineError, match="No usable image") as error:
        taken(str(tmp_path), tmp_path.parent / "out", split=False)
    assert "unpack it into a folder of its name" in str(error.value.fix)
