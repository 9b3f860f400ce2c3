"""No library reports to its maker: the libraries themselves say so, in a process of their own."""

import os
import subprocess
import sys
from pathlib import Path

CODE = """
import graftline
import onnxruntime
from huggingface_hub import constants
from mlflow.telemetry import utils
print(utils.is_telemetry_disabled(), constants.HF_HUB_DISABLE_TELEMETRY)
"""
# What MLflow takes for a test or a build, where it reports nothing anyway.
QUIET = ("TELEMETRY", "DO_NOT_TRACK", "PYTEST", "GITHUB_", "GITLAB_", "JENKINS_", "TF_BUILD")


def test_libraries_keep_no_identifier_and_send_nothing(tmp_path: Path) -> None:
    kept = {
        name: value
        for name, value in os.environ.items()
        if name != "CI" and not any(sign in name for sign in QUIET)
    }
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        env={**kept, "XDG_CACHE_HOME": str(tmp_path), "HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("True True\n", ""), done.stderr
    # ONNX Runtime keeps the machine's identifier and a database of what is to be sent there.
    assert not list(tmp_path.rglob("*onnxruntime*"))
