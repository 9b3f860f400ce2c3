"""One data set at one size: the figures, and what each strategy comes to on its test images.

The parts are Graftline's own: folds and search of the probe, blocks, optimiser, schedule, the
start from the probe and the comparison with it. The steps around them (stores, files, checkpoints)
are left out, and the frozen lower half runs once over each image: what a laptop can measure.
"""

import copy
import csv
import os
import resource
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from graftline.classifier.bundle import Classifier, HeldOut
from graftline.data.sampling import stratified_sample
from graftline.models.backbone import Backbone, build
from graftline.steps.fine_tune.freezing import (
    Division,
    divide_by,
    freeze,
    optimizer_for,
    training_mode,
)
from graftline.steps.fine_tune.loop import CLIP_NORM
from graftline.steps.fine_tune.recipe import Settings
from graftline.steps.fine_tune.sampler import Sampler
from graftline.steps.fine_tune.schedule import rate_factor
from graftline.steps.fine_tune.split import Split, split
from graftline.steps.fine_tune.start_and_outcome import compare, from_probe
from graftline.steps.fit_head.folds import make_folds
from graftline.steps.fit_head.forecast import PILOT_EPOCHS, PILOT_IMAGES
from graftline.steps.fit_head.linear import fold
from graftline.steps.fit_head.search import Candidate, fit_candidate, knn_accuracies, search

BACKBONE, IMAGE_SIZE, UNFROZEN = "tf_efficientnet_lite0", 64, 0.5
GRID, FOLDS, NEIGHBOURS = (0.01, 0.1, 1.0), 3, (1, 5, 20)
BATCH = 100

Index = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Measured:
    """One row of the table.

    Attributes:
        set: The data set.
        half: ``fit`` or ``measure``.
        size: Training images it was cut to.
        figures: As ``fit_head`` measures them.
        test_images: How many the accuracies are measured on.
        accuracy: On test images, by strategy: ``probe``, and ``fine_tune`` as the product uses
            it (the probe where validation did not find it better); ``training`` is the trained
            network in any case.
        gain: On validation images, of the training and of the pilot.
        seconds: Processor time of each strategy beyond the features.
    """

    set: str
    half: str
    size: int
    figures: dict[str, Any]
    test_images: int
    accuracy: dict[str, float]
    gain: dict[str, float]
    seconds: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)


@dataclass(frozen=True)
class _Data:
    """Labels and splits of the images, and the outputs of the frozen half for each."""

    labels: Index
    rows: dict[str, Index]
    classes: tuple[str, ...]
    lower: Tensor


@dataclass(frozen=True)
class _Probe:
    """The linear classifier: fitted on train, and refitted on train and val as it is delivered."""

    best: Candidate
    train_only: nn.Module
    final: nn.Module


def measure(name: str, half: str, table: Path) -> Measured:
    """Run every strategy.

    Args:
        name: The data set.
        half: Its half.
        table: Its images, labels and splits.
    """
    backbone = build(BACKBONE, image_size=IMAGE_SIZE)
    division = divide_by(backbone, UNFROZEN)
    freeze(backbone, division)
    halves = split(backbone, division)
    assert halves is not None
    data = _read(table, backbone, halves)
    with torch.no_grad():
        features = _in_parts(halves.upper, data.lower).numpy()
    began = _processor_seconds()
    probe, figures = _fit_probe(features, data)
    seconds = {"probe": _processor_seconds() - began}
    test, truth = data.rows["test"], data.labels[data.rows["test"]]
    right = _predict(probe.final, features[test]) == truth
    accuracy, gain = {"probe": float(right.mean())}, dict[str, float]()
    for kind in ("training", "pilot"):
        began = _processor_seconds()
        used, gain[kind], logits = _trained(backbone, division, features, data, probe, kind)
        seconds[kind] = _processor_seconds() - began
        if kind == "training":
            accuracy[kind] = float((logits.argmax(axis=1) == truth).mean())
            accuracy["fine_tune"] = accuracy[kind if used else "probe"]
    return Measured(
        set=name,
        half=half,
        size=int(table.stem.split("-")[1]),
        figures=figures,
        test_images=len(test),
        accuracy={key: round(value, 5) for key, value in accuracy.items()},
        gain=gain,
        seconds={key: round(value, 2) for key, value in seconds.items()},
    )


def _read(table: Path, backbone: Backbone, halves: Split) -> _Data:
    with table.open(newline="") as file:
        lines = list(csv.DictReader(file))
    classes = tuple(sorted({line["label"] for line in lines}))
    number = {label: i for i, label in enumerate(classes)}
    preprocessing = backbone.spec.preprocessing
    pixels = [np.asarray(Image.open(table.parent / line["image"]).convert("RGB")) for line in lines]
    inputs = torch.stack([preprocessing.apply(image) for image in pixels])
    rows = {
        name: np.flatnonzero([line["split"] == name for line in lines])
        for name in ("train", "val", "test")
    }
    labels = np.array([number[line["label"]] for line in lines])
    return _Data(labels, rows, classes, _in_parts(halves.lower, inputs))


