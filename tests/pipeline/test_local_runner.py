"""The local runner: progress and results on record, and the step's own error when one fails."""

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kfp import dsl
from rich.console import Console

from graftline.errors import ConfigurationError
from graftline.steps.runtime import RUN_DIR_VARIABLE, read_result
from graftline_pipelines.local import run as local
from graftline_pipelines.runfile.settings import RunSettings

SETTINGS = RunSettings.model_validate({"name": "small", "data": {"source": "images"}})


def good(count: int) -> int:
    from dataclasses import dataclass

    from graftline.progress import message, progress
    from graftline.steps.runtime import StepResult, step

    @dataclass(frozen=True, kw_only=True)
    class Result(StepResult):
        count: int

    with step("good") as recorder:
        print("a line of a library")
        for _ in progress(range(count), "counting"):
            pass
        message("counted %d", count)
        recorder.record(Result(count=count))
    return count


def wrong(count: int) -> int:
    from graftline.errors import DataError
    from graftline.steps.runtime import step

    with step("wrong"):
        raise DataError(f"{count} is too few", why="it is", fix="Count further.")


def faulty(count: int) -> int:
    from graftline.steps.runtime import step

    with step("faulty"):
        return count // 0


def full(count: int) -> int:
    import errno

    from graftline.steps.runtime import step

    with step("full"):
        raise OSError(errno.ENOSPC, "No space left on device", "/images/1.png")


def killed(count: int) -> int:
    import os
    import signal

    from graftline.steps.runtime import step

    with step("killed"):
        os.kill(os.getpid(), signal.SIGKILL)
    return count


def pipeline_of(*functions: Callable[..., Any]) -> Callable[..., Any]:
    def build(settings: RunSettings, run_id: str) -> Any:
        @dsl.pipeline(name="small")
        def small() -> None:
            count: Any = 3
            for function in functions:
                component = dsl.component(
                    func=function, base_image="python", install_kfp_package=False
                )
                count = component(count=count).output

        return small

    return build


def run(tmp_path: Path, *functions: Callable[..., Any]) -> tuple[local.LocalRun, str]:
    stream = io.StringIO()
    finished = local.run(
        SETTINGS, pipeline_of(*functions), runs_dir=tmp_path, console=Console(file=stream)
    )
    return finished, stream.getvalue()


def test_results_progress_and_logs_are_in_the_runs_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = dict(os.environ)
    finished, shown = run(tmp_path, good)
    assert read_result(finished.run_dir, "good") == {"count": 3}
    assert "counted 3" in shown and "done in" in shown
    assert "a line of a library" in (finished.run_dir / "logs" / "good.log").read_text()
    assert set(finished.seconds) == {"good"}
    assert finished.run_id.startswith("small-")
    assert capsys.readouterr().out == ""
    assert dict(os.environ) == before and RUN_DIR_VARIABLE not in os.environ


def test_steps_are_told_on_standard_output_while_kfp_is_quiet(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    local.run(SETTINGS, pipeline_of(good), runs_dir=tmp_path, console=Console())
    shown = capfd.readouterr().out
    assert "counted 3" in shown and "done in" in shown
    assert "a line of a library" not in shown


def test_error_of_a_step_is_its_own_with_name_and_log(tmp_path: Path) -> None:
    with pytest.raises(local.StepFailed) as caught:
        run(tmp_path, good, wrong)
    failure = caught.value
    assert failure.step == "wrong"
    assert (failure.what, failure.why, failure.fix) == ("3 is too few", "it is", "Count further.")
    assert "3 is too few" in failure.log.read_text()
    assert "Traceback" not in failure.log.read_text()


def test_fault_keeps_its_traceback_in_the_log(tmp_path: Path) -> None:
    with pytest.raises(local.StepFailed, match="ZeroDivisionError") as caught:
        run(tmp_path, faulty)
    assert "Traceback" in (tmp_path / os.fspath(caught.value.log)).read_text()


def test_full_disk_is_said_without_a_traceback(tmp_path: Path) -> None:
    with pytest.raises(local.StepFailed) as caught:
        run(tmp_path, full)
    failure = caught.value
    assert "/images/1.png" in failure.what and failure.why == "No space left on device"
    assert failure.fix is not None and "Free space" in failure.fix
    assert "Traceback" not in failure.log.read_text()


def test_runs_folder_that_cannot_be_made_is_a_mistake_of_the_options(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="--runs-dir"):
        run(tmp_path / "file", good)


def test_nothing_is_left_in_the_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    run(tmp_path / "runs", good)
    assert list(scratch.iterdir()) == []


def test_killed_step_is_named(tmp_path: Path) -> None:
    with pytest.raises(local.StepFailed, match="ended without a message") as caught:
        run(tmp_path, good, killed)
    assert caught.value.step == "killed"


def test_local_paths_become_absolute_and_others_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = RunSettings.model_validate(
        {"name": "a", "data": {"source": "s3://b/p"}, "store": "store"}
    )
    resolved = local.with_absolute_paths(settings)
    assert resolved.store == str(tmp_path / "store")
    assert resolved.data.source == "s3://b/p"
    assert resolved.tracking.uri == f"sqlite:///{tmp_path}/.graftline/mlflow.db"
