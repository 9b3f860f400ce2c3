"""What `extract_features` makes of this machine: each figure beside its limit or its target.

    python benchmarks/features.py                        everything
    python benchmarks/features.py --backbones resnet50   the speed of one network
    python benchmarks/features.py --only again           second runs

Sections:
    speed    from a snapshot's shards to stored features, on JPEG photographs of 500 x 375: the
             fraction of the limit, and how many times as fast as what a user would write (timm,
             ImageFolder, DataLoader, PyTorch in fp32). On a CPU the limit is the fastest decoding
             and resizing alone and the fastest library's forward pass alone on ready batches, one
             after the other, since both share the cores. On a CUDA device it is the forward pass;
             there the time runs from the first batch of features on, so that the start of the
             processes that decode, about a second once a run, stays out of it, and 60,000
             images keep it going for seconds. Core time counts that start.
    again    the second run among 50,000 images: with 1% of them new, and with nothing new.
    memory   1,000,000 stored vectors assembled into the artifact: memory above the matrix.

Ratios are medians over rounds in which both sides run next to each other: rates alone mean little
on a shared machine. "of core time" is the same fraction in processor time, which neighbours disturb
less: what decoding and the forward pass alone take, of what the extraction takes. "in core time" is
the same for the user's own loop.
With --json the last line is one JSON object.
"""

import argparse
import dataclasses
import hashlib
import io
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import timm
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from graftline import machine
from graftline.backbones import Backbone, build
from graftline.cuda import ON_THEIR_WAY
from graftline.dataset import MANIFEST, SET_ASIDE, write_snapshot
from graftline.decoding import network_input
from graftline.engine import CUDA_BATCH, Engine, resolve_precision
from graftline.extract_features import step
from graftline.extract_features.step import ExtractResult, plan
from graftline.feature_store import FeatureStore
from graftline.lanes import lanes
from graftline.preprocessing import Preprocessing
from graftline.shards import Place, ShardWriter
from graftline.store import open_store
from graftline.trial import CPU_BATCH, Candidates, sample_batch

SECTIONS = ("speed", "again", "memory")
BACKBONES = {
    "tf_efficientnet_lite0": "tf_efficientnet_lite0",
    "resnet50": "resnet50",
    "convnext_nano": "convnext_nano",
    "vit_small": "vit_small_patch16_224",
}
FRACTION_TARGET = 0.9
FASTER_TARGETS = {"tf_efficientnet_lite0": 5.0, "resnet50": 1.8}
AGAIN_IMAGES = 50_000
AGAIN_BACKBONE = "tf_efficientnet_lite0"
AGAIN_TARGET, NOTHING_TARGET, MEMORY_TARGET = 0.03, 2.0, 1024.0
HEIGHT, WIDTH, QUALITY = 375, 500, 92
EAGER_BATCH = 64
EAGER_DEVICE_RATE = 2_000  # images a second with a device, roughly
ON_DEVICE = (1 + ON_THEIR_WAY) * CUDA_BATCH  # when the first batch of features comes out
IMAGES, DEVICE_IMAGES = 6_000, 60_000
DRAWN = 6_000  # photographs that are drawn and compressed; more of them repeat their pixels
DECODED = 240  # images that decoding is measured on
MANY = 1_000_000

Forward = Callable[[np.ndarray], object]

console = Console(stderr=True)


@dataclasses.dataclass(frozen=True)
class Data:
    """Photographs packed into a store, and the first ones as a user's folder."""

    folder: Path
    ids: list[str]
    images: list[bytes]  # the first ones alone
    places: dict[str, Place]

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
    from sklearn.datasets import load_sample_images

    photos = load_sample_images().images
    generator = np.random.default_rng(0)
    for number in range(count):
        photo = photos[number % len(photos)]
        top = generator.integers(0, photo.shape[0] - HEIGHT + 1)
        left = generator.integers(0, photo.shape[1] - WIDTH + 1)
        part = photo[top : top + HEIGHT, left : left + WIDTH].astype(np.float32)
        part = part[:, :: generator.choice((-1, 1))] * generator.uniform(0.8, 1.1)
        stream = io.BytesIO()
        pixels = np.clip(part, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(stream, "JPEG", quality=QUALITY)
        yield stream.getvalue()


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
    return Data(folder, ids, images, writer.places)


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
        "image_id": ids, "shard": shards, "offset": offsets, "length": lengths, "bytes": lengths,
        "source": [f"photo/{number}.jpg" for number in range(rows)],
        "source_version": ["1"] * rows, "label": ["photo"] * rows, "split": ["train"] * rows,
        "group": ids, "width": [WIDTH] * rows, "height": [HEIGHT] * rows,
        "format": ["jpeg"] * rows, "dhash": [0] * rows,
    }  # fmt: skip
    table = pa.table({name: columns[name] for name in MANIFEST.names}, schema=MANIFEST)
    empty = pa.Table.from_pylist([], schema=SET_ASIDE)
    write_snapshot(folder, table, empty, store=store, source="photographs")
    return folder


