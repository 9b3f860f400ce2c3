"""Questions about MLflow in the warm process: the answers are those of this process."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from graftline.errors import TrackingError
from graftline_pipelines.local.warm import WarmServer
from graftline_pipelines.preflight.examine import ask_everything, ask_mlflow
from graftline_pipelines.preflight.remote import (
    all_in_warm_process,
    answer,
    answer_all,
    in_warm_process,
)
from graftline_pipelines.preflight.report import Preflight
from graftline_pipelines.runfile.settings import RunSettings


@pytest.fixture(scope="module")
def server() -> Iterator[WarmServer]:
    server = WarmServer()
    yield server
    server.close()


def settings(tmp_path: Path, uri: str) -> RunSettings:
    values = {"name": "digits", "data": {"source": "x"}, "store": str(tmp_path)}
    return RunSettings.model_validate({**values, "tracking": {"uri": uri}})


def test_answers_are_those_of_this_process(
    server: WarmServer, mlflow_sqlite: str, tmp_path: Path
) -> None:
    here = Preflight()
    ask_mlflow(settings(tmp_path, mlflow_sqlite), here)
    there = in_warm_process(server)(settings(tmp_path, mlflow_sqlite))
    assert there is not None
    assert there.facts == here.facts and "champion" in there.facts
    assert not there.problems


def test_a_problem_keeps_its_kind_and_words(server: WarmServer, tmp_path: Path) -> None:
    asked = settings(tmp_path, "sqlite:////proc/no/such/mlflow.db")
    here = Preflight()
    ask_mlflow(asked, here)
    there = in_warm_process(server)(asked)
    assert there is not None
    ((key, error),), ((_, expected),) = there.problems, here.problems
    assert key == "tracking.uri" and isinstance(error, TrackingError)
    assert type(error) is type(expected) and str(error) == str(expected)


def test_without_a_process_nobody_is_asked(tmp_path: Path) -> None:
    asked = settings(tmp_path, "sqlite:///x.db")
    assert in_warm_process(None)(asked) is None
    gone = WarmServer()
    gone.close()
    assert in_warm_process(gone)(asked) is None


def test_what_the_fork_prints_is_json(mlflow_sqlite: str, tmp_path: Path) -> None:
    told = answer(settings(tmp_path, mlflow_sqlite).model_dump(mode="json"))
    assert set(told) == {"facts", "notes", "problems", "unasked"}


def test_everything_is_asked_in_a_process_that_waited_and_in_no_other(
    server: WarmServer, mlflow_sqlite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = settings(tmp_path, mlflow_sqlite)  # whose source, x, does not exist
    assert all_in_warm_process(server)(asked) is None
    monkeypatch.setattr(server, "waited", True)
    there = all_in_warm_process(server)(asked)
    here, _ = ask_everything(asked)
    assert there is not None and there.unasked == here.unasked != []
    assert [(key, str(error)) for key, error in there.problems] == [
        (key, str(error)) for key, error in here.problems
    ]
    assert answer_all(asked.model_dump(mode="json"))["problems"]
