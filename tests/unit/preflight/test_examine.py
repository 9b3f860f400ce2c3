"""The order of the questions: what is cheap answers before anything large is imported."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from graftline_pipelines.preflight.examine import _note_single_node
from graftline_pipelines.preflight.report import Preflight
from graftline_pipelines.runfile.settings import RunSettings

LARGE = ("torch", "timm", "torchvision", "mlflow", "kfp", "kubernetes", "sklearn", "scipy", "boto3")
SCRIPT = """
import json, sys
from pathlib import Path
from graftline.errors import GraftlineError
from graftline_pipelines.local.run import with_absolute_paths
from graftline_pipelines.preflight.examine import examine, require
from graftline_pipelines.runfile.load import load

asked = []
try:
    settings = with_absolute_paths(load(Path("run.yaml"), ()))
    found = examine(settings, asked.append).as_dict()
except GraftlineError as error:
    found = {"problems": [{"key": "run file", "what": str(error)}], "not_checked": []}
else:
    try:
        require(settings)
    except GraftlineError as error:
        found["required"] = str(error)
found["asked"] = asked
found["imported"] = sorted({name.partition(".")[0] for name in sys.modules})
print(json.dumps(found))
"""


def examined(folder: Path, **changes: Any) -> dict[str, Any]:
    """What a process of its own finds of a run file, and which packages it imported."""
    (folder / "images" / "a").mkdir(parents=True, exist_ok=True)
    for number in range(8):
        for label in "ab":
            path = folder / "images" / label / f"{number}.png"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"png")
    run_file = {
        "name": "digits",
        "data": {"source": "images"},
        "store": "store",
        "tracking": {"uri": "sqlite:///mlflow.db"},
        **changes,
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(run_file))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=folder, capture_output=True, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize(
    ("changes", "key", "what"),
    [
        ({"data": {"source": "nosuch"}}, "data.source", "does not exist"),
        ({"backbone": "tf_eficientnet_lite0"}, "backbone", "No backbone is called"),
        ({"backbone": "timm/resnet5o.a1_in1k"}, "backbone", "No backbone is called"),
        ({"weights": "none.safetensors"}, "backbone", "There are no weights at"),
        ({"data": {"sorce": "images"}}, "run file", "Did you mean `source`?"),
        ({"tracking": {"uri": "mlruns"}}, "tracking.uri", "no longer keeps runs in plain folders"),
        ({"tracking": {"uri": "http://127.0.0.1:9"}}, "tracking.uri", "does not answer"),
    ],
)
def test_a_cheap_problem_is_told_before_anything_large_is_imported(
    tmp_path: Path, changes: dict[str, Any], key: str, what: str
) -> None:
    found = examined(tmp_path, **changes)
    (problem,) = found["problems"]
    assert problem["key"] == key and what in problem["what"]
    assert not set(found["imported"]) & set(LARGE)
    if key != "run file":
        assert found["not_checked"]
        assert what in found["required"]


@pytest.mark.parametrize(
    ("strategy", "section", "said"),
    [("auto", "fine_tune", True), ("scratch", "scratch", True), ("probe", "fine_tune", False)],
)
def test_a_run_on_this_machine_says_that_it_does_not_use_several_nodes(
    tmp_path: Path, strategy: str, section: str, said: bool
) -> None:
    settings = RunSettings.model_validate(
        {
            "name": "digits",
            "data": {"source": str(tmp_path / "nosuch")},
            "store": str(tmp_path / "store"),
            "tracking": {"uri": "mlruns"},
            "strategy": strategy,
            section: {"nodes": 2},
        }
    )
    found = Preflight(asking=lambda _: None)
    _note_single_node(settings, found)
    assert [key for key, _ in found.notes] == [f"{section}.nodes"] * said


def test_cheap_problems_are_told_together(tmp_path: Path) -> None:
    changes = {
        "data": {"source": "nosuch"},
        "backbone": "resnet5o",
        "tracking": {"uri": "mlruns"},
    }
    found = examined(tmp_path, **changes)
    assert [problem["key"] for problem in found["problems"]] == [
        "data.source",
        "backbone",
        "tracking.uri",
    ]
    assert found["asked"] == ["store", "data.source", "backbone", "tracking.uri"]


@pytest.mark.parametrize("name", ["resnet50", "timm/resnet50.a1_in1k", "torchvision/resnet18"])
def test_known_names_pass(name: str) -> None:
    from graftline.models.known import check_known

    check_known(name)
