"""Data at the edge: a class without training images, one image a class, a batch of one image."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from graftline.classifier.bundle import load_classifier
from graftline.data.snapshot import read_snapshot, write_snapshot
from graftline.steps.fine_tune.step import FineTuneResult, run

NAME = "timm/test_resnet"  # it has BatchNorm
SIZE = 32


@pytest.fixture
def trained(
    make_snapshot: Callable[..., tuple[Path, str]],
    make_probe: Callable[..., Path],
    tmp_path: Path,
) -> Callable[..., FineTuneResult]:
    """The whole way on a snapshot whose training split holds the images that ``keep`` says."""

    def train(keep: Callable[[str, int], bool], **options: Any) -> FineTuneResult:
        folder, store = make_snapshot(15, 3)
        snapshot = read_snapshot(folder)
        seen: dict[str, int] = {}
        splits = []
        for label, split in zip(snapshot.column("label"), snapshot.column("split"), strict=True):
            if split == "train":
                seen[label] = seen.get(label, 0) + 1
                split = "train" if keep(str(label), seen[label]) else "val"
            splits.append(split)
        at = snapshot.manifest.column_names.index("split")
        manifest = snapshot.manifest.set_column(at, "split", pa.array(splits, pa.string()))
        changed = tmp_path / "changed"
        write_snapshot(changed, manifest, snapshot.set_aside, store=store, source="digits")
        make_probe(changed, store, NAME, SIZE, c=1e-2)
        return run(
            snapshot_folder=changed,
            probe_folder=tmp_path / "probe",
            decision_file=tmp_path / "decision.json",
            store=store,
            classifier_folder=tmp_path / "tuned",
            decision_out=tmp_path / "tuned.json",
            **{"epochs": 2, "batch_size": 4, **options},
        )

    return train


@pytest.mark.parametrize("weight", ["none", pytest.param("balanced", marks=pytest.mark.slow)])
def test_a_class_without_training_images_is_never_learned_and_stops_nothing(
    trained: Callable[..., FineTuneResult], tmp_path: Path, weight: str
) -> None:
    result = trained(lambda label, _: label != "2", class_weight=weight)
    assert result.epochs == 2
    assert all(epoch["train_loss"] >= 0 for epoch in result.history)
    classifier = load_classifier(tmp_path / "tuned")
    assert classifier.classes == ("0", "1", "2")
    assert all(torch.isfinite(tensor).all() for tensor in classifier.state_dict().values())
    assert json.loads((tmp_path / "tuned.json").read_text())["outcome"]["validation_images"] > 3


@pytest.mark.parametrize("batch", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 64))])
def test_one_training_image_a_class_trains(
    trained: Callable[..., FineTuneResult], tmp_path: Path, batch: int
) -> None:
    result = trained(lambda _, number: number == 1, batch_size=batch, unfreeze="all")
    assert result.epochs == 2
    tensors = load_classifier(tmp_path / "tuned").state_dict().values()
    assert all(torch.isfinite(tensor).all() for tensor in tensors)


@pytest.mark.slow
def test_scratch_on_batches_of_one_image_learns_statistics_of_more_than_one_alone(
    trained: Callable[..., FineTuneResult], tmp_path: Path
) -> None:
    """BatchNorm adapts in this strategy; of a single image it would divide by no variance."""
    result = trained(lambda *_: True, batch_size=1, strategy="scratch", epochs=1)
    tensors = load_classifier(tmp_path / "tuned").state_dict().values()
    assert all(torch.isfinite(tensor).all() for tensor in tensors)
    assert result.strategy == "scratch"
