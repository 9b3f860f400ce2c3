"""No memory for a step, or for a decoding worker: an end with a cause, in time."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.faults.fork_server import ForkServer

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


# The limit is on address space: an allocation beyond it fails, as in a machine without overcommit.
# A C or C++ library that does not check what it is given ends the process at once: one of 400 runs.
CRASHES = (-signal.SIGABRT, -signal.SIGSEGV)
STARVED = """
import resource, sys
from pathlib import Path
from graftline.steps.ingest.step import run
from graftline.steps.runtime import step

mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (mapped + int(sys.argv[1]),) * 2)
with step("ingest"):
    found = run(source=sys.argv[2], store=sys.argv[3], snapshot_folder=Path(sys.argv[4]))
    # No image that could not be decoded for lack of memory is taken for a broken one.
    assert (sum(found.images.values()), found.set_aside) == (6, {}), found
print("done", flush=True)
"""


LOST = """
import sys, threading, time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from graftline.steps import runtime
from graftline.steps.runtime import step

def without_memory(*_):
    raise MemoryError

with step("ingest"):
    if sys.argv[1] == "starts unseen":
        sys.unraisablehook = lambda *_: None
        threading.Thread._bootstrap_inner = without_memory
        threading.Thread(target=print).start()
    elif sys.argv[1] == "cannot say so":
        runtime.print = without_memory
        threading.Thread._bootstrap_inner = without_memory
        threading.Thread(target=print).start()
    elif sys.argv[1] == "dies beside another":
        say = print
        def slowly(*words, **options):
            threading._start_new_thread(without_memory, ())
            time.sleep(1)
            say(*words, **options)

        runtime.print = slowly
        threading.Thread._bootstrap_inner = without_memory
        threading.Thread(target=print).start()
    elif sys.argv[1] == "starts":
        threading.Thread._bootstrap_inner = without_memory
        threading.Thread(target=print).start()
    elif sys.argv[1] == "is given work":
        Future.set_running_or_notify_cancel = without_memory
    elif sys.argv[1] == "has a result":
        Future.set_result = Future.set_exception = without_memory
    else:
        done = threading.Event()
        thread = threading.Thread(target=lambda: done.set() if without_memory() else None)
        thread.start()
        done.wait()
    with ThreadPoolExecutor(2) as pool:
        pool.submit(int).result()
print("done")
"""


@pytest.mark.parametrize(
    "when",
    [
        "starts",
        "starts unseen",
        "cannot say so",
        "dies beside another",
        "is given work",
        "has a result",
        "works",
    ],
)
def test_a_thread_that_dies_without_memory_keeps_nobody_waiting(
    when: str, record_property: Any
) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", LOST, when], capture_output=True, text=True, timeout=BOUND
    )
    assert ended.returncode == 1, ended
    assert "ran out of memory" in ended.stdout and "What to do: " in ended.stdout, ended
    record_property("points", 1)


@pytest.mark.timeout(600)
def test_a_step_without_memory_ends_with_the_cause_and_the_next_goes_on(
    tmp_path: Path, record_property: Any
) -> None:
    images = tmp_path / "images"
    for number in range(6):  # 7 MB each once they are decoded
        path = images / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.full((1500, 1500, 3), number, np.uint8)
        pixels[number * 50 :, : 100 * number + 50] = 255 - 7 * number
        Image.fromarray(pixels).save(path, compress_level=1)
    ended = {"done": 0, "without memory": 0, "crashed": 0}
    # From about 90 MiB on its threads can start; from 400 there is enough.
    with ForkServer(["graftline.steps.ingest.step", "graftline.steps.runtime"]) as server:
        for mib in (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, *range(96, 400, 16), 4096):
            place = tmp_path / str(mib)
            arguments = [str(mib * 2**20), str(images), str(place / "store"), str(place / "s")]
            started = time.monotonic()
            done = server.run(STARVED, arguments, place / "fork")
            assert time.monotonic() - started < BOUND
            assert "Traceback" not in done.output, (mib, done.output[-3000:])
            if done.returncode == 0:
                ended["done"] += 1
                continue
            if done.returncode in CRASHES:
                ended["crashed"] += 1
            else:
                assert done.returncode == 1, (mib, done)
                assert "ran out of memory" in done.output, (mib, done.output)
                assert "What to do: " in done.output, (mib, done.output)
                ended["without memory"] += 1
            again = server.run(STARVED, [str(2**33), *arguments[1:]], place / "fork")
            assert "done" in again.output, again.output
    assert ended["done"] and ended["without memory"] > 3 and ended["crashed"] < 2, ended
    record_property("points", sum(ended.values()))
