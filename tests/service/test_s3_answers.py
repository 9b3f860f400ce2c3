"""Every answer that something in the place of S3 can give ends in a typed error with advice."""

import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from tests.service.odd_server import HTML, XML, OddServer, s3_error

from graftline.errors import (
    ConfigurationError,
    GraftlineError,
    StoreAccessDenied,
    StoreError,
    StoreNotFound,
    StoreUnreachable,
)
from graftline.storage import open_store
from graftline.storage._s3_client import PATIENCE_VARIABLE

LISTING = "<?xml version='1.0'?><ListBucketResult><Name>b</Name><Contents><Key>p/a"
MOVED = {"Location": "https://elsewhere.example.com/login"}
OLD = {**XML, "Date": formatdate(time.time() - 7200, usegmt=True)}


@pytest.fixture
def odd(s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[OddServer]:
    with OddServer() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.url)
        monkeypatch.setenv(PATIENCE_VARIABLE, "0.15")
        yield server


@pytest.fixture
def requests(tmp_path: Path) -> dict[str, Callable[[], Any]]:
    """Every method of a store that asks the server something."""
    (tmp_path / "small").write_bytes(b"1" * 100)
    (tmp_path / "big").write_bytes(bytes(17 * 2**20))
    store = open_store("s3://bucket/p")
    return {
        "read": lambda: store.read("k"),
        "read_range": lambda: store.read_range("k", 0, 10),
        "write": lambda: store.write("k", b"1"),
        "write_if_absent": lambda: store.write_if_absent("k", b"1"),
        "write_if_match": lambda: store.write_if_match("k", b"1", '"e"'),
        "list": lambda: list(store.list()),
        "names": lambda: store.names(),
        "size": lambda: store.size("k"),
        "exists": lambda: store.exists("k"),
        "upload": lambda: store.upload(tmp_path / "small", "k"),
        "upload in parts": lambda: store.upload(tmp_path / "big", "k"),
        "download": lambda: store.download("k", tmp_path / "down"),
        "check_writable": store.check_writable,
        "check_there": store.check_there,
        "delete": lambda: store.delete("k"),
    }


