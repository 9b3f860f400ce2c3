"""From a snapshot's shards to stored features, beside the limit and beside a user's own loop."""

import argparse
import dataclasses
import io
import resource
import shutil
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any
from unittest import mock

import numpy as np
import timm
import torch
from PIL import Image

from extraction.photographs import Data, console
from graftline import machine
from graftline.images.preprocessing import Preprocessing
from graftline.inference.autotune import CPU_BATCH, Candidates, sample_batch
from graftline.inference.cpu_pool import cpu_pool
from graftline.inference.cuda import ON_THEIR_WAY
from graftline.inference.decode_workers import network_input
from graftline.inference.engine import CUDA_BATCH, Engine
from graftline.models.backbone import Backbone, build
from graftline.steps.extract_features import step
from graftline.steps.extract_features.step import ExtractResult

BACKBONES = {
    "tf_efficientnet_lite0": "tf_efficientnet_lite0",
    "resnet50": "resnet50",
    "convnext_nano": "convnext_nano",
    "vit_small": "vit_small_patch16_224",
}
EAGER_BATCH = 64
EAGER_DEVICE_RATE = 2_000  # images a second with a device, roughly
ON_DEVICE = (1 + ON_THEIR_WAY) * CUDA_BATCH  # when the first batch of features comes out

Forward = Callable[[np.ndarray], object]


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
        with cpu_pool(machine.cores(), pytorch=True) as pool:
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
    with cpu_pool(machine.cores(), pytorch=True) as pool:
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
