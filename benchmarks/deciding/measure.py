"""One data set at one size: the figures, and what each strategy comes to on its test images.

The steps themselves run (ingest, extract_features, fit_head, fine_tune's training) with their
defaults, so there is no second copy of a recipe. Only the pages are left out.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from deciding.scores import h_score, log_me
from deciding.sets import Cut
from graftline.classifier.bundle import Classifier, load_classifier, read_held_out
from graftline.data.snapshot import Snapshot, read_images, read_snapshot
from graftline.features.matrix import read_features
from graftline.images import decode
from graftline.progress import message
from graftline.records.decision import read_decision
from graftline.steps.extract_features.step import run as extract_features
from graftline.steps.fine_tune.recipe import Settings
from graftline.steps.fine_tune.start_and_outcome import compare
from graftline.steps.fine_tune.training import ALONE as ONE_PROCESS
from graftline.steps.fine_tune.training import Order, read, train
from graftline.steps.fit_head.block_candidate import Start, try_all_blocks
from graftline.steps.fit_head.config import AutoSettings, FitHeadConfig
from graftline.steps.fit_head.fitted import Fitted, fit_layers, fit_probe
from graftline.steps.fit_head.probe import measure as measured
from graftline.steps.fit_head.step import run as fit_head
from graftline.steps.ingest.step import run as ingest
from graftline.storage import open_store

BACKBONE, IMAGE_SIZE = "tf_efficientnet_lite0", 64
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
BATCH = 100
# Of the settings that decide what a training comes to; `auto` stands for what the cell says.
RECIPE = {
    name: value
    for name, value in asdict(Settings()).items()
    if name in ("epochs", "learning_rate", "layer_decay", "unfreeze", "ema", "patience")
}

Floats = NDArray[np.float32]
Scored = dict[str, Any]


@dataclass(frozen=True)
class Measured:
    """One row of the table.

    Attributes:
        set: The data set.
        half: ``fit`` or ``measure``.
        size: Training images it was cut to.
        draw: Which draw of them; it is the seed of folds and training, too.
        recipe: Of the fine-tuning, see :data:`RECIPE`.
        figures: As ``fit_head`` measured them.
        validation_images: That the training is compared with the probe on.
        test_images: How many the accuracies are measured on.
        accuracy: On test images, by strategy, as the step delivers it: ``probe``; ``head`` and
            ``fine_tune``, which are the probe where validation did not find them good enough.
            ``training`` is the trained network in any case.
        training: Its figures by epoch, and the comparison on validation images.
        seconds: Processor time of each step and training.
        scores: LogME and H-score of the features.
        all_blocks: What ``fit_head`` finds of the features of all blocks. Among the accuracies
            on test images are ``all_blocks``, of all blocks' classifier with the last one's, and
            ``all_blocks_alone``.
    """

    set: str
    half: str
    size: int
    draw: int
    recipe: dict[str, Any]
    figures: dict[str, Any]
    validation_images: int
    test_images: int
    accuracy: dict[str, float]
    training: Scored
    seconds: dict[str, float]
    scores: dict[str, float]
    all_blocks: Scored

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)


@dataclass
class Clock:
    """Processor time of this process by what it was spent on; neighbours hardly disturb it."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Count what follows as spent on this."""
        began = time.process_time()
        yield
        self.seconds[name] = round(time.process_time() - began, 2)


def measure(one: Cut) -> Measured:
    """Run every strategy."""
    clock = Clock()
    with TemporaryDirectory(prefix="decision-row-") as folder:
        at = Path(folder)
        figures = fitted(at, one, clock)
        snapshot = read_snapshot(at / "snapshot")
        features = np.asarray(read_features(at / "features").matrix, dtype=np.float32)
        with clock("head"):
            delivered = {
                "probe": load_classifier(at / "probe"),
                "head": _head(at, snapshot, one.draw),
            }
        accuracy = {
            strategy: _accuracy_on_features(classifier, features, snapshot)
            for strategy, classifier in delivered.items()
        }
        with clock("all_blocks"):
            blocks, found = all_blocks(at, snapshot, one.draw)
            accuracy |= found
        with clock("training"):
            training, network = _training(at, one.draw)
        accuracy["training"] = _accuracy_on_images(network, snapshot, at)
        used = "training" if training["used"] == "fine_tune" else "probe"
        accuracy["fine_tune"] = accuracy[used]
    rows, labels = snapshot.rows("train"), snapshot.labels()
    return Measured(
        set=one.set,
        half=one.half,
        size=one.size,
        draw=one.draw,
        recipe=RECIPE,
        figures=_kept(figures),
        validation_images=len(snapshot.rows("val")),
        test_images=len(snapshot.rows("test")),
        accuracy=accuracy,
        training=training,
        seconds=clock.seconds,
        scores={
            "log_me": round(log_me(features[rows], labels[rows]), 5),
            "h_score": round(h_score(features[rows], labels[rows]), 5),
        },
        all_blocks=blocks,
    )


def measure_blocks(one: Cut, row: dict[str, Any]) -> dict[str, Any]:
    """A row of the table with the features of all blocks measured again; nothing is trained."""
    with TemporaryDirectory(prefix="decision-row-") as folder:
        at, clock = Path(folder), Clock()
        figures = fitted(at, one, clock)
        if figures["probe"] != row["figures"]["probe"]:
            message("%s %s: the probe is another than it was", one.set, one.size)
        snapshot = read_snapshot(at / "snapshot")
        with clock("all_blocks"):
            found, accuracy = all_blocks(at, snapshot, one.draw)
    return {
        **row,
        "accuracy": row["accuracy"] | accuracy,
        "seconds": row["seconds"] | {"all_blocks": clock.seconds["all_blocks"]},
        "all_blocks": found,
    }


