"""What each step of a pipeline run did last, in the store: for whoever looks when the run is over.

KFP tells its exit handler that a run failed, and neither in which step nor why. So every step
keeps one small object, ``pipeline-runs/<run>/<step>.json``: that it runs, that it is done, or the
error that it ended with. A step that was killed leaves "running". A later try writes over it.

Writing is bounded in time and never raises: a store that is away must not hide a step's own error.
"""

import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import quote

from graftline.errors import IntegrityError, StoreNotFound
from graftline.progress import message
from graftline.storage import commit, open_store

SCHEMA_VERSION = 1
PREFIX = "pipeline-runs"
WRITE_SECONDS = 10.0  # that a step waits for a store that is away
State = Literal["running", "done", "failed"]


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """What a step did last.

    Attributes:
        step: The step.
        state: ``running``, ``done`` or ``failed``.
        when: When it was written, ISO 8601 in UTC.
        what: The error's first sentence.
        why: Its reason.
        fix: What to do.
        seconds: How long the step took; None until it is done.
        cpu_seconds: Processor time that it took.
    """

    step: str
    state: State
    when: str
    what: str | None = None
    why: str | None = None
    fix: str | None = None
    seconds: float | None = None
    cpu_seconds: float | None = None


def write_record(
    store: str,
    pipeline_run: str,
    step: str,
    state: State,
    **details: Any,
) -> bool:
    """Keep what a step did. Returns whether the store has it.

    Args:
        store: URI of the store.
        pipeline_run: The pipeline run's id; nothing is kept where it is empty.
        step: The step.
        state: What it does.
        details: The error, or the seconds that it took, see :class:`StepRecord`.
    """
    if not store or not is_known(pipeline_run):
        return False
    when = datetime.now(UTC).isoformat(timespec="microseconds")  # two steps within a millisecond
    record = StepRecord(step=step, state=state, when=when, **details)
    content = {"schema_version": SCHEMA_VERSION, **asdict(record)}
    key = f"{_folder(pipeline_run)}{quote(step, safe='')}.json"
    return _in_time(lambda: commit.overwrite(open_store(store), key, content))


def read_records(store: str, pipeline_run: str) -> list[StepRecord]:
    """What the steps of a run did last, the oldest first; damaged records are left out.

    Raises:
        StoreError: The store cannot be read.
    """
    if not store or not is_known(pipeline_run):
        return []
    opened = open_store(store)
    found = []
    for entry in opened.list(_folder(pipeline_run)):
        try:
            content = commit.read(opened, entry.key).content
        except (IntegrityError, StoreNotFound) as error:  # the other steps' are whole
            message("WARNING: how a step ended is not known. %s", error)
            continue
        if content.pop("schema_version", None) == SCHEMA_VERSION:
            found.append(StepRecord(**content))
    return sorted(found, key=lambda record: record.when)


def is_known(placeholder: str) -> bool:
    """Whether KFP put a value where its placeholder stood: an older server leaves it as it is."""
    return bool(placeholder) and not placeholder.startswith("{{$.")


def shown_name(display_name: str, resource_name: str) -> str:
    """A pipeline run's name: KFP gives a scheduled run no display name, and always a resource."""
    return next((name for name in (display_name, resource_name) if is_known(name)), "unnamed")


def kfp_page(ui: str, pipeline_run: str) -> str:
    """Address of a pipeline run's page; empty where the UI's address or the run is not known."""
    if not ui or not is_known(pipeline_run):
        return ""
    return f"{ui.rstrip('/')}/#/runs/details/{pipeline_run}"


def _folder(pipeline_run: str) -> str:
    return f"{PREFIX}/{quote(pipeline_run, safe='')}/"


def _in_time(action: Callable[[], object]) -> bool:
    """Do something for at most a few seconds; whether it was done.

    In a thread, since a store that is away is tried for minutes. It ends with the process.
    """
    done: list[bool] = []

    def work() -> None:
        try:
            action()
            done.append(True)
        except Exception:  # the step has an error or a result of its own, which counts more
            done.append(False)

    thread = threading.Thread(target=work, name="run-record", daemon=True)
    thread.start()
    thread.join(WRITE_SECONDS)
    return done == [True]
