"""Where training starts from, and what its result is compared with."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from graftline.classifier.bundle import Classifier, HeldOut
from graftline.models.backbone import construct
from graftline.records.decision import Forecast, Outcome
from graftline.stats.calibration import sharpness
from graftline.stats.intervals import difference_interval
from graftline.stats.posterior_gain import Expected, posterior
from graftline.steps.fine_tune.checkpoints.state import Progressed
from graftline.steps.fine_tune.trial import Trial

Logits = NDArray[np.float32]
Labels = NDArray[np.int64]

CONFIDENCE = 0.95


def from_probe(probe: Classifier, held_out: HeldOut, truth: Labels) -> Classifier:
    """The probe with the head that was fitted on train alone: linear probing, then fine-tuning.

    A random head would send large, useless gradients into the pretrained blocks (Kumar et al.
    2022, "Fine-Tuning can Distort Pretrained Features"). For the same reason the head is scaled
    to be as sure as it is right: an SVM's margins are not log-odds.

    Args:
        probe: As fit_head wrote it; refitted on train and val, so its own head knows val.
        held_out: The train-only head and its val logits.
        truth: Labels of the held-out rows.
    """
    head = nn.Linear(probe.backbone.spec.feature_dim, len(probe.classes))
    head.load_state_dict(dict(held_out.head or probe.head.state_dict()))
    scale = sharpness(held_out.logits, truth)
    with torch.no_grad():
        head.weight.mul_(scale)
        head.bias.mul_(scale)
    return Classifier(
        probe.backbone,
        head,
        probe.classes,
        preprocessing=probe.preprocessing,
        strategy="fine_tune",
        snapshot_id=probe.snapshot_id,
        backbone_fingerprint=probe.backbone_fingerprint,
    )


def from_scratch(probe: Classifier, seed: int) -> Classifier:
    """The same architecture as it is before any training, and a random head."""
    size = probe.preprocessing.input_size
    backbone = construct(
        probe.backbone.spec.name,
        size,
        fit=probe.preprocessing.fit,
        value_range=probe.preprocessing.value_range,
        full_decoding=probe.preprocessing.full_decoding,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = nn.Linear(backbone.spec.feature_dim, len(probe.classes))
        nn.init.normal_(head.weight, std=0.01)
        nn.init.zeros_(head.bias)
    return Classifier(
        backbone,
        head,
        probe.classes,
        preprocessing=probe.preprocessing,
        strategy="scratch",
        snapshot_id=probe.snapshot_id,
    )


def compare(
    strategy: str, trained: Logits, probe: Logits, truth: Labels, forecast: Forecast | None = None
) -> Outcome:
    """The trained model against the train-only probe on the same validation images.

    The trained model is used where it leads and a gain is expected on new images: the forecast
    and the lead, each weighted by how exact it is (:mod:`graftline.stats.posterior_gain`). The
    lead alone would flatter it: its best epoch was chosen on these images, and the probe that
    would be used is refitted on them too.

    Args:
        strategy: ``fine_tune`` or ``scratch``.
        trained: Logits of the trained model, shape (N, classes).
        probe: Logits of the probe, shape (N, classes).
        truth: Class indices, shape (N,).
        forecast: Of the gain; None where the decision record has none.
    """
    right, probe_right = trained.argmax(axis=1) == truth, probe.argmax(axis=1) == truth
    count = len(truth)
    won, lost = int((right & ~probe_right).sum()), int((probe_right & ~right).sum())
    gain = (won - lost) / count
    low, high = difference_interval(won, lost, count, CONFIDENCE)
    prior = None if forecast is None else Expected(forecast.gain, forecast.deviation)
    expected = posterior(prior, won, lost, count)
    better = low > 0 if strategy == "scratch" else won > lost and expected.mean > 0
    measured = (
        f"on {count:,} validation images: {right.mean():.1%} against {probe_right.mean():.1%} "
        f"(difference {gain:+z.1%}, 95% interval {low:+z.1%} to {high:+z.1%})"
    ).replace("-", "−")
    return Outcome(
        fine_tuned_accuracy=float(right.mean()),
        probe_accuracy=float(probe_right.mean()),
        gain=float(gain),
        gain_interval=(float(low), float(high)),
        validation_images=count,
        used=strategy if strategy == "scratch" or better else "probe",
        agreed=better,
        sentence=_sentence(strategy, won - lost, expected, better=better, measured=measured),
    )


def _sentence(strategy: str, lead: int, expected: Expected, *, better: bool, measured: str) -> str:
    """The comparison for a reader; ``lead`` in images."""
    if strategy == "scratch":
        verb = "beat" if better else "did not beat"
        return f"Training from random weights {verb} the probe on frozen features {measured}."
    if lead <= 0:
        return f"Fine-tuning did not beat the probe {measured}; the probe is used."
    weighed = (
        f"Weighed with the forecast, and less what choosing the best epoch on these images "
        f"flatters it, {expected.mean:+z.1%} is expected on new images "
        f"({expected.probability:.0%} likely to be a gain)"
    )
    if better:
        return f"Fine-tuning beat the probe {measured}. {weighed}: the fine-tuned model is used."
    images = "1 image" if lead == 1 else f"{lead} images"
    return (
        f"Fine-tuning was ahead of the probe by {images} {measured}. {weighed}: the probe is used."
    )


def with_training(
    outcome: Outcome, progressed: Progressed, trials: Sequence[Trial] = ()
) -> Outcome:
    """The same outcome with how the training went, and whether the learning rate was cut.

    Args:
        outcome: Of the comparison.
        progressed: Of the training.
        trials: Of the search before it.
    """
    sentence = outcome.sentence
    if progressed.guarded_epoch:
        sentence += (
            " Validation had stayed below the probe's, so after epoch "
            f"{progressed.guarded_epoch} the learning rate was cut and the best weights so far "
            "were restored."
        )
    return dataclasses.replace(
        outcome,
        sentence=sentence,
        history=progressed.history,
        best_epoch=progressed.best_epoch,
        hours=(progressed.seconds + sum(trial.seconds for trial in trials)) / 3600,
        search=[dataclasses.asdict(trial) for trial in trials],
    )
