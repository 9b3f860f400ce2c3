"""A real ingest into S3, killed at its k-th request, for every k; and then run again."""

import hashlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.faults.fork_server import ForkServer
from tests.service.fault_proxy import FaultProxy

from graftline.data.snapshot import fetch_snapshot, read_images
from graftline.steps.ingest.step import run
from graftline.storage import open_store

INGEST = """
import sys
from pathlib import Path
from graftline.steps.ingest.step import run

run(source=sys.argv[1], store=sys.argv[2], snapshot_folder=Path(sys.argv[3]))
"""
COUNT = 18


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for number in range(COUNT):
        path = folder / "abc"[number % 3] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return folder


@pytest.fixture
def proxy(s3_server: str, s3_bucket: str) -> Iterator[FaultProxy]:
    with FaultProxy(s3_server) as between:
        yield between


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    with ForkServer(["graftline.steps.ingest.step", "graftline.storage.s3", "boto3"]) as forks:
        yield forks


def killed(
    server: ForkServer,
    images: Path,
    store: str,
    folder: Path,
    proxy: FaultProxy,
    k: int,
    when: str,
) -> bool:
    """Whether the ingest was killed at its k-th request, before or after the server did it."""
    struck: list[int] = []
    forks: list[int] = []

    def strike(number: int, line: str) -> bool:
        if number == k and not struck:
            struck.append(number)
            os.kill(forks[0], signal.SIGKILL)
            while _runs(forks[0]):  # the answer must not reach it
                pass
        return bool(struck)  # what its other threads still send never reaches the server

    proxy.lines.clear()
    proxy.before, proxy.after = (strike, _nothing) if when == "before" else (_nothing, strike)
    done = server.run(
        INGEST,
        [str(images), store, str(folder)],
        folder,
        environment={
            **{name: value for name, value in os.environ.items() if name.startswith("AWS_")},
            "AWS_ENDPOINT_URL_S3": proxy.url,
        },
        begun=forks.append,
    )
    proxy.wait_until_idle()
    proxy.before = proxy.after = _nothing
    assert done.returncode == (-signal.SIGKILL if struck else 0), done.output
    return bool(struck)


def _runs(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def _nothing(number: int, line: str) -> None:
    return


def check(store: str, identity: str, folder: Path) -> None:
    """Whatever can be seen is whole: objects by their sha256, snapshots by their images."""
    place = open_store(store)
    for info in place.list():
        data = place.read(info.key)
        if info.key.startswith("shards/"):
            assert info.key == f"shards/{hashlib.sha256(data).hexdigest()}.tar"
    if not place.exists(f"snapshots/{identity}/snapshot.json"):
        return
    snapshot = fetch_snapshot(place, identity, folder)  # what it names is there
    assert len(list(read_images(snapshot, snapshot.rows()))) == COUNT


def shards(store: str) -> set[str]:
    return {info.key for info in open_store(store).list("shards/")}


@pytest.mark.parametrize(
    ("when", "step"),
    [
        ("before", 7),
        pytest.param("before", 1, marks=pytest.mark.slow),
        pytest.param("after", 1, marks=pytest.mark.slow),
    ],
)
@pytest.mark.timeout(900)
def test_killed_at_the_kth_request_nothing_partial_is_seen_and_the_rerun_is_the_undisturbed_one(
    server: ForkServer,
    images: Path,
    proxy: FaultProxy,
    s3_bucket: str,
    tmp_path: Path,
    when: str,
    step: int,
    record_property: Any,
) -> None:
    whole = f"{s3_bucket}/whole"
    expected = run(source=str(images), store=whole, snapshot_folder=tmp_path / "whole").snapshot_id
    points = 0
    for k in range(3, 200, step):
        store = f"{s3_bucket}/{when}-{k}"
        if not killed(server, images, store, tmp_path / f"killed-{k}", proxy, k, when):
            break
        points += 1
        check(store, expected, tmp_path / f"seen-{k}")
        again = run(source=str(images), store=store, snapshot_folder=tmp_path / f"again-{k}")
        assert again.snapshot_id == expected, k
        assert shards(store) == shards(whole), k
        check(store, expected, tmp_path / f"kept-{k}")
    assert points > (15 if step == 1 else 1)
    record_property("points", points)
