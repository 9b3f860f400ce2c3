"""The commit protocol: names by content, manifests with a token and their own sha256."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from tests.service.fault_proxy import FaultProxy

from graftline.errors import IntegrityError, PreconditionFailed, StoreNotFound
from graftline.storage import commit, open_store
from graftline.storage.base import Store


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return open_store(str(tmp_path / "store"))
    return open_store(f"{request.getfixturevalue('s3_bucket')}/store")


def test_an_object_has_the_sha256_of_its_bytes_in_its_name(store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    digest = hashlib.sha256(b"abc").hexdigest()
    assert commit.put_file(store, tmp_path / "file", "x/{sha256}.bin") == f"x/{digest}.bin"
    assert commit.put_bytes(store, b"abc", "x/{sha256}.bin") == f"x/{digest}.bin"
    commit.fetch_file(store, f"x/{digest}.bin", digest, tmp_path / "deep" / "back")
    assert (tmp_path / "deep" / "back").read_bytes() == b"abc"
    assert commit.fetch_bytes(store, f"x/{digest}.bin", digest) == b"abc"
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["back"]


def test_an_object_that_is_not_what_its_name_says_is_an_error_and_mended_on_request(
    store: Store, tmp_path: Path
) -> None:
    key = commit.put_bytes(store, b"abc", "x/{sha256}")
    digest = key.removeprefix("x/")
    store.write(key, b"abd")
    (tmp_path / "back").write_bytes(b"before")
    with pytest.raises(IntegrityError, match=digest):
        commit.fetch_file(store, key, digest, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b"before"
    with pytest.raises(IntegrityError, match=digest):
        commit.fetch_bytes(store, key, digest)
    commit.put_bytes(store, b"abc", "x/{sha256}")
    assert store.read(key) == b"abd"
    commit.put_bytes(store, b"abc", "x/{sha256}", repair=True)
    assert store.read(key) == b"abc"
    store.write(key, b"abd")
    (tmp_path / "file").write_bytes(b"abc")
    commit.put_file(store, tmp_path / "file", "x/{sha256}", repair=True)
    assert store.read(key) == b"abc"


def test_a_manifest_is_created_once_and_replaced_by_compare_and_swap(store: Store) -> None:
    assert commit.create(store, "m.json", {"a": 1})
    assert not commit.create(store, "m.json", {"a": 1})  # equal content, another commit
    first = commit.read(store, "m.json")
    assert first.content == {"a": 1}
    version = commit.replace(store, "m.json", {"a": 2}, first.version)
    with pytest.raises(PreconditionFailed):
        commit.replace(store, "m.json", {"a": 3}, first.version)
    with pytest.raises(PreconditionFailed):
        commit.replace(store, "m.json", {"a": 3}, None)
    assert commit.read(store, "m.json").content == {"a": 2}
    assert commit.read(store, "m.json").version == version
    commit.overwrite(store, "m.json", {"a": 4})
    assert commit.read(store, "m.json").content == {"a": 4}
    with pytest.raises(StoreNotFound):
        commit.read(store, "none.json")


def test_any_changed_byte_of_a_manifest_is_noticed(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    commit.create(store, "m.json", {"tables": {"a": "b" * 64}, "n": 1.5})
    whole = store.read("m.json")
    expected = commit.read(store, "m.json").content
    for place in range(len(whole)):
        for bit in (1, 16):
            changed = whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :]
            store.write("m.json", changed)
            try:
                found = commit.read(store, "m.json").content
            except IntegrityError:
                continue
            # Only what JSON reads alike, white space, may change unnoticed.
            assert found == expected and json.loads(changed) == json.loads(whole), changed
        store.write("m.json", whole[:place])
        with pytest.raises(IntegrityError):
            commit.read(store, "m.json")


def test_a_manifest_of_an_earlier_version_is_read_as_it_is(store: Store) -> None:
    store.write("m.json", b'{"schema_version": 1, "snapshot": "x"}')
    assert commit.read(store, "m.json").content == {"schema_version": 1, "snapshot": "x"}


@pytest.mark.parametrize("who", ["the writer", "a proxy on the way"])
def test_ones_own_lost_acknowledgement_is_recognised(
    who: str, s3_server: str, s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks again after a write that was done is told 412, by its own object."""
    with FaultProxy(s3_server) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
        store = open_store(f"{s3_bucket}/store")
        commit.create(store, "n.json", {"n": 1})
        version = commit.read(store, "n.json").version
        fault = "lost" if who == "the writer" else "twice"
        proxy.only, proxy.faults = "PUT", [(fault, 1)]
        assert commit.create(store, "m.json", {"m": 1})
        assert not proxy.faults
        proxy.faults = [(fault, 1)]
        commit.replace(store, "n.json", {"n": 2}, version)
        assert not proxy.faults
        assert commit.read(store, "m.json").content == {"m": 1}
        assert commit.read(store, "n.json").content == {"n": 2}
        assert not commit.create(store, "m.json", {"m": 2})


@pytest.mark.parametrize("write", ["create", "replace"])
def test_a_store_that_accepts_and_forgets_is_an_error(
    write: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(str(tmp_path))
    arguments: tuple[Any, ...] = ({"a": 1},) if write == "create" else ({"a": 1}, None)
    monkeypatch.setattr(type(store), "write_if_absent", lambda *_: True)
    monkeypatch.setattr(type(store), "write_if_match", lambda *_: "version")
    with pytest.raises(IntegrityError, match="not what was just written") as caught:
        getattr(commit, write)(store, "m.json", *arguments)
    assert "doctor" in str(caught.value.fix)
