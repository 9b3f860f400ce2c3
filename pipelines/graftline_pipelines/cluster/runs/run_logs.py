"""The logs of a run's steps: the step's own lines, without those of Argo and of KFP's launcher."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from graftline.errors import ClusterError
from graftline_pipelines.cluster.errors import ClusterUnreachable
from graftline_pipelines.cluster.runs.argo import NOT_RUN, STEPS, Pod, blamed, pods_of
from graftline_pipelines.cluster.runs.causes import launcher_error
from graftline_pipelines.cluster.runs.run_tasks import tasks_of
from graftline_pipelines.cluster.server import ENDED, Cluster

POLL_SECONDS = 3.0
PATIENCE_SECONDS = 300  # of a server that has gone away
SHARED = ("plan_extraction", "extract_share", "assemble_features")  # what extract_features becomes

_ARGO = re.compile(r'^time="?\d{4}-\d\d-\d\dT.*\bargo=true\b')
_ARGO_LAST = re.compile(r"^Error: exit status \d+$")
_KLOG = re.compile(r"^[IWEF]\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ [\w./-]+:\d+\] ")
_EXECUTOR = re.compile(r"^\[KFP Executor (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),\d+ (\w+)\]: (.*)$")
_EXECUTORS_OWN = re.compile(
    r"Looking for component `|Loading KFP component |Got executor_input:|"
    r"Wrote executor output file to "
)
_JSON_LINE = re.compile(r'^(\s+["{}\[\]].*|[{}\]],?)$')


def own_lines(log: str) -> list[str]:
    """The lines that a step itself printed, out of its pod's log.

    Left out: Argo's, the launcher's, and the executor's with the JSON dumps of inputs and outputs.
    What the step logged through Python keeps its time, and its level from a warning upwards.
    """
    lines = log.splitlines()
    kept: list[str] = []
    index = _after_fragment(lines)
    while index < len(lines):
        line = lines[index]
        index += 1
        executor = _EXECUTOR.match(line)
        if _KLOG.match(line) or (executor and _EXECUTORS_OWN.match(executor[3])):
            if line.endswith(("{", "Got executor_input:")):
                index = _after_json(lines, index)
        elif executor:
            level = "" if executor[2] == "INFO" else f"{executor[2]} "
            kept.append(f"{executor[1]} {level}{executor[3]}")
        elif not _ARGO.match(line) and not _is_argos_last(lines, index - 1):
            kept.append(line)
    return kept


def _after_fragment(lines: list[str]) -> int:
    """The first line after the rest of a JSON dump, where a log begins in the middle of one."""
    index = 0
    while index < len(lines) and _JSON_LINE.match(lines[index]):
        index += 1
        if lines[index - 1] == "}":
            return index
    return 0


def _after_json(lines: list[str], index: int) -> int:
    """The line after the JSON object that begins here or began above."""
    while index < len(lines) and (_JSON_LINE.match(lines[index]) or lines[index] == ""):
        index += 1
        if lines[index - 1] == "}":
            break
    return index


def _is_argos_last(lines: list[str], index: int) -> bool:
    return bool(index and _ARGO_LAST.match(lines[index]) and _ARGO.match(lines[index - 1]))


def log_of(cluster: Cluster, run: Any, step: str | None, *, raw: bool = False) -> str:
    """The log of a step of a run; of the one that failed, or of the last, where none is named.

    Args:
        cluster: The server.
        run: The run, as the server has it.
        step: The step.
        raw: With the lines of Argo, of KFP's launcher and of its executor.

    Raises:
        ClusterError: The run has no such step, or its log is gone.
    """
    mine = _pods(cluster, run, step)
    texts = [cluster.log(run.run_id, pod.name) for pod in mine]
    if all(text is None for text in texts):
        _gone(mine)
    count = len(mine)
    return "".join(
        _headed(pod, text, count, raw=raw) for pod, text in zip(mine, texts, strict=True)
    )


def _gone(mine: list[Pod]) -> None:
    if all(pod.driver for pod in mine):
        raise ClusterError(
            f"The step {mine[-1].step} has not run: Kubeflow could not prepare it.",
            why=f"Its driver, the pod {mine[-1].name}, ended with: "
            f"{mine[-1].message or mine[-1].phase}. The driver's log is gone.",
        )
    raise ClusterError(
        f"The log of {mine[-1].step} is gone.",
        why="A pod's log goes with the pod, and the server keeps no copy.",
        fix="Set up log archiving in the workflow controller, or the cluster's log collection.",
    )


def _pods(cluster: Cluster, run: Any, step: str | None) -> list[Pod]:
    """The pods of the step that is meant, tries and shares among them; else its driver."""
    tasks = tasks_of(run)
    workflow = cluster.workflow(run.run_id)
    if not tasks:
        raise ClusterError(f"The run {run.display_name} has not started a step yet.")
    pods = pods_of(workflow or {})
    name = step.replace("-", "_") if step is not None else _most_telling(tasks, pods)
    known = list(dict.fromkeys(task.step for task in tasks))
    names = {name} if name in known or name != "extract_features" else {*SHARED}
    if not names & set(known):
        raise ClusterError(
            f"The run {run.display_name} has no step {step!r}.", fix=f"It has {', '.join(known)}."
        )
    if workflow is None:
        raise ClusterError(
            f"{cluster.host} does not tell which pod ran the step {name}.",
            fix=f"See the step's log on the run's page: {cluster.link(run.run_id)}",
        )
    ran = [pod for pod in pods if pod.step in names and pod.phase not in NOT_RUN]
    drivers = [pod for pod in ran if pod.driver and pod.phase not in ("Succeeded", "Pending")]
    mine = [pod for pod in ran if not pod.driver] or drivers
    if not mine:
        raise ClusterError(
            f"The step {name} of the run {run.display_name} has no pod: it has not run."
        )
    return mine


def _most_telling(tasks: list[Any], pods: list[Pod]) -> str:
    failed = blamed([pod for pod in pods if not pod.group])
    if failed is not None:
        return failed.step
    ran = [task for task in tasks if task.state not in ("SKIPPED", "OMITTED", "PENDING")]
    broken = [task for task in ran if task.state == "FAILED"]
    return str((broken or ran or tasks)[-1].step)


def _headed(pod: Pod, text: str | None, count: int, *, raw: bool) -> str:
    """A pod's log; with its name above where a step had several: tries, or shares of the work."""
    head = heading(pod) if count > 1 or pod.driver else ""
    if text is None:
        return f"{head}(this pod is gone, and its log with it)\n"
    if raw or pod.driver:  # a driver has no lines but the launcher's
        return f"{head}{text.rstrip()}\n"
    lines = own_lines(text)
    return f"{head}{chr(10).join(lines).rstrip()}\n" if any(lines) else f"{head}{_silent(text)}\n"


