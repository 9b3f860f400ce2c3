"""Follows a run on a cluster: each step as it starts and ends, and why one failed."""

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.markup import escape

from graftline.errors import ClusterError
from graftline_pipelines.cluster.argo import BROKEN, Pod, pods_of, step_of
from graftline_pipelines.cluster.errors import ClusterUnreachable
from graftline_pipelines.cluster.server import ENDED, Cluster
from graftline_pipelines.runfile.pools import PoolSettings, StepName, pool_name, pool_of

POLL_SECONDS = 3.0
PATIENCE_SECONDS = 300  # of a server that has gone away, before following ends
WAITING_SECONDS = 60  # after which a step whose pod waits is explained
LOOK_SECONDS = 20  # between two looks at the pods of running steps
LOG_LINES = 40

# What the controller says of a pod that failed, and what it means.
CAUSES = (
    (
        r"OOMKilled|exit code 137",
        "The step ran out of memory.",
        "Raise `memory` of its pool, or lower the step's `batch_size`. Finished work is kept.",
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
        r"DeadlineExceeded|exceeded its deadline|active deadline|specified deadline",
        "The step took longer than its pool allows.",
        "Raise `timeout` of its pool. Finished work is kept.",
    ),
    (
        r"Unschedulable|[Ii]nsufficient|didn't match.*(selector|affinity)|untolerated taint",
        "No node fits the step's pool.",
        "Compare the pool with `kubectl describe nodes`, or submit with --kube-context.",
    ),
    (
        r"SchedulingGated",
        "It waits in its Kueue queue.",
        "kubectl get workloads.kueue.x-k8s.io -n NAMESPACE shows what it waits for.",
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
    return Task(
        detail.task_id or step,
        step,
        str(detail.state or "PENDING"),
        _moment(detail.start_time),
        _moment(detail.end_time),
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
    waiting = Waiting(cluster, console)
    for run in _looks(cluster, run_id, console, poll_seconds):
        for task in tasks_of(run):
            if shown.get(task.task_id) != task.state:
                shown[task.task_id] = task.state
                _show(task, console)
        waiting.look(run)
    total, unpriced = cost(tasks_of(run), pools or {}, assign or {})
    if total is not None:
        rest = f", those of the pool {', '.join(unpriced)} not counted" if unpriced else ""
        console.print(f"The nodes cost about {total:.2f}{rest}.", highlight=False)
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
    """Tells, once, of a step whose pod has waited for a while, and why it waits."""

    cluster: Cluster
    console: Console
    waiting_seconds: float = WAITING_SECONDS
    look_seconds: float = LOOK_SECONDS
    _since: dict[str, float] = field(default_factory=dict)
    _told: set[str] = field(default_factory=set)
    _looked: float = 0.0

    def look(self, run: Any) -> None:
        """Look at the pods of the steps that run, not too often: the answer is large."""
        now = time.monotonic()
        running = any(task.state in ("RUNNING", "PENDING") for task in tasks_of(run))
        if not running or now - self._looked < self.look_seconds:
            return
        self._looked = now
        for pod in pods_of(self.cluster.workflow(run.run_id) or {}):
            if pod.phase != "Pending" or pod.driver:
                self._since.pop(pod.name, None)
            elif now - self._since.setdefault(pod.name, now) >= self.waiting_seconds:
                self._tell(pod)

    def _tell(self, pod: Pod) -> None:
        if pod.name in self._told:
            return
        self._told.add(pod.name)
        cause = explain(pod.message)
        why = f"{cause[0]} {cause[1]}" if cause else "Its node may still be starting."
        said = f" ({pod.message})" if pod.message else ""
        self.console.print(
            f"[yellow]{pod.step} waits for its pod.[/] {escape(why + said)}", highlight=False
        )


def explain(text: str) -> tuple[str, str] | None:
    """What the controller's words mean: the cause and what to do, or None."""
    for pattern, cause, fix in CAUSES:
        if re.search(pattern, text):
            return cause, fix
    return None


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
    """The error of a failed run: the step's own words, else what the controller said."""
    failed = [task for task in tasks_of(run) if task.state == "FAILED"]
    pods = pods_of(cluster.workflow(run.run_id) or {})
    broken = [pod for pod in pods if pod.phase in BROKEN]
    link = cluster.link(run.run_id)
    if not failed:
        return _failed_before(cluster, run, broken)
    task = min(failed, key=lambda task: task.ended or datetime.max.replace(tzinfo=UTC))
    pod = next((pod for pod in reversed(broken) if pod.step == task.step), None)
    text = cluster.log(run.run_id, pod.name) if pod else None
    message = pod.message if pod else ""
    own = own_error(text or "")
    cause = explain(f"{message} {text or ''}"[-5000:]) if own is None else None
    said = (
        f"{cause[0].rstrip('.')} ({message})"
        if cause and message
        else cause[0]
        if cause
        else message
    )
    return RunFailed(
        f"Step {task.step} failed: {own or said or 'no reason is known'}",
        why=_tail(text) if own is None and text else None,
        fix=f"{cause[1] if cause else ''} Log: graftline logs {run.run_id} {task.step}\n"
        f"Page: {link}".strip(),
    )


def _failed_before(cluster: Cluster, run: Any, broken: list[Pod]) -> RunFailed:
    """The error of a run of which no step failed: Kubeflow's own pods did, or the workflow."""
    link = cluster.link(run.run_id)
    if not broken:
        said = run.error.message if run.error else None
        return RunFailed(
            f"The run {run.display_name} failed, and none of its steps did.",
            why=said,
            fix=f"See its page: {link}",
        )
    pod = broken[-1]
    text = cluster.log(run.run_id, pod.name)
    cause = explain(f"{pod.message} {text or ''}"[-5000:])
    return RunFailed(
        f"Kubeflow could not prepare the step {pod.step}: {cause[0] if cause else pod.message}",
        why=_tail(text) or pod.message or None,
        fix=f"{cause[1] if cause else ''} Page: {link}".strip(),
    )


def log_of(cluster: Cluster, run: Any, step: str | None) -> str:
    """The log of a step of a run; of the one that failed, or of the last, where none is named.

    Raises:
        ClusterError: The run has no such step, or its log is gone.
    """
    tasks = tasks_of(run)
    workflow = cluster.workflow(run.run_id)
    pods = [pod for pod in pods_of(workflow or {}) if not pod.driver]
    if not tasks:
        raise ClusterError(f"The run {run.display_name} has not started a step yet.")
    name = step.replace("-", "_") if step is not None else _most_telling(tasks)
    if name not in {task.step for task in tasks}:
        names = ", ".join(dict.fromkeys(task.step for task in tasks))
        raise ClusterError(
            f"The run {run.display_name} has no step {step!r}.", fix=f"It has {names}."
        )
    if workflow is None:
        raise ClusterError(
            f"{cluster.host} does not tell which pod ran the step {name}.",
            fix=f"See the step's log on the run's page: {cluster.link(run.run_id)}",
        )
    mine = [pod for pod in pods if pod.step == name and pod.phase not in ("Omitted", "Skipped")]
    if not mine:
        raise ClusterError(
            f"The step {name} of the run {run.display_name} has no pod: it has not run."
        )
    texts = [cluster.log(run.run_id, pod.name) for pod in mine]
    if all(text is None for text in texts):
        raise ClusterError(
            f"The log of {name} is gone.",
            why="A pod's log goes with the pod, and the server keeps no copy.",
            fix="Set up log archiving in the workflow controller, or the cluster's log collection.",
        )
    return "".join(_headed(pod, text, len(mine)) for pod, text in zip(mine, texts, strict=True))


def _most_telling(tasks: list[Task]) -> str:
    failed = [task for task in tasks if task.state == "FAILED"]
    ran = [task for task in tasks if task.state not in ("SKIPPED", "RUNTIME_STATE_UNSPECIFIED")]
    return (failed or ran or tasks)[-1].step


def _headed(pod: Pod, text: str | None, count: int) -> str:
    """A pod's log; with its name above where a step had several: tries, or shares of the work."""
    text = text if text is not None else "(this pod is gone, and its log with it)"
    head = f"==> {pod.name} ({pod.phase}) <==\n" if count > 1 else ""
    return f"{head}{text.rstrip()}\n"


def own_error(log: str) -> str | None:
    """The message that a step ended with, out of its log."""
    found = re.findall(r"^ERROR in step \w+: (.*(?:\n(?:Why|What to do): .*|\n  .*)*)", log, re.M)
    return found[-1].strip() if found else None


def _tail(log: str | None) -> str | None:
    lines = (log or "").rstrip().splitlines()[-LOG_LINES:]
    return "the end of its log:\n" + "\n".join(f"  {line}" for line in lines) if lines else None
