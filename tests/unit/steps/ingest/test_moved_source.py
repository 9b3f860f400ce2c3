"""A folder of images that was moved keeps its splits, by what the next ingest itself reads."""

from pathlib import Path

import pytest

from graftline.steps.ingest.moved_source import carry_memory, uri_before
from graftline.steps.ingest.source_index import last_snapshot_id, memory_key
from graftline.storage import open_store


def test_the_memory_is_found_under_the_new_name_and_never_replaced(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    pointer = b'{"schema_version": 1, "snapshot": "s1"}'
    store.write(memory_key("file:///old/a%20b"), pointer)
    assert not carry_memory(store, "file:///none", "file:///new/a%20b")
    assert carry_memory(store, "file:///old/a%20b", "file:///new/a%20b")
    assert last_snapshot_id(store, "file:///new/a%20b") == "s1"
    store.write(memory_key("file:///older"), pointer.replace(b"s1", b"s0"))
    assert not carry_memory(store, "file:///older", "file:///new/a%20b")
    assert last_snapshot_id(store, "file:///new/a%20b") == "s1"


@pytest.mark.parametrize(
    ("uri", "was"),
    [
        ("file:///new/my%20project/pictures", "file:///old/%C3%BC/pictures"),
        ("file:///new/my%20project", "file:///old/%C3%BC"),
        ("file:///new/my%20project/t.csv", "file:///old/%C3%BC/t.csv"),
        ("file:///new/my%20project2/pictures", None),
        ("s3://bucket/new/my project", None),
    ],
)
def test_what_a_source_was_called_in_a_folder_that_was_moved(uri: str, was: str | None) -> None:
    assert uri_before(uri, Path("/old/ü"), Path("/new/my project")) == was
