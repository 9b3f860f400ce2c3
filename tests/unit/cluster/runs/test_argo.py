"""The pods of a run, out of its Argo workflow."""

from graftline_pipelines.cluster.runs.argo import pods_of, step_of


def node(key: str, shown: str, kind: str, template: str = "t", **rest: object) -> dict[str, object]:
    return {
        "id": f"run-{key}",
        "displayName": shown,
        "type": kind,
        "templateName": template,
        "phase": "Succeeded",
        "startedAt": rest.pop("started", "2026-03-01T12:00:00Z"),
        **rest,
    }


def workflow(*nodes: dict[str, object], pod_names: str = "v2") -> dict[str, object]:
    annotations = {"workflows.argoproj.io/pod-name-format": pod_names}
    return {
        "metadata": {"name": "run", "annotations": annotations},
        "status": {"nodes": {one["id"]: one for one in nodes}},
    }


RETRIED = (
    node("1", "fine-tune", "DAG", children=["run-2"]),
    node("2", "executor", "Retry", children=["run-3", "run-4"]),
    node("3", "executor(0)", "Pod", "impl", phase="Failed", message="OOMKilled (exit code 137)"),
    node("4", "executor(1)", "Pod", "impl", started="2026-03-01T12:05:00Z"),
    node("5", "fine-tune-driver", "Pod", "driver"),
    node("6", "for-loop-2", "DAG", children=["run-7"]),
    node("7", "somebody-elses", "Pod"),
)


def test_each_try_is_a_pod_of_the_step() -> None:
    pods = [pod for pod in pods_of(workflow(*RETRIED)) if not pod.driver]
    assert [(pod.step, pod.name, pod.phase) for pod in pods] == [
        ("fine_tune", "run-impl-3", "Failed"),
        ("fine_tune", "run-impl-4", "Succeeded"),
    ]
    assert pods[0].message == "OOMKilled (exit code 137)"


def test_drivers_are_told_apart() -> None:
    (driver,) = [pod for pod in pods_of(workflow(*RETRIED)) if pod.driver]
    assert (driver.step, driver.name) == ("fine_tune", "run-driver-5")


def test_argos_older_names() -> None:
    names = {pod.name for pod in pods_of(workflow(*RETRIED, pod_names="v1"))}
    assert names == {"run-3", "run-4", "run-5"}


def test_a_workflow_that_has_not_started() -> None:
    assert pods_of({}) == [] and pods_of({"status": {"nodes": None}}) == []


def test_steps_by_display_name() -> None:
    assert step_of("evaluate-2") == "evaluate" and step_of("extract-share") == "extract_share"
    assert step_of("condition-3") is None and step_of("executor") is None
