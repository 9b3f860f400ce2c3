"""Schedules that reconcile: never none, never two that fire, wherever it is interrupted."""

import itertools
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.support.http_server import Handler
from tests.support.kubernetes import api_server

from graftline.errors import ClusterError
from graftline_pipelines.cluster.scheduling import reconcile, schedules
from graftline_pipelines.cluster.scheduling.orphans import Orphan
from graftline_pipelines.cluster.server import Version, connect
from graftline_pipelines.runfile.cron import next_times, parse

Run = Callable[..., Any]
NIGHTLY = "0 30 2 * * *"
SERVICE = "/apis/v2beta1/recurringruns"


@pytest.fixture(autouse=True)
def _far_from_any_firing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests at 02:30 would wait, as they should."""
    monkeypatch.setattr(reconcile, "GUARD", timedelta(0))
    monkeypatch.setattr(reconcile, "SETTLE_SECONDS", 0)


def apply(graftline: Run, *arguments: object) -> Any:
    done = graftline("schedule", "apply", *arguments, "--no-registry", "--json")
    assert done.code == 0, done.err
    return done.json


def firing(kfp: Any) -> list[dict[str, Any]]:
    return [one for one in kfp.table("recurringruns") if one["mode"] == "ENABLE"]


def test_create_then_leave_alone(kfp: Any, graftline: Run, run_file: Callable[..., Path]) -> None:
    made = apply(graftline, run_file())
    assert made["action"] == "create" and made["fires"]
    (one,) = kfp.table("recurringruns")
    assert one["trigger"] == {"cron_schedule": {"cron": NIGHTLY}}
    assert one["max_concurrency"] == "1" and one["no_catchup"] and one["mode"] == "ENABLE"
    assert one["pipeline_version_reference"]["pipeline_version_id"], "pinned to a version"
    assert kfp.table("pipelines")[0]["name"] == "flowers-retrain"
    before = len(kfp.requests("POST"))
    again = apply(graftline, run_file())
    assert again["action"] == "leave" and again["schedule_id"] == made["schedule_id"]
    assert len(kfp.requests("POST")) == before, "nothing was sent"


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("schedule.cron=0 0 4 * * *", "cron: 0 30 2 * * * -> 0 0 4 * * *"),
        ("seed=7", "version: "),
        ("schedule.pipeline=train", "pipeline: flowers-retrain -> flowers"),
        ("cluster.service_account=robot", "service_account: None -> robot"),
        ("tracking.experiment=other", "experiment: flowers -> other"),
    ],
)
def test_a_change_replaces_it(
    kfp: Any, graftline: Run, run_file: Callable[..., Path], setting: str, said: str
) -> None:
    old = apply(graftline, run_file())
    shown = graftline(
        "schedule", "apply", run_file(), "--set", setting, "--dry-run", "--no-registry"
    )
    assert said in shown.out and "(dry run: nothing is changed)" in shown.out
    assert [one["recurring_run_id"] for one in kfp.table("recurringruns")] == [old["schedule_id"]]
    new = apply(graftline, run_file(), "--set", setting)
    assert new["action"] == "replace" and any(said in reason for reason in new["reasons"])
    (one,) = kfp.table("recurringruns")
    assert one["recurring_run_id"] == new["schedule_id"] != old["schedule_id"]
    assert one["mode"] == "ENABLE"
    assert apply(graftline, run_file(), "--set", setting)["action"] == "leave"


def test_dry_run_sends_nothing(kfp: Any, graftline: Run, run_file: Callable[..., Path]) -> None:
    shown = apply(graftline, run_file(), "--dry-run")
    assert shown["action"] == "create" and shown["dry_run"] and shown["schedule_id"] is None
    assert not kfp.requests("POST") and not kfp.table("pipelines")


def test_a_replacement_is_made_before_the_old_one_goes(
    kfp: Any, graftline: Run, run_file: Callable[..., Path]
) -> None:
    old = apply(graftline, run_file())["schedule_id"]
    start = len(kfp.requests())
    new = apply(graftline, run_file(), "--set", "schedule.cron=0 0 4 * * *")["schedule_id"]
    sent = [line.partition("?")[0] for line in kfp.requests()[start:] if SERVICE in line]
    changes = [line for line in sent if not line.startswith("GET")]
    assert changes == [
        f"POST {SERVICE}",
        f"POST {SERVICE}/{old}:disable",
        f"POST {SERVICE}/{new}:enable",
        f"DELETE {SERVICE}/{old}",
    ]


def test_a_run_that_is_going_outlives_its_schedule(
    kfp: Any, graftline: Run, run_file: Callable[..., Path]
) -> None:
    """Kubernetes deletes a schedule's workflows with it, unless told not to."""
    apply(graftline, run_file())
    (run,) = kfp.control("fire", now=tomorrow())
    done = graftline("schedule", "apply", run_file(), "--set", "seed=3", "--no-registry")
    assert run["run_id"] in done.out and "goes on" in done.out
    assert kfp.control("killed") == []
    graftline("schedule", "remove", "flowers")
    assert kfp.control("killed") == []


