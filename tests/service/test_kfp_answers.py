"""Every answer that something in the place of Kubeflow Pipelines can give; and proxies."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.service.odd_server import HTML, OddServer

from graftline.errors import ClusterError
from graftline_pipelines.cluster.server import Cluster, connect

JSON = {"Content-Type": "application/json"}
HEALTH = json.dumps({"tag_name": "2.17.0", "multi_user": False})


@pytest.fixture
def odd(monkeypatch: pytest.MonkeyPatch) -> Iterator[OddServer]:
    for name in ("GRAFTLINE_KFP_TOKEN", "GRAFTLINE_KFP_COOKIE", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    with OddServer() as server:
        yield server


REQUESTS: dict[str, Callable[[Cluster], Any]] = {
    "runs": lambda server: server.runs(limit=5),
    "run": lambda server: server.run("a" * 36),
    "experiment": lambda server: server.experiment("x"),
    "pipeline": lambda server: server.pipeline("x"),
    "stop": lambda server: server.stop("a" * 36),
}
PAGE = "<!doctype html><html>Sign in</html>"
ANSWERS = {
    "web page": ((200, HTML, PAGE), "web page", "GRAFTLINE_KFP_TOKEN"),
    "redirect": ((302, {"Location": "https://login.example.com"}, ""), "web page", "KFP_TOKEN"),
    "moved": ((301, {"Location": "/other"}, ""), "web page", "GRAFTLINE_KFP_TOKEN"),
    "401": ((401, JSON, "{}"), "401", "GRAFTLINE_KFP_TOKEN"),
    "403": ((403, HTML, PAGE), "403", "kubeflow-pipelines-edit"),
    "407": ((407, HTML, PAGE), "407", "NO_PROXY"),
    "502": ((502, HTML, PAGE), "502", "ml-pipeline"),
    "500": ((500, JSON, "oops"), "500", "log"),
    "no json": ((200, JSON, '{"runs": [{"run_id'), "not the answer", "version"),
    "a list": ((200, JSON, "[1, 2]"), "not the answer", "version"),
    "a text": ((200, JSON, '"yes"'), "not the answer", "version"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_each_answer_after_the_health_check(odd: OddServer, name: str) -> None:
    odd.answers(200, JSON, HEALTH)
    server = connect(odd.url)
    answer, told, advice = ANSWERS[name]
    for request in REQUESTS.values():
        odd.answers(*answer)
        with pytest.raises(ClusterError) as caught:
            request(server)
        assert told in str(caught.value) and advice in str(caught.value.fix), str(caught.value)


@pytest.mark.parametrize("name", ANSWERS)
def test_each_answer_to_the_health_check(odd: OddServer, name: str) -> None:
    odd.answers(*ANSWERS[name][0])
    with pytest.raises(ClusterError) as caught:
        connect(odd.url)
    assert caught.value.fix


def test_every_call_goes_through_the_proxy(odd: OddServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", odd.url.replace("://", "://me:planted-password@"))
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    odd.answers(200, JSON, HEALTH)
    server = connect("http://kfp.example.com")
    odd.answers(200, JSON, "{}")
    assert server.runs(limit=5) == []
    assert server.workflow("a" * 36) is None
    assert len(odd.lines) == 2
    assert all(line.startswith("GET http://kfp.example.com/apis/") for line in odd.lines)
    assert ["proxy-authorization" in seen for seen in odd.seen] == [True, True]


def test_no_proxy_is_regarded(odd: OddServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    odd.answers(200, JSON, HEALTH)
    server = connect(odd.url)
    odd.answers(200, JSON, "{}")
    assert server.runs(limit=5) == []


def test_a_token_with_a_line_break_is_no_header_error(
    odd: OddServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAFTLINE_KFP_TOKEN", "planted-token\n")
    odd.answers(200, JSON, HEALTH)
    server = connect(odd.url)
    odd.answers(500, JSON, json.dumps({"error": "bad header Bearer planted-token"}))
    with pytest.raises(ClusterError) as caught:
        server.runs(limit=5)
    assert "planted" not in str(caught.value)