def _fit_probe(features: Floats, data: _Data) -> tuple[_Probe, dict[str, Any]]:
    train, count = data.rows["train"], len(data.classes)
    x, y = features[train], data.labels[train]
    folds = make_folds(y, np.arange(len(y)), data.classes, FOLDS, 0)
    knn = knn_accuracies(x, y, folds, NEIGHBOURS, count)
    best = search(x, y, folds, count, grid=GRID, balanced=False)[0]
    both = np.concatenate([train, data.rows["val"]])
    heads = [
        fold(*fit_candidate(features[rows], data.labels[rows], count, best, balanced=False))
        for rows in (train, both)
    ]
    counts, nearest = np.bincount(y, minlength=count), max(knn, key=lambda k: knn[k])
    figures = {
        "classes": count,
        "train_images": len(y),
        "images_per_class": {
            "min": int(counts.min()),
            "median": float(np.median(counts)),
            "max": int(counts.max()),
        },
        "majority": round(float(counts.max() / counts.sum()), 6),
        "knn": {"k": nearest, "accuracy": round(knn[nearest], 6)},
        "probe": best.to_dict(),
    }
    return _Probe(best, heads[0], heads[1]), figures


def _trained(
    backbone: Backbone,
    division: Division,
    features: Floats,
    data: _Data,
    probe: _Probe,
    kind: str,
) -> tuple[bool, float, Floats]:
    """Whether the trained network is used, its gain on val, and its logits of the test images."""
    val, train = data.rows["val"], data.rows["train"]
    truth, options = data.labels[val], Settings(augment=False, unfreeze=UNFROZEN)
    if kind == "pilot":
        options = replace(options, epochs=PILOT_EPOCHS)
        train = train[stratified_sample(data.labels[train], PILOT_IMAGES, 0)]
    logits = _logits(probe.train_only, features[val])
    state = {name: tensor.detach() for name, tensor in probe.train_only.state_dict().items()}
    network = copy.deepcopy(backbone)
    start = Classifier(
        network,
        probe.train_only,
        data.classes,
        preprocessing=network.spec.preprocessing,
        strategy="probe",
        snapshot_id="",
        backbone_fingerprint="none",
    )
    classifier = from_probe(start, HeldOut(rows=val, logits=logits, head=state), truth)
    freeze(classifier.backbone, division)
    halves = split(classifier.backbone, division)
    assert halves is not None
    best = _train(classifier, halves, division, data, train, options)
    classifier.load_state_dict(best)
    classifier.eval()
    with torch.no_grad():
        found = {
            name: _in_parts(lambda x: classifier.head(halves.upper(x)), data.lower[rows]).numpy()
            for name, rows in (("val", val), ("test", data.rows["test"]))
        }
    outcome = compare("fine_tune", found["val"], logits, truth)
    return outcome.used == "fine_tune", round(outcome.gain, 5), found["test"]


def _train(
    classifier: Classifier,
    halves: Split,
    division: Division,
    data: _Data,
    train: Index,
    options: Settings,
) -> dict[str, Tensor]:
    """The weights of the epoch that is best on val."""
    optimizer = optimizer_for(classifier, division, options)
    sampler = Sampler(train, options.batch_size, options.epochs, options.seed)
    weights = [p for group in optimizer.param_groups for p in group["params"]]
    val, best, at, done = data.rows["val"], dict[str, Tensor](), (-1.0, 0.0), 0
    best_epoch = 0
    for epoch in range(options.epochs):
        for step in range(done, sampler.end_of(epoch)):
            rows = sampler.batch(step)[0]
            factor = rate_factor(step, sampler.steps, options.warmup_fraction)
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * factor
            training_mode(classifier, division, adapt_batch_norm=False)
            logits = classifier.head(halves.upper(data.lower[rows]))
            loss = nn.functional.cross_entropy(logits, torch.from_numpy(data.labels[rows]))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(weights, CLIP_NORM)
            optimizer.step()
        done = sampler.end_of(epoch)
        classifier.eval()
        with torch.no_grad():
            logits = classifier.head(halves.upper(data.lower[val]))
            wanted = torch.from_numpy(data.labels[val])
            right = float((logits.argmax(1) == wanted).float().mean())
            found = (right, -float(nn.functional.cross_entropy(logits, wanted)))
        if not best or found > at:
            at, best_epoch = found, epoch
            best = {key: value.clone() for key, value in classifier.state_dict().items()}
        if epoch - best_epoch >= options.patience:
            break
    return best


def _logits(head: nn.Module, features: Floats) -> Floats:
    with torch.no_grad():
        logits: Floats = head(torch.from_numpy(np.ascontiguousarray(features))).numpy()
    return logits


def _predict(head: nn.Module, features: Floats) -> Index:
    return np.asarray(_logits(head, features).argmax(axis=1))


def _in_parts(function: Any, x: Tensor) -> Tensor:
    return torch.cat([function(part) for part in torch.split(x, BATCH)])


def _processor_seconds() -> float:
    """Of this process and its children: neighbours on the machine disturb it less than a clock."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return sum(os.times()[:2]) + children.ru_utime + children.ru_stime
