"""Steps in a warm process: they behave as steps that start cold."""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, cast

import pytest
from tests.pipeline.components import component

from graftline.steps.reuse import code_digest
from graftline_pipelines.local.tasks import local_tasks
from graftline_pipelines.local.warm import REUSABLE, WarmServer, component_of, has_computed


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working folder, where a component writes its outputs."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def server() -> Any:
    server = WarmServer()
    yield server
    server.close()


def test_a_component_prints_in_its_own_folder_and_environment(
    server: WarmServer, tmp_path: Path, capsys: Any
) -> None:
    body = "import os\nprint(text, os.getcwd(), os.environ['ONLY_HERE'], os.getpid())"
    command = component(body)
    environment = {**os.environ, "ONLY_HERE": "yes"}
    assert server.run(command, environment) == 0
    assert server.run(command, environment) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("told")]
    first, second = (line.split() for line in lines)
    assert first[:3] == ["told", str(tmp_path), "yes"]
    assert first[3] != second[3]  # a process each
    assert "ONLY_HERE" not in os.environ


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        ("raise ValueError('no such thing')", 1, "ValueError: no such thing"),
        ("import sys; sys.exit(3)", 3, ""),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL, ""),
    ],
)
def test_a_failure_is_the_steps_own(
    server: WarmServer, capsys: Any, body: str, code: int, said: str
) -> None:
    assert server.run(component(body), dict(os.environ)) == code
    assert said in capsys.readouterr().out
    assert server.run(component("print('still there')"), dict(os.environ)) == 0


def test_a_busy_server_is_not_waited_for_longer_than_asked(server: WarmServer) -> None:
    with server.calling("builtins:len", [1, 2]) as call:
        assert call.answer() == 2
    server._process.send_signal(signal.SIGSTOP)  # as busy as in an import of a minute
    started = time.monotonic()
    with server.calling("builtins:len", [1, 2]) as call:
        assert call.answer(within=0.2) is None
    assert time.monotonic() - started < 5
    server._process.send_signal(signal.SIGCONT)
    with server.calling("builtins:len", [1, 2, 3]) as call:
        assert call.answer(within=60) == 3


def test_a_server_that_is_gone_runs_nothing(server: WarmServer, capsys: Any) -> None:
    server._process.kill()
    server._process.wait()
    assert server.run(component("print('ran')"), dict(os.environ)) is None
    assert capsys.readouterr().out == ""


def test_the_command_is_the_one_that_kfp_makes() -> None:
    from kfp import dsl

    def work(text: str) -> None:
        print(text)

    made = dsl.component(func=work, base_image=f"python:{sys.version_info.major}")
    container = made.component_spec.implementation.container
    source, arguments = component_of([*container.command, *container.args])
    assert "def work(text: str)" in source
    assert arguments[0] == "--executor_input"


def imported(server: WarmServer, capsys: Any) -> list[str]:
    """Of a few libraries, those that a step finds imported when it starts."""
    body = "import sys\nprint('found', [n for n in ('mlflow', 'torch') if n in sys.modules])"
    assert server.run(component(body), dict(os.environ)) == 0
    (line,) = [each for each in capsys.readouterr().out.splitlines() if each.startswith("found")]
    found: list[str] = json.loads(line.removeprefix("found ").replace("'", '"'))
    return found


def test_large_libraries_are_imported_when_they_are_asked_for(
    server: WarmServer, capsys: Any
) -> None:
    found = imported(server, capsys)
    while "mlflow" not in found:
        found = imported(server, capsys)
    assert "torch" not in found
    server.import_large()
    server.import_large()  # once more changes nothing
    while "torch" not in found:
        found = imported(server, capsys)


@pytest.mark.parametrize(
    ("step", "result", "computed"),
    [
        ("ingest", {"fetched": 0}, False),
        ("ingest", {"fetched": 3}, True),
        ("extract_features", {"extracted": 0}, False),
        ("extract_features", {"extracted": 1}, True),
        ("fit_head", {"strategy": "probe", "reused_from": "run-1"}, False),
        ("fit_head", {"strategy": "probe"}, True),
        ("promote", {"name": "digits"}, False),
    ],
)
def test_a_run_has_computed_once_a_step_found_something_new(
    tmp_path: Path, step: str, result: dict[str, Any], computed: bool
) -> None:
    (tmp_path / "steps").mkdir()
    assert not has_computed(tmp_path)
    (tmp_path / "steps" / f"{step}.json").write_text(json.dumps(result))
    assert has_computed(tmp_path) is computed


