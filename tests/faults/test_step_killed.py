"""The process of a step is killed, as the system does for lack of memory: an end with a cause."""

import contextlib
import io
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from kfp import dsl
from rich.console import Console

from graftline.steps.kept_results import PREFIX
from graftline_pipelines.graphs.training import training_pipeline
from graftline_pipelines.local import run as local
from graftline_pipelines.local.warm import WarmServer
from graftline_pipelines.runfile.settings import RunSettings

BOUND = 30.0
SECRET = "planted+s3cret/value=="


def slow(folder: str) -> str:
    """Tells its process, then works until it is killed or told to end."""
    import os
    import time
    from pathlib import Path

    from graftline.steps.runtime import step

    with step("slow"):
        Path(folder, "pid").write_text(str(os.getpid()))
        while not Path(folder, "end").exists():
            time.sleep(0.02)
    return folder


def early(folder: str) -> str:
    """Is killed before its first record, as in an import."""
    import os
    import signal

    os.kill(os.getpid(), signal.SIGKILL)
    return folder


def crashing(folder: str) -> str:
    """A library of it crashes."""
    import os
    import signal

    from graftline.steps.runtime import step

    with step("crashing"):
        os.kill(os.getpid(), signal.SIGSEGV)
    return folder


def leaving(folder: str) -> str:
    """A library of it ends the process."""
    import os

    os._exit(3)
    return folder


@pytest.fixture(scope="module")
def warm() -> Iterator[WarmServer]:
    server = WarmServer()
    yield server
    server.close()


def run_one(
    function: Callable[..., Any], folder: Path, monkeypatch: Any, server: WarmServer | None
) -> local.LocalRun:
    """A run of one step or more, in forks of a server or in processes of their own."""
    monkeypatch.setenv("GRAFTLINE_COLD", "1")  # where there is no server
    (folder / "store" / PREFIX).mkdir(parents=True)
    (folder / "store" / PREFIX / "any").touch()  # so that the server imports no PyTorch
    settings = RunSettings.model_validate(
        {
            "name": "small",
            "data": {"source": str(folder)},
            "store": str(folder / "store"),
            "tracking": {"uri": f"sqlite:///{folder}/mlflow.db"},
        }
    )

    def build(_: RunSettings, __: str) -> Any:
        @dsl.pipeline(name="small")
        def small() -> None:
            made: Any = str(folder)
            made = dsl.component(func=function, base_image="python", install_kfp_package=False)(
                folder=made
            ).output
            dsl.component(func=after, base_image="python", install_kfp_package=False)(folder=made)

        return small

    console = Console(file=io.StringIO())
    return local.run(settings, build, runs_dir=folder / "runs", console=console, server=server)


def after(folder: str) -> None:
    """The step after the one that is killed."""
    from pathlib import Path

    Path(folder, "after").touch()


def once_it_works(folder: Path, act: Callable[[int], None]) -> threading.Thread:
    """Do something to the step's process as soon as it has told its number."""

    def watch() -> None:
        told = folder / "pid"
        while not told.exists() or not told.read_text():
            time.sleep(0.02)
        act(int(told.read_text()))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


@pytest.mark.usefixtures("mlflow_sqlite")
@pytest.mark.parametrize("way", ["warm", "cold"])
def test_a_step_that_is_killed_is_named_with_the_cause(
    way: str, tmp_path: Path, monkeypatch: Any, request: Any, record_property: Any
) -> None:
    server = request.getfixturevalue("warm") if way == "warm" else None
    once_it_works(tmp_path, lambda pid: os.kill(pid, signal.SIGKILL))
    with pytest.raises(local.StepFailed, match="killed") as caught:
        run_one(slow, tmp_path, monkeypatch, server)
    assert caught.value.step == "slow"
    assert "lack of memory" in str(caught.value) and "run again" in str(caught.value)
    assert not (tmp_path / "after").exists()
    record_property("points", 1)


@pytest.mark.usefixtures("mlflow_sqlite")
@pytest.mark.parametrize("way", ["warm", "cold"])
@pytest.mark.parametrize(
    ("function", "said"),
    [(early, "lack of memory"), (crashing, "SIGSEGV"), (leaving, "code 3")],
)
def test_a_step_without_an_error_of_its_own_is_named_with_how_it_ended(
    function: Any, said: str, way: str, tmp_path: Path, monkeypatch: Any, request: Any
) -> None:
    server = request.getfixturevalue("warm") if way == "warm" else None
    with pytest.raises(local.StepFailed) as caught:
        run_one(function, tmp_path, monkeypatch, server)
    assert caught.value.step == function.__name__
    assert said in str(caught.value)
    assert caught.value.log.exists()


def stopping(folder: str) -> str:
    """Is stopped by Ctrl-C."""
    import os
    import signal

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    os.kill(os.getpid(), signal.SIGINT)
    return folder


