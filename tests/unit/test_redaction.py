"""Planted secrets, in every form a library may print them in."""

import base64
import html
import json
import logging
import os
import subprocess
import sys
import textwrap
import urllib.parse
import warnings

import pytest
import yaml

from graftline.errors import StoreError
from graftline.redaction import MASK, excerpt, learn, redacted

SECRETS = [
    "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
    "quo\"te's <and> & slash\\es %41 to:ken",
    "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJtZSJ9.c2lnbmF0dXJlLi4u-_x",
    "ü-umlaut-passwört",
    "simple-password",
]


def forms(secret: str) -> dict[str, str]:
    data = secret.encode()
    return {
        "plain": secret,
        "repr": repr(secret),
        "repr of bytes": repr(data),
        "json": json.dumps({"k": secret}),
        "json in unicode": json.dumps({"k": secret}, ensure_ascii=False),
        "json in json": json.dumps(json.dumps({"k": secret})),
        "url": urllib.parse.quote(secret),
        "url, all": urllib.parse.quote(secret, safe=""),
        "url, plus": urllib.parse.quote_plus(secret),
        "url, lower": urllib.parse.quote(secret, safe="")
        .replace("%C3", "%c3")
        .replace("%2F", "%2f"),
        "html": html.escape(secret),
        "base64": base64.b64encode(data).decode(),
        "base64 for urls": base64.urlsafe_b64encode(data).decode(),
        "basic": base64.b64encode(b"me:" + data).decode(),
        "basic, longer": base64.b64encode(b"user:" + data + b"\n").decode(),
        "base64 in lines": base64.encodebytes(b"somebody-long:" + data + b"x" * 60).decode(),
        "yaml": yaml.safe_dump({"a": {"b": f"some words before {secret} and some after " * 2}}),
        "in lines": "\n".join(textwrap.wrap(secret, 9, break_long_words=True)),
        "in a table": " │\n│ ".join(secret[i : i + 11] for i in range(0, len(secret), 11)),
    }


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("form", forms("x"))
def test_each_form_of_a_secret_is_masked(
    monkeypatch: pytest.MonkeyPatch, secret: str, form: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", secret)
    text = forms(secret)[form]
    told = redacted(f"before {text} after")
    assert told.startswith("before ") and told.endswith(" after") and MASK in told
    # No piece of 8 characters is left of it (of what is not masked with it).
    for start in range(len(text) - 8):
        piece = text[start : start + 8]
        if piece.isalnum() and piece in secret:
            assert piece not in told, told


def test_texts_without_a_secret_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMIK7MDENG")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "test")  # as short as a word
    for text in ("the test split", "", "https://host/path?x=1", "s3://bucket/wJalrXUtnFE"):
        assert redacted(text) == text


def test_secrets_come_from_urls_files_cookies_and_those_who_know(
    monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    monkeypatch.setenv("SOME_PROXY", "http://me:proxy%20pass@proxy:80")
    monkeypatch.setenv("GRAFTLINE_KFP_COOKIE", "authservice_session=MTU4NjE0cookievalue; a=b")
    (tmp_path / "token").write_text("token-of-the-file\n")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    (tmp_path / "credentials").write_text(
        "[default]\naws_access_key_id = AKIAIOSFODNN7EXAMPLE\naws_secret_access_key = key-in-file\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("GRAFTLINE_WEBHOOK_URL", "https://hooks.example.com/services/T0/B0/x9y8")
    learn("learnt-at-run-time")
    told = redacted(
        "proxy pass|MTU4NjE0cookievalue|token-of-the-file|key-in-file|learnt-at-run-time|"
        "https://hooks.example.com/services/T0/B0/x9y8|ftp://someone:any@host/"
    )
    assert told == "|".join([MASK] * 6) + f"|ftp://{MASK}@host/"


def test_errors_and_excerpts_hold_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "planted-session-token")
    error = StoreError("planted-session-token", why="b'planted-session-token\\n'", fix="x")
    assert "planted" not in f"{error} {error!r} {error.what} {error.why} {error.args}"
    assert excerpt("x" * 10 + "planted-session-token", 18) == "x" * 10 + MASK


def test_log_warnings_and_tracebacks_of_a_process_hold_none() -> None:
    code = """
import logging, sys, threading, warnings
from graftline.redaction import guard_process
guard_process()
logging.basicConfig(level="INFO", stream=sys.stdout)
logging.getLogger("urllib3").info("header %r", b"planted-secret-value\\n")
logging.info("100%% of %s", {"token": "planted-secret-value"})
warnings.warn("planted-secret-value")
try:
    raise ValueError("planted-secret-value")
except ValueError:
    logging.exception("caught")
def work(): raise ValueError("planted-secret-value in a thread")
thread = threading.Thread(target=work); thread.start(); thread.join()
raise RuntimeError("planted-secret-value at the end")
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "MLFLOW_TRACKING_TOKEN": "planted-secret-value\n"},
    )
    text = done.stdout + done.stderr
    assert (
        done.returncode == 1
        and text.count(MASK) >= 6
        and "planted" not in text.replace('planted-secret-value"', "")
    ), text


def test_a_page_of_megabytes_is_searched_in_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", SECRETS[0])
    page = base64.b64encode(os.urandom(3_000_000)).decode() + SECRETS[0] + "<p>end</p>"
    assert redacted(page) == page.replace(SECRETS[0], MASK)


def test_the_guard_is_set_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from graftline.redaction import guard_process

    for name in ("excepthook",):
        monkeypatch.setattr(sys, name, getattr(sys, name))
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    before = logging.getLogRecordFactory()
    try:
        guard_process()
        first = logging.getLogRecordFactory()
        guard_process()
        assert logging.getLogRecordFactory() is first
    finally:
        logging.setLogRecordFactory(before)


SIGNED = (
    "https://b.s3.amazonaws.com/k?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAHIDDEN%2F2026"
    "&X-Amz-Expires=60&X-Amz-Security-Token=hidden%2Ftoken&X-Amz-Signature=hidden0123456789",
    "https://storage.googleapis.com/b/k?X-Goog-Signature=hidden99&x=1",
    "https://a.blob.core.windows.net/c/k?sv=2024&sig=hidden%2Bsig%3D&se=2026",
    "https://b.s3.amazonaws.com/k?AWSAccessKeyId=AKIAHIDDEN&Signature=hidden%3D&Expires=1",
    "Authorization: AWS4-HMAC-SHA256 Credential=AKIAHIDDEN/2026, SignedHeaders=host, "
    "Signature=hidden0123",
    "{'Authorization': 'Bearer hidden.jwt.text'}",
    'authorization: Basic aGlkZGVuOnBhc3M= "',
    "http://user:hidden/pass@host:5000/x",
    "Max retries exceeded with url: /k?X-Amz-Signature=hidden0123456789 (Caused by x)",
)


@pytest.mark.parametrize("text", SIGNED)
def test_what_lets_its_bearer_in_is_masked_without_being_known(text: str) -> None:
    clean = redacted(text)
    assert "hidden" not in clean.lower() and "aGlkZGVu" not in clean and "***" in clean


@pytest.mark.parametrize(
    "text",
    [
        "http://host:5000/path@x and s3://bucket/a@b/c.png",
        "The signature= of a function; credential=no; a basic authorization is needed",
        "data:image/png;base64,AAAA s3://bucket/x?versionId=3",
    ],
)
def test_what_only_looks_like_it_stays(text: str) -> None:
    assert redacted(text) == text
