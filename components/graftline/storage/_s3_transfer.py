"""Files to and from S3 in bounded memory, with their sha256 compared at the end."""

import contextlib
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Any

from graftline.errors import PreconditionFailed, StoreError
from graftline.files import os_errors, replacing, sha256_of
from graftline.storage._s3_client import (
    SHA256,
    WRITER,
    S3Client,
    damaged,
    md5,
    require_range,
)
from graftline.storage._s3_errors import Truncated, code_of

PART = 16 * 2**20  # with 4 at once: 64 MiB of memory, files up to 160 GB
PARTS_AT_ONCE = 4
RANGE = 64 * 2**20  # what one request may fetch: patience starts again for each
CHUNK = 2**20


def upload(store: S3Client, path: Path, key: str, *, if_absent: bool) -> bool:
    """Create the object from a file; large ones go up in parts, several at once.

    Returns:
        False where ``if_absent`` was asked and the name was taken.
    """
    if if_absent and store.exists(key):  # spares the transfer; the condition below decides
        return False
    with os_errors(str(path), "read"):
        size = path.stat().st_size
        if size <= PART:
            data = path.read_bytes()
    if size > PART:
        return _upload_parts(store, path, key, if_absent=if_absent)
    if if_absent:
        return store.write_if_absent(key, data)
    store.put(key, data)
    return True


def _upload_parts(store: S3Client, path: Path, key: str, *, if_absent: bool) -> bool:
    target = {"Bucket": store.bucket, "Key": store.name(key)}
    with os_errors(str(path), "read"):
        digest = sha256_of(path)
    writer = uuid.uuid4().hex
    metadata = {SHA256: digest, WRITER: writer}
    started = store.attempt(
        lambda: store.client.create_multipart_upload(**target, Metadata=metadata), "write", key
    )
    upload = {**target, "UploadId": started["UploadId"]}
    try:
        parts = _send_parts(store, path, key, upload)
        condition = {"IfNoneMatch": "*"} if if_absent else {}
        _complete(store, key, writer, {**upload, **condition}, parts)
    except BaseException as error:
        with contextlib.suppress(Exception):  # what is left costs room, and names itself to S3
            store.client.abort_multipart_upload(**upload)
        if if_absent and isinstance(error, PreconditionFailed):
            return False
        raise
    return True


def _send_parts(
    store: S3Client, path: Path, key: str, target: dict[str, str]
) -> list[dict[str, Any]]:
    def send(number: int, data: bytes) -> dict[str, Any]:
        answer = store.attempt(
            lambda: store.client.upload_part(
                **target, PartNumber=number, Body=data, ContentMD5=md5(data)
            ),
            "write",
            key,
        )
        return {"PartNumber": number, "ETag": answer["ETag"]}

    done: list[dict[str, Any]] = []
    with path.open("rb") as stream, ThreadPoolExecutor(PARTS_AT_ONCE) as pool:
        numbered = enumerate(_pieces(stream, PART), 1)
        while batch := list(islice(numbered, PARTS_AT_ONCE)):
            done += pool.map(lambda pair: send(*pair), batch)
    return done


def _complete(
    store: S3Client, key: str, writer: str, target: dict[str, str], parts: list[dict[str, Any]]
) -> None:
    tries = 0

    def work() -> None:
        nonlocal tries
        tries += 1
        try:
            store.client.complete_multipart_upload(**target, MultipartUpload={"Parts": parts})
        except Exception as error:
            # After a lost acknowledgement the upload is gone, and the object is there.
            lost = code_of(error) in ("NoSuchUpload", "PreconditionFailed", "412")
            if not (tries > 1 and lost and store.version_by(key, writer)):
                raise

    store.attempt(work, "write", key)


def download(store: S3Client, key: str, path: Path) -> None:
    """Copy the object to a file, going on after a broken connection where it stopped."""
    with os_errors(str(path), "write"), replacing(path) as temporary:
        for last in (False, True):
            expected = _download_once(store, key, temporary, path)
            with os_errors(str(path), "read"):
                whole = expected is None or sha256_of(temporary) == expected
            if whole:
                break
            if last:
                raise damaged(f"{store.uri}/{key}")


def _download_once(store: S3Client, key: str, temporary: Path, path: Path) -> str | None:
    """Fetch all bytes of one version; its sha256 comes back where it is known."""
    target = {"Bucket": store.bucket, "Key": store.name(key)}
    head = store.head(key)
    size = int(head["ContentLength"])
    with os_errors(str(path), "write"), temporary.open("wb") as stream:

        def work(stop: int) -> None:
            start = stream.tell()
            if start == stop:
                return
            wanted = f"bytes={start}-{stop - 1}"
            answer = store.client.get_object(**target, Range=wanted, IfMatch=head["ETag"])
            require_range(answer, start, stop - start)
            for piece in _pieces(answer["Body"], CHUNK):
                stream.write(piece)
            if stream.tell() != stop:
                raise Truncated(f"received {stream.tell()} of {size} bytes")

        try:
            for stop in [*range(RANGE, size, RANGE), size]:
                store.attempt(partial(work, stop), "read", key)
        except PreconditionFailed as error:
            raise StoreError(
                f"{store.uri}/{key} was replaced while it was read", fix="Run again."
            ) from error
    digest: str | None = head["Metadata"].get(SHA256)
    return digest


def _pieces(stream: IO[bytes], size: int) -> Iterator[bytes]:
    while piece := stream.read(size):
        yield piece
