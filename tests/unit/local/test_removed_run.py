"""A run whose folder is removed while it runs, as a cleaning job or a colleague does."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from graftline.errors import StoreNotFound
from graftline_pipelines.local import run as local


def test_the_error_names_the_folder_and_nothing_is_left_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = tmp_path / "runs" / "a-1"
    settings: Any = SimpleNamespace(name="a", model_dump=lambda **_: {"name": "a"})
    local._new_folder(run_dir, settings)
    shutil.rmtree(run_dir)
    monkeypatch.setattr(local, "_end_in_mlflow", lambda *_: "")
    local._end(RuntimeError("a step failed"), run_dir, settings, Console(), None)
    error = local._step_error(run_dir, RuntimeError("a step failed"), {"fit_head": 1})
    assert isinstance(error, StoreNotFound)
    assert f"{run_dir} was removed while it ran" in error.what
    assert not run_dir.exists()