@pytest.mark.slow
@pytest.mark.timeout(1800)  # two whole runs
def test_warm_and_cold_steps_write_the_same_bytes(
    run_graftline: Any,
    make_digits_folder: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run_file = {
        "data": {"source": str(make_digits_folder(per_class=40, classes=3))},
        "backbone": "mobilenetv3_small_050",
        "weights": "random",
        "image_size": 32,
        "strategy": "probe",
    }
    written = {}
    for way, cold in (("warm", "0"), ("cold", "1")):
        monkeypatch.setenv("GRAFTLINE_COLD", cold)
        result, _ = run_graftline({**run_file, "name": way, "store": str(tmp_path / way)}, "--json")
        assert result["reused_steps"] == {}
        artifacts = Path(result["run_dir"]) / "artifacts"
        written[way] = {
            name: next(artifacts.rglob(name)).read_bytes()
            for name in ("manifest.parquet", "features.npy", "classifier.json")
        }
        export = json.loads(next(artifacts.rglob("export.json")).read_text())
        written[way]["model"] = export["content_sha256"]
    assert written["warm"] == written["cold"]


def test_the_database_of_mlflow_is_open_when_a_step_starts(
    server: WarmServer, mlflow_sqlite: str, capsys: Any
) -> None:
    from graftline.tracking.client import connect
    from graftline.tracking.mlflow_run import start_run

    connect(mlflow_sqlite)
    server.open_tracking(mlflow_sqlite)
    body = f"""
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
engines = list(SqlAlchemyStore._engine_map.values())
print('found', len(engines), [engine.pool.checkedin() for engine in engines])
from graftline.tracking.mlflow_run import start_run
start_run({mlflow_sqlite!r}, 'digits', text)
"""
    found: list[str] = []
    while not found or found[0] == "found 0 []":
        assert server.run(component(body.strip()), dict(os.environ)) == 0
        found = [line for line in capsys.readouterr().out.splitlines() if line[:5] == "found"]
    assert found == ["found 1 [0]"]  # open, without a connection that the server has too
    start_run(mlflow_sqlite, "digits", "here")
    client = connect(mlflow_sqlite)
    experiment = client.get_experiment_by_name("digits")
    assert len(client.search_runs([experiment.experiment_id])) >= 2


@pytest.mark.parametrize(
    ("fresh", "kept", "asked"), [("", True, 0), ("", False, 1), ("1", True, 1)]
)
def test_large_libraries_are_wanted_at_once_where_steps_will_compute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh: str, kept: bool, asked: int
) -> None:
    class Server:
        calls = 0

        def open_tracking(self, uri: str) -> None:
            pass

        def import_large_beside_next(self) -> None:
            self.calls += 1

    if kept:
        (tmp_path / "results/fit_head").mkdir(parents=True)
        (tmp_path / "results/fit_head/entry.json").write_text("{}")
    monkeypatch.setenv("GRAFTLINE_FRESH", fresh)
    server = Server()
    with local_tasks(cast("WarmServer", server), tmp_path, str(tmp_path)):
        assert server.calls == asked


def test_the_first_step_does_not_wait_for_the_large_libraries_and_later_ones_do(
    server: WarmServer, capsys: Any
) -> None:
    server.import_large_beside_next()
    body = "import sys\nprint('found', 'torch' in sys.modules, 'timm' in sys.modules)"
    first = component(body)
    later = [part.replace("work", "extract_features") for part in first]
    for command in (first, later):
        assert server.run(command, dict(os.environ)) == 0
    found = [line for line in capsys.readouterr().out.splitlines() if line.startswith("found")]
    assert found == ["found False False", "found True True"]


def test_a_fork_takes_nothing_down_that_the_server_holds(server: WarmServer, capsys: Any) -> None:
    server.import_large()
    body = (
        "import weakref\nall = weakref.finalize._registry.items()"
        "\nfound = [(f.atexit, i.func) for f, i in all]"
        "\nprint('found', len(found) > 1, [f.__module__ for at_exit, f in found if at_exit])"
    )
    command = [part.replace("work", "evaluate") for part in component(body)]
    assert server.run(command, dict(os.environ)) == 0
    found = [line for line in capsys.readouterr().out.splitlines() if line.startswith("found")]
    assert found == ["found True ['tempfile']"]  # the fork's own folder


def test_later_steps_find_the_digest_of_the_code_that_a_process_alone_computes(
    server: WarmServer, capsys: Any
) -> None:
    body = (
        "from graftline.steps import reuse\nknown = reuse.code_digest.cache_info().currsize"
        "\nprint('found', known, reuse.code_digest('evaluate'))"
    )
    known = "0"
    while known == "0":  # the first step does not wait for them
        assert server.run(component(body), dict(os.environ)) == 0
        (line,) = [e for e in capsys.readouterr().out.splitlines() if e.startswith("found")]
        _, known, digest = line.split()
        assert digest == code_digest("evaluate")
    assert int(known) == len(REUSABLE)


def test_a_call_beside_the_steps_comes_behind_the_imports(
    server: WarmServer, tmp_path: Path
) -> None:
    server.import_large()
    server.begin_beside("shutil:copyfile_of", None)  # nobody is told that there is no such thing
    target = tmp_path / "made"
    server.begin_beside("os:mkdir", str(target))
    while not target.exists():
        assert server._process.poll() is None
        time.sleep(0.05)
