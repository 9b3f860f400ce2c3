"""What `ingest` costs: images a second the first time, and seconds when little or nothing is new.

    python benchmarks/ingest.py                      5,000 small images and 500 photographs' size
    python benchmarks/ingest.py --small 0            only the JPEGs of 500 x 375
    python benchmarks/ingest.py --s3 s3://bucket/x   a bucket of yours instead of moto here
    python benchmarks/ingest.py --memory             also of a million images (references.py)
    python benchmarks/ingest.py --json               one JSON object on stdout

It also measures near-duplicates: how many planted copies share a group with their original, and
how many images are grouped that are not the same picture as any other.

Each source is read from disk and from S3, into a store of the same kind. The limit beside it is
reading and decoding the same files by as many threads, and nothing else. Processor time is that of
the process alone and means something on a shared machine, where seconds mean little. moto is a
Python server on the same cores: its seconds are not those of S3.
"""

import argparse
import dataclasses
import io
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import numpy as np
from look_alikes import false_groups, recall
from PIL import Image
from references import COUNT
from references import measure as references
from rich.console import Console
from rich.table import Table

from graftline.data.sources import open_source
from graftline.images.decode import decode
from graftline.steps.ingest.fetch import THREADS
from graftline.steps.ingest.step import run
from graftline.storage import open_store

BUCKET = "ingest-benchmark"


@dataclasses.dataclass
class Row:
    """Figures of one source in one place.

    Attributes:
        images: What they are.
        place: ``disk`` or ``S3``.
        count: How many.
        seconds: Of the first ingest, of another with nothing new, of one with 1% new.
        cpu: Seconds of processor time for the same.
        limit: Processor time to read and decode everything, and nothing else.
    """

    images: str
    place: str
    count: int
    seconds: list[float]
    cpu: list[float]
    limit: float


def encoded(number: int, size: tuple[int, int], kind: str) -> bytes:
    """A picture with the detail of a photograph: smooth, with some noise."""
    generator = np.random.default_rng(number)
    coarse = Image.fromarray(generator.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC), dtype=np.int16)
    grain = generator.normal(0, 6, smooth.shape).astype(np.int16)
    stream = io.BytesIO()
    image = Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8))
    image.save(stream, kind, quality=87)
    return stream.getvalue()


def fill(uri: str, numbers: range, size: tuple[int, int], kind: str) -> None:
    """Write images into ten class folders."""
    store = open_store(uri)
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(
            lambda n: store.write(f"{n % 10}/{n}.{kind.lower()}", encoded(n, size, kind)), numbers
        ):
            pass


def limit(uri: str) -> float:
    """Processor time to read and decode everything, by as many threads as ingest has."""
    source = open_source(uri)
    entries = source.entries()
    started = time.process_time()
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(lambda entry: decode(source.read(entry)).shape, entries):
            pass
    return time.process_time() - started


def measure(place: str, name: str, count: int, size: tuple[int, int], kind: str) -> Row:
    """Ingest, ingest again, and ingest with 1% of new images."""
    source, store = f"{place}/{name}/images", f"{place}/{name}/store"
    fill(source, range(count), size, kind)
    seconds, cpu = [], []
    with tempfile.TemporaryDirectory() as folder:
        for more in (0, 0, max(1, count // 100)):
            fill(source, range(count, count + more), size, kind)
            started, busy = time.perf_counter(), time.process_time()
            run(source=source, store=store, snapshot_folder=Path(folder))
            seconds.append(time.perf_counter() - started)
            cpu.append(time.process_time() - busy)
    where = "S3" if place.startswith("s3") else "disk"
    return Row(name, where, count, seconds, cpu, limit(source) * count / (count + more))


@contextmanager
def moto() -> Iterator[str]:
    """An S3 server on this machine, and a bucket in it."""
    import boto3

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.environ |= {
        "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    quiet = subprocess.DEVNULL
    server = subprocess.Popen(command, stdout=quiet, stderr=quiet)
    try:
        for _ in range(300):
            with suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/moto-api/").close()
                break
            time.sleep(0.1)
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        yield f"s3://{BUCKET}"
    finally:
        server.terminate()
        server.wait()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", type=int, default=5000, help="64 x 64 PNG files")
    parser.add_argument("--photos", type=int, default=500, help="500 x 375 JPEG files")
    parser.add_argument("--s3", help="a prefix of yours; else moto on this machine")
    parser.add_argument("--originals", type=int, default=200, help="of planted copies; 0: none")
    parser.add_argument("--pictures", type=int, default=2000, help="independent of one another")
    parser.add_argument("--scene", type=int, default=100, help="images of each scene")
    parser.add_argument("--memory", action="store_true", help="of a million images; takes minutes")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = []
    cases = [("64 x 64 PNG", options.small, (64, 64), "PNG")]
    cases += [("500 x 375 JPEG", options.photos, (500, 375), "JPEG")]
    with (
        tempfile.TemporaryDirectory() as disk,
        nullcontext(options.s3) if options.s3 else moto() as bucket,
    ):
        for place in (disk, bucket):
            for case in cases:
                if case[1]:
                    rows.append(measure(str(place), *case))
    table = Table("images", "place", "count", "first", "again", "1% new", "ms CPU/image", "limit")
    for row in rows:
        times = [f"{value:.1f} s" for value in row.seconds]
        each = [f"{1000 * value / row.count:.2f}" for value in (row.cpu[0], row.limit)]
        table.add_row(row.images, row.place, f"{row.count:,}", *times, *each)
    Console(stderr=options.json).print(table)
    result: dict[str, object] = {"rows": [dataclasses.asdict(row) for row in rows]}
    if options.originals:
        result |= near_duplicates(options.originals, options.pictures, options.scene)
        shown = Table("near-duplicates", "share")
        for name, share in result["shares"].items():  # type: ignore[attr-defined]
            shown.add_row(name, f"{share:.2%}")
        Console(stderr=options.json).print(shown)
    if options.memory:
        result["million_references_gib"] = references(COUNT)
        Console(stderr=options.json).print(
            f"A million images, nothing new: {result['million_references_gib']:.2f} GiB"
        )
    if options.json:
        print(json.dumps(result))


def near_duplicates(originals: int, pictures: int, scene: int) -> dict[str, object]:
    """Recall over all kinds of copies, and the share of wrong groups, worst scene included."""
    found, wrong = recall(originals), false_groups(pictures, scene)
    independent = wrong.pop("independent pictures")
    return {
        "near_duplicate_recall": sum(found.values()) / len(found),
        "false_group_rate": independent,
        "false_group_rate_same_scene": max(wrong.values()),
        "shares": {
            **{f"{kind}, found": share for kind, share in found.items()},
            "independent pictures, wrongly grouped": independent,
            **{f"{name}, wrongly grouped": share for name, share in wrong.items()},
        },
    }


if __name__ == "__main__":
    main()
