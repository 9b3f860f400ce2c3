"""Stored features, on a disk and on an S3 server: append-only, folded, healed, shared."""

import hashlib
import json
import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from graftline.errors import DataError, SchemaVersionError
from graftline.features.part_reader import READERS
from graftline.features.parts import IdIndex, encode_part
from graftline.features.store import SMALL_PARTS, FeatureStore
from graftline.features.writer import PartWriter
from graftline.storage import open_store

DIM = 4


@pytest.fixture(params=["folder", "s3"])
def place(request, tmp_path):
    if request.param == "s3":
        return open_store(request.getfixturevalue("s3_bucket") + "/some/prefix")
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def features(place):
    return FeatureStore(place, "f" * 32)


def ids_of(numbers) -> np.ndarray:
    digests = [hashlib.sha256(str(number).encode()).digest() for number in numbers]
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)


def vectors_of(numbers) -> np.ndarray:
    """What the network gives for an image: a function of the image alone."""
    return np.array([[n, n + 0.25, -n, 1] for n in numbers], np.float32).reshape(-1, DIM)


def write(features: FeatureStore, numbers) -> str:
    return features.write_part(ids_of(numbers), vectors_of(numbers), {"engine": "torch"})


def load(features: FeatureStore, numbers) -> list[int]:
    """Load what is wanted; the numbers that are stored, whose vectors are compared."""
    numbers = list(numbers)
    matrix = np.full((len(numbers), DIM), np.nan, np.float32)
    filled = np.zeros(len(numbers), bool)
    features.load(IdIndex(ids_of(numbers)), matrix, filled)
    assert np.array_equal(matrix[filled], vectors_of(numbers)[filled])
    assert np.isnan(matrix[~filled]).all()
    return [number for number, there in zip(numbers, filled, strict=True) if there]


def bytes_of(store) -> dict[str, bytes]:
    return {info.key: store.read(info.key) for info in store.list()}


def test_nothing_is_stored_at_first(features):
    assert features.parts() == []
    assert features.ids().shape == (0, 32)
    assert load(features, range(3)) == []
    assert features.description() == {}
    assert features.compact() == 0


def test_parts_are_appended_and_never_changed(features):
    write(features, range(5))
    before = bytes_of(features.store)
    write(features, range(5, 8))
    write(features, range(5))  # the same content again is the same part
    after = bytes_of(features.store)
    assert len(after) == 2
    assert before.items() <= after.items()
    assert load(features, [6, 99, 0, 7]) == [6, 0, 7]
    assert np.array_equal(np.sort(features.ids(), axis=0), np.sort(ids_of(range(8)), axis=0))


def test_a_writer_stores_each_batch_as_it_comes_and_folds_its_own(features):
    with PartWriter(features, DIM, {"engine": "torch"}) as writer:
        writer.add(ids_of(range(4)), vectors_of(range(4)))
        wait_until(lambda: load(features, range(4)) == [0, 1, 2, 3])
        for first in range(4, 40, 4):
            writer.add(ids_of(range(first, first + 4)), vectors_of(range(first, first + 4)))
    assert load(features, range(40)) == list(range(40))
    assert len(features.parts()) == 1
    assert features.parts()[0].rows == 40


def test_a_batch_that_is_not_finite_is_refused_and_names_the_image(features):
    vectors = vectors_of(range(3))
    vectors[1, 2] = np.nan
    with (
        pytest.raises(DataError, match=hashlib.sha256(b"1").hexdigest()),
        PartWriter(features, DIM, {}) as writer,
    ):
        writer.add(ids_of(range(3)), vectors)
    assert features.parts() == []


