"""What happens behind the API server: Argo's nodes of a run, and the controller of schedules.

It imports nothing of Graftline's: what it answers is held against the recordings of a real server
(``tests/data/kfp-recorded``). After ``backend/src/crd/controller/scheduledworkflow``,
``backend/src/v2/compiler/argocompiler`` and ``backend/src/common/util/workflow.go`` of KFP 2.17.0,
and Argo Workflows 4.0.
"""

import itertools
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

# What the API server makes of Argo's phases; of any other it says nothing.
STATES = {
    "Pending": "PENDING",
    "Running": "RUNNING",
    "Succeeded": "SUCCEEDED",
    "Skipped": "SKIPPED",
    "Failed": "FAILED",
    "Error": "FAILED",
}
BROKEN = ("Failed", "Error")
DAYS = "sun mon tue wed thu fri sat"
MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec"
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


class Tree:
    """Argo's nodes of one workflow: a Retry node around every template, as KFP 2.17 compiles them.

    A node's id is made of its name; ``boundaryID`` is the DAG that holds it. ``children`` are what
    runs next as well, so that a step's pods lead on to the driver of the step after it.
    """

    def __init__(self, workflow: str) -> None:
        self.workflow = workflow
        self.nodes: dict[str, dict] = {}
        self.tail: str | None = None  # the node that what comes next hangs under

    def add(
        self, name: str, kind: str, template: str, phase: str, boundary: str = "", **rest: object
    ) -> str:
        key = self.workflow if name == self.workflow else f"{self.workflow}-{fnv(name)}"
        shown = name if name.partition("(")[0] == self.workflow and "." not in name else ""
        node = {
            "id": key,
            "name": name,
            "displayName": shown or _last(name),
            "type": kind,
            "templateName": template,
            "phase": phase,
            "startedAt": rest.pop("started", "2026-03-01T12:00:00Z"),
            "finishedAt": rest.pop("finished", None),
            **{key: value for key, value in rest.items() if value},
        }
        if boundary:
            node["boundaryID"] = boundary
        self.nodes[key] = node
        return key

    def chain(self, key: str) -> None:
        """Hang a node under the one before it."""
        if self.tail is not None:
            self.nodes[self.tail].setdefault("children", []).append(key)

    def group(self, name: str, template: str, phase: str, boundary: str = "") -> tuple[str, str]:
        """A Retry node with its one DAG: the DAG's id and name."""
        retry = self.add(name, "Retry", template, phase, boundary)
        self.chain(retry)
        inner = f"{name}(0)"
        dag = self.add(inner, "DAG", template, phase, boundary)
        self.nodes[retry]["children"] = [dag]
        self.tail = dag
        return dag, inner

    def tries(self, name: str, template: str, boundary: str, pods: list[dict], phase: str) -> None:
        """A Retry node with a pod for each try."""
        first = pods[0]
        times = {"started": first["started"], "finished": pods[-1].get("finished")}
        message = pods[-1].get("message", "") if phase in BROKEN else ""
        retry = self.add(name, "Retry", template, phase, boundary, message=message, **times)
        self.chain(retry)
        self.nodes[retry]["children"] = [
            self.add(f"{name}({number})", "Pod", template, boundary=boundary, **pod)
            for number, pod in enumerate(pods)
        ]
        self.tail = self.nodes[retry]["children"][-1]

    def driver(self, name: str, boundary: str, kind: str, pod: dict) -> None:
        self.tries(f"{name}-driver", f"system-{kind}-driver", boundary, [pod], pod["phase"])


def _last(name: str) -> str:
    """The display name: the last part of a node's name; an exit hook's keeps what it belongs to."""
    parts = name.split(".")
    return ".".join(parts[-2:]) if parts[-1].startswith("onExit") else parts[-1]


