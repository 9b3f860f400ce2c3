"""Shards: written once under the digest of their bytes, read by ranges, every image compared."""

import hashlib
import io
import os
import random
import tarfile
from pathlib import Path

import pytest

from graftline.data.shards import RANGE_BYTES, ByteRange, ShardWriter, read_ranges, shard_key
from graftline.errors import IntegrityError, StoreNotFound
from graftline.storage import open_store
from graftline.storage.base import Store


def image(number: int) -> tuple[str, bytes]:
    data = random.Random(number).randbytes(200 + number * 37 % 3000)
    return hashlib.sha256(data).hexdigest(), data


def write(store: Store, count: int, **options: int) -> dict[str, ByteRange]:
    with ShardWriter(store, **options) as writer:
        for number in range(count):
            writer.add(*image(number), "jpeg", f"Käse {number}")
    return writer.byte_ranges


@pytest.fixture(params=["disk", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "disk":
        return open_store(str(tmp_path / "store"))
    return open_store(request.getfixturevalue("s3_bucket"))


class Counting:
    """A store that counts its ranges."""

    def __init__(self, store: Store) -> None:
        self.store, self.uri, self.ranges = store, store.uri, 0

    def read_range(self, key: str, offset: int, length: int) -> bytes:
        self.ranges += 1
        return self.store.read_range(key, offset, length)


def test_images_come_back_in_any_order(store: Store) -> None:
    places = write(store, 60, shard_bytes=30_000)
    assert len({place.shard for place in places.values()}) > 2
    wanted = [(image(number)[0], places[image(number)[0]]) for number in range(60)]
    random.Random(0).shuffle(wanted)
    for (image_id, _), data in zip(wanted, read_ranges(store, wanted), strict=True):
        assert hashlib.sha256(data).hexdigest() == image_id
    assert list(read_ranges(store, [])) == []


def test_shard_is_a_tar_that_webdataset_reads(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    (shard,) = {place.shard for place in write(store, 5).values()}
    data = store.read(shard_key(shard))
    assert hashlib.sha256(data).hexdigest() == shard
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        names = archive.getnames()
        assert len(names) == 10
        for number in range(5):
            image_id, content = image(number)
            assert names[2 * number : 2 * number + 2] == [f"{image_id}.jpg", f"{image_id}.json"]
            assert archive.extractfile(f"{image_id}.jpg").read() == content
            note = archive.extractfile(f"{image_id}.json").read().decode()
            assert note == f'{{"label": "Käse {number}"}}'


def test_neighbours_are_read_as_one_range(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    places = write(store, 300)
    wanted = [(image(number)[0], places[image(number)[0]]) for number in range(300)]
    counting = Counting(store)
    assert len(list(read_ranges(counting, wanted))) == 300
    assert counting.ranges == 1
    scattered = Counting(store)
    assert len(list(read_ranges(scattered, wanted[::-1]))) == 300
    assert scattered.ranges == 300


def test_ranges_are_bounded(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    big = [os.urandom(RANGE_BYTES // 3) for _ in range(7)]
    with ShardWriter(store) as writer:
        for data in big:
            writer.add(hashlib.sha256(data).hexdigest(), data, "png", "x")
    wanted = list(writer.byte_ranges.items())
    counting = Counting(store)
    assert list(read_ranges(counting, wanted)) == big
    assert counting.ranges >= 4


def test_same_images_give_the_same_shards_and_leave_nothing_double(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    first = write(store, 40, shard_bytes=20_000)
    before = [info.key for info in store.list()]
    assert write(store, 40, shard_bytes=20_000) == first
    assert [info.key for info in store.list()] == before


def test_writer_that_fails_leaves_nothing(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    store = open_store(str(tmp_path / "store"))
    with pytest.raises(RuntimeError), ShardWriter(store) as writer:
        writer.add(*image(1), "png", "x")
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == []
    assert write(store, 0) == {}


def test_damaged_image_is_named_and_a_shard_that_is_gone_too(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    places = write(store, 3)
    (shard,) = {place.shard for place in places.values()}
    spoilt = bytearray(store.read(shard_key(shard)))
    damaged, place = list(places.items())[1]
    spoilt[place.offset + 5] ^= 1
    store.write(shard_key(shard), bytes(spoilt))
    with pytest.raises(IntegrityError, match=damaged) as caught:
        list(read_ranges(store, list(places.items())))
    assert "packed again" in str(caught.value.fix)
    good = [pair for pair in places.items() if pair[0] != damaged]
    assert len(list(read_ranges(store, good))) == 2
    store.delete(shard_key(shard))
    with pytest.raises(StoreNotFound):
        list(read_ranges(store, good))


def test_bit_that_flips_underway_once_does_no_harm(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    places = write(store, 3)

    class Flipping(Counting):
        def read_range(self, key: str, offset: int, length: int) -> bytes:
            data = bytearray(super().read_range(key, offset, length))
            if self.ranges == 1:
                data[length // 2] ^= 1
            return bytes(data)

    flipping = Flipping(store)
    for image_id, data in zip(places, read_ranges(flipping, list(places.items())), strict=True):
        assert hashlib.sha256(data).hexdigest() == image_id
    assert flipping.ranges == 2
