"""What every step needs while it runs: progress, its result on record, its error on record.

A component wraps the work in :func:`step`. In a pod the step prints plain lines. Under the local
runner, which sets ``GRAFTLINE_RUN_DIR``, it also keeps a record that the command line follows::

    <run dir>/steps/<step>.events.jsonl    started, progress, message, finished, failed
    <run dir>/steps/<step>.json            the result
    <run dir>/logs/<step>.log              all that the step and its libraries print
"""

import contextlib
import dataclasses
import errno
import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from graftline.errors import GraftlineError, OutOfMemory
from graftline.files import os_error, write_atomic
from graftline.machine import ensure_home, is_out_of_memory, no_temporary_folder
from graftline.progress import listening
from graftline.records.run_records import State, write_record
from graftline.redaction import guard_process, redacted
from graftline.steps.lost_threads import lost_threads

RUN_DIR_VARIABLE = "GRAFTLINE_RUN_DIR"
SIGN_SECONDS = 300.0  # between two notes in the store that a step still runs
log = logging.getLogger("graftline")
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}


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

    @property
    def reused_from(self) -> str | None:
        """The run that computed it; None where this one did."""
        return None

    def as_dict(self) -> dict[str, Any]:
        """Its fields, for the record of the step."""
        return dataclasses.asdict(self)


class Recorder:
    """Writes a step's events and result, and keeps its last progress line.

    Attributes:
        name: The step.
        store: URI of the store; empty for none.
        pipeline_run: Id of the pipeline run; empty for none.
        tracking: What the run file says of MLflow.
        tracking_run: The MLflow run; empty until it is started.
    """

    def __init__(
        self,
        name: str,
        run_dir: Path | None,
        store: str = "",
        pipeline_run: str = "",
        tracking: Mapping[str, Any] | None = None,
        tracking_run: str = "",
    ) -> None:
        self.name = name
        self.store = store
        self.pipeline_run = pipeline_run
        self.tracking = tracking or {}
        self.tracking_run = tracking_run
        self._started = time.monotonic()
        self._cpu_started = _cpu_seconds()
        self._noted = self._started
        self._events: Path | None = None
        self._result: Path | None = None
        if run_dir is not None:
            folder = run_dir / "steps"
            folder.mkdir(parents=True, exist_ok=True)
            self._events = folder / f"{name}.events.jsonl"
            self._result = folder / f"{name}.json"

    def event(self, event: str, **fields: Any) -> None:
        """Append one event; a single short write, so readers never see half of one."""
        if event in ("message", "reason", "progress"):
            self.sign_of_life()
        if self._events is None:
            return
        fields = {key: redacted(v) if isinstance(v, str) else v for key, v in fields.items()}
        line = json.dumps({"time": time.time(), "step": self.name, "event": event, **fields})
        with self._events.open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")

    def record(self, result: StepResult) -> None:
        """Keep the result where the command line finds it."""
        if self._result is not None:
            text = json.dumps(result.as_dict(), default=str, indent=1)
            write_atomic(self._result, redacted(text).encode())

    def note(self, state: State, **details: Any) -> None:
        """Keep in the store what the step does, for its pipeline run's exit handler.

        Args:
            state: What it does.
            details: The error, or the seconds that it took.
        """
        if not self.store or not self.pipeline_run:
            return
        self._noted = time.monotonic()
        kept = write_record(self.store, self.pipeline_run, self.name, state, **details)
        if not kept:
            log.info("The store has no record that this step is %s.", state)

    def sign_of_life(self) -> None:
        """Note every few minutes that the step still runs."""
        if time.monotonic() - self._noted > SIGN_SECONDS:
            self.note("running")

    @property
    def seconds(self) -> float:
        """Seconds since the step began."""
        return time.monotonic() - self._started

    @property
    def cpu_seconds(self) -> float:
        """Processor time since the step began, ended child processes included."""
        return _cpu_seconds() - self._cpu_started


_current: ContextVar[Recorder | None] = ContextVar("current_step", default=None)


def current_step() -> Recorder | None:
    """The step that runs now; None outside :func:`step`."""
    return _current.get()


