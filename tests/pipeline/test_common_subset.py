"""Every pipeline keeps to what KFP's local runner and a cluster both do."""

import ast
import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf.json_format import MessageToDict
from tests.pipeline.conftest import PLANTED

from graftline_pipelines.graphs.prediction import prediction_pipeline
from graftline_pipelines.graphs.retraining import retraining_pipeline
from graftline_pipelines.graphs.training import training_pipeline
from graftline_pipelines.runfile.load import load

ROOT = Path(__file__).parents[2]
RUN_FILES = sorted(
    path
    for path in (ROOT / "examples").glob("*.yaml")
    if "\ndata:" in path.read_text(encoding="utf-8")
)
COMPONENTS = sorted((ROOT / "components").rglob("*component.py"))
GRAPHS = ("train", "retrain", "predict")
STRATEGIES = ("auto", "probe", "head", "fine_tune", "scratch")


def dags(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "root", document["root"]
    for name, component in document["components"].items():
        if "dag" in component:
            yield name, component


def violations(document: dict[str, Any]) -> list[str]:
    found = []
    for name, component in dags(document):
        if not re.match(r"root$|comp-(condition|for-loop|exit-handler)", name):
            found.append(f"{name}: a nested pipeline")
        for task_name, task in component["dag"]["tasks"].items():
            condition = task.get("triggerPolicy", {}).get("condition", "")
            if re.search(r"""['"][^'"]*['"]""", re.sub(r"inputs\.\S+?\['[^']+'\]", "", condition)):
                found.append(f"{task_name}: a condition on text: {condition}")
            for key, value in task.get("inputs", {}).get("parameters", {}).items():
                told = value.get("taskOutputParameter", {}).get("outputParameterKey", "Output")
                if key in condition and told != "Output":  # the local runner takes it for false
                    found.append(f"{task_name}: a condition beside a task with several outputs")
            if "parameterIterator" in task and name.startswith("comp-exit-handler"):
                found.append(f"{task_name}: a loop inside an exit handler")
            if "artifactIterator" in task:
                found.append(f"{task_name}: a loop over artifacts")
            if task.get("parameterIterator", {}).get("items", {}).get("raw") == "[]":
                found.append(f"{task_name}: an empty loop")
            if task.get("cachingOptions", {}).get("enableCache"):
                found.append(f"{task_name}: KFP's cache is on")
    for name, component in document["components"].items():
        for key, value in component.get("inputDefinitions", {}).get("parameters", {}).items():
            if value.get("isOptional") and value["parameterType"] == "NUMBER_INTEGER":
                found.append(f"{name}.{key}: an optional int")
    for name, executor in document["deploymentSpec"]["executors"].items():
        command = " ".join(executor.get("container", {}).get("command", []))
        if "kfp.dsl.executor_main" not in command:
            found.append(f"{name}: not a lightweight Python component")
        if "pip install" in command:
            found.append(f"{name}: installs packages when it starts")
    text = yaml.safe_dump(document, width=10**9)  # a value in one line
    for placeholder in ("pipeline_job_create_time", "pipeline_job_schedule_time"):
        if placeholder in text:
            found.append(f"the placeholder {placeholder}")
    # A cluster replaces a placeholder only where it is the whole value. The local runner does not
    # know every one: a run there is given its name and id instead (see the test below).
    for constant in re.findall(r"constant: (.*)", text):
        if "{{$." in constant and not re.fullmatch(r"'\{\{\$\.pipeline_job_\w+\}\}'", constant):
            found.append(f"a placeholder within a value: {constant}")
    return found


@pytest.mark.parametrize("build", [training_pipeline, retraining_pipeline, prediction_pipeline])
def test_a_run_on_this_machine_needs_no_placeholder(build: Any) -> None:
    pipeline = build(load(RUN_FILES[0]), "a-run", on_cluster=False)
    assert "{{$.pipeline_job" not in str(MessageToDict(pipeline.pipeline_spec))


def test_there_are_run_files_and_components_to_check() -> None:
    assert RUN_FILES and len(COMPONENTS) >= 8


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("run_file", RUN_FILES, ids=lambda path: path.stem)
def test_every_example_compiles_within_the_subset(
    compiled: Any, run_file: Path, graph: str
) -> None:
    document = compiled(run_file.name, graph)[1][0]
    assert document["schemaVersion"] == "2.1.0"
    assert violations(document) == []


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_compiles_within_the_subset(compiled: Any, strategy: str) -> None:
    document = compiled("digits.yaml", "train", f"strategy={strategy}")[1][0]
    assert violations(document) == []
    executors = document["deploymentSpec"]["executors"]
    assert ("exec-fine-tune" in executors) == (strategy in ("auto", "fine_tune", "scratch"))


def test_fan_out_loops_over_the_plan_in_the_training_graph_only(compiled: Any) -> None:
    train, retrain = (
        compiled("digits.yaml", graph, "extract.workers=4")[1][0] for graph in ("train", "retrain")
    )
    assert violations(train) == [] and violations(retrain) == []
    assert "exec-extract-share" in train["deploymentSpec"]["executors"]
    assert "exec-extract-share" not in retrain["deploymentSpec"]["executors"]


def test_a_violation_is_found(compiled: Any) -> None:
    document = copy.deepcopy(compiled("digits.yaml", "train")[1][0])
    root = document["root"]["dag"]["tasks"]
    root["ingest"].setdefault("cachingOptions", {})["enableCache"] = True
    root["ingest"]["triggerPolicy"] = {"condition": "inputs.parameter_values['x'] == 'text'"}
    beside = {"taskOutputParameter": {"producerTask": "ingest", "outputParameterKey": "x"}}
    root["fit-head"]["inputs"]["parameters"]["pipelinechannel--ingest-x"] = beside
    condition = "inputs.parameter_values['pipelinechannel--ingest-x'] == true"
    root["fit-head"]["triggerPolicy"] = {"condition": condition}
    assert len(violations(document)) == 3


@pytest.mark.parametrize("graph", GRAPHS)
def test_nothing_secret_is_compiled(compiled: Any, graph: str) -> None:
    """The environment in which the fixture compiles is full of secrets."""
    assert PLANTED not in yaml.safe_dump_all(compiled("digits.yaml", graph)[1])


@pytest.mark.parametrize("path", COMPONENTS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_components_are_interfaces_and_not_the_work(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 60
    assert "from __future__" not in source
    imported = [
        node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
        for node in ast.parse(source).body
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert {str(name).split(".")[0] for name in imported} <= {"kfp", "typing"}
