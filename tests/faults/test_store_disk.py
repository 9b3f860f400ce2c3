"""A disk that is full, read-only or not ours: what a store and an ingest on it say and leave."""

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from graftline.data.sources import open_source
from graftline.errors import NoSpace, StoreAccessDenied, StoreNotFound, StoreReadOnly
from graftline.steps.ingest.step import run
from graftline.storage import open_store

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting and changing user need root")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mount a small disk of its own, or change the one that is mounted."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(options: str, *more: str) -> Path:
        done = subprocess.run(
            ["mount", *more, "-t", "tmpfs", "-o", options, "graftline", str(place)],
            capture_output=True,
            text=True,
        )
        if done.returncode and not more:
            pytest.skip(f"this machine lets nobody mount: {done.stderr.strip()}")
        assert done.returncode == 0, done.stderr
        return place

    yield mount
    subprocess.run(["umount", str(place)], capture_output=True)


@contextmanager
def another_user() -> Iterator[None]:
    """As somebody with no rights of his own (root may do everything)."""
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can reach, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="graftline-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def write_images(folder: Path, count: int = 24) -> Path:
    for number in range(count):
        path = folder / "abc"[number % 3] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return folder


@needs_root
def test_full_disk_is_named_and_leaves_every_object_whole(disk, tmp_path: Path) -> None:
    store = open_store(str(disk("size=1m")))
    store.write("small", b"x" * 1000)
    big = b"y" * 2_000_000
    (tmp_path / "big").write_bytes(big)
    for action in (
        lambda: store.write("big", big),
        lambda: store.write("small", big),
        lambda: store.write_if_absent("big", big),
        lambda: store.write_if_match("big", big, None),
        lambda: store.upload(tmp_path / "big", "big"),
    ):
        with pytest.raises(NoSpace, match="Cannot write") as caught:
            action()
        assert "No space left" in str(caught.value.why) and "`store`" in str(caught.value.fix)
        assert [info.key for info in store.list()] == ["small"]
        assert store.read("small") == b"x" * 1000
    hidden = [p for p in (tmp_path / "disk" / ".graftline-tmp").iterdir() if p.suffix != ".lock"]
    assert hidden == []


@needs_root
def test_no_room_for_what_comes_down(disk, tmp_path: Path, s3_bucket: str, monkeypatch) -> None:
    place = disk("size=1m")
    monkeypatch.setattr("tempfile.tempdir", str(place))
    for store in (open_store(str(tmp_path / "other")), open_store(s3_bucket)):
        store.write("k", b"y" * 2_000_000)
        with pytest.raises(NoSpace, match="disk/file") as caught:
            store.download("k", place / "file")
        # Another store would not help: it is the disk of temporary files that is full.
        assert "TMPDIR" in str(caught.value.fix) and "`store`" not in str(caught.value.fix)
        assert list(place.iterdir()) == []


@needs_root
def test_ingest_into_a_full_store_goes_on_when_there_is_room(disk, tmp_path: Path) -> None:
    source = str(write_images(tmp_path / "images"))
    place = disk("size=96k")
    arguments = {"source": source, "store": str(place), "snapshot_folder": tmp_path / "snapshot"}
    with pytest.raises(NoSpace):
        run(**arguments)
    disk("size=4m", "-o", "remount")
    result = run(**arguments)
    fresh = run(**{**arguments, "store": str(tmp_path / "fresh")})
    assert result.snapshot_id == fresh.snapshot_id


@needs_root
def test_disk_that_is_mounted_read_only(disk, tmp_path: Path) -> None:
    store = open_store(str(disk("size=1m")))
    store.write("k", b"1")
    disk("ro", "-o", "remount")
    for action in (store.check_writable, lambda: store.write("k", b"2")):
        with pytest.raises(StoreReadOnly, match="Cannot write") as caught:
            action()
        assert "Read-only" in str(caught.value.why)
        assert "Mount it writable, or choose another `store`" in str(caught.value.fix)
    with pytest.raises(StoreReadOnly, match=f"Cannot write {tmp_path}/disk\\nWhy"):
        store.check_writable()  # the store is named, not the file that was tried
    assert store.read("k") == b"1"


@needs_root
def test_folder_of_somebody_else(open_folder: Path) -> None:
    store = open_store(str(open_folder / "store"))
    store.write("k", b"1")
    (open_folder / "private").mkdir(mode=0o700)
    (open_folder / "images" / "a").mkdir(parents=True)
    (open_folder / "images" / "a" / "1.png").write_bytes(b"x")
    (open_folder / "images" / "a" / "1.png").chmod(0o600)
    with another_user():
        assert store.read("k") == b"1"
        for action in (
            store.check_writable,
            lambda: store.write("k", b"2"),
            lambda: store.delete("k"),
            open_store(str(open_folder / "new")).check_writable,
        ):
            with pytest.raises(StoreReadOnly, match="Permission denied"):
                action()
        with pytest.raises(StoreAccessDenied, match="Cannot list"):
            open_source(str(open_folder / "private")).entries()
        source = open_source(str(open_folder / "images"))
        with pytest.raises(StoreAccessDenied, match=r"a/1\.png"):
            source.read(source.entries()[0])


def test_file_where_a_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises((StoreNotFound, Exception), match="file") as caught:
        open_store(str(tmp_path / "file" / "store")).check_writable()
    assert caught.value.fix  # type: ignore[attr-defined]
    with pytest.raises(Exception, match="file") as caught:
        open_store(str(tmp_path / "file")).check_writable()
    assert caught.value.fix  # type: ignore[attr-defined]


def test_object_and_folder_of_one_name(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.write("a/b", b"1")
    for action in (lambda: store.write("a", b"2"), lambda: store.write("a/b/c", b"3")):
        with pytest.raises(Exception, match="a") as caught:
            action()
        assert caught.value.fix  # type: ignore[attr-defined]
    assert store.read("a/b") == b"1"