def heading(pod: Pod) -> str:
    """A pod's name and how it is, above its log."""
    what = f"driver of {pod.step}, " if pod.driver else ""
    why = f": {pod.message}" if pod.message else ""
    return f"==> {what}{pod.name} ({pod.phase}{why}) <==\n"


def _silent(text: str) -> str:
    """What is printed for a step that printed nothing."""
    said = launcher_error(text)
    if said is None:
        return "(the step printed nothing; --raw shows the lines of Kubeflow)"
    return f"(the step printed nothing; Kubeflow's launcher ended with: {said}; --raw shows all)"


@dataclass
class LogFollower:
    """Prints what a step's pods add to their logs, until the step or its run has ended.

    The server's route gives a whole log; what was printed before is counted by lines, which the
    filter leaves the same when more follow. A try that follows a lost one is followed as well.
    """

    cluster: Cluster
    run_id: str
    step: str | None
    raw: bool
    emit: Callable[[str], None]
    poll_seconds: float = POLL_SECONDS
    _printed: dict[str, int] = field(default_factory=dict)
    _current: str = ""

    def follow(self) -> Any:
        """Print until the end. Returns the run.

        Raises:
            ClusterError: The run has no such step.
            ClusterUnreachable: The server has been away for too long.
        """
        away_since: float | None = None
        while True:
            try:
                run = self.cluster.run(self.run_id)
                done = self._look(run) or run.state in ENDED
            except ClusterUnreachable:
                away_since = away_since or time.monotonic()
                if time.monotonic() - away_since > PATIENCE_SECONDS:
                    raise
            else:
                away_since = None
                if done:
                    return run
            time.sleep(self.poll_seconds)

    def _look(self, run: Any) -> bool:
        """Print what is new. Returns whether the step that is followed has ended."""
        ended = run.state in ENDED
        pods = pods_of(self.cluster.workflow(run.run_id) or {})
        wanted = self._wanted()
        if ended and not self._printed and wanted:
            self.emit(log_of(self.cluster, run, self.step, raw=self.raw))
            return True
        for pod in pods:
            if pod.driver or pod.phase in NOT_RUN or (wanted and pod.step not in wanted):
                continue
            self._print(run, pod, whole=ended or bool(pod.finished))
        tasks = [task for task in tasks_of(run) if task.step in wanted]
        last = any(task.step in (wanted[0], SHARED[-1]) for task in tasks)  # of a fan-out
        return last and all(task.ended for task in tasks)

    def _wanted(self) -> tuple[str, ...]:
        """The steps whose pods are followed; none: all of them."""
        if self.step is None:
            return ()
        name = self.step.replace("-", "_")
        if name not in STEPS:
            raise ClusterError(
                f"There is no step {self.step!r}.", fix=f"A run has {', '.join(sorted(STEPS))}."
            )
        return (name, *SHARED) if name == "extract_features" else (name,)

    def _print(self, run: Any, pod: Pod, *, whole: bool) -> None:
        before = self._printed.get(pod.name, 0)
        if before < 0:
            return  # ended, and printed to its end
        text = self.cluster.log(run.run_id, pod.name)
        if text is None:
            return
        if not whole:  # the last line may be half a line
            text = text[: text.rfind("\n") + 1]
        lines = text.splitlines() if self.raw else own_lines(text)
        if len(lines) > before:
            if pod.name != self._current:
                self.emit(f"==> {pod.step}: {pod.name} <==\n")
                self._current = pod.name
            self.emit("".join(f"{line}\n" for line in lines[before:]))
        self._printed[pod.name] = -1 if whole else max(before, len(lines))
