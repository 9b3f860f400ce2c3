"""What every request to S3 needs: one client a process, repeats within bounded time, checksums."""

import base64
import contextlib
import hashlib
import math
import os
import random
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any, TypeVar

from botocore import exceptions as boto

from graftline.credentials import AWS, tidy
from graftline.errors import (
    ConfigurationError,
    IntegrityError,
    PreconditionFailed,
    StoreAccessDenied,
    StoreNotFound,
)
from graftline.storage._s3_answers import REDIRECTS, NotS3, look_at_answers, unreadable
from graftline.storage._s3_credentials import NoKeys, fetch_keys, no_keys
from graftline.storage._s3_environment import check_endpoint, credentials_file, learn_credentials
from graftline.storage._s3_errors import (
    ABSENT,
    OURS,
    NoSuchBucket,
    Truncated,
    code_of,
    no_connection,
    not_understood,
    status_of,
    status_of_answer,
    store_error,
    worth_retrying,
)
from graftline.storage.base import checked_key

PATIENCE_VARIABLE = "GRAFTLINE_S3_PATIENCE"  # seconds
PATIENCE = 120.0
FIRST_CONTACT = 15.0  # seconds: an endpoint that never answered is more likely misspelt than busy
UNREADABLE_TRIES = 3  # of an answer that reports success and cannot be understood
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


def _patient() -> dict[str, Any]:
    """One try within bounded time: requests are repeated by us."""
    return {
        "retries": {"mode": "standard", "total_max_attempts": 1},
        "connect_timeout": min(5.0, patience()),
        "read_timeout": min(30.0, patience()),
    }


def _new_client() -> Any:
    import boto3
    import botocore.session
    from botocore.config import Config

    tidy(AWS)
    check_endpoint()
    session = botocore.session.get_session()
    # For the services that credentials come from: boto alone waits minutes for a silent one.
    session.set_default_client_config(Config(**_patient()))
    client = boto3.session.Session(botocore_session=session).client(
        "s3",
        config=Config(
            **_patient(),
            max_pool_connections=CONNECTIONS,
            # Many S3-compatible servers refuse boto's newer trailing checksums; Content-MD5 is
            # checked by all of them, and sha256 by us.
            request_checksum_calculation="when_required",
        ),
    )
    look_at_answers(client)
    return client


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
    names = (name for name in os.environ if name.startswith("AWS_") or name == PATIENCE_VARIABLE)
    key = tuple((name, os.environ[name]) for name in sorted(names))
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
        raise Truncated(f"received {len(data)} of {answer['ContentLength']} bytes")
    return data


def require_range(answer: dict[str, Any], offset: int, length: int) -> None:
    """Refuse what is not the part of an object that was asked for, or its beginning.

    Raises:
        NotS3: The server, or a cache before it, does not honour ranges.
    """
    status, size = status_of_answer(answer), int(answer["ContentLength"])
    if status == 200 and size > length:
        raise NotS3(200, "it sends the whole object where a range of bytes was asked for")
    answered = str(answer.get("ContentRange", ""))
    if size > length or (status == 206 and not answered.startswith(f"bytes {offset}-")):
        raise NotS3(
            status, f"it sends {answered[:40] or 'other bytes'} where a range was asked for"
        )


def require_whole(answer: dict[str, Any]) -> None:
    """Refuse a part of an object where all of it was asked for.

    Raises:
        NotS3: The server, or a cache before it, sent a part.
    """
    if status_of_answer(answer) == 206:
        raise NotS3(206, "it sends a part where the whole object was asked for")


