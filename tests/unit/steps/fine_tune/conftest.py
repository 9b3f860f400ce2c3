"""A fitted probe on a few digits, and the training that starts from it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from graftline.steps.fine_tune.step import FineTuneResult, run

NAME = "timm/test_resnet"
SIZE = 32


@pytest.fixture
def fitted(
    make_snapshot: Callable[..., tuple[Path, str]],
    make_probe: Callable[..., Path],
    tmp_path: Path,
) -> Callable[..., FineTuneResult]:
    """Fit a (poor) probe once, then fine-tune it as often as called."""
    snapshot, store = make_snapshot(30, 3)
    make_probe(snapshot, store, NAME, SIZE)

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
