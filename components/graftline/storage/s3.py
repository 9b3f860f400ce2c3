"""An S3 prefix as a store, by boto3 and the standard AWS chain.

Every object that is written carries the sha256 of its bytes, and every whole read is compared
with it: a flipped bit passes the network's own checks unnoticed. Requests are tried again on
throttling, server errors and broken connections until :func:`patience` is over; boto's own
retries count tries rather than time and do not cover the reading of a body, so they are off.
"""

import contextlib
import hashlib
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from typing_extensions import override

from graftline.errors import (
    PreconditionFailed,
    StoreError,
    StoreNotFound,
)
from graftline.storage import _s3_transfer
from graftline.storage._s3_client import (
    SHA256,
    S3Client,
    _body,
    _is_md5_of,
    damaged,
    require_range,
)
from graftline.storage._s3_errors import (
    NoSuchBucket,
    Truncated,
    code_of,
)
from graftline.storage.base import ObjectInfo, Store, checked_key


class S3Store(S3Client, Store):
    """A bucket, or a prefix in it."""

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return S3Store, (self.bucket, self.prefix)

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
            require_range(answer, length)
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
                fix="The object is not the one that was written: restore it or remove it.",
            )
        return data

    @override
    def write(self, key: str, data: bytes) -> None:
        self.put(key, data)

    @override
    def write_if_match(self, key: str, data: bytes, version: str | None) -> str:
        condition = {"IfNoneMatch": "*"} if version is None else {"IfMatch": version}
        try:
            return self.put(key, data, **condition)
        except NoSuchBucket:
            raise
        except StoreNotFound as error:  # If-Match on an object that is gone
            raise PreconditionFailed(
                f"{self.uri}/{key} was removed by another writer", fix="Run again."
            ) from error

    @override
    def size(self, key: str) -> int:
        return int(self.head(key)["ContentLength"])

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
                    etag, modified = str(item["ETag"]).strip('"'), item["LastModified"].timestamp()
                    yield ObjectInfo(key, int(item["Size"]), etag, modified)
            if not page.get("IsTruncated"):
                return
            more["ContinuationToken"] = page["NextContinuationToken"]

    @override
    def upload(self, path: Path, key: str, *, if_absent: bool = False) -> bool:
        return _s3_transfer.upload(self, path, key, if_absent=if_absent)

    @override
    def download(self, key: str, path: Path) -> None:
        _s3_transfer.download(self, key, path)

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
