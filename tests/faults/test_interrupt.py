"""Ctrl-C or SIGTERM in the middle of a run: no process stays behind, the same command goes on."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-c", "from graftline_pipelines.cli.main import main; main()"]


@pytest.fixture(autouse=True)
def sigint_is_heard() -> Iterator[None]:
    """A shell's background job ignores it, and so would the command that is started here."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def started(runs: Path, process: subprocess.Popen[str]) -> Path:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        for events in runs.glob("*/steps/ingest.events.jsonl"):
            return events
        time.sleep(0.05)
    raise AssertionError("ingest did not start")


def group_is_gone(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize(
    ("sign", "code", "cold", "to_all"),
    [
        (signal.SIGINT, 130, "0", True),  # Ctrl-C in a terminal
        (signal.SIGINT, 130, "0", False),
        (signal.SIGTERM, 143, "0", False),  # `kill`, a cancelled CI job
        (signal.SIGTERM, 143, "1", False),
    ],
)
def test_interrupted_run_says_so_and_leaves_no_process(
    make_digits_folder: Callable[..., Path],
    mlflow_sqlite: str,
    tmp_path: Path,
    sign: signal.Signals,
    code: int,
    cold: str,
    to_all: bool,
) -> None:
    source = make_digits_folder(per_class=100, classes=10)
    run_file = tmp_path / "run.yaml"
    run_file.write_text(
        f"name: digits\ndata: {{source: {source}}}\nstore: {tmp_path}/store\n"
        f"tracking: {{uri: '{mlflow_sqlite}'}}\n"
    )
    process = subprocess.Popen(
        [*COMMAND, "run", str(run_file), "--runs-dir", "runs"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "GRAFTLINE_COLD": cold},
        start_new_session=True,
    )
    started(tmp_path / "runs", process)
    if to_all:
        os.killpg(process.pid, sign)
    else:
        os.kill(process.pid, sign)
    _, shown = process.communicate(timeout=60)
    assert process.returncode == code, shown[-3000:]
    assert "What was computed is kept" in shown
    assert "Traceback" not in shown
    deadline = time.monotonic() + 20
    while not group_is_gone(process.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert group_is_gone(process.pid)
