"""Freezing, the loop, checkpoints and the comparison with the probe, on real digits."""

import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import nn

from graftline.classifier.bundle import Classifier, load_classifier, read_held_out, save_classifier
from graftline.data.snapshot import read_snapshot
from graftline.errors import ConfigurationError, FrozenWeightsMoved, StoreError, TrainingError
from graftline.images.preprocessing import Preprocessing
from graftline.models.backbone import Backbone, build
from graftline.records.decision import Forecast, Outcome, read_decision, write_decision
from graftline.stats.calibration import sharpness
from graftline.steps.fine_tune import loop, processes
from graftline.steps.fine_tune.checkpoints.resume import Checkpoint, Checkpoints
from graftline.steps.fine_tune.inputs.images import ahead, network_input, random_crop
from graftline.steps.fine_tune.inputs.kept_outputs import KeptOutputs
from graftline.steps.fine_tune.network.freezing import (
    check_unmoved,
    divide,
    freeze,
    frozen_digests,
    parameter_groups,
    training_mode,
)
from graftline.steps.fine_tune.network.split import Split
from graftline.steps.fine_tune.start_and_outcome import compare
from graftline.steps.fine_tune.step import FineTuneResult, run
from graftline.storage import open_store

NAME = "timm/test_resnet"
SIZE = 32


@pytest.fixture
def backbone() -> Backbone:
    return build(NAME, weights="random", image_size=SIZE)


@pytest.fixture
def classifier(backbone: Backbone) -> Classifier:
    return Classifier(
        backbone,
        nn.Linear(backbone.spec.feature_dim, 3),
        ("a", "b", "c"),
        preprocessing=backbone.spec.preprocessing,
        strategy="probe",
        snapshot_id="s",
    )


# --- freezing ---


@pytest.mark.parametrize(
    ("fraction", "frozen"),
    [(0.0, 0), (0.5, 2), (0.59, 2), (0.6, 3), (1.0, 5)],
)
def test_the_lower_blocks_are_frozen(backbone: Backbone, fraction: float, frozen: int) -> None:
    division = divide(backbone, fraction)
    names = [name for name, _ in backbone.blocks()]
    assert list(division.frozen + division.trained) == names
    assert len(division.frozen) == frozen
    freeze(backbone, division)
    for name, block in backbone.blocks():
        for parameter in block.parameters():
            assert parameter.requires_grad == (name in division.trained)


def test_batch_norm_of_frozen_blocks_keeps_its_statistics(classifier: Classifier) -> None:
    division = divide(classifier.backbone, 0.5)
    before = frozen_digests(classifier.backbone, division)
    assert any("running_mean" in name for name in before)
    statistics = dict(classifier.backbone.named_buffers())
    old = {name: tensor.clone() for name, tensor in statistics.items()}
    training_mode(classifier, division, adapt_batch_norm=True)
    classifier(torch.randn(8, 3, SIZE, SIZE))
    check_unmoved(classifier.backbone, division, before)
    changed = {name for name in old if not torch.equal(old[name], statistics[name])}
    assert changed
    assert not changed & set(before)


def test_without_adaptation_no_statistics_change_at_all(classifier: Classifier) -> None:
    division = divide(classifier.backbone, 0.0)
    old = {name: tensor.clone() for name, tensor in classifier.backbone.named_buffers()}
    training_mode(classifier, division, adapt_batch_norm=False)
    classifier(torch.randn(8, 3, SIZE, SIZE))
    for name, tensor in classifier.backbone.named_buffers():
        assert torch.equal(tensor, old[name]), name
    assert classifier.training


@pytest.mark.parametrize("kind", ["parameter", "buffer"])
def test_a_frozen_tensor_that_moved_is_named(backbone: Backbone, kind: str) -> None:
    division = divide(backbone, 0.5)
    before = frozen_digests(backbone, division)
    tensors = backbone.named_parameters() if kind == "parameter" else backbone.named_buffers()
    name, tensor = next((n, t) for n, t in tensors if n in before)
    with torch.no_grad():
        tensor += 1
    with pytest.raises(FrozenWeightsMoved) as caught:
        check_unmoved(backbone, division, before)
    assert name in str(caught.value)


