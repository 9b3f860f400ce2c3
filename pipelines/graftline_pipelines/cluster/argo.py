"""What a run's Argo workflow knows and Kubeflow's v2 API does not tell: pods, and their fate.

The v2beta1 API reports a step's state, without the name of its pod, whose log is wanted, and
without the reason for a failure or for waiting. The workflow, which the v1beta1 API hands out with
a run, has all three. Under a step named ``ingest`` stand an ``ingest-driver`` pod, which prepares
it, and ``executor`` pods, one for each try.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from graftline_pipelines.runfile.pools import StepName

STEPS = {*get_args(StepName), "extract_share"}
BROKEN = {"Failed", "Error"}
_NAME_BYTES = 242  # of 253, without the hash and its dash


@dataclass(frozen=True)
class Pod:
    """A pod of a step.

    Attributes:
        name: As Kubernetes knows it.
        phase: Argo's: Pending, Running, Succeeded, Failed, Error, Omitted or Skipped.
        message: Why it waits or failed, in the controller's words.
        started: ISO 8601.
        driver: Whether it is the one that prepares the step.
    """

    step: str
    name: str
    phase: str
    message: str
    started: str
    driver: bool


def step_of(shown: str) -> str | None:
    """The step that a node's display name stands for, or None.

    A step that stands in two branches of the graph is called ``evaluate-2`` in the second one.
    """
    step = re.sub(r"-\d+$", "", shown).replace("-", "_")
    return step if step in STEPS else None


def pods_of(workflow: Mapping[str, Any]) -> list[Pod]:
    """The pods of all steps, in the order in which they were made."""
    nodes: Mapping[str, Any] = (workflow.get("status") or {}).get("nodes") or {}
    parents = {child: key for key, node in nodes.items() for child in node.get("children") or ()}
    found = []
    for key, node in nodes.items():
        if node.get("type") != "Pod":
            continue
        shown = str(node.get("displayName", ""))
        driver = shown.endswith("-driver")
        step = step_of(shown.removesuffix("-driver")) if driver else _owner(key, nodes, parents)
        if step is not None:
            found.append(_pod(workflow, node, step, driver=driver))
    return sorted(found, key=lambda pod: (pod.started, pod.name))


def _owner(key: str, nodes: Mapping[str, Any], parents: Mapping[str, str]) -> str | None:
    """The step above a pod: the nearest node that has a step's name."""
    above: str | None = key
    for _ in range(len(nodes)):
        if above is None:
            return None
        step = step_of(str(nodes[above].get("displayName", "")))
        if step is not None:
            return step
        above = parents.get(above)
    return None


def _pod(workflow: Mapping[str, Any], node: Mapping[str, Any], step: str, *, driver: bool) -> Pod:
    metadata = workflow.get("metadata") or {}
    name, identity = str(metadata.get("name", "")), str(node.get("id", ""))
    annotations = metadata.get("annotations") or {}
    if annotations.get("workflows.argoproj.io/pod-name-format") != "v1":
        prefix = f"{name}-{node.get('templateName', '')}"[:_NAME_BYTES]
        identity = f"{prefix}-{identity.rpartition('-')[2]}"
    return Pod(
        step,
        identity,
        str(node.get("phase", "")),
        str(node.get("message") or ""),
        str(node.get("startedAt") or ""),
        driver,
    )
