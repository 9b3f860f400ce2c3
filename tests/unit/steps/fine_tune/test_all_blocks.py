"""A training that starts from a probe on the features of all blocks."""

from collections.abc import Callable
from pathlib import Path

import torch

from graftline.classifier.bundle import load_classifier
from graftline.steps.fine_tune.step import run


def test_it_starts_where_the_probe_was_and_is_read_again(
    make_snapshot: Callable[..., tuple[Path, str]],
    make_probe: Callable[..., Path],
    tmp_path: Path,
) -> None:
    snapshot, store = make_snapshot(12, 3)
    make_probe(snapshot, store, "timm/test_resnet+blocks", 32)
    probe = load_classifier(tmp_path / "probe")
    result = run(
        snapshot_folder=snapshot,
        probe_folder=tmp_path / "probe",
        decision_file=tmp_path / "decision.json",
        store=store,
        classifier_folder=tmp_path / "tuned",
        decision_out=tmp_path / "tuned.json",
        epochs=1,
        batch_size=16,
        unfreeze=0.5,
    )
    assert result.start_val_accuracy == result.probe_val_accuracy
    assert result.frozen_blocks and result.trained_blocks
    tuned = load_classifier(tmp_path / "tuned")
    assert tuned.backbone.spec.name == probe.backbone.spec.name == "timm/test_resnet+blocks"
    assert tuned(torch.zeros(1, 3, 32, 32)).shape == (1, 3)