def test_rates_fall_with_depth_and_only_matrices_decay(classifier: Classifier) -> None:
    division = divide(classifier.backbone, 0.5)
    freeze(classifier.backbone, division)
    groups = parameter_groups(
        classifier, division, learning_rate=1.0, layer_decay=0.5, weight_decay=0.1
    )
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    trainable = [p for p in classifier.parameters() if p.requires_grad]
    assert sorted(rates) == sorted(id(p) for p in trainable)
    assert {rates[id(p)] for p in classifier.head.parameters()} == {1.0}
    blocks = dict(classifier.backbone.blocks())
    for depth, name in enumerate(reversed(division.trained), start=1):
        assert {rates[id(p)] for p in blocks[name].parameters()} == {0.5**depth}
    for group in groups:
        for parameter in group["params"]:
            assert group["weight_decay"] == (0.1 if parameter.ndim > 1 else 0.0)


# --- images ---


def test_a_crop_depends_on_seed_epoch_and_image_alone() -> None:
    image = np.random.default_rng(0).integers(256, size=(40, 60, 3), dtype=np.uint8)
    base = {"seed": 1, "epoch": 2, "image_id": "x", "flip": False}
    one = random_crop(image, **base)  # type: ignore[arg-type]
    assert np.array_equal(one, random_crop(image, **base))  # type: ignore[arg-type]
    for change in ({"seed": 2}, {"epoch": 3}, {"image_id": "y"}):
        other = random_crop(image, **{**base, **change})  # type: ignore[arg-type]
        assert other.shape != one.shape or not np.array_equal(other, one)


def test_crops_keep_most_of_the_image_and_flip_only_when_told() -> None:
    image = np.zeros((50, 50, 3), np.uint8)
    image[:, :, 0] = np.arange(50)[None]
    mirrored = 0
    for number in range(200):
        part = random_crop(image, seed=0, epoch=0, image_id=str(number), flip=True)
        assert part.shape[0] * part.shape[1] >= 0.55 * 2500
        mirrored += int(part[0, 0, 0] > part[0, -1, 0])
        straight = random_crop(image, seed=0, epoch=0, image_id=str(number), flip=False)
        assert straight[0, 0, 0] < straight[0, -1, 0]
    assert 60 < mirrored < 140


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 300, 3), (300, 1, 3), (7, 9, 3)])
def test_odd_images_can_be_cropped(shape: tuple[int, int, int]) -> None:
    part = random_crop(np.ones(shape, np.uint8), seed=0, epoch=0, image_id="i", flip=True)
    assert part.size > 0
    plain = Preprocessing(32, 36, "bicubic", "center", (0.5,) * 3, (0.5,) * 3)
    x = network_input([part, part], plain, torch.device("cpu"), cropped=True)
    assert x.shape == (2, 3, 32, 32)
    assert torch.isfinite(x).all()


