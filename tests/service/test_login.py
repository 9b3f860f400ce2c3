"""Who we are to a server, and every way in which it does not let us in; through the commands."""

import http.server
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.http_server import free_port

from graftline_pipelines.cluster import auth
from graftline_pipelines.cluster import server as cluster
from graftline_pipelines.cluster.errors import LoginRequired, translated

Run = Callable[..., Any]


def test_token(kfp: Any, graftline: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    kfp.control("settings", token="good")
    monkeypatch.setenv("GRAFTLINE_KFP_TOKEN", "good")
    assert graftline("runs").code == 0
    monkeypatch.setenv("GRAFTLINE_KFP_TOKEN", "expired")
    said = graftline("runs")
    assert said.code == 1 and "does not accept the login (status 401)" in said.err
    assert "Why: Failed to authorize the request: Request header error" in said.err
    assert "GRAFTLINE_KFP_TOKEN" in said.err and "expired" not in said.err.split("Why")[0]
    monkeypatch.delenv("GRAFTLINE_KFP_TOKEN")
    assert graftline("runs").code == 1


def test_a_token_that_expires_while_following(
    kfp: Any, graftline: Run, run_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    kfp.control("settings", token="good")
    monkeypatch.setenv("GRAFTLINE_KFP_TOKEN", "good")
    started = graftline("submit", run_file(), "--no-registry", "--json").json
    run = f"GET /apis/v2beta1/runs/{started['run_id']}"
    kfp.control("settings", fail_after={run: [1, 401]})
    said = graftline("follow", started["run_id"])
    assert said.code == 1 and "does not accept the login" in said.err


def test_cookie(kfp: Any, graftline: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    kfp.control("settings", cookie="oauth2_proxy=abc")
    monkeypatch.setenv("GRAFTLINE_KFP_COOKIE", "oauth2_proxy=abc")
    assert graftline("runs").code == 0
    monkeypatch.setenv("GRAFTLINE_KFP_COOKIE", "oauth2_proxy=old")
    said = graftline("runs")
    assert said.code == 1 and "status 403" in said.err and "RBAC: access denied" in said.err


def test_service_account_token_volume(
    kfp: Any, graftline: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The token is read anew for each request: Kubernetes renews the file."""
    path = tmp_path / "token"
    path.write_text("first")
    kfp.control("settings", token="first")
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(path))
    server = cluster.connect(kfp.url)
    assert server.runs(limit=5) == []
    path.write_text("second")
    kfp.control("settings", token="second")
    assert server.runs(limit=5) == [] and server.workflow("none") is None
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(tmp_path / "absent"))
    said = graftline("runs")
    assert said.code == 2 and "there is no file" in said.err


def test_the_projected_token_inside_a_cluster(
    kfp: Any, graftline: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("projected")
    monkeypatch.setattr(auth, "TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setattr(auth, "IN_CLUSTER_HOST", kfp.url)
    monkeypatch.delenv("KF_PIPELINES_ENDPOINT")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    kfp.control("settings", token="projected")
    assert graftline("runs").code == 0


def test_a_login_page_in_place_of_the_api(kfp: Any, graftline: Run) -> None:
    kfp.control("settings", login_page=True)
    said = graftline("runs")
    assert said.code == 1 and "answers with a web page instead of the API" in said.err
    assert "has expired" in said.err


def test_a_login_page_that_comes_later(kfp: Any) -> None:
    server = cluster.connect(kfp.url)
    kfp.control("settings", login_page=True)
    with pytest.raises(LoginRequired, match="web page"):
        server.runs(limit=5)


def test_what_the_account_may_not_do(
    kfp: Any, graftline: Run, run_file: Callable[..., Path]
) -> None:
    kfp.control("settings", forbidden=["POST /apis/v2beta1/runs"])
    said = graftline("submit", run_file(), "--no-registry")
    assert said.code == 1 and "does not allow the run" in said.err and "status 403" in said.err
    assert "kubeflow-pipelines-edit" in said.err


def test_an_upload_that_is_refused_without_a_reason(
    kfp: Any, graftline: Run, run_file: Callable[..., Path]
) -> None:
    kfp.control("settings", forbidden=["upload "])
    said = graftline("submit", run_file(), "--no-registry")
    assert said.code == 1 and "The server does not say why" in said.err


# --- addresses ----------------------------------------------------------------------------------


def test_no_address(graftline: Run, kfp: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KF_PIPELINES_ENDPOINT")
    said = graftline("stop", "a-run")
    assert said.code == 2 and "No Kubeflow Pipelines server is named" in said.err
    assert "port-forward" in said.err
    said = graftline("runs", "--host", "kubeflow.example.com")
    assert said.code == 2 and "https://kubeflow.example.com" in said.err


def test_nobody_listens(graftline: Run, kfp: Any) -> None:
    said = graftline("runs", "--host", f"http://127.0.0.1:{free_port()}")
    assert said.code == 1 and "does not answer" in said.err and "Connection refused" in said.err


def test_https_where_http_is_spoken(graftline: Run, kfp: Any) -> None:
    said = graftline("runs", "--host", kfp.url.replace("http://", "https://"))
    assert said.code == 1 and "speaks no TLS" in said.err and f"Write {kfp.url}" in said.err


def test_no_such_host(graftline: Run, kfp: Any) -> None:
    said = graftline("runs", "--host", "http://kubeflow.invalid")
    assert said.code == 1 and "http://kubeflow.invalid does not answer" in said.err


@pytest.fixture
def silent_host() -> Iterator[str]:
    """Accepts a connection and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_a_host_that_never_answers(
    graftline: Run, kfp: Any, silent_host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "CONNECT_SECONDS", 0.2)
    said = graftline("runs", "--host", silent_host)
    assert said.code == 1 and "does not answer" in said.err and "timed out" in said.err


def test_a_gateway_that_limits_requests(graftline: Run, kfp: Any) -> None:
    kfp.control("settings", fail={"GET /apis/v2beta1/healthz": 429})
    said = graftline("runs")
    assert said.code == 1 and "status 429" in said.err and "run it again later" in said.err


@pytest.fixture
def other_server() -> Iterator[str]:
    """A web server that is not Kubeflow Pipelines."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, *arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_something_else_listens(graftline: Run, kfp: Any, other_server: str) -> None:
    said = graftline("runs", "--host", other_server)
    assert said.code == 1 and "does not answer as Kubeflow Pipelines does" in said.err


def test_a_gateway_without_a_server(graftline: Run, kfp: Any) -> None:
    kfp.control("settings", fail={"GET /apis/v2beta1/healthz": 503})
    said = graftline("runs")
    assert said.code == 1 and "no server behind it at the moment" in said.err


# --- versions and namespaces --------------------------------------------------------------------


def test_another_major_version(kfp: Any, graftline: Run) -> None:
    kfp.control("settings", version="1.8.5")
    said = graftline("runs")
    assert said.code == 1 and "is Kubeflow Pipelines 1.8.5, and this client is 2." in said.err


def test_an_older_server_is_told_and_used(
    kfp: Any, graftline: Run, run_file: Callable[..., Path]
) -> None:
    kfp.control("settings", version="2.4.0")
    said = graftline("submit", run_file(), "--no-registry")
    assert said.code == 0 and "older than this client" in said.out
    kfp.control("settings", version="unknown")
    assert "Note" not in graftline("runs").out


def test_a_field_that_an_older_server_does_not_know() -> None:
    said = str(translated("http://kfp", "the run 'x'", 400, 'proto: unknown field "plugins_input"'))
    assert "unknown field" in said and "The server is older than this client" in said


def test_several_users(
    kfp: Any, graftline: Run, run_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "POD_NAMESPACE_FILE", "/nowhere")
    kfp.control("settings", multi_user=True)
    said = graftline("submit", run_file(), "--no-registry")
    assert said.code == 2 and "cluster.namespace is missing" in said.err
    mine = run_file(cluster={"namespace": "team-a"})
    done = graftline("submit", mine, "--no-registry", "--json")
    assert done.code == 0, done.err
    assert kfp.table("experiments")[0]["namespace"] == "team-a"
    assert kfp.table("pipelines")[0]["namespace"] == "team-a"
    assert done.json["run_name"] in graftline("runs", "--namespace", "team-a").out
    assert "No runs." in graftline("runs", "--namespace", "team-b").out
    again = graftline("submit", mine, "--no-registry", "--json")
    assert not again.json["uploaded"]


def test_one_user_ignores_the_namespace(
    kfp: Any, graftline: Run, run_file: Callable[..., Path]
) -> None:
    done = graftline("submit", run_file(cluster={"namespace": "graftline"}), "--no-registry")
    assert done.code == 0 and kfp.table("pipelines")[0]["namespace"] == ""
    assert graftline("runs", "--namespace", "graftline").code == 0
    assert not [line for line in kfp.requests() if "namespace=graftline" in line]
