"""Ctrl-C while a read hangs, as on a mount whose server is gone: a pipe that nobody writes to."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from graftline_pipelines.cli import main as module
from graftline_pipelines.cli.stopping import STOPPED

COMMAND = "from graftline_pipelines.cli.main import main; main()"


def test_one_ctrl_c_ends_a_command_whose_read_hangs(
    exported_model: tuple[Any, ...], tmp_path: Path
) -> None:
    pipe = tmp_path / "hangs.png"
    os.mkfifo(pipe)
    arguments = ["predict", str(exported_model[2].onnx), str(pipe)]
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    writer = None
    try:
        while writer is None and process.poll() is None:
            with suppress(OSError):  # until the command has opened the other end
                writer = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
        if writer is not None:
            os.close(writer)
    assert process.returncode == 130 and "Stopped." in said, said


def test_a_program_that_calls_the_command_goes_on_with_its_own_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def ended(code: int) -> None:
        raise AssertionError(f"the calling program was ended with {code}")

    monkeypatch.setattr(os, "_exit", ended)
    monkeypatch.setattr(module, "app", lambda **_: STOPPED)
    monkeypatch.setattr(sys, "argv", ["graftline", "predict", "model", "image.png"])
    going = threading.Event()
    thread = threading.Thread(target=going.wait)
    thread.start()
    try:
        with pytest.raises(SystemExit) as stopped:
            module.main()
    finally:
        going.set()
        thread.join()
    assert stopped.value.code == STOPPED
