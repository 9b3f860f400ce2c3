"""One data set at one size: the figures, and what each strategy comes to on its test images.

The parts are Graftline's own: folds and search of the probe, the head, blocks, optimiser, schedule,
the start from the probe and the comparison with it. The steps around them (stores, files,
checkpoints) are left out, and the frozen lower half runs once over each image and its crops.
"""

import csv
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from deciding.scores import h_score, log_me
from deciding.training import DEVICE, VIEWS, Data, Floats, Trained, crops, in_parts, pixels, train
from graftline.data.sampling import stratified_sample
from graftline.models.backbone import Backbone, build
from graftline.steps.fine_tune.freezing import Division, divide_by, freeze
from graftline.steps.fine_tune.recipe import Settings
from graftline.steps.fine_tune.split import Split, split
from graftline.steps.fine_tune.start_and_outcome import compare
from graftline.steps.fit_head.divided import Divided
from graftline.steps.fit_head.folding import fold
from graftline.steps.fit_head.folds import make_folds
from graftline.steps.fit_head.forecast import PILOT_EPOCHS, PILOT_IMAGES
from graftline.steps.fit_head.learning_curve import learning_curve
from graftline.steps.fit_head.mlp import train_mlp
from graftline.steps.fit_head.probe import Rows
from graftline.steps.fit_head.search import Candidate, fit_candidate, knn_accuracies, search
from graftline.steps.fit_head.suspects import out_of_fold

BACKBONE, IMAGE_SIZE, UNFROZEN = "tf_efficientnet_lite0", 64, 0.5
GRID, FOLDS, NEIGHBOURS = (0.01, 0.1, 1.0), 3, (1, 5, 20)
OTHERS = 1000  # images at most that a paired pilot is measured on

Scored = dict[str, Any]


@dataclass(frozen=True)
class Measured:
    """One row of the table.

    Attributes:
        set: The data set.
        half: ``fit`` or ``measure``.
        size: Training images it was cut to.
        figures: As ``fit_head`` measures them.
        test_images: How many the accuracies are measured on.
        accuracy: On test images, by strategy: ``probe``, ``head``, and ``fine_tune`` as the product
            uses it (the probe where validation did not find it better); ``training`` is the
            trained network in any case.
        gain: On validation images, of the training and of the pilot.
        seconds: Processor time of each strategy beyond the features.
        trials: Of each training and pilot: accuracy and loss by epoch, and what it was
            compared with.
        scores: LogME and H-score of the features, and the head in one fold.
    """

    set: str
    half: str
    size: int
    figures: dict[str, Any]
    test_images: int
    accuracy: dict[str, float]
    gain: dict[str, float]
    seconds: dict[str, float]
    trials: dict[str, Scored]
    scores: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)


@dataclass(frozen=True)
class _Probe:
    """The linear classifier: fitted on train, and refitted on train and val as it is delivered."""

    best: Candidate
    train_only: nn.Module
    final: nn.Module


