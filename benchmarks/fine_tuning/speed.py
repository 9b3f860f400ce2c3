"""Images a second of Graftline's training, of a plain script, and of ready batches."""

import argparse
import io
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from unittest import mock

import torch
from extraction.photographs import photographs
from PIL import Image
from rich.console import Console
from torch import nn
from torch.utils.data import DataLoader, Subset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from graftline import machine
from graftline.classifier.bundle import Classifier
from graftline.data.snapshot import read_snapshot
from graftline.models.backbone import Backbone, build
from graftline.steps.fine_tune.checkpoints.resume import Checkpoints
from graftline.steps.fine_tune.inputs.images import LocalImages
from graftline.steps.fine_tune.loop import Trainer
from graftline.steps.fine_tune.network.freezing import divide_by, freeze
from graftline.steps.fine_tune.recipe import Settings
from graftline.steps.ingest.step import run as ingest
from graftline.storage import open_store
from graftline_pipelines.local.screen import show_table

BACKBONES = ("tf_efficientnet_lite0", "resnet50")
CLASSES = 2
EPOCHS = 10  # of which the first decodes
# Later epochs in a round, each beside ready batches: one alone lasts two seconds, in which a shared
# machine changes by more than what is measured.
PAIRS = 2
UPPER = 1 / 3
CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
SIZES = {"batch_size": 32, "steps": 8, "plain_steps": 3}
DEVICE_SIZES = {"batch_size": 128, "steps": 40, "plain_steps": 64}
TARGETS = {"times_faster_than_plain": 4.0, "fraction_of_ready_batches": 0.9}

console = Console(stderr=True)
Rates = dict[str, list[float]]


def run(arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    """The two ratios by backbone, each the median of the rounds."""
    found: dict[str, dict[str, float]] = {name: {} for name in TARGETS}
    rows = []
    for backbone in arguments.backbones:
        with tempfile.TemporaryDirectory(prefix="fine-tune-") as folder:
            rates = one_backbone(backbone, Path(folder), arguments)
        whole = [
            EPOCHS / (1 / first + (EPOCHS - 1) / later)
            for first, later in zip(rates["first"], rates["later"], strict=True)
        ]
        ratios = {
            "times_faster_than_plain": _ratio(whole, rates["plain"]),
            "fraction_of_ready_batches": _ratio(whole, rates["ready"]),
        }
        for name, ratio in ratios.items():
            found[name][backbone] = round(ratio, 3)
        medians = [statistics.median(rates[n]) for n in ("plain", "ready", "first", "later")]
        figures = [*(f"{r:.1f}" for r in medians), *(f"{r:.2f}" for r in ratios.values())]
        rows.append((backbone, *figures))
    columns = ("plain", "ready", "first epoch", "later", *TARGETS)
    console.print("Images a second, and ratios", style="bold")
    show_table(("backbone", *columns), rows, console, right=columns)
    return found


def _ratio(ours: list[float], other: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(ours, other, strict=True))


def one_backbone(name: str, folder: Path, arguments: argparse.Namespace) -> Rates:
    """All ways side by side in every round."""
    arguments = with_defaults(arguments)
    _write(folder / "images", arguments.steps * arguments.batch_size)
    ingest(
        source=str(folder / "images"),
        store=str(folder / "store"),
        snapshot_folder=folder / "snapshot",
        split={"train": 0.9, "val": 0.05, "test": 0.05},
        near_duplicates="off",
    )
    rates: Rates = {way: [] for way in ("plain", "ready", "first", "later")}
    for number in range(arguments.rounds):
        rates["plain"].append(_plain(name, folder / "images", arguments))
        for way, rate in _ours(name, folder, arguments, number).items():
            rates[way].append(rate)
        console.print(name, {way: round(found[-1], 1) for way, found in rates.items()})
    return rates


def with_defaults(arguments: argparse.Namespace) -> argparse.Namespace:
    """Sizes that were not given: a GPU needs more images to run for seconds."""
    sizes = DEVICE_SIZES if CUDA else SIZES
    given = {name: getattr(arguments, name) or size for name, size in sizes.items()}
    return argparse.Namespace(**{**vars(arguments), **given})


def _write(folder: Path, count: int) -> None:
    for number, data in enumerate(photographs(count)):
        path = folder / str(number % CLASSES) / f"{number:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def _plain(name: str, folder: Path, arguments: argparse.Namespace) -> float:
    """ImageFolder, RandomResizedCrop, eager fp32, backwards through the whole network."""
    backbone = _network(name)
    network = nn.Sequential(backbone, nn.Linear(backbone.spec.feature_dim, CLASSES)).train()
    size = backbone.spec.preprocessing.input_size
    transform = v2.Compose(
        [
            v2.RandomResizedCrop(size),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(backbone.spec.preprocessing.mean, backbone.spec.preprocessing.std),
        ]
    )
    files = ImageFolder(str(folder), transform, loader=_open)
    workers = machine.cores()
    # What the workers decode ahead while they start is not the rate they keep up.
    warm = 2 * workers if CUDA else 1
    count = (warm + arguments.plain_steps) * arguments.batch_size
    loader = DataLoader(
        Subset(files, [number % len(files) for number in torch.randperm(count).tolist()]),
        arguments.batch_size,
        num_workers=workers,
        pin_memory=CUDA,
    )
    network.to(DEVICE)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)
    batches: Iterator[tuple[torch.Tensor, torch.Tensor]] = iter(loader)

    def step() -> None:
        x, y = (each.to(DEVICE, non_blocking=True) for each in next(batches))
        loss = nn.functional.cross_entropy(network(x), y)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return _rate(step, arguments.plain_steps, arguments.batch_size, warm)


