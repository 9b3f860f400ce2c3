"""What every step needs while it runs: progress, its result on record, its error on record.

A component wraps the work in :func:`step`. In a pod the step prints plain lines. Under the local
runner, which sets ``GRAFTLINE_RUN_DIR``, it also keeps a record that the command line follows::

    <run dir>/steps/<step>.events.jsonl    started, progress, message, finished, failed
    <run dir>/steps/<step>.json            the result
    <run dir>/logs/<step>.log              all that the step and its libraries print
"""

import dataclasses
import errno
import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from graftline.errors import GraftlineError

RUN_DIR_VARIABLE = "GRAFTLINE_RUN_DIR"
PROGRESS_SECONDS = 0.25  # between two records of the same bar; a log line comes 20 times as seldom
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}

T = TypeVar("T")
log = logging.getLogger("graftline")

_recorder: "Recorder | None" = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepResult:
    """Base of what a step returns: fields that JSON can hold, and what of them is tracked."""

    def metrics(self) -> dict[str, float]:
        """Figures for the tracking run."""
        return {}

    def params(self) -> dict[str, str]:
        """Settings and choices for the tracking run."""
        return {}

    def files(self) -> dict[str, Path]:
        """Files for the tracking run: artifact path to local path."""
        return {}


class Recorder:
    """Writes a step's events and result, and keeps its last progress line."""

    def __init__(self, name: str, run_dir: Path | None) -> None:
        self.name = name
        self._started = time.monotonic()
        self._events: Path | None = None
        self._result: Path | None = None
        if run_dir is not None:
            folder = run_dir / "steps"
            folder.mkdir(parents=True, exist_ok=True)
            self._events = folder / f"{name}.events.jsonl"
            self._result = folder / f"{name}.json"

    def event(self, event: str, **fields: Any) -> None:
        """Append one event; a single short write, so readers never see half of one."""
        if self._events is None:
            return
        line = json.dumps({"time": time.time(), "step": self.name, "event": event, **fields})
        with self._events.open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")

    def record(self, result: StepResult) -> None:
        """Keep the result where the command line finds it."""
        if self._result is not None:
            temporary = self._result.with_suffix(".tmp")
            text = json.dumps(dataclasses.asdict(result), default=str, indent=1)
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(self._result)

    @property
    def seconds(self) -> float:
        """Seconds since the step began."""
        return time.monotonic() - self._started


@contextmanager
def step(name: str) -> Iterator[Recorder]:
    """Run a step's work: logging set up, times and errors on record.

    A :class:`GraftlineError` ends the process with its message and exit code 1, without a
    traceback: it is the user's to mend. Anything else keeps its traceback.
    """
    global _recorder
    run_dir = os.environ.get(RUN_DIR_VARIABLE)
    if run_dir:
        _send_output_to(Path(run_dir) / "logs" / f"{name}.log")
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stdout
    )
    recorder = Recorder(name, Path(run_dir) if run_dir else None)
    recorder.event("started")
    _recorder = recorder
    try:
        yield recorder
    except GraftlineError as error:
        _refuse(recorder, error)
    except Exception as error:
        refused = disk_error(error) if isinstance(error, OSError) else None
        if refused is not None:
            _refuse(recorder, refused)
        recorder.event(
            "failed",
            error=type(error).__name__,
            what=f"{type(error).__name__}: {error}",
            why=traceback.format_exc(limit=-3),
            fix=None,
        )
        raise
    else:
        recorder.event("finished", seconds=recorder.seconds)
    finally:
        _recorder = None


def disk_error(error: OSError) -> GraftlineError | None:
    """A full or read-only disk and missing rights are the user's to mend; None for all else."""
    if error.errno not in DISK_ERRORS:
        return None
    from graftline.files import os_error

    return os_error(error, str(error.filename or "a file"), "write")


def _refuse(recorder: Recorder, error: GraftlineError) -> NoReturn:
    recorder.event(
        "failed", error=type(error).__name__, what=error.what, why=error.why, fix=error.fix
    )
    print(f"ERROR in step {recorder.name}: {error}", flush=True)
    sys.exit(1)


def _send_output_to(path: Path) -> None:
    """Point standard output and error of this process and its children at a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def message(text: str, *args: object) -> None:
    """Say one line to whoever watches: the log, and the command line."""
    log.info(text, *args)
    if _recorder is not None:
        _recorder.event("message", text=text % args if args else text)


def progress(
    items: Iterable[T], description: str, total: int | None = None, unit: str = "images"
) -> Iterator[T]:
    """Yield the items, telling how far it has come.

    Args:
        items: What to go through.
        description: What is being done, a few words.
        total: How many there are; taken from ``len(items)`` where it has one.
        unit: What is counted.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    with Progress(description, total, unit) as bar:
        for item in items:
            yield item
            bar.advance()


class Progress:
    """A bar that is advanced by hand; for work that comes in uneven pieces."""

    def __init__(self, description: str, total: int | None, unit: str = "images") -> None:
        self.description = description
        self.total = total
        self.unit = unit
        self.done = 0
        self._started = time.monotonic()
        self._recorded = 0.0
        self._logged = self._started

    def __enter__(self) -> "Progress":
        self._tell(force=True)
        return self

    def __exit__(self, *exc: object) -> None:
        self._tell(force=True)

    def advance(self, count: int = 1) -> None:
        """Say that ``count`` more are done."""
        self.done += count
        self._tell(force=False)

    def _tell(self, *, force: bool) -> None:
        now = time.monotonic()
        if _recorder is not None and (force or now - self._recorded >= PROGRESS_SECONDS):
            self._recorded = now
            _recorder.event(
                "progress",
                description=self.description,
                done=self.done,
                total=self.total,
                unit=self.unit,
            )
        if now - self._logged >= 20 * PROGRESS_SECONDS:
            self._logged = now
            of = f" of {self.total:,}" if self.total is not None else ""
            rate = self.done / (now - self._started)
            log.info("%s: %s%s %s, %.0f/s", self.description, f"{self.done:,}", of, self.unit, rate)


def read_result(run_dir: Path, name: str) -> Mapping[str, Any] | None:
    """The recorded result of a step of a local run, or None where it has not finished."""
    path = run_dir / "steps" / f"{name}.json"
    if not path.exists():
        return None
    result: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return result
