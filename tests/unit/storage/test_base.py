"""The contract of a store, the same on disk and on an S3 server."""

import hashlib
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from graftline.errors import ConfigurationError, PreconditionFailed, StoreError, StoreNotFound
from graftline.storage import open_store
from graftline.storage.base import Store
from graftline.storage.s3 import S3Store


@pytest.fixture(params=["disk", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "disk":
        return open_store(str(tmp_path / "a store"))
    return open_store(request.getfixturevalue("s3_bucket") + "/some/prefix")


def test_what_is_written_is_read_whole_and_in_ranges(store: Store) -> None:
    data = os.urandom(100_000)
    store.write("a/b.bin", data)
    assert store.read("a/b.bin") == data
    assert store.read_range("a/b.bin", 0, 1) == data[:1]
    assert store.read_range("a/b.bin", 99_000, 1000) == data[-1000:]
    assert store.read_range("a/b.bin", 5, 0) == b""
    assert store.exists("a/b.bin") and store.size("a/b.bin") == 100_000
    store.write("a/b.bin", b"")
    assert store.read("a/b.bin") == b"" and store.size("a/b.bin") == 0


def test_range_beyond_the_end_is_an_error_and_not_fewer_bytes(store: Store) -> None:
    store.write("x", b"0123456789")
    for offset, length in ((8, 5), (10, 1), (50, 2)):
        with pytest.raises(StoreError, match="ends at byte"):
            store.read_range("x", offset, length)


def test_missing_object(store: Store) -> None:
    store.write("here", b"1")
    for question in (store.read, store.read_versioned, store.size):
        with pytest.raises(StoreNotFound, match="gone"):
            question("gone")
    with pytest.raises(StoreNotFound):
        store.read_range("gone", 0, 1)
    assert not store.exists("gone")
    store.delete("gone")
    store.delete("here")
    assert not store.exists("here")


@pytest.mark.parametrize("key", ["", "/etc/passwd", "a//b", "../up", "a/../../b", "a/", ".", "x\0"])
def test_key_that_is_no_plain_relative_name_is_refused(store: Store, key: str) -> None:
    for action in (store.read, store.exists, store.delete, lambda key: store.write(key, b"")):
        with pytest.raises(StoreError, match="not a relative object name"):
            action(key)


def test_list_is_sorted_by_key_whole_and_by_prefix(store: Store) -> None:
    keys = ["b.txt", "b/1", "b/10", "b/2/x", "b-1", "ba", "é/ü ß.png", "a&b+c d%20.txt"]
    for key in keys:
        store.write(key, key.encode())
    found = list(store.list())
    assert [info.key for info in found] == sorted(keys)
    assert [info.size for info in found] == [len(key.encode()) for key in sorted(keys)]
    assert [info.key for info in store.list("b/")] == ["b/1", "b/10", "b/2/x"]
    assert [info.key for info in store.list("b/1")] == ["b/1", "b/10"]
    assert [info.key for info in store.list("b")] == ["b-1", "b.txt", "b/1", "b/10", "b/2/x", "ba"]
    assert list(store.list("none/")) == []
    assert store.names() == ["a&b+c d%20.txt", "b-1", "b.txt", "ba"]
    assert store.child("b").names() == ["1", "10"] and store.child("none").names() == []
    before = {info.key: info.version for info in found}
    store.write("b/1", b"other bytes")
    after = {info.key: info.version for info in store.list()}
    assert [key for key in keys if before[key] != after[key]] == ["b/1"]


def test_list_goes_beyond_one_page_of_a_server(store: Store) -> None:
    if isinstance(store, S3Store):  # pages of 1,000 are real; so are smaller ones, and quicker
        store.client.meta.events.register(
            "provide-client-params.s3.ListObjectsV2", lambda params, **_: {**params, "MaxKeys": 7}
        )
    keys = [f"many/{number:05}" for number in range(30)]
    for key in keys:
        store.write(key, b"x")
    assert [info.key for info in store.list("many/")] == keys
    store.write("zz", b"x")
    assert store.child("many").names() == [key.removeprefix("many/") for key in keys]
    assert store.names() == ["zz"]


def test_child_is_the_part_below_a_prefix(store: Store) -> None:
    child = store.child("models/v1/")
    child.write("weights", b"w")
    assert store.read("models/v1/weights") == b"w"
    assert [info.key for info in child.list()] == ["weights"]
    assert open_store(child.uri).read("weights") == b"w"


def test_store_can_be_sent_to_another_process(store: Store) -> None:
    store.write("k", b"v")
    copy = pickle.loads(pickle.dumps(store))
    assert copy.uri == store.uri and copy.read("k") == b"v"


def test_write_if_absent_leaves_what_is_there(store: Store) -> None:
    assert store.write_if_absent("k", b"first")
    assert not store.write_if_absent("k", b"second")
    assert store.read("k") == b"first"


def test_write_if_match_takes_the_version_that_was_read(store: Store) -> None:
    first = store.write_if_match("p", b"1", None)
    with pytest.raises(PreconditionFailed):
        store.write_if_match("p", b"2", None)
    data, version = store.read_versioned("p")
    assert (data, version) == (b"1", first)
    second = store.write_if_match("p", b"2", first)
    assert second != first
    with pytest.raises(PreconditionFailed):
        store.write_if_match("p", b"3", first)
    assert store.read("p") == b"2"
    store.delete("p")
    with pytest.raises(PreconditionFailed):
        store.write_if_match("p", b"4", second)
    assert not store.exists("p")


def test_one_of_many_threads_creates_the_object(store: Store) -> None:
    with ThreadPoolExecutor(12) as pool:
        for turn in range(5):
            answers = list(
                pool.map(
                    lambda n, turn=turn: store.write_if_absent(f"race/{turn}", b"%d" % n),
                    range(12),
                )
            )
            assert sum(answers) == 1
            assert store.read(f"race/{turn}") == b"%d" % answers.index(True)


COUNT = """
import sys
from graftline.errors import PreconditionFailed
from graftline.storage import open_store

store, wins = open_store(sys.argv[1]), 0
for turn in range(8):
    wins += store.write_if_absent(f"turn/{turn}", sys.argv[2].encode())
    while True:
        data, version = store.read_versioned("counter")
        try:
            store.write_if_match("counter", b"%d" % (int(data) + 1), version)
            break
        except PreconditionFailed:
            continue
print(wins)
"""


def test_processes_lose_no_update_and_share_out_what_only_one_may_create(store: Store) -> None:
    store.write("counter", b"0")
    children = [
        subprocess.Popen(
            [sys.executable, "-c", COUNT, store.uri, str(number)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    answers = [child.communicate(timeout=120) for child in children]
    assert [child.returncode for child in children] == [0] * 4, answers
    assert store.read("counter") == b"32"
    assert sum(int(out) for out, _ in answers) == 8


def test_files_go_up_and_down_again(store: Store, tmp_path: Path) -> None:
    source, target = tmp_path / "up", tmp_path / "deep" / "er" / "down"
    for size in (0, 1000, 3_000_000):
        data = os.urandom(size)
        source.write_bytes(data)
        assert store.upload(source, "file")
        store.download("file", target)
        assert target.read_bytes() == data
    source.write_bytes(b"other")
    assert not store.upload(source, "file", if_absent=True)
    assert store.size("file") == 3_000_000
    assert store.upload(source, "new", if_absent=True)
    assert store.read("new") == b"other"
    with pytest.raises(StoreNotFound):
        store.download("gone", tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
    with pytest.raises(StoreNotFound, match="absent-file"):
        store.upload(tmp_path / "absent-file", "k")
    assert sorted(path.name for path in target.parent.iterdir()) == ["down"]


MOVE = """
import hashlib, resource, sys
from pathlib import Path
from graftline.storage import open_store

store, folder = open_store(sys.argv[1]), Path(sys.argv[2])
store.upload(folder / "small", "small")
store.download("small", folder / "small-back")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
store.upload(folder / "big", "big", if_absent=True)
store.download("big", folder / "back")
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_large_file_needs_bounded_memory_and_arrives_equal(store: Store, tmp_path: Path) -> None:
    block = os.urandom(2**20)
    with (tmp_path / "big").open("wb") as stream:
        for number in range(300):
            stream.write(number.to_bytes(4, "big") + block[4:])
    (tmp_path / "small").write_bytes(b"x")
    done = subprocess.run(
        [sys.executable, "-c", MOVE, store.uri, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) < 200  # MiB more than a process that moved one byte
    digests = set()
    for name in ("big", "back"):
        with (tmp_path / name).open("rb") as stream:
            digests.add(hashlib.file_digest(stream, "sha256").hexdigest())
    assert len(digests) == 1


def test_check_writable_leaves_nothing_behind(store: Store) -> None:
    store.check_writable()
    assert list(store.list()) == []


@pytest.mark.parametrize(
    ("uri", "what"),
    [
        ("s3://", "names no bucket"),
        ("s3:/bucket/x", "names no bucket"),
        ("gs://bucket/x", "not a location that Graftline can open"),
        ("https://host/x", "not a location that Graftline can open"),
        ("file://host/path", "not a local path"),
        ("", "not a location that Graftline can open"),
    ],
)
def test_place_that_cannot_be_opened_is_named_with_the_remedy(uri: str, what: str) -> None:
    with pytest.raises(ConfigurationError, match=what) as caught:
        open_store(uri)
    assert repr(uri) in caught.value.what and caught.value.fix


def test_ways_to_write_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / "a b"
    uris = {open_store(text).uri for text in ("a b", "~/a b", str(folder), folder.as_uri())}
    assert uris == {folder.as_uri()}
    assert open_store("  s3://bucket/some/prefix/ ").uri == "s3://bucket/some/prefix"