def tomorrow(hour: int = 12) -> str:
    return (datetime.now(UTC) + timedelta(days=1)).replace(hour=hour).isoformat()


# --- interrupted anywhere -----------------------------------------------------------------------


@pytest.mark.parametrize("how", ["refused", "answer lost", "killed"])
@pytest.mark.parametrize("step", range(4))
def test_interrupted_at_each_step_and_repaired_by_the_next_apply(
    kfp: Any,
    graftline: Run,
    run_file: Callable[..., Path],
    step: int,
    how: str,
) -> None:
    old = apply(graftline, run_file())["schedule_id"]
    changed = ("--set", "schedule.cron=0 0 4 * * *")
    with pytest.MonkeyPatch.context() as patch:
        interrupt(kfp, patch, step, how, old)
        done = graftline("schedule", "apply", run_file(), *changed, "--no-registry")
    # A client that asks again, and finds it gone, is content.
    assert (done.code != 0) == ((step, how) != (3, "answer lost")), "it must be seen"
    kfp.control("settings", fail={}, fail_after={})
    left = kfp.table("recurringruns")
    assert 1 <= len(left) <= 2, "never none"
    assert len(firing(kfp)) <= 1, "never two that fire"
    if how == "refused":
        assert len(firing(kfp)) == 1, "what was switched off is switched on again"
    repaired = apply(graftline, run_file(), *changed)
    assert repaired["action"] in ("finish", "replace", "leave")
    (one,) = kfp.table("recurringruns")
    assert one["mode"] == "ENABLE"
    assert one["trigger"]["cron_schedule"]["cron"] == "0 0 4 * * *"
    assert apply(graftline, run_file(), *changed)["action"] == "leave"


def interrupt(kfp: Any, patch: pytest.MonkeyPatch, step: int, how: str, old: str) -> None:
    """Let one step of the replacement fail: by the server, on the way back, or by a kill."""
    names = ["_make", "_switch", "_switch", "remove"]
    if how == "killed":
        method = getattr(reconcile.Reconciler, names[step])
        calls = itertools.count(1)
        last = 2 if step == 2 else 1  # the second switch is the third step

        def killed(self: Any, *arguments: Any, **named: Any) -> Any:
            if next(calls) == last:
                patch.setattr(reconcile.Reconciler, "_undo", lambda *a: None)
                raise KeyboardInterrupt
            return method(self, *arguments, **named)

        patch.setattr(reconcile.Reconciler, names[step], killed)
        return
    fault = 500 if how == "refused" else "drop"
    if step == 3:
        kfp.control("settings", fail={f"DELETE {SERVICE}/{old}": fault})
    else:
        kfp.control("settings", fail_after={f"POST {SERVICE}": [step, fault]})


def test_two_that_apply_at_once_leave_one(
    kfp: Any, graftline: Run, run_file: Callable[..., Path]
) -> None:
    """Both saw none and made one; the next apply keeps one."""
    apply(graftline, run_file())
    (one,) = kfp.table("recurringruns")
    server = connect(kfp.url)
    (there,) = schedules.existing(server, "flowers")
    reference = one["pipeline_version_reference"]
    reconcile.Reconciler(server, print)._make(
        on=True,
        display_name="flowers",
        description=there.raw.description,
        experiment_id=there.raw.experiment_id,
        cron=NIGHTLY,
        pipeline_id=reference["pipeline_id"],
        version_id=reference["pipeline_version_id"],
        service_account=None,
    )
    assert len(firing(kfp)) == 2
    listed = graftline("schedule", "list")
    assert "replacement interrupted: apply again" in listed.out
    assert graftline("schedule", "run-now", "flowers").code == 1
    assert apply(graftline, run_file())["action"] == "finish"
    assert len(kfp.table("recurringruns")) == len(firing(kfp)) == 1


