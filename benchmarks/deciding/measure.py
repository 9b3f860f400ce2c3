"""One data set at one size: the figures, and what each strategy comes to on its test images."""

import dataclasses
import os
import resource
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from graftline.classifier.bundle import Classifier, load_classifier
from graftline.data.snapshot import Snapshot, read_images, read_snapshot
from graftline.features.matrix import read_features
from graftline.images import decode
from graftline.steps.extract_features.step import run as extract_features
from graftline.steps.fine_tune.pilot import subset
from graftline.steps.fine_tune.start_and_outcome import compare
from graftline.steps.fine_tune.training import Order, read, train
from graftline.steps.fit_head.forecast import PILOT_EPOCHS, PILOT_IMAGES
from graftline.steps.fit_head.step import run as fit_head
from graftline.steps.ingest.step import run as ingest
from graftline.storage import open_store

BACKBONE, IMAGE_SIZE = "tf_efficientnet_lite0", 64
# The frozen blocks' output is kept, so only the upper ones run: what a laptop can measure.
TRAINING = {"augment": False}
PROBE = {"c_grid": (0.01, 0.1, 1.0), "folds": 3}
BATCH = 64


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


def measure(name: str, half: str, table: Path, store: str, folder: Path) -> Measured:
    """Run every strategy.

    Args:
        name: The data set.
        half: Its half.
        table: Its images, labels and splits.
        store: Images and features; shared by all sizes of a set.
        folder: Where the steps write.
    """
    shared = {"store": store, "backbone": BACKBONE, "image_size": IMAGE_SIZE}
    snapshot_folder, features_folder = folder / "snapshot", folder / "features"
    ingest(source=str(table), store=store, snapshot_folder=snapshot_folder, near_duplicates="off")
    extract_features(snapshot_folder=snapshot_folder, features_folder=features_folder, **shared)
    began = _processor_seconds()
    fitted = fit_head(
        snapshot_folder=snapshot_folder,
        features_folder=features_folder,
        classifier_folder=folder / "probe",
        decision_file=folder / "decision.json",
        strategy="probe",
        probe=PROBE,
        **shared,
    )
    seconds = {"probe": _processor_seconds() - began}
    snapshot = read_snapshot(snapshot_folder)
    test = snapshot.rows("test")
    features = read_features(features_folder).matrix[test]
    probe = load_classifier(folder / "probe").logits_of_features(features).argmax(1)
    accuracy = {"probe": float((probe == snapshot.labels()[test]).mean())}
    gain = dict[str, float]()
    for kind in ("training", "pilot"):
        began = _processor_seconds()
        used, gain[kind], trained = _trained(folder, store, pilot=kind == "pilot")
        seconds[kind] = _processor_seconds() - began
        if kind == "training":
            accuracy[kind] = _accuracy(trained, snapshot, store)
            accuracy["fine_tune"] = accuracy[kind if used else "probe"]
    figures = {k: v for k, v in fitted.decision["figures"].items() if k != "candidates"}
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


def _trained(folder: Path, store: str, *, pilot: bool) -> tuple[bool, float, Classifier]:
    """Whether the trained network is used, its gain on val, and the network."""
    order = Order(
        snapshot_folder=str(folder / "snapshot"),
        probe_folder=str(folder / "probe"),
        decision_file=str(folder / "decision.json"),
        store=store,
        strategy="fine_tune",
        settings={**TRAINING, **({"epochs": PILOT_EPOCHS} if pilot else {})},
        checkpoint_key=None,
    )
    start = read(order)
    if pilot:
        few = subset(start.snapshot, PILOT_IMAGES, 0)
        start = dataclasses.replace(start, snapshot=few)
    trained = train(order, start, processes=1, on_epoch=None)
    outcome = compare("fine_tune", trained.val_logits, start.held_out.logits, start.truth)
    return outcome.used == "fine_tune", round(outcome.gain, 5), trained.classifier


def _accuracy(classifier: Classifier, snapshot: Snapshot, store: str) -> float:
    classifier.eval()
    rows = snapshot.rows("test")
    found = dict(read_images(snapshot, rows, store=open_store(store)))
    pixels = [decode.decode(found[row]) for row in rows]
    inputs = torch.stack([classifier.preprocessing.apply(image) for image in pixels])
    with torch.inference_mode():
        labels = torch.cat([classifier(part).argmax(1) for part in torch.split(inputs, BATCH)])
    return float((labels.numpy() == snapshot.labels()[rows]).mean())


def _processor_seconds() -> float:
    """Of this process and its children: neighbours on the machine disturb it less than a clock."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return sum(os.times()[:2]) + children.ru_utime + children.ru_stime
