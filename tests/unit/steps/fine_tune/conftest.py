"""A fitted probe on a few digits, and the training that starts from it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from graftline.models.backbone import build
from graftline.steps.fine_tune.step import FineTuneResult, run
from graftline.steps.fit_head.step import run as fit_head

NAME = "timm/test_resnet"
SIZE = 32


@pytest.fixture
def fitted(
    make_snapshot: Callable[..., tuple[Path, str]],
    make_features: Callable[..., Path],
    tmp_path: Path,
) -> Callable[..., FineTuneResult]:
    """Fit a (poor) probe once, then fine-tune it as often as called."""
    snapshot, store = make_snapshot(30, 3)
    features = make_features(snapshot, build(NAME, weights="random", image_size=SIZE))
    fit_head(
        snapshot_folder=snapshot,
        features_folder=features,
        store=store,
        backbone=NAME,
        weights="random",
        image_size=SIZE,
        strategy="fine_tune",
        classifier_folder=tmp_path / "probe",
        decision_file=tmp_path / "decision.json",
        probe={"c_grid": [1e-6]},
    )

    def train(out: str = "tuned", at: str = store, **options: Any) -> FineTuneResult:
        return run(
            snapshot_folder=snapshot,
            probe_folder=tmp_path / "probe",
            decision_file=tmp_path / "decision.json",
            store=at,
            classifier_folder=tmp_path / out,
            decision_out=tmp_path / f"{out}.json",
            **{"epochs": 2, "batch_size": 16, **options},
        )

    return train