def test_a_failing_store_stops_the_writer_and_keeps_what_was_stored(features, monkeypatch):
    write(features, range(3))
    monkeypatch.setattr(features, "write_part", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"), PartWriter(features, DIM, {}) as writer:
        for number in range(10, 200):
            writer.add(ids_of([number]), vectors_of([number]))
    monkeypatch.undo()
    assert load(features, range(20)) == [0, 1, 2]


def test_many_small_parts_are_folded_into_one_and_few_are_left_alone(features):
    for number in range(SMALL_PARTS):
        write(features, [number, number + 1])  # each image is in two parts
    assert features.compact() == 0
    write(features, [500])
    assert features.compact() == SMALL_PARTS + 1
    (part,) = features.parts()
    assert part.rows == SMALL_PARTS + 2  # each once
    assert load(features, range(SMALL_PARTS + 2)) == list(range(SMALL_PARTS + 1))
    assert features.compact() == 0


def test_whoever_folds_the_same_parts_comes_to_the_same_one(features, place):
    other = FeatureStore(place, "e" * 32)
    for number in range(SMALL_PARTS + 1):
        write(features, [number])
    for number in reversed(range(SMALL_PARTS + 1)):
        write(other, [number])
    assert features.compact() == other.compact() == SMALL_PARTS + 1
    assert [p.key for p in features.parts()] == [p.key for p in other.parts()]


def test_folded_parts_stay_bounded(features, monkeypatch):
    size = len(encode_part(ids_of([0]), vectors_of([0]), {"engine": "torch"}))
    monkeypatch.setattr("graftline.features.store.PART_BYTES", 10 * size)
    monkeypatch.setattr("graftline.features.store.SMALL_PARTS", 3)
    for number in range(30):
        write(features, [number])
    features.compact()
    assert 3 <= len(features.parts()) <= 5
    assert load(features, range(30)) == list(range(30))


def test_readers_see_every_row_while_parts_are_folded_around_them(features):
    """Whatever moment a reader begins at, all rows are there, each with its own vector."""
    for number in range(120):
        write(features, [number])
    stop, looks = threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            looks.append(len(load(features, range(120))))
            looks.append(len(features.ids()))

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        try:
            for _ in range(2):
                assert features.compact() > 0
                for number in range(0, 120, 3):
                    write(features, [number])
        finally:
            stop.set()
        for reader in readers:
            reader.result()
    assert len(looks) >= 4
    assert set(looks) == {120}


def test_two_writers_of_one_fingerprint_end_with_one_right_set(features, place):
    def fill() -> None:
        mine = FeatureStore(place, features.fingerprint)
        with PartWriter(mine, DIM, {"engine": "torch"}) as writer:
            for first in range(0, 200, 5):
                numbers = range(first, first + 5)
                writer.add(ids_of(numbers), vectors_of(numbers))
        mine.compact()

    with ThreadPoolExecutor(2) as pool:
        for each in [pool.submit(fill) for _ in range(2)]:
            each.result()
    assert load(features, range(201)) == list(range(200))
    assert len(features.ids()) == 200
    for number in range(200, 200 + SMALL_PARTS + 1):
        write(features, [number])
    features.compact()
    assert sum(part.rows for part in features.parts()) == 200 + SMALL_PARTS + 1  # each once


DAMAGES = {
    "a flipped bit": lambda data: data[:60] + bytes([data[60] ^ 4]) + data[61:],
    "a flipped bit in the footer": lambda data: data[:-30] + bytes([data[-30] ^ 1]) + data[-29:],
    "cut short": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "not parquet": lambda data: b"<html>gateway timeout</html>",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_part_is_named_set_aside_and_left_to_be_computed_anew(features, damage, caplog):
    write(features, [7])
    key = write(features, range(3))
    broken = DAMAGES[damage](features.store.read(key))
    features.store.write(key, broken)
    with caplog.at_level(logging.INFO):
        assert load(features, [0, 1, 2, 7]) == [7]
    assert key in caplog.text
    assert "computed again" in caplog.text
    aside = f"damaged/{key.rpartition('/')[2]}"
    assert features.store.read(aside) == broken
    assert not features.store.exists(key)

    assert write(features, range(3)) == key  # computed again, it has the same name
    assert load(features, [0, 1, 2, 7]) == [0, 1, 2, 7]


def test_a_part_of_another_width_is_set_aside(features, caplog):
    write(features, [7])
    key = features.write_part(ids_of([1, 2]), np.ones((2, DIM + 1), np.float32), {})
    with caplog.at_level(logging.INFO):
        assert load(features, [1, 2, 7]) == [7]
    assert f"{DIM + 1} wide, not {DIM}" in caplog.text
    assert not features.store.exists(key)


def test_a_part_that_another_run_has_healed_meanwhile_is_left_where_it_is(features):
    """Computed again, it has the old name: a slow reader must not move the whole one away."""
    key = write(features, range(3))
    (part,) = features.parts()
    features.reader.set_aside(part, "it was damaged when it was read")
    assert features.store.exists(key)
    assert load(features, range(3)) == [0, 1, 2]


def test_damage_in_the_ids_is_seen_where_only_they_are_read(features):
    write(features, [7])
    key = write(features, range(3))
    data = features.store.read(key)
    at = data.index(ids_of([1]).tobytes())
    features.store.write(key, data[:at] + b"\0" + data[at + 1 :])
    assert np.array_equal(features.ids(), ids_of([7]))
    assert not features.store.exists(key)


def flip_at_rest(features, key: str, at: int) -> None:
    """Change one byte behind the back of the store, what it notes beside the bytes left alone."""
    store = features.store
    if not hasattr(store, "client"):
        path = store.root / key
        data = bytearray(path.read_bytes())
        data[at] ^= 1
        path.write_bytes(data)
        return
    place = {"Bucket": store.bucket, "Key": store.name(key)}
    found = store.client.get_object(**place)
    data = bytearray(found["Body"].read())
    data[at] ^= 1
    store.client.put_object(**place, Body=bytes(data), Metadata=found["Metadata"])


@pytest.mark.parametrize("at", [-1, 60, 700])
def test_a_part_that_was_damaged_at_rest_is_set_aside_by_whoever_reads_it(features, at):
    write(features, [7])
    key = write(features, range(30))
    flip_at_rest(features, key, at)
    assert [part.key for part, reason in features.check() if reason] == [key]
    assert load(features, [1, 7]) == [7]
    assert not features.store.exists(key)
    assert features.store.exists(f"damaged/{key.rpartition('/')[2]}")
    write(features, range(30))
    assert load(features, range(30)) == list(range(30))


def test_a_description_that_was_damaged_at_rest_is_none(features):
    features.describe({"name": "timm/resnet18"})
    flip_at_rest(features, "backbone.json", 5)
    assert features.description() == {}


def test_a_part_is_written_again_where_one_of_its_name_is_damaged(features):
    key = write(features, range(5))
    flip_at_rest(features, key, -1)
    assert write(features, range(5)) == key
    assert load(features, range(5)) == list(range(5))


def test_what_was_healed_while_it_was_moved_aside_stays(features, monkeypatch):
    key = write(features, range(3))
    (part,) = features.parts()
    flip_at_rest(features, key, -1)
    move = features.store.write

    def healed_meanwhile(name: str, data: bytes) -> None:
        move(name, data)
        if name.startswith("damaged/"):
            monkeypatch.undo()
            write(features, range(3))

    monkeypatch.setattr(features.store, "write", healed_meanwhile)
    features.reader.set_aside(part, "it is damaged")
    assert load(features, range(3)) == [0, 1, 2]


def test_rows_of_two_runs_at_once_are_kept_once_by_the_next(features, place):
    def rows() -> int:
        return sum(part.rows for part in features.parts())

    write(features, range(10))
    write(features, range(5, 15))
    write(features, range(3, 6))
    assert rows() == 23
    features.compact()
    assert rows() == 23, "nobody has read them yet"
    assert load(features, range(15)) == list(range(15))
    others = FeatureStore(place, features.fingerprint)
    assert load(others, range(15)) == list(range(15))
    with ThreadPoolExecutor(2) as pool:  # two runs end at the same time
        list(pool.map(FeatureStore.compact, (features, others)))
    assert rows() == 15
    assert load(features, range(15)) == list(range(15))


def test_damaged_parts_are_not_folded_into_whole_ones(features):
    keys = [write(features, [number]) for number in range(SMALL_PARTS + 5)]
    data = features.store.read(keys[3])
    features.store.write(keys[3], data[:-1])
    features.compact()  # sets it aside
    features.compact()
    assert load(features, range(SMALL_PARTS + 5)) == [
        number for number in range(SMALL_PARTS + 5) if number != 3
    ]


def test_another_schema_version_of_a_part_stops_the_run(features, monkeypatch):
    monkeypatch.setattr("graftline.features.parts.SCHEMA_VERSION", 0)
    key = write(features, range(3))
    monkeypatch.undo()
    with pytest.raises(SchemaVersionError, match="older Graftline"):
        load(features, range(3))
    with pytest.raises(SchemaVersionError, match="schema version 0"):
        features.ids()
    assert features.store.exists(key)  # it is not damaged


def test_what_made_the_features_is_said_once_and_read_back(features):
    features.describe({"name": "timm/resnet18", "precision": "fp32"})
    features.describe({"name": "another", "precision": "bf16"})
    assert features.description()["name"] == "timm/resnet18"
    features.store.write("backbone.json", b"{broken")
    assert features.description() == {}
    features.store.write("backbone.json", json.dumps({"schema_version": 0}).encode())
    with pytest.raises(SchemaVersionError, match="schema version 0"):
        features.description()


def test_checking_reads_every_part_and_changes_nothing(features):
    write(features, [7])
    key = write(features, range(3))
    features.store.write(key, features.store.read(key)[:-5])
    before = bytes_of(features.store)
    found = {part.key: reason for part, reason in features.check()}
    assert len(found) == 2
    assert [bad for bad, reason in found.items() if reason is not None] == [key]
    assert bytes_of(features.store) == before


def test_parts_are_read_a_few_ahead_whatever_their_number(features, monkeypatch):
    """Memory is bounded by the size of a few parts, not by how many there are."""
    for number in range(20):
        write(features, [number])
    read, plain = [], features.store.read
    monkeypatch.setattr(features.store, "read", lambda key: (read.append(key), plain(key))[1])
    for consumed, _ in enumerate(features.reader.each(features.parts(), vectors=True)):
        assert len(read) <= consumed + READERS
    assert len(read) == 20


def test_strangers_among_the_parts_are_left_alone(features):
    features.store.write("parts/notes.txt", b"hello")
    write(features, [1])
    assert load(features, [1]) == [1]
    assert len(features.parts()) == 1
    assert features.store.exists("parts/notes.txt")


def wait_until(condition, seconds: float = 30) -> None:
    waiting = threading.Event()
    for _ in range(int(seconds / 0.01)):
        if condition():
            return
        waiting.wait(0.01)
    raise AssertionError("it did not come to pass")
