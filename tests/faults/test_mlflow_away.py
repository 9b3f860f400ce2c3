"""MLflow out of reach: before the start, at every write of a promotion, and for good."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.http_server import free_port

from graftline.errors import TrackingError, TrackingUnreachable
from graftline.records.verdict import GateTest, Verdict, write_verdict
from graftline.steps.promote import step as promote_step
from graftline.steps.runtime import StepResult
from graftline.tracking.champion_alias import ALIAS
from graftline.tracking.client import connect
from graftline.tracking.mlflow_run import log_result, start_run
from graftline.tracking.registry import open_registry


class Line:
    """The only way to a server, which can be cut and reconnected; the port stays the same."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition("//")[2].partition(":")
        self._target = (host, int(port))
        self._connections: list[socket.socket] = []
        self._port = 0
        self._listener: socket.socket | None = None
        self.reconnect()

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def reconnect(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self._port))
        self._port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def cut(self) -> None:
        if self._listener is None:
            return
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits on it
        self._listener.close()
        self._listener = None
        for connection in self._connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
        self._connections.clear()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            far = socket.create_connection(self._target)
            self._connections += [near, far]
            for ends in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=ends, daemon=True).start()

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(1 << 16):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            source.close()
            sink.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow's client gives up at once, rather than after the seconds that we allow it."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    monkeypatch.setattr("graftline.tracking.champion_alias.PATIENCE_SECONDS", 0.1)


@pytest.fixture
def line(mlflow_uri: str, impatient: None) -> Iterator[Line]:
    made = Line(mlflow_uri)
    yield made
    made.cut()


@pytest.fixture
def promote(exported_model, tmp_path: Path) -> Callable[..., promote_step.PromoteResult]:
    folder, snapshot, _ = exported_model
    passed = [GateTest(name="floor", passed=True, reason="It is high enough.")]
    verdict = Verdict(promote=True, reasons=["Good."], tests=passed, snapshot_id=snapshot.id)
    write_verdict(tmp_path / "verdict.json", verdict)

    def run(uri: str, run_id: str, name: str) -> promote_step.PromoteResult:
        return promote_step.run(
            onnx_folder=folder / "onnx",
            verdict_file=tmp_path / "verdict.json",
            report_file=None,
            classifier_folder=folder / "classifier",
            snapshot_folder=folder / "snapshot",
            store=str(tmp_path / f"store-{name}"),
            tracking_uri=uri,
            tracking_run_id=run_id,
            registered_model=name,
        )

    return run


@pytest.mark.timeout(60)  # MLflow's own client alone would try for minutes
def test_a_server_that_is_away_is_told_by_its_address_and_what_to_do():
    uri = f"http://user:hunter2@127.0.0.1:{free_port()}"
    with pytest.raises(TrackingUnreachable) as caught:
        start_run(uri, "animals", "run")
    assert "does not answer" in str(caught.value)
    assert "tracking.uri" in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.timeout(60)
def test_a_server_that_accepts_and_never_answers_is_given_up(monkeypatch):
    monkeypatch.setattr("graftline.tracking.server_answers.PROBE_SECONDS", 1)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        uri = f"http://127.0.0.1:{mute.getsockname()[1]}"
        with pytest.raises(TrackingUnreachable, match="does not answer"):
            open_registry(uri)


class Done(StepResult):
    def metrics(self) -> dict[str, float]:
        return {"accuracy": 0.9}

    def params(self) -> dict[str, str]:
        return {"backbone": "small"}

    def files(self) -> dict[str, Path]:
        return {}


def test_a_finished_step_is_not_lost_to_a_server_that_went_away(line, caplog):
    caplog.set_level("INFO")
    run_id = start_run(line.uri, "away", "run")
    line.cut()
    log_result(line.uri, run_id, "fit_head", Done())
    warning = "WARNING: the rest of this step's record is not in MLflow"
    assert caplog.text.count(warning) == 1
    line.reconnect()
    log_result(line.uri, run_id, "fit_head", Done())
    data = connect(line.uri).get_run(run_id).data
    assert data.metrics == {"fit_head.accuracy": 0.9}


WRITES = (
    ("mlflow.tracking.client.MlflowClient", "log_artifacts"),
    ("mlflow.tracking.client.MlflowClient", "create_registered_model"),
    ("mlflow.tracking.client.MlflowClient", "create_model_version"),
    ("mlflow.tracking.client.MlflowClient", "set_registered_model_alias"),
    ("mlflow.tracking.client.MlflowClient", "set_model_version_tag"),
)


def test_lost_at_any_write_a_promotion_says_so_and_a_second_call_finishes_it(
    line, promote, at_write_edge, record_property
):
    interrupted = 0
    for moment in range(1, 40):
        name = f"away-{moment}-{uuid.uuid4().hex[:6]}"
        run_id = start_run(line.uri, "away", name)
        with pytest.MonkeyPatch.context() as patch:
            at_write_edge(moment, WRITES, line.cut, patch.setattr)
            try:
                promote(line.uri, run_id, name)
            except TrackingError as error:
                assert isinstance(error, TrackingUnreachable), moment
                line.reconnect()
                interrupted += 1
            else:
                if interrupted and moment > 2 * len(WRITES):
                    break
                line.cut()  # cut after the last request: nothing was lost
                line.reconnect()
        result = promote(line.uri, run_id, name)
        assert (result.version, result.alias) == ("1", ALIAS)
        client = connect(line.uri)
        assert str(client.get_registered_model(name).aliases[ALIAS]) == "1"
        assert len(client.search_model_versions(f"name='{name}'")) == 1
        assert len(open_registry(line.uri).history(name)) == 1
    assert interrupted >= 2 * len(WRITES) - 1
    record_property("points", interrupted)


@pytest.fixture
def own_server(_mlflow_template: Path, tmp_path: Path) -> Iterator[tuple[str, Callable, Callable]]:
    """A server that a test may kill: its URI, how to kill it, how to start it again."""
    shutil.copy(_mlflow_template, tmp_path / "mlflow.db")
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db"]
    command += ["--artifacts-destination", str(tmp_path / "artifacts")]
    running: list[subprocess.Popen[bytes]] = []
    uri = f"http://127.0.0.1:{port}"

    def start() -> None:
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=(tmp_path / "log").open("ab"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        running.append(process)
        for _ in range(900):
            assert process.poll() is None, (tmp_path / "log").read_text()[-2000:]
            try:
                with urllib.request.urlopen(uri + "/health", timeout=2):
                    return
            except OSError:
                time.sleep(0.1)
        raise RuntimeError("the server did not start")

    def kill() -> None:
        process = running.pop()
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    start()
    yield uri, kill, start
    while running:
        kill()


@pytest.mark.slow
def test_a_server_killed_after_the_upload_is_told_and_the_rerun_registers_once(
    own_server, promote, impatient, monkeypatch, record_property
):
    uri, kill, start = own_server
    run_id = start_run(uri, "killed", "run")
    uploaded = promote_step._upload

    def upload_and_kill(*args):
        source = uploaded(*args)
        kill()
        return source

    monkeypatch.setattr(promote_step, "_upload", upload_and_kill)
    with pytest.raises(TrackingUnreachable, match="does not answer"):
        promote(uri, run_id, "killed")
    monkeypatch.setattr(promote_step, "_upload", uploaded)
    start()
    result = promote(uri, run_id, "killed")
    assert (result.version, result.alias) == ("1", ALIAS)
    assert len(connect(uri).search_model_versions("name='killed'")) == 1
    record_property("points", 1)
