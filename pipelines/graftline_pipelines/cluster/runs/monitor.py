"""Follows a run on a cluster: each step as it starts and ends, and why one failed."""

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, get_args

from rich.console import Console
from rich.markup import escape

from graftline.errors import ClusterError
from graftline_pipelines.cluster.errors import ClusterUnreachable
from graftline_pipelines.cluster.runs.argo import BROKEN, Pod, blamed, every_pod, tries_of
from graftline_pipelines.cluster.runs.causes import CAUSES, explain, launcher_error, own_error
from graftline_pipelines.cluster.runs.dead_runs import close_dead
from graftline_pipelines.cluster.runs.run_logs import log_of, own_lines
from graftline_pipelines.cluster.runs.run_spec import attempts_allowed
from graftline_pipelines.cluster.runs.run_tasks import Task, shown_state, tasks_of, was_stopped
from graftline_pipelines.cluster.server import ENDED, Cluster
from graftline_pipelines.runfile.pools import PoolSettings, StepName, pool_name, pool_of

__all__ = [
    "CAUSES",
    "RunFailed",
    "Task",
    "Waiting",
    "cost",
    "explain",
    "failure",
    "follow",
    "log_of",
    "own_error",
    "shown_state",
    "tasks_of",
    "was_stopped",
]

POLL_SECONDS = 3.0
PATIENCE_SECONDS = 300  # of a server that has gone away, before following ends
WAITING_SECONDS = 60  # after which a step whose pod waits is explained
CHECK_SECONDS = 20  # between two looks at the pods of running steps
LOG_LINES = 40
LOST = r"^Error|exit code (143|137)"  # of a pod that did not end by itself


class RunFailed(ClusterError):  # noqa: N818 -- the run has failed; this is its error
    """A run on the cluster failed; the message is the failing step's own where it left one."""


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
    waiting = Waiting(cluster, console, allowed=_allowed(pools, assign))
    for run in _looks(cluster, run_id, console, poll_seconds):
        for task in tasks_of(run):
            if shown.get(task.task_id) != task.state:
                shown[task.task_id] = task.state
                _show(task, console)
        waiting.check(run)
    waiting.tell_tries(run)
    total, unpriced = cost(tasks_of(run), pools or {}, assign or {})
    if total is not None:
        rest = f", those of the pool {', '.join(unpriced)} not counted" if unpriced else ""
        console.print(f"The nodes cost about {total:.2f}{rest}.", highlight=False)
    close_dead(cluster, run, console)
    if was_stopped(run):
        raise RunFailed(f"The run {run.display_name} was stopped.")
    if run.state == "FAILED":
        raise failure(cluster, run)
    return run


def _allowed(
    pools: Mapping[str, PoolSettings] | None, assign: Mapping[StepName, str] | None
) -> Mapping[str, int] | None:
    """How often each step is tried by the run file; None where there is none."""
    if pools is None:
        return None
    steps = [*get_args(StepName), "extract_share"]
    return {step: pool_of(step, pools, assign or {}).tries_again + 1 for step in steps}


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
        "PENDING": "waits",
        "RUNNING": "started",
        "SUCCEEDED": f"[green]done in {task.seconds:.0f} s[/]",
        "FAILED": f"[red]failed after {task.seconds:.0f} s[/]",
        "SKIPPED": "not needed",
        "CANCELED": "stopped",
    }
    said = words.get(task.state)
    if said is not None:
        console.print(f"[bold]{task.step:<18}[/] {said}", highlight=False)


@dataclass
class Waiting:
    """Tells, once, of a pod that has waited for a while or was lost and is tried again, and why.

    Attributes:
        allowed: How often each step is tried; asked of the server where absent.
    """

    cluster: Cluster
    console: Console
    waiting_seconds: float = WAITING_SECONDS
    look_seconds: float = CHECK_SECONDS
    allowed: Mapping[str, int] | None = None
    _since: dict[str, float] = field(default_factory=dict)
    _reported: set[str] = field(default_factory=set)
    _checked_at: float | None = None

    def check(self, run: Any) -> None:
        """Look at the pods of the steps that run, not too often: the answer is large."""
        now = time.monotonic()
        details = getattr(run.run_details, "task_details", None) or []
        running = any(detail.state in ("RUNNING", "PENDING") for detail in details)
        if not running or (
            self._checked_at is not None and now - self._checked_at < self.look_seconds
        ):
            return
        self._checked_at = now
        pods = every_pod(self.cluster.workflow(run.run_id) or {})
        self._tell_tries(run, pods)
        for pod in pods:
            if pod.phase != "Pending" or pod.driver:
                self._since.pop(pod.name, None)
            elif now - self._since.setdefault(pod.name, now) >= self.waiting_seconds:
                self._tell(pod)

    def tell_tries(self, run: Any) -> None:
        """Tell of the tries of a run that has ended, as far as they are not told."""
        self._tell_tries(run, every_pod(self.cluster.workflow(run.run_id) or {}))

    def _tell_tries(self, run: Any, pods: list[Pod]) -> None:
        for pod in pods:
            tries = tries_of(pods, pod)
            number = tries.index(pod) + 1 if pod in tries else 0
            lost = tries[number - 2] if number > 1 else None
            if lost is None or lost.name in self._reported or lost.phase not in BROKEN:
                continue
            self._reported.add(lost.name)
            what = f"driver of {pod.step}" if pod.driver else pod.step
            if self.allowed is None:
                self.allowed = attempts_allowed(self.cluster, run)
            limit = 0 if pod.driver else self.allowed.get(pod.step, 0)
            # KFP's own rule around the step may try more often than the step allows.
            of = f" of {limit}" if number <= limit else ""
            self.console.print(
                f"[yellow]{what} is tried again, attempt {number}{of}.[/] "
                f"{escape(f'Attempt {number - 1}: {_reason(lost.message)}')}",
                highlight=False,
            )

    def _tell(self, pod: Pod) -> None:
        if pod.name in self._reported:
            return
        self._reported.add(pod.name)
        cause = explain(pod.message)
        why = f"{cause[0]} {cause[1]}" if cause else "Its node may still be starting."
        said = f" ({pod.message})" if pod.message else ""
        self.console.print(
            f"[yellow]{pod.step} waits for its pod.[/] {escape(why + said)}", highlight=False
        )


