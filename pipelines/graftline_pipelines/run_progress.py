"""Follows a run on a cluster: each step as it starts and ends, and why one failed."""

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, get_args

from rich.console import Console
from rich.markup import escape

from graftline.errors import ClusterError
from graftline_pipelines.cluster import Cluster
from graftline_pipelines.kfp_errors import ClusterUnreachable
from graftline_pipelines.pools import PoolSettings, StepName, pool_of

POLL_SECONDS = 3.0
PATIENCE_SECONDS = 300  # of a server that has gone away, before following ends
PENDING_SECONDS = 120  # after which a waiting step is explained
ENDED = {"SUCCEEDED", "FAILED", "CANCELED", "SKIPPED"}
LOG_LINES = 40
STEPS = {*get_args(StepName), "extract_part"}

# What the controller says of a pod that failed, and what it means.
CAUSES = (
    (
        r"OOMKilled|exit code 137",
        "The step ran out of memory.",
        "Raise `memory` of its pool, or lower `extract.batch_size`. Finished work is kept.",
    ),
    (
        r"ImagePullBackOff|ErrImagePull|manifest unknown|pull access denied",
        "The image could not be pulled.",
        "Check `images` and `cluster.pull_secrets`, and that the nodes reach the registry.",
    ),
    (
        r"[Pp]od (was )?deleted|[Ee]victed|node.*(shutdown|lost|preempt)|[Pp]reempt",
        "The node vanished, as spot nodes do.",
        "Submit again: finished work is kept. For automatic retries the workflow controller needs "
        "a default retry strategy; see docs/cluster.md.",
    ),
    (
        r"DeadlineExceeded|exceeded its deadline|active deadline",
        "The step took longer than its pool allows.",
        "Raise `timeout` of its pool. Finished work is kept.",
    ),
    (
        r"Unschedulable|[Ii]nsufficient|didn't match.*(selector|affinity)|untolerated taint",
        "No node fits the step's pool.",
        "Compare the pool with `kubectl describe nodes`, or submit with --kube-context.",
    ),
    (
        r"CreateContainerConfigError|secret .* not found|configmap .* not found",
        "A secret or config map that the step needs is missing in its namespace.",
        "Create it, or mend `cluster.secrets` and `cluster.config_maps`.",
    ),
)


class RunFailed(ClusterError):  # noqa: N818 -- the run has failed; this is its error
    """A run on the cluster failed; the message is the failing step's own where it left one."""


@dataclass(frozen=True)
class Task:
    """One step of a run, as the server reports it."""

    task_id: str
    step: str
    state: str
    started: datetime | None
    ended: datetime | None
    message: str
    nodes: tuple[str, ...]

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
    # A step that stands in two branches is called evaluate-2 in the second one.
    step = re.sub(r"-\d+$", "", detail.display_name or "").replace("-", "_")
    if step not in STEPS:
        return None
    history = [status.error.message for status in detail.state_history or () if status.error]
    message = detail.error.message if detail.error else (history[-1] if history else "")
    nodes = tuple(child.pod_name for child in detail.child_tasks or () if child.pod_name)
    if detail.pod_name:
        nodes = (detail.pod_name, *nodes)
    return Task(
        detail.task_id or step,
        step,
        str(detail.state or "PENDING"),
        _moment(detail.start_time),
        _moment(detail.end_time),
        message or "",
        nodes,
    )


def _moment(value: datetime | None) -> datetime | None:
    """The server writes 'not yet' as the year 1970."""
    return value if value is not None and value.year > 1970 else None


def follow(
    cluster: Cluster,
    run_id: str,
    console: Console,
    *,
    pools: Mapping[str, PoolSettings] | None = None,
    assign: Mapping[StepName, str] | None = None,
    poll_seconds: float = POLL_SECONDS,
) -> Any:
    """Print the steps of a run until it ends. Returns the run.

    A server that goes away for less than five minutes is waited for.

    Args:
        cluster: The server.
        run_id: The run.
        console: Where to print.
        pools: The run file's pools, to tell what the run cost.
        assign: The run file's assignment of steps to pools.
        poll_seconds: Seconds between two looks.

    Raises:
        RunFailed: It failed, with the failing step's error and the end of its log.
    """
    shown: dict[str, str] = {}
    waiting: dict[str, float] = {}
    for run in _looks(cluster, run_id, console, poll_seconds):
        for task in tasks_of(run):
            _explain_waiting(task, waiting, console)
            if shown.get(task.task_id) != task.state:
                shown[task.task_id] = task.state
                _show(task, console)
    total = cost(tasks_of(run), pools or {}, assign or {})
    if total is not None:
        console.print(f"The nodes cost about {total:.2f}.", highlight=False)
    if run.state == "FAILED":
        raise failure(cluster, run)
    if run.state == "CANCELED":
        raise RunFailed(f"The run {run.display_name} was stopped.")
    return run


def _looks(cluster: Cluster, run_id: str, console: Console, poll_seconds: float) -> Iterator[Any]:
    lost_at: float | None = None
    while True:
        try:
            run = cluster.run(run_id)
        except ClusterUnreachable:
            now = time.monotonic()
            if lost_at is None:
                lost_at = now
                console.print("[yellow]The server does not answer; waiting for it.[/]")
            if now - lost_at > PATIENCE_SECONDS:
                raise
        else:
            lost_at = None
            yield run
            if run.state in ENDED:
                return
        time.sleep(poll_seconds)