@dataclass
class _Clock:
    """Processor time of this process by what it was spent on; neighbours hardly disturb it."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        began = time.process_time()
        yield
        spent = self.seconds.get(name, 0.0) + time.process_time() - began
        self.seconds[name] = round(spent, 2)


@dataclass(frozen=True)
class _Network:
    """The backbone as it was before any training, and its trained half."""

    backbone: Backbone
    division: Division
    halves: Split


def measure(name: str, half: str, table: Path) -> Measured:
    """Run every strategy.

    Args:
        name: The data set.
        half: Its half.
        table: Its images, labels and splits.
    """
    network, clock = _network(), _Clock()
    data = _read(table, network, clock)
    with torch.no_grad():
        features: Floats = in_parts(network.halves.upper, data.lower).cpu().numpy()
    with clock("probe"):
        probe, figures = _fit_probe(features, data)
    test = data.rows["test"]
    accuracy = {"probe": _accuracy(_logits(probe.final, features[test]), data, test)}
    with clock("head"):
        accuracy["head"], scores = _fit_head(features, data)
    train_rows = data.rows["train"]
    scores |= {
        "log_me": round(log_me(features[train_rows], data.labels[train_rows]), 5),
        "h_score": round(h_score(features[train_rows], data.labels[train_rows]), 5),
    }
    trials = dict[str, Scored]()
    for kind, rows, epochs, paired in _plans(data):
        with clock(kind):
            trials[kind], logits = _trial(network, features, data, probe, rows, epochs, paired)
        if kind == "training":
            accuracy["training"] = _accuracy(logits["test"], data, test)
            used = trials[kind]["used"]
            accuracy["fine_tune"] = accuracy["training" if used == "fine_tune" else "probe"]
    clock.seconds["training"] = round(clock.seconds["training"] + clock.seconds["crops"], 2)
    return Measured(
        set=name,
        half=half,
        size=int(table.stem.split("-")[1]),
        figures=figures,
        test_images=len(test),
        accuracy=accuracy,
        gain={kind: trial["gain"] for kind, trial in trials.items()},
        seconds=clock.seconds,
        trials=trials,
        scores=scores,
    )


def _plans(data: Data) -> Iterator[tuple[str, Rows, int, bool]]:
    """Each training: its name, images, epochs, and whether a probe on the same images is beaten."""
    rows, labels = data.rows["train"], data.labels[data.rows["train"]]

    def some(count: int) -> Rows:
        return rows if count >= len(rows) else rows[stratified_sample(labels, count, 0)]

    yield "training", rows, Settings().epochs, False
    yield "pilot", some(PILOT_IMAGES), PILOT_EPOCHS, False
    yield "pilot_paired", some(max(60, len(rows) // 4)), PILOT_EPOCHS, True


def _network() -> _Network:
    backbone = build(BACKBONE, image_size=IMAGE_SIZE).to(DEVICE)
    division = divide_by(backbone, UNFROZEN)
    freeze(backbone, division)
    halves = split(backbone, division)
    assert halves is not None
    return _Network(backbone, division, halves)


def _read(table: Path, network: _Network, clock: _Clock) -> Data:
    with table.open(newline="") as file:
        lines = list(csv.DictReader(file))
    classes = tuple(sorted({line["label"] for line in lines}))
    number = {label: i for i, label in enumerate(classes)}
    images = [pixels(table.parent / line["image"]) for line in lines]
    preprocessing = network.backbone.spec.preprocessing
    inputs = torch.stack([preprocessing.apply(image) for image in images])
    rows = {
        name: np.flatnonzero([line["split"] == name for line in lines])
        for name in ("train", "val", "test")
    }
    lower = in_parts(network.halves.lower, inputs.to(DEVICE))
    place = np.full(len(lines), -1)
    place[rows["train"]] = np.arange(len(rows["train"]))
    with clock("crops"):
        views = crops([images[row] for row in rows["train"]], network.backbone, network.halves)
    labels = np.array([number[line["label"]] for line in lines])
    return Data(labels, rows, classes, lower, views, place)


def _fit_probe(features: Floats, data: Data) -> tuple[_Probe, dict[str, Any]]:
    rows, count = data.rows["train"], len(data.classes)
    x, y = features[rows], data.labels[rows]
    folds = make_folds(y, np.arange(len(y)), data.classes, FOLDS, 0)
    knn = knn_accuracies(x, y, folds, NEIGHBOURS, count)
    divided = Divided(x, y, folds)
    found = search(x, y, folds, count, grid=GRID, balanced=False, divided=divided)
    best, both = found[0], np.concatenate([rows, data.rows["val"]])
    heads = [_probe_on(features, data, best, part) for part in (rows, both)]
    counts, nearest = np.bincount(y, minlength=count), max(knn, key=lambda k: knn[k])
    curve = learning_curve(
        x,
        y,
        np.arange(len(y)),
        folds,
        out_of_fold(divided, count, best, balanced=False),
        best,
        train_images=len(y),
        balanced=False,
        seed=0,
    )
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
        "learning_curve": {"points": curve["points"]},
    }
    return _Probe(best, heads[0], heads[1]), figures


def _probe_on(features: Floats, data: Data, best: Candidate, rows: Rows) -> nn.Module:
    count = len(data.classes)
    return fold(*fit_candidate(features[rows], data.labels[rows], count, best, balanced=False))


def _fit_head(features: Floats, data: Data) -> tuple[float, dict[str, float]]:
    """Accuracy on test images of the head, and in the fold that chose its epochs."""
    rows, count = data.rows["train"], len(data.classes)
    folds = make_folds(data.labels[rows], np.arange(len(rows)), data.classes, 5, 0)
    inside, outside = (rows[part] for part in next(iter(folds)))

    def given(some: Rows) -> tuple[Floats, Rows]:
        return features[some], data.labels[some]

    stopped = train_mlp(given(inside), given(outside), count)
    both, test = np.concatenate([rows, data.rows["val"]]), data.rows["test"]
    head = train_mlp(given(both), None, count, epochs=stopped.best_epoch).head
    scores = {"head_fold": round(stopped.val_accuracy, 5)}
    return _accuracy(_logits(head, features[test]), data, test), scores


def _trial(
    network: _Network,
    features: Floats,
    data: Data,
    probe: _Probe,
    rows: Rows,
    epochs: int,
    paired: bool,
) -> tuple[Scored, dict[str, Floats]]:
    """A training, and what its network came to against the probe on images that neither saw."""
    options = replace(Settings(unfreeze=UNFROZEN, views=VIEWS), epochs=epochs)
    wanted = {"val": data.rows["val"], "test": data.rows["test"]}
    head, judges = probe.train_only, data.rows["val"]
    if paired:
        head = _probe_on(features, data, probe.best, rows)
        others = np.setdiff1d(data.rows["train"], rows)[:OTHERS]
        judges = np.concatenate([judges, others])
    wanted["judges"] = judges
    found = train(network.backbone, network.division, data, head, rows, options, wanted)
    before, truth = _logits(head, features[judges]), data.labels[judges]
    outcome = compare("fine_tune", found.logits["judges"], before, truth)
    return _scored(found, before, truth, len(rows)) | {
        "used": outcome.used,
        "gain": round(outcome.gain, 5),
        "gain_interval": [round(value, 5) for value in outcome.gain_interval],
    }, found.logits


def _scored(found: Trained, before: Floats, truth: NDArray[np.int64], images: int) -> Scored:
    def loss(logits: Floats) -> float:
        x, y = torch.from_numpy(logits), torch.from_numpy(truth)
        return round(float(nn.functional.cross_entropy(x, y)), 5)

    return {
        "images": images,
        "passes": found.passes,
        "history": found.history,
        "best_epoch": found.best_epoch,
        "judges": len(truth),
        "loss": loss(found.logits["judges"]),
        "probe_loss": loss(before),
        "probe_accuracy": round(float((before.argmax(axis=1) == truth).mean()), 5),
    }


def _logits(head: nn.Module, features: Floats) -> Floats:
    with torch.no_grad():
        logits: Floats = head(torch.from_numpy(np.ascontiguousarray(features))).numpy()
    return logits


def _accuracy(logits: Floats, data: Data, rows: Rows) -> float:
    return round(float((logits.argmax(axis=1) == data.labels[rows]).mean()), 5)
