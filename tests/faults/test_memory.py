"""Out of memory in a step, and a decoding worker that is killed: an end with a cause, in time."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

BOUND = 30.0

COMMAND = "from graftline_pipelines.cli.main import main; main()"
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


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_step_that_the_system_kills_for_memory_is_told_so(
    make_digits_folder: Callable[..., Path], tmp_path: Path, record_property: Any
) -> None:
    run_file = tmp_path / "run.yaml"
    content = {"name": "small", "data": {"source": str(make_digits_folder(20, 3))}}
    content |= {"store": str(tmp_path / "store"), "backbone": "timm/test_resnet"}
    content |= {"weights": "random", "strategy": "probe"}
    content |= {"tracking": {"uri": f"sqlite:///{tmp_path}/mlflow.db"}}
    run_file.write_text(yaml.safe_dump(content))
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, "run", str(run_file)],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "GRAFTLINE_COLD": "1"},
    )
    log = tmp_path / ".graftline" / "runs"
    while process.poll() is None and not list(log.glob("*/steps/ingest.events.jsonl")):
        time.sleep(0.02)
    for pid in children(process.pid):  # as the system does where a container's memory is used up
        os.kill(pid, signal.SIGKILL)
    started = time.monotonic()
    text, _ = process.communicate(timeout=120)
    took = time.monotonic() - started
    assert process.returncode == 1, text[-3000:]
    assert "lack of memory" in text and "Traceback" not in text, text[-3000:]
    assert took < BOUND, took
    record_property("points", 1)
    record_property("seconds", round(took))