@contextmanager
def step(
    name: str, store: str = "", pipeline_run: str = "", tracking: str = "", tracking_run: str = ""
) -> Iterator[Recorder]:
    """Run a step's work: logging set up, times and errors on record.

    A :class:`GraftlineError` ends the process with its message and exit code 1, without a
    traceback: the user has to fix it. Anything else keeps its traceback.

    Args:
        name: The step.
        store: URI of the store, which keeps how the step ended, see
            :mod:`graftline.records.run_records`.
        pipeline_run: Id of the pipeline run; nothing is kept in the store without one.
        tracking: JSON of what the run file says of MLflow, for the step's page.
        tracking_run: The MLflow run, for the step's page.
    """
    run_dir = os.environ.get(RUN_DIR_VARIABLE)
    if run_dir:
        _send_output_to(Path(run_dir) / "logs" / f"{name}.log")
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stdout
    )
    guard_process()
    ensure_home()
    recorder = Recorder(
        name,
        Path(run_dir) if run_dir else None,
        store,
        pipeline_run,
        json.loads(tracking or "{}"),
        tracking_run,
    )
    token = _current.set(recorder)
    last_words = f"ERROR in step {name}: {_out_of_memory('MemoryError')}\n"
    recorder.event("started")
    recorder.note("running")
    try:
        end = partial(_end_without_memory, recorder)
        with listening(recorder.event), lost_threads(end, last_words):
            yield recorder
    except Exception as error:
        try:
            _failed(recorder, error)
        except MemoryError:
            os.write(1, last_words.encode())
            sys.exit(1)
        raise
    else:
        recorder.event("finished", seconds=recorder.seconds, cpu_seconds=recorder.cpu_seconds)
        recorder.note("done", seconds=recorder.seconds, cpu_seconds=recorder.cpu_seconds)
    finally:
        _current.reset(token)


def _failed(recorder: Recorder, error: Exception) -> None:
    """Put an error on record; one that the user has to fix ends the process."""
    refused = error if isinstance(error, GraftlineError) else system_error(error)
    if refused is not None:
        _refuse(recorder, refused)
    what = redacted(f"{type(error).__name__}: {error}")
    recorder.event(
        "failed",
        error=type(error).__name__,
        what=what,
        why=traceback.format_exc(limit=-3),
        fix=None,
    )
    recorder.note("failed", what=what, fix="See the step's log for the traceback.")


def system_error(error: Exception) -> GraftlineError | None:
    """The user's error for a full or read-only disk, and for missing rights or memory; or None."""
    no_thread = isinstance(error, RuntimeError) and any(
        sign in str(error) for sign in ("start new thread", "Resource temporarily unavailable")
    )
    if no_thread or is_out_of_memory(error):
        why = f"{type(error).__name__}: {str(error).strip()[:300]}".rstrip(": ")
        return _out_of_memory(why, no_thread=no_thread)
    if isinstance(error, FileNotFoundError) and "temporary directory" in str(error):
        return no_temporary_folder(error)
    if isinstance(error, OSError) and error.errno in DISK_ERRORS:
        denied = error.errno in (errno.EACCES, errno.EPERM)  # which of the two nothing says
        action = "read or write" if denied else "write"
        return os_error(error, str(error.filename or "a file"), action)
    return None


def _out_of_memory(why: str, *, no_thread: bool = False) -> OutOfMemory:
    return OutOfMemory(
        "This process ran out of memory"
        + (", or may start no more threads (`ulimit -u`, the pids limit)" if no_thread else ""),
        why=why,
        fix="Run it again where there is more memory, or where fewer programs share it; what "
        "was computed is kept. On a cluster raise `memory` of the step's pool. Smaller "
        "`extract.batch_size`, `fine_tune.batch_size` and `image_size` need less.",
    )


def _end_without_memory(recorder: Recorder, error: MemoryError) -> None:
    with contextlib.suppress(SystemExit):
        _refuse(recorder, system_error(error) or OutOfMemory(str(error)))


def _refuse(recorder: Recorder, error: GraftlineError) -> NoReturn:
    recorder.event(
        "failed", error=type(error).__name__, what=error.what, why=error.why, fix=error.fix
    )
    print(f"ERROR in step {recorder.name}: {error}", flush=True)
    recorder.note("failed", what=error.what, why=error.why, fix=error.fix)  # may wait: said first
    sys.exit(1)


def _cpu_seconds() -> float:
    """Processor time of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _send_output_to(path: Path) -> None:
    """Point standard output and error of this process and its children at a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def read_result(run_dir: Path, name: str) -> Mapping[str, Any] | None:
    """The recorded result of a step of a local run, or None where it has not finished."""
    path = run_dir / "steps" / f"{name}.json"
    if not path.exists():
        return None
    result: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return result