def _reason(message: str) -> str:
    """The controller's words and what they mean, as one sentence."""
    cause = explain(message)
    if cause is None:
        return f"{message or 'no reason is known'}."
    return f"{cause[0].rstrip('.')} ({message})."


def cost(
    tasks: list[Task], pools: Mapping[str, PoolSettings], assign: Mapping[StepName, str]
) -> tuple[float | None, list[str]]:
    """What the steps' nodes cost, and which pools have no price.

    Each step counts as one node of its pool for as long as it ran, waiting included.

    Returns:
        The sum, or None where no pool that was used has a price; the names of those without one.
    """
    priced, unpriced = [], set()
    for task in tasks:
        if task.state not in ("RUNNING", "SUCCEEDED", "FAILED", "CANCELED"):
            continue
        price = pool_of(task.step, pools, assign).hourly_price
        if price is None:
            unpriced.add(pool_name(task.step, assign))
        else:
            priced.append(price * task.seconds / 3600)
    return sum(priced) if priced else None, sorted(unpriced)


def failure(cluster: Cluster, run: Any) -> RunFailed:
    """The error of a failed run: the step's own words, else what Argo and the launcher said."""
    pods = every_pod(cluster.workflow(run.run_id) or {})
    pod = blamed(pods)
    if pod is None:
        return _failed_without_pods(cluster, run)
    log = cluster.log(run.run_id, pod.name) or ""
    if pod.driver:
        return _failed_before(cluster, run, pod, log)
    own, launcher = own_error(log), launcher_error(log)
    cause = None if own is not None else explain(pod.message) or explain(launcher or "")
    words = "; ".join(part for part in (launcher, pod.message) if part)
    said = f"{cause[0].rstrip('.')} ({words})" if cause else words
    why = [_attempts(tries_of(pods, pod)), None if own or cause else _tail(log)]
    fix = f"{cause[1]} " if cause else ""
    return RunFailed(
        f"Step {pod.step} failed: {own or said or 'no reason is known'}",
        why="\n".join(part for part in why if part) or None,
        fix=f"{fix}Log: graftline logs {run.run_id} {pod.step}\nPage: {cluster.link(run.run_id)}",
    )


def _attempts(tries: list[Pod]) -> str | None:
    """How each try ended, where there were several, and why a lost pod was not tried again."""
    said = []
    if len(tries) > 1:
        said = [
            f"Attempt {number} ended with: {pod.message or pod.phase}."
            for number, pod in enumerate(tries, 1)
        ]
    last = tries[-1] if tries else None
    # A step's own error is not tried again by intention; a lost pod should have been.
    if last is not None and last.why_last and re.search(LOST, f"{last.phase} {last.message}"):
        said.append(f"Argo did not try again: {last.why_last}.")
    return " ".join(said) or None


def _failed_before(cluster: Cluster, run: Any, pod: Pod, log: str) -> RunFailed:
    """The error where one of Kubeflow's own pods failed: the driver of a step or of a group."""
    launcher = launcher_error(log)
    cause = explain(pod.message) or explain(launcher or "")
    what = f"the step {pod.step}" if not pod.group else f"the run's part {pod.step}"
    words = (
        f"{cause[0].replace('The step', 'its driver').rstrip('.')} ({pod.message})" if cause else ""
    )
    return RunFailed(
        f"Kubeflow could not prepare {what}: {words or launcher or pod.message or pod.phase}",
        why=_tail(log, whole=True),
        fix=f"The driver is a pod of Kubeflow's own: submit again; finished work is kept. If it "
        f"happens again, the administrators of Kubeflow set its limits and rights.\n"
        f"Page: {cluster.link(run.run_id)}",
    )


def _failed_without_pods(cluster: Cluster, run: Any) -> RunFailed:
    """The error where no pod is known to have failed: what the server's own list says."""
    link = cluster.link(run.run_id)
    failed = [task for task in tasks_of(run) if task.state == "FAILED"]
    if failed:
        task = min(failed, key=lambda task: task.ended or datetime.max.replace(tzinfo=UTC))
        return RunFailed(
            f"Step {task.step} failed: no reason is known",
            fix=f"Log: graftline logs {run.run_id} {task.step}\nPage: {link}",
        )
    return RunFailed(
        f"The run {run.display_name} failed, and none of its steps did.",
        why=run.error.message if run.error else None,
        fix=f"See its page: {link}",
    )


def _tail(log: str, *, whole: bool = False) -> str | None:
    """The end of a log: of the step's own lines, or of all of them."""
    lines = (log.rstrip().splitlines() if whole else own_lines(log))[-LOG_LINES:]
    return "the end of its log:\n" + "\n".join(f"  {line}" for line in lines) if lines else None
