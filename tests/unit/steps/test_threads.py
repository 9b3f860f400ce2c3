"""Thread pools of a step: no larger than its share, and asleep while they wait."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from graftline import machine
from graftline.errors import ConfigurationError
from graftline.onnx_model.predict import OnnxClassifier

SCRIPT = """
import json, os, sys
import graftline.steps
early = [name for name in ("torch", "numpy") if name in sys.modules]
import torch
print(json.dumps({
    "early": early,
    "policy": os.environ["OMP_WAIT_POLICY"],
    "threads": torch.get_num_threads(),
}))
"""


def pools(**variables: str) -> dict[str, Any]:
    """What a process finds after it has imported the steps."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "MKL_"))}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**kept, **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_pools_are_set_before_a_library_of_numbers_is_imported() -> None:
    found = pools()
    assert found == {"early": [], "policy": "PASSIVE", "threads": machine.cores()}


def test_what_the_user_set_stands() -> None:
    found = pools(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="ACTIVE")
    assert (found["policy"], found["threads"]) == ("ACTIVE", 1)


def test_onnx_runtime_does_not_spin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    asked: list[Any] = []

    def session(path: str, options: Any, **_: Any) -> None:
        asked.append(options)
        raise RuntimeError("enough")

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    path = tmp_path / "model.onnx"
    path.write_bytes(b"onnx")
    with pytest.raises(ConfigurationError):
        OnnxClassifier(path)
    (options,) = asked
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert options.intra_op_num_threads == machine.cores()
