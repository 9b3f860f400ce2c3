"""The code with which an application takes a model out of the registry, run as it is documented."""

import re
import subprocess
import sys
from pathlib import Path

from graftline.storage import open_store
from graftline.tracking.client import connect
from graftline.tracking.mlflow_run import open_tracking, start_run
from graftline.tracking.registry import open_registry

DOCUMENT = Path(__file__).parents[3] / "docs" / "using-a-model.md"


def sample(uri: str) -> str:
    """The code block that asks MLflow, for another server."""
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    (code,) = [block for block in blocks if "download_artifacts" in block]
    return str(code.replace("http://mlflow.example.com", uri))


def test_an_application_gets_the_champion(mlflow_sqlite: str, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.onnx").write_bytes(b"onnx")
    run_id = start_run(mlflow_sqlite, "flowers", "first")
    open_tracking(mlflow_sqlite, run_id).files({"model": tmp_path / "model"})
    source = connect(mlflow_sqlite).get_run(run_id).info.artifact_uri + "/model"
    store, registry = open_store(str(tmp_path / "store")), open_registry(mlflow_sqlite)
    tags = {"store": store.uri}
    version = registry.register("flowers", run_id=run_id, source=source, tags=tags, store=store)
    registry.promote(version, compared_with=None, verdict="v", store=store)

    code = sample(mlflow_sqlite) + "\nprint(open(folder + '/model.onnx').read())"
    elsewhere = tmp_path / "application"
    elsewhere.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=elsewhere
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip().endswith("onnx")
