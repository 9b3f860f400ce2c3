"""Tests of packed images: they behave as a dictionary, and take a fraction of its memory."""

import dataclasses
import hashlib
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from graftline.data.shards import ByteRange
from graftline.data.sources.base import Entry
from graftline.images.stored_values import Values
from graftline.steps.ingest.known import Known, Seen
from graftline.steps.ingest.near_duplicates.duplicates import THUMBNAIL_BYTES, PictureHash
from graftline.steps.ingest.packed_images import PackedImages
from graftline.steps.ingest.source_index import Memory, load_memory, save_memory
from graftline.storage import open_store

SHARD = "ab" * 32
BYTES_EACH = 1_100  # of what is remembered, so that a million images fit 2 GiB with all else


def known(number: int) -> Known:
    rng = np.random.default_rng(number)
    return Known(
        hashlib.sha256(str(number).encode()).hexdigest(),
        int(rng.integers(1, 2**31)),
        int(rng.integers(1, 2**31)),
        ("png", "jpeg")[number % 2],
        int(rng.integers(0, 2**40)),
        PictureHash(int(rng.integers(0, 2**64, dtype=np.uint64)), rng.bytes(THUMBNAIL_BYTES)),
        ByteRange(SHARD, int(rng.integers(0, 2**40)), int(rng.integers(0, 2**31))),
        Values("uint16", 0.0, 1.0, 2.0, float(number)) if number % 3 == 0 else None,
    )


def test_packed_images_are_a_dictionary_of_images() -> None:
    images, plain = PackedImages(), {}
    for one in map(known, range(20)):
        images[one.image_id] = plain[one.image_id] = one
    first, second, *_ = plain
    images[first] = plain[first] = dataclasses.replace(plain[first], values=None, width=3)
    del images[second], plain[second]
    assert dict(images) == plain
    assert list(images) == list(plain)
    assert len(images) == 19
    assert first in images
    assert second not in images
    with pytest.raises(KeyError):
        images[second]


@pytest.mark.parametrize("change", [{"width": None}, {"bytes": 2**64}, {"image_id": "other"}])
def test_what_no_image_is_is_refused(change: dict[str, object]) -> None:
    one = known(0)
    with pytest.raises(ValueError, match="the image"):
        PackedImages()[one.image_id] = dataclasses.replace(one, **change)  # type: ignore[arg-type]


def test_a_large_memory_comes_back_as_it_was_in_bounded_space(tmp_path: Path) -> None:
    store, count = open_store(str(tmp_path)), 3000
    memory = Memory()
    entries = []
    for one in map(known, range(count)):
        number = len(entries)
        entry = Entry(f"class_{number % 9}/{number:07}.jpg", f"{number:025}", 1, f"c{number % 9}")
        entries.append(entry)
        attributes = {"site": str(number % 5)} if number % 2 else {}
        seen = Seen(entry.path, entry.version, one.image_id, attributes=attributes)
        memory.seen[entry.path] = seen
        memory.images[one.image_id] = one
        memory.splits[one.image_id] = ("train", "val", "test")[number % 3]
        memory.comparisons.compared.add(one.image_id)
    memory.comparisons.answers[tuple(sorted(list(memory.images)[:2]))] = True  # type: ignore[index]
    store.write(f"shards/{SHARD}.tar", b"")
    save_memory(store, "file:///x", memory, "0" * 32)
    tracemalloc.start()
    found = load_memory(store, "file:///x", entries)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.seen == memory.seen
    assert dict(found.images) == dict(memory.images)
    assert found.splits == memory.splits
    assert found.comparisons == memory.comparisons
    assert held < BYTES_EACH * count
    assert load_memory(store, "file:///x").seen == memory.seen  # without the listing, too
