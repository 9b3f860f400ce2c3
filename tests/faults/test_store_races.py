"""Eight writers at once: one winner always; stores that lose races are refused."""

import multiprocessing
import uuid
from pathlib import Path
from typing import Any

import pytest
from tests.service.fault_proxy import FaultProxy

from graftline.errors import PreconditionFailed, StoreError
from graftline.steps.doctor.findings import Examination, Problem
from graftline.steps.doctor.store_probes import (
    examine_store,
    race_to_create,
    race_to_replace,
)
from graftline.storage import open_store
from graftline_pipelines.preflight.store import check_store

WRITERS, ROUNDS = 8, 50
FORK = multiprocessing.get_context("fork")


@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_one_winner_in_each_of_fifty_rounds(
    kind: str, s3_bucket: str, tmp_path: Path, record_property: Any
) -> None:
    store = open_store(str(tmp_path / "store") if kind == "folder" else f"{s3_bucket}/store")
    assert "one winner" in race_to_create(store, WRITERS, ROUNDS)
    assert "one winner" in race_to_replace(store, WRITERS, ROUNDS)
    record_property("points", 2 * ROUNDS)


def contend(uri: str, barrier: Any, answers: Any) -> None:
    store = open_store(uri)
    for number in range(ROUNDS):
        mine = uuid.uuid4().bytes
        barrier.wait(timeout=60)
        created = store.write_if_absent(f"created-{number}", mine)
        _, version = store.read_versioned("pointer")
        barrier.wait(timeout=60)
        try:
            store.write_if_match("pointer", mine, version)
            replaced = True
        except PreconditionFailed:
            replaced = False
        barrier.wait(timeout=60)
        there = store.read("pointer") == mine, store.read(f"created-{number}") == mine
        answers.put((number, created, replaced, there[1], there[0]))
        barrier.wait(timeout=60)


def test_one_winner_among_processes_on_a_folder(tmp_path: Path, record_property: Any) -> None:
    uri = str(tmp_path / "store")
    open_store(uri).write("pointer", b"first")
    barrier, answers = FORK.Barrier(WRITERS), FORK.Queue()
    children = [FORK.Process(target=contend, args=(uri, barrier, answers)) for _ in range(WRITERS)]
    for child in children:
        child.start()
    found = [answers.get(timeout=120) for _ in range(WRITERS * ROUNDS)]
    for child in children:
        child.join(timeout=30)
    for number in range(ROUNDS):
        told = [each[1:] for each in found if each[0] == number]
        assert sum(created for created, *_ in told) == 1
        assert sum(replaced for _, replaced, *_ in told) == 1
        assert all(created == there for created, _, there, _ in told)
        assert all(replaced == there for _, replaced, _, there in told)
    record_property("points", 2 * ROUNDS)


@pytest.mark.parametrize("kind", ["ignores", "races"])
def test_a_server_that_loses_races_is_refused(
    kind: str,
    s3_server: str,
    s3_bucket: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Any,
) -> None:
    with FaultProxy(s3_server) as proxy:
        proxy.careless = kind
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
        store = f"{s3_bucket}/store"
        with pytest.raises(Problem, match="exactly one winner"):
            race_to_create(open_store(store), WRITERS, 6)
        found = Examination()
        examine_store(found, store)
        assert [each for each in found.failed if "writers" in each.tried]
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        for _ in range(2):  # a failure is not remembered
            with pytest.raises(StoreError, match=r"conditional writes|does not decide"):
                check_store(store)
    record_property("points", 2)


def test_a_store_is_tried_once_before_a_run(
    s3_server: str, s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with FaultProxy(s3_server) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
        requests = []
        for _ in range(2):
            proxy.lines.clear()
            assert "writable" in check_store(f"{s3_bucket}/store")
            requests.append(len(proxy.lines))
    assert requests[0] > 30 > 10 > requests[1], requests
    assert not list(open_store(f"{s3_bucket}/store").list())
