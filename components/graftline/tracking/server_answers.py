"""What an MLflow server answers, or does not: a health check, and errors that say what to do.

No message repeats a credential.
"""

import os
import re
import socket
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager

from graftline import redaction
from graftline.addresses import leads_to_metadata, split_address
from graftline.credentials import MLFLOW, tidy
from graftline.errors import ConfigurationError, TrackingError, TrackingUnreachable

PROBE_SECONDS = 6  # for a server to answer its health check


def probe(uri: str) -> None:
    """Ask the server for a sign of life; any HTTP answer is one.

    Raises:
        TrackingUnreachable: None came within a few seconds.
    """
    parts = split_address(uri)
    if parts.scheme in ("http", "https") and leads_to_metadata(uri):
        raise ConfigurationError(
            f"tracking.uri: {redacted(uri, uri)} is a cloud's metadata service, which hands out "
            "keys of the machine",
            fix="Name the MLflow server; if the name is right, see what it resolves to.",
        )
    try:
        if parts.scheme in ("http", "https"):
            _probe_http(uri)
        elif parts.hostname and parts.port:
            socket.create_connection((parts.hostname, parts.port), timeout=PROBE_SECONDS).close()
    except OSError as error:  # what requests raises is an OSError too
        where = redacted(uri, uri)
        raise TrackingUnreachable(
            f"MLflow at {where} does not answer.",
            why=redacted(_short(error), uri)[:300],
            fix="Start the server or correct tracking.uri; without a server use "
            "sqlite:///mlflow.db. Behind a proxy, check NO_PROXY.",
        ) from None


def _short(error: BaseException) -> str:
    """The system's own words for it, out of what the libraries between have wrapped around them."""
    found = re.search(r"\[Errno -?\d+\] ([^)'\"]+)", str(error))
    if found:
        return f"{found[1].strip()}."
    if "timed out" in str(error):
        return f"It did not answer within {PROBE_SECONDS} seconds."
    return str(error)


def _probe_http(uri: str) -> None:
    import requests  # type: ignore[import-untyped]  # ships no types

    verify: bool | str = os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or True
    if os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1"):
        verify = False
    url = uri.rstrip("/") + "/health"
    headers, who = login()
    with requests.get(
        url,
        headers=headers,
        auth=who,
        timeout=PROBE_SECONDS,
        stream=True,
        allow_redirects=False,
        verify=verify,
    ) as answer:
        if answer.status_code in (502, 503, 504):
            raise OSError(f"it answers with status {answer.status_code}")
        if answer.is_redirect or answer.is_permanent_redirect:
            raise _redirected(uri, str(answer.headers.get("Location", "")))
        if answer.status_code == 407:
            raise OSError("the proxy before it wants a login (status 407)")
        if answer.status_code in (401, 403):
            raise _refused(uri, "the health check", f"status {answer.status_code}")
        start = answer.raw.read(512, decode_content=True).lower()
        if answer.ok and (b"<html" in start or b"<!doctype" in start):
            raise _web_page(uri)


def login() -> tuple[dict[str, str], tuple[str, str] | None]:
    """Header and user of the requests, as MLflow's own client sends them."""
    tidy(MLFLOW)
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    user = os.environ.get("MLFLOW_TRACKING_USERNAME")
    password = os.environ.get("MLFLOW_TRACKING_PASSWORD")
    if user and password:
        return {}, (user, password)
    return ({"Authorization": f"Bearer {token}"} if token else {}), None


@contextmanager
def mlflow_errors(uri: str, doing: str) -> Iterator[None]:
    """Turn whatever MLflow raises into a :class:`TrackingError` that says what to do.

    Args:
        uri: Tracking URI.
        doing: What is read or written, for the message.
    """
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (TrackingError, ConfigurationError):
        raise
    except (MlflowException, OSError, ImportError) as error:
        raise _translated(error, uri, doing) from None
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in (
            "sqlalchemy",
            "requests",
            "urllib3",
            "botocore",
            "boto3",
        ):
            raise
        raise _translated(error, uri, doing) from None


