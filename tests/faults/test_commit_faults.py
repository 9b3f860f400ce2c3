"""A commit to a folder, killed or refused at each system call: the old state or the new one."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from graftline.storage import open_store

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")

# Without boto and the like: what is traced is the commit.
COMMIT = """
import sys
from pathlib import Path
from graftline.errors import GraftlineError
from graftline.files import write_atomic
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
except GraftlineError as error:
    print(f"{type(error).__name__}: {error}", flush=True)
    sys.exit(1)
except OSError as error:
    print(f"OSError: {error}", flush=True)
    sys.exit(1)
"""
OLD, NEW = b"old" * 1000, b"new" * 1000
NAMES = ("plain", "created", "pointer", "uploaded", "downloaded", "atomic")
CALLS = "write,fsync,rename,link"


def prepare(folder: Path) -> Path:
    store = open_store(str(folder / "store"))
    for name in ("plain", "pointer", "uploaded", "downloaded", "atomic"):
        store.write(name, OLD)
    (folder / "file").write_bytes(NEW)
    return folder / "store"


def run(folder: Path, store: Path, *tracer: str) -> subprocess.CompletedProcess[str]:
    python = os.path.realpath(sys.executable)
    packages = os.pathsep.join(path for path in sys.path if path)
    return subprocess.run(
        [*tracer, python, "-B", "-c", COMMIT, str(store), str(folder / "file")],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": packages},
    )


def calls(folder: Path, store: Path) -> dict[str, int]:
    trace = folder / "trace"
    done = run(folder, store, "strace", "-f", "-qq", "-o", str(trace), "-e", f"trace={CALLS}")
    assert done.returncode == 0, done.stdout + done.stderr
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
        assert data in (OLD, NEW), (name, data[:30], len(data))
        found[name] = "new" if data == NEW else "old"
    return found


@pytest.mark.parametrize("fault", ["signal=SIGKILL", "error=ENOSPC", "error=EIO"])
@pytest.mark.parametrize("step", [6, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.timeout(900)
def test_at_every_system_call_each_object_is_old_or_new(
    tmp_path: Path, fault: str, step: int, record_property: Any
) -> None:
    (tmp_path / "count").mkdir()
    counted = calls(tmp_path / "count", prepare(tmp_path / "count"))
    assert all(counted.values()), counted
    points = 0
    for name, count in counted.items():
        for number in range(1, count + 1, step):
            folder = tmp_path / f"{name}-{number}"
            folder.mkdir()
            store = prepare(folder)
            inject = f"inject={name}:{fault}:when={number}"
            tracer = ("strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={name}")
            done = run(folder, store, *tracer, "-e", inject)
            points += 1
            if "SIGKILL" in fault:
                assert done.returncode in (-9, 137), (name, number, done.stdout, done.stderr)
            else:
                assert done.returncode == 1, (name, number, done.stdout, done.stderr)
                assert "Error" in done.stdout or "NoSpace" in done.stdout
                assert "Traceback" not in done.stderr, done.stderr
            found = state(store)
            # In the order of the commits: what comes later is not there before what came earlier.
            order = [found[each] == "new" for each in NAMES]
            assert order == sorted(order, reverse=True), (name, number, found)
            again = run(folder, store)
            assert again.returncode == 0, again.stdout + again.stderr
            assert set(state(store).values()) == {"new"}, json.dumps(state(store))
            shutil.rmtree(folder)
    record_property("points", points)
