"""What the compiled pipeline of a run says of it: how often steps are tried, where MLflow is."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from graftline.errors import ClusterError
from graftline_pipelines.cluster.runs.argo import step_of
from graftline_pipelines.cluster.server import Cluster


@dataclass(frozen=True)
class TrackedIn:
    """Where a run's record in MLflow is."""

    uri: str
    experiment: str


def attempts_allowed(cluster: Cluster, run: Any) -> dict[str, int]:
    """How often each step of a run is tried; empty where the server does not say."""
    found = {}
    for name, task in _tasks(_spec(cluster, run)):
        step, policy = step_of(name), task.get("retryPolicy") or {}
        if step is not None and "maxRetryCount" in policy:
            found[step] = int(policy["maxRetryCount"]) + 1
    return found


def tracked_in(cluster: Cluster, run: Any) -> TrackedIn | None:
    """Where the run is recorded in MLflow, or None where its pipeline does not say."""
    for _, task in _tasks(_spec(cluster, run)):
        given = (task.get("inputs") or {}).get("parameters") or {}
        constant = ((given.get("tracking") or {}).get("runtimeValue") or {}).get("constant")
        try:
            said = json.loads(constant or "")
            return TrackedIn(str(said["uri"]), str(said["experiment"]))
        except (ValueError, KeyError, TypeError):
            continue
    return None


def _spec(cluster: Cluster, run: Any) -> Any:
    """The pipeline of a run, as the server keeps it; None where it is gone."""
    reference = run.pipeline_version_reference
    if reference is None or not reference.pipeline_version_id:
        return run.pipeline_spec
    try:
        version = cluster.call(
            "looking at the run's pipeline",
            cluster.client.get_pipeline_version,
            pipeline_id=reference.pipeline_id,
            pipeline_version_id=reference.pipeline_version_id,
        )
    except ClusterError:
        return None
    return version.pipeline_spec


def _tasks(spec: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every task of a pipeline, nested ones too, by its name."""
    if not isinstance(spec, Mapping):
        return
    for key, value in spec.items():
        if key == "tasks" and isinstance(value, Mapping):
            yield from ((name, task) for name, task in value.items() if isinstance(task, Mapping))
        yield from _tasks(value)
