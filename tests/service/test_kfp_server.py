"""The test server against the real client: the rules of the API server of KFP 2.17."""

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kfp_server_api as api
import pytest
import yaml

pytestmark = pytest.mark.filterwarnings("ignore:This client only works:FutureWarning")
SPEC: dict[str, Any] = {
    "pipelineInfo": {"name": "hello"},
    "schemaVersion": "2.1.0",
    "root": {
        "dag": {"tasks": {}},
        "inputDefinitions": {
            "parameters": {
                "source": {"parameterType": "STRING"},
                "count": {"parameterType": "NUMBER_INTEGER", "defaultValue": 3},
            }
        },
    },
}


@pytest.fixture
def client(kfp: Any) -> Any:
    import kfp as sdk

    return sdk.Client(host=kfp.url, namespace="default")


@pytest.fixture
def package(tmp_path: Path) -> Callable[..., str]:
    def write(**changes: Any) -> str:
        path = tmp_path / "hello.yaml"
        path.write_text(yaml.safe_dump({**SPEC, **changes}))
        return str(path)

    return write


@pytest.fixture
def version(client: Any, package: Callable[..., str]) -> Any:
    client.upload_pipeline(package(), pipeline_name="hello")
    pipeline = client.get_pipeline_id("hello")
    return client.upload_pipeline_version(package(), "v1", pipeline_id=pipeline)


def refused(call: Callable[..., Any], *arguments: Any, **named: Any) -> tuple[int, str]:
    with pytest.raises(api.ApiException) as caught:
        call(*arguments, **named)
    body = json.loads(caught.value.body)
    return caught.value.status, body.get("message") or body["error_message"]


def run_body(version: Any, **changes: Any) -> dict[str, Any]:
    body = {
        "display_name": "a run",
        "pipeline_version_reference": {
            "pipeline_id": version.pipeline_id,
            "pipeline_version_id": version.pipeline_version_id,
        },
        "runtime_config": {"parameters": {"source": "s3://bucket"}},
    }
    return {**body, **changes}


def test_upload_list_and_read_back(client: Any, version: Any) -> None:
    pipeline = client.get_pipeline(version.pipeline_id)
    assert (pipeline.name, pipeline.display_name) == ("hello", "hello")
    versions = client.list_pipeline_versions(pipeline_id=version.pipeline_id).pipeline_versions
    assert {one.display_name for one in versions} == {"hello", "v1"}
    assert versions[0].pipeline_spec["pipelineInfo"]["name"] == "hello"
    assert versions[0].created_at.microsecond == 0, "the database keeps whole seconds"


def test_a_taken_name_is_a_conflict(client: Any, version: Any, package: Callable[..., str]) -> None:
    taken = refused(client.upload_pipeline, package(), pipeline_name="hello")
    assert taken == (409, "Failed to create a pipeline and a pipeline version")
    again = refused(
        client.upload_pipeline_version, package(), "v1", pipeline_id=version.pipeline_id
    )
    assert again == (409, "Failed to create a pipeline version")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schemaVersion": "2.0.0"}, "only supports schema version 2.1.0"),
        ({"pipelineInfo": {"name": "Hello World"}}, "must contain only lowercase"),
        ({"pipelineInfo": {"name": "-x"}}, "must start with alphanumeric"),
        ({"pipelineInfo": {"name": "x" * 129}}, "no more than 128"),
        ({"root": None}, "root component is empty"),
    ],
)
def test_uploads_are_checked(
    client: Any, package: Callable[..., str], changes: dict[str, Any], said: str
) -> None:
    status, message = refused(client.upload_pipeline, package(**changes), pipeline_name="other")
    assert status == 400 and said in message


def test_upload_to_no_pipeline_says_nothing(client: Any, package: Callable[..., str]) -> None:
    refusal = refused(client.upload_pipeline_version, package(), "v1", pipeline_id="nowhere")
    assert refusal == (400, "Failed to create a pipeline version")


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({}, "parameter source is not optional, yet has neither default value"),
        ({"source": 3}, "parameter source requires type string"),
        ({"source": "x", "count": "3"}, "parameter count requires type double or integer"),
        ({"source": "x", "colour": 1}, "not required by pipeline: colour"),
    ],
)
def test_parameters_are_checked(
    client: Any, version: Any, parameters: dict[str, Any], said: str
) -> None:
    body = run_body(version, runtime_config={"parameters": parameters})
    status, message = refused(client._run_api.run_service_create_run, run=body)
    assert status == 400 and said in message
    assert message.startswith("Failed to create a new run: Invalid input error: ")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"colour": "red"}, 'unknown field "colour"'),
        ({"display_name": 7}, "invalid value for str field display_name: 7"),
        ({"runtime_config": {"parameter": {}}}, 'unknown field "parameter"'),
        ({"runtime_config": {"parameters": []}}, "invalid value"),
        ({"state": "DONE"}, "invalid value for V2beta1RuntimeState field state"),
    ],
)
def test_unknown_fields_and_wrong_types_are_refused(
    client: Any, version: Any, changes: dict[str, Any], said: str
) -> None:
    body = run_body(version, **changes)
    status, message = refused(client._run_api.run_service_create_run, run=body)
    assert status == 400 and message.startswith("proto: ") and said in message