# --- around the moment at which it fires --------------------------------------------------------


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self, now: datetime) -> None:
        self.now = now
        self.slept: list[float] = []

    def __call__(self) -> datetime:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("before", "waits"), [(3600, False), (40, False), (20, True), (0, True), (-10, True)]
)
def test_no_switching_while_it_may_fire(
    kfp: Any,
    graftline: Run,
    run_file: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    before: int,
    waits: bool,
) -> None:
    monkeypatch.setattr(reconcile, "GUARD", timedelta(seconds=30))
    monkeypatch.setattr(reconcile, "SETTLE_SECONDS", 15)
    apply(graftline, run_file())
    server = connect(kfp.url)
    there = schedules.existing(server, "flowers")
    (fires,) = next_times(parse(NIGHTLY), 1)
    clock = Clock(fires - timedelta(seconds=before))
    wish = schedules.Desired(**{**vars(wanted_of(there[0])), "cron": "0 0 12 * * *"})
    plan = schedules.plan(wish, there, there[0].version_id)
    version = Version(there[0].pipeline_id, there[0].version_id, "v", uploaded=False)
    said: list[str] = []
    reconcile.Reconciler(server, said.append, clock.sleep, clock).apply(plan, wish, version)
    assert bool(clock.slept) == waits
    assert clock.now >= fires + timedelta(seconds=15) or not waits
    assert len(kfp.table("recurringruns")) == len(firing(kfp)) == 1


def wanted_of(one: schedules.Existing) -> schedules.Desired:
    content = dict(one.content)
    return schedules.Desired(name=one.name, time_zone=one.time_zone, **content)


def test_every_night_has_one_run_whenever_it_is_replaced(
    kfp: Any, graftline: Run, run_file: Callable[..., Path]
) -> None:
    """Ten nights; before each one the schedule is changed, paused and resumed, or left."""
    apply(graftline, run_file())
    day = datetime.now(UTC).replace(hour=2, minute=31) + timedelta(days=1)
    for night in range(6):
        if night % 3 == 1:
            apply(graftline, run_file(), "--set", f"seed={night}")
        if night % 3 == 2:
            apply(graftline, run_file(), "--recreate", "--set", f"seed={night - 1}")
        kfp.control("fire", now=(day + timedelta(days=night)).isoformat())
        runs = kfp.table("runs")
        assert len(runs) == night + 1
        kfp.control("run", run_id=runs[-1]["run_id"], state="SUCCEEDED")


# --- pause, resume, remove, run-now -------------------------------------------------------------


def test_pause_is_kept_by_apply(kfp: Any, graftline: Run, run_file: Callable[..., Path]) -> None:
    apply(graftline, run_file())
    assert "is paused" in graftline("schedule", "pause", "flowers").out
    assert firing(kfp) == [] and kfp.control("fire", now=tomorrow()) == []
    assert apply(graftline, run_file())["action"] == "leave"
    changed = apply(graftline, run_file(), "--set", "seed=5")
    assert changed["action"] == "replace" and not changed["fires"] and firing(kfp) == []
    said = graftline("schedule", "apply", run_file(), "--set", "seed=5", "--no-registry")
    assert "it is paused" in said.out
    resumed = graftline("schedule", "resume", run_file())
    assert "fires again, next at" in resumed.out and len(firing(kfp)) == 1


