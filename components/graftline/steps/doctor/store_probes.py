"""Does the store keep what Graftline relies on? Asked by doing it, below a key of its own."""

import contextlib
import hashlib
import os
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from graftline.errors import GraftlineError, PreconditionFailed, StoreError
from graftline.steps.doctor.findings import Examination, Problem
from graftline.storage import open_store
from graftline.storage.base import Store

FOLDER = "doctor"  # in the store; each examination removes its own objects
WRITERS = 8
ROUNDS = 6
LARGE = 17 * 2**20  # bytes: more than one part of an upload
SKEW_NOTE, SKEW_MOST = 60.0, 600.0  # seconds; S3 refuses requests from 15 minutes on


def examine_store(found: Examination, uri: str, *, writers: int = WRITERS) -> None:
    """Probe a store: permissions, races, checksums, large files, the clock."""
    made: list[Store] = []

    def open_it() -> str:
        store = open_store(uri)
        if store.uri.startswith("s3:"):  # a folder is made when it is first written to
            store.check_there()
        made.append(store.child(f"{FOLDER}/{uuid.uuid4().hex}"))
        return f"{store.uri} answers"

    if not found.probe("store", "open and list it", open_it):
        found.skip("store", "races, checksums, large files", "the store cannot be opened")
        return
    store = made[0]
    try:
        if found.probe("store", "write, read, list and remove an object", lambda: _rights(store)):
            _behaviour(found, store, writers)
    finally:
        _remove_all(store)


def _behaviour(found: Examination, store: Store, writers: int) -> None:
    found.probe(
        "store",
        f"{writers} writers create the same object, {ROUNDS} times",
        lambda: race_to_create(store, writers, ROUNDS),
    )
    found.probe(
        "store",
        f"{writers} writers replace the same version, {ROUNDS} times",
        lambda: race_to_replace(store, writers, ROUNDS),
    )
    found.probe("store", "read a part of an object", lambda: _ranges(store))
    found.probe("store", f"upload and download {LARGE >> 20} MiB", lambda: _large(store))
    client = getattr(store, "client", None)
    if client is None:
        found.skip("store", "refuse a damaged upload; compare clocks", "a folder has neither")
        return
    found.probe("store", "send bytes that do not have their checksum", lambda: _checksum(store))
    found.probe("store", "compare clocks", lambda: _clock(store))


def _rights(store: Store) -> str:
    data = os.urandom(100)
    store.write("rights", data)
    if store.read("rights") != data:
        raise Problem("other bytes came back than were written", "Do not use this store.")
    if "rights" not in [info.key for info in store.list()]:
        raise Problem(
            "a listing lacks an object that was just written",
            "Graftline needs a store whose listings are up to date: S3, Ceph, MinIO are.",
        )
    store.delete("rights")
    if store.exists("rights"):
        raise Problem("an object is still there after its removal", "Allow s3:DeleteObject.")
    return "all allowed"


def race_to_create(store: Store, writers: int, rounds: int) -> str:
    """Let several writers create the same object at once; exactly one may be told that it did.

    Raises:
        Problem: Two won, none won, or the winner's bytes are not what is there.
    """

    def attempt(key: str, data: bytes, *, wait: Callable[[], object]) -> bool:
        wait()
        return store.write_if_absent(key, data)

    return _races(store, writers, rounds, attempt, "create")


def race_to_replace(store: Store, writers: int, rounds: int) -> str:
    """Let several writers replace the same version at once; exactly one may be told that it did.

    Raises:
        Problem: Two won, none won, or the winner's bytes are not what is there.
    """

    def attempt(key: str, data: bytes, *, wait: Callable[[], object]) -> bool:
        _, version = store.read_versioned(key)
        wait()
        try:
            store.write_if_match(key, data, version)
        except PreconditionFailed:
            return False
        return True

    return _races(store, writers, rounds, attempt, "replace")


class _Attempt(Protocol):
    def __call__(self, key: str, data: bytes, *, wait: Callable[[], object]) -> bool: ...