def test_a_run_of_a_deleted_version_is_an_internal_error(
    client: Any, version: Any, kfp: Any
) -> None:
    kfp.control("delete", kind="versions", id=version.pipeline_version_id)
    status, message = refused(client._run_api.run_service_create_run, run=run_body(version))
    assert status == 500 and f"PipelineVersion {version.pipeline_version_id} not found" in message


@pytest.mark.parametrize(
    ("changes", "status", "said"),
    [
        ({"max_concurrency": "0"}, 400, "at least 1 and at most 10. Received 0"),
        ({"max_concurrency": "11"}, 400, "Received 11"),
        ({"trigger": {"cron_schedule": {"cron": "0 0 0 * * 7"}}}, 400, "not a supported format"),
        ({"trigger": {"cron_schedule": {"cron": ""}}}, 400, "not a supported format"),
        ({"display_name": ""}, 500, "name cannot be empty"),
        ({"mode": "ON"}, 400, "invalid value for RecurringRunMode field mode"),
        ({"experiment_id": "none"}, 404, "Experiment none not found"),
    ],
)
def test_schedules_are_checked(
    client: Any, version: Any, changes: dict[str, Any], status: int, said: str
) -> None:
    schedule = {"max_concurrency": "1", "trigger": {"cron_schedule": {"cron": "0 0 2 * * *"}}}
    body = run_body(version, **{**schedule, **changes})
    service = client._recurring_run_api.recurring_run_service_create_recurring_run
    refusal = refused(service, recurring_run=body)
    assert refusal[0] == status and said in refusal[1]


@pytest.mark.parametrize("kind", ["run", "recurring run"])
def test_a_description_that_is_too_long_is_refused_after_the_object_is_made(
    client: Any, version: Any, kfp: Any, kind: str
) -> None:
    """The words are those of a recorded server; what was made stays in Kubernetes."""
    body = run_body(version, description="x" * 256)
    if kind == "run":
        status, message = refused(client._run_api.run_service_create_run, run=body)
        said = "Failed to create a new run: Failed to create a run: InternalServerError: Failed to "
        said += "store run a run to table: Error 1406 (22001): Data too long for column "
        assert message == f"{said}'Description' at row 1"
    else:
        body |= {"max_concurrency": "1", "trigger": {"cron_schedule": {"cron": "0 0 2 * * *"}}}
        service = client._recurring_run_api.recurring_run_service_create_recurring_run
        status, message = refused(service, recurring_run=body)
        said = "Failed to create a recurring run: InternalServerError: Failed to store job a run "
        said += "to table: Error 1406 (22001): Data too long for column "
        assert message == f"{said}'Description' at row 1"
        kfp.control("fire", now="2027-01-01T12:00:00Z")
    assert status == 500 and not kfp.table("runs") and not kfp.table("recurringruns")
    (orphan,) = kfp.control("orphans")
    assert kind == "run" or orphan["fired"] == 1, "it fires, and nobody sees it"


def test_a_log_that_is_nowhere_is_an_internal_error(client: Any, version: Any, kfp: Any) -> None:
    run = client._run_api.run_service_create_run(run=run_body(version))
    url = f"{kfp.url}/apis/v1alpha1/runs/{run.run_id}/nodes/nothing/log"
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(url, timeout=10)
    assert caught.value.code == 500 and "NotFound" in caught.value.read().decode()


def test_pages_filters_and_sorting(client: Any, kfp: Any) -> None:
    for number in range(7):
        client.create_experiment(f"experiment-{number}")
    first = client.list_experiments(page_size=3, sort_by="display_name desc")
    names = [one.display_name for one in first.experiments]
    assert names == ["experiment-6", "experiment-5", "experiment-4"] and first.total_size == 7
    second = client.list_experiments(page_token=first.next_page_token, page_size=10)
    assert next(one.display_name for one in second.experiments) == "experiment-3"
    assert len(second.experiments) == 4 and not second.next_page_token
    listing = client._experiment_api.experiment_service_list_experiments
    assert "Invalid page token" in refused(listing, page_token="nonsense")[1]
    token = first.next_page_token
    assert "does not match" in refused(listing, page_token=token, sort_by="created_at")[1]
    assert "Invalid sorting field" in refused(listing, sort_by="colour")[1]
    assert "greater than 0" in refused(listing, page_size=-1)[1]


