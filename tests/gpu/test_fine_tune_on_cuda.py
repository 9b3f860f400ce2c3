"""Fine-tuning on a CUDA device; skipped visibly where there is none."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from graftline.models.backbone import build
from graftline.steps.fine_tune.inputs import batches
from graftline.steps.fine_tune.inputs.device_batches import (
    Crop,
    DeviceBatches,
    padded_batch,
    resized,
)
from graftline.steps.fine_tune.loop import Trainer
from graftline.steps.fine_tune.step import FineTuneResult, run

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]
NAME, SIZE = "timm/test_resnet", 32
Train = Callable[..., FineTuneResult]


@pytest.fixture
def folder(
    make_snapshot: Callable[..., tuple[Path, str]],
    make_probe: Callable[..., Path],
) -> Path:
    """A poor probe on a few digits, and all that a fine-tuning starts from."""
    snapshot, store = make_snapshot(60, 3)
    return make_probe(snapshot, store, NAME, SIZE)


def train(folder: Path, out: str = "tuned", **options: Any) -> FineTuneResult:
    return run(
        snapshot_folder=folder / "data" / "snapshot",
        probe_folder=folder / "probe",
        decision_file=folder / "decision.json",
        store=str(folder / "data" / "store"),
        classifier_folder=folder / out,
        decision_out=folder / f"{out}.json",
        **{"epochs": 3, "batch_size": 16, "processes": 1, **options},
    )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"policy": "rand", "mix": "cutmix"},
        {"views": 2, "mix": "mixup"},
        {"augment": False},
        {"unfreeze": "all", "precision": "fp32", "ema": 0.0},
    ],
)
def test_training_goes_on_the_device_and_starts_at_the_probe(
    folder: Path, options: dict[str, Any]
) -> None:
    result = train(folder, **options)
    assert result.device.startswith("cuda")
    assert result.start_val_accuracy == pytest.approx(result.probe_val_accuracy, abs=1e-9)
    assert all(np.isfinite(epoch["train_loss"]) for epoch in result.history)


def test_crops_resized_on_the_device_are_those_of_the_cpu() -> None:
    generator = torch.Generator().manual_seed(0)
    sizes = [(200, 250), (256, 180), (8, 9), (224, 224), (440, 300)]
    crops = [torch.randint(0, 256, (*s, 3), dtype=torch.uint8, generator=generator) for s in sizes]
    prepare = build("timm/test_resnet", weights="random", image_size=224).spec.preprocessing
    whole = [Crop(crop, (slice(0, crop.shape[0]), slice(0, crop.shape[1]))) for crop in crops]
    made = DeviceBatches(prepare, torch.device("cuda")).make(whole).get().cpu()
    there = resized(*padded_batch(whole, torch.device("cpu")), 224, prepare.interpolation)
    wanted = prepare.normalise(there)
    grey = 1.01 / 255 / min(prepare.std)  # a value on the edge may round the other way
    assert (made - wanted).abs().max() <= grey
    assert (made - wanted).abs().mean() < 1e-4


def test_where_the_device_has_no_room_for_a_batch_the_cpu_makes_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(batches.DeviceBatches, "make", full)
    assert train(folder).epochs == 3


def test_out_of_memory_in_a_step_halves_its_passes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(folder, "whole", precision="fp32")
    logits = Trainer._logits

    def hungry(self: Trainer, x: torch.Tensor) -> torch.Tensor:
        if len(x) > 4:
            torch.empty(2**45, device="cuda")
        return logits(self, x)

    monkeypatch.setattr(Trainer, "_logits", hungry)
    halved = train(folder, "halved", precision="fp32", checkpoint_key="another")
    found = [epoch["train_loss"] for epoch in halved.history]
    np.testing.assert_allclose(found, [e["train_loss"] for e in whole.history], rtol=1e-3)


KILLED = """
import json, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_fine_tune_on_cuda as tests
result = tests.train(Path({folder!r}), epochs=40, patience=40, precision="fp32")
print(json.dumps([result.val_accuracy, result.history[-1]["train_loss"]]))
"""


def test_killed_at_any_moment_it_ends_where_an_undisturbed_run_does(folder: Path) -> None:
    options: dict[str, Any] = {"epochs": 40, "patience": 40, "precision": "fp32"}
    undisturbed = train(folder, "undisturbed", checkpoint_key="undisturbed", **options)
    script = KILLED.format(tests=str(Path(__file__).parent), folder=str(folder))
    kept = folder / "data" / "store" / "checkpoints"
    random = np.random.default_rng()
    for _ in range(2):
        before = set(kept.rglob("*"))
        process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL)
        while process.poll() is None and set(kept.rglob("*")) == before:
            time.sleep(0.05)
        time.sleep(random.uniform(0.0, 0.3))
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
        process.wait()
    again = train(folder, "again", **options)
    assert again.epochs == undisturbed.epochs
    for name in ("train_loss", "val_loss"):
        found = [epoch[name] for epoch in again.history]
        np.testing.assert_allclose(found, [e[name] for e in undisturbed.history], rtol=0.02)
    assert again.val_accuracy == pytest.approx(undisturbed.val_accuracy, abs=0.05)
