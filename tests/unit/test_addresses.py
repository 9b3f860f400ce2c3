"""Metadata services of clouds, in the ways of writing their addresses."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from pydantic import ValidationError

from graftline.addresses import is_metadata_address, leads_to_metadata, split_address
from graftline.errors import ClusterError, ConfigurationError, TrackingError
from graftline.steps.notify.step import _status
from graftline.tracking.client import connect
from graftline.tracking.server_answers import mlflow_errors
from graftline_pipelines.cluster.auth import Login, healthz
from graftline_pipelines.runfile.settings import RunSettings

FORBIDDEN = [
    "http://169.254.169.254/latest/meta-data/",
    "HTTP://169.254.169.254#@mlflow/",
    "http://2852039166/",
    "http://0xA9FEA9FE/",
    "http://0xa9.0xfe.0xa9.0xfe",
    "http://0251.0376.0251.0376/",
    "http://169.254.43518/",
    "http://169.254.170.2/v2/credentials",
    "http://[::ffff:169.254.169.254]/",
    "http://[::ffff:a9fe:a9fe]:80/",
    "http://[::a9fe:a9fe]/",
    "http://[64:ff9b::a9fe:a9fe]/",
    "http://[2002:a9fe:a9fe::1]",
    "http://[fd00:ec2::254]/",
    "http://[fe80::1%25eth0]/",
    "http://metadata.google.internal/computeMetadata/v1/",
    "http://Metadata.Google.Internal.:80/",
    "http://100.100.100.200/",
    "http://１６９.254.169.254/",
    "http://169。254。169。254/",
    "http://%31%36%39.254.169.254/",
    "http://169.254.169.254.nip.io/",
    "http://169-254-169-254.sslip.io",
]
ALLOWED = [
    *("http://mlflow:5000", "http://10.0.0.5:5000", "http://[::1]:5000", "http://127.0.0.1"),
    *("sqlite:///x.db", "s3://bucket/169.254.169.254", "file:///x", "databricks"),
    *("http://metadata.example.com", "http://192.168.1.1.nip.io", "https://mlflow.example.com/a"),
]


@pytest.mark.parametrize("uri", FORBIDDEN)
def test_a_run_file_leads_to_no_metadata_service(uri: str) -> None:
    assert is_metadata_address(uri)
    values = {"name": "a", "data": {"source": "x"}, "store": "y", "tracking": {"uri": uri}}
    with pytest.raises(ValidationError, match=r"metadata service|password"):
        RunSettings.model_validate(values)


@pytest.mark.parametrize("answer", ["169.254.169.254", "fd00:ec2::254", "fe80::1%eth0"])
def test_a_name_that_resolves_to_a_metadata_service_is_not_asked(
    answer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolved = [(0, 0, 0, "", ("10.1.2.3", 0)), (0, 0, 0, "", (answer, 0))]
    asked: list[str] = []

    def resolve(host: str, *_: object, **__: object) -> list[object]:
        asked.append(host)
        return list(resolved)

    monkeypatch.setattr("socket.getaddrinfo", resolve)
    monkeypatch.setattr("requests.sessions.Session.send", lambda *_, **__: pytest.fail("sent"))
    assert leads_to_metadata("http://mlflow.example.com:5000/x")
    with pytest.raises(ConfigurationError, match="metadata service"):
        connect("http://mlflow.example.com:5000")
    with pytest.raises(ClusterError, match="metadata service"):
        healthz("http://kfp.example.com", Login("none"))
    assert "metadata service" in str(_status("http://hook.example.com/x", "{}"))
    assert {"mlflow.example.com", "kfp.example.com", "hook.example.com"} == set(asked)
    del resolved[1]
    assert not leads_to_metadata("http://mlflow.example.com:5000/x")


def test_mlflow_follows_no_redirect_to_a_metadata_service() -> None:
    """A server answers the health check, and then sends each request somewhere else."""
    met: list[str] = []

    class Elsewhere(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            met.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"AccessKeyId": "the-machines-key"}')

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            return

    class Redirecting(Elsewhere):
        def do_GET(self) -> None:
            if self.path == "/health":
                self.send_response(200)
                self.end_headers()
                return
            self.send_response(302)
            self.send_header("Location", f"http://127.0.0.1:{there}/latest/meta-data/")
            self.end_headers()

        do_POST = do_GET

    servers = [ThreadingHTTPServer(("127.0.0.1", 0), kind) for kind in (Elsewhere, Redirecting)]
    there, here = (server.server_address[1] for server in servers)
    for server in servers:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        uri = f"http://127.0.0.1:{here}"
        with pytest.raises(TrackingError) as refused, mlflow_errors(uri, "an experiment"):
            connect(uri).get_experiment_by_name("x")
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
    assert not met and "the-machines-key" not in str(refused.value)


@pytest.mark.parametrize("uri", ALLOWED)
def test_other_servers_are_reached(uri: str) -> None:
    assert not is_metadata_address(uri)


@pytest.mark.parametrize(
    "address", ["http://[::1", "http://a]b/", "http://host:port/", "s3://[b/k"]
)
def test_what_is_no_address_is_a_mistake_of_its_own(address: str) -> None:
    with pytest.raises(ConfigurationError, match="is not an address"):
        split_address(address)


def test_what_is_no_address_is_quoted_without_its_login() -> None:
    with pytest.raises(ConfigurationError) as caught:
        split_address("http://user:planted@[::1/mlflow")
    assert "planted" not in str(caught.value) and "http://***@[::1/mlflow" in str(caught.value)