def predicate(key: str, operation: str = "EQUALS", **value: Any) -> str:
    return json.dumps({"predicates": [{"operation": operation, "key": key, **value}]})


def test_filters(client: Any, kfp: Any) -> None:
    for name in ("red", "reddish", "blue"):
        client.create_experiment(name)

    def found(text: str) -> set[str]:
        return {one.display_name for one in client.list_experiments(filter=text).experiments}

    assert found(predicate("display_name", stringValue="red")) == {"red"}
    assert found(predicate("name", "IS_SUBSTRING", stringValue="red")) == {"red", "reddish"}
    both = predicate("display_name", "IN", stringValues={"values": ["blue", "red"]})
    assert found(both) == {"red", "blue"}
    listing = client._experiment_api.experiment_service_list_experiments
    assert "unrecognized field" in refused(listing, filter=predicate("colour", stringValue="x"))[1]
    assert refused(listing, filter=predicate("name", "IN", stringValue="x"))[0] == 400
    assert refused(listing, filter="not json")[0] == 400


def test_a_run_ends_once(client: Any, version: Any, kfp: Any) -> None:
    run = client._run_api.run_service_create_run(run=run_body(version))
    assert run.state == "PENDING" and run.service_account == "pipeline-runner"
    client.terminate_run(run.run_id)
    assert client.get_run(run.run_id).state == "CANCELING"
    kfp.control("run", run_id=run.run_id, state="CANCELED")
    status, message = refused(client.terminate_run, run.run_id)
    assert status == 400 and "Row not found" in message
    assert refused(client.get_run, "none") == (404, "ResourceNotFoundError: Run none not found")


def test_tasks_have_no_reasons_and_no_pods(client: Any, version: Any, kfp: Any) -> None:
    """As the API reports them: that is why graftline looks at the workflow as well."""
    run = client._run_api.run_service_create_run(run=run_body(version))
    steps = [{"step": "ingest", "phase": "Failed", "message": "OOMKilled (exit code 137)"}]
    kfp.control("run", run_id=run.run_id, state="FAILED", steps=steps)
    details = client.get_run(run.run_id).run_details.task_details
    shown = {one.display_name: one.state for one in details}
    assert {name: shown[name] for name in shown if "ingest" in name or "executor" in name} == {
        "ingest-driver": "SUCCEEDED",
        "ingest-driver(0)": "SUCCEEDED",
        "ingest": "FAILED",
        "ingest(0)": "FAILED",
        "executor": "FAILED",
        "executor(0)": "FAILED",
    }
    assert not any(one.error or one.pod_name or one.state_history for one in details)


def test_the_controller_does_not_catch_up_and_runs_one_at_a_time(
    client: Any, version: Any, kfp: Any
) -> None:
    service = client._recurring_run_api.recurring_run_service_create_recurring_run
    trigger = {"cron_schedule": {"cron": "0 0 2 * * *"}}
    common = run_body(version, mode="ENABLE", trigger=trigger)
    service(recurring_run={**common, "max_concurrency": "1", "no_catchup": True})
    assert len(kfp.control("fire", now="2027-01-01T12:00:00Z")) == 1, "one for all that passed"
    assert kfp.control("fire", now="2027-01-02T02:00:00Z") == [], "the first has not ended"
    run = kfp.table("runs")[0]
    kfp.control("run", run_id=run["run_id"], state="SUCCEEDED")
    assert len(kfp.control("fire", now="2027-01-02T02:00:00Z")) == 1


def test_catching_up_is_what_no_catchup_prevents(client: Any, version: Any, kfp: Any) -> None:
    service = client._recurring_run_api.recurring_run_service_create_recurring_run
    trigger = {"cron_schedule": {"cron": "0 0 2 * * *"}}
    body = run_body(version, mode="ENABLE", trigger=trigger, max_concurrency="3")
    made = service(recurring_run=body)
    later = made.created_at.replace(year=made.created_at.year + 1).isoformat()
    assert len(kfp.control("fire", now=later)) == 3, "as many at once as are allowed"


def test_deleting_a_schedule_deletes_its_workflows_unless_orphaned(
    client: Any, version: Any, kfp: Any
) -> None:
    service = client._recurring_run_api
    body = run_body(version, mode="ENABLE", max_concurrency="1")
    body["trigger"] = {"cron_schedule": {"cron": "0 0 2 * * *"}}
    for policy in (None, "ORPHAN"):
        made = service.recurring_run_service_create_recurring_run(recurring_run=body)
        kfp.control("fire", now="2027-01-01T12:00:00Z")
        named = {"propagation_policy": policy} if policy else {}
        service.recurring_run_service_delete_recurring_run(made.recurring_run_id, **named)
    assert len(kfp.control("killed")) == 1