def _show(task: Task, console: Console) -> None:
    words = {
        "PENDING": "waits for a node",
        "RUNNING": "started",
        "SUCCEEDED": f"[green]done in {task.seconds:.0f} s[/]",
        "FAILED": f"[red]failed after {task.seconds:.0f} s[/]",
        "SKIPPED": "not needed",
        "CANCELED": "stopped",
    }
    said = words.get(task.state)
    if said is not None:
        console.print(f"[bold]{task.step:<18}[/] {said}", highlight=False)


def _explain_waiting(task: Task, waiting: dict[str, float], console: Console) -> None:
    if task.state != "PENDING":
        return
    now = time.monotonic()
    since = waiting.setdefault(task.task_id, now)
    if since >= 0 and now - since > PENDING_SECONDS:
        waiting[task.task_id] = float("-inf")
        cause = explain(task.message)
        why = f"{cause[0]} {cause[1]}" if cause else "Its node may still be starting."
        console.print(f"[yellow]{task.step} has waited for {PENDING_SECONDS} s.[/] {escape(why)}")


def explain(text: str) -> tuple[str, str] | None:
    """What the controller's words mean: the cause and what to do, or None."""
    for pattern, cause, fix in CAUSES:
        if re.search(pattern, text):
            return cause, fix
    return None


def cost(
    tasks: list[Task], pools: Mapping[str, PoolSettings], assign: Mapping[StepName, str]
) -> float | None:
    """What the steps' nodes cost; None where a pool that was used has no price."""
    total = 0.0
    for task in tasks:
        price = pool_of(task.step, pools, assign).hourly_price
        if price is None:
            return None
        total += price * task.seconds / 3600
    return total if tasks else None


def failure(cluster: Cluster, run: Any) -> RunFailed:
    """The error of a failed run: the step's own words, else what the controller said."""
    failed = [task for task in tasks_of(run) if task.state == "FAILED"]
    link = cluster.link(run.run_id)
    if not failed:
        said = run.error.message if run.error else None
        cause = explain(said or "")
        return RunFailed(
            f"The run {run.display_name} failed before any of its steps did.",
            why=cause[0] if cause else said,
            fix=f"{cause[1] if cause else 'See its page.'} {link}",
        )
    task = min(failed, key=lambda task: task.ended or datetime.max.replace(tzinfo=UTC))
    text = step_log(cluster, run.run_id, task)
    own = own_error(text or "")
    cause = explain(f"{task.message} {text or ''}"[-5000:]) if own is None else None
    return RunFailed(
        f"Step {task.step} failed: {own or (cause[0] if cause else task.message or 'no reason')}",
        why=_tail(text) if own is None and text else None,
        fix=f"{cause[1] if cause else ''} Log: graftline logs {run.run_id} {task.step}\n"
        f"Page: {link}".strip(),
    )


def log_of(cluster: Cluster, run: Any, step: str | None) -> str:
    """The log of a step of a run; of the one that failed, or of the last, where none is named.

    Raises:
        ClusterError: The run has no such step, or its log is gone.
    """
    tasks = tasks_of(run)
    names = list(dict.fromkeys(task.step for task in tasks))
    if not tasks:
        raise ClusterError(f"The run {run.display_name} has not started a step yet.")
    if step is None:
        chosen = [task for task in tasks if task.state == "FAILED"] or tasks
    else:
        chosen = [task for task in tasks if task.step == step.replace("-", "_")]
    if not chosen:
        raise ClusterError(
            f"The run {run.display_name} has no step {step!r}.", fix=f"It has {', '.join(names)}."
        )
    text = step_log(cluster, run.run_id, chosen[-1])
    if text is None:
        raise ClusterError(
            f"The log of {chosen[-1].step} is gone.",
            why="A pod's log goes with the pod, and the server keeps no copy.",
            fix="Set up log archiving in the workflow controller, or the cluster's log collection.",
        )
    return text if text.endswith("\n") else text + "\n"


def own_error(log: str) -> str | None:
    """The message that a step ended with, out of its log."""
    found = re.findall(r"^ERROR in step \w+: (.*(?:\n(?:Why|What to do): .*|\n  .*)*)", log, re.M)
    return found[-1].strip() if found else None


def _tail(log: str | None) -> str | None:
    lines = (log or "").rstrip().splitlines()[-LOG_LINES:]
    return "the end of its log:\n" + "\n".join(f"  {line}" for line in lines) if lines else None


def step_log(cluster: Cluster, run_id: str, task: Task) -> str | None:
    """The log of a step's container, or None where it is gone.

    The server wants the pod's name and reports the node's id: the workflow's name and a number.
    Between the two a pod's name has its template's.
    """
    for node in reversed(task.nodes):
        workflow, _, number = node.rpartition("-")
        templates = ("system-container-impl", "retry-system-container-impl")
        for pod in (*(f"{workflow}-{template}-{number}" for template in templates), node):
            text = cluster.log(run_id, pod)
            if text is not None:
                return text
    return None
