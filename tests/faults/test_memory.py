"""A decoding worker that is killed: an end with a cause, in time."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

BOUND = 30.0

DECODE = """
import io, sys, time
import numpy as np
from PIL import Image
from graftline.errors import GraftlineError
from graftline.images.preprocessing import Preprocessing
from graftline.inference.decode_workers import DecodingWorkers

stream = io.BytesIO()
Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(stream, "PNG")
how = Preprocessing(32, 32, "bilinear", "center", (0.5,) * 3, (0.5,) * 3)

def images():
    while True:
        yield stream.getvalue()

try:
    with DecodingWorkers(how, 4, 2) as workers:
        for slot, _ in workers.batches(images()):
            print("batch", flush=True)
            time.sleep(0.05)
            workers.release(slot)
except GraftlineError as error:
    print(f"{type(error).__name__}: {error}", flush=True)
    sys.exit(1)
"""


def children(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    found = [int(each) for each in text.split()]
    return [n for n in found if b"resource_tracker" not in Path(f"/proc/{n}/cmdline").read_bytes()]


@pytest.mark.timeout(200)
def test_a_worker_that_is_killed_ends_the_work_with_a_cause(record_property: Any) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", DECODE],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "batch\n", process.communicate()[0]
        workers = children(process.pid)
        assert len(workers) == 2
        killed = time.monotonic()
        os.kill(workers[-1], signal.SIGKILL)
        out, _ = process.communicate(timeout=BOUND)
        assert time.monotonic() - killed < BOUND
    finally:
        process.kill()
    assert process.returncode == 1, out[-2000:]
    assert "ran out of memory" in out and "Traceback" not in out, out[-2000:]
    record_property("points", 1)
