"""What is written into the server's text columns: MySQL takes 255 characters of each.

Recorded from KFP 2.17 on MySQL: "Error 1406 (22001): Data too long for column 'Description' at row
1", after the schedule's Kubernetes object had been made.
"""

import dataclasses
import json
from types import SimpleNamespace
from typing import Any
from zoneinfo import available_timezones

import pytest

from graftline_pipelines.cluster import errors
from graftline_pipelines.cluster.auth import Login
from graftline_pipelines.cluster.scheduling import schedules
from graftline_pipelines.cluster.scheduling.reconcile import Reconciler
from graftline_pipelines.cluster.scheduling.schedules import Desired, Existing, describe
from graftline_pipelines.cluster.server import Cluster, Version, column_text

COLUMN = 255
LONGEST = Desired(
    name="n" * 63,
    cron="0 0,1,2,3,4,5,6,7,8,9,10,11,12 1-31 1-12 MON-FRI *",
    time_zone="UTC",
    pipeline="n" * 63 + "-retrain",
    version="f" * 16,
    experiment="ü" * 128,
    service_account="a" * 253,
    enabled=False,
)


def item(desired: Desired, description: str) -> SimpleNamespace:
    """What the server lists."""
    return SimpleNamespace(
        recurring_run_id="id",
        display_name=desired.name,
        description=description,
        mode="ENABLE",
        created_at=None,
        experiment_id="experiment-id",
        service_account=desired.service_account or "default-editor",
        trigger=SimpleNamespace(cron_schedule=SimpleNamespace(cron=desired.cron)),
        pipeline_version_reference=SimpleNamespace(pipeline_id="p", pipeline_version_id="v"),
    )


def names(desired: Desired) -> Any:
    return SimpleNamespace(
        pipeline=lambda _: desired.pipeline, experiment=lambda _: desired.experiment
    )


def read(desired: Desired, description: str) -> Existing:
    found = schedules._existing(item(desired, description), names(desired))
    assert found is not None
    return found


@pytest.mark.parametrize("zone", [max(available_timezones(), key=len), "UTC"])
@pytest.mark.parametrize("fires", [True, False])
def test_a_mark_fits_whatever_the_run_file_says(zone: str, fires: bool) -> None:
    desired = dataclasses.replace(LONGEST, time_zone=zone)
    text = describe(desired, fires=fires)
    assert len(text) <= COLUMN
    back = read(desired, text)
    assert (back.digest, back.fires_finally, back.time_zone) == (desired.digest, fires, zone)
    assert back.content == desired.content, "what changed can still be told"


def test_the_account_that_the_server_fills_in_is_no_change() -> None:
    desired = dataclasses.replace(LONGEST, service_account=None)
    assert read(desired, describe(desired, fires=True)).content["service_account"] is None


def test_a_mark_of_an_older_version_is_read_and_shortened_when_it_is_copied() -> None:
    """SQLite and Postgres took long ones."""
    mark = {
        "digest": LONGEST.digest,
        "fires": True,
        "time_zone": "Europe/Berlin",
        "content": LONGEST.content,
    }
    old = read(LONGEST, f"Kept by us\n{schedules.MARK}{json.dumps(mark)}")
    assert old.content == LONGEST.content and len(old.raw.description) > COLUMN
    assert schedules.plan(LONGEST, [old], "v").action in ("leave", "replace", "finish")
    again = schedules.describe_again(old)
    assert len(again) <= COLUMN
    assert read(LONGEST, again).content == LONGEST.content
    assert read(LONGEST, again).digest == LONGEST.digest


@pytest.mark.parametrize("text", ["5", "[]", "null", '"a"'])
def test_a_mark_that_is_no_mapping_is_somebody_elses(text: str) -> None:
    assert schedules._existing(item(LONGEST, f"{schedules.MARK}{text}")) is None


@pytest.mark.parametrize("reason", ["r" * 1000, "ü" * 300, "\U0001f6a8" * 300, "short"])
def test_every_text_that_is_sent_fits_its_column(reason: str) -> None:
    sent: dict[str, Any] = {}

    def remember(**named: Any) -> Any:
        sent.update(named)
        return SimpleNamespace(run_id="r", pipeline_version_id="v", recurring_run_id="s")

    client = SimpleNamespace(
        _run_api=SimpleNamespace(run_service_create_run=remember),
        _recurring_run_api=SimpleNamespace(recurring_run_service_create_recurring_run=remember),
        upload_pipeline_version=remember,
        list_pipelines=lambda **_: SimpleNamespace(pipelines=[SimpleNamespace(pipeline_id="p")]),
        list_pipeline_versions=lambda **_: SimpleNamespace(pipeline_versions=[]),
    )
    server = Cluster("http://kfp", "team", "2.17.0", (), client, Login.from_environment())
    version = Version("p", "v", "f" * 16, uploaded=True)
    server.start(
        version,
        run_name="n" * 92,
        experiment_id="e",
        parameters={},
        service_account=None,
        description=f"Triggered by: {reason}",
    )
    run = sent.pop("run")
    assert len(run.description) <= COLUMN and len(run.display_name) <= 128
    assert run.description.startswith("Triggered by: ")
    assert max(map(ord, run.description)) <= 0xFFFF, "MySQL's utf8 has three bytes"
    server.ensure_version(SimpleNamespace(), "p", "v", f"graftline; images: {reason}")  # type: ignore[arg-type]
    assert len(sent.pop("description")) <= COLUMN
    Reconciler(server, print)._make(
        on=True,
        cron=LONGEST.cron,
        pipeline_id="p",
        version_id="v",
        display_name=LONGEST.name,
        description=describe(LONGEST, fires=True),
        experiment_id="e",
    )
    schedule = sent.pop("recurring_run")
    assert len(schedule.description) <= COLUMN and len(schedule.display_name) <= COLUMN


def test_a_text_that_fits_stays_as_it_is() -> None:
    assert column_text("ü" * 255) == "ü" * 255
    assert column_text("ü" * 256) == "ü" * 254 + "…"


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        (
            "Failed to create a recurring run: InternalServerError: Failed to store job digits to "
            "table: Error 1406 (22001): Data too long for column 'Description' at row 1",
            "graftline schedule remove NAME --kube-context",
        ),
        (
            "Failed to create a new run: Failed to create a run: InternalServerError: Failed to "
            "store run NAME to table: Error 1406 (22001): Data too long for column 'Description'",
            "kubectl -n NAMESPACE delete workflows.argoproj.io NAME",
        ),
    ],
)
def test_what_was_refused_and_runs_all_the_same_says_how_to_stop_it(text: str, fix: str) -> None:
    error = errors.translated("http://kfp", "the schedule 'digits'", 500, text)
    assert "all the same" in str(error.fix) and fix in str(error.fix)
