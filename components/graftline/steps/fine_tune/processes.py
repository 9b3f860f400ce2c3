"""Several processes on one machine that train together: one for each GPU, or as many as asked for.

This process is the first of them. It alone writes checkpoints, listens to signals and gives the
result; the others only add their share of each gradient, and end when it does.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from graftline import machine
from graftline.errors import TrainingError
from graftline.steps.fine_tune.ranks import Ranks

PATIENCE = timedelta(hours=2)  # the others wait while the first one evaluates
LAST_LINES = 5
RANK = re.compile(r"^\[rank\d+\]: ?")  # PyTorch's mark on each line of a traceback
# How the others end when one has failed: no cause.
LOST = re.compile(r"(?i)connection (closed|reset|refused)|gloo|nccl|broken pipe")
HELPER = "graftline.steps.fine_tune.helper"


def count_of(wanted: int | None, *, gathers_statistics: bool) -> int:
    """How many processes train.

    Args:
        wanted: As many as that; None for one a GPU.
        gathers_statistics: Whether BatchNorm learns. On a CPU its statistics cannot be shared.
    """
    if gathers_statistics and not torch.cuda.is_available():
        return 1
    return wanted or max(1, torch.cuda.device_count())


@contextmanager
def together(count: int, arguments: dict[str, Any]) -> Iterator[Ranks]:
    """Start the others, and join them as the first.

    Args:
        count: Processes in all.
        arguments: Those of :func:`graftline.steps.fine_tune.training.help_training`, as JSON.

    Raises:
        TrainingError: One of the others failed.
    """
    if count == 1:
        yield Ranks()
        return
    with tempfile.TemporaryDirectory(prefix="graftline-processes-") as name:
        folder = Path(name)
        others = [_start(rank, count, folder, arguments) for rank in range(1, count)]
        try:
            _wait_until_ready(others, folder)
            _join(0, count, folder)
            yield Ranks(0, count)
        except RuntimeError as error:  # what torch raises where another one is gone
            if (reason := _failure(others, folder, seconds=10)) is None:
                raise
            raise _failed(reason) from error
        finally:
            for process in others:
                process.kill()
                process.wait()
            if distributed.is_initialized():
                distributed.destroy_process_group()


def main(help_training: Callable[..., None]) -> None:
    """The way of one of the others; the command line says which."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the first one saves, then all end
    given = json.loads(sys.argv[1])
    folder = Path(given["folder"])
    (folder / f"{given['rank']}.ready").touch()
    _join(given["rank"], given["count"], folder)
    help_training(Ranks(given["rank"], given["count"]), **given["arguments"])


def _start(
    rank: int, count: int, folder: Path, arguments: dict[str, Any]
) -> "subprocess.Popen[bytes]":
    given = {"rank": rank, "count": count, "folder": str(folder), "arguments": arguments}
    with (folder / f"{rank}.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", HELPER, json.dumps(given)],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )


def _join(rank: int, count: int, folder: Path) -> None:
    if torch.cuda.is_available():
        torch.cuda.set_device(rank % torch.cuda.device_count())
    else:
        torch.set_num_threads(max(1, machine.cores() // count))
    distributed.init_process_group(
        "nccl" if torch.cuda.is_available() else "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=count,
        timeout=PATIENCE,
    )


def _wait_until_ready(others: "list[subprocess.Popen[bytes]]", folder: Path) -> None:
    """Return when all have started; the meeting itself could not be left when one fails."""
    while len(list(folder.glob("*.ready"))) < len(others):
        if (reason := _failure(others, folder)) is not None:
            raise _failed(reason)
        time.sleep(0.05)


def _failure(
    others: "list[subprocess.Popen[bytes]]", folder: Path, seconds: float = 0.0
) -> str | None:
    """What one that failed said at the end, or None; it may need some seconds to end."""
    until = time.monotonic() + seconds
    while True:
        failed = [
            _last_words(folder / f"{rank}.log") or f"it ended with code {process.returncode}"
            for rank, process in enumerate(others, start=1)
            if process.poll() not in (None, 0)
        ]
        causes = [words for words in failed if not LOST.search(words)]
        if causes:
            return causes[0]
        if time.monotonic() >= until:
            return failed[0] if failed else None
        time.sleep(0.05)


def _last_words(log: Path) -> str:
    """The error at the end of a log, without the frames of its traceback."""
    lines = (RANK.sub("", line) for line in log.read_text(errors="replace").splitlines())
    said = [line for line in lines if line.strip() and not line.startswith((" ", "Traceback"))]
    return " ".join(said[-LAST_LINES:])


def _failed(reason: str) -> TrainingError:
    return TrainingError(
        "a process that shares the training failed",
        why=reason,
        fix="fix the cause above, or set fine_tune.processes to 1",
    )
