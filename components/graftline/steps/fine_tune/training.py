"""One training from its inputs to a proven classifier, in one process or several."""

import hashlib
import json
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from graftline import machine
from graftline.classifier.bundle import (
    Classifier,
    HeldOut,
    bundle_digest,
    load_classifier,
    read_held_out,
)
from graftline.data.snapshot import Snapshot, read_snapshot
from graftline.errors import ConfigurationError, DataError, TrainingError
from graftline.models.forward_cost import forward_cost
from graftline.progress import message
from graftline.records.decision import Decision, read_decision
from graftline.records.training_forecast import Rate, device_of, write_rate
from graftline.steps.fine_tune.checkpoints.resume import Checkpoints
from graftline.steps.fine_tune.checkpoints.state import Progressed
from graftline.steps.fine_tune.failures import gentler
from graftline.steps.fine_tune.inputs.images import LocalImages
from graftline.steps.fine_tune.inputs.kept_outputs import KeptOutputs, fingerprint
from graftline.steps.fine_tune.loop import EpochListener, Trainer
from graftline.steps.fine_tune.network.freezing import (
    Division,
    check_unmoved,
    divide,
    divide_by,
    freeze,
    frozen_digests,
)
from graftline.steps.fine_tune.nodes import pod_of, train_on_nodes
from graftline.steps.fine_tune.processes import count_of, together
from graftline.steps.fine_tune.ranks import Ranks
from graftline.steps.fine_tune.recipe import Settings, resolve, say_without_effect
from graftline.steps.fine_tune.start_and_outcome import from_probe, from_scratch
from graftline.storage import open_store
from graftline.storage.base import Store

