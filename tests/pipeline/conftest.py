"""The command as a user types it, on a run file that a test states."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml


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
