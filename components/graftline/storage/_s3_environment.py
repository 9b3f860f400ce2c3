"""What boto takes from the environment without looking: the endpoint's address, token files."""

import os
import urllib.parse
from typing import Any

from graftline.addresses import leads_to_metadata
from graftline.errors import ConfigurationError, StoreAccessDenied
from graftline.redaction import learn

ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
PROXIES = ("https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")


def endpoint_variable() -> str | None:
    """The variable that names the endpoint; None where AWS itself is asked."""
    return next((name for name in ENDPOINTS if os.environ.get(name)), None)


def check_endpoint() -> None:
    """Refuse an address that boto cannot use.

    Raises:
        ConfigurationError: It has no scheme, no host or no valid port, holds a password, or is a
            cloud's metadata service.
    """
    name = endpoint_variable()
    if name is None:
        return
    value = os.environ[name]
    if not value.lower().startswith(("http://", "https://")):
        raise ConfigurationError(
            f"{name}={value!r} does not start with http:// or https://",
            fix=f"Write https://{value.rpartition('://')[2]}, or http:// for a server without TLS.",
        )
    try:
        parts = urllib.parse.urlsplit(value)
        valid = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        parts, valid = urllib.parse.urlsplit(""), False
    if "@" in parts.netloc:
        raise ConfigurationError(
            f"{name} holds a user name or a password, which S3 does not take from an address",
            fix="Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and the address without them.",
        )
    if not valid:
        raise ConfigurationError(
            f"{name}={value!r} is not an address",
            fix="Write it as https://host or https://host:port.",
        )
    if leads_to_metadata(value):
        raise ConfigurationError(
            f"{name}={value!r} is a cloud's metadata service, which hands out keys of the machine",
            fix="Name the S3 server; if the name is right, see what it resolves to.",
        )


def proxy_variable() -> str | None:
    """The variable that names a proxy, if there is one."""
    return next((name for name in PROXIES if os.environ.get(name)), None)


def credentials_file(error: OSError, uri: str) -> StoreAccessDenied | None:
    """The error for a credentials file that boto could not read; None for all other errors."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    module = trace.tb_frame.f_globals.get("__name__", "") if trace else ""
    if not module.startswith("botocore") or not error.filename:
        return None
    name = next((n for n, v in os.environ.items() if v == error.filename), "a profile")
    return StoreAccessDenied(
        f"Cannot read the credentials for {uri}: {error.filename}",
        why=f"{error.strerror}; {name} names this file",
        fix="In a pod, its service account needs the web identity (for EKS the annotation "
        "eks.amazonaws.com/role-arn), which mounts the file. Elsewhere unset the variable.",
    )


def learn_credentials(client: Any) -> None:
    """Let no message hold the credentials that boto found, wherever it found them."""
    signer = getattr(client, "_request_signer", None)
    found = getattr(signer, "_credentials", None)
    for name in ("secret_key", "token"):
        # The properties of credentials that expire would fetch new ones.
        value = getattr(found, f"_{name}", None) or vars(found or object).get(name)
        learn(value if isinstance(value, str) else None)