def test_resume_makes_up_for_nothing(
    kfp: Any, graftline: Run, run_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    apply(graftline, run_file())
    graftline("schedule", "pause", "flowers")
    server = connect(kfp.url)
    (one,) = schedules.existing(server, "flowers")
    clock = Clock(datetime.now(UTC) + timedelta(days=3))
    reconcile.Reconciler(server, print, clock.sleep, clock).resume(one)
    (left,) = kfp.table("recurringruns")
    assert left["recurring_run_id"] != one.schedule_id and left["mode"] == "ENABLE"
    # For the server, no time has passed since the new one was made, so nothing is due.
    assert kfp.control("fire", now=datetime.now(UTC).isoformat()) == []
    assert apply(graftline, run_file())["action"] == "leave"


def test_switched_off_in_the_run_file(
    kfp: Any, graftline: Run, run_file: Callable[..., Path]
) -> None:
    schedule = {"cron": NIGHTLY, "enabled": False}
    made = apply(graftline, run_file(schedule=schedule))
    assert not made["fires"] and firing(kfp) == []
    assert "switched off in the run file" in graftline("schedule", "list").out
    assert apply(graftline, run_file(schedule=schedule))["action"] == "leave"
    on = apply(graftline, run_file())
    assert on["action"] == "replace" and on["fires"]
    assert len(kfp.table("recurringruns")) == len(firing(kfp)) == 1
    graftline("schedule", "pause", "flowers")
    assert not apply(graftline, run_file(schedule=schedule))["fires"]


def test_list_shows_ours_only(kfp: Any, graftline: Run, run_file: Callable[..., Path]) -> None:
    assert "No schedules." in graftline("schedule", "list").out
    apply(graftline, run_file())
    apply(graftline, run_file(name="cars", schedule={"cron": "0 0 6 * * MON"}))
    server = connect(kfp.url)
    somebody = schedules.existing(server)[0]
    reconcile.Reconciler(server, print)._make(
        on=True,
        display_name="flowers",
        description="made in the UI",
        experiment_id=somebody.raw.experiment_id,
        cron=NIGHTLY,
        pipeline_id=somebody.pipeline_id,
        version_id=somebody.version_id,
        service_account=None,
    )
    rows = graftline("schedule", "list", "--json").json
    assert sorted(row["name"] for row in rows) == ["cars", "flowers"]
    assert all(row["state"] == "fires" for row in rows)
    graftline("schedule", "remove", "flowers")
    assert len(kfp.table("recurringruns")) == 2, "somebody else's stays"


def test_remove(kfp: Any, graftline: Run, run_file: Callable[..., Path]) -> None:
    apply(graftline, run_file())
    assert "flowers is removed" in graftline("schedule", "remove", "flowers").out
    assert kfp.table("recurringruns") == [] and kfp.table("pipelines")
    for command in ("remove", "pause", "resume", "run-now"):
        said = graftline("schedule", command, "flowers")
        assert said.code == 1 and "There is no schedule 'flowers'" in said.err


def test_run_now_is_what_the_schedule_would_start(
    kfp: Any, graftline: Run, run_file: Callable[..., Path]
) -> None:
    apply(graftline, run_file(cluster={"service_account": "robot"}))
    started = graftline("schedule", "run-now", "flowers", "--json")
    assert started.code == 0, started.err
    (scheduled,) = kfp.control("fire", now=tomorrow())
    (by_hand,) = [run for run in kfp.table("runs") if run["run_id"] == started.json["run_id"]]
    for key in ("experiment_id", "pipeline_version_reference", "service_account"):
        assert by_hand[key] == scheduled[key]


# --- what can be wrong --------------------------------------------------------------------------


def test_a_version_that_was_deleted_is_uploaded_again(
    kfp: Any, graftline: Run, run_file: Callable[..., Path]
) -> None:
    apply(graftline, run_file())
    kfp.control("delete", kind="versions", id=kfp.table("versions")[0]["pipeline_version_id"])
    assert "its pipeline version was deleted: apply again" in graftline("schedule", "list").out
    said = graftline("schedule", "run-now", "flowers")
    assert said.code == 1 and "was deleted from the server" in said.err
    again = apply(graftline, run_file())
    assert again["action"] == "replace"
    assert again["reasons"] == ["its pipeline version was deleted from the server"]
    assert graftline("schedule", "run-now", "flowers").code == 0


def test_a_pipeline_that_was_deleted_is_made_again(
    kfp: Any, graftline: Run, run_file: Callable[..., Path]
) -> None:
    apply(graftline, run_file())
    kfp.control("delete", kind="pipelines", id=kfp.table("pipelines")[0]["pipeline_id"])
    assert apply(graftline, run_file())["action"] == "replace"
    assert len(kfp.table("recurringruns")) == len(firing(kfp)) == 1


def test_recreate_replaces_an_equal_one(
    kfp: Any, graftline: Run, run_file: Callable[..., Path]
) -> None:
    first = apply(graftline, run_file())
    second = apply(graftline, run_file(), "--recreate")
    assert second["action"] == "replace" and second["reasons"] == ["it is made again, as asked"]
    assert second["schedule_id"] != first["schedule_id"]
    assert len(kfp.table("recurringruns")) == len(firing(kfp)) == 1


@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        ({}, "schedule.cron is missing"),
        ({"cron": "30 2 * * *"}, "has five fields"),
        ({"cron": "30 2 * * *"}, "Write the second in front: '0 30 2 * * *'.\n"),
        ({"cron": "0 0 0 30 2 *"}, "never fires"),
        ({"cron": NIGHTLY, "time_zone": "Mars/Olympus"}, "is not a time zone"),
        ({"cron": "* * * * * *"}, "more often than once a minute"),
    ],
)
def test_a_wrong_schedule_is_refused_before_anything_is_sent(
    kfp: Any, graftline: Run, run_file: Callable[..., Path], schedule: Any, said: str
) -> None:
    done = graftline("schedule", "apply", run_file(schedule=schedule), "--no-registry")
    assert done.code == 2 and said in done.err
    assert not kfp.requests("POST")


