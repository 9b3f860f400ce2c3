"""The command as a user types it, on a run file that a test states."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from graftline_pipelines.graphs.compile import compile_to
from graftline_pipelines.runfile.load import load

EXAMPLES = Path(__file__).parents[2] / "examples"
PLANTED = "the-planted-value-of"  # that each secret of the environment begins with
SECRETS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "GRAFTLINE_KFP_TOKEN",
    "GRAFTLINE_WEBHOOK_URL",
)


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """An example, compiled once in an environment full of secrets.

    `compiled("gke.yaml", "train", "strategy=probe")` gives settings, documents and the file.
    """
    kept: dict[tuple[str, ...], Any] = {}

    def get(name: str, graph: str = "train", *overrides: str) -> Any:
        key = (name, graph, *overrides)
        if key not in kept:
            settings = load(EXAMPLES / name, overrides)
            path = tmp_path_factory.mktemp("compiled") / "pipeline.yaml"
            with pytest.MonkeyPatch.context() as patch:
                for variable in SECRETS:
                    patch.setenv(variable, f"{PLANTED}-{variable}")
                compile_to(settings, graph, path)  # type: ignore[arg-type]
            documents = list(yaml.load_all(path.read_text(encoding="utf-8"), yaml.CSafeLoader))
            kept[key] = settings, documents, path
        return kept[key]

    return get


@pytest.fixture
def run_graftline(tmp_path: Path, mlflow_sqlite: str) -> Callable[..., Any]:
    """Write a run file and run the command on it: its last line as JSON, and what it says.

    `run(run_file, "--json", code=0, command="run")`
    """

    def run(
        run_file: dict[str, Any], *options: str, code: int = 0, command: str = "run"
    ) -> tuple[dict[str, Any], str]:
        path = tmp_path / "run.yaml"
        defaults = {
            "name": "digits",
            "store": str(tmp_path / "store"),
            "tracking": {"uri": mlflow_sqlite},
            "evaluation": {"bootstrap": 200, "robustness_images": 0},
            "strategy": "probe",  # auto would train, where a test does not ask for it
        }
        path.write_text(yaml.safe_dump({**defaults, **run_file}))
        main = "from graftline_pipelines.cli.main import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", main, command, str(path), *options],
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
        assert done.returncode == code, done.stdout + done.stderr
        lines = done.stdout.splitlines()
        return (json.loads(lines[-1]) if "--json" in options and lines else {}), done.stderr

    return run