def test_uncropped_images_are_preprocessed_as_in_evaluation() -> None:
    image = np.random.default_rng(0).integers(256, size=(50, 70, 3), dtype=np.uint8)
    plain = Preprocessing(32, 36, "bicubic", "center", (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
    x = network_input([image], plain, torch.device("cpu"), cropped=False)
    assert torch.allclose(x[0], plain.apply(image), atol=1e-5)


def test_ahead_keeps_the_order_and_passes_errors_on() -> None:
    assert list(ahead(lambda value: value * 2, range(500))) == list(range(0, 1000, 2))

    def fail(value: int) -> int:
        if value == 3:
            raise RuntimeError("the third")
        return value

    with pytest.raises(RuntimeError, match="the third"):
        list(ahead(fail, range(10)))


# --- the step ---


def test_fine_tuning_improves_on_a_poor_probe_and_moves_only_what_it_may(
    fitted: Callable[..., FineTuneResult], tmp_path: Path
) -> None:
    _spoil(tmp_path / "probe")
    result = fitted(epochs=10, learning_rate=3e-3, augment=False, patience=10)
    probe = load_classifier(tmp_path / "probe")
    tuned = load_classifier(tmp_path / "tuned")
    outcome = read_decision(tmp_path / "tuned.json").outcome
    assert outcome is not None
    assert result.strategy == outcome.used == tuned.strategy
    if result.strategy == "probe":
        pytest.fail(f"training did not help: {outcome.sentence} {result.history}")
    assert outcome.gain > 0
    assert outcome.agreed
    frozen = set(frozen_digests(probe.backbone, divide(probe.backbone, 0.5)))
    moved = {
        name
        for name, tensor in probe.backbone.state_dict().items()
        if not torch.equal(tensor, tuned.backbone.state_dict()[name])
    }
    assert moved
    assert not moved & frozen
    assert not torch.equal(probe.head.weight, tuned.head.weight)
    assert tuned.backbone_fingerprint == tuned.backbone.fingerprint()
    assert tuned.backbone_fingerprint != probe.backbone_fingerprint
    _check_held_out(tmp_path / "tuned", tmp_path, result)


def _spoil(bundle: Path) -> None:
    """Let the probe take each class for the next: training has something to gain."""
    probe, held_out = load_classifier(bundle), read_held_out(bundle)
    assert held_out is not None
    with torch.no_grad():
        for name, tensor in probe.head.state_dict().items():
            tensor.copy_(tensor.roll(1, dims=0))
            held_out.head[name].copy_(held_out.head[name].roll(1, dims=0))
    logits = np.roll(held_out.logits, 1, axis=1)
    save_classifier(bundle, probe, held_out=replace(held_out, logits=logits))
    decision = bundle.parent / "decision.json"  # its forecast was of the probe that found them all
    write_decision(decision, replace(read_decision(decision), forecast=None))


def _check_held_out(bundle: Path, folder: Path, result: FineTuneResult) -> None:
    """The bundle's held-out logits are those of its own network, and give the accuracy told."""
    snapshot = read_snapshot(folder / "data" / "snapshot")
    held_out = read_held_out(bundle)
    assert held_out is not None
    truth = snapshot.labels()[held_out.rows]
    assert (held_out.logits.argmax(axis=1) == truth).mean() == pytest.approx(result.val_accuracy)
    from graftline.data.snapshot import read_images
    from graftline.images import decode

    tuned = load_classifier(bundle)
    x = torch.stack(
        [
            tuned.preprocessing.apply(decode.decode(data))
            for _, data in read_images(snapshot, held_out.rows)
        ]
    )
    with torch.inference_mode():
        assert np.allclose(tuned(x).numpy(), held_out.logits, atol=1e-4)


def test_a_model_that_does_not_beat_its_probe_is_not_used(
    fitted: Callable[..., FineTuneResult], tmp_path: Path
) -> None:
    result = fitted(learning_rate=1e-12)
    assert result.strategy == "probe"
    outcome = read_decision(tmp_path / "tuned.json").outcome
    assert outcome is not None
    assert not outcome.agreed
    assert "did not beat" in outcome.sentence
    for name in ("weights.safetensors", "held_out.safetensors", "classifier.json"):
        assert (tmp_path / "tuned" / name).read_bytes() == (tmp_path / "probe" / name).read_bytes()


def test_training_starts_as_the_train_only_probe(
    fitted: Callable[..., FineTuneResult], tmp_path: Path
) -> None:
    """With a rate of nearly nothing, epoch 1 measures the start: the probe's own accuracy."""
    result = fitted(learning_rate=1e-12, epochs=1)
    assert result.history[0]["val_accuracy"] == pytest.approx(result.probe_val_accuracy)


def test_scratch_starts_from_random_weights_and_is_kept(
    fitted: Callable[..., FineTuneResult], tmp_path: Path
) -> None:
    result = fitted(strategy="scratch", epochs=1)
    assert result.strategy == "scratch"
    assert result.frozen_blocks == []
    tuned = load_classifier(tmp_path / "tuned")
    assert tuned.strategy == "scratch"
    means = [t for n, t in tuned.backbone.named_buffers() if n.endswith("running_mean")]
    assert all(tensor.abs().sum() > 0 for tensor in means)  # gathered again


def test_equal_runs_give_equal_weights_and_other_seeds_others(
    fitted: Callable[..., FineTuneResult], tmp_path: Path
) -> None:
    for out, seed in (("one", 0), ("two", 0), ("three", 1)):
        fitted(out, checkpoint_key=out, seed=seed, epochs=1, strategy="scratch")
    one, two, three = (
        (tmp_path / out / "weights.safetensors").read_bytes() for out in ("one", "two", "three")
    )
    assert one == two != three


def test_a_finished_training_is_not_done_again(
    fitted: Callable[..., FineTuneResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = fitted("one", strategy="scratch")

    def refuse(*args: object) -> None:
        raise AssertionError("a step was trained again")

    monkeypatch.setattr(loop.Trainer, "_step", refuse)
    second = fitted("two", strategy="scratch")
    assert second.history == first.history
    assert (tmp_path / "one" / "weights.safetensors").read_bytes() == (
        tmp_path / "two" / "weights.safetensors"
    ).read_bytes()


def test_early_stopping_keeps_the_best_epoch_and_says_so(
    fitted: Callable[..., FineTuneResult], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    result = fitted(strategy="scratch", epochs=6, patience=1, learning_rate=1e-9)
    assert result.epochs < 6
    kept = f"epoch {result.best_epoch}, the best on validation, is kept."
    assert f"1 epoch without improvement (scratch.patience); {kept}" in caplog.text
    best = max(result.history, key=lambda e: (e["val_accuracy"], -e["val_loss"]))
    assert result.best_epoch == best["epoch"]
    assert result.val_accuracy == pytest.approx(best["val_accuracy"])


def test_more_processes_than_a_batch_has_images_are_not_started(
    fitted: Callable[..., FineTuneResult], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    result = fitted(processes=3, batch_size=1, epochs=1)
    assert result.epochs == 1
    assert "1 of 3 processes train, one for each image of a batch" in caplog.text


def test_more_nodes_than_a_batch_has_images_are_refused_before_one_is_asked_for(
    fitted: Callable[..., FineTuneResult],
) -> None:
    with pytest.raises(ConfigurationError, match="cannot share a batch of 16") as caught:
        fitted(nodes=17)
    assert "fine_tune.batch_size to at least 17" in str(caught.value.fix)


def test_a_rate_far_too_large_is_named_with_the_epoch_and_one_that_works(
    fitted: Callable[..., FineTuneResult],
) -> None:
    with pytest.raises(TrainingError, match="epoch 1") as caught:
        fitted(learning_rate=1e30, epochs=2, guard=False)
    assert "1e+30 is too large" in str(caught.value.why)
    assert str(caught.value.fix).endswith("to 0.001")  # the default, not 1e+29


def test_a_time_limit_ends_with_the_best_epoch_and_says_so(
    fitted: Callable[..., FineTuneResult], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    result = fitted(epochs=6, max_minutes=1e-9)
    assert result.epochs == 1 and result.best_epoch == 1
    said = "Training ends in epoch 1 of 6: its 1e-09 minutes are over (fine_tune.max_minutes); "
    assert said + "epoch 1, the best on validation, is kept." in caplog.text
    again = fitted(epochs=6, max_minutes=1e-9)  # as a retried task: it has ended, and stays so
    assert again.history == result.history


def test_short_memory_halves_the_micro_batch_and_changes_no_gradient(
    fitted: Callable[..., FineTuneResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # AdamW turns rounding into steps of the size of the rate, so the tolerance goes with it.
    how = {"strategy": "scratch", "adapt_batch_norm": False, "learning_rate": 3e-4}
    fitted("whole", checkpoint_key="whole", **how)
    forward = Classifier.forward
    sizes = []

    def short(self: Classifier, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            sizes.append(len(x))
            if len(x) > 4:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")
        return forward(self, x)

    monkeypatch.setattr(Classifier, "forward", short)
    fitted("parts", checkpoint_key="parts", **how)
    assert sizes[:3] == [16, 8, 4]
    assert set(sizes[3:]) == {4}
    whole, parts = (load_classifier(tmp_path / out).state_dict() for out in ("whole", "parts"))
    for name, tensor in whole.items():
        assert torch.allclose(tensor.float(), parts[name].float(), atol=2e-3), name


def test_a_store_that_is_away_for_some_checkpoints_changes_nothing(
    fitted: Callable[..., FineTuneResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Away for all but the last save, and for all."""
    fitted("whole", checkpoint_key="whole", strategy="scratch", epochs=3)
    save, tries = Checkpoints.save, []

    def away(self: Checkpoints, checkpoint: Checkpoint) -> None:
        tries.append(checkpoint.scalars["epoch"])
        if checkpoint.scalars["epoch"] < 3 or self._key == "gone":
            raise StoreError("the store does not answer")
        save(self, checkpoint)

    monkeypatch.setattr(Checkpoints, "save", away)
    for key in ("away", "gone"):
        fitted(key, checkpoint_key=key, strategy="scratch", epochs=3)
        assert tries[-1] == 3 and len(tries) > 1
        weights = [tmp_path / name / "weights.safetensors" for name in ("whole", key)]
        assert weights[0].read_bytes() == weights[1].read_bytes()
        tries.clear()


def test_no_memory_for_one_image_is_an_error_with_a_remedy(
    fitted: Callable[..., FineTuneResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(self: Classifier, x: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Classifier, "forward", never)
    with pytest.raises(TrainingError, match="one image does not fit") as caught:
        fitted()
    assert "frozen_fraction" in str(caught.value)


def test_a_diverging_loss_names_the_rate_to_try(fitted: Callable[..., FineTuneResult]) -> None:
    with pytest.raises(TrainingError, match="loss is") as caught:
        fitted(strategy="scratch", learning_rate=1e30, adapt_batch_norm=False, epochs=4)
    assert str(caught.value.fix).endswith("to 0.001")  # the default


def test_a_frozen_tensor_moved_by_the_network_itself_fails_the_step(
    fitted: Callable[..., FineTuneResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = Backbone.forward

    def moving(self: Backbone, images: torch.Tensor) -> torch.Tensor:
        if self.training:
            with torch.no_grad():
                next(self.parameters()).add_(1e-7)
        return forward(self, images)

    monkeypatch.setattr(Backbone, "forward", moving)
    with pytest.raises(FrozenWeightsMoved):
        fitted()


@pytest.mark.parametrize("option", ["class_weight", "label_smoothing", "flip"])
def test_options_change_the_training(
    fitted: Callable[..., FineTuneResult], tmp_path: Path, option: str
) -> None:
    value: Any = {"class_weight": "balanced", "label_smoothing": 0.2, "flip": True}[option]
    plain = fitted("plain", strategy="scratch", epochs=1)
    other = fitted("other", strategy="scratch", epochs=1, **{option: value})
    same = plain.history == other.history
    assert same == (option == "class_weight")  # the classes are equally large here


def test_two_processes_give_the_result_of_one(
    fitted: Callable[..., FineTuneResult], tmp_path: Path
) -> None:
    _spoil(tmp_path / "probe")
    options = {"epochs": 2, "learning_rate": 3e-3, "mix": "mixup", "precision": "fp32"}
    one = fitted("one", checkpoint_key="one", **options)
    two = fitted("two", checkpoint_key="two", processes=2, **options)
    losses = [[epoch["train_loss"] for epoch in result.history] for result in (one, two)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert one.strategy == two.strategy == "fine_tune"
    single, pair = (load_classifier(tmp_path / out).state_dict() for out in ("one", "two"))
    for name, tensor in single.items():
        assert torch.allclose(tensor, pair[name], atol=1e-4), name


def test_a_process_that_fails_is_named_with_its_reason(
    fitted: Callable[..., FineTuneResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "PATIENCE", timedelta(seconds=60))
    monkeypatch.setattr(processes, "HELPER", "graftline.no_such_module")
    with pytest.raises(TrainingError, match="a process that shares the training failed") as caught:
        fitted(processes=2)
    assert "no_such_module" in str(caught.value)


def test_of_several_failed_processes_the_one_with_the_cause_is_named(tmp_path: Path) -> None:
    """Those that only lost their connection to it often end first."""
    lost = "RuntimeError: [/gloo/transport/tcp/pair.cc:561] Connection closed by peer [127.0.0.1]"
    traceback = 'Traceback (most recent call last):\n  File "a.py", line 1, in f\n    g()\n'
    cause = "graftline.errors.DataError: the image is damaged"
    for rank, error in enumerate((lost, cause), start=1):
        text = "".join(f"[rank{rank}]: {line}\n" for line in (traceback + error).splitlines())
        (tmp_path / f"{rank}.log").write_text("an epoch\n" + text)
    ended = [subprocess.Popen([sys.executable, "-c", "raise SystemExit(1)"]) for _ in range(2)]
    for process in ended:
        process.wait()
    assert processes._failure(ended, tmp_path) == f"an epoch {cause}"
    assert "Connection closed" in str(processes._failure(ended[:1], tmp_path))
    (tmp_path / "1.log").write_text("")
    assert processes._failure(ended[:1], tmp_path) == "it ended with code 1"


def test_the_start_is_the_probes_own_and_kept_outputs_change_nothing(
    fitted: Callable[..., FineTuneResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once with the lower half's outputs kept, once with the network run as a whole."""
    options = {"augment": False, "precision": "fp32"}
    kept = fitted("kept", checkpoint_key="kept", **options)
    assert kept.start_val_accuracy == kept.probe_val_accuracy
    monkeypatch.setattr(loop, "split", lambda *_: None)
    whole = fitted("whole", checkpoint_key="whole", **options)
    for a, b in zip(kept.history, whole.history, strict=True):
        assert a == pytest.approx(b, rel=1e-3)


def test_a_few_views_are_computed_once(
    fitted: Callable[..., FineTuneResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    lower, images = Split.lower, []

    def counted(self: Split, x: torch.Tensor) -> torch.Tensor:
        images.append(len(x))
        return lower(self, x)

    monkeypatch.setattr(Split, "lower", counted)
    monkeypatch.setattr(KeptOutputs, "load", lambda _: 0)  # as if the store had none
    fitted("short", checkpoint_key="short", epochs=3, views=2, patience=9)
    short = sum(images)
    images.clear()
    fitted("long", checkpoint_key="long", epochs=6, views=2, patience=9)
    assert sum(images) == short  # three more epochs need no image again


@pytest.mark.parametrize("options", [{"views": 2}, {"augment": False}])
def test_another_training_takes_the_frozen_blocks_outputs_from_the_store(
    fitted: Callable[..., FineTuneResult],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
) -> None:
    """With other rates none is computed again; with the same, the weights are the same bits."""
    lower, images = Split.lower, []

    def counted(self: Split, x: torch.Tensor) -> torch.Tensor:
        images.append(len(x))
        return lower(self, x)

    _spoil(tmp_path / "probe")
    same = {"learning_rate": 1e-2, "precision": "fp32", **options}
    fitted("first", checkpoint_key="first", **same)
    monkeypatch.setattr(Split, "lower", counted)
    found = fitted("second", checkpoint_key="second", **same)
    checked = len(images)  # the halves are compared with the whole network at the start
    assert checked <= 1 and found.strategy == "fine_tune"
    weights = [tmp_path / name / "weights.safetensors" for name in ("first", "second")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    fitted("third", checkpoint_key="third", **same, weight_decay=0.0)
    assert len(images) == 2 * checked
    fitted("fourth", checkpoint_key="fourth", **same, unfreeze=1)
    assert len(images) > 3 * checked  # other blocks are frozen


def test_damaged_outputs_of_frozen_blocks_are_computed_again(
    fitted: Callable[..., FineTuneResult], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "graftline")
    _spoil(tmp_path / "probe")
    fitted("first", checkpoint_key="first", views=1)
    parts = list(tmp_path.rglob("frozen-outputs/*/*.safetensors"))
    assert parts
    for part in parts:
        part.chmod(0o644)
        part.write_bytes(part.read_bytes()[:-1] + b"?")
    fitted("second", checkpoint_key="second", views=1)
    weights = [tmp_path / name / "weights.safetensors" for name in ("first", "second")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert "is damaged" in caplog.text
    caplog.clear()
    fitted("third", checkpoint_key="third", views=1)
    assert "come from the store" in caplog.text and "is damaged" not in caplog.text


def test_a_checkpoint_of_other_settings_is_refused(fitted: Callable[..., FineTuneResult]) -> None:
    fitted(checkpoint_key="mine", epochs=1)
    with pytest.raises(ConfigurationError, match="another training"):
        fitted(checkpoint_key="mine", epochs=1, learning_rate=1e-4)


def test_batches_of_one_image_train(fitted: Callable[..., FineTuneResult]) -> None:
    result = fitted(strategy="scratch", epochs=1, batch_size=1)
    assert np.isfinite(result.history[0]["train_loss"])


def test_epochs_are_reported_while_it_trains(fitted: Callable[..., FineTuneResult]) -> None:
    told: list[dict[str, float]] = []
    result = fitted(on_epoch=told.append)
    assert [figures["epoch"] for figures in told] == [1, 2]
    for figures, kept in zip(told, result.history, strict=True):
        assert {name: figures[name] for name in kept} == kept
        assert figures["images_per_second"] > 0


def test_other_strategies_and_other_data_are_refused(
    fitted: Callable[..., FineTuneResult],
    make_snapshot: Callable[..., tuple[Path, str]],
    tmp_path: Path,
) -> None:
    with pytest.raises(ConfigurationError, match="probe"):
        fitted(strategy="probe")
    other, store = make_snapshot(10, 2, name="other")
    with pytest.raises(ConfigurationError, match="fitted on snapshot"):
        run(
            snapshot_folder=other,
            probe_folder=tmp_path / "probe",
            decision_file=tmp_path / "decision.json",
            store=store,
            classifier_folder=tmp_path / "x",
            decision_out=tmp_path / "x.json",
        )


# --- the comparison ---


def _logits(right: list[bool]) -> np.ndarray:
    return np.array([[1.0, 0.0] if ok else [0.0, 1.0] for ok in right], np.float32)


@pytest.mark.parametrize(
    ("won", "lost", "both", "used"),
    [
        (10, 2, 88, "fine_tune"),
        (3, 2, 95, "probe"),
        (1, 0, 99, "probe"),  # one image alone is never called better
        (1, 0, 0, "probe"),
        (2, 2, 96, "probe"),
        (0, 5, 95, "probe"),
    ],
)
def test_comparison_with_known_answers(won: int, lost: int, both: int, used: str) -> None:
    trained = [True] * won + [False] * lost + [True] * both
    probe = [False] * won + [True] * lost + [True] * both
    truth = np.zeros(len(trained), np.int64)
    outcome = compare("fine_tune", _logits(trained), _logits(probe), truth)
    assert outcome.used == used
    assert outcome.gain == pytest.approx((won - lost) / len(truth))
    low, high = outcome.gain_interval
    assert outcome.agreed == (used == "fine_tune")
    assert low <= outcome.gain <= high
    assert ("is expected on new images" in outcome.sentence) == (won > lost)


@pytest.mark.parametrize(
    ("gain", "deviation", "used"),
    [
        (0.0, 1.0, "fine_tune"),  # knows nothing: the lead decides
        (0.05, 0.02, "fine_tune"),
        (-0.001, 0.001, "probe"),  # sure that there is nothing to gain
        (-0.05, 0.02, "probe"),
        (-0.05, 0.2, "fine_tune"),  # does not know that it is a loss
    ],
)
def test_the_forecast_and_the_lead_decide_together(
    gain: float, deviation: float, used: str
) -> None:
    """5 images of 64 ahead, less what 9 that tell the two apart flatter by: 2 to 3 points."""
    outcome = _with_forecast(7, 2, 55, gain, deviation)
    assert outcome.used == used
    assert outcome.sentence.endswith(
        f"the {'fine-tuned model' if outcome.agreed else 'probe'} is used."
    )


def test_a_network_that_does_not_lead_is_not_used_whatever_was_forecast() -> None:
    outcome = _with_forecast(3, 3, 58, 0.2, 0.01)
    assert outcome.used == "probe" and "did not beat" in outcome.sentence


def _with_forecast(won: int, lost: int, both: int, gain: float, deviation: float) -> Outcome:
    trained = [True] * won + [False] * lost + [True] * both
    probe = [False] * won + [True] * lost + [True] * both
    low, high = (norm.ppf(p, gain, deviation) for p in (0.2, 0.8))
    forecast = Forecast(gain=gain, gain_interval=(low, high), confidence=0.6, basis="a test")
    truth = np.zeros(len(trained), np.int64)
    return compare("fine_tune", _logits(trained), _logits(probe), truth, forecast)


def test_random_weights_are_kept_whatever_they_reach_and_never_flattered() -> None:
    truth = np.zeros(10, np.int64)
    one_more = compare("scratch", _logits([True] * 10), _logits([False] + [True] * 9), truth)
    assert one_more.used == "scratch"
    assert not one_more.agreed
    assert "did not beat" in one_more.sentence


def test_sharpness_undoes_a_temperature() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=(4000, 3)) * 2
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truth = np.array([random.choice(3, p=row) for row in chances])
    assert sharpness((logits / 5).astype(np.float32), truth) == pytest.approx(5, rel=0.1)


def test_few_images_that_are_all_right_do_not_make_the_head_certain() -> None:
    """Platt's targets: 17 right answers of 17 show a chance of 18 in 19, not of 1."""
    truth = np.arange(17) % 2
    logits = np.eye(2)[truth] * 3.0
    scaled = logits * sharpness(logits.astype(np.float32), truth)
    right = np.exp(scaled[0, 0]) / np.exp(scaled[0]).sum()
    assert right == pytest.approx(18 / 19, abs=1e-3)


# --- checkpoints ---


@pytest.fixture(params=["file", "s3"])
def store_uri(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "s3":
        yield request.getfixturevalue("s3_bucket") + "/somewhere"
    else:
        yield str(tmp_path / "checkpoints")


def _checkpoint(steps: int) -> Checkpoint:
    tensors = {"state": {"w": torch.full((3,), float(steps))}, "best": {"w": torch.ones(2)}}
    return Checkpoint({"steps_done": steps}, tensors)


def test_checkpoints_come_back_and_old_ones_are_removed(store_uri: str) -> None:
    store = open_store(store_uri)
    checkpoints = Checkpoints(store, "key")
    assert checkpoints.latest() is None
    for steps in (1, 2, 3):
        checkpoints.save(_checkpoint(steps))
    back = Checkpoints(store, "key").latest()
    assert back is not None
    assert back.scalars == {"steps_done": 3}
    assert torch.equal(back.tensors["state"]["w"], torch.full((3,), 3.0))
    names = sorted(info.key.rsplit("/", 1)[-1] for info in store.list("checkpoints/key"))
    assert len(names) == 5  # two pointers, the states that they name, the best of both
    assert Checkpoints(store, "another").latest() is None


def test_of_two_processes_the_one_that_is_further_on_stands(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    slow, fast = Checkpoints(store, "key"), Checkpoints(store, "key")
    slow.save(_checkpoint(1))
    assert fast.latest() is not None
    fast.save(_checkpoint(5))
    slow.save(_checkpoint(2))
    found = Checkpoints(store, "key").latest()
    assert found is not None
    assert found.scalars["steps_done"] == 5
    slow.save(_checkpoint(6))
    found = Checkpoints(store, "key").latest()
    assert found is not None
    assert found.scalars["steps_done"] == 6


@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "pointer", "version"])
def test_a_damaged_checkpoint_is_left_and_training_begins_anew(tmp_path: Path, damage: str) -> None:
    checkpoints = Checkpoints(open_store(str(tmp_path)), "key")
    checkpoints.save(_checkpoint(1))
    folder = tmp_path / "checkpoints" / "key"
    victim = next(folder.glob("*.safetensors"))
    if damage == "flip":
        raw = bytearray(victim.read_bytes())
        raw[-1] ^= 1
        victim.write_bytes(bytes(raw))
    elif damage == "cut":
        victim.write_bytes(victim.read_bytes()[:10])
    elif damage == "gone":
        victim.unlink()
    elif damage == "pointer":
        (folder / "latest.json").write_text("{")
    else:
        content = json.loads((folder / "latest.json").read_text())
        (folder / "latest.json").write_text(json.dumps({**content, "schema_version": 99}))
    again = Checkpoints(open_store(str(tmp_path)), "key")
    assert again.latest() is None
    again.save(_checkpoint(7))
    found = Checkpoints(open_store(str(tmp_path)), "key").latest()
    assert found is not None
    assert found.scalars["steps_done"] == 7
