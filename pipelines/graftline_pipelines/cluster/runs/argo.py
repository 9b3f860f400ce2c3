"""What a run's Argo workflow knows and Kubeflow's v2 API does not tell: pods, and their fate.

The v2beta1 API reports a step's state, without the name of its pod, whose log is wanted, and
without the reason for a failure or for waiting. The workflow, which the v1beta1 API hands out with
a run, has all three.

KFP 2.17 wraps every template in a Retry node, so each level has its own tries. The step ``ingest``
of a run is::

    RUN(0).root(0).ingest-driver(0)          Pod: prepares the step
    RUN(0).root(0).ingest(0)                 DAG: one try of the step
    RUN(0).root(0).ingest(0).executor(0)     Pod: one try in that try

A node's ``boundaryID`` names the DAG that holds it. Its ``children`` are what runs *after* it as
well, and say nothing of whose pod it is.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from graftline_pipelines.runfile.pools import StepName

STEPS = {*get_args(StepName), "extract_share", "doctor"}
BROKEN = {"Failed", "Error"}
NOT_RUN = {"Omitted", "Skipped"}
_DRIVER = "-driver"
_NAME_BYTES = 242  # of 253, without the hash and its dash
_TRY = re.compile(r"\(\d+\)$")  # of a Retry node; an iteration's number is (0:value)


@dataclass(frozen=True)
class Pod:
    """A pod of a step, or the driver of a group of steps.

    Attributes:
        step: The step; for a group's driver the group's name, as ``root`` or ``condition-2``.
        name: As Kubernetes knows it.
        phase: Argo's: Pending, Running, Succeeded, Failed, Error, Omitted or Skipped.
        message: Why it waits or failed, in the controller's words.
        started: ISO 8601.
        driver: Whether it is the one that prepares the step.
        finished: ISO 8601; empty while it runs.
        task: What it is a try of: the node's name without the numbers of tries.
        group: Whether it is the driver of a group, which is no step.
        why_last: Why Argo did not try again, in its words; of the last try only.
    """

    step: str
    name: str
    phase: str
    message: str
    started: str
    driver: bool
    finished: str = ""
    task: str = ""
    group: bool = False
    why_last: str = ""


def step_of(shown: str) -> str | None:
    """The step that a node's display name stands for, or None.

    A step that is in two branches of the graph is called ``evaluate-2`` in the second one.
    """
    step = re.sub(r"-\d+$", "", shown).replace("-", "_")
    return step if step in STEPS else None


def pods_of(workflow: Mapping[str, Any]) -> list[Pod]:
    """The pods of all steps, in the order in which they were made."""
    return [pod for pod in every_pod(workflow) if not pod.group]


def every_pod(workflow: Mapping[str, Any]) -> list[Pod]:
    """The pods of all steps and the drivers of groups, in the order in which they were made."""
    nodes: Mapping[str, Any] = (workflow.get("status") or {}).get("nodes") or {}
    found = []
    for key, node in nodes.items():
        if node.get("type") != "Pod":
            continue
        shown = _plain(node)
        driver = shown.endswith(_DRIVER)
        owner = shown.removesuffix(_DRIVER) if driver else _owner(key, nodes)
        step = step_of(owner) if owner else None
        if step is not None or (driver and owner):
            found.append(_pod(workflow, node, step or str(owner), driver, group=step is None))
    return sorted(found, key=lambda pod: (pod.started, pod.name))


def blamed(pods: list[Pod]) -> Pod | None:
    """The pod that a failed run failed for: the last try of what failed first; None: no pod did.

    What was lost and then tried again successfully is not to blame.
    """
    last: dict[str, Pod] = {}
    for pod in pods:
        if pod.phase not in NOT_RUN:
            last[pod.task or pod.name] = pod
    broken = [pod for pod in last.values() if pod.phase in BROKEN]
    return min(broken, key=lambda pod: (pod.finished or pod.started, pod.started), default=None)


def tries_of(pods: list[Pod], pod: Pod) -> list[Pod]:
    """Every pod that tried what this one tried, in order, itself among them."""
    return [one for one in pods if one.task == pod.task and one.phase not in NOT_RUN]


def _plain(node: Mapping[str, Any]) -> str:
    """A node's display name without the number of its try."""
    return _TRY.sub("", str(node.get("displayName", "")))


def _owner(key: str, nodes: Mapping[str, Any]) -> str | None:
    """The nearest node around a pod that has a step's name: by boundary, else by name."""
    node: Mapping[str, Any] | None = nodes[key]
    if not node or not (node.get("boundaryID") or node.get("name")):
        return _owner_by_children(key, nodes)
    for _ in range(len(nodes)):
        if node is None:
            break
        if step_of(_plain(node)) is not None:
            return _plain(node)
        node = nodes.get(str(node.get("boundaryID", "")))
    path = str(nodes[key].get("name", "")).split(".")
    names = [_TRY.sub("", part) for part in reversed(path)]
    return next((name for name in names if step_of(name) is not None), None)


def _owner_by_children(key: str, nodes: Mapping[str, Any]) -> str | None:
    """For a tree without boundaries: the nearest node above that has a step's name."""
    parents = {
        child: above for above, node in nodes.items() for child in node.get("children") or ()
    }
    above: str | None = key
    for _ in range(len(nodes)):
        if above is None:
            return None
        if step_of(_plain(nodes[above])) is not None:
            return _plain(nodes[above])
        above = parents.get(above)
    return None


def _task(node: Mapping[str, Any]) -> str:
    """A node's name without the numbers of tries, at every level."""
    return ".".join(_TRY.sub("", part) for part in str(node.get("name", "")).split("."))


def _why_last(node: Mapping[str, Any], nodes: Mapping[str, Any]) -> str:
    """What the Retry nodes around a pod say of trying it again, the outermost's word first."""
    own = str(node.get("message") or "")
    path = str(node.get("name", ""))
    around = [
        (str(one.get("name", "")), str(one.get("message") or ""))
        for one in nodes.values()
        if one.get("type") == "Retry" and one.get("phase") in BROKEN
    ]
    said = [text for name, text in sorted(around) if path.startswith(f"{name}(") and text]
    return next((text for text in reversed(said) if text != own), "")


def _pod(
    workflow: Mapping[str, Any], node: Mapping[str, Any], step: str, driver: bool, *, group: bool
) -> Pod:
    metadata = workflow.get("metadata") or {}
    name, identity = str(metadata.get("name", "")), str(node.get("id", ""))
    annotations = metadata.get("annotations") or {}
    if annotations.get("workflows.argoproj.io/pod-name-format") != "v1":
        prefix = f"{name}-{node.get('templateName', '')}"[:_NAME_BYTES]
        identity = f"{prefix}-{identity.rpartition('-')[2]}"
    broken = node.get("phase") in BROKEN
    return Pod(
        step,
        identity,
        str(node.get("phase", "")),
        str(node.get("message") or ""),
        str(node.get("startedAt") or ""),
        driver,
        str(node.get("finishedAt") or ""),
        _task(node),
        group,
        _why_last(node, workflow["status"]["nodes"]) if broken else "",
    )