def nodes_of(workflow: str, steps: list[dict]) -> dict[str, dict]:
    """Argo's nodes for steps, as KFP compiles them.

    A graph with ``watch`` has the exit handler: ``notify`` is in its hook, what comes after
    ``watch`` in the condition. Without it the steps are in the root.

    Args:
        workflow: The workflow's name.
        steps: For each its ``step`` and ``phase``; ``pod`` is the phase of its pod where that is
            another, ``message`` the pod's, ``driver`` the phase of the driver. ``tries`` counts
            tries, 0 for a step without a retry policy; ``labels`` the pod's labels;
            ``messages`` and ``phases`` those of each try where they differ.
    """
    tree = Tree(workflow)
    whole = overall([step["phase"] for step in steps if step.get("driver") not in BROKEN])
    if any(step.get("driver") in BROKEN for step in steps):
        whole = "Failed"
    dag, name = tree.group(workflow, "entrypoint", whole)
    quick = {"started": "2026-03-01T12:00:00Z", "finished": "2026-03-01T12:00:05Z"}
    done = {"phase": "Succeeded", **quick}
    tree.driver(f"{name}.root", dag, "dag", done)
    root, name = tree.group(f"{name}.root", "root", whole, dag)
    handled = any(step["step"] == "watch" for step in steps)
    place, inside = root, name
    if handled:
        tree.driver(f"{name}.exit-handler-1", root, "dag", done)
        place, inside = tree.group(f"{name}.exit-handler-1", "comp-exit-handler-1", whole, root)
    for step in steps:
        if step["step"] == "notify" and handled:
            hook = f"{name}.exit-handler-1.onExit"
            boundary, path = tree.group(hook, "exit-hook-root-notify", step["phase"], root)
            _add_step(tree, path, boundary, step)
            continue
        _add_step(tree, inside, place, step)
        if step["step"] == "watch" and len([s for s in steps if s["step"] != "notify"]) > 1:
            tree.driver(f"{inside}.condition-2", place, "dag", done)
            place, inside = tree.group(f"{inside}.condition-2", "comp-condition-2", whole, place)
    return tree.nodes


def _add_step(tree: Tree, path: str, boundary: str, step: dict) -> None:
    shown, phase = step["step"].replace("_", "-") + step.get("suffix", ""), step["phase"]
    times = {
        "started": step.get("started", "2026-03-01T12:00:00Z"),
        "finished": step.get("finished"),
    }
    driver = step.get("driver", "Succeeded")
    own = {"message": step["message"]} if driver in BROKEN and "message" in step else {}
    tree.driver(f"{path}.{shown}", boundary, "container", {"phase": driver, **times, **own})
    tries = step.get("tries", 1)
    prefix = f"metadata-0-{step.get('labels', 2)}-" + ("retry-" if tries else "")
    template, impl = f"{prefix}system-container-executor", f"{prefix}system-container-impl"
    if phase in ("Skipped", "Omitted"):
        tree.chain(tree.add(f"{path}.{shown}", "Skipped", template, phase, boundary, **times))
        return
    retry = tree.add(f"{path}.{shown}", "Retry", template, phase, boundary, **times)
    tree.chain(retry)
    dag = tree.add(f"{path}.{shown}(0)", "DAG", template, phase, boundary, **times)
    tree.nodes[retry]["children"] = [dag]
    tree.tail = dag
    count = max(tries, 1)
    phases = step.get("phases") or ["Failed"] * (count - 1) + [step.get("pod", phase)]
    messages = step.get("messages") or [step.get("message", "")] * count
    pods = [
        {
            **times,
            "phase": phases[number],
            "message": messages[number],
            "started": after(times["started"], number),
        }
        for number in range(count)
    ]
    tree.tries(f"{path}.{shown}(0).executor", impl, dag, pods, phase)


def overall(phases: list[str]) -> str:
    """The phase of a group, of those of what it holds."""
    for phase in ("Running", "Pending"):
        if phase in phases:
            return "Running"
    return "Failed" if any(phase in BROKEN for phase in phases) else "Succeeded"


def task_details(run_id: str, nodes: dict[str, dict]) -> list[dict]:
    """Nodes as the v2beta1 API reports them: no message, no pod's name, children by node id.

    What Argo omitted has no state at all.
    """
    details = []
    for key, node in sorted(nodes.items()):
        detail = {
            "run_id": run_id,
            "task_id": str(fnv(run_id + key)),
            "display_name": node["displayName"],
            "create_time": node["startedAt"],
            "start_time": node["startedAt"],
            "end_time": node["finishedAt"] or NEVER,
            "child_tasks": [{"pod_name": child} for child in node.get("children", [])],
        }
        if node["phase"] in STATES:
            detail["state"] = STATES[node["phase"]]
        details.append(detail)
    return details


def pod_name(workflow: str, node: dict) -> str:
    return f"{workflow}-{node['templateName']}-{node['id'].rpartition('-')[2]}"


