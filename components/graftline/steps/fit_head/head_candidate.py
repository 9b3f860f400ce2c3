"""The head of fully connected layers beside the probes: does it lead in cross-validation?

Its training costs as much as many linear fits, so it is tried on two folds, and only where the
probe makes enough errors for a lead to show. The first fold chooses the number of epochs, the
second measures.
"""

from typing import Any

import numpy as np
import torch

from graftline.stats.intervals import difference_interval
from graftline.steps.fit_head.config import HeadSettings
from graftline.steps.fit_head.mlp import train_mlp
from graftline.steps.fit_head.probes.divided import Divided
from graftline.steps.fit_head.probes.folds import Index
from graftline.steps.fit_head.probes.scaling import Matrix
from graftline.steps.fit_head.suspects import Scores

LEAST_ERRORS = 20  # of the probe in the second fold: of fewer, chance alone corrects a third
CONFIDENCE = 0.8  # of the interval that must lie above zero: one in ten leads by chance
EPOCHS, PATIENCE = 40, 3


def head_candidate(
    divided: Divided, classes: int, scores: Scores, settings: HeadSettings, seed: int
) -> dict[str, Any] | None:
    """The head against the best probe on the same held-out images; None where it is not tried.

    Args:
        divided: The training images by folds.
        classes: Number of classes.
        scores: Of the probe for each row, fitted on the folds without it, (N, classes).
        settings: The head's.
        seed: Of its training.

    Returns:
        For the decision record: accuracies of both, how many images they were measured on, the
        difference's interval, and whether the head ``leads``.
    """
    x, y = divided.features, divided.labels
    (first, stop), (second, held_out) = list(divided.folds)[:2]
    wrong = scores[held_out].argmax(axis=1) != y[held_out]
    if wrong.sum() < LEAST_ERRORS:
        return None
    options = settings.model_dump() | {"epochs": min(EPOCHS, settings.epochs)}
    options["patience"] = min(PATIENCE, settings.patience)

    def given(rows: Index) -> tuple[Matrix, Index]:
        return x[rows], y[rows]

    stopped = train_mlp(given(first), given(stop), classes, seed=seed, **options)
    options["epochs"] = stopped.best_epoch
    head = train_mlp(given(second), None, classes, seed=seed, **options).head
    with torch.inference_mode():
        said = head(torch.from_numpy(np.ascontiguousarray(x[held_out]))).argmax(dim=1).numpy()
    right = said == y[held_out]
    won, lost = int((right & wrong).sum()), int((~right & ~wrong).sum())
    low, high = difference_interval(won, lost, len(held_out), CONFIDENCE)
    return {
        "accuracy": round(float(right.mean()), 6),
        "probe_accuracy": round(1 - float(wrong.mean()), 6),
        "images": len(held_out),
        "difference_interval": [round(low, 6), round(high, 6)],
        "leads": low > 0,
    }
