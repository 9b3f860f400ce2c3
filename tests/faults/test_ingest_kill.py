"""A real ingest, killed or refused at one system call after the other, and then run again."""

import hashlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.faults.fork_server import Done, ForkServer

from graftline.data.snapshot import fetch_snapshot, read_images, read_snapshot
from graftline.steps.ingest.step import run
from graftline.storage import open_store

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")

INGEST = """
import sys
from pathlib import Path
from graftline.errors import GraftlineError
from graftline.steps.ingest.step import run

try:
    run(source=sys.argv[1], store=sys.argv[2], snapshot_folder=Path(sys.argv[3]))
except GraftlineError as error:
    print(f"{type(error).__name__}: {error}", flush=True)
    sys.exit(1)
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for number in range(18):
        path = folder / "abc"[number % 3] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return folder


@pytest.fixture(scope="module")
def expected(images: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    place = tmp_path_factory.mktemp("expected")
    return run(
        source=str(images), store=str(place / "store"), snapshot_folder=place / "s"
    ).snapshot_id


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    with ForkServer(["graftline.steps.ingest.step", "graftline.reports.html"]) as forks:
        yield forks


def traced(server: ForkServer, images: Path, place: Path, *options: str) -> Done:
    arguments = [str(images), str(place / "store"), str(place / "snapshot")]
    strace = ["-o", str(place / "trace"), *options]
    return server.run(INGEST, arguments, place, strace=strace)


def calls(server: ForkServer, images: Path, place: Path, names: str) -> dict[str, int]:
    """How often a whole run makes each of these system calls."""
    done = traced(server, images, place, "-e", f"trace={names}")
    assert done.returncode == 0, done.output
    found = re.findall(r"^\d+ +(\w+)\(", (place / "trace").read_text(), flags=re.M)
    return {name: found.count(name) for name in names.split(",")}


def check_store(place: Path) -> None:
    """Whatever is in the store is whole."""
    store = open_store(str(place / "store"))
    for info in store.list():
        data = store.read(info.key)
        assert len(data) == info.size
        if info.key.startswith("shards/"):
            assert info.key == f"shards/{hashlib.sha256(data).hexdigest()}.tar"
        if info.key.endswith("/snapshot.json"):  # all that it names is there
            snapshot = fetch_snapshot(store, info.key.split("/")[1], place / "seen")
            assert len(list(read_images(snapshot, snapshot.rows()))) == 18


def kill_at(
    server: ForkServer, images: Path, place: Path, name: str, number: int, expected: str
) -> None:
    place.mkdir()
    inject = f"inject={name}:signal=SIGKILL:when={number}"
    done = traced(server, images, place, "-e", f"trace={name}", "-e", inject)
    assert done.returncode == -9, (name, number, done.returncode, done.output)
    check_store(place)
    again = run(source=str(images), store=str(place / "store"), snapshot_folder=place / "snapshot")
    assert again.snapshot_id == expected, (name, number)
    store = open_store(str(place / "store"))
    for snapshot in (
        read_snapshot(place / "snapshot"),
        fetch_snapshot(store, expected, place / "kept"),
    ):
        assert len(list(read_images(snapshot, snapshot.rows()))) == 18
    assert not [info.key for info in store.list() if "/partial/" in info.key]
    shutil.rmtree(place)


def test_killed_ingest_is_finished_by_the_next(
    server: ForkServer, images: Path, expected: str, tmp_path: Path, record_property: Any
) -> None:
    """At five points; the slow test takes all of them."""
    moments = (("fsync", 3), ("rename", 2), ("link", 1), ("link", 4), ("write", 7))
    for name, number in moments:
        kill_at(server, images, tmp_path / f"{name}-{number}", name, number, expected)
    record_property("points", len(moments))


def test_every_file_is_on_disk_before_it_has_its_name(
    server: ForkServer, images: Path, tmp_path: Path
) -> None:
    """What a power cut would show: fsync of the file, then its name, then fsync of the folder."""
    calls(server, images, tmp_path, "fsync,rename,link")
    found = re.findall(r"^\d+ +(\w+)\(", (tmp_path / "trace").read_text(), flags=re.M)
    names = [place for place, name in enumerate(found) if name != "fsync"]
    assert len(names) > 10
    for place in names:
        assert found[place - 1 : place + 2 : 2] == ["fsync", "fsync"], found


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["write", "fsync", "rename", "link", "unlink"])
def test_ingest_killed_at_every_one_of_its_system_calls(
    server: ForkServer,
    images: Path,
    expected: str,
    tmp_path: Path,
    name: str,
    record_property: Any,
) -> None:
    (tmp_path / "count").mkdir()
    count = calls(server, images, tmp_path / "count", name)[name]
    assert count > 2
    for number in range(1, count + 1):
        kill_at(server, images, tmp_path / f"{name}-{number}", name, number, expected)
    record_property("points", count)


@pytest.mark.parametrize(
    ("name", "number", "error", "kind"),
    [
        ("write", 3, "ENOSPC", "NoSpace"),
        ("fsync", 1, "ENOSPC", "NoSpace"),
        ("fsync", 4, "EIO", "StoreError"),
        ("link", 1, "EROFS", "StoreReadOnly"),
        ("rename", 1, "EACCES", "StoreReadOnly"),
        ("mkdir", 1, "EDQUOT", "NoSpace"),
    ],
)
def test_refusal_of_the_system_is_an_error_with_its_remedy(
    server: ForkServer,
    images: Path,
    expected: str,
    tmp_path: Path,
    name: str,
    number: int,
    error: str,
    kind: str,
    record_property: Any,
) -> None:
    inject = f"inject={name}:error={error}:when={number}"
    done = traced(server, images, tmp_path, "-e", f"trace={name}", "-e", inject)
    assert done.returncode == 1, done.output
    assert f"{kind}: Cannot " in done.output and "What to do: " in done.output
    assert "Traceback" not in done.output
    record_property("points", 1)
    check_store(tmp_path)
    again = run(
        source=str(images), store=str(tmp_path / "store"), snapshot_folder=tmp_path / "snapshot"
    )
    assert again.snapshot_id == expected
