"""The connection to S3: one client a process, requests repeated within bounded time, checksums."""

import base64
import hashlib
import math
import os
import threading
from typing import Any, TypeVar

from graftline.errors import (
    ConfigurationError,
    IntegrityError,
)
from graftline.storage._s3_errors import (
    Truncated,
)

PATIENCE_VARIABLE = "GRAFTLINE_S3_PATIENCE"  # seconds


PATIENCE = 120.0


FIRST_CONTACT = 15.0  # seconds: an endpoint that never answered is more likely misspelt than busy


SHA256 = "graftline-sha256"  # keys of user metadata


WRITER = "graftline-writer"


CONNECTIONS = 32


T = TypeVar("T")


def patience() -> float:
    """Seconds that one request, with its repetitions, may take.

    Raises:
        ConfigurationError: The variable holds something else than a number of seconds.
    """
    text = os.environ.get(PATIENCE_VARIABLE, str(PATIENCE))
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < math.inf:
        raise ConfigurationError(
            f"{PATIENCE_VARIABLE}={text!r} is not a number of seconds",
            fix=f"Remove it (then {PATIENCE:g} s is taken), or set it to a number above 0.",
        )
    return seconds


def _new_client() -> Any:
    import boto3
    from botocore.config import Config

    return boto3.session.Session().client(
        "s3",
        config=Config(
            retries={"mode": "standard", "total_max_attempts": 1},
            connect_timeout=min(5.0, patience()),
            read_timeout=min(30.0, patience()),
            max_pool_connections=CONNECTIONS,
            # Many S3-compatible servers refuse boto's newer trailing checksums; Content-MD5 is
            # checked by all of them, and sha256 by us.
            request_checksum_calculation="when_required",
        ),
    )


class Connection:
    """A boto client for each process, since connections do not survive a fork.

    Attributes:
        answered: Whether the endpoint has ever answered.
    """

    def __init__(self) -> None:
        self.answered = False
        self._clients: dict[int, Any] = {}
        self._lock = threading.Lock()

    @property
    def client(self) -> Any:
        """This process's client."""
        pid = os.getpid()
        with self._lock:
            if pid not in self._clients:
                self._clients = {pid: _new_client()}
            return self._clients[pid]


_connections: dict[tuple[tuple[str, str], ...], Connection] = {}


def shared_connection() -> Connection:
    """The connection that all stores of this process share while the AWS variables are the same.

    A client costs a tenth of a second, and its own handshakes.
    """
    told = (name for name in os.environ if name.startswith("AWS_") or name == PATIENCE_VARIABLE)
    key = tuple((name, os.environ[name]) for name in sorted(told))
    return _connections.setdefault(key, Connection())


def md5(data: bytes) -> str:
    """The Content-MD5 header, which makes the server refuse a body that was changed underway."""
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()


def damaged(uri: str) -> IntegrityError:
    """The error for an object whose bytes are not those that were written."""
    return IntegrityError(
        f"{uri} does not have the sha256 it was written with",
        fix="The object is damaged in the store: remove it, then run again.",
    )


def _is_md5_of(data: bytes, answer: dict[str, Any]) -> bool:
    """Whether the ETag is the MD5 of these bytes, or cannot be (parts, encryption)."""
    tag = str(answer["ETag"]).strip('"')
    encrypted = "aws:kms" in str(answer.get("ServerSideEncryption"))
    if len(tag) != 32 or encrypted or answer.get("SSECustomerAlgorithm"):
        return True
    return hashlib.md5(data, usedforsecurity=False).hexdigest() == tag


def _body(answer: dict[str, Any]) -> bytes:
    data: bytes = answer["Body"].read()
    if len(data) != answer["ContentLength"]:
        raise Truncated(f"{len(data)} of {answer['ContentLength']} bytes came")
    return data
