"""Processes that share one fingerprint over an S3 server: one right set, whoever dies or folds."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from graftline.features.parts import IdIndex
from graftline.features.store import FeatureStore
from graftline.storage import open_store

COUNT, DIM = 120, 8

WRITER = """
import sys
import numpy as np
from graftline.features import store as feature_store
from graftline.features.store import FeatureStore
from graftline.features.writer import PartWriter
from graftline.storage import open_store

uri, count, dim = sys.argv[1], *map(int, sys.argv[2:4])
feature_store.SMALL_PARTS = 4
features = FeatureStore(open_store(uri), "f" * 32)
numbers = np.arange(count)
ids = np.zeros((count, 32), np.uint8)
ids[:, 5] = numbers
vectors = np.repeat(numbers[:, None], dim, 1).astype(np.float32)
with PartWriter(features, dim, {"engine": "torch"}) as writer:
    for first in range(0, count, 4):
        writer.add(ids[first : first + 4], vectors[first : first + 4])
        print("added", flush=True)
features.compact()
"""


@pytest.fixture
def uri(s3_bucket):
    return f"{s3_bucket}/graftline"


def start(uri: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, uri, str(COUNT), str(DIM)]
    packages = os.pathsep.join(path for path in sys.path if path)
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": packages}
    )


def load(uri: str) -> np.ndarray:
    """Which of the images are stored; their vectors are compared."""
    ids = np.zeros((COUNT, 32), np.uint8)
    ids[:, 5] = np.arange(COUNT)
    matrix, filled = np.zeros((COUNT, DIM), np.float32), np.zeros(COUNT, bool)
    features = FeatureStore(open_store(uri), "f" * 32)
    features.load(IdIndex(ids), matrix, filled)
    assert np.array_equal(matrix[filled], np.repeat(np.flatnonzero(filled)[:, None], DIM, 1))
    assert list(features.store.list("damaged/")) == []
    return filled


def test_two_processes_fill_one_fingerprint_at_once_and_end_with_one_right_set(uri):
    writers = [start(uri) for _ in range(2)]
    for writer in writers:
        writer.communicate(timeout=120)
        assert writer.returncode == 0
    assert load(uri).all()
    features = FeatureStore(open_store(uri), "f" * 32)
    assert len(features.ids()) == COUNT
    assert all(reason is None for _, reason in features.check())


def test_a_killed_process_leaves_whole_batches_and_the_next_one_ends_the_work(uri):
    writer = start(uri)
    assert writer.stdout is not None
    for _ in range(12):
        assert writer.stdout.readline() == "added\n"
    writer.send_signal(signal.SIGKILL)
    writer.communicate(timeout=60)
    found = load(uri)
    assert found.sum() % 4 == 0
    # Of the twelve, one is being written and those that wait for it may be lost.
    assert 12 * 4 - 4 * 4 <= found.sum() <= COUNT
    second = start(uri)
    second.communicate(timeout=120)
    assert second.returncode == 0
    assert load(uri).all()
