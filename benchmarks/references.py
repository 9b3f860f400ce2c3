"""How much memory `ingest` takes for a large source that it has seen before.

    python benchmarks/references.py                    a million images
    python benchmarks/references.py --count 200000     fewer
    python benchmarks/references.py --json             one JSON object on stdout

No image is written: what is remembered of the images is made up, and a source lists them. One
process makes it, another one ingests with nothing new, and its peak is taken. All that grows with
the source is there: the listing, the memory of the source, splits, the snapshot and the data page.
"""

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from rich.console import Console
from typing_extensions import override

from graftline.data.shards import ByteRange, shard_key
from graftline.data.snapshot import SPLITS
from graftline.data.sources.base import Entry, Source
from graftline.steps.ingest import step
from graftline.steps.ingest.known import Known, Seen
from graftline.steps.ingest.near_duplicates.duplicates import THUMBNAIL_BYTES, PictureHash
from graftline.steps.ingest.source_index import Memory, save_memory
from graftline.storage import open_store

COUNT = 1_000_000
CLASSES = 100
LIMIT = 2.0  # GiB for a million
SHARD = "ab" * 32


class Listed(Source):
    """A source that lists images in class folders, and has none."""

    format = "folders"

    def __init__(self, count: int) -> None:
        super().__init__()
        self.uri, self.count = "file:///many-images", count

    @override
    def entries(self) -> list[Entry]:
        labels = [f"class_{k:03}" for k in range(CLASSES)]
        return [
            Entry(f"{label}/IMG_{i:08}.jpg", f"{1_700_000_000_000_000_000 + i}:{i}", i, label)
            for i in range(self.count)
            for label in (labels[i % CLASSES],)
        ]

    @override
    def read(self, entry: Entry) -> bytes:
        raise AssertionError(f"{entry.path} was seen before")


def remember(store_uri: str, count: int) -> None:
    """Write what earlier runs would have left in the store."""
    store, source, rng = open_store(store_uri), Listed(count), np.random.default_rng(0)
    memory = Memory()
    for i, entry in enumerate(source.entries()):
        image_id = hashlib.sha256(entry.path.encode()).hexdigest()
        hashed = PictureHash(int(rng.integers(0, 2**63)), rng.bytes(THUMBNAIL_BYTES))
        at = ByteRange(SHARD, i * 100_512, 100_000)
        memory.seen[entry.path] = Seen(entry.path, entry.version, image_id, label=entry.label)
        memory.images[image_id] = Known(image_id, 500, 375, "jpeg", 100_000, hashed, at)
        memory.splits[image_id] = SPLITS[i % len(SPLITS)]
        memory.comparisons.compared.add(image_id)
    store.write(shard_key(SHARD), b"")
    save_memory(store, source.uri, memory, "0" * 32)


def ingest(store_uri: str, count: int) -> float:
    """Ingest with nothing new; the most memory that this process has held comes back, in GiB."""
    setattr(step, "open_source", lambda *_: Listed(count))  # noqa: B010  # the name is imported there
    with tempfile.TemporaryDirectory() as folder:
        step.run(source="file:///many-images", store=store_uri, snapshot_folder=Path(folder))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def measure(count: int = COUNT) -> float:
    """The peak of an ingest of so many images in GiB, in a process of its own."""
    with tempfile.TemporaryDirectory() as store:
        for part in ("remember", "ingest"):
            command = [sys.executable, __file__, "--count", str(count), "--part", part]
            done = subprocess.run([*command, store], check=True, capture_output=True, text=True)
    return float(done.stdout.splitlines()[-1])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--part", choices=("remember", "ingest"), help=argparse.SUPPRESS)
    parser.add_argument("store", nargs="?", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part == "remember":
        remember(options.store, options.count)
    elif options.part == "ingest":
        print(ingest(options.store, options.count))
    else:
        peak = measure(options.count)
        Console(stderr=options.json).print(
            f"{options.count:,} images, nothing new: {peak:.2f} GiB "
            f"(limit for a million: {LIMIT:g} GiB)"
        )
        if options.json:
            print(json.dumps({"references": options.count, "peak_gib": peak}))


if __name__ == "__main__":
    main()