TRAINING_VERSION = 8  # counts changes to the loop that change its result
NOTHING_FROZEN = {"unfreeze": "all", "layer_decay": 1.0, "adapt_batch_norm": True}


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is to be trained, as plain values that other processes get as JSON.

    Attributes:
        snapshot_folder: The dataset snapshot.
        probe_folder: The bundle that fit_head wrote.
        decision_file: The decision record that fit_head wrote.
        store: URI of the store.
        strategy: ``fine_tune`` or ``scratch``.
        settings: Keyword arguments of :class:`graftline.steps.fine_tune.recipe.Settings`.
        checkpoint_key: Name of the checkpoints; None for a digest of all that matters.
        looks: Whether the first epochs are the pilot that the decision asks for.
    """

    snapshot_folder: str
    probe_folder: str
    decision_file: str
    store: str
    strategy: str
    settings: dict[str, Any]
    checkpoint_key: str | None
    looks: bool = False


@dataclass(frozen=True, kw_only=True)
class Workers:
    """Who trains.

    Attributes:
        processes: On this machine; None for one a GPU.
        nodes: Nodes that train together through Kubeflow Trainer; 1 for this machine alone.
        node_pod: What a node's pod asks for, see
            :class:`graftline.steps.fine_tune.nodes.NodePod`.
    """

    processes: int | None = None
    nodes: int = 1
    node_pod: dict[str, Any] | None = None


ALONE = Workers(processes=1)


@dataclass(frozen=True)
class Start:
    """All that a training starts from, read and checked."""

    classifier: Classifier
    snapshot: Snapshot
    held_out: HeldOut
    truth: NDArray[np.int64]
    decision: Decision
    options: Settings

    @property
    def probe_accuracy(self) -> float:
        """Of the train-only probe on val."""
        return float((self.held_out.logits.argmax(axis=1) == self.truth).mean())


@dataclass(frozen=True)
class Trained:
    """What a training leaves."""

    classifier: Classifier
    division: Division
    progressed: Progressed
    val_logits: NDArray[np.float32]
    device: str


def read(order: Order) -> Start:
    """Read what the earlier steps wrote, and settle what ``auto`` stands for.

    Raises:
        ConfigurationError: A setting or the probe does not fit.
        DataError: There is nothing to train or measure on.
    """
    if order.strategy not in ("fine_tune", "scratch"):
        raise ConfigurationError(
            f"strategy {order.strategy!r} does not train a network", fix="use fine_tune or scratch"
        )
    scratch = order.strategy == "scratch"
    options = Settings(**({**NOTHING_FROZEN, **order.settings} if scratch else order.settings))
    snapshot = read_snapshot(Path(order.snapshot_folder))
    decision = read_decision(Path(order.decision_file))
    probe = load_classifier(Path(order.probe_folder))
    held_out = _check(snapshot, probe, read_held_out(Path(order.probe_folder)))
    truth = snapshot.labels()[held_out.rows]
    counts = np.bincount(snapshot.labels()[snapshot.rows("train")], minlength=len(probe.classes))
    options = resolve(options, decision, counts.tolist())
    start = from_scratch(probe, options.seed) if scratch else from_probe(probe, held_out, truth)
    return Start(start, snapshot, held_out, truth, decision, options)


def train(
    order: Order,
    start: Start,
    *,
    workers: Workers,
    on_epoch: EpochListener | None = None,
) -> Trained:
    """Train, here or on several nodes.

    Args:
        order: What is trained.
        start: What :func:`read` made of it.
        workers: Who trains.
        on_epoch: Is given each epoch's figures, after the training where nodes do it.

    Raises:
        TrainingError: Training diverged, does not fit into memory, or lost a process.
        FrozenWeightsMoved: A frozen tensor changed.
        ConfigurationError: The checkpoint belongs to another training.
    """
    _check_share(workers.nodes, order, start)
    if workers.nodes > 1:
        pod = pod_of(workers.node_pod)
        train_on_nodes(asdict(order), identity_of(order, start), workers.nodes, pod)
        trained = _train(order, start, None, Ranks())
        if on_epoch is not None:
            for figures in trained.progressed.history:
                on_epoch(figures)
        return trained
    count = count_of(workers.processes, gathers_statistics=start.options.adapt_batch_norm)
    if count > (most := _images_of_batch(start)):
        message("Note: %d of %d processes train, one for each image of a batch.", most, count)
        count = most
    with together(count, asdict(order)) as ranks:
        return _train(order, start, on_epoch, ranks)


def help_training(ranks: Ranks, **order: Any) -> None:
    """Train beside the first process; what comes out is the same and is not kept."""
    given = Order(**order)
    start = read(given)
    _check_share(ranks.count, given, start)
    _train(given, start, None, ranks)


def _images_of_batch(start: Start) -> int:
    return min(start.options.batch_size, len(start.snapshot.rows("train")))


def _check_share(count: int, order: Order, start: Start) -> None:
    """Refuse nodes, or their GPUs, that would have no image of a batch to themselves."""
    if count > (most := _images_of_batch(start)):
        raise ConfigurationError(
            f"{count} processes on {order.strategy}.nodes cannot share a batch of {most} images",
            fix=f"use fewer nodes, or set {order.strategy}.batch_size to at least {count}",
        )


def _train(order: Order, start: Start, on_epoch: EpochListener | None, ranks: Ranks) -> Trained:
    """Freeze, train, and prove that what was frozen did not move."""
    classifier, snapshot, options = start.classifier, start.snapshot, start.options
    division = _divided(classifier, options)
    if ranks.count > 1 and options.adapt_batch_norm:
        from timm.layers import convert_sync_batchnorm

        classifier = convert_sync_batchnorm(classifier)
    before = frozen_digests(classifier.backbone, division)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    blocks = len(division.trained) + len(division.frozen)
    message("training %d of %d blocks and the head on %s", len(division.trained), blocks, device)
    if ranks.first:
        say_without_effect(options, len(snapshot.rows("train")), blocks)
    store = open_store(order.store)
    identity = identity_of(order, start)
    checkpoints = Checkpoints(store, order.checkpoint_key or identity, identity)
    floor = start.probe_accuracy if order.strategy == "fine_tune" else None
    rows = np.concatenate([snapshot.rows("train"), snapshot.rows("val")])
    with closing(LocalImages(snapshot, rows, store)) as images:
        trainer = Trainer(
            classifier,
            division,
            snapshot,
            images,
            checkpoints,
            options,
            device,
            floor,
            on_epoch,
            ranks,
        )
        trainer.pilot = start.decision.pilot if order.looks else None
        with closing(trainer):
            if trainer.batches.keeps_lower and device.type == "cpu":
                name = fingerprint(
                    before,
                    classifier.preprocessing,
                    trainer.settings,
                    device,
                    engine=trainer.engine is not None,
                )
                ids = snapshot.image_ids()
                trainer.outputs = KeptOutputs(store, name, ids, trainer.arrays)
            progressed = trainer.train()
            val_logits = trainer.evaluation.logits(start.held_out.rows)
    classifier = classifier.to("cpu", memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
    check_unmoved(classifier.backbone, division, before)
    if not np.isfinite(val_logits).all():
        raise TrainingError(
            "the trained model's logits hold NaN or infinity",
            fix=f"set {classifier.strategy}.learning_rate to {gentler(options.learning_rate):g}",
        )
    _keep_rate(store, classifier, division, progressed, options.batch_size, ranks)
    trained = _described(classifier, division, options, progressed)
    return Trained(trained, division, progressed, val_logits, str(device))


def _keep_rate(
    store: Store,
    classifier: Classifier,
    division: Division,
    progressed: Progressed,
    batch: int,
    ranks: Ranks,
) -> None:
    """What this device reached, for the forecasts of later runs."""
    if not ranks.first or progressed.seconds <= 0:
        return
    spec = classifier.backbone.spec
    size = spec.preprocessing.input_size
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    rate = progressed.steps_done * batch / progressed.seconds / ranks.count
    write_rate(
        store,
        spec.name,
        size,
        forward_cost(spec.name, size).trained(len(division.trained)),
        Rate(rate, "measured", (device_of(gpu) or gpu) if gpu else "CPU"),
        cores=machine.cores(),
    )


def _divided(classifier: Classifier, options: Settings) -> Division:
    """The blocks that are frozen, out of the gradient, and those that are trained."""
    if options.frozen_fraction is not None:
        division = divide(classifier.backbone, options.frozen_fraction)
    else:
        division = divide_by(classifier.backbone, options.unfreeze)
    freeze(classifier.backbone, division)
    return division


def _described(
    classifier: Classifier, division: Division, options: Settings, progressed: Progressed
) -> Classifier:
    """The classifier under its new backbone's fingerprint, with how it was trained."""
    return Classifier(
        classifier.backbone,
        classifier.head,
        classifier.classes,
        preprocessing=classifier.preprocessing,
        strategy=classifier.strategy,
        snapshot_id=classifier.snapshot_id,
        metadata={
            "training": {
                **asdict(options),
                "best_epoch": progressed.best_epoch,
                "guarded_epoch": progressed.guarded_epoch,
            },
            "frozen_blocks": list(division.frozen),
            "fitted_on": "train",
        },
    )


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


def identity_of(order: Order, start: Start) -> str:
    """Digest of everything that the training depends on."""
    identity: dict[str, Any] = {
        "version": TRAINING_VERSION,
        "snapshot": start.snapshot.id,
        "probe": bundle_digest(Path(order.probe_folder)),
        "strategy": order.strategy,
        "settings": asdict(start.options),
    }
    if order.looks:  # one that the pilot ended is not the training that somebody asks for
        identity["pilot"] = None if start.decision.pilot is None else asdict(start.decision.pilot)
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]
