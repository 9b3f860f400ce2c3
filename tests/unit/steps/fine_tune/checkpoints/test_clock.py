"""Checkpoints on a clock, written beside the training, the last two kept."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from graftline.errors import ConfigurationError, StoreUnreachable
from graftline.steps.fine_tune.checkpoints.clock import BackgroundWriter, CheckpointClock
from graftline.steps.fine_tune.checkpoints.resume import Checkpoint, Checkpoints
from graftline.storage import open_store


def _checkpoint(steps: int) -> Checkpoint:
    state = {"w": torch.full((3,), float(steps))}
    return Checkpoint({"steps_done": steps}, {"state": state, "best": {"w": torch.ones(2)}})


def _steps(folder: Path, identity: str = "") -> int | None:
    found = Checkpoints(open_store(str(folder)), "key", identity).latest()
    return None if found is None else int(found.scalars["steps_done"])


# --- damage ---


def _damage(folder: Path, kind: str) -> None:
    pointer = folder / "latest.json"
    victim = folder / json.loads(pointer.read_text())["tensors"]["state"]
    if kind == "flip":
        raw = bytearray(victim.read_bytes())
        raw[-1] ^= 1
        victim.write_bytes(bytes(raw))
    elif kind == "cut":
        victim.write_bytes(victim.read_bytes()[:10])
    elif kind == "gone":
        victim.unlink()
    elif kind == "pointer cut":
        pointer.write_bytes(pointer.read_bytes()[:20])
    elif kind == "pointer gone":
        pointer.unlink()
    else:
        pointer.write_text(json.dumps([1, 2]))


@pytest.mark.parametrize(
    "kind", ["flip", "cut", "gone", "pointer cut", "pointer gone", "another file"]
)
def test_damage_to_the_last_checkpoint_falls_back_to_the_one_before(
    tmp_path: Path, kind: str
) -> None:
    checkpoints = Checkpoints(open_store(str(tmp_path)), "key")
    for steps in (1, 2, 3):
        checkpoints.save(_checkpoint(steps))
    _damage(tmp_path / "checkpoints" / "key", kind)
    again = Checkpoints(open_store(str(tmp_path)), "key")
    found = again.latest()
    assert found is not None
    assert found.scalars["steps_done"] == 2
    assert torch.equal(found.tensors["state"]["w"], torch.full((3,), 2.0))
    again.save(_checkpoint(4))
    assert _steps(tmp_path) == 4
    _damage(tmp_path / "checkpoints" / "key", kind)
    assert _steps(tmp_path) == 2  # the damaged one never became the one before


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    Checkpoints(open_store(str(tmp_path)), "key", "mine").save(_checkpoint(1))
    assert _steps(tmp_path, "mine") == 1
    with pytest.raises(ConfigurationError, match="another training"):
        _steps(tmp_path, "other")


# --- the clock ---


class _Time:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("cost", "interval"), [(0.0, 5.0), (0.01, 5.0), (0.5, 25.0), (2.0, 100.0), (60.0, 300.0)]
)
def test_as_often_as_costs_two_percent_and_at_most_five_minutes_apart(
    cost: float, interval: float
) -> None:
    time = _Time()
    clock = CheckpointClock(300.0, time)
    clock.cost(cost)
    clock.taken()
    time.now += interval - 0.01
    assert not clock.due()
    time.now += 0.02
    assert clock.due()


def test_the_end_of_an_epoch_is_saved_while_the_share_allows_it() -> None:
    time = _Time()
    clock = CheckpointClock(300.0, time)
    saved = 0
    for _ in range(1000):  # epochs of a second, checkpoints of a tenth
        time.now += 1.0
        if clock.due_after_epoch():
            clock.taken()
            clock.cost(0.1)
            saved += 1
    assert 0.1 * saved <= 0.02 * time.now + 2.1
    assert saved > 100


# --- beside the training ---


class _Slow:
    """Checkpoints that wait to be let through, and fail as often as told."""

    def __init__(self, failures: int = 0) -> None:
        self.go, self.failures, self.saved = threading.Event(), failures, list[int]()

    def save(self, checkpoint: Checkpoint) -> None:
        self.go.wait(30)
        if self.failures:
            self.failures -= 1
            raise StoreUnreachable("the endpoint does not answer")
        self.saved.append(checkpoint.scalars["steps_done"])


def test_training_goes_on_while_a_checkpoint_is_written() -> None:
    slow: Any = _Slow()
    writer = BackgroundWriter(slow, CheckpointClock(300.0))
    writer.start(_checkpoint(1), 0.0)
    assert writer.busy
    assert slow.saved == []
    slow.go.set()
    writer.wait()
    assert slow.saved == [1]
    assert not writer.busy


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_store_that_is_away_does_not_stop_the_training(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "graftline")
    slow: Any = _Slow(failures=2)
    slow.go.set()
    writer = BackgroundWriter(slow, CheckpointClock(300.0))
    for steps in (1, 2, 3):
        writer.start(_checkpoint(steps), 0.0)
    writer.wait()
    assert slow.saved == [3]
    assert caplog.text.count("WARNING: the checkpoint was not written") == 2
