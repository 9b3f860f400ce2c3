"""Photographs as a user has them, packed into a store, and snapshots of them."""

import dataclasses
import hashlib
import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image
from rich.console import Console

from graftline import machine
from graftline.data.shards import ByteRange, ShardWriter
from graftline.data.snapshot import MANIFEST, SET_ASIDE, write_snapshot
from graftline.storage import open_store

HEIGHT, WIDTH, QUALITY = 375, 500, 92
DRAWN = 6_000  # photographs that are drawn and compressed; more of them repeat their pixels
DECODED = 240  # images that decoding is measured on

console = Console(stderr=True)


@dataclasses.dataclass(frozen=True)
class Data:
    """Photographs packed into a store, and the first ones as a user's folder."""

    folder: Path
    ids: list[str]
    images: list[bytes]  # the first ones alone
    places: dict[str, ByteRange]

    @property
    def store(self) -> str:
        """URI of the store."""
        return str(self.folder / "store")

    def snapshot(self, name: str, count: int) -> Path:
        """A snapshot of the first images."""
        ids = self.ids[:count]
        found = [self.places[image_id] for image_id in ids]
        return snapshot_of(
            self.folder / name,
            self.store,
            ids,
            [place.shard for place in found],
            [place.offset for place in found],
            [place.length for place in found],
        )


def photographs(count: int) -> Iterator[bytes]:
    """JPEG files of 500 x 375, no two alike. Beyond ``DRAWN`` they differ in a comment alone."""
    drawn = list(dict.fromkeys(_drawn(min(count, DRAWN))))
    for number in range(count):
        data = drawn[number % len(drawn)]
        comment = f"{number // len(drawn):08}".encode()
        yield data[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + data[2:]


def _drawn(count: int) -> Iterator[bytes]:
    """Parts of scikit-learn's two photographs."""
    # Forked: a spawned process would import PyTorch, which takes longer than it saves.
    with ProcessPoolExecutor(machine.cores(), mp_context=get_context("fork")) as pool:
        yield from pool.map(_draw, range(count), chunksize=64)


@cache
def _photos() -> list[np.ndarray]:
    from sklearn.datasets import load_sample_images

    return list(load_sample_images().images)


def _draw(number: int) -> bytes:
    photos, generator = _photos(), np.random.default_rng(number)
    photo = photos[number % len(photos)]
    top = generator.integers(0, photo.shape[0] - HEIGHT + 1)
    left = generator.integers(0, photo.shape[1] - WIDTH + 1)
    part = photo[top : top + HEIGHT, left : left + WIDTH].astype(np.float32)
    part = part[:, :: generator.choice((-1, 1))] * generator.uniform(0.8, 1.1)
    stream = io.BytesIO()
    pixels = np.clip(part, 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(stream, "JPEG", quality=QUALITY)
    return stream.getvalue()


def make_data(folder: Path, count: int) -> Data:
    """Write the photographs both ways."""
    ids, images, size = [], [], 0
    files = folder / "files" / "photo"
    files.mkdir(parents=True)
    with ShardWriter(open_store(str(folder / "store"))) as writer:
        for number, data in enumerate(photographs(count)):
            if number < DRAWN:
                (files / f"{number:06}.jpg").write_bytes(data)
            if number < DECODED:
                images.append(data)
            ids.append(hashlib.sha256(data).hexdigest())
            size += len(data)
            writer.add(ids[-1], data, "jpeg", "photo")
    console.print(f"{count:,} photographs, {size / count / 1000:.0f} kB each")
    return Data(folder, ids, images, writer.byte_ranges)


def snapshot_of(
    folder: Path,
    store: str,
    ids: Sequence[str],
    shards: Sequence[str],
    offsets: Sequence[int],
    lengths: Sequence[int],
) -> Path:
    """Write a snapshot of one class."""
    rows = len(ids)
    columns: dict[str, Sequence[object]] = {
        "image_id": ids,
        "shard": shards,
        "offset": offsets,
        "length": lengths,
        "bytes": lengths,
        "source": [f"photo/{number}.jpg" for number in range(rows)],
        "source_version": ["1"] * rows,
        "label": ["photo"] * rows,
        "split": ["train"] * rows,
        "group": ids,
        "width": [WIDTH] * rows,
        "height": [HEIGHT] * rows,
        "format": ["jpeg"] * rows,
        "dhash": [0] * rows,
    }
    table = pa.table({name: columns[name] for name in MANIFEST.names}, schema=MANIFEST)
    empty = pa.Table.from_pylist([], schema=SET_ASIDE)
    write_snapshot(folder, table, empty, store=store, source="photographs")
    return folder
