"""SIGKILL and SIGTERM in the middle of an epoch: the next process ends with the same weights."""

import hashlib
import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.faults.fork_server import Fork, ForkServer

from graftline.models.backbone import build
from graftline.steps.fit_head.step import run as fit_head

NAME, SIZE = "timm/test_resnet", 32
SLOW = 0.15  # seconds a step takes at least, so that a signal meets the middle of an epoch

LENGTH = ("epochs", "patience", "ema", "mix")  # options that a test sets for all its trainings

# Trains in a process of its own. Each step is written to a file after it was done, so that the
# test knows where a signal met it and where the next process went on.
TRAINING = """
import json, sys, time
from pathlib import Path
from graftline.steps.fine_tune import loop
from graftline.steps.fine_tune.step import run

options = json.loads(sys.argv[1])
steps, pause = Path(options.pop("steps")), options.pop("pause")
step = loop.Trainer._step

def noted(self, images, rows):
    step(self, images, rows)
    with steps.open("a") as stream:
        stream.write(f"{self.at.epoch} {self.at.step} {int(self.engine is not None)}\\n")
    time.sleep(pause)

loop.Trainer._step = noted
paths = {k: Path(options.pop(k)) for k in
         ("snapshot_folder", "probe_folder", "decision_file", "classifier_folder", "decision_out")}
run(**paths, **options)
"""