def test_the_time_zone_is_stated(kfp: Any, graftline: Run, run_file: Callable[..., Path]) -> None:
    schedule = {"cron": NIGHTLY, "time_zone": "Asia/Tokyo"}
    done = graftline("schedule", "apply", run_file(schedule=schedule), "--no-registry")
    assert f"{NIGHTLY} in Asia/Tokyo" in done.out and "17:30" in done.out and "UTC" in done.out
    (row,) = graftline("schedule", "list", "--json").json
    assert row["time_zone"] == "Asia/Tokyo" and row["next"].endswith("17:30:00+00:00")
    kfp.control("settings", time_zone="Asia/Tokyo")
    (run,) = kfp.control("fire", now=tomorrow(hour=23))
    assert run["scheduled_at"].endswith("17:30:00Z")


def test_many_schedules_over_several_pages(
    kfp: Any, graftline: Run, run_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from graftline_pipelines.cluster import server as cluster

    monkeypatch.setattr(cluster, "PAGE", 1)
    for number in range(3):
        apply(graftline, run_file(name=f"flowers-{number}"))
    assert len(graftline("schedule", "list", "--json").json) == 3


def test_a_description_that_somebody_edited_is_not_ours(kfp: Any, graftline: Run) -> None:
    class Item:
        description = f"{schedules.MARK}{{not json"

    assert schedules._existing(Item()) is None


def test_the_state_of_a_plan_is_json(
    kfp: Any, graftline: Run, run_file: Callable[..., Path]
) -> None:
    made = graftline("schedule", "apply", run_file(), "--no-registry", "--json")
    assert json.loads(made.out)["time_zone"] == "UTC"


def test_the_one_needs_one() -> None:
    with pytest.raises(ClusterError, match="There is no schedule"):
        schedules.the_one([], "flowers")


# --- schedules that Kubernetes has and KFP does not -----------------------------------------------

OBJECTS = "/apis/kubeflow.org/v1beta1/namespaces/kubeflow/scheduledworkflows"


def scheduled_workflow(uid: str, name: str, pipeline_id: str, **spec: Any) -> dict[str, Any]:
    """As KFP 2.17 makes it (apiserver/template/v2_template.go)."""
    prefix = name[:25]
    return {
        "apiVersion": "kubeflow.org/v1beta1",
        "kind": "ScheduledWorkflow",
        "metadata": {
            "name": f"{prefix}{uid[:5]}",
            "generateName": prefix,
            "namespace": "kubeflow",
            "uid": uid,
        },
        "spec": {
            "enabled": True,
            "trigger": {"cronSchedule": {"cron": NIGHTLY}},
            "pipelineId": pipeline_id,
            **spec,
        },
    }


@pytest.fixture
def kube(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """The objects of an API server that knows scheduled workflows."""
    objects: list[dict[str, Any]] = []

    class ScheduledWorkflows(Handler):
        def do_GET(self) -> None:
            known = self.path.partition("?")[0] == OBJECTS
            self.answer(200 if known else 404, {"kind": "List", "items": objects})

        def do_DELETE(self) -> None:
            assert self.read_json()["propagationPolicy"] == "Orphan", (
                "else a run that has started is deleted too"
            )
            name = self.path.rpartition("/")[2].partition("?")[0]
            left = [one for one in objects if one["metadata"]["name"] != name]
            found = len(left) < len(objects)
            objects[:] = left
            self.answer(200 if found else 404, {"kind": "Status"})

    monkeypatch.setattr("graftline_pipelines.cluster.nodes.read_nodes", lambda context: [])
    monkeypatch.setattr("graftline_pipelines.cluster.nodes.pool_problems", lambda *_: [])
    with api_server(ScheduledWorkflows, tmp_path):
        yield objects


@pytest.fixture
def lost(
    kfp: Any, graftline: Run, run_file: Callable[..., Path], kube: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """A schedule that KFP knows, one that it has lost, and two of somebody else's."""
    apply(graftline, run_file())
    apply(graftline, run_file(name="cars"))
    pipelines = {one["name"]: one["pipeline_id"] for one in kfp.table("pipelines")}
    ids = {one["display_name"]: one["recurring_run_id"] for one in kfp.table("recurringruns")}
    flowers, cars = pipelines["flowers-retrain"], pipelines["cars-retrain"]
    ours = {"workflow": {"spec": "image: r.example.com/ml/graftline-cpu:0.1.0"}}
    kube += [
        scheduled_workflow(ids["flowers"], "flowers", flowers, **ours),
        scheduled_workflow(ids["cars"], "cars", cars, **ours),
        scheduled_workflow("0a1b2c3d-lost", "flowers", flowers, **ours),
        scheduled_workflow("9f8e7d6c-others", "flowers", "", workflow={"spec": "image: other"}),
    ]
    return kube


def names_of(kube: list[dict[str, Any]]) -> set[str]:
    return {one["metadata"]["uid"] for one in kube}


def test_list_shows_what_fires_though_kfp_has_lost_it(lost: list[Any], graftline: Run) -> None:
    assert len(graftline("schedule", "list", "--json").json) == 2, "without Kubernetes at hand"
    listed = graftline("schedule", "list", "--kube-context", "mine", "--json")
    assert listed.code == 0, listed.err
    (orphan,) = [row for row in listed.json if "object" in row]
    assert orphan["name"] == "flowers" and orphan["object"] == "flowers0a1b2"
    assert "lost by KFP, fires" in orphan["state"]
    assert "--delete-orphans" in listed.err and len(lost) == 4
    graftline("schedule", "list", "--kube-context", "mine", "--delete-orphans")
    assert "0a1b2c3d-lost" not in names_of(lost) and len(lost) == 3


def test_apply_names_it_and_deletes_it_only_if_told(
    lost: list[Any], graftline: Run, run_file: Callable[..., Path]
) -> None:
    options = ("--no-registry", "--kube-context", "mine")
    said = graftline("schedule", "apply", run_file(name="cars"), *options)
    assert said.code == 0 and "flowers0a1b2" not in said.out
    said = graftline("schedule", "apply", run_file(), *options)
    assert said.code == 0 and "flowers0a1b2 in kubeflow fires" in said.out and len(lost) == 4
    said = graftline("schedule", "apply", run_file(), *options, "--delete-orphans")
    assert "flowers0a1b2 is deleted" in said.out and len(lost) == 3


def test_remove_removes_it_too(lost: list[Any], kfp: Any, graftline: Run) -> None:
    said = graftline("schedule", "remove", "flowers", "--kube-context", "mine")
    assert said.code == 0 and "flowers0a1b2 is deleted" in said.err
    assert "0a1b2c3d-lost" not in names_of(lost) and "9f8e7d6c-others" in names_of(lost)
    assert [one["display_name"] for one in kfp.table("recurringruns")] == ["cars"]


def test_remove_where_kfp_knows_nothing_of_it(lost: list[Any], kfp: Any, graftline: Run) -> None:
    graftline("schedule", "remove", "flowers")
    lost[:] = [one for one in lost if one["metadata"]["uid"] == "0a1b2c3d-lost"]
    assert graftline("schedule", "remove", "flowers").code == 1
    assert graftline("schedule", "remove", "flowers", "--kube-context", "mine").code == 0
    assert lost == []
    again = graftline("schedule", "remove", "flowers", "--kube-context", "mine")
    assert again.code == 1 and "There is no schedule 'flowers'" in again.err


def test_no_schedule_is_taken_for_anothers() -> None:
    """'cars' retrains in 'cars-retrain', and another run file may bear just that name."""
    nightly = Orphan("carsab12c", "kubeflow", "cars", "cars-retrain", NIGHTLY, True)
    trains = Orphan("cars-retrainab12c", "kubeflow", "cars-retrain", "cars-retrain", NIGHTLY, True)
    assert nightly.schedule == "cars" and trains.schedule == "cars-retrain"
    assert nightly.belongs_to("cars") and not nightly.belongs_to("cars-retrain")
    assert trains.belongs_to("cars-retrain") and not trains.belongs_to("cars")
    deleted = Orphan("flowers-of-the-alpine-meaab12c", "kubeflow", None, None, NIGHTLY, True)
    assert deleted.belongs_to("flowers-of-the-alpine-meadows")