class S3Client:
    """A bucket, or a prefix in it: requests that are repeated, writes that are recognised."""

    def __init__(self, bucket: str, prefix: str = "") -> None:
        self.bucket = bucket
        self.prefix = prefix.strip("/")
        self.uri = f"s3://{bucket}/{self.prefix}".rstrip("/")
        self._connection = shared_connection()

    @property
    def client(self) -> Any:
        """The boto client of this process."""
        try:
            return self._connection.client
        except boto.CredentialRetrievalError as error:
            raise no_keys(error, f"Cannot open {self.uri}") from error
        except OURS as error:
            raise store_error(error, self.uri, "open", "the configured endpoint") from error
        except OSError as error:
            raise credentials_file(error, self.uri) or error from error

    def name(self, key: str) -> str:
        """The full name of a key within the bucket."""
        return f"{self.prefix}/{checked_key(key)}" if self.prefix else checked_key(key)

    def attempt(self, work: Callable[[], T], action: str, key: str = "") -> T:
        """Do the work, again where that may help, until it is done or patience is over.

        Raises:
            StoreError: Of the kind that says what to do.
        """
        client = self.client
        started, allowed = time.monotonic(), patience()
        pause, unread = 0.1, 0
        while True:
            try:
                fetch_keys(client)
                done = work()
                self._connection.answered = True
                return done
            except (*OURS, ValueError) as raised:  # ValueError: boto's parser, of a date, a number
                error = unreadable(raised) if isinstance(raised, ValueError) else raised
                unread += not_understood(error)
                wait = pause * random.uniform(0.5, 1)  # noqa: S311 -- spreads retries, no secret
                if no_connection(error) and not self._connection.answered:
                    allowed = min(allowed, FIRST_CONTACT)
                failed = error.cause if isinstance(error, NoKeys) else error
                again = worth_retrying(failed) or 0 < unread < UNREADABLE_TRIES
                if not again or time.monotonic() + wait > started + allowed:
                    uri = f"{self.uri}/{key}".rstrip("/")
                    learn_credentials(client)
                    if isinstance(error, NoKeys):
                        raise no_keys(error, f"Cannot {action} {uri}") from raised
                    raise store_error(error, uri, action, client.meta.endpoint_url) from raised
            except OSError as error:
                raise credentials_file(error, self.uri) or error from error
            time.sleep(wait)
            pause = min(pause * 2, 8.0)

    def put(self, key: str, data: bytes, **condition: str) -> str:
        """Write the object; a write that was done but not acknowledged counts as done."""
        digest = hashlib.sha256(data).hexdigest()
        writer = uuid.uuid4().hex

        def work() -> str:
            try:
                answer = self.client.put_object(
                    Bucket=self.bucket,
                    Key=self.name(key),
                    Body=data,
                    ContentMD5=md5(data),
                    Metadata={SHA256: digest, WRITER: writer},
                    **condition,
                )
            except Exception as error:
                # At the first try as well: a proxy on the way may have asked again by itself.
                if code_of(error) in ("PreconditionFailed", "412", *ABSENT):
                    version, by = self._holder(key)
                    if by == writer:
                        return version
                    if version and condition.get("IfMatch") == version:
                        # Ceph 16 compares the bare ETag with the quoted one; others take both.
                        condition["IfMatch"] = version.strip('"')
                        return work()
                raise
            return str(answer["ETag"])

        return self.attempt(work, "write", key)

    def version_by(self, key: str, writer: str) -> str | None:
        """The object's version if it is the one that this writer wrote."""
        version, by = self._holder(key)
        return version if by == writer else None

    def _holder(self, key: str) -> tuple[str, str | None]:
        """The object's version and its writer's token; an empty version where there is none."""
        try:
            answer = self.client.head_object(Bucket=self.bucket, Key=self.name(key))
        except Exception as error:
            if code_of(error) in ABSENT:
                return "", None
            raise
        return str(answer["ETag"]), answer["Metadata"].get(WRITER)

    def head(self, key: str) -> dict[str, Any]:
        """What S3 says about an object; :class:`StoreNotFound` where there is none."""
        try:
            return self.attempt(lambda: self._head(key), "read", key)
        except StoreNotFound:
            self._require_bucket()  # a HEAD cannot tell a missing object from a missing bucket
            raise

    def _head(self, key: str) -> Any:
        target = {"Bucket": self.bucket, "Key": self.name(key)}
        try:
            return self.client.head_object(**target)
        except OURS as error:
            # The answer to a HEAD has no body, so no reason: a GET of one byte is told it.
            if status_of(error) in (400, 403, *REDIRECTS) and code_of(error).isdigit():
                with contextlib.closing(
                    self.client.get_object(**target, Range="bytes=0-0")["Body"]
                ):
                    raise
            raise

    def _require_bucket(self) -> None:
        # Who may not list the bucket may still read its objects. Not by HEAD: that answers of a
        # server that is not S3 would read as a bucket that is absent.
        with contextlib.suppress(StoreAccessDenied):
            self.attempt(lambda: self.client.list_objects_v2(Bucket=self.bucket, MaxKeys=1), "open")

    def exists(self, key: str) -> bool:
        """Whether there is an object by that name."""
        try:
            self.head(key)
        except NoSuchBucket:
            raise
        except StoreNotFound:
            return False
        return True

    def write_if_absent(self, key: str, data: bytes) -> bool:
        """Create the object; False where the name is taken."""
        try:
            self.put(key, data, IfNoneMatch="*")
        except PreconditionFailed:
            return False
        return True
