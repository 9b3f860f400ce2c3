"""What happens behind the API server: Argo's nodes of a run, and the controller of schedules.

After ``backend/src/crd/controller/scheduledworkflow``, ``backend/src/v2/compiler/argocompiler`` and
``backend/src/common/util/workflow.go`` of KFP 2.17.0, and Argo Workflows 4.0.
"""

import json
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from graftline_pipelines.runfile.cron import parse

# What the API server makes of Argo's phases; it knows no other and says so.
STATES = {
    "Pending": "PENDING",
    "Running": "RUNNING",
    "Succeeded": "SUCCEEDED",
    "Skipped": "SKIPPED",
    "Failed": "FAILED",
    "Error": "FAILED",
}
NEVER = "0001-01-01T00:00:00Z"  # Go's time when there is none


def fnv(text: str) -> int:
    """FNV-1a of 32 bits, of which Argo and KFP make the ends of names."""
    value = 2166136261
    for byte in text.encode():
        value = (value ^ byte) * 16777619 % 2**32
    return value


def after(moment: str | None, tries: int) -> str:
    """When a later try starts: half a minute after the one before."""
    first = datetime.fromisoformat(moment or "2026-03-01T12:00:00Z")
    return stamp(first + timedelta(seconds=30 * tries))


def nodes_of(workflow: str, steps: list[dict]) -> dict[str, dict]:
    """Argo's nodes for steps, as KFP compiles them.

    Args:
        workflow: The workflow's name.
        steps: For each its ``step`` and ``phase``; ``pod`` is the phase of its pod where that is
            another, ``message`` the pod's, ``driver`` the phase of the driver. ``tries`` counts
            tries, 0 for a step without a retry policy; ``labels`` the pod's labels.
    """
    nodes: dict[str, dict] = {}

    def add(name: str, shown: str, kind: str, template: str, phase: str, **rest: object) -> str:
        key = f"{workflow}-{fnv(name)}"
        nodes[key] = {
            "id": key,
            "name": name,
            "displayName": shown,
            "type": kind,
            "templateName": template,
            "phase": phase,
            "startedAt": rest.pop("started", "2026-03-01T12:00:00Z"),
            "finishedAt": rest.pop("finished", None),
            **rest,
        }
        return key

    for step in steps:
        shown, phase = step["step"].replace("_", "-"), step["phase"]
        shown += step.get("suffix", "")
        times = {key: step[key] for key in ("started", "finished") if key in step}
        name = f"{workflow}.root.{shown}"
        driver = step.get("driver", "Succeeded")
        add(
            f"{name}-driver",
            f"{shown}-driver",
            "Pod",
            "system-container-driver",
            driver,
            **times,
            **({"message": step["message"]} if driver in ("Failed", "Error") else {}),
        )
        tries = step.get("tries", 1)
        prefix = f"metadata-0-{step.get('labels', 2)}-" + ("retry-" if tries else "")
        impl = f"{prefix}system-container-impl"
        add(name, shown, "DAG", f"{prefix}system-container-executor", phase, **times)
        if phase in ("Skipped", "Omitted"):
            continue
        pod = {"message": step.get("message", ""), **times}
        inner = f"{name}.executor"
        last = step.get("pod", phase)
        if tries == 0:
            nodes[f"{workflow}-{fnv(name)}"]["children"] = [
                add(inner, "executor", "Pod", impl, last, **pod)
            ]
            continue
        pods = [
            add(
                f"{inner}({number})",
                f"executor({number})",
                "Pod",
                impl,
                last if number == tries - 1 else "Failed",
                **{**pod, "started": after(pod.get("started"), number)},
            )
            for number in range(tries)
        ]
        retry = add(inner, "executor", "Retry", impl, phase, **times, children=pods)
        nodes[f"{workflow}-{fnv(name)}"]["children"] = [retry]
    return nodes


def task_details(run_id: str, nodes: dict[str, dict]) -> list[dict]:
    """Nodes as the v2beta1 API reports them: no message, no pod's name, children by node id."""
    return [
        {
            "run_id": run_id,
            "task_id": str(fnv(run_id + key)),
            "display_name": node["displayName"],
            "create_time": node["startedAt"],
            "start_time": node["startedAt"],
            "end_time": node["finishedAt"] or NEVER,
            "state": STATES.get(node["phase"], "RUNTIME_STATE_UNSPECIFIED"),
            "child_tasks": [{"pod_name": child} for child in node.get("children", [])],
        }
        for key, node in sorted(nodes.items())
    ]


def pod_name(workflow: str, node: dict) -> str:
    return f"{workflow}-{node['templateName']}-{node['id'].rpartition('-')[2]}"


def manifest(workflow: str, nodes: dict[str, dict]) -> str:
    """The workflow as the v1beta1 API hands it out with a run."""
    return json.dumps(
        {
            "metadata": {
                "name": workflow,
                "annotations": {"workflows.argoproj.io/pod-name-format": "v2"},
            },
            "status": {"nodes": nodes},
        }
    )


def due(schedule: dict, now: datetime, zone: str, active: int) -> datetime | None:
    """The time for which the controller starts a run now, or None.

    It counts from the last time that it started one, else from the making of the schedule; with
    no catch-up, of all times that have passed it takes the last.
    """
    cron = parse(schedule["trigger"]["cron_schedule"]["cron"])
    base = datetime.fromisoformat(schedule["last_triggered"] or schedule["created_at"])
    times = cron.after(base, ZoneInfo(zone))
    following = next(times)
    if not schedule.get("no_catchup"):
        chosen = following
    else:
        chosen = following
        for moment in times:
            if moment > now:
                break
            chosen = moment
    if schedule["mode"] != "ENABLE" or active >= int(schedule["max_concurrency"]) or chosen > now:
        return None
    return chosen


def stamp(moment: datetime | None = None, later: int = 0) -> str:
    """A time as the server writes it: in whole seconds."""
    moment = (moment or datetime.now(UTC)) + timedelta(seconds=later)
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