def manifest(workflow: str, nodes: dict[str, dict], shown: str = "", run_id: str = "") -> str:
    """The workflow as the v1beta1 API hands it out with a run; a scheduled one has no name."""
    annotations = {"workflows.argoproj.io/pod-name-format": "v2"}
    if shown:
        annotations["pipelines.kubeflow.org/run_name"] = shown
    return json.dumps(
        {
            "metadata": {
                "name": workflow,
                "labels": {"pipeline/runid": run_id},
                "annotations": annotations,
            },
            "status": {"nodes": nodes},
        }
    )


def final_state(nodes: dict[str, dict]) -> str:
    """The state of the exit handler's group that its hook is told: ML Metadata's, not Argo's.

    A launcher that lives to publish a failure makes it FAILED; one that was killed says nothing,
    and a condition that was not taken is the last word as RUNNING.
    """
    words = [node for node in nodes.values() if "exit-handler-1(0)." in node["name"]]
    if any(n["type"] == "Pod" and "exit code 1)" in n.get("message", "") for n in words):
        return "FAILED"
    groups = [n for n in words if n["templateName"].startswith("comp-condition")]
    silent = any(n["phase"] == "Skipped" for n in groups) or not groups
    broken = any(n["phase"] in BROKEN for n in words)
    return "RUNNING" if silent or broken else "COMPLETE"


def tried_again(
    phase: str, message: str, elapsed: float, *, policy: str = "OnError", longest: float = 3600.0
) -> tuple[bool, str]:
    """Whether Argo makes another try, and what it writes where it does not.

    Args:
        phase: Of the try that ended.
        message: Its message; only a policy with an expression reads it.
        elapsed: Seconds since the first try began.
        policy: ``OnError`` is KFP's: a deleted pod ends in Error, an exit code in Failed.
        longest: ``maxDuration``, a deadline from the first try's start.
    """
    if policy == "OnError" and phase != "Error":
        return False, ""
    if policy == "OnFailure" and phase != "Failed":
        return False, ""
    if elapsed > longest:
        return False, "Max duration limit exceeded"
    return True, ""


def cron_times(expression: str, start: datetime, zone: ZoneInfo) -> Iterator[datetime]:
    """The times at which an expression of six fields fires, by trying every second of every day
    that may fit: slow, and with nothing of the product's own reader in it.
    """
    names = {n: i for i, n in enumerate(DAYS.split())}
    names |= {n: i + 1 for i, n in enumerate(MONTHS.split())}
    limits = [(0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 6)]
    fields = expression.lower().split()

    def values(field: str, low: int, high: int) -> set[int]:
        found: set[int] = set()
        for part in field.split(","):
            span, _, step = part.partition("/")
            first, _, last = span.partition("-")
            if first in "*?":
                begin, end = low, high
            else:
                begin = int(names.get(first, first))
                end = int(names.get(last, last)) if last else (high if step else begin)
            found |= set(range(begin, end + 1, int(step or 1)))
        return found

    second, minute, hour, day, month, weekday = (
        values(field, *limit) for field, limit in zip(fields, limits, strict=True)
    )
    either = fields[3][0] not in "*?" and fields[5][0] not in "*?"
    date = start.astimezone(zone).date()
    for offset in range(5 * 366):
        today = date + timedelta(days=offset)
        by_date, by_weekday = today.day in day, today.isoweekday() % 7 in weekday
        if today.month not in month or not (
            (by_date or by_weekday) if either else (by_date and by_weekday)
        ):
            continue
        for h, m, s in itertools.product(sorted(hour), sorted(minute), sorted(second)):
            wall = datetime(today.year, today.month, today.day, h, m, s, tzinfo=zone)
            moment = wall.astimezone(UTC)
            if moment > start and moment.astimezone(zone).hour == h:
                yield moment


def due(schedule: dict, now: datetime, zone: str, active: int) -> datetime | None:
    """The time for which the controller starts a run now, or None.

    It counts from the last time that it started one, else from the making of the schedule; with
    no catch-up, of all times that have passed it takes the last.
    """
    cron = schedule["trigger"]["cron_schedule"]["cron"]
    base = datetime.fromisoformat(schedule["last_triggered"] or schedule["created_at"])
    times = cron_times(cron, base, ZoneInfo(zone))
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
