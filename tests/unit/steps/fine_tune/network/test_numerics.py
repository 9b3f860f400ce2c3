"""A training that goes on elsewhere computes as it began, or says that it cannot."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from graftline.steps.fine_tune import loop
from graftline.steps.fine_tune.network import frozen_engine, precision
from graftline.steps.fine_tune.network.frozen_engine import FrozenEngine
from graftline.steps.fine_tune.network.numerics import say_changes
from graftline.steps.fine_tune.step import FineTuneResult

HOW = {"unfreeze": 0.5, "epochs": 3, "learning_rate": 3e-3}
ENOUGH, TOO_MUCH = 0, 10**9  # passes from which OpenVINO runs the frozen blocks

Place = Callable[[pytest.MonkeyPatch], None]


def with_openvino(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(frozen_engine, "LEAST_PASSES", ENOUGH)


def without_openvino(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(frozen_engine, "LEAST_PASSES", TOO_MUCH)


def without_bf16(patch: pytest.MonkeyPatch) -> None:
    without_openvino(patch)
    patch.setattr(precision.machine, "has_bf16", lambda: False)


def with_bf16(patch: pytest.MonkeyPatch) -> None:
    with_openvino(patch)
    patch.setattr(precision.machine, "has_bf16", lambda: True)


def killed_and_resumed(
    fitted: Callable[..., FineTuneResult], first: Place, second: Place
) -> tuple[FineTuneResult, FineTuneResult, set[bool]]:
    """An undisturbed training in the first place, and one that went on in the second.

    The last value says whether OpenVINO ran the frozen blocks in the second place.
    """
    step, engines, steps = loop.Trainer._step, set(), []

    def killed(self: loop.Trainer, *batch: Any) -> None:
        step(self, *batch)
        steps.append(self.at.steps_done)
        if len(steps) == 5:
            raise KeyboardInterrupt

    def noted(self: loop.Trainer, *batch: Any) -> None:
        engines.add(isinstance(self.engine, FrozenEngine))
        step(self, *batch)

    with pytest.MonkeyPatch.context() as patch:
        first(patch)
        whole = fitted("whole", checkpoint_key="whole", **HOW)
        patch.setattr(loop.Trainer, "_step", killed)
        with pytest.raises(KeyboardInterrupt):
            fitted("moved", checkpoint_key="moved", **HOW)
    with pytest.MonkeyPatch.context() as patch:
        second(patch)
        patch.setattr(loop.Trainer, "_step", noted)
        moved = fitted("moved", checkpoint_key="moved", **HOW)
    return whole, moved, engines


def best_of(folder: Path, key: str) -> str:
    """Digest of the trained tensors, whatever classifier was used in the end."""
    (pointer,) = folder.rglob(f"checkpoints/{key}/latest.json")
    return str(json.loads(pointer.read_text())["tensors"]["best"])


@pytest.mark.parametrize(
    ("first", "second"), [(without_openvino, with_openvino), (without_bf16, with_bf16)]
)
def test_what_began_without_an_engine_or_bf16_goes_on_without_to_the_same_bits(
    fitted: Callable[..., FineTuneResult],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    first: Place,
    second: Place,
) -> None:
    caplog.set_level(logging.INFO)
    whole, moved, engines = killed_and_resumed(fitted, first, second)
    assert engines == {False}
    assert moved.history == whole.history
    assert best_of(tmp_path, "moved") == best_of(tmp_path, "whole")
    assert "Resuming from a checkpoint" in caplog.text
    assert "began on another kind of machine" not in caplog.text


def test_what_began_with_openvino_and_goes_on_without_says_so(
    fitted: Callable[..., FineTuneResult], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    whole, moved, engines = killed_and_resumed(fitted, with_openvino, without_openvino)
    assert engines == {False}
    assert [epoch["epoch"] for epoch in moved.history] == [1, 2, 3]
    assert moved.history[0] == whole.history[0]  # the second was computed elsewhere
    (warning,) = [r.getMessage() for r in caplog.records if "another kind" in r.getMessage()]
    assert "frozen blocks 'OpenVINO" in warning and "here 'PyTorch'" in warning
    assert "threads" not in warning and "processor" not in warning


def test_what_is_the_same_is_not_mentioned(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    say_changes({"threads": "2", "precision": "bf16"}, {"threads": "2", "precision": "bf16"})
    say_changes({}, {"threads": "2"})  # an older checkpoint, or none
    assert not caplog.records
    say_changes({"threads": "2", "precision": "bf16"}, {"threads": "8", "precision": "bf16"})
    assert "threads '2', here '8'" in caplog.text and "precision" not in caplog.text
