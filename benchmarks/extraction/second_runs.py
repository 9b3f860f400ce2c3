"""Runs over images whose features are stored: with a few new ones, with none, with a million."""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from extraction.photographs import Data, console, snapshot_of
from extraction.speed import core_seconds
from graftline.features.store import FeatureStore
from graftline.models.backbone import build
from graftline.steps.extract_features.step import plan
from graftline.storage import open_store

AGAIN_IMAGES = 50_000
AGAIN_BACKBONE = "tf_efficientnet_lite0"
MANY = 1_000_000

AGAIN = """
import json, sys, time
from pathlib import Path
from graftline.steps.extract_features.step import run
values = json.loads(sys.argv[1])
started = time.perf_counter()
result = run(
    snapshot_folder=Path(values.pop("snapshot")), features_folder=Path(values.pop("features")),
    **values,
)
print(json.dumps({"seconds": time.perf_counter() - started, "extracted": result.extracted}))
"""


def in_new_process(folder: Path, snapshot: Path, precision: str) -> tuple[float, int]:
    """Seconds of a run in a process of its own, start and imports included; images computed."""
    values = {"snapshot": str(snapshot), "features": str(folder / "artifact")}
    values |= {"store": str(folder / "store"), "backbone": AGAIN_BACKBONE, "precision": precision}
    started, cores = time.perf_counter(), core_seconds()
    done = subprocess.run(
        [sys.executable, "-c", AGAIN, json.dumps(values | {"weights": "random"})],
        check=True,
        capture_output=True,
        text=True,
    )
    seconds, extracted = time.perf_counter() - started, json.loads(done.stdout.splitlines()[-1])
    told = f"{seconds:.1f} s, {core_seconds() - cores:.1f} s of core time"
    console.print(f"{extracted['extracted']:,} images computed: {told}")
    return seconds, extracted["extracted"]


def measure_again(data: Data, precision: str, options: argparse.Namespace) -> dict[str, float]:
    """A first run, then runs in which 1% of the images are new."""
    new = max(1, len(data.ids) // 100)
    old = len(data.ids) - new * options.rounds
    shutil.rmtree(data.folder / "store" / "features", ignore_errors=True)
    first, extracted = in_new_process(data.folder, data.snapshot("first", old), precision)
    assert extracted == old
    seconds = []
    for number in range(1, options.rounds + 1):
        snapshot = data.snapshot(f"again-{number}", old + new * number)
        again, extracted = in_new_process(data.folder, snapshot, precision)
        assert extracted == new
        seconds.append(again)
    told = ", ".join(f"{value:.1f}" for value in seconds)
    console.print(f"First run: {old:,} images, {first:.1f} s. With {new} new ones: {told} s.")
    return {"first": first, "second": statistics.median(seconds), "images": old, "new": new}


def made_up(count: int) -> tuple[list[str], np.ndarray]:
    """Ids of images that are never read."""
    ids = np.random.default_rng(7).integers(0, 256, (count, 32), dtype=np.uint8)
    return [row.tobytes().hex() for row in ids], ids


def stored_vectors(folder: Path, count: int, fingerprint: str, dim: int) -> Path:
    """Put vectors of made-up images into the store, and write the snapshot of these images."""
    names, ids = made_up(count)
    features = FeatureStore(open_store(str(folder / "store")), fingerprint)
    generator = np.random.default_rng(1)
    for first in range(0, count, 12_500):
        part = ids[first : first + 12_500]
        features.write_part(part, generator.random((len(part), dim), np.float32), {})
    shards, offsets = ["0" * 64] * count, [0] * count
    return snapshot_of(
        folder / f"made-up-{count}", str(folder / "store"), names, shards, offsets, offsets
    )


def measure_nothing_new(folder: Path, rounds: int) -> float:
    """Seconds of a whole process that finds 50,000 images stored."""
    snapshot = with_answer(folder, AGAIN_IMAGES)
    seconds = []
    for _ in range(rounds):
        found, extracted = in_new_process(folder, snapshot, "fp32")
        assert extracted == 0
        seconds.append(found)
    return statistics.median(seconds)


def with_answer(folder: Path, count: int) -> Path:
    """A store that knows the request and holds the vectors."""
    backbone = build(AGAIN_BACKBONE, weights="random")
    snapshot = stored_vectors(folder, count, backbone.fingerprint(), backbone.spec.feature_dim)
    plan(
        snapshot_folder=snapshot,
        store=str(folder / "store"),
        backbone=AGAIN_BACKBONE,
        weights="random",
        workers=1,
    )
    return snapshot


MEMORY = """
import json, resource, sys, threading, time
from pathlib import Path
values = json.loads(sys.argv[1])
peak = 0
def watch():
    global peak
    while True:
        lines = Path("/proc/self/status").read_text().splitlines()
        rss = [line for line in lines if line.startswith("Rss")]
        sizes = {line.split(":")[0]: int(line.split()[1]) for line in rss}
        peak = max(peak, sizes["RssAnon"] + sizes["RssShmem"])
        time.sleep(0.02)
threading.Thread(target=watch, daemon=True).start()
from graftline.steps.extract_features.step import run
result = run(
    snapshot_folder=Path(values.pop("snapshot")), features_folder=Path(values.pop("features")),
    **values,
)
assert result.extracted == 0, result
print(json.dumps({"peak_kib": peak}))
"""


def measure_memory(folder: Path) -> float:
    """MiB that the assembly takes besides the matrix, whose pages belong to its file."""
    snapshot = with_answer(folder, MANY)
    values = {"snapshot": str(snapshot), "features": str(folder / "artifact")}
    values |= {"store": str(folder / "store"), "backbone": AGAIN_BACKBONE, "weights": "random"}
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, json.dumps(values)],
        check=True,
        capture_output=True,
        text=True,
    )
    return float(json.loads(done.stdout.splitlines()[-1])["peak_kib"]) / 1024