def _races(store: Store, writers: int, rounds: int, attempt: _Attempt, action: str) -> str:
    lost = []
    with ThreadPoolExecutor(writers) as pool:
        for number in range(rounds):
            key = f"race-{action}-{number}"
            if action == "replace":
                store.write(key, b"first")
            barrier = threading.Barrier(writers)
            bodies = [uuid.uuid4().bytes for _ in range(writers)]
            one = partial(attempt, key, wait=barrier.wait)
            won = list(pool.map(one, bodies))
            there = store.read(key)
            winners = [body for body, first in zip(bodies, won, strict=True) if first]
            if winners != [there]:
                lost.append(len(winners))
    if lost:
        raise Problem(
            f"{len(lost)} of {rounds} races did not have exactly one winner (winners: "
            f"{', '.join(map(str, lost))})",
            "Do not use this store: two runs at once could overwrite each other's work. Use a "
            "server whose conditional writes (If-None-Match, If-Match) are atomic: AWS S3, a "
            "current MinIO, or Ceph.",
        )
    return f"one winner in each of {rounds} races"


def _ranges(store: Store) -> str:
    data = os.urandom(2000)
    store.write("ranges", data)
    if store.read_range("ranges", 500, 700) != data[500:1200]:
        raise Problem("other bytes came than were asked for", "Do not use this store.")
    return "the right bytes"


def _large(store: Store) -> str:
    with tempfile.TemporaryDirectory() as folder:
        source, back = Path(folder) / "large", Path(folder) / "back"
        block = os.urandom(2**20)
        with source.open("wb") as stream:
            for number in range(LARGE >> 20):
                stream.write(hashlib.sha256(bytes([number])).digest() + block[32:])
        started = time.monotonic()
        store.upload(source, "large")
        middle = time.monotonic()
        store.download("large", back)
        if source.read_bytes() != back.read_bytes():
            raise Problem("other bytes came back than were sent", "Do not use this store.")
        up, down = middle - started, time.monotonic() - middle
    size = LARGE / 2**20
    return f"arrived whole; {size / up:.0f} MiB/s up, {size / down:.0f} MiB/s down"


def _checksum(store: Any) -> str:
    from graftline.storage._s3_client import md5

    try:
        store.client.put_object(
            Bucket=store.bucket, Key=store.name("damaged"), Body=b"one", ContentMD5=md5(b"other")
        )
    except Exception as error:
        return f"refused, as it should be ({type(error).__name__})"
    raise Problem(
        "the server took it",
        "A damaged upload is noticed only when it is read. That is safe, since Graftline compares "
        "its own sha256, but late.",
        note=True,
    )


def _clock(store: Any) -> str:
    from email.utils import parsedate_to_datetime

    before = time.time()
    answer = store.client.list_objects_v2(Bucket=store.bucket, MaxKeys=1)
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    if "date" not in headers:
        raise Problem("the server does not say what time it has", "Nothing.", note=True)
    theirs = parsedate_to_datetime(headers["date"]).timestamp()
    skew = (before + time.time()) / 2 - theirs
    side = "ahead of" if skew > 0 else "behind"
    came = f"this machine is {abs(skew):.0f} s {side} the server"
    if abs(skew) > SKEW_NOTE:
        fix = "Set the clock by NTP; S3 refuses requests that are 15 minutes off."
        raise Problem(came, fix, note=abs(skew) < SKEW_MOST)
    return came


def _remove_all(store: Store) -> None:
    with contextlib.suppress(GraftlineError, StoreError):
        for info in list(store.list()):
            store.delete(info.key)
    root = getattr(store, "root", None)
    if root is not None:
        shutil.rmtree(root, ignore_errors=True)
        with contextlib.suppress(OSError):
            root.parent.rmdir()  # unless another examination is going on


def examine_source(found: Examination, uri: str) -> None:
    """Probe whether the images can be listed and read."""

    def read_one() -> str:
        place = open_store(uri)
        first = next(iter(place.list()), None)
        if first is None:
            raise Problem("nothing is there", "Correct `data.source`.")
        place.read_range(first.key, 0, min(first.size, 100))
        return f"{first.key} can be read"

    if uri.partition(":")[0] in ("s3", "file") or "://" not in uri:
        if Path(uri).is_file():
            found.probe("source", "read it", lambda: f"{Path(uri).stat().st_size:,} bytes")
        else:
            found.probe("source", "list it and read the first file", read_one)