def _translated(error: Exception, uri: str, doing: str) -> TrackingError:
    probe(uri)  # a server that has gone away is named as such
    text = redacted(str(error), uri).partition("\n[SQL:")[0].strip()
    where = redacted(uri, uri)
    code = str(getattr(error, "error_code", ""))
    if code in ("UNAUTHENTICATED", "PERMISSION_DENIED") or re.search(r"\b40[13]\b", text):
        return _refused(uri, doing, text[:500])
    if re.search(r"<(html|!doctype)", text.lower()):
        return _web_page(uri)
    if "_alembic_tmp_" in text:
        database = where.removeprefix("sqlite:///")
        return TrackingError(
            f"MLflow's database {database} is unfinished.",
            why="The program that made it, or moved it to a newer MLflow, was stopped meanwhile.",
            fix=f"Remove it if it is new, `rm {database}`; else restore it from a backup.",
        )
    foreign = r"error code (404|405|410|501)\b|not in a valid JSON format"
    if code == "ENDPOINT_NOT_FOUND" or re.search(foreign, text):
        return _other_server(uri, text[:300])
    if re.search(r"\b(429|503|504)\b", text):
        fix = "The server is overloaded or failing: run it again later; see its log."
    elif "://" in uri and not uri.startswith("sqlite:"):
        fix = "See the server's log."
    else:
        fix = "The database's folder must exist and be writable."
    return TrackingError(
        f"MLflow at {where} failed on {doing}.",
        why=f"{type(error).__name__}: {text[:500]}",
        fix=fix,
    )


def require_id(found: object, uri: str) -> str:
    """The id of an experiment or a run, which each answer of MLflow about one holds.

    MLflow's client takes any JSON for an answer, and reads what is missing as empty.

    Raises:
        TrackingError: It is empty: this is another server.
    """
    if not found:
        raise _other_server(uri, "its answer holds no id")
    return str(found)


def redacted(text: str, uri: str) -> str:
    """The text without any user name, password or token that the URI or the environment holds."""
    parts = split_address(uri)
    secrets = [parts.password, parts.username and parts.netloc.rpartition("@")[0]]
    secrets += [os.environ.get(name) for name in MLFLOW if name.endswith(("TOKEN", "PASSWORD"))]
    return redaction.redacted(text, *secrets, *(urllib.parse.unquote(s) for s in secrets if s))


def _redirected(uri: str, target: str) -> TrackingError:
    where = redacted(uri, uri)
    here, there = (split_address(address) for address in (uri, target))
    if (here.scheme, there.scheme) == ("http", "https") and here.hostname == there.hostname:
        fix = f"Set tracking.uri to {where.replace('http://', 'https://', 1)}."
    else:
        fix = (
            "If that is a login page, set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD, as the gateway wants them. Otherwise set tracking.uri to "
            "the address where the server itself answers."
        )
    return TrackingError(
        f"MLflow at {where} redirects to {redaction.without_query(target) or 'no address'}.",
        why="Its client does not follow: a request that writes would lose its content.",
        fix=fix,
    )


def _other_server(uri: str, why: str) -> TrackingError:
    return TrackingError(
        f"{redacted(uri, uri)} does not answer as MLflow does.",
        why=why,
        fix="Check host, port and path of tracking.uri: another server may answer there, or the "
        "path before /api is missing.",
    )


def _web_page(uri: str) -> TrackingError:
    return TrackingError(
        f"{redacted(uri, uri)} answers with a web page instead of MLflow's API.",
        why="It is a login page, or the address of something else.",
        fix="Check host, port and path of tracking.uri: without /#/experiments and the like. For a "
        "server behind a login set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and "
        "MLFLOW_TRACKING_PASSWORD.",
    )


def _refused(uri: str, doing: str, why: str) -> TrackingError:
    return TrackingError(
        f"MLflow at {redacted(uri, uri)} refused {doing}.",
        why=why,
        fix=f"{_login_advice()}; on a 403 about hosts, name this host in the server's "
        "--allowed-hosts.",
    )


def _login_advice() -> str:
    """What to do about a login: where one was sent, it was refused."""
    headers, who = login()
    if who is not None:
        return "Correct MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, which were refused"
    if headers:
        return "Set MLFLOW_TRACKING_TOKEN to a fresh token: the one that is set was refused"
    return "Set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
