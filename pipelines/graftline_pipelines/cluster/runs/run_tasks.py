"""The steps of a run as Kubeflow's v2 API reports them, and how the run stands."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from graftline_pipelines.cluster.runs.argo import step_of


@dataclass(frozen=True)
class Task:
    """One step of a run, as the server reports it."""

    task_id: str
    step: str
    state: str
    started: datetime | None
    ended: datetime | None

    @property
    def seconds(self) -> float:
        """How long it has run."""
        if self.started is None:
            return 0.0
        return ((self.ended or datetime.now(UTC)) - self.started).total_seconds()


def tasks_of(run: Any) -> list[Task]:
    """The steps of a run, in the order in which they started; drivers and groups left out."""
    details = getattr(run.run_details, "task_details", None) or []
    found = [task for detail in details if (task := _task(detail)) is not None]
    return sorted(found, key=lambda task: task.started or datetime.max.replace(tzinfo=UTC))


def _task(detail: Any) -> Task | None:
    step = step_of(detail.display_name or "")
    if step is None:
        return None
    ended = _moment(detail.end_time)
    state = detail.state
    if state in (None, "RUNTIME_STATE_UNSPECIFIED"):  # Argo's Omitted has no state in the API
        state = "PENDING" if ended is None else "OMITTED"
    return Task(detail.task_id or step, step, str(state), _moment(detail.start_time), ended)


def _moment(value: datetime | None) -> datetime | None:
    """The server writes 'not yet' as the year 1970."""
    return value if value is not None and value.year > 1970 else None


def was_stopped(run: Any) -> bool:
    """Whether a person stopped the run: the server calls it FAILED then, as any other."""
    history = getattr(run, "state_history", None) or []
    asked = any(entry.state in ("CANCELING", "CANCELED") for entry in history)
    return run.state == "CANCELED" or (run.state == "FAILED" and asked)


def shown_state(run: Any) -> str:
    """A run's state as people read it: the server's word, and ``stopped`` for a stopped run."""
    return "stopped" if was_stopped(run) else str(run.state or "PENDING")
