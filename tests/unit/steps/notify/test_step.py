"""The notification: what it says, and that it ends cleanly whatever the webhook does."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from graftline.records.retrain_notice import read_notice, write_notice
from graftline.records.run_records import StepRecord
from graftline.steps.notify.outcome import outcome
from graftline.steps.notify.step import URL_VARIABLE, NotifyResult, compose, run
from graftline.storage import open_store
from graftline.tracking.mlflow_run import start_run
from graftline.tracking.registry import open_registry


class Webhook:
    """A real HTTP server that answers with given statuses and keeps what it was sent."""

    def __init__(self) -> None:
        self.statuses = [200]
        self.bodies: list[dict] = []
        webhook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                webhook.bodies.append(json.loads(body))
                statuses = webhook.statuses
                status = statuses.pop(0) if len(statuses) > 1 else statuses[0]
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/services/SECRET"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    hook = Webhook()
    yield hook
    hook.server.shutdown()
    hook.server.server_close()


@pytest.fixture
def tell(tmp_path: Path, mlflow_sqlite: str) -> Callable[..., NotifyResult]:
    def call(url: str = "", state: str = "SUCCEEDED", error: str = "", **rest: object):
        return run(
            name="digits-7",
            state=state,
            error=error,
            store=str(tmp_path / "store"),
            tracking_uri=mlflow_sqlite,
            registered_model="digits",
            environment={URL_VARIABLE: url} if url else {},
            sleep=lambda seconds: None,
            **rest,
        )

    return call


def test_tells_what_the_look_found(webhook: Webhook, tell, tmp_path: Path) -> None:
    write_notice(str(tmp_path / "store"), "digits", False, ["Nothing changed."])
    assert tell(webhook.url).sent
    assert webhook.bodies == [
        {
            "text": "digits-7: nothing to train",
            "attachments": [{"color": "#57606a", "text": "• Nothing changed."}],
        }
    ]


def test_tells_who_is_champion_after_a_training(webhook: Webhook, tell, tmp_path: Path) -> None:
    write_notice(str(tmp_path / "store"), "digits", True, ["9 new images."])
    assert tell(webhook.url).sent
    text = webhook.bodies[0]["attachments"][0]["text"]
    assert webhook.bodies[0]["text"] == "digits-7: trained"
    assert text.splitlines() == [
        "• digits has no champion: the new model was not good enough.",
        "• 9 new images.",
    ]


def test_tells_whether_the_new_model_won(
    webhook: Webhook, tell, tmp_path: Path, mlflow_sqlite: str
) -> None:
    store, registry = open_store(str(tmp_path / "store")), open_registry(mlflow_sqlite)
    write_notice(store.uri, "digits", True, ["9 new images."])
    for won in (True, False):
        run_id = start_run(mlflow_sqlite, "digits", "a run")
        tags = {"onnx_sha256": run_id, "content_sha256": run_id, "store": store.uri}
        version = registry.register(
            "digits", run_id=run_id, source=tmp_path.as_uri(), tags=tags, store=store
        )
        if won:
            registry.promote(version, compared_with=None, verdict=run_id, store=store)
        assert tell(webhook.url).sent
    said = [body["attachments"][0]["text"].splitlines()[0] for body in webhook.bodies]
    assert said == [
        "• The champion of digits is version 1.",
        "• Version 2 of digits is not better: version 1 stays champion.",
    ]


def test_tells_of_a_failure_in_the_words_of_kfp(webhook: Webhook, tell) -> None:
    assert tell(webhook.url, "FAILED", "Step <fit> broke & ended").sent
    assert webhook.bodies[0]["text"] == "digits-7: failed"
    assert "Step &lt;fit&gt; broke &amp; ended" in webhook.bodies[0]["attachments"][0]["text"]


@pytest.mark.parametrize("statuses", [[503, 200], [429, 500, 200]])
def test_tries_again_where_it_may_help(webhook: Webhook, tell, statuses: list[int]) -> None:
    webhook.statuses = statuses
    assert tell(webhook.url).sent
    assert len(webhook.bodies) == len(statuses) or webhook.statuses == [200]


def test_does_not_insist_where_the_webhook_refuses(webhook: Webhook, tell) -> None:
    webhook.statuses = [404]
    result = tell(webhook.url)
    assert not result.sent
    assert result.why_not == "the webhook answers with status 404"
    assert len(webhook.bodies) == 1


def test_ends_cleanly_when_the_webhook_is_down(webhook: Webhook, tell) -> None:
    webhook.server.shutdown()
    webhook.server.server_close()
    result = tell(webhook.url)
    assert not result.sent
    assert "does not answer" in result.why_not
    assert "SECRET" not in result.why_not + result.text


@pytest.mark.parametrize("habit", ["silent", "dripping", "cutting", "babbling"])
def test_ends_cleanly_whatever_the_webhook_does(
    habit: str, tell, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It takes the connection and then: says nothing; a byte at a time; hangs up; no HTTP."""
    monkeypatch.setattr("graftline.steps.notify.step.TIMEOUT_SECONDS", 0.2)
    monkeypatch.setattr("graftline.steps.notify.step.TOTAL_SECONDS", 0.6)
    ended = threading.Event()
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while not ended.is_set():
            with contextlib.suppress(OSError):
                connection, _ = server.accept()
                threading.Thread(target=behave, args=(connection,), daemon=True).start()

    def behave(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            if habit == "silent":
                ended.wait(5)
            elif habit == "babbling":
                connection.sendall(b"\x00\xff" * 500 + b"\n")
            while habit == "dripping" and not ended.wait(0.05):
                connection.sendall(b"H")

    threading.Thread(target=serve, daemon=True).start()
    try:
        result = tell(f"http://127.0.0.1:{server.getsockname()[1]}/services/SECRET")
    finally:
        ended.set()
        server.close()
    assert not result.sent
    assert result.why_not.startswith("the webhook ")
    assert "SECRET" not in result.why_not + result.text + caplog.text


def test_an_answer_without_end_is_not_waited_for(tell) -> None:
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = server.accept()
        with connection, contextlib.suppress(OSError):
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nok")
            time.sleep(30)

    threading.Thread(target=serve, daemon=True).start()
    with server:
        assert tell(f"http://127.0.0.1:{server.getsockname()[1]}/x").sent


def test_ends_cleanly_when_store_and_mlflow_are_gone(webhook: Webhook) -> None:
    result = run(
        name="digits-7",
        state="SUCCEEDED",
        error="",
        store="/proc/nothing/here",
        tracking_uri="http://127.0.0.1:9",
        registered_model="digits",
        environment={URL_VARIABLE: webhook.url},
    )
    assert result.sent
    assert webhook.bodies[0]["text"] == "digits-7: trained"


def test_without_an_address_nobody_is_told(tell) -> None:
    assert tell().why_not == "GRAFTLINE_WEBHOOK_URL is not set"
    assert tell("ftp://x").why_not == "GRAFTLINE_WEBHOOK_URL is not an http address"


def test_quiet_says_nothing_of_nothing(webhook: Webhook, tell, tmp_path: Path) -> None:
    write_notice(str(tmp_path / "store"), "digits", False, ["Nothing changed."])
    assert not tell(webhook.url, quiet=True).sent
    assert tell(webhook.url, "FAILED", quiet=True).sent


NIGHT = {"start": False, "reasons": []}
DAY = {"start": True, "reasons": []}
FAILED_STEP = StepRecord(step="ingest", state="failed", when="2026-01-01", what="No images.")


@pytest.mark.parametrize(
    ("state", "news", "records", "promoted", "ended"),
    [
        ("COMPLETE", DAY, (), False, "trained"),
        ("SUCCEEDED", DAY, (), False, "trained"),
        ("CACHED", DAY, (), False, "trained"),
        ("COMPLETE", NIGHT, (), False, "nothing"),
        ("RUNNING", NIGHT, (), False, "nothing"),
        ("RUNNING", DAY, (), True, "trained"),
        ("RUNNING", DAY, (), False, "failed"),
        ("RUNNING", None, (), False, "unknown"),
        ("RUNNING", None, (FAILED_STEP,), False, "failed"),
        ("COMPLETE", None, (), False, "trained"),
        ("FAILED", DAY, (), True, "failed"),
        ("FAILED", NIGHT, (), False, "failed"),
        ("CANCELED", DAY, (), False, "stopped"),
        ("CANCELLED", None, (), False, "stopped"),
    ],
)
def test_how_a_run_ended(
    state: str, news: dict | None, records: tuple, promoted: bool, ended: str
) -> None:
    assert outcome(state, news, records, promoted=promoted) == ended


def test_a_model_registered_since_the_look_is_a_training(
    tmp_path: Path, mlflow_sqlite: str, tell
) -> None:
    """The step's own record may be missing; the registry has the version."""
    store, registry = open_store(str(tmp_path / "store")), open_registry(mlflow_sqlite)

    def register(name: str) -> None:
        run_id = start_run(mlflow_sqlite, "digits", name)
        tags = {"onnx_sha256": run_id, "content_sha256": run_id, "store": store.uri}
        registry.register("digits", run_id=run_id, source=tmp_path.as_uri(), tags=tags, store=store)

    register("an earlier night's")
    time.sleep(1.1)  # the look's time is in whole seconds
    write_notice(store.uri, "digits", True, ["9 new images."])
    assert tell(state="RUNNING").text.startswith("digits-7: failed")
    register("tonight's")
    assert tell(state="RUNNING").text.startswith("digits-7: trained")


def test_a_message_stays_short() -> None:
    news = {"start": True, "reasons": ["x" * 5000] * 50}
    body = compose("r", "SUCCEEDED", "", news, None)
    assert len(json.dumps(body)) < 6000


def test_news_of_another_schema_are_not_read(tmp_path: Path) -> None:
    from graftline.storage import open_store

    place = str(tmp_path / "store")
    assert read_notice(place, "digits") is None
    open_store(place).write("news/digits.json", b'{"schema_version": 99}')
    assert read_notice(place, "digits") is None
