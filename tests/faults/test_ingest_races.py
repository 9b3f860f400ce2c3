"""Two ingests of the same images at once: what is kept is one's or the other's, never a mixture."""

import hashlib
import itertools
import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from graftline.data.snapshot import fetch_snapshot, keep_snapshot, read_images, read_snapshot
from graftline.steps.ingest.step import run
from graftline.storage import open_store
from graftline.storage.base import Store

COUNT, ROUNDS = 12, 15
WRITES = ("upload", "write", "write_if_absent", "write_if_match")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same images under other names: one snapshot, but other tables and shards of it."""
    one, other = (tmp_path_factory.mktemp(name) for name in ("one", "other"))
    for number in range(COUNT):
        pixels = np.random.default_rng(number).integers(0, 256, (20, 20, 3), dtype=np.uint8)
        path = one / "abc"[number % 3] / f"{number:02}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path)
        copy = other / path.parent.name / f"{COUNT - number:02}-copy.png"
        copy.parent.mkdir(exist_ok=True)
        shutil.copy(path, copy)
    return one, other


@pytest.fixture(params=["folder", "s3"])
def new_store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    base = request.getfixturevalue("s3_bucket") if request.param == "s3" else str(tmp_path / "at")
    numbers = iter(range(1000))
    return lambda: f"{base}/store-{next(numbers)}"


def ingest(source: Path, store: str, folder: Path, barrier: Any = None) -> str:
    if barrier is not None:
        barrier.wait(timeout=60)
    return run(source=str(source), store=store, snapshot_folder=folder).snapshot_id


def check_kept(store: Store, identity: str, folder: Path, roots: tuple[Path, Path]) -> None:
    """The kept snapshot names tables that are there, of one ingest alone, and all its images."""
    head = json.loads(store.read(f"snapshots/{identity}/snapshot.json"))
    held = {hashlib.sha256(store.read(i.key)).hexdigest() for i in store.list("snapshots/")}
    assert set(head["sha256"].values()) <= held
    snapshot = fetch_snapshot(store, identity, folder)
    names = set(snapshot.column("source"))
    (root,) = [root for root in roots if root.as_uri() == snapshot.source]
    assert names == {str(path.relative_to(root)) for path in root.rglob("*.png")}
    for row, data in read_images(snapshot, snapshot.rows(), store=store):
        assert data == (root / snapshot.column("source")[row]).read_bytes()


def paused_writes(store: Store, before: int, act: Callable[[], object]) -> Store:
    """The same store, whose `before`-th write happens after something else was done."""
    paused = open_store(store.uri)
    count = 0

    def wrap(function: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            nonlocal count
            count += 1
            if count == before:
                act()
            return function(*args, **kwargs)

        return call

    for name in WRITES:
        setattr(paused, name, wrap(getattr(paused, name)))
    return paused


@pytest.mark.parametrize("replace", [False, True])
def test_whichever_write_another_run_comes_between_the_kept_snapshot_is_of_one(
    replace: bool,
    sources: tuple[Path, Path],
    new_store: Callable[[], str],
    tmp_path: Path,
    record_property: Any,
) -> None:
    both = [tmp_path / "one", tmp_path / "other"]
    at = new_store()
    pairs = zip(sources, both, strict=True)
    (identity,) = {ingest(source, at, folder) for source, folder in pairs}
    first, second = (read_snapshot(path) for path in both)
    points = 0
    for before in itertools.count(1):
        store = open_store(at).child(f"again-{before}")
        struck: list[int] = []

        def between(store: Store = store, struck: list[int] = struck) -> None:
            struck.append(1)
            keep_snapshot(store, second, replace=replace)

        keep_snapshot(paused_writes(store, before, between), first, replace=replace)
        if not struck:
            break
        points += 1
        for info in open_store(at).list("shards/"):
            store.write(info.key, open_store(at).read(info.key))
        check_kept(store, identity, tmp_path / f"kept-{before}", sources)
    assert points >= 3
    record_property("points", points)


def test_two_ingests_at_once_leave_what_one_of_them_made(
    sources: tuple[Path, Path],
    new_store: Callable[[], str],
    tmp_path: Path,
    record_property: Any,
) -> None:
    for number in range(ROUNDS):
        store, barrier = new_store(), threading.Barrier(2)
        ids: list[str] = []

        def work(turn: int, store=store, barrier=barrier, ids=ids, number=number) -> None:
            ids.append(ingest(sources[turn], store, tmp_path / f"{number}-{turn}", barrier))

        threads = [threading.Thread(target=work, args=(turn,)) for turn in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=120)
        assert len(ids) == 2 and len(set(ids)) == 1, number
        check_kept(open_store(store), ids[0], tmp_path / f"kept-{number}", sources)
        for turn in range(2):  # what each handed on is whole as well
            own = read_snapshot(tmp_path / f"{number}-{turn}")
            assert len(list(read_images(own, own.rows()))) == COUNT
    record_property("points", ROUNDS)
