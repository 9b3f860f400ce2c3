"""Ends what a stopped run has started. Needs ``/proc``; elsewhere nothing is found."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

GRACE = 1.0  # seconds: Ctrl-C in a terminal has reached them all already
PATIENCE = 5.0  # seconds between an interrupt and a kill
POLL = 0.05


def end_below(pid: int, *, itself: bool = False) -> None:
    """End the processes below one, and that one too if asked.

    A signal to the command alone, as from ``kill`` or a CI job that is cancelled, does not reach
    the steps: a training would go on for hours. Who does not end by himself is interrupted as by
    Ctrl-C, and killed if that does not help.
    """
    also = [pid] if itself else []
    for sign, seconds in ((signal.SIGINT, GRACE), (signal.SIGKILL, PATIENCE)):
        deadline = time.monotonic() + seconds
        while running := [each for each in (*also, *_below(pid)) if _state(each) not in "ZX"]:
            if time.monotonic() > deadline:
                break
            time.sleep(POLL)
        for each in running:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(each, sign)


def _below(pid: int) -> Iterator[int]:
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # it ends meanwhile
            for child in map(int, children.read_text().split()):
                yield child
                yield from _below(child)


def _state(pid: int) -> str:
    """A letter as in ``ps``; X for one that is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return "X"
