"""Readers fuzzed by coverage, where atheris is installed."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CODE = Path(__file__).with_name("fuzz_readers.py")
KINDS = ("images", "tables", "archives", "run_files", "onnx", "safetensors")
RUNS = 10_000


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="needs atheris (pip)")
@pytest.mark.parametrize("kind", KINDS)
def test_no_input_that_coverage_leads_to_is_an_undocumented_error(
    kind: str, tmp_path: Path, record_property: Any
) -> None:
    done = subprocess.run(
        [sys.executable, str(CODE), kind, str(tmp_path / "corpus"), f"-runs={RUNS}", "-seed=1"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    assert done.returncode == 0, done.stderr[-5000:]
    assert f"Done {RUNS}" in done.stderr, done.stderr[-2000:]
    record_property("points", RUNS)