class Training:
    """Fine-tuning of the same probe on the same data, in a store of its own."""

    def __init__(
        self, server: ForkServer, folder: Path, snapshot: Path, store: Path, name: str
    ) -> None:
        self.server = server
        self.output = folder / f"{name}.fork"
        self.steps = folder / f"{name}.steps"
        self.bundle = folder / name
        self.store = folder / f"{name}-store"
        subprocess.run(["cp", "-r", store, self.store], check=True)
        self.options = {
            "snapshot_folder": str(snapshot),
            "probe_folder": str(folder / "probe"),
            "decision_file": str(folder / "decision.json"),
            "store": str(self.store),
            "classifier_folder": str(self.bundle),
            "decision_out": str(folder / f"{name}.json"),
            "steps": str(self.steps),
            "strategy": "scratch",  # is kept whatever its accuracy: its weights can be compared
            "epochs": 3,
            "batch_size": 8,
            "learning_rate": 1e-3,
            "flip": True,
        }

    def start(self, pause: float) -> Fork:
        options = json.dumps({**self.options, "pause": pause})
        return self.server.start(TRAINING, [options], self.output)

    def finish(self) -> None:
        done = self.start(0).done()
        assert done.returncode == 0, done.output[-3000:]

    def done(self) -> list[tuple[int, int]]:
        """(epoch, step) of every step that was done, by all processes."""
        if not self.steps.exists():
            return []
        lines = [line.split() for line in self.steps.read_text().splitlines()]
        return [(int(line[0]), int(line[1])) for line in lines if len(line) == 3]

    def with_engine(self) -> set[bool]:
        """Whether OpenVINO ran the frozen blocks, over all steps."""
        return {line.endswith(" 1") for line in self.steps.read_text().splitlines()}

    def wait_for(self, epoch: int, step: int, process: Fork) -> None:
        until = time.monotonic() + 240
        while (epoch, step) not in self.done():
            assert process.poll() is None and time.monotonic() < until, self.done()
            time.sleep(0.01)

    def trained(self) -> tuple[str, list[dict[str, float]]]:
        """Digest of the trained tensors, kept or not in the end, and the epochs' figures."""
        (pointer,) = self.store.glob("checkpoints/*/latest.json")
        found = json.loads(pointer.read_text())
        return found["tensors"]["best"], found["scalars"]["history"]

    def digest(self) -> str:
        return hashlib.sha256((self.bundle / "weights.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    with ForkServer(["graftline.steps.fine_tune.step", "timm", "graftline.reports.html"]) as forks:
        yield forks


@pytest.fixture
def training(
    server: ForkServer,
    make_snapshot: Callable[..., tuple[Path, str]],
    make_features: Callable[..., Path],
    tmp_path: Path,
) -> Callable[[str], Training]:
    snapshot, store = make_snapshot(20, 2)  # 24 training images: 3 steps an epoch
    features = make_features(snapshot, build(NAME, weights="random", image_size=SIZE))
    shared: dict[str, Any] = {"snapshot_folder": snapshot, "store": store, "backbone": NAME}
    fit_head(
        features_folder=features,
        weights="random",
        image_size=SIZE,
        strategy="scratch",
        classifier_folder=tmp_path / "probe",
        decision_file=tmp_path / "decision.json",
        probe={"c_grid": [0.01]},
        **shared,
    )
    folder = Path(store.removeprefix("file://"))
    return lambda name: Training(server, tmp_path, snapshot, folder, name)


@pytest.mark.slow
def test_killed_or_preempted_in_an_epoch_and_started_again_ends_with_the_same_weights(
    training: Callable[[str], Training],
) -> None:
    whole = training("whole")
    whole.finish()
    assert len(whole.done()) == 9

    killed = training("killed")
    process = killed.start(SLOW)
    killed.wait_for(1, 2, process)  # the second epoch's second step of three
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    before = len(killed.done())
    assert before < 9 and not killed.bundle.exists()
    killed.finish()
    assert killed.done()[before] == (1, 1)  # from the checkpoint at the end of the first epoch
    assert killed.digest() == whole.digest()

    preempted = training("preempted")
    process = preempted.start(SLOW)
    preempted.wait_for(1, 1, process)
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(timeout=60) == 143
    before = len(preempted.done())
    preempted.finish()
    assert len(preempted.done()) == 9  # no step was done twice: the state was saved at once
    assert preempted.done()[before][0] == 1 and preempted.done()[before][1] > 1
    assert preempted.digest() == whole.digest()


WAYS = ("SIGKILL", "SIGTERM", "SIGTERM, and gone a moment later", "SIGKILL and damage")
SHOTS = {False: 20, True: 10}
# 24 images over 120 epochs are work enough for OpenVINO to be opened.
HALF_FROZEN = {"strategy": "fine_tune", "unfreeze": 0.5, "learning_rate": 3e-3}


@pytest.mark.slow
@pytest.mark.parametrize("engine", SHOTS, ids=["nothing frozen", "OpenVINO"])
@pytest.mark.parametrize("way", WAYS)
def test_killed_at_random_moments_ends_with_the_same_weights(
    training: Callable[[str], Training], way: str, engine: bool, record_property: Any
) -> None:
    whole = training("whole")
    # So long that there is something left for the last shot.
    whole.options |= {"epochs": 120, "patience": 120, "ema": 0.9, "mix": "mixup"}
    whole.options |= HALF_FROZEN if engine else {}
    whole.finish()

    shot = training("shot")
    shot.options = {**whole.options, **{k: v for k, v in shot.options.items() if k not in LENGTH}}
    shot.options |= HALF_FROZEN if engine else {}
    moments, shots, damaged = random.Random(2 * WAYS.index(way) + engine), 0, 0
    while shots < SHOTS[engine] and not shot.bundle.exists():
        before = len(shot.done())
        process = shot.start(0.05)
        while len(shot.done()) == before and process.poll() is None:
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.8))
        if way.startswith("SIGTERM"):
            process.terminate()
        if way == "SIGTERM":
            assert process.wait(timeout=15) in (143, 0)  # when it would be killed
        else:
            time.sleep(moments.uniform(0, 0.1) if way.startswith("SIGTERM") else 0)
            process.kill()
            process.wait()
        shots += 1
        if way.endswith("damage") and shots % 4 == 0:
            damaged += _damage_newest(shot.store / "checkpoints")
    assert shots == SHOTS[engine]
    assert bool(damaged) == way.endswith("damage")
    shot.finish()
    assert shot.with_engine() == whole.with_engine() == {engine}
    assert shot.trained() == whole.trained()
    assert shot.digest() == whole.digest()
    record_property("points", shots)


def _damage_newest(folder: Path) -> bool:
    """Cut the youngest tensors short: those of the last checkpoint, or of one not finished."""
    found = sorted(folder.rglob("*.safetensors"), key=lambda path: path.stat().st_mtime_ns)
    if not found:
        return False
    found[-1].chmod(0o644)
    found[-1].write_bytes(found[-1].read_bytes()[:-100])
    return True
