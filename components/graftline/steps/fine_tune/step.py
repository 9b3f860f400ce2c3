"""Train the upper blocks and the head from the probe, and keep them only if they are better."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from graftline.classifier.bundle import (
    Classifier,
    HeldOut,
    bundle_digest,
    load_classifier,
    read_held_out,
    save_classifier,
)
from graftline.data.snapshot import Snapshot, read_snapshot
from graftline.errors import ConfigurationError, DataError, TrainingError
from graftline.progress import message
from graftline.records.decision import read_decision, write_decision
from graftline.steps.fine_tune.freezing import (
    Division,
    check_unmoved,
    divide,
    freeze,
    frozen_digests,
)
from graftline.steps.fine_tune.images import LocalImages
from graftline.steps.fine_tune.loop import Progressed, Settings, Trainer
from graftline.steps.fine_tune.resume import Checkpoints
from graftline.steps.fine_tune.start_and_outcome import compare, from_probe, from_scratch
from graftline.steps.runtime import StepResult
from graftline.storage import open_store

TRAINING_VERSION = 1  # counts changes to the loop that change its result
NOTHING_FROZEN = {"frozen_fraction": 0.0, "layer_decay": 1.0, "adapt_batch_norm": True}


@dataclass(frozen=True, kw_only=True)
class FineTuneResult(StepResult):
    """What training came to.

    Attributes:
        strategy: What the written classifier is: fine_tune or scratch, or probe where the
            fine-tuned model did not beat it.
        val_accuracy: Of the best epoch on val.
        probe_val_accuracy: Of the train-only probe on the same images.
        epochs: Trained; early stopping may leave some out.
        best_epoch: Whose weights were kept, counted from 1.
        history: Losses and val accuracy by epoch.
        frozen_blocks: Blocks that stayed.
        trained_blocks: Blocks that were trained.
        device: Where it was trained.
        decision: The decision record with its outcome.
        decision_file: Where it was written.
    """

    strategy: str
    val_accuracy: float
    probe_val_accuracy: float
    epochs: int
    best_epoch: int
    history: list[dict[str, float]]
    frozen_blocks: list[str]
    trained_blocks: list[str]
    device: str
    decision: dict[str, Any]
    decision_file: Path

    def metrics(self) -> dict[str, float]:
        """Accuracies for the tracking run."""
        return {
            "val_accuracy": self.val_accuracy,
            "probe_val_accuracy": self.probe_val_accuracy,
            "epochs": self.epochs,
            "best_epoch": self.best_epoch,
        }

    def params(self) -> dict[str, str]:
        """Choices for the tracking run."""
        return {
            "used": self.strategy,
            "frozen_blocks": str(len(self.frozen_blocks)),
            "trained_blocks": str(len(self.trained_blocks)),
            "device": self.device,
        }

    def files(self) -> dict[str, Path]:
        """The decision record with its outcome."""
        return {"fine_tune/decision.json": self.decision_file}


def run(
    *,
    snapshot_folder: Path,
    probe_folder: Path,
    decision_file: Path,
    store: str,
    classifier_folder: Path,
    decision_out: Path,
    strategy: str = "fine_tune",
    checkpoint_key: str | None = None,
    **settings: Any,
) -> FineTuneResult:
    """Train, compare with the probe on val, and write the better classifier.

    Args:
        snapshot_folder: The dataset snapshot.
        probe_folder: The bundle that fit_head wrote.
        decision_file: The decision record that fit_head wrote.
        store: URI of the store: images, checkpoints.
        classifier_folder: Where the bundle is written.
        decision_out: Where the decision record with its outcome is written.
        strategy: ``fine_tune``, or ``scratch`` for random weights with nothing frozen.
        checkpoint_key: Name of the checkpoints; a digest of all that matters where absent.
        settings: See :class:`graftline.steps.fine_tune.loop.Settings`.

    Raises:
        TrainingError: Training diverged or does not fit into memory.
        FrozenWeightsMoved: A frozen tensor changed.
        DataError: There is nothing to train or measure on.
    """
    if strategy not in ("fine_tune", "scratch"):
        raise ConfigurationError(
            f"strategy {strategy!r} does not train a network", fix="use fine_tune or scratch"
        )
    scratch = strategy == "scratch"
    options = Settings(**({**NOTHING_FROZEN, **settings} if scratch else settings))
    snapshot = read_snapshot(snapshot_folder)
    probe, held_out = load_classifier(probe_folder), read_held_out(probe_folder)
    held_out = _check(snapshot, probe, held_out)
    truth = snapshot.labels()[held_out.rows]
    start = from_scratch(probe, options.seed) if scratch else from_probe(probe, held_out, truth)
    key = checkpoint_key or _key(snapshot, probe_folder, strategy, options)
    trained = _train(start, snapshot, store, key, options, held_out.rows)

    outcome = compare(strategy, trained.val_logits, held_out.logits, truth)
    decision = read_decision(decision_file).with_outcome(outcome)
    message("%s", outcome.sentence)
    write_decision(decision_out, decision)
    if outcome.used == "probe":  # read again: training changed the network in place
        save_classifier(classifier_folder, load_classifier(probe_folder), held_out=held_out)
    else:
        own = HeldOut(rows=held_out.rows, logits=trained.val_logits)
        save_classifier(classifier_folder, trained.classifier, held_out=own)
    return FineTuneResult(
        strategy=outcome.used,
        val_accuracy=outcome.fine_tuned_accuracy,
        probe_val_accuracy=outcome.probe_accuracy,
        epochs=trained.progressed.epoch,
        best_epoch=trained.progressed.best_epoch,
        history=trained.progressed.history,
        frozen_blocks=list(trained.division.frozen),
        trained_blocks=list(trained.division.trained),
        device=trained.device,
        decision=decision.to_dict(),
        decision_file=decision_out,
    )


@dataclass(frozen=True)
class _Trained:
    """What a training leaves."""

    classifier: Classifier
    division: Division
    progressed: Progressed
    val_logits: NDArray[np.float32]
    device: str


def _train(
    start: Classifier,
    snapshot: Snapshot,
    store: str,
    key: str,
    options: Settings,
    val_rows: NDArray[np.int64],
) -> _Trained:
    """Freeze, train, and prove that what was frozen did not move."""
    division = divide(start.backbone, options.frozen_fraction)
    freeze(start.backbone, division)
    before = frozen_digests(start.backbone, division)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    blocks = len(division.trained) + len(division.frozen)
    message("training %d of %d blocks and the head on %s", len(division.trained), blocks, device)
    place = open_store(store)
    images = LocalImages(
        snapshot, np.concatenate([snapshot.rows("train"), snapshot.rows("val")]), place
    )
    try:
        checkpoints = Checkpoints(place, key)
        trainer = Trainer(start, division, snapshot, images, checkpoints, options, device)
        progressed = trainer.train()
        val_logits = trainer.logits(val_rows)
    finally:
        images.close()
    classifier = start.cpu().eval()
    check_unmoved(classifier.backbone, division, before)
    if not np.isfinite(val_logits).all():
        raise TrainingError(
            "the trained model's logits hold NaN or infinity",
            fix=f"set {start.strategy}.learning_rate to {options.learning_rate / 10:g}",
        )
    trained = Classifier(  # anew: its backbone has another fingerprint now
        classifier.backbone,
        classifier.head,
        classifier.classes,
        preprocessing=classifier.preprocessing,
        strategy=classifier.strategy,
        snapshot_id=classifier.snapshot_id,
        metadata={
            "training": {**asdict(options), "best_epoch": progressed.best_epoch},
            "frozen_blocks": list(division.frozen),
            "fitted_on": "train",
        },
    )
    return _Trained(trained, division, progressed, val_logits, str(device))


def _check(snapshot: Snapshot, probe: Classifier, held_out: HeldOut | None) -> HeldOut:
    """Refuse a probe of other data, and data that cannot be trained or measured on."""
    if probe.snapshot_id != snapshot.id or probe.classes != snapshot.classes:
        raise ConfigurationError(
            f"the probe was fitted on snapshot {probe.snapshot_id}, not on {snapshot.id}",
            fix="run fit_head on this snapshot first",
        )
    if held_out is None or not len(held_out.rows):
        raise DataError(
            "the probe has no validation logits to be compared with",
            why="the validation split was empty, or the bundle is not fit_head's",
            fix="give data.split.val a larger share and run fit_head again",
        )
    if len(snapshot.rows("train")) < 2:
        raise DataError("the training split holds fewer than two images", fix="add labelled images")
    return held_out


def _key(snapshot: Snapshot, probe_folder: Path, strategy: str, options: Settings) -> str:
    """Digest of everything that the training depends on."""
    identity = {
        "version": TRAINING_VERSION,
        "snapshot": snapshot.id,
        "probe": bundle_digest(probe_folder),
        "strategy": strategy,
        "settings": asdict(options),
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]