def fitted(at: Path, one: Cut, clock: Clock) -> dict[str, Any]:
    """Everything before a training, in folders of its names; the figures of fit_head."""
    store = str(at / "store")
    shared: dict[str, Any] = {"store": store, "backbone": BACKBONE, "image_size": IMAGE_SIZE}
    with clock("ingest"):
        ingest(
            source=str(one.table),
            store=store,
            snapshot_folder=at / "snapshot",
            near_duplicates="off",  # glyphs and digits are alike by nature
        )
    with clock("features"):
        extract_features(snapshot_folder=at / "snapshot", features_folder=at / "features", **shared)
    with clock("probe"):
        found = fit_head(
            snapshot_folder=at / "snapshot",
            features_folder=at / "features",
            classifier_folder=at / "probe",
            decision_file=at / "decision.json",
            strategy="fine_tune",
            seed=one.draw,
            **shared,
        )
    figures: dict[str, Any] = found.decision["figures"]
    return figures


def _head(at: Path, snapshot: Snapshot, seed: int) -> Classifier:
    """What `strategy: head` delivers: the head, or the probe where validation finds it better."""
    held_out = read_held_out(at / "probe")
    assert held_out is not None
    probe, decision = load_classifier(at / "probe"), read_decision(at / "decision.json")
    settings = FitHeadConfig(backbone=BACKBONE, image_size=IMAGE_SIZE, strategy="head", seed=seed)
    features = read_features(at / "features")
    found, _ = fit_layers(snapshot, features, Fitted(probe, held_out), decision, settings)
    return found.classifier


def all_blocks(at: Path, snapshot: Snapshot, seed: int) -> tuple[Scored, dict[str, float]]:
    """What `auto` finds of the features of all blocks, and accuracies on test images."""
    store = open_store(str(at / "store"))
    # Also where the last block's leave nothing to gain: whether they do is for the judge to say.
    any_gain = AutoSettings(min_gain=-1)
    settings = FitHeadConfig(backbone=BACKBONE, image_size=IMAGE_SIZE, seed=seed, auto=any_gain)
    features = read_features(at / "features")
    last = measured(snapshot, features.matrix, settings.probe, settings.seed)
    network = load_classifier(at / "probe").backbone
    found = try_all_blocks(snapshot, Start(network, features, last), settings, store)
    assert found is not None
    start = found.start
    accuracy = {}
    for name, partner in (("all_blocks", start.partner), ("all_blocks_alone", None)):
        probe = fit_probe(
            snapshot, start.features, start.network, start.measured, settings.probe, partner
        )
        accuracy[name] = _accuracy_on_images(probe.classifier, snapshot, at)
    return found.found, accuracy


def _kept(figures: dict[str, Any]) -> dict[str, Any]:
    """What the forecast and the learning curve use; not the pictures that are suspected."""
    names = ("classes", "train_images", "images_per_class", "majority", "knn", "probe")
    return {
        **{name: figures[name] for name in names},
        "learning_curve": figures["learning_curve"],
    }


def _training(at: Path, seed: int) -> tuple[Scored, Classifier]:
    """The training, and what came of it against the probe on validation images."""
    order = Order(
        snapshot_folder=str(at / "snapshot"),
        probe_folder=str(at / "probe"),
        decision_file=str(at / "decision.json"),
        store=str(at / "store"),
        strategy="fine_tune",
        settings={"seed": seed},
        checkpoint_key=None,
    )
    start = read(order)
    found = train(order, start, workers=ONE_PROCESS)
    outcome = compare("fine_tune", found.val_logits, start.held_out.logits, start.truth)
    images, done = len(start.snapshot.rows("train")), found.progressed
    return {
        "images": images,
        "blocks": len(found.division.trained),
        "passes": done.steps_done * min(start.options.batch_size, images),
        "history": [[round(e["val_accuracy"], 5), round(e["val_loss"], 5)] for e in done.history],
        "best_epoch": done.best_epoch,
        "guarded_epoch": done.guarded_epoch,
        "judges": outcome.validation_images,
        "probe_accuracy": round(outcome.probe_accuracy, 5),
        "used": outcome.used,
        "apart": round(_apart(found.val_logits, start.held_out.logits, start.truth), 5),
        "gain": round(outcome.gain, 5),
        "gain_interval": [round(value, 5) for value in outcome.gain_interval],
    }, found.classifier


def _apart(one: Floats, other: Floats, truth: NDArray[np.int64]) -> float:
    """Share of the images that one of two models gets right and the other one wrong."""
    right = [logits.argmax(axis=1) == truth for logits in (one, other)]
    return float((right[0] != right[1]).mean())


def _accuracy_on_features(classifier: Classifier, features: Floats, snapshot: Snapshot) -> float:
    rows = snapshot.rows("test")
    return _right(classifier.logits_of_features(features[rows]), snapshot, rows)


def _accuracy_on_images(classifier: Classifier, snapshot: Snapshot, at: Path) -> float:
    rows = snapshot.rows("test")
    encoded = dict(read_images(snapshot, rows, store=open_store(str(at / "store"))))
    images = [decode.decode(encoded[int(row)]) for row in rows]
    x = torch.stack([classifier.preprocessing.apply(image) for image in images])
    network = classifier.eval().to(DEVICE)
    with torch.inference_mode():
        parts = [network(part.to(DEVICE)).cpu() for part in torch.split(x, BATCH)]
    return _right(torch.cat(parts).numpy(), snapshot, rows)


def _right(logits: Floats, snapshot: Snapshot, rows: NDArray[np.int64]) -> float:
    return round(float((logits.argmax(axis=1) == snapshot.labels()[rows]).mean()), 5)
