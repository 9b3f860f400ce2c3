"""Runs in a program with threads of its own: their output stays theirs, and runs do not mix."""

import io
import threading
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from graftline.errors import ConfigurationError
from graftline_pipelines.local import run as local
from graftline_pipelines.local.shared_output import KfpOutput


def in_thread(work: Any) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_threads_that_were_there_before_print_where_they_did() -> None:
    shown, log, go = io.StringIO(), io.StringIO(), threading.Event()
    with redirect_stdout(shown):

        def wait_and_print() -> None:
            go.wait(60)
            print("of the program")

        before = in_thread(wait_and_print)
        with redirect_stdout(KfpOutput(log)):
            print("of the run")
            in_thread(lambda: print("of a task")).join()
            go.set()
            before.join()
    assert shown.getvalue() == "of the program\n"
    assert log.getvalue() == "of the run\nof a task\n"


def test_a_run_waits_for_that_of_another_thread(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    begun = threading.Event()

    def begin(*_: object) -> Path:
        begun.set()
        raise ConfigurationError("no folder")

    monkeypatch.setattr(local, "_new_folder", begin)
    monkeypatch.setattr(local, "new_run_id", str)
    settings: Any = type("Settings", (), {"name": "a"})

    def run() -> None:
        with pytest.raises(ConfigurationError):
            local.run(settings, lambda *_: None, runs_dir=tmp_path, console=None)  # type: ignore[arg-type,return-value]

    with local.OneAtATime():
        other = in_thread(run)
        assert not begun.wait(0.2)
        with local.OneAtATime():  # which the thread itself may enter again
            pass
    other.join()
    assert begun.is_set()
