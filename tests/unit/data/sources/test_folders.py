"""Class folders and tables as sources, on disk and on an S3 server: what is listed, and how."""

import codecs
import io
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from graftline.data.sources import open_source
from graftline.data.sources.base import Columns, Entry
from graftline.errors import ConfigurationError, DataError, StoreNotFound
from graftline.storage import open_store
from graftline.storage.base import Store
from graftline.storage.uri import local_path


def png(seed: int = 0) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (6, 5), (seed % 256, seed // 256, 9)).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(params=["disk", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "disk":
        return open_store(str(tmp_path / "my data"))
    return open_store(request.getfixturevalue("s3_bucket") + "/my data")


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., dict[str, Entry]]:
    """The entries of a table of this text, beside images a.png, b.png and sub/c.png."""
    for name in ("a.png", "b.png", "sub/c.png"):
        open_store(str(tmp_path / "t")).write(name, png())

    def entries(text: str | bytes, name: str = "t.csv", **columns) -> dict[str, Entry]:
        data = text.encode() if isinstance(text, str) else text
        (tmp_path / "t" / name).write_bytes(data)
        source = open_source(str(tmp_path / "t" / name), columns=Columns(**columns))
        return {entry.path: entry for entry in source.entries()}

    return entries


def test_class_folders(place: Store) -> None:
    for key in ("cat/1.png", "cat/deep/er/2.JPG", "dog/ü 3.webp", "dog/no-suffix"):
        place.write(key, b"x" * len(key))
    place.write("README.md", b"text")
    place.write("dog/notes.txt", b"text")
    place.write("stray.png", b"x")
    place.write("cat/.DS_Store", b"x")
    place.write(".cache/x/1.png", b"x")
    source = open_source(place.uri)
    found = {entry.path: entry for entry in source.entries()}
    assert source.format == "folders"
    assert list(found) == sorted(found)
    assert {path: e.label for path, e in found.items() if e.problem is None} == {
        "cat/1.png": "cat",
        "cat/deep/er/2.JPG": "cat",
        "dog/no-suffix": "dog",
        "dog/ü 3.webp": "dog",
    }
    assert {path: e.problem for path, e in found.items() if e.problem} == {
        ".cache/x/1.png": "hidden file",
        "README.md": "not an image file",
        "cat/.DS_Store": "hidden file",
        "dog/notes.txt": "not an image file",
        "stray.png": "not in a class folder",
    }
    assert found["cat/1.png"].size == 9
    assert source.read(found["dog/ü 3.webp"]) == place.read("dog/ü 3.webp")
    assert any("nested" in note for note in source.notes)


def test_folders_called_train_and_val_are_splits(place: Store) -> None:
    for key in ("Train/cat/1.png", "valid/cat/2.png", "test/dog/3.png", "test/4.png"):
        place.write(key, b"x")
    source = open_source(place.uri)
    found = {e.path: (e.label, e.split, e.problem) for e in source.entries()}
    assert found == {
        "Train/cat/1.png": ("cat", "train", None),
        "valid/cat/2.png": ("cat", "val", None),
        "test/dog/3.png": ("dog", "test", None),
        "test/4.png": (None, "test", "not in a class folder"),
    }
    assert any("taken as splits" in note for note in source.notes)


def test_classes_called_train_and_plane_are_classes(place: Store) -> None:
    for key in ("train/1.png", "plane/2.png"):
        place.write(key, b"x")
    assert [(e.label, e.split) for e in open_source(place.uri).entries()] == [
        ("plane", None),
        ("train", None),
    ]


def test_names_that_no_store_can_hold_are_listed_with_the_reason(
    tmp_path: Path, s3_bucket: str
) -> None:
    import boto3

    folder = tmp_path / "x" / "cat"
    folder.mkdir(parents=True)
    Path(bytes(folder).decode() + "/b\udcff.png").write_bytes(png())
    (entry,) = open_source(str(tmp_path / "x")).entries()
    assert (entry.path, entry.problem) == ("cat/b\\udcff.png", "name cannot be used")
    client = boto3.client("s3")
    for key in ("x/cat//1.png", "x/cat/../2.png", "x/cat/3.png"):
        client.put_object(Bucket=s3_bucket.removeprefix("s3://"), Key=key, Body=png())
    found = {e.path: e.problem for e in open_source(f"{s3_bucket}/x").entries()}
    assert found == {
        "cat//1.png": "name cannot be used",
        "cat/../2.png": "name cannot be used",
        "cat/3.png": None,
    }


def test_table_beside_its_images_and_by_full_names(place: Store) -> None:
    place.write("images/1.png", png(1))
    place.write("images/2.png", png(2))
    full = f"{place.uri}/images/2.png" if place.uri.startswith("s3") else place.uri[7:]
    full = full if place.uri.startswith("s3") else f"{full}/images/2.png".replace("%20", " ")
    text = (
        f"image,label,split\nimages/1.png,cat,train\n{full},dog,\n./images/../images/3.png,cow,\n"
    )
    place.write("labels.csv", text.encode())
    for uri in (place.uri, f"{place.uri}/labels.csv"):
        source = open_source(uri)
        assert source.format == "table"
        found = source.entries()
        assert [(e.path, e.label, e.split, e.problem) for e in found] == [
            ("images/1.png", "cat", "train", None),
            ("images/2.png", "dog", None, None),
            ("images/3.png", "cow", None, "file not found"),
        ]
        assert [source.read(e) for e in found[:2]] == [png(1), png(2)]