# --- speed ---------------------------------------------------------------------------------------


@dataclasses.dataclass
class Speed:
    """Images a second of one network in one precision, one value a round."""

    backbone: str
    precision: str
    engine: str = ""
    cosine: float = 1.0
    opening: float = 0.0
    decode: list[float] = dataclasses.field(default_factory=list)
    forward: list[float] = dataclasses.field(default_factory=list)
    end_to_end: list[float] = dataclasses.field(default_factory=list)
    eager: list[float] = dataclasses.field(default_factory=list)
    core_fractions: list[float] = dataclasses.field(default_factory=list)
    core_times: list[float] = dataclasses.field(default_factory=list)

    @property
    def limits(self) -> list[float]:
        """What the machine could do."""
        if torch.cuda.is_available():
            return self.forward
        pairs = zip(self.decode, self.forward, strict=True)
        return [1 / (1 / decode + 1 / forward) for decode, forward in pairs]

    @property
    def fraction(self) -> float:
        """Of the limit, the median round."""
        pairs = zip(self.end_to_end, self.limits, strict=True)
        return statistics.median(found / limit for found, limit in pairs)

    @property
    def times_faster(self) -> float:
        """Than the eager loop, the median round."""
        pairs = zip(self.end_to_end, self.eager, strict=True)
        return statistics.median(found / eager for found, eager in pairs)


def measure_speed(
    data: Data, name: str, precisions: list[str], options: argparse.Namespace
) -> list[Speed]:
    """Rounds of limit, extraction and the user's own loop, next to each other."""
    backbone = build(BACKBONES.get(name, name), weights="random")
    prepare = backbone.spec.preprocessing
    speeds = [Speed(name, precision) for precision in precisions]
    forwards = {precision: forward_runners(backbone, precision) for precision in precisions}
    probe, _ = forward_rate(next(iter(forwards[precisions[0]].values())), prepare, 2.0)
    for number in range(options.rounds):
        eager, eager_cores = eager_rate(data, BACKBONES.get(name, name), options.seconds)
        for speed in speeds:
            decode, decode_cores = decode_rate(data.images, prepare)
            rates = {
                kind: forward_rate(runner, prepare, options.seconds / 2)
                for kind, runner in forwards[speed.precision].items()
            }
            best, forward_cores = max(rates.values())
            limit = 1 / max(best, probe) + (0 if torch.cuda.is_available() else 1 / decode)
            expected = options.count or options.seconds / limit
            found, cores, result, opening = extraction_rate(data, name, speed.precision, expected)
            speed.core_fractions.append((decode_cores + forward_cores) / cores)
            speed.core_times.append(eager_cores / cores)
            speed.decode.append(decode)
            speed.forward.append(best)
            speed.end_to_end.append(found)
            speed.eager.append(eager)
            speed.engine, speed.cosine = result.engine, result.agreement.get("cosine", 1.0)
            speed.opening = opening
            console.print(
                f"{name} {speed.precision} round {number + 1}: decode {decode:.0f}, forward "
                + ", ".join(f"{kind} {rate:.1f}" for kind, (rate, _) in rates.items())
                + f"; limit {speed.limits[-1]:.1f}, found {found:.1f} ({result.engine}, "
                f"{result.extracted} images, opened in {opening:.1f} s), eager {eager:.1f}; "
                f"core ms an image: {1e3 * decode_cores:.2f} + {1e3 * forward_cores:.2f} of "
                f"{1e3 * cores:.2f}, eager {1e3 * eager_cores:.1f}"
            )
    return speeds