def _open(path: str) -> Image.Image:
    return Image.open(io.BytesIO(Path(path).read_bytes())).convert("RGB")


def _ours(name: str, folder: Path, arguments: argparse.Namespace, number: int) -> dict[str, float]:
    """The trainer's own steps: on ready batches, in the first epoch, and in a later one."""
    snapshot = read_snapshot(folder / "snapshot")
    backbone = _network(name)
    division = divide_by(backbone, UPPER)
    freeze(backbone, division)
    classifier = Classifier(
        backbone,
        nn.Linear(backbone.spec.feature_dim, CLASSES),
        snapshot.classes,
        preprocessing=backbone.spec.preprocessing,
        strategy="fine_tune",
        snapshot_id=snapshot.id,
    )
    settings = Settings(batch_size=arguments.batch_size, epochs=EPOCHS, mix="none", policy="none")
    if arguments.views:
        settings = replace(settings, views=arguments.views)
    store = open_store(str(folder / "store"))
    checkpoints = Checkpoints(store, f"{name}-{number}")
    with closing(LocalImages(snapshot, snapshot.rows("train"), store)) as images:
        trainer = Trainer(classifier, division, snapshot, images, checkpoints, settings, DEVICE)
        with closing(trainer):
            first = _epoch_rate(trainer)
            pairs = [(_epoch_rate(trainer), _ready_rate(trainer, arguments)) for _ in range(PAIRS)]
    later, ready = (statistics.harmonic_mean(rates) for rates in zip(*pairs, strict=True))
    return {"first": first, "later": later, "ready": ready}


def _ready_rate(trainer: Trainer, arguments: argparse.Namespace) -> float:
    """Images a second of the same steps on one batch that is made already."""
    items, rows = next(iter(trainer._rest_of_epoch()))
    x, done = trainer.batches.stacked(items, training=True), trainer.at.steps_done
    with mock.patch.object(trainer.batches, "stacked", lambda *_, **__: x):
        rate = _rate(lambda: trainer._step(items, rows), arguments.steps, arguments.batch_size)
    trainer.at.steps_done = done  # the next epoch has all of its steps
    return rate


def _epoch_rate(trainer: Trainer) -> float:
    """Images a second of one epoch, without its evaluation."""
    began, images = time.perf_counter(), 0
    for items, rows in trainer._rest_of_epoch():
        trainer._step(items, rows)
        images += len(rows)
    trainer.at.epoch += 1
    return images / (time.perf_counter() - began)


def _rate(step: Callable[[], None], steps: int, batch: int, warm: int = 1) -> float:
    for _ in range(warm):  # the first one sets up memory and kernels
        step()
    _wait()
    began = time.perf_counter()
    for _ in range(steps):
        step()
    _wait()
    return steps * batch / (time.perf_counter() - began)


def _wait() -> None:
    if CUDA:
        torch.cuda.synchronize()


def _network(name: str) -> Backbone:
    return build(name, weights="random")
