"""SIGKILL of a real extraction at any moment loses at most the batches in flight."""

import io
import json
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.faults.fork_server import Fork, ForkServer

from graftline import machine
from graftline.features.matrix import read_features
from graftline.features.store import FeatureStore
from graftline.steps.extract_features.step import run
from graftline.storage import open_store

IMAGES, BATCH = 96, 4
NETWORK = {"backbone": "timm/test_resnet", "weights": "random", "image_size": 64}
ASKED = {**NETWORK, "engine": "torch", "batch_size": BATCH}

CALLS = {"fsync": "fsync", "link": "link,linkat,rename", "unlink": "unlink,unlinkat"}

# A process of its own, that says after each batch which one it was and waits a moment.
EXTRACTION = """
import json, sys, time
from pathlib import Path
from graftline.inference import engine
from graftline.steps.extract_features.step import run

values = json.loads(sys.argv[1])
pause = values.pop("pause")
run_engine = engine.Engine.run

def slowly(self, images):
    for number, features in enumerate(run_engine(self, images)):
        yield features  # comes back when the batch was handed over to be stored
        print(number, flush=True)
        time.sleep(pause)

engine.Engine.run = slowly
folders = {name: Path(values.pop(name)) for name in ("snapshot_folder", "features_folder")}
run(**folders, **values)
print("done", flush=True)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    needed = ["graftline.steps.extract_features.step", "timm", "graftline.models.backbone"]
    with ForkServer(needed) as forks:
        yield forks


@pytest.fixture(scope="module")
def photos() -> list[tuple[str, str, bytes]]:
    from sklearn.datasets import load_sample_images

    files = []
    for number in range(IMAGES):
        photo = load_sample_images().images[number % 2]
        stream = io.BytesIO()
        Image.fromarray(photo[number : number + 80, number : number + 90]).save(stream, "JPEG")
        files.append(("photo", "train", stream.getvalue()))
    return files


@pytest.fixture
def data(tmp_path: Path, photos: list, snapshot_of_files: Callable) -> dict[str, str]:
    snapshot_of_files(tmp_path / "data", photos)
    return {
        "snapshot_folder": str(tmp_path / "data" / "snapshot"),
        "store": str(tmp_path / "data" / "store"),
        "features_folder": str(tmp_path / "features"),
    }


@pytest.fixture
def expected(tmp_path: Path, photos: list, snapshot_of_files: Callable) -> tuple[str, bytes]:
    """Fingerprint, and the matrix of a run that nobody disturbed."""
    snapshot_of_files(tmp_path / "calm", photos)
    run(
        snapshot_folder=tmp_path / "calm" / "snapshot",
        store=str(tmp_path / "calm" / "store"),
        features_folder=tmp_path / "calm" / "features",
        **ASKED,  # type: ignore[arg-type]
    )
    folder = tmp_path / "calm" / "features"
    return read_features(folder).fingerprint, (folder / "features.npy").read_bytes()


def start(
    server: ForkServer, data: dict[str, str], pause: float, strace: list[str] | None = None
) -> Fork:
    values = json.dumps({**data, **ASKED, "pause": pause})
    folder = Path(data["features_folder"]).with_suffix(".fork")
    return server.start(EXTRACTION, [values], folder, strace=strace)


def stored(data: dict[str, str], fingerprint: str) -> int:
    return len(FeatureStore(open_store(data["store"]), fingerprint).ids())


def finish(data: dict[str, str]) -> int:
    """An ordinary run after the kill; how many images it still had to compute."""
    result = run(
        snapshot_folder=Path(data["snapshot_folder"]),
        store=data["store"],
        features_folder=Path(data["features_folder"]),
        **ASKED,  # type: ignore[arg-type]
    )
    return result.extracted


@pytest.mark.parametrize("batch", [pytest.param(0, marks=pytest.mark.slow), 7])
def test_killed_after_a_batch_only_what_was_in_flight_is_computed_again(
    batch: int,
    server: ForkServer,
    data: dict[str, str],
    expected: tuple[str, bytes],
    record_property: Any,
) -> None:
    fingerprint, matrix = expected
    process = start(server, data, pause=0.2)
    for line in process.lines():
        if line.strip() == str(batch):
            time.sleep(0.15)  # storing that batch goes on beside the extraction
            process.kill()
            break
    assert process.wait() == -signal.SIGKILL
    before = stored(data, fingerprint)
    assert before >= batch * BATCH, "a batch that was handed over before is lost"
    assert before < IMAGES
    assert not (Path(data["features_folder"]) / "features.json").exists(), "complete before its end"
    assert finish(data) == IMAGES - before
    assert (Path(data["features_folder"]) / "features.npy").read_bytes() == matrix
    assert finish(data) == 0
    record_property("points", 1)


@pytest.mark.slow
def test_killed_at_any_moment_a_rerun_gives_the_same_bytes(
    server: ForkServer, data: dict[str, str], expected: tuple[str, bytes], record_property: Any
) -> None:
    """Kills at ten moments of the whole run, over and over, until a run ends by itself."""
    fingerprint, matrix = expected
    generator = np.random.default_rng(0)
    kills, before = 0, 0
    while True:
        process = start(server, data, pause=0.05)
        told = -1
        deadline = generator.uniform(0.0, 0.4)
        for line in process.lines():
            if line.strip() == "done":
                break
            if not line.isdigit():
                continue
            told = int(line)
            if told == 0:
                begun = time.monotonic()
            if kills < 10 and time.monotonic() - begun > deadline:
                process.kill()
                break
        if process.wait() == 0:
            break
        kills += 1
        now = stored(data, fingerprint)
        in_flight = BATCH * (2 * machine.cores() + 2)
        assert now >= min(before + told * BATCH - in_flight, IMAGES)
        assert now >= before, "what was stored is gone"
        before = now
    assert kills > 1
    record_property("points", kills)
    assert (Path(data["features_folder"]) / "features.npy").read_bytes() == matrix
    assert finish(data) == 0


@pytest.mark.slow
@pytest.mark.parametrize("call", ["fsync", "link", "unlink"])
def test_killed_at_a_system_call_that_stores(
    call: str,
    server: ForkServer,
    data: dict[str, str],
    expected: tuple[str, bytes],
    record_property: Any,
) -> None:
    """Die in the middle of storing: strace kills the process at the K-th call of a kind."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    fingerprint, matrix = expected
    killed, before = 0, 0
    for moment in (2, 4, 7):
        inject = f"inject={CALLS[call]}:signal=SIGKILL:when={moment}"
        strace = ["-o", "/dev/null", "-e", f"trace={CALLS[call]}", "-e", inject]
        killed += start(server, data, 0, strace).wait() != 0
        assert stored(data, fingerprint) >= before, "what was stored is gone"
        before = stored(data, fingerprint)
    assert killed, "no call of that kind was met"
    record_property("points", killed)
    finish(data)
    assert (Path(data["features_folder"]) / "features.npy").read_bytes() == matrix
    assert stored(data, fingerprint) == IMAGES
