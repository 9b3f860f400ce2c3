"""A writer that is killed at any point of any write leaves a store that reads and goes on."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from graftline.features.parts import IdIndex
from graftline.features.store import FeatureStore
from graftline.storage import open_store

FINGERPRINT = "f" * 32
BATCHES, BATCH, DIM = 6, 5, 4

WRITER = """
import sys
import numpy as np
from graftline.features import store as feature_store
from graftline.features.store import FeatureStore
from graftline.storage import open_store

feature_store.SMALL_PARTS = 1  # fold at the end, so that it can be killed there too
store, batches, batch, dim = sys.argv[1], *map(int, sys.argv[2:5])
features = FeatureStore(open_store(store), "f" * 32)
features.describe({"name": "timm/resnet18", "precision": "fp32"})
numbers = np.arange(batches * batch)
ids = np.zeros((len(numbers), 32), np.uint8)
ids[:, 0] = numbers
vectors = np.repeat(numbers[:, None], dim, 1).astype(np.float32)
for first in range(0, len(numbers), batch):
    features.write_part(ids[first : first + batch], vectors[first : first + batch], {})
    print(first + batch, flush=True)
features.compact()
print("done", flush=True)
"""


def numbers_in(folder: Path) -> list[int]:
    """What the store holds after a kill; every vector is compared, and nothing is damaged."""
    features = FeatureStore(open_store(str(folder)), FINGERPRINT)
    count = BATCHES * BATCH
    ids = np.zeros((count, 32), np.uint8)
    ids[:, 0] = np.arange(count)
    matrix, filled = np.zeros((count, DIM), np.float32), np.zeros(count, bool)
    features.load(IdIndex(ids), matrix, filled)
    assert all(reason is None for _, reason in features.check())
    assert list(features.store.list("damaged/")) == []
    found = np.flatnonzero(filled)
    assert np.array_equal(matrix[found], np.repeat(found[:, None], DIM, 1))
    assert len(features.ids()) == len(found)
    return found.tolist()


def write(folder: Path, prefix: list[str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [os.path.realpath(sys.executable), "-c", WRITER, str(folder)]
    command += [str(number) for number in (BATCHES, BATCH, DIM)]
    packages = os.pathsep.join(path for path in sys.path if path)
    environment = {**os.environ, "PYTHONPATH": packages, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [*(prefix or []), *command], capture_output=True, text=True, env=environment, timeout=300
    )


def announced(done: subprocess.CompletedProcess[str]) -> int:
    """How many images the writer had said were stored before it was killed."""
    lines = [line for line in done.stdout.split() if line.isdigit()]
    return int(lines[-1]) if lines else 0


def strace(calls: str, fault: str, when: int) -> list[str]:
    inject = ["-e", f"trace={calls}", "-e", f"inject={calls}:{fault}:when={when}"]
    return ["strace", "-f", "-qq", "-o", "/dev/null", *inject]


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("call", ["write", "fsync", "link", "unlink"])
@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_at_any_system_call_that_changes_the_store_nothing_stored_is_lost(
    tmp_path, call, every
):
    killed = 0
    for when in range(2, 200, every):
        folder = tmp_path / str(when)
        done = write(folder, strace(call, "signal=SIGKILL", when))
        if "done" in done.stdout:
            break
        assert done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL), done.stderr
        killed += 1
        found = numbers_in(folder)
        assert found[: announced(done)] == list(range(announced(done)))
        assert len(found) - announced(done) <= BATCH  # the batch that was being written
        assert len(found) % BATCH == 0

        again = write(folder)
        assert "done" in again.stdout, again.stderr
        assert numbers_in(folder) == list(range(BATCHES * BATCH))
    assert killed >= (1 if every > 1 else BATCHES)


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize(
    "fault", ["error=ENOSPC", pytest.param("error=EIO", marks=pytest.mark.slow)]
)
def test_a_disk_that_fails_stops_the_writer_and_leaves_what_was_stored(tmp_path, fault):
    failed = 0
    for when in (4, 14):
        folder = tmp_path / f"{when}"
        done = write(folder, strace("fsync", fault, when))
        if done.returncode:
            failed += 1
            assert "NoSpace" in done.stderr or "StoreError" in done.stderr
        found = numbers_in(folder)
        assert len(found) >= announced(done)
        assert "done" in write(folder).stdout
        assert numbers_in(folder) == list(range(BATCHES * BATCH))
    assert failed == 2


def test_a_writer_killed_by_a_signal_at_its_own_announcements_leaves_whole_batches(tmp_path):
    """Without strace, too: the process is killed as soon as it has said that a batch is stored."""
    for stop in (1, 3, BATCHES):
        folder = tmp_path / str(stop)
        command = [sys.executable, "-c", WRITER, str(folder), str(BATCHES), str(BATCH), str(DIM)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(stop):
                process.stdout.readline()
            process.send_signal(signal.SIGKILL)
        found = numbers_in(folder)
        assert found[: stop * BATCH] == list(range(stop * BATCH))
        assert len(found) % BATCH == 0
