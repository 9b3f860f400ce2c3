"""A writer that is killed at any point of any write leaves a store that reads and goes on."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.faults.fork_server import Done, ForkServer

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


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    with ForkServer(["graftline.features.store", "pyarrow.parquet"]) as forks:
        yield forks


def write(server: ForkServer, folder: Path, strace: list[str] | None = None) -> Done:
    arguments = [str(folder), *(str(number) for number in (BATCHES, BATCH, DIM))]
    return server.run(WRITER, arguments, folder.with_suffix(".fork"), strace=strace)


def announced(done: Done) -> int:
    """How many images the writer had said were stored before it was killed."""
    lines = [line for line in done.output.split() if line.isdigit()]
    return int(lines[-1]) if lines else 0


def strace(calls: str, fault: str, when: int) -> list[str]:
    inject = ["-e", f"trace={calls}", "-e", f"inject={calls}:{fault}:when={when}"]
    return ["-o", "/dev/null", *inject]


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("call", ["write", "fsync", "link", "unlink"])
@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_at_any_system_call_that_changes_the_store_nothing_stored_is_lost(
    server, tmp_path, call, every, record_property
):
    killed = 0
    for when in range(1, 200, every):
        folder = tmp_path / str(when)
        done = write(server, folder, strace(call, "signal=SIGKILL", when))
        if "done" in done.output:
            break
        assert done.returncode == -signal.SIGKILL, done.output
        killed += 1
        found = numbers_in(folder)
        assert found[: announced(done)] == list(range(announced(done)))
        assert len(found) - announced(done) <= BATCH  # the batch that was being written
        assert len(found) % BATCH == 0

        again = write(server, folder)
        assert "done" in again.output, again.output
        assert numbers_in(folder) == list(range(BATCHES * BATCH))
    assert killed >= (1 if every > 1 else BATCHES)
    record_property("points", killed)


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize(
    "fault", ["error=ENOSPC", pytest.param("error=EIO", marks=pytest.mark.slow)]
)
def test_a_disk_that_fails_stops_the_writer_and_leaves_what_was_stored(
    server, tmp_path, fault, record_property
):
    failed = 0
    for when in (4, 14):
        folder = tmp_path / f"{when}"
        done = write(server, folder, strace("fsync", fault, when))
        if done.returncode:
            failed += 1
            assert "NoSpace" in done.output or "StoreError" in done.output
        found = numbers_in(folder)
        assert len(found) >= announced(done)
        assert "done" in write(server, folder).output
        assert numbers_in(folder) == list(range(BATCHES * BATCH))
    assert failed == 2
    record_property("points", failed)


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
