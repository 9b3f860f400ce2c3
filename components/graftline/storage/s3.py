"""An S3 prefix as a store, by boto3 and the standard AWS chain.

Every object that is written carries the sha256 of its bytes, and every whole read is compared
with it: a flipped bit passes the network's own checks unnoticed. Requests are tried again on
throttling, server errors and broken connections until :func:`patience` is over; boto's own
retries count tries rather than time and do not cover the reading of a body, so they are off.
"""

import contextlib
import hashlib
import random
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from typing_extensions import override

from graftline.errors import (
    PreconditionFailed,
    StoreAccessDenied,
    StoreError,
    StoreNotFound,
)
from graftline.storage._s3_client import (
    FIRST_CONTACT,
    SHA256,
    WRITER,
    T,
    _body,
    _is_md5_of,
    damaged,
    md5,
    patience,
    shared_connection,
)
from graftline.storage._s3_errors import (
    ABSENT,
    OURS,
    NoSuchBucket,
    Truncated,
    code_of,
    no_bucket,
    no_connection,
    store_error,
    worth_retrying,
)
from graftline.storage.base import ObjectInfo, Store, checked_key


class S3Store(Store):
    """A bucket, or a prefix in it."""

    def __init__(self, bucket: str, prefix: str = "") -> None:
        self.bucket = bucket
        self.prefix = prefix.strip("/")
        self.uri = f"s3://{bucket}/{self.prefix}".rstrip("/")
        self._connection = shared_connection()

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return S3Store, (self.bucket, self.prefix)

    @property
    def client(self) -> Any:
        """The boto client of this process."""
        try:
            return self._connection.client
        except OURS as error:
            raise store_error(error, self.uri, "open", "the configured endpoint") from error

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
        pause = 0.1
        while True:
            try:
                done = work()
                self._connection.answered = True
                return done
            except OURS as error:
                wait = pause * random.uniform(0.5, 1)  # noqa: S311 -- spreads retries, no secret
                if no_connection(error) and not self._connection.answered:
                    allowed = min(allowed, FIRST_CONTACT)
                if not worth_retrying(error) or time.monotonic() + wait > started + allowed:
                    uri = f"{self.uri}/{key}".rstrip("/")
                    raise store_error(error, uri, action, client.meta.endpoint_url) from error
            time.sleep(wait)
            pause = min(pause * 2, 8.0)

    @override
    def read(self, key: str) -> bytes:
        return self._read(key)[0]

    @override
    def read_versioned(self, key: str) -> tuple[bytes, str]:
        return self._read(key)

    def _read(self, key: str) -> tuple[bytes, str]:
        doubtful: list[str] = []

        def work() -> tuple[bytes, str]:
            answer = self.client.get_object(Bucket=self.bucket, Key=self.name(key))
            data = _body(answer)
            digest, stored = hashlib.sha256(data).hexdigest(), answer["Metadata"].get(SHA256)
            right = digest == stored if stored else _is_md5_of(data, answer)
            if not right and digest not in doubtful:
                doubtful.append(digest)
                raise Truncated("the bytes do not have the digest of the object")
            # What comes twice alike is what the object holds: damage where we wrote it; what
            # others wrote may have an ETag that only looks like an MD5.
            if not right and stored:
                raise damaged(f"{self.uri}/{key}")
            return data, str(answer["ETag"])

        return self.attempt(work, "read", key)

    @override
    def read_range(self, key: str, offset: int, length: int) -> bytes:
        if length == 0:
            return b""
        wanted = f"bytes={offset}-{offset + length - 1}"

        def work() -> bytes:
            answer = self.client.get_object(Bucket=self.bucket, Key=self.name(key), Range=wanted)
            return _body(answer)

        try:
            data = self.attempt(work, "read", key)
        except StoreError as error:
            if code_of(error.__cause__) == "InvalidRange":
                data = b""
            else:
                raise
        if len(data) != length:
            raise StoreError(
                f"{self.uri}/{key} ends at byte {offset + len(data)}, before {offset + length}",
                fix="The object is not the one that was written; restore it or remove it.",
            )
        return data

    @override
    def write(self, key: str, data: bytes) -> None:
        self._put(key, data)

    @override
    def write_if_absent(self, key: str, data: bytes) -> bool:
        try:
            self._put(key, data, IfNoneMatch="*")
        except PreconditionFailed:
            return False
        return True

    @override
    def write_if_match(self, key: str, data: bytes, version: str | None) -> str:
        condition = {"IfNoneMatch": "*"} if version is None else {"IfMatch": version}
        try:
            return self._put(key, data, **condition)
        except StoreNotFound as error:  # If-Match on an object that is gone
            raise PreconditionFailed(
                f"{self.uri}/{key} was removed by another writer", fix="Run again."
            ) from error

    def _put(self, key: str, data: bytes, **condition: str) -> str:
        """Write the object; a write that was done but not acknowledged counts as done."""
        digest = hashlib.sha256(data).hexdigest()
        writer = uuid.uuid4().hex
        tries = 0

        def work() -> str:
            nonlocal tries
            tries += 1
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
                if tries > 1 and code_of(error) in ("PreconditionFailed", "412", *ABSENT):
                    mine = self.version_by(key, writer)
                    if mine is not None:
                        return mine
                raise
            return str(answer["ETag"])

        return self.attempt(work, "write", key)

    def version_by(self, key: str, writer: str) -> str | None:
        """The object's version if it is the one that this writer wrote."""
        try:
            answer = self.client.head_object(Bucket=self.bucket, Key=self.name(key))
        except Exception as error:
            if code_of(error) in ABSENT:
                return None
            raise
        return str(answer["ETag"]) if answer["Metadata"].get(WRITER) == writer else None

    @override
    def exists(self, key: str) -> bool:
        try:
            self.head(key)
        except NoSuchBucket:
            raise
        except StoreNotFound:
            return False
        return True

    @override
    def size(self, key: str) -> int:
        return int(self.head(key)["ContentLength"])

    def head(self, key: str) -> dict[str, Any]:
        """What S3 says about an object; :class:`StoreNotFound` where there is none."""
        try:
            return self.attempt(
                lambda: self.client.head_object(Bucket=self.bucket, Key=self.name(key)),
                "read",
                key,
            )
        except StoreNotFound:
            self._require_bucket()  # a HEAD cannot tell a missing object from a missing bucket
            raise

    def _require_bucket(self) -> None:
        # Who may not ask about the bucket may still read its objects.
        with contextlib.suppress(StoreAccessDenied):
            try:
                self.attempt(lambda: self.client.head_bucket(Bucket=self.bucket), "open")
            except StoreNotFound as error:
                raise no_bucket(self.uri, self.client.meta.endpoint_url) from error

    @override
    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        return self._list(prefix)

    @override
    def names(self) -> Sequence[str]:
        return [info.key for info in self._list("", Delimiter="/")]

    def _list(self, prefix: str, **more: str) -> Iterator[ObjectInfo]:
        start = f"{self.prefix}/" if self.prefix else ""
        while True:
            page = self.attempt(
                lambda more=dict(more): self.client.list_objects_v2(  # type: ignore[misc]
                    Bucket=self.bucket, Prefix=start + prefix, **more
                ),
                "list",
                prefix,
            )
            for item in page.get("Contents", []):
                if not item["Key"].endswith("/"):  # consoles make these for folders
                    key = str(item["Key"])[len(start) :]
                    yield ObjectInfo(key, int(item["Size"]), str(item["ETag"]).strip('"'))
            if not page.get("IsTruncated"):
                return
            more["ContinuationToken"] = page["NextContinuationToken"]

    @override
    def upload(self, path: Path, key: str, *, if_absent: bool = False) -> bool:
        from graftline.storage._s3_transfer import upload

        return upload(self, path, key, if_absent=if_absent)

    @override
    def download(self, key: str, path: Path) -> None:
        from graftline.storage._s3_transfer import download

        download(self, key, path)

    @override
    def delete(self, key: str) -> None:
        with contextlib.suppress(StoreNotFound):
            self.attempt(
                lambda: self.client.delete_object(Bucket=self.bucket, Key=self.name(key)),
                "delete",
                key,
            )

    @override
    def check_writable(self) -> None:
        key = f".graftline-probe-{uuid.uuid4().hex}"
        first = self.write_if_absent(key, b"probe")
        try:
            if not first or self.write_if_absent(key, b"again"):
                raise StoreError(
                    f"{self.uri} ignores conditional writes (If-None-Match)",
                    why="Two runs at once could then overwrite each other's work",
                    fix="Use a server with them: AWS, Ceph, MinIO; Google Cloud Storage has none.",
                )
        finally:
            self.delete(key)

    @override
    def child(self, prefix: str) -> "S3Store":
        below = checked_key(prefix.strip("/"))
        return S3Store(self.bucket, f"{self.prefix}/{below}".strip("/"))