def forward_runners(backbone: Backbone, precision: str) -> dict[str, Forward]:
    """Every library that runs this precision on this machine."""
    device = "cuda" if torch.cuda.is_available() else None
    size, lanes = backbone.spec.preprocessing.input_size, machine.cores()
    candidates = Candidates(backbone.eval, None, size, precision, lanes, device)
    return {kind: candidates.get(kind, batch_size()) for kind in candidates.kinds()}


def batch_size() -> int:
    """The engine's own."""
    return CUDA_BATCH if torch.cuda.is_available() else CPU_BATCH


def forward_rate(runner: Forward, prepare: Preprocessing, seconds: float) -> tuple[float, float]:
    """Of the forward pass alone on ready batches: images a second, core seconds an image."""
    if torch.cuda.is_available():
        return device_rate(runner, prepare, seconds)
    batch = sample_batch(CPU_BATCH, prepare.input_size)
    return threaded_rate(lambda _: runner(batch), CPU_BATCH, seconds)


def device_rate(runner: Any, prepare: Preprocessing, seconds: float) -> tuple[float, float]:
    """Of a CUDA graph on a batch on the device: images a second; core time does not count."""
    images = torch.from_numpy(sample_batch(CUDA_BATCH, prepare.input_size)).cuda()
    runner.compute(images)
    torch.cuda.synchronize()
    started, batches = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        for _ in range(8):
            runner.compute(images)
        torch.cuda.synchronize()
        batches += 8
    return batches * CUDA_BATCH / (time.perf_counter() - started), 0.0


def decode_rate(images: list[bytes], prepare: Preprocessing) -> tuple[float, float]:
    """Of the fastest way to decode and resize: images a second, core seconds an image."""
    rates = []
    for decode in (by_graftline, by_pillow):
        way = partial(decode, prepare=prepare)
        way(images[0])
        with lanes(machine.cores(), pytorch=True) as pool:
            started, cores = time.perf_counter(), time.process_time()
            for _ in pool.map(way, images):
                pass
            seconds = time.perf_counter() - started
            rates.append((len(images) / seconds, (time.process_time() - cores) / len(images)))
    return max(rates)


def by_graftline(data: bytes, prepare: Preprocessing) -> np.ndarray:
    """As the engine does it."""
    out = np.empty((3, prepare.input_size, prepare.input_size), np.float32)
    network_input(data, prepare, out)
    return out


