"""The features of all blocks beside those of the last: what a training has to beat.

Where the features of the last block know too little of the data, a training is one answer. Another
costs one forward pass an image: a linear classifier on the features of all blocks (see
:mod:`graftline.models.block_outputs`). So before ``auto`` trains, it tries that one on the same
folds, and takes it where a training is not expected to come further.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from graftline.data.snapshot import Snapshot, read_images
from graftline.features.matrix import Features
from graftline.inference.engine import forward_images
from graftline.models.backbone import Backbone, build
from graftline.models.names import BLOCKS
from graftline.progress import message
from graftline.records.decision import Decision
from graftline.stats.intervals import difference_interval
from graftline.steps.fit_head.config import FitHeadConfig
from graftline.steps.fit_head.probe import Measured, measure
from graftline.storage.base import Store

MOST_IMAGES = 10_000  # of train and val: their features are computed here, on the step's own cores
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Start:
    """What a classifier is fitted on: a network, its features, and what they are worth."""

    network: Backbone
    features: Features
    measured: Measured


@dataclass(frozen=True)
class AllBlocks:
    """What was measured on the features of all blocks.

    Attributes:
        start: With the features of the images of train and val; other rows are zero.
        found: For the decision record: accuracies of both probes on held-out training images, the
            number of images, and the difference's interval.
    """

    start: Start
    found: dict[str, Any]


def instead_of_training(found: Mapping[str, Any], gain: float, min_gain: float) -> bool:
    """Whether the classifier on all blocks is taken, and nothing is trained.

    Args:
        found: As of :class:`AllBlocks`.
        gain: What a training is expected to gain over the probe on the last block.
        min_gain: What a training has to bring.
    """
    lead = found["accuracy"] - found["probe_accuracy"]
    return bool(lead > 0 and gain - lead < min_gain)


def decision_on(blocks: AllBlocks, decision: Decision, min_gain: float) -> Decision:
    """The decision to train, made again with what the features of all blocks are worth."""
    found, forecast = blocks.found, decision.forecast
    assert forecast is not None
    lead = found["accuracy"] - found["probe_accuracy"]
    said = (
        "A linear classifier on the features of all blocks, which costs one pass an image, "
        f"recognises {found['accuracy']:.1%} of {found['images']:,} held-out training images, on "
        f"those of the last block {found['probe_accuracy']:.1%}"
    )
    if not instead_of_training(found, forecast.gain, min_gain):
        reasons = [*decision.reasons, f"{said}: a training is expected to bring more."]
        figures = {**decision.figures, "all_blocks": found}
        return replace(decision, figures=figures, reasons=reasons)
    low, high = forecast.gain_interval
    return replace(
        decision,
        choice="probe",
        pilot=None,
        backbone=blocks.start.network.spec.name,
        figures={**blocks.start.measured.figures, "all_blocks": found},
        notes=blocks.start.measured.notes,
        reasons=[*decision.reasons, f"{said}: it is used, and nothing is trained."],
        forecast=replace(
            forecast, gain=forecast.gain - lead, gain_interval=(low - lead, high - lead)
        ),
    )


def try_all_blocks(
    snapshot: Snapshot, last: Start, settings: FitHeadConfig, store: Store
) -> AllBlocks | None:
    """Measure the features of all blocks; None where there are too many images, or they are it.

    Args:
        snapshot: The data.
        last: The features of the last block, and what they are worth.
        settings: Of the probes.
        store: Holds the images, and mirrored weights.
    """
    rows = np.sort(np.concatenate([snapshot.rows("train"), snapshot.rows("val")]))
    if last.network.spec.of_all_blocks or len(rows) > MOST_IMAGES:
        return None
    message("computing the features of all blocks: they may do what a training would")
    network = _with_all_blocks(last.network, settings, store)
    features = _extracted(snapshot, rows, network, last.features, store)
    measured = measure(snapshot, features.matrix, settings.probe, settings.seed)
    start = Start(network, features, measured)
    return AllBlocks(start, _compared(measured, last.measured))


def _with_all_blocks(network: Backbone, settings: FitHeadConfig, store: Store) -> Backbone:
    """The same weights and preprocessing."""
    preprocessing = network.spec.preprocessing
    return build(
        f"{settings.backbone}{BLOCKS}",
        weights=settings.weights,
        image_size=settings.image_size,
        store=store,
        fit=settings.fit,
        value_range=preprocessing.value_range,
        full_decoding=preprocessing.full_decoding,
    )


def _extracted(
    snapshot: Snapshot, rows: Any, network: Backbone, features: Features, store: Store
) -> Features:
    order = snapshot.storage_order(rows)
    computed = forward_images(
        network,
        network.spec.preprocessing,
        (data for _, data in read_images(snapshot, order, store=store)),
        total=len(order),
        description="features of all blocks",
    )
    matrix = np.zeros((len(features.matrix), computed.shape[1]), np.float32)
    matrix[order] = computed
    return replace(
        features,
        matrix=matrix,
        fingerprint=network.fingerprint(),
        precision="fp32",
        backbone=network.spec.name,
        extracted=len(order),
        reused=0,
    )


def _compared(blocks: Measured, last: Measured) -> dict[str, Any]:
    """Both on the same folds of the same images."""
    won = int((blocks.right & ~last.right).sum())
    lost = int((~blocks.right & last.right).sum())
    low, high = difference_interval(won, lost, len(last.right), CONFIDENCE)
    return {
        "accuracy": round(float(blocks.right.mean()), 6),
        "probe_accuracy": round(float(last.right.mean()), 6),
        "images": len(last.right),
        "difference_interval": [round(low, 6), round(high, 6)],
    }