def test_table_columns_of_ones_own(table) -> None:
    found = table(
        "file,class,set,patient,age\na.png,cat,VALID,p1,7\nb.png,dog,,p2,\n",
        image="file",
        label="class",
        split="set",
        group="patient",
        attributes=("age",),
    )
    one, two = found.values()
    assert (one.label, one.split, one.group, one.attributes) == ("cat", "val", "p1", {"age": "7"})
    assert (two.label, two.split, two.group, two.attributes) == ("dog", None, "p2", {"age": None})


@pytest.mark.parametrize(
    "data",
    [
        "image,label\na.png,Käse\n".encode("utf-8-sig"),
        "image,label\r\na.png,Käse\r\n".encode("utf-16"),
        codecs.BOM_UTF16_BE + "image,label\na.png,Käse".encode("utf-16-be"),
        "image;label\na.png;Käse\n".encode(),
        'image\tlabel\n"a.png"\t" Käse "\n'.encode(),
        "image,label\n\na.png,Käse\n,\n  \n".encode(),
        "label,image\nKäse,a.png\n".encode(),
    ],
    ids=["bom", "utf-16", "utf-16-be", "semicolons", "tabs", "empty lines", "columns turned"],
)
def test_tables_as_spreadsheets_write_them(table, data: bytes) -> None:
    assert {path: entry.label for path, entry in table(data).items()} == {"a.png": "Käse"}


def test_rows_that_name_one_file_are_told_apart_by_their_line(table) -> None:
    found = table(
        "image,label,split\na.png,cat,train\na.png,cat,test\n./a.png,cat,\n"
        "b.png,cat,\nb.png,dog,\nsub/c.png,cat,\n,cat,\nsub/c.png,,\nno.png,cat,\n"
    )
    assert {path: entry.problem for path, entry in found.items()} == {
        "a.png": None,
        "a.png (line 2)": "duplicate row",
        "a.png (line 4)": "duplicate row",
        "b.png": "conflicting labels",
        "b.png (line 6)": "conflicting labels",
        "sub/c.png": None,
        "sub/c.png (line 9)": "no label",
        "(line 8)": "no image named",
        "no.png": "file not found",
    }
    assert found["a.png"].split == "test"  # held out rather than trained on


def test_row_with_too_many_cells_is_not_guessed_at(table) -> None:
    found = table("image,label\na.png,cat, black\nb.png,dog\n")
    assert {p: e.problem for p, e in found.items()} == {
        "a.png": "more cells than columns",
        "b.png": None,
    }


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("image,lable\na.png,cat\n", ConfigurationError, ["'label'", "'image', 'lable'"]),
        ("image,label,label\na.png,1,2\n", ConfigurationError, ["more than one", "'label'"]),
        ("", ConfigurationError, ["'image' and 'label'", "it is empty"]),
        ("image,label\n", DataError, ["no rows"]),
        ("image,label,split\na.png,x,trian\n", DataError, ["'trian'", "train, val and test"]),
        ('image,label\n"a.png,cat\nb.png,dog\n', DataError, ["line 3", "quotation"]),
        (b"image,label\nb.png,x\na.png,K\xe4se\n", DataError, ["UTF-8", "line 3", "0xe4"]),
        (b"\x89PNG\r\n\x1a\n\0\0", DataError, ["not UTF-8"]),
    ],
)
def test_table_that_cannot_be_used(table, text, error: type[Exception], words: list[str]) -> None:
    with pytest.raises(error) as caught:
        table(text)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "t.csv" in str(caught.value) and "What to do" in str(caught.value)


def test_table_of_other_columns_among_class_folders_is_noted(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "x"))
    store.write("images/1.png", png())
    store.write("labels.csv", b"filename,class\nimages/1.png,cat\n")
    source = open_source(store.uri)
    assert source.format == "folders"
    assert "labels.csv has no columns 'image' and 'label'" in source.notes[0]
    with pytest.raises(ConfigurationError, match=r"data\.image_column"):
        open_source(store.uri, "table").entries()
    # A configured column that is missing is no reason to read the folder in another way.
    store.write("labels.csv", b"image,label\nimages/1.png,cat\n")
    with pytest.raises(ConfigurationError, match="'patient'"):
        open_source(store.uri, columns=Columns(group="patient")).entries()


def test_format_must_fit_what_is_there(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "x"))
    store.write("cat/1.png", png())
    with pytest.raises(DataError, match="0 CSV tables"):
        open_source(store.uri, "table")
    with pytest.raises(DataError, match="no tar shards"):
        open_source(store.uri, "shards").entries()
    with pytest.raises(ConfigurationError, match="'zip'"):
        open_source(store.uri, "zip")
    store.write("a.csv", b"image,label\ncat/1.png,cat\n")
    store.write("b.csv", b"image,label\ncat/1.png,cat\n")
    with pytest.raises(DataError, match="2 CSV tables"):
        open_source(store.uri, "table")
    assert open_source(store.uri).format == "folders"


def test_source_that_is_not_there_or_empty(place: Store) -> None:
    is_s3 = place.uri.startswith("s3")
    with pytest.raises(DataError if is_s3 else StoreNotFound) as caught:
        open_source(place.uri).entries()
    shown = place.uri if is_s3 else str(local_path(place.uri))  # as a person writes it
    assert shown in caught.value.what and "data.source" in str(caught.value.fix)
    with pytest.raises(StoreNotFound, match=r"none\.csv does not exist"):
        open_source(f"{place.uri}/none.csv").entries()


def test_folder_without_files_and_a_file_that_is_no_source(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    with pytest.raises(DataError, match="is empty"):
        open_source(str(tmp_path)).entries()
    (tmp_path / "image.png").write_bytes(png())
    with pytest.raises(DataError, match="single file"):
        open_source(str(tmp_path / "image.png")).entries()