def by_pillow(data: bytes, prepare: Preprocessing) -> np.ndarray:
    """What most pipelines do: Pillow decodes and resizes."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    scale = prepare.resize_size / min(image.size)
    side = prepare.input_size / scale
    left, top = (image.width - side) / 2, (image.height - side) / 2
    resampling = Image.Resampling[prepare.interpolation.upper()]
    size = (prepare.input_size, prepare.input_size)
    image = image.resize(size, resampling, box=(left, top, left + side, top + side))
    mean, std = (255 * np.array(each, np.float32) for each in (prepare.mean, prepare.std))
    return ((np.asarray(image, np.float32) - mean) / std).transpose(2, 0, 1)


def threaded_rate(
    work: Callable[[int], object], images: int, seconds: float
) -> tuple[float, float]:
    """Every core repeats a piece of work: images a second, core seconds an image."""
    work(0)
    with lanes(machine.cores(), pytorch=True) as pool:
        started, cores = time.perf_counter(), time.process_time()

        def repeat(_: int) -> int:
            done = 0
            while time.perf_counter() - started < seconds:
                work(0)
                done += images
            return done

        done = sum(pool.map(repeat, range(machine.cores())))
        return done / (time.perf_counter() - started), (time.process_time() - cores) / done


def extraction_rate(
    data: Data, name: str, precision: str, images: float
) -> tuple[float, float, ExtractResult, float]:
    """From shards to stored features, with the engine open.

    On a CUDA device, from the first batch of features on: those that are on the device by then,
    and that batch itself, are not counted.

    Returns:
        Images a second, core seconds an image, the result, seconds until the engine was open.
    """
    block = CUDA_BATCH if torch.cuda.is_available() else machine.cores() * CPU_BATCH
    count = min(len(data.ids) // block * block, max(block, round(images / block) * block))
    snapshot = data.snapshot(f"speed-{count}", count)
    shutil.rmtree(data.folder / "store" / "features", ignore_errors=True)
    opened: list[tuple[float, float]] = []
    first_batch: list[float] = []

    def opens(network: Any) -> Any:
        engine = open_network(network)
        opened.append((time.perf_counter(), core_seconds()))
        return engine

    def runs(engine: Engine, images: Iterable[bytes]) -> Iterator[np.ndarray]:
        for features in run_engine(engine, images):
            if not first_batch:
                first_batch.append(time.perf_counter())
            yield features

    open_network, run_engine = step._Network.open, Engine.run
    with (
        mock.patch.object(step._Network, "open", opens),
        mock.patch.object(Engine, "run", runs),
    ):
        began = time.perf_counter()
        result = step.run(
            snapshot_folder=snapshot,
            store=data.store,
            backbone=BACKBONES.get(name, name),
            weights="random",
            precision=precision,
            features_folder=data.folder / "artifact",
        )
        ended = time.perf_counter(), core_seconds()
    assert result.extracted == count
    started, counted = opened[0][0], count
    if result.engine == "cuda" and count > ON_DEVICE:
        started, counted = first_batch[0], count - ON_DEVICE
    cores = (ended[1] - opened[0][1]) / count
    return counted / (ended[0] - started), cores, result, opened[0][0] - began


def eager_rate(data: Data, architecture: str, seconds: float) -> tuple[float, float]:
    """Of what a user would write: images a second, core seconds an image.

    The time runs once workers and libraries are warm. With a device, all that the workers decode
    ahead has come by then, and several times as much comes after it: files are read repeatedly.
    """
    from torch.utils.data import DataLoader, Subset
    from torchvision.datasets import ImageFolder

    model = timm.create_model(architecture, num_classes=0).eval()
    config = timm.data.resolve_data_config({}, model=model)
    files = ImageFolder(str(data.folder / "files"), timm.data.create_transform(**config))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        warm = 2 * machine.cores()  # batches; a worker decodes two ahead
        batches = max(4 * warm, round(seconds * EAGER_DEVICE_RATE / EAGER_BATCH))
        count = batches * EAGER_BATCH
    else:
        warm = 1
        count = min(len(files), EAGER_BATCH * max(3, round(seconds * 20 / EAGER_BATCH)))
    loader = DataLoader(
        Subset(files, [number % len(files) for number in range(count)]),
        batch_size=EAGER_BATCH,
        num_workers=machine.cores(),
    )
    model.to(device)
    started, cores = 0.0, core_seconds()
    with torch.inference_mode():
        for number, (batch, _) in enumerate(loader, 1):
            model(batch.to(device)).cpu()
            if number == warm:
                started = time.perf_counter()
    ended = time.perf_counter()
    del loader
    return (count - warm * EAGER_BATCH) / (ended - started), (core_seconds() - cores) / count


def core_seconds() -> float:
    """Of this process and of those that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


# --- second runs ---------------------------------------------------------------------------------

