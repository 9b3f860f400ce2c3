"""A ZIP archive as a store that is read: judged by the `zipfile` module that wrote it."""

import pickle
import random
import zipfile
from pathlib import Path

import pytest

from graftline.errors import StoreError, StoreNotFound
from graftline.storage.local import FileStore
from graftline.storage.zip_archive import ZipStore

KINDS = {"stored": zipfile.ZIP_STORED, "deflated": zipfile.ZIP_DEFLATED}


def packed(folder: Path, kind: int = zipfile.ZIP_DEFLATED) -> tuple[ZipStore, dict[str, bytes]]:
    """An archive of members of many lengths, one of them empty, in folders, with a comment."""
    draw = random.Random(7)
    files = {
        f"{'abc'[n % 3]}/{n}.bin": bytes(draw.randrange(256) for _ in range(n * n * 37 % 5000))
        for n in range(30)
    }
    with zipfile.ZipFile(folder / "x.zip", "w", kind) as archive:
        archive.mkdir("empty")
        archive.comment = b"a comment at the end"
        for name, data in files.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = kind
            info.extra = b"\x99\x99\x04\x00abcd"
            archive.writestr(info, data)
    return ZipStore(FileStore(folder), "x.zip"), files


@pytest.mark.parametrize("kind", KINDS)
def test_members_are_read_as_they_were_packed(kind: str, tmp_path: Path) -> None:
    store, files = packed(tmp_path, KINDS[kind])
    assert [one.key for one in store.list()] == sorted(files)
    assert {key: store.read(key) for key in files} == files
    assert all(store.size(key) == len(data) for key, data in files.items())
    assert store.read_range("a/3.bin", 5, 20) == files["a/3.bin"][5:25]
    store.download("b/4.bin", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == files["b/4.bin"]
    again = pickle.loads(pickle.dumps(store))
    assert again.read("c/5.bin") == files["c/5.bin"] and again.uri == store.uri


def test_a_part_of_an_archive(tmp_path: Path) -> None:
    store, files = packed(tmp_path)
    inner = store.child("b")
    assert {one.key: inner.read(one.key) for one in inner.list()} == {
        key[2:]: data for key, data in files.items() if key.startswith("b/")
    }
    assert list(store.names()) == [] and len(inner.names()) == 10
    assert [one.key for one in store.list("c/2")] == [
        "c/2.bin",
        "c/20.bin",
        "c/23.bin",
        "c/26.bin",
        "c/29.bin",
    ]


def test_the_version_is_that_of_the_content(tmp_path: Path) -> None:
    store, _ = packed(tmp_path, zipfile.ZIP_STORED)
    before = {one.key: one.version for one in store.list()}
    store, _ = packed(tmp_path, zipfile.ZIP_DEFLATED)
    assert {one.key: one.version for one in store.list()} == before
    assert len(set(before.values())) == len(before)


def test_what_is_not_there_and_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    store, _ = packed(tmp_path)
    assert not store.exists("a/none") and store.exists("a/0.bin")
    with pytest.raises(StoreNotFound, match="a/none"):
        store.read("a/none")
    with pytest.raises(StoreNotFound):
        next(iter(ZipStore(FileStore(tmp_path), "none.zip").list()))
    with zipfile.ZipFile(tmp_path / "y.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("1.png", b"x" * 99)
    with pytest.raises(StoreError, match=r"y\.zip/1\.png cannot be read") as error:
        ZipStore(FileStore(tmp_path), "y.zip").read("1.png")
    assert "compression (kind 14)" in str(error.value.why)
    raw = bytearray((tmp_path / "x.zip").read_bytes())
    raw[raw.find(b"PK\1\2", raw.find(b"b/1.bin", len(raw) // 2) - 50) + 8] |= 1
    (tmp_path / "x.zip").write_bytes(raw)
    with pytest.raises(StoreError, match=r"cannot be read") as error:
        ZipStore(FileStore(tmp_path), "x.zip").read("b/1.bin")
    assert error.value.why == "it is encrypted"


def test_a_member_that_states_a_wrong_size_is_not_unpacked_beyond_it(tmp_path: Path) -> None:
    """A bomb: the directory says 10 bytes, the content is 10 million."""
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("1.png", b"\0" * 10_000_000)
    raw = (tmp_path / "x.zip").read_bytes()
    (tmp_path / "x.zip").write_bytes(
        raw.replace((10_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    )
    with pytest.raises(StoreError, match=r"x\.zip/1\.png cannot be read"):
        ZipStore(FileStore(tmp_path), "x.zip").read("1.png")


def test_nothing_is_written(tmp_path: Path) -> None:
    store, _ = packed(tmp_path)
    for write in (
        store.write,
        store.write_if_absent,
        lambda k, d: store.write_if_match(k, d, None),
    ):
        with pytest.raises(StoreError, match="cannot be written"):
            write("a", b"x")
    for call in (
        store.check_writable,
        lambda: store.delete("a"),
        lambda: store.upload(tmp_path, "a"),
    ):
        with pytest.raises(StoreError, match="cannot be written"):
            call()


def test_a_broken_archive_gives_documented_errors_only(tmp_path: Path) -> None:
    """Three hundred archives with changed, missing and added bytes."""
    packed(tmp_path)
    whole, draw, refused = (tmp_path / "x.zip").read_bytes(), random.Random(3), 0
    for _ in range(300):
        raw = bytearray(whole)
        for _ in range(draw.randint(1, 6)):
            at = draw.randrange(len(raw) - len(raw) // 8 * (draw.random() < 0.5), len(raw) + 1) - 1
            kind = draw.random()
            if kind < 0.6:
                raw[at] = draw.choice([0, 255, draw.randrange(256)])
            elif kind < 0.8:
                del raw[at : at + draw.randint(1, 30)]
            else:
                raw[at:at] = draw.randbytes(draw.randint(1, 9))
        (tmp_path / "x.zip").write_bytes(raw)
        store = ZipStore(FileStore(tmp_path), "x.zip")
        try:
            for one in store.list():
                store.read(one.key)
        except StoreError:
            refused += 1
    assert refused > 100


def test_of_two_members_of_one_name_the_last_counts(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a.png", b"old")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a.png", b"new")
    store = ZipStore(FileStore(tmp_path), "x.zip")
    assert [one.key for one in store.list()] == ["a.png"] and store.read("a.png") == b"new"