@pytest.mark.usefixtures("mlflow_sqlite")
@pytest.mark.parametrize("way", ["warm", "cold"])
def test_a_step_that_is_stopped_stops_the_run(
    way: str, tmp_path: Path, monkeypatch: Any, request: Any
) -> None:
    """Ctrl-C reaches both; where it gets lost in the command, the step's end tells."""
    server = request.getfixturevalue("warm") if way == "warm" else None
    with pytest.raises(KeyboardInterrupt):
        run_one(stopping, tmp_path, monkeypatch, server)


@pytest.mark.usefixtures("mlflow_sqlite")
def test_a_step_outlives_the_server_that_started_it(
    tmp_path: Path, monkeypatch: Any, record_property: Any
) -> None:
    server = WarmServer()

    def kill(_: int) -> None:
        server._process.kill()
        server._process.wait()
        time.sleep(0.5)  # the run must not take this for the end of the step
        (tmp_path / "end").touch()

    once_it_works(tmp_path, kill)
    try:
        run_one(slow, tmp_path, monkeypatch, server)
    finally:
        server.close()
    assert (tmp_path / "after").exists()  # in a process of its own
    record_property("points", 1)


@pytest.mark.slow
@pytest.mark.usefixtures("mlflow_sqlite")
def test_server_and_step_killed_together_end_the_run(
    tmp_path: Path, monkeypatch: Any, record_property: Any
) -> None:
    server = WarmServer()

    beside: list[int] = []

    def kill(pid: int) -> None:
        with server.calling("time:sleep", 120):  # a later fork must not keep the run waiting
            while len(beside) < 2:
                beside[:] = descendants(server._process.pid)
                time.sleep(0.02)
            server._process.kill()
            os.kill(pid, signal.SIGKILL)

    once_it_works(tmp_path, kill)
    started = time.monotonic()
    try:
        with pytest.raises(local.StepFailed, match="lack of memory") as caught:
            run_one(slow, tmp_path, monkeypatch, server)
        assert time.monotonic() - started < 100  # it sleeps still
    finally:
        server.close()
        for pid in beside:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    assert caught.value.step == "slow"
    record_property("points", 1)


def descendants(pid: int) -> list[int]:
    """Processes below one, the youngest of each branch last."""
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in path.read_text().split():
            found += [int(child), *descendants(int(child))]
    return found


def kill_at(sign: str, folder: Path, below: Callable[[], list[int]]) -> list[tuple[float, bytes]]:
    """Kill the youngest of some processes once there is a file; when, and all command lines."""
    killed: list[tuple[float, bytes]] = []

    def watch() -> None:
        while not list(folder.glob(sign)):
            time.sleep(0.01)
        lines = b""
        for pid in below():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                lines += Path(f"/proc/{pid}/cmdline").read_bytes()
        os.kill(below()[-1], signal.SIGKILL)
        killed.append((time.monotonic(), lines))

    threading.Thread(target=watch, daemon=True).start()
    return killed


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("way", ["warm", "cold"])
def test_a_killed_step_of_a_real_run_ends_it_in_time_and_the_next_run_goes_on(
    way: str,
    warm: WarmServer,
    make_digits_folder: Callable[..., Path],
    mlflow_sqlite: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Any,
) -> None:
    """One run after the other on the same store; each goes on from where one was killed."""
    monkeypatch.setenv("GRAFTLINE_COLD", "1")  # where there is no server
    for name in ("MLFLOW_TRACKING_TOKEN", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, SECRET)
    settings = RunSettings.model_validate(
        {
            "name": "small",
            "data": {"source": str(make_digits_folder(20, 3))},
            "store": str(tmp_path / "store"),
            "backbone": "mobilenetv3_small_050",
            "weights": "random",
            "image_size": 32,
            "strategy": "probe",
            "tracking": {"uri": mlflow_sqlite},
            "evaluation": {"bootstrap": 200, "robustness_images": 0},
        }
    )

    before = descendants(os.getpid())

    def below() -> list[int]:
        return [pid for pid in descendants(os.getpid()) if pid not in before]

    def run(number: int, server: WarmServer | None) -> local.LocalRun:
        console = Console(file=io.StringIO())
        runs = tmp_path / f"runs-{number}"
        build = partial(training_pipeline, on_cluster=False)
        return local.run(settings, build, runs_dir=runs, console=console, server=server)

    steps = ("ingest", "extract_features", "evaluate")
    for number, step in enumerate(steps):
        killed = kill_at(f"runs-{number}/*/steps/{step}.events.jsonl", tmp_path, below)
        with pytest.raises(local.StepFailed, match="lack of memory") as caught:
            run(number, warm if way == "warm" else None)
        assert caught.value.step == step
        ((when, command_lines),) = killed
        assert time.monotonic() - when < BOUND
        assert command_lines and b"s3cret" not in command_lines  # which everyone can list
        record_property("points", 1)
    done = run(len(steps), warm)
    told = json.loads((done.run_dir / "steps" / "extract_features.json").read_text())
    assert (told["extracted"], told["reused"]) == (0, 60)  # an earlier run's, before it was killed
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or b"s3cret" not in path.read_bytes(), path
