"""The dataset snapshot: its id, its files, and what is refused."""

import json
from pathlib import Path

import pyarrow as pa
import pytest

from graftline.data.snapshot import (
    MANIFEST,
    SET_ASIDE,
    Snapshot,
    fetch_snapshot,
    keep_snapshot,
    read_images,
    read_snapshot,
    write_snapshot,
)
from graftline.errors import ConfigurationError, DataError, SchemaVersionError, StoreNotFound
from graftline.storage import open_store

ROW = {
    "source": "a/1.png",
    "source_version": "1",
    "group": "g",
    "width": 3,
    "height": 2,
    "format": "png",
    "bytes": 10,
    "shard": "s",
    "offset": 512,
    "length": 10,
    "dhash": 2**64 - 1,
}


def write(folder: Path, rows: list[dict], schema: pa.Schema = MANIFEST, **where: str) -> Snapshot:
    table = pa.Table.from_pylist([{**ROW, **row} for row in rows], schema=schema)
    places = {"store": "file:///s", "source": "file:///i", **where}
    return write_snapshot(folder, table, pa.Table.from_pylist([], schema=SET_ASIDE), **places)


def rows() -> list[dict]:
    splits = ("train", "val", "test", "train")
    return [
        {"image_id": f"{n:x}" * 64, "label": "ab"[n % 2], "split": splits[n]} for n in (2, 0, 3, 1)
    ]


def test_rows_are_sorted_and_classes_and_splits_are_found(tmp_path: Path) -> None:
    snapshot = write(tmp_path, rows())
    assert len(snapshot) == 4 and snapshot.classes == ("a", "b")
    assert snapshot.image_ids() == [digit * 64 for digit in "0123"]
    assert snapshot.labels().tolist() == [0, 1, 0, 1]
    assert snapshot.rows("train").tolist() == [0, 3] and snapshot.rows().tolist() == [0, 1, 2, 3]
    again = read_snapshot(tmp_path)
    assert again.id == snapshot.id and again.manifest.equals(snapshot.manifest)
    for question in (lambda: snapshot.rows("dev"), lambda: snapshot.column("size")):
        with pytest.raises(ConfigurationError) as caught:
            question()
        assert caught.value.fix


def test_id_says_what_the_data_is_and_not_where_it_stands(tmp_path: Path) -> None:
    first = write(tmp_path / "1", rows()).id
    moved = [
        {**row, "shard": "t", "offset": 9, "source": "x", "source_version": "9"}
        for row in reversed(rows())
    ]
    assert write(tmp_path / "2", moved, store="s3://b", source="s3://c").id == first
    for change in ({"label": "z"}, {"split": "test"}, {"group": "h"}, {"image_id": "f" * 64}):
        changed = [*rows()[:-2], {**rows()[2], **change}, rows()[3]]
        assert write(tmp_path / "3", changed).id != first
    more = MANIFEST.append(pa.field("age", pa.string()))
    aged = write(tmp_path / "4", [{**row, "age": "7"} for row in rows()], more)
    assert aged.id != first and aged.attributes == ("age",)
    assert write(tmp_path / "5", [{**row, "age": "8"} for row in rows()], more).id != aged.id


def test_other_versions_are_refused_with_the_remedy(tmp_path: Path) -> None:
    write(tmp_path, rows())
    head = json.loads((tmp_path / "snapshot.json").read_text())
    for version, words in ((1, "older Graftline"), (3, "newer Graftline"), (None, "older")):
        (tmp_path / "snapshot.json").write_text(json.dumps({**head, "schema_version": version}))
        with pytest.raises(SchemaVersionError, match=words) as caught:
            read_snapshot(tmp_path)
        assert str(version) in caught.value.what and caught.value.fix


def test_damaged_snapshot_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    write(tmp_path, rows())
    whole = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for path, data in whole.items():
        middle = len(data) // 2
        for spoilt in (b"", data[:middle], data[:20] + bytes([data[20] ^ 255]) + data[21:]):
            path.write_bytes(spoilt)
            if path.suffix == ".json" and len(spoilt) == len(data):
                continue  # a changed letter of JSON may be any JSON
            with pytest.raises((DataError, SchemaVersionError)) as caught:
                read_snapshot(tmp_path)
            assert str(tmp_path) in str(caught.value)
        path.unlink()
        with pytest.raises((DataError, StoreNotFound)):
            read_snapshot(tmp_path)
        path.write_bytes(data)
    assert len(read_snapshot(tmp_path)) == 4


def test_kept_snapshot_is_fetched_by_its_id(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    snapshot = write(tmp_path / "one", rows())
    keep_snapshot(store, snapshot)
    keep_snapshot(store, write(tmp_path / "two", [{**row, "shard": "t"} for row in rows()]))
    kept = fetch_snapshot(store, snapshot.id, tmp_path / "kept")
    assert kept.manifest.equals(snapshot.manifest)  # the first stays
    keep_snapshot(store, read_snapshot(tmp_path / "two"), replace=True)
    assert set(fetch_snapshot(store, snapshot.id, tmp_path / "x").column("shard")) == {"t"}
    with pytest.raises(StoreNotFound):
        fetch_snapshot(store, "0" * 32, tmp_path / "none")


def test_storage_order_reads_each_shard_from_front_to_back(make_snapshot) -> None:
    folder, _ = make_snapshot(per_class=15, classes=2)
    snapshot = read_snapshot(folder)
    order = snapshot.storage_order(snapshot.rows())
    offsets = snapshot.column("offset")[order]
    assert sorted(order.tolist()) == list(range(30))
    assert offsets.tolist() == sorted(offsets.tolist())
    assert [row for row, _ in read_images(snapshot, order)] == order.tolist()
