"""Every answer that something in the place of an MLflow server can give, and every address."""

from collections.abc import Iterator

import pytest
from tests.service.odd_server import HTML, OddServer

from graftline.errors import ConfigurationError, TrackingError, TrackingUnreachable
from graftline.tracking.client import connect
from graftline.tracking.mlflow_run import open_tracking, start_run
from graftline.tracking.readiness import check_ready
from graftline.tracking.registry import open_registry


@pytest.fixture
def odd(monkeypatch: pytest.MonkeyPatch) -> Iterator[OddServer]:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with OddServer() as server:
        yield server


JSON = {"Content-Type": "application/json"}
PAGE = "<!doctype html><html><body>Sign in</body></html>"
ANSWERS = {
    "web page": ((200, HTML, PAGE), TrackingError, "web page", "MLFLOW_TRACKING_TOKEN"),
    "login": (
        (302, {"Location": "https://login.example.com/?next=x"}, ""),
        *(TrackingError, "login.example.com", "MLFLOW_TRACKING_TOKEN"),
    ),
    "moved": (
        (301, {"Location": "/mlflow/health"}, ""),
        TrackingError,
        "redirects",
        "tracking.uri",
    ),
    "401": ((401, HTML, PAGE), TrackingError, "refused", "MLFLOW_TRACKING_TOKEN"),
    "403": ((403, {}, "Invalid Host header"), TrackingError, "refused", "--allowed-hosts"),
    "407": ((407, HTML, PAGE), TrackingUnreachable, "proxy", "NO_PROXY"),
    "502": ((502, HTML, PAGE), TrackingUnreachable, "502", "Start the server"),
    "500": ((500, {}, "oops"), TrackingError, "failed", "log"),
    "404": ((404, {}, "not found"), TrackingError, "does not answer as MLflow", "path of tracking"),
    "405": ((405, HTML, "no"), TrackingError, "does not answer as MLflow", "path of tracking"),
    "429": ((429, {}, "slow down"), TrackingError, "429", "later"),
    "empty": ((200, JSON, "{}"), TrackingError, "does not answer as MLflow", "path of tracking"),
    "nothing": ((200, {}, ""), TrackingError, "does not answer as MLflow", "path of tracking"),
    "a list": ((200, JSON, "[1]"), TrackingError, "does not answer as MLflow", "path of tracking"),
    "half": ((200, JSON, '{"a":'), TrackingError, "does not answer as MLflow", "path of tracking"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_each_answer_is_a_typed_error_with_advice(odd: OddServer, name: str) -> None:
    answer, kind, told, advice = ANSWERS[name]
    for request in (
        lambda: start_run(odd.url, "animals", "run"),
        lambda: open_registry(odd.url).champion("animals"),
        lambda: open_tracking(odd.url, "a" * 32).params({"a": "b"}),
    ):
        odd.answers(*answer)
        try:
            request()
        except TrackingError as error:
            assert isinstance(error, kind) and told in str(error), str(error)
            assert error.fix and advice in error.fix and "next=" not in str(error), str(error)
        else:
            assert name in ("nothing", "empty")  # as MLflow itself acknowledges some requests


@pytest.mark.parametrize("name", sorted(ANSWERS.keys() - {"nothing"}))
def test_no_answer_passes_the_check_before_a_run(odd: OddServer, name: str) -> None:
    odd.answers(*ANSWERS[name][0])
    with pytest.raises(TrackingError):
        check_ready(odd.url, "animals", "animals")


@pytest.mark.parametrize(
    ("variables", "advice"),
    [
        ({"USERNAME": "me", "PASSWORD": "planted-password"}, "Correct MLFLOW_TRACKING_USERNAME"),
        ({"TOKEN": "planted-token"}, "a fresh token: the one that is set was refused"),
    ],
)
def test_a_login_that_is_refused_is_named(
    odd: OddServer, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], advice: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", value)
    odd.answers(401, HTML, PAGE)
    with pytest.raises(TrackingError, match=advice) as caught:
        start_run(odd.url, "animals", "run")
    assert "planted" not in str(caught.value)


def test_a_plain_address_where_the_server_speaks_tls_is_told(odd: OddServer) -> None:
    odd.answers(308, {"Location": odd.url.replace("http:", "https:") + "/health"})
    with pytest.raises(TrackingError) as caught:
        connect(odd.url)
    assert str(caught.value.fix) == f"Set tracking.uri to {odd.url.replace('http:', 'https:')}."


@pytest.mark.parametrize("uri", ["localhost:5000", "mlflow.internal:5000/path", "10.0.0.1:5000"])
def test_an_address_without_a_scheme(uri: str) -> None:
    with pytest.raises(ConfigurationError, match="does not start with http") as caught:
        connect(uri)
    assert f"http://{uri}" in str(caught.value.fix)


def test_a_slash_at_the_end_and_a_line_break_do_no_harm(
    mlflow_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "planted-token-value\n")
    for uri in (f"{mlflow_uri}/", f"{mlflow_uri}//\n"):
        run_id = start_run(uri, "answers", "run")
        open_tracking(uri, run_id).params({"a": "planted-token-value"})
        data = connect(mlflow_uri).get_run(run_id).data
        assert data.params == {"a": "***"}


def test_a_token_of_two_lines_is_refused_without_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "planted-token\nvalue-and-more")
    with pytest.raises(ConfigurationError, match="MLFLOW_TRACKING_TOKEN") as caught:
        connect("http://127.0.0.1:9")
    assert "planted" not in str(caught.value) and "more" not in str(caught.value)
