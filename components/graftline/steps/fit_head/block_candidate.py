"""The features of all blocks beside those of the last: what a training has to beat.

Where the features of the last block know too little of the data, a training is one answer. Another
costs one forward pass an image: a linear classifier on the features of all blocks (see
:mod:`graftline.models.block_outputs`). So before ``auto`` trains, it tries that one on the same
folds, and takes it where it leads.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from graftline.data.snapshot import Snapshot, read_images
from graftline.features.matrix import Features
from graftline.inference.engine import forward_images
from graftline.models.backbone import Backbone, build
from graftline.models.names import BLOCKS
from graftline.progress import message
from graftline.stats.intervals import difference_interval
from graftline.steps.fit_head.config import FitHeadConfig
from graftline.steps.fit_head.probe import Measured, measure
from graftline.storage.base import Store

MOST_IMAGES = 10_000  # of train and val: their features are computed here, on the step's own cores
CONFIDENCE = 0.8  # of the interval that must lie above zero: one in ten leads by chance


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
        found: For the decision record: accuracies of both probes, the number of images, the
            difference's interval, and whether all blocks lead.
    """

    start: Start
    found: dict[str, Any]

    @property
    def leads(self) -> bool:
        """Whether they recognise more held-out images than the last block's, beyond chance."""
        return bool(self.found["leads"])

    @property
    def reason(self) -> str:
        """A sentence for the decision record."""
        said = (
            f"{self.found['accuracy']:.1%} against {self.found['probe_accuracy']:.1%} of "
            f"{self.found['images']:,} held-out training images"
        )
        if self.leads:
            return f"A linear classifier on the features of all blocks leads: {said}. It is used."
        return f"A linear classifier on the features of all blocks does not lead: {said}."


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
        "leads": low > 0,
    }
