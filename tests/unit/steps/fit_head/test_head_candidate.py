"""The head competes: it leads on classes that no line divides, and not on those that one does."""

import numpy as np
import pytest
from numpy.typing import NDArray

from graftline.steps.fit_head.config import HeadSettings
from graftline.steps.fit_head.head_candidate import head_candidate
from graftline.steps.fit_head.probes.divided import Divided
from graftline.steps.fit_head.probes.folds import make_folds
from graftline.steps.fit_head.probes.scaling import Scaling
from graftline.steps.fit_head.probes.search import Candidate
from graftline.steps.fit_head.suspects import out_of_fold

LOGISTIC = Candidate("logistic", Scaling.EACH, 1.0, 0.9, (0.8, 1.0), ())


def tried(x: NDArray[np.float64], y: NDArray[np.int64]) -> dict[str, object] | None:
    folds = make_folds(y, np.arange(len(y)), ("a", "b"), 5, 0)
    divided = Divided(x.astype(np.float32), y, folds)
    scores = out_of_fold(divided, 2, LOGISTIC, balanced=False)
    return head_candidate(divided, 2, scores, HeadSettings(hidden=(32,)), 0)


def test_it_leads_where_only_a_product_of_features_divides_the_classes() -> None:
    x = np.random.default_rng(0).normal(size=(600, 2))
    found = tried(x, (x[:, 0] * x[:, 1] > 0).astype(np.int64))
    assert found is not None and found["leads"]
    assert found["accuracy"] > 0.85 > 0.65 > found["probe_accuracy"]  # type: ignore[operator]
    assert found["images"] == 120


@pytest.mark.parametrize("seed", range(3))
def test_it_does_not_lead_where_a_line_divides_them_as_well_as_anything(seed: int) -> None:
    random = np.random.default_rng(seed)
    x, noise = random.normal(size=(600, 20)), random.normal(size=600)
    found = tried(x, (x[:, 0] + noise > 0).astype(np.int64))
    assert found is not None and not found["leads"]


def test_it_is_not_trained_where_the_probe_makes_too_few_errors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr("graftline.steps.fit_head.head_candidate.train_mlp")
    x = np.random.default_rng(0).normal(size=(600, 2))
    assert tried(x, (x[:, 0] > 0).astype(np.int64)) is None
