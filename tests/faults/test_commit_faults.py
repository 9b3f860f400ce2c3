"""A commit to a folder, killed or refused at each system call: the old state or the new one."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.faults.fork_server import Done, ForkServer

from graftline.storage import commit, open_store

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")

COMMIT = """
import sys
from pathlib import Path
from graftline.errors import GraftlineError
from graftline.files import write_atomic
from graftline.storage import commit
from graftline.storage.local import FileStore

store = FileStore(Path(sys.argv[1]))
try:
    store.write("plain", b"new" * 1000)
    store.write_if_absent("created", b"new" * 1000)
    _, version = store.read_versioned("pointer")
    store.write_if_match("pointer", b"new" * 1000, version)
    store.upload(Path(sys.argv[2]), "uploaded")
    store.download("plain", Path(sys.argv[1]) / "downloaded")
    write_atomic(Path(sys.argv[1]) / "atomic", b"new" * 1000)
    key = commit.put_file(store, Path(sys.argv[2]), "objects/{sha256}")
    commit.create(store, "first.json", {"object": key})
    manifest = commit.read(store, "manifest.json")
    commit.replace(store, "manifest.json", {"object": key}, manifest.version)
    commit.fetch_file(store, key, key.removeprefix("objects/"), Path(sys.argv[1]) / "fetched")
except GraftlineError as error:
    print(f"{type(error).__name__}: {error}", flush=True)
    sys.exit(1)
except OSError as error:
    print(f"OSError: {error}", flush=True)
    sys.exit(1)
"""
OLD, NEW = b"old" * 1000, b"new" * 1000
OBJECT = f"objects/{hashlib.sha256(NEW).hexdigest()}"
# In the order in which they are committed.
NAMES = (
    *("plain", "created", "pointer", "uploaded", "downloaded", "atomic", OBJECT),
    *("first.json", "manifest.json", "fetched"),
)
CALLS = "write,fsync,rename,link"


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    with ForkServer(["graftline.storage.local", "graftline.storage.commit"]) as forks:
        yield forks


def prepare(folder: Path) -> Path:
    store = open_store(str(folder / "store"))
    for name in ("plain", "pointer", "uploaded", "downloaded", "atomic", "fetched"):
        store.write(name, OLD)
    store.write("manifest.json", b'{"object": "old"}')
    (folder / "file").write_bytes(NEW)
    return folder / "store"


def run(server: ForkServer, folder: Path, store: Path, *strace: str) -> Done:
    arguments = [str(store), str(folder / "file")]
    return server.run(COMMIT, arguments, folder, strace=strace or None)


def calls(server: ForkServer, folder: Path, store: Path) -> dict[str, int]:
    trace = folder / "trace"
    done = run(server, folder, store, "-o", str(trace), "-e", f"trace={CALLS}")
    assert done.returncode == 0, done.output
    lines = trace.read_text().splitlines()
    lines = [line for line in lines if "resumed" not in line]
    return {name: sum(f" {name}(" in line for line in lines) for name in CALLS.split(",")}


def state(store: Path) -> dict[str, str]:
    """Old, new or absent; anything else is a mixture."""
    opened = open_store(str(store))
    found = {}
    for name in NAMES:
        if not opened.exists(name):
            found[name] = "absent"
            continue
        data = opened.read(name)
        if name.endswith(".json"):
            held = commit.read(opened, name).content["object"]
            assert held == "old" or opened.read(held) == NEW, (name, held)
            data = OLD if held == "old" else NEW
        assert data in (OLD, NEW), (name, data[:30], len(data))
        found[name] = "new" if data == NEW else "old"
    return found


@pytest.mark.parametrize("fault", ["signal=SIGKILL", "error=ENOSPC", "error=EIO"])
@pytest.mark.parametrize("step", [6, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.timeout(900)
def test_at_every_system_call_each_object_is_old_or_new(
    server: ForkServer, tmp_path: Path, fault: str, step: int, record_property: Any
) -> None:
    (tmp_path / "count").mkdir()
    counted = calls(server, tmp_path / "count", prepare(tmp_path / "count"))
    assert all(counted.values()), counted
    points = 0
    for name, count in counted.items():
        for number in range(1, count + 1, step):
            folder = tmp_path / f"{name}-{number}"
            folder.mkdir()
            store = prepare(folder)
            inject = f"inject={name}:{fault}:when={number}"
            tracer = ("-o", "/dev/null", "-e", f"trace={name}", "-e", inject)
            done = run(server, folder, store, *tracer)
            points += 1
            if "SIGKILL" in fault:
                assert done.returncode == -9, (name, number, done.output)
            else:
                assert done.returncode == 1, (name, number, done.output)
                assert "Error" in done.output or "NoSpace" in done.output
                assert "Traceback" not in done.output, done.output
            found = state(store)
            # In the order of the commits: what comes later is not there before what came earlier.
            order = [found[each] == "new" for each in NAMES]
            assert order == sorted(order, reverse=True), (name, number, found)
            again = run(server, folder, store)
            assert again.returncode == 0, again.output
            assert set(state(store).values()) == {"new"}, json.dumps(state(store))
            shutil.rmtree(folder)
    record_property("points", points)