# The answer; the kind of the error; a word of its cause, and one of its advice.
ANSWERS = {
    "301": ((301, MOVED, ""), StoreUnreachable, "elsewhere.example.com", "AWS_ENDPOINT_URL_S3"),
    "302": ((302, MOVED, "<html>"), StoreUnreachable, "redirects", "AWS_ENDPOINT_URL_S3"),
    "307": ((307, MOVED, ""), StoreUnreachable, "redirects", "AWS_ENDPOINT_URL_S3"),
    "308": ((308, {}, ""), StoreUnreachable, "redirects", "AWS_ENDPOINT_URL_S3"),
    "a web page": (
        (200, HTML, "<!doctype html><html><p>Welcome</p></html>"),
        *(StoreUnreachable, "a web page", "S3 API"),
    ),
    "nothing": ((200, {}, ""), StoreUnreachable, "empty body", "S3 API"),
    "no content": ((204, {}, ""), StoreUnreachable, "204", "S3 API"),
    "json": ((200, {"Content-Type": "application/json"}, "{}"), StoreUnreachable, "json", "S3 API"),
    "a firewall": ((403, HTML, "<html>Blocked</html>"), StoreUnreachable, "Blocked", "S3 API"),
    "no S3 there": ((404, HTML, "<html>nginx</html>"), StoreUnreachable, "nginx", "S3 API"),
    "TLS port": (
        (400, HTML, "<html>The plain HTTP request was sent to HTTPS port</html>"),
        *(StoreUnreachable, "HTTPS port", "scheme"),
    ),
    "proxy login": ((407, HTML, "<html>"), StoreUnreachable, "proxy", "NO_PROXY"),
    "gateway": ((502, HTML, "<html>Bad gateway</html>"), StoreUnreachable, "502", "later"),
    "too many": ((429, HTML, "slow down"), StoreUnreachable, "429", "later"),
    "cut error": ((500, XML, "<?xml version='1.0'?><Error><Co"), StoreUnreachable, "500", "later"),
    "clock": (
        (403, OLD, s3_error("RequestTimeTooSkewed")),
        *(StoreAccessDenied, "TooSkewed", "minutes ahead of the server's"),
    ),
    "region": (
        (400, XML, s3_error("AuthorizationHeaderMalformed", Region="eu-west-1")),
        *(StoreAccessDenied, "Malformed", "AWS_REGION to the bucket's region, eu-west-1"),
    ),
    "redirect of S3": (
        (301, {**XML, "x-amz-bucket-region": "eu-west-1"}, s3_error("PermanentRedirect")),
        *(StoreAccessDenied, "PermanentRedirect", "eu-west-1"),
    ),
    "key disabled": (
        (400, XML, s3_error("KMS.DisabledException")),
        *(StoreAccessDenied, "KMS.Disabled", "kms:Decrypt"),
    ),
    "key denied": (
        (403, XML, s3_error("AccessDenied", "not authorized to perform: kms:GenerateDataKey")),
        *(StoreAccessDenied, "kms:GenerateDataKey", "kms:Decrypt"),
    ),
    "expired": ((400, XML, s3_error("ExpiredToken")), StoreAccessDenied, "Expired", "Renew"),
    "denied": ((403, XML, s3_error("AccessDenied")), StoreAccessDenied, "Denied", "s3:PutObject"),
    "archived": (
        (403, XML, s3_error("InvalidObjectState")),
        *(StoreAccessDenied, "InvalidObjectState", "restore"),
    ),
    "not implemented": ((501, XML, s3_error("NotImplemented")), StoreError, "support", "needs"),
    "another address": (
        (301, XML, s3_error("PermanentRedirect", Endpoint="b.s3.example.com")),
        *(StoreAccessDenied, "PermanentRedirect", "names b.s3.example.com as"),
    ),
    "bucket in the host": (
        (403, XML, s3_error("SecondLevelDomainForbidden")),
        *(StoreAccessDenied, "Forbidden", "addressing_style = virtual"),
    ),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_each_answer_is_a_typed_error_with_advice(odd: OddServer, requests: Any, name: str) -> None:
    answer, kind, cause, advice = ANSWERS[name]
    for method, request in requests.items():
        odd.answers(*answer)
        if name in ("nothing", "no content") and method == "delete":
            request()  # an empty success: this is how S3 answers too
            continue
        with pytest.raises(GraftlineError) as caught:
            request()
        error = caught.value
        assert type(error) is kind or isinstance(error, kind), (method, error)
        assert cause in str(error.why) and advice in str(error.fix), (method, str(error))
        if kind is not StoreUnreachable or name not in ("gateway", "too many", "cut error"):
            assert len(odd.lines) <= 4, (method, odd.lines)  # what cannot get better, once


@pytest.mark.parametrize("method", ["list", "names", "check_there"])
def test_a_listing_that_is_cut_short_is_no_short_listing(
    odd: OddServer, requests: Any, method: str
) -> None:
    odd.answers(200, XML, LISTING)
    with pytest.raises(StoreUnreachable, match="cut short"):
        requests[method]()
    assert len(odd.lines) > 1  # a broken connection is tried again


def test_an_error_with_status_200_is_an_error(odd: OddServer, requests: Any) -> None:
    odd.answers(200, XML, s3_error("InternalError"))
    for request in requests.values():
        with pytest.raises(StoreError):
            request()


def test_a_bucket_that_is_absent_is_told_by_every_request_but_removal(
    odd: OddServer, requests: Any
) -> None:
    odd.answers(404, XML, s3_error("NoSuchBucket"))
    for method, request in requests.items():
        if method != "delete":
            with pytest.raises(StoreNotFound, match="no such bucket"):
                request()


def test_a_server_that_ignores_ranges_is_no_damage(odd: OddServer, requests: Any) -> None:
    odd.answers(200, {"ETag": '"x"'}, "a longer body than was asked for")
    with pytest.raises(StoreUnreachable, match="whole object"):
        requests["read_range"]()


@pytest.mark.parametrize(
    ("endpoint", "told"),
    [
        ("127.0.0.1:9000", "does not start with http"),
        ("minio.local", "https://minio.local"),
        ("ftp://minio.local", "does not start with http"),
        ("http://minio:90x0", "not an address"),
        ("http://", "not an address"),
        ("http://me:hunter2-long@minio:9000", "user name or a password"),
        ("http://169.254.169.254", "metadata service"),
        ("http://[::ffff:169.254.169.254]:80/", "metadata service"),
    ],
)
def test_an_address_that_is_none(
    s3_bucket: str, monkeypatch: pytest.MonkeyPatch, endpoint: str, told: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    with pytest.raises(ConfigurationError, match="AWS_ENDPOINT_URL_S3") as caught:
        list(open_store(s3_bucket).list())
    assert told in str(caught.value) and "hunter2" not in str(caught.value)


def test_a_token_file_that_no_one_mounted(
    s3_bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::1:role/x")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    with pytest.raises(StoreAccessDenied, match="AWS_WEB_IDENTITY_TOKEN_FILE") as caught:
        list(open_store(s3_bucket).list())
    assert "service account" in str(caught.value.fix)


@pytest.mark.parametrize(
    "name",
    ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION"],
)
def test_a_line_break_at_the_end_of_a_credential_does_no_harm(
    s3_bucket: str, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    value = "us-east-1" if name == "AWS_DEFAULT_REGION" else "planted-secret-value"
    monkeypatch.setenv(name, f"{value}\n")
    store = open_store(f"{s3_bucket}/x")
    store.write("k", b"1")
    assert store.read("k") == b"1"


def test_a_line_break_within_a_credential_is_refused_without_the_value(
    s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "planted-secret\nvalue-of-two-lines")
    with pytest.raises(ConfigurationError, match="AWS_SESSION_TOKEN") as caught:
        list(open_store(s3_bucket).list())
    assert "planted" not in str(caught.value) and "two-lines" not in str(caught.value)
