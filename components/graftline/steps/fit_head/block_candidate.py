"""The features of all blocks beside those of the last: what a training has to beat.

Where the features of the last block know too little of the data, a training is one answer. Another
costs one forward pass an image: a linear classifier on the features of all blocks (see
:mod:`graftline.models.block_outputs`), together with the one on those of the last (see
:mod:`graftline.steps.fit_head.partner`). So ``auto`` tries these on the same folds, and takes them
where they are expected to lead and no training is expected to come further.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftline.data.snapshot import Snapshot
from graftline.features.matrix import Features
from graftline.models.backbone import Backbone, build
from graftline.models.names import BLOCKS
from graftline.progress import message
from graftline.records.decision import Decision
from graftline.stats.intervals import difference_interval, wilson
from graftline.steps.fit_head.config import AutoSettings, FitHeadConfig
from graftline.steps.fit_head.partner import Partner, summed, weights_of
from graftline.steps.fit_head.probe import Measured, Rows, measure
from graftline.steps.stored_features import features_of
from graftline.storage.base import Store

Right = NDArray[np.bool_]

# Of train and val: their features are computed on the step's own cores, and with 7,000 features an
# image the search takes 0.4 GB for each 1,000 of them, where a step has 4 GiB by default.
MOST_IMAGES = 5_000
CONFIDENCE = 0.8  # of the interval of the difference
# On test images of the data sets that the forecast is fitted on: mean, and deviation of one.
GAINED, GAINED_DEVIATION = 0.06, 0.05


@dataclass(frozen=True)
class Start:
    """What a classifier is fitted on: a network, its features, and what they are worth.

    Attributes:
        network: The backbone.
        features: Its features.
        measured: What they are worth.
        partner: The classifier on the last block's features alone that is added to it, if any.
    """

    network: Backbone
    features: Features
    measured: Measured
    partner: Partner | None = None


@dataclass(frozen=True)
class AllBlocks:
    """What was measured on the features of all blocks.

    Attributes:
        start: With the features of the images of train and val; other rows are zero.
        found: For the decision record: accuracies on held-out training images of the two
            classifiers together, of the one on all blocks and of the probe, the number of images,
            the interval of the first one's lead over the probe, and the weights of the two.
    """

    start: Start
    found: dict[str, Any]


def expected_lead(found: Mapping[str, Any]) -> float:
    """What all blocks' and the last one's together gain over the last's, as a share of new images.

    Cross-validation on few images says little, so it is weighed against what they gained on the
    data sets that the forecast is fitted on: the mean of two normal distributions' product.

    Args:
        found: As of :class:`AllBlocks`.
    """
    low, high = found["difference_interval"]
    deviation = max((high - low) / 2 / NormalDist().inv_cdf(0.5 + CONFIDENCE / 2), 1e-6)
    usual, seen = 1 / GAINED_DEVIATION**2, 1 / deviation**2
    lead = found["accuracy"] - found["probe_accuracy"]
    return float((GAINED * usual + lead * seen) / (usual + seen))


def takes_all_blocks(
    found: Mapping[str, Any], gain: float, settings: AutoSettings, *, trains: bool
) -> bool:
    """Whether the features of all blocks are used, and nothing is trained.

    Args:
        found: As of :class:`AllBlocks`.
        gain: What a training is expected to gain over the probe on the last block.
        settings: What a training has to bring.
        trains: Whether it would be begun without them.
    """
    lead = expected_lead(found)
    return lead > 0 and not (trains and gain - lead >= settings.min_gain)


def decision_on(blocks: AllBlocks, decision: Decision, settings: AutoSettings) -> Decision:
    """The decision made again, with what the features of all blocks are worth."""
    found, forecast = blocks.found, decision.forecast
    assert forecast is not None
    lead = expected_lead(found)
    said = (
        "A linear classifier on the features of all blocks, together with the one on those of the "
        f"last block, recognises {found['accuracy']:.1%} of {found['images']:,} held-out training "
        f"images for one pass an image, the one on the last block alone "
        f"{found['probe_accuracy']:.1%}"
    )
    if not takes_all_blocks(found, forecast.gain, settings, trains=decision.fine_tune):
        ending = "a training is expected to bring more" if lead > 0 else "it is not used"
        figures = {**decision.figures, "all_blocks": found}
        return replace(decision, figures=figures, reasons=[*decision.reasons, f"{said}: {ending}."])
    low, high = forecast.gain_interval
    return replace(
        decision,
        choice="probe",
        pilot=None,
        backbone=blocks.start.network.spec.name,
        figures=_figures(blocks),
        notes=blocks.start.measured.notes,
        reasons=[*decision.reasons, f"{said}: it is used, and nothing is trained."],
        forecast=replace(
            forecast, gain=forecast.gain - lead, gain_interval=(low - lead, high - lead)
        ),
    )


def try_all_blocks(
    snapshot: Snapshot, last: Start, settings: FitHeadConfig, store: Store
) -> AllBlocks | None:
    """Measure the features of all blocks.

    None where the last block's leave nothing to gain, where there are too many images, or where
    they are the features already.

    Args:
        snapshot: The data.
        last: The features of the last block, and what they are worth.
        settings: Of the probes.
        store: Holds the images, and mirrored weights.
    """
    rows = np.sort(np.concatenate([snapshot.rows("train"), snapshot.rows("val")]))
    right = float(last.measured.right.mean())
    if expected_wrong(right, last.measured.units) <= settings.auto.min_gain:
        return None
    if last.network.spec.of_all_blocks or len(rows) > MOST_IMAGES:
        return None
    message("computing the features of all blocks: they may do what a training would do")
    network = _with_all_blocks(last.network, settings, store)
    features = _extracted(snapshot, rows, network, last.features, store)
    measured = measure(snapshot, features.matrix, settings.probe, settings.seed)
    scores = last.measured.scores, measured.scores
    partner = Partner(
        last.measured.best, last.network.spec.feature_dim, weights_of(*scores, measured.labels)
    )
    together = summed(scores, partner.weights).argmax(axis=1) == measured.labels
    found = {
        **_compared(together, last.measured.right),
        "all_blocks_accuracy": round(float(measured.right.mean()), 6),
        "partner": partner.to_dict(),
    }
    return AllBlocks(Start(network, features, measured, partner), found)


def expected_wrong(accuracy: float, images: int) -> float:
    """Share of new images that a probe gets wrong: the mean of the posterior of Jeffreys' prior.

    That of no error among few images is not 0, so there may be something to gain yet.

    Args:
        accuracy: On held-out images.
        images: How many of them are independent.
    """
    return ((1 - accuracy) * images + 0.5) / (images + 1)


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
    snapshot: Snapshot, rows: Rows, network: Backbone, features: Features, store: Store
) -> Features:
    found, computed = features_of(snapshot, rows, network, store, "features of all blocks")
    matrix = np.zeros((len(features.matrix), found.shape[1]), np.float32)
    matrix[rows] = found
    return replace(
        features,
        matrix=matrix,
        fingerprint=network.fingerprint(),
        precision="fp32",
        backbone=network.spec.name,
        extracted=computed,
        reused=len(rows) - computed,
    )


def _compared(together: Right, last: Right) -> dict[str, Any]:
    """What was recognised, on the same folds of the same images."""
    won, lost = int((together & ~last).sum()), int((~together & last).sum())
    low, high = difference_interval(won, lost, len(last), CONFIDENCE)
    return {
        "accuracy": round(float(together.mean()), 6),
        "probe_accuracy": round(float(last.mean()), 6),
        "images": len(last),
        "difference_interval": [round(low, 6), round(high, 6)],
    }


def _figures(blocks: AllBlocks) -> dict[str, Any]:
    """Of the classifier on all blocks; the accuracy is that of what is used."""
    figures, found = blocks.start.measured.figures, blocks.found
    low, high = wilson(found["accuracy"], blocks.start.measured.units)
    probe = figures["probe"] | {
        "accuracy": found["accuracy"],
        "interval": [round(low, 6), round(high, 6)],
    }
    return {**figures, "probe": probe, "all_blocks": found}
