"""Every answer that something in the place of the token service can give, before S3 is asked."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.service.odd_server import HTML, XML, OddServer

from graftline.errors import StoreAccessDenied, StoreError, StoreUnreachable
from graftline.storage import open_store
from graftline.storage._s3_client import PATIENCE_VARIABLE

TOKEN = "planted-token-of-a-pod"
PAGE = "<!doctype html><html>Sign in</html>"


def said(code: str) -> str:
    inner = f"<Type>Sender</Type><Code>{code}</Code><Message>by the server: {TOKEN}</Message>"
    return f"<ErrorResponse><Error>{inner}</Error></ErrorResponse>"


@pytest.fixture
def sts(s3_bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[OddServer]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    (tmp_path / "token").write_text(TOKEN)
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/trainer")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv(PATIENCE_VARIABLE, "0.3")
    with OddServer() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", server.url)
        yield server


ANSWERS = {
    "denied": ((403, XML, said("AccessDenied")), StoreAccessDenied, "role/trainer"),
    "no provider": ((400, XML, said("InvalidIdentityToken")), StoreAccessDenied, "OIDC provider"),
    "expired": ((400, XML, said("ExpiredTokenException")), StoreAccessDenied, "too old"),
    "busy": ((503, XML, said("Throttling")), StoreUnreachable, "HTTPS_PROXY"),
    "web page": ((200, HTML, PAGE), StoreUnreachable, "AWS_ENDPOINT_URL_STS"),
    "nothing": ((200, {}, ""), StoreUnreachable, "AWS_ENDPOINT_URL_STS"),
    "json": ((200, {}, "{}"), StoreUnreachable, "AWS_ENDPOINT_URL_STS"),
    "redirect": (
        (302, {"Location": "https://login.example.com/?state=x"}, ""),
        *(StoreUnreachable, "AWS_ENDPOINT_URL_STS"),
    ),
    "firewall": ((403, HTML, PAGE), StoreUnreachable, "AWS_ENDPOINT_URL_STS"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_each_answer_is_a_typed_error_with_advice(
    sts: OddServer, s3_bucket: str, name: str
) -> None:
    answer, kind, advice = ANSWERS[name]
    sts.answers(*answer)
    started = time.monotonic()
    with pytest.raises(StoreError) as caught:
        list(open_store(s3_bucket).list())
    assert isinstance(caught.value, kind) and advice in str(caught.value.fix), str(caught.value)
    assert sts.url in str(caught.value.why) and TOKEN not in str(caught.value), str(caught.value)
    assert "AWS_ENDPOINT_URL_S3" not in str(caught.value)  # S3 was never asked
    assert sts.lines and time.monotonic() - started < 30


def test_an_empty_token_file(sts: OddServer, s3_bucket: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("")
    with pytest.raises(StoreAccessDenied, match="is empty"):
        open_store(s3_bucket).write("k", b"1")


def test_the_agent_of_a_pod_that_fails(
    sts: OddServer, s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_WEB_IDENTITY_TOKEN_FILE")
    monkeypatch.delenv("AWS_ROLE_ARN")
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{sts.url}/keys")
    sts.answers(500, HTML, PAGE)
    with pytest.raises(StoreAccessDenied, match="service account is associated"):
        list(open_store(s3_bucket).list())


def test_a_profile_whose_login_is_over(
    sts: OddServer, s3_bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = "[profile work]\ncredential_process = sh -c 'echo not logged in >&2; exit 1'\n"
    (tmp_path / "config").write_text(config)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "work")
    with pytest.raises(StoreAccessDenied, match="Check the profile work"):
        list(open_store(s3_bucket).list())
