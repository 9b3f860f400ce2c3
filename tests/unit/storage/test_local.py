"""What only a folder can do as a store: links, rings, pipes, and files that go away meanwhile."""

import os
import pickle
import threading
import time
from pathlib import Path

import pytest

from graftline.data.sources import open_source
from graftline.errors import StoreNotFound
from graftline.files import os_error
from graftline.storage import open_store
from graftline.storage.local import HIDDEN, STALE_SECONDS, FileStore


def test_links_are_followed_and_rings_are_not(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    store.write("a/1.png", b"one")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "2.png").write_bytes(b"two")
    (tmp_path / "store" / "b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "store" / "a" / "ring").symlink_to(tmp_path / "store")
    (tmp_path / "store" / "a" / "3.png").symlink_to(tmp_path / "elsewhere" / "2.png")
    keys = [info.key for info in store.list()]
    assert keys[:2] == ["a/1.png", "a/3.png"] and keys[-1] == "b/2.png"
    assert store.read("b/2.png") == store.read("a/3.png") == b"two"


def test_link_to_nothing_is_listed_and_other_things_are_not(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "a" / "1.png").write_bytes(b"x")
    os.mkfifo(tmp_path / "a" / "pipe.png")
    assert [entry.path for entry in open_source(str(tmp_path)).entries()] == [
        "a/1.png",
        "a/gone.png",
    ]


def test_listing_survives_what_is_removed_meanwhile(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    for number in range(300):
        store.write(f"{number % 30:02}/{number}", b"x")
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            for number in range(30, 60):
                path = tmp_path / str(number)
                path.mkdir(exist_ok=True)
                (path / "x").write_bytes(b"x")
                (path / "x").unlink()
                path.rmdir()

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _ in range(40):
            stable = [info.key for info in store.list() if int(info.key[:2]) < 30]
            assert len(stable) == 300
    finally:
        stop.set()
        thread.join()


def test_what_killed_writers_left_goes_away_after_a_day(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.write("k", b"1")
    old, new = tmp_path / HIDDEN / "old", tmp_path / HIDDEN / "new"
    for path in (old, new):
        path.write_bytes(b"half")
    before = time.time() - STALE_SECONDS - 60
    os.utime(old, (before, before))
    store.check_writable()
    assert not old.exists() and new.exists()
    assert [info.key for info in store.list()] == ["k"]


def test_store_of_another_store_sees_no_hidden_files(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.child("a").write("k", b"1")
    store.write_if_match("p", b"1", None)
    assert [info.key for info in store.list()] == ["a/k", "p"]
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["k"]


def test_pickled_store_of_another_store_keeps_its_lock_folder(tmp_path: Path) -> None:
    child = open_store(str(tmp_path)).child("a/b")
    sent = pickle.loads(pickle.dumps(child))
    sent.write("k", b"1")
    sent.write_if_match("p", b"1", None)
    assert sent.uri == child.uri and sent.read("k") == b"1"
    assert not (tmp_path / "a" / "b" / HIDDEN).exists()
    assert [info.key for info in open_store(str(tmp_path)).list()] == ["a/b/k", "a/b/p"]


def test_the_error_of_a_listing_names_what_it_met(tmp_path: Path) -> None:
    error = PermissionError(13, "Permission denied", f"{tmp_path}/a/locked")
    assert f"Permission denied: {tmp_path}/a/locked" in str(os_error(error, "file:///a", "list"))
    own = PermissionError(13, "Permission denied", "/a")
    assert str(os_error(own, "file:///a", "list")).count("/a") == 1


def test_objects_below_the_root_are_named_with_one_slash(tmp_path: Path) -> None:
    with pytest.raises(StoreNotFound, match=r"^/nowhere/at all/x\.png does not exist"):
        FileStore(Path("/"), tmp_path).read("nowhere/at all/x.png")