AGAIN = """
import json, sys, time
from pathlib import Path
from graftline.extract_features.step import run
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
        check=True, capture_output=True, text=True,
    )  # fmt: skip
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
    plan(snapshot_folder=snapshot, store=str(folder / "store"), backbone=AGAIN_BACKBONE,
         weights="random", workers=1)  # fmt: skip
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
from graftline.extract_features.step import run
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
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return float(json.loads(done.stdout.splitlines()[-1])["peak_kib"]) / 1024


# --- what comes out ------------------------------------------------------------------------------


def speed_table(speeds: list[Speed]) -> Table:
    """Medians of all rounds, a row for each network and precision."""
    table = Table(title="From shards to stored features, images a second (medians)")
    for heading in ("backbone", "precision", "engine", "cosine", "decode", "forward", "limit",
                    "found", "of the limit", "of core time", "eager", "times eager",
                    "in core time"):  # fmt: skip
        table.add_column(heading, justify="left" if heading in ("backbone", "engine") else "right")
    for speed in speeds:
        faster = FASTER_TARGETS.get(speed.backbone)
        table.add_row(
            speed.backbone,
            speed.precision,
            speed.engine,
            f"{speed.cosine:.5f}",
            *(
                f"{statistics.median(values):.1f}"
                for values in (speed.decode, speed.forward, speed.limits, speed.end_to_end)
            ),
            judged(speed.fraction, FRACTION_TARGET, f"{speed.fraction:.2f}", "≥"),
            f"{statistics.median(speed.core_fractions):.2f}",
            f"{statistics.median(speed.eager):.1f}",
            judged(speed.times_faster, faster, f"{speed.times_faster:.1f}", "≥"),
            f"{statistics.median(speed.core_times):.1f}",
        )
    return table


def judged(value: float, target: float | None, text: str, sign: str) -> str:
    """A figure with its target, green where it is met."""
    if target is None:
        return text
    met = value >= target if sign == "≥" else value <= target
    return f"[{'green' if met else 'red'}]{text}[/] ({sign} {target:g})"


def device_name() -> str:
    """The device, or the processor."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{machine.processor().partition(';')[0]}, {machine.cores()} cores"


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--images",
        type=int,
        default=DEVICE_IMAGES if torch.cuda.is_available() else IMAGES,
        help=f"of speed (default: {IMAGES:,}; {DEVICE_IMAGES:,} with a CUDA device)",
    )
    parser.add_argument(
        "--again-images", type=int, default=AGAIN_IMAGES, help="of second runs (default: 50,000)"
    )
    parser.add_argument("--backbones", default=",".join(BACKBONES), help="separated by commas")
    parser.add_argument("--only", choices=SECTIONS, action="append", help="one section; repeatable")
    parser.add_argument("--precision", choices=("fp32", "bf16"), help="default: both where it can")
    parser.add_argument("--rounds", type=int, default=3, help="of each measurement (default: 3)")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each rate (default: 8)")
    parser.add_argument("--count", type=int, help="images of an extraction, in place of --seconds")
    parser.add_argument(
        "--folder", type=Path, help="for 12 GB of temporary files, 16 with a CUDA device"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    return parser.parse_args()


def main() -> None:
    """Measure, print tables, print JSON."""
    options = arguments()
    sections = options.only or SECTIONS
    auto = resolve_precision("auto")
    precisions = [options.precision] if options.precision else sorted({"fp32", auto}, reverse=True)
    found: dict[str, object] = {"device": device_name(), "precision": precisions[-1]}
    console.print(f"{found['device']}; PyTorch {torch.__version__}")
    with tempfile.TemporaryDirectory(prefix="graftline-", dir=options.folder) as name:
        folder = Path(name)
        tables = []
        if "speed" in sections:
            data = make_data(folder / "photos", options.images)
            speeds = [
                speed
                for backbone in options.backbones.split(",")
                for speed in measure_speed(data, backbone, precisions, options)
            ]
            tables.append(speed_table(speeds))
            for key, of in (("fraction_of_limit", "fraction"),
                            ("times_faster_than_eager", "times_faster")):  # fmt: skip
                by = {
                    precision: {
                        speed.backbone: round(getattr(speed, of), 3)
                        for speed in speeds
                        if speed.precision == precision
                    }
                    for precision in precisions
                }
                found[key], found[f"{key}_by_precision"] = by[precisions[-1]], by
            found["in_core_time"] = {
                f"{speed.backbone} {speed.precision}": {
                    "fraction_of_limit": round(statistics.median(speed.core_fractions), 3),
                    "times_faster_than_eager": round(statistics.median(speed.core_times), 2),
                    "cosine": round(speed.cosine, 6),
                }
                for speed in speeds
            }
        tables.append(other := Table("measured", "found", "target", title="Second runs and memory"))
        if "again" in sections:
            data = make_data(folder / "more-photos", options.again_images)
            again = measure_again(data, precisions[-1], options)
            fraction = again["second"] / again["first"]
            found["second_run_fraction"] = round(fraction, 4)
            other.add_row(
                f"second run, {again['new']:.0f} new beside {again['images']:,.0f} images, of the "
                f"first ({again['second']:.1f} s of {again['first']:.1f} s, whole processes)",
                f"{fraction:.3f}", f"≤ {AGAIN_TARGET}",
            )  # fmt: skip
            seconds = measure_nothing_new(folder / "nothing", options.rounds)
            found["nothing_new_seconds_50k"] = round(seconds, 2)
            other.add_row(
                "nothing new among 50,000 images, whole process", f"{seconds:.2f} s",
                f"< {NOTHING_TARGET:g} s",
            )  # fmt: skip
        if "memory" in sections:
            extra = measure_memory(folder / "many")
            found["million_extra_mib"] = round(extra)
            other.add_row(
                "1,000,000 vectors of 1,280 assembled, memory besides the matrix",
                f"{extra:.0f} MiB", f"< {MEMORY_TARGET:g} MiB",
            )  # fmt: skip
    out = Console(width=180)
    for table in tables:
        if table.row_count:
            out.print(table)
    if options.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
