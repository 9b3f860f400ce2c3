"""An S3 prefix as a store, by boto3 and the standard AWS chain.

Every object that is written carries the sha256 of its bytes, and every whole read is compared
with it: a flipped bit passes the network's own checks unnoticed. Requests are tried again on
throttling, server errors and broken connections until :func:`patience` is over; boto's own
retries count tries rather than time and do not cover the reading of a body, so they are off.
"""

import contextlib
import dataclasses
import hashlib
import uuid
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from typing_extensions import override

from graftline.errors import (
    PreconditionFailed,
    StoreError,
    StoreNotFound,
)
from graftline.storage import _s3_transfer
from graftline.storage._s3_answers import MOST_BYTES, NotS3
from graftline.storage._s3_client import (
    SHA256,
    S3Client,
    _body,
    _is_md5_of,
    damaged,
    require_range,
    require_whole,
)
from graftline.storage._s3_errors import (
    NoSuchBucket,
    Truncated,
    code_of,
)
from graftline.storage.base import ObjectInfo, Store, checked_key

MOST_EMPTY_PAGES = 200  # one after the other; deleted versions can fill some


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
            require_whole(answer)
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
            require_range(answer, offset, length)
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
        tokens: set[str] = set()
        empty, last = 0, ""
        while True:
            infos, token = self.attempt(
                lambda more=dict(more), empty=empty: self._page(  # type: ignore[misc]
                    start + prefix, tokens, empty, **more
                ),
                "list",
                prefix,
            )
            for info in infos:
                if not info.key.endswith("/") and info.key != last:  # consoles make these folders
                    last = info.key
                    yield dataclasses.replace(info, key=info.key[len(start) :])
            if not token:
                return
            empty = 0 if infos else empty + 1
            tokens.add(token)
            more["ContinuationToken"] = token

    def _page(
        self, start: str, tokens: set[str], empty: int, **more: str
    ) -> tuple[Sequence[ObjectInfo], str]:
        """A page of a listing by whole names, and the token of the next; empty after the last.

        Raises:
            NotS3: The page holds what no listing of this prefix holds, or leads in a circle.
        """
        page = self.client.list_objects_v2(Bucket=self.bucket, Prefix=start, **more)
        infos = []
        for item in page.get("Contents", []):
            info = _info(item, start)
            if info is None:
                raise NotS3(200, f"it lists {str(item)[:100]} below {start!r}")
            infos.append(info)
        if not page.get("IsTruncated"):
            return infos, ""
        token = str(page.get("NextContinuationToken") or "")
        if not token or token in tokens or (not infos and empty >= MOST_EMPTY_PAGES):
            raise NotS3(200, "its listing has no end")
        return infos, token

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
            next(iter(self.list(key)), None)  # a server may lack listings, or this account them
        finally:
            self.delete(key)

    @override
    def child(self, prefix: str) -> "S3Store":
        below = checked_key(prefix.strip("/"))
        return S3Store(self.bucket, f"{self.prefix}/{below}".strip("/"))


def _info(item: dict[str, Any], start: str) -> ObjectInfo | None:
    """A listed object by its whole name; None for what no listing of this prefix holds."""
    key, size, tag = item.get("Key"), item.get("Size"), item.get("ETag")
    modified = item.get("LastModified")
    if not isinstance(key, str) or not key.startswith(start) or not key:
        return None
    if not isinstance(size, int) or not 0 <= size <= MOST_BYTES or tag is None:
        return None
    if not isinstance(modified, datetime):
        return None
    return ObjectInfo(key, size, str(tag).strip('"'), modified.timestamp())
