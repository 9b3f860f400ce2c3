"""The doctor's questions to Kubeflow Pipelines, and what the pods of each pool saw."""

import json
import time
from collections.abc import Iterator
from typing import Any

from rich.console import Console

from graftline.errors import ClusterError, ConfigurationError
from graftline.steps.doctor.findings import Examination, Finding
from graftline.steps.doctor.step import LINE
from graftline_pipelines.cluster.auth import Login, resolve_host
from graftline_pipelines.cluster.runs.argo import every_pod
from graftline_pipelines.cluster.server import ENDED, Cluster, connect
from graftline_pipelines.cluster.submit import Questions, Submitted, submit
from graftline_pipelines.graphs.doctor import STEPS
from graftline_pipelines.runfile.pools import pool_name
from graftline_pipelines.runfile.settings import RunSettings

POLL_SECONDS = 3.0


def examine_kfp(found: Examination, host: str | None, namespace: str | None) -> Cluster | None:
    """Probe the server: address, login, version, and whether it lets us list runs."""
    servers: list[Cluster] = []

    def reach() -> str:
        servers.append(connect(host, namespace))
        return f"Kubeflow Pipelines {servers[0].version} at {servers[0].host}"

    try:
        address = resolve_host(host)
    except ConfigurationError:
        found.skip("kfp", "reach the server", "none is named: --host or KF_PIPELINES_ENDPOINT")
        return None
    kind = "unknown"
    found.probe("kfp", "read the login", lambda: Login.from_environment().kind)
    if found.findings[-1].state == "ok":
        kind = found.findings[-1].came
    if not found.probe("kfp", f"reach {address} (login: {kind})", reach):
        return None
    server = servers[0]
    where = f" in {server.namespace}" if server.namespace else ""
    found.probe("kfp", f"list runs{where}", lambda: f"{len(server.runs(limit=5))} of the newest")
    for note in server.notes:
        found.findings.append(Finding("kfp", "compare versions", "note", note))
    return server


def examine_pods(
    settings: RunSettings, server: Cluster, console: Console, *, seconds: float
) -> list[tuple[str, Finding]]:
    """Run the doctor once in each pool; each finding with its pool.

    A pool whose pod did not run, or said nothing, is a failure.

    Args:
        settings: The run file.
        server: The server.
        console: Where the way is told.
        seconds: How long to wait for the pods; then the run is stopped.

    Raises:
        SubmissionError: The pipeline cannot be sent.
        ClusterError: The server refused.
    """
    done = submit(
        settings,
        "doctor",
        server,
        parameters={},
        questions=Questions(registry=False),
        console=console,
        description="graftline doctor",
    )
    console.print(f"Run {done.run_name}: {done.link}", highlight=False)
    ended = _wait(server, done, seconds)
    answered = dict.fromkeys(sorted({pool_name(step, settings.assign) for step in STEPS}), False)
    found: list[tuple[str, Finding]] = []
    pods = _pods(server, done.run_id)
    for pod in pods:
        for pool, finding in _findings(server.log(done.run_id, pod.name) or ""):
            found.append((pool, finding))
            answered[pool] = True
    words = "; ".join(dict.fromkeys(pod.message for pod in pods if pod.message))
    why = words or ("its log is empty" if ended else f"it did not end within {seconds:.0f} s")
    fix = f"See the run: {done.link}. `graftline logs {done.run_name}` prints what there is."
    missing = [pool for pool, seen in answered.items() if not seen]
    return found + [
        (pool, Finding("pod", f"run in the pool {pool}", "failed", why, fix)) for pool in missing
    ]


def _wait(server: Cluster, done: Submitted, seconds: float) -> bool:
    """Whether the run ended in time; it is stopped where it did not."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if server.run(done.run_id).state in ENDED:
            return True
        time.sleep(min(POLL_SECONDS, max(0.0, until - time.monotonic())))
    server.stop(done.run_id)
    return False


def _pods(server: Cluster, run_id: str) -> list[Any]:
    workflow = server.workflow(run_id)
    if workflow is None:
        raise ClusterError(
            f"{server.host} does not hand out the workflow of the run {run_id}.",
            why="The account may not read it, or the server is older than 2.0.",
            fix="Read the logs of its pods in Kubeflow's pages.",
        )
    return [pod for pod in every_pod(workflow) if pod.step == "doctor" and not pod.driver]


def _findings(log: str) -> Iterator[tuple[str, Finding]]:
    for line in log.splitlines():
        _, mark, text = line.partition(LINE)
        if not mark:
            continue
        try:
            content = json.loads(text)
            yield str(content.pop("pool")), Finding(**content)
        except (ValueError, KeyError, TypeError):
            continue  # a line that was cut, or another program's
