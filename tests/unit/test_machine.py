"""What this machine is, and what is remembered of it."""

import errno
import os
import threading
from pathlib import Path

import pytest

from graftline import machine
from graftline.errors import StoreReadOnly
from graftline.steps.runtime import system_error


def test_cores_obey_affinity_and_the_containers_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)))
    limits = {"max 100000": 6, "150000 100000": 2, "50000 100000": 1, "900000 100000": 6}
    for line, wanted in limits.items():
        monkeypatch.setattr(machine, "_lines", lambda _, line=line: [line])
        assert machine.cores() == wanted, line
    monkeypatch.setattr(machine, "_lines", lambda _: [])
    assert machine.cores() == 6


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        ({"cpu.max": "200000 100000"}, 2),
        ({"cpu.max": "max 100000"}, 6),
        ({"cpu/cpu.cfs_quota_us": "150000", "cpu/cpu.cfs_period_us": "100000"}, 2),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 6),
        # Limits of the groups above count too; of several, the smallest.
        ({"pod/cpu.max": "300000 100000", "pod/box/cpu.max": "max 100000"}, 3),
        ({"pod/cpu.max": "300000 100000", "pod/box/cpu.max": "100000 100000"}, 1),
        ({"cpu/old/cpu.cfs_quota_us": "50000", "cpu/old/cpu.cfs_period_us": "100000"}, 1),
    ],
)
def test_limits_of_both_versions_of_control_groups_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], wanted: int
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)))
    monkeypatch.setattr(machine, "CGROUPS", str(tmp_path))
    groups = ["0::/pod/box", "4:cpuset:/elsewhere", "3:cpu,cpuacct:/old"]
    read = machine._lines
    monkeypatch.setattr(
        machine, "_lines", lambda path: groups if path == "/proc/self/cgroup" else read(path)
    )
    assert machine.cores() == wanted


def test_everything_that_counts_cores_obeys_the_containers_limit(
    monkeypatch: pytest.MonkeyPatch, exported_model: tuple
) -> None:
    from graftline.onnx_model.predict import OnnxClassifier
    from graftline.steps.fine_tune.inputs.images import ahead
    from graftline.steps.fit_head.probes import parallel

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    monkeypatch.setattr(machine, "_container_quota", lambda: 3)
    assert parallel._cores() == 3
    folder, *_ = exported_model
    session = OnnxClassifier(folder / "onnx" / "model.onnx")._session._session
    assert session.get_session_options().intra_op_num_threads == 3
    used: set[int] = set()
    together = threading.Barrier(3, timeout=60)

    def decode(_: int) -> None:
        together.wait()  # so that no thread is left out by chance
        used.add(threading.get_ident())

    list(ahead(decode, range(9)))
    assert len(used) == 3


def test_what_is_remembered_is_found_under_its_key_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert machine.remembered("trials", {"network": "a"}) is None
    machine.remember("trials", {"network": "a"}, {"engine": "openvino"})
    assert machine.remembered("trials", {"network": "a"}) == {"engine": "openvino"}
    assert machine.remembered("trials", {"network": "b"}) is None
    assert machine.remembered("agreements", {"network": "a"}) is None


def test_a_damaged_memory_is_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    machine.remember("trials", {}, {"engine": "openvino"})
    for path in (tmp_path / "graftline" / "trials").iterdir():
        path.write_text('{"engine": ')
    assert machine.remembered("trials", {}) is None


def test_without_a_place_to_write_a_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    assert machine.cache_folder().is_dir()
    monkeypatch.setattr(machine, "cache_folder", lambda: tmp_path / "file")
    machine.remember("trials", {}, {"engine": "openvino"})
    assert machine.remembered("trials", {}) is None


def test_the_processor_is_named() -> None:
    assert machine.processor().partition(";")[0].strip()
    assert isinstance(machine.has_bf16(), bool)


def test_room_is_made_by_what_was_used_least_lately(tmp_path: Path) -> None:
    for age, name in enumerate(("newest", "read", "old", "oldest")):
        (tmp_path / name).write_bytes(bytes(100))
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    os.utime(tmp_path / "read", (2e9, 1e9 - 1))  # looked at since
    machine.make_room(tmp_path, 300)
    assert {path.name for path in tmp_path.iterdir()} == {"newest", "read", "old"}
    machine.make_room(tmp_path, 10)
    assert {path.name for path in tmp_path.iterdir()} == {"read"}
    machine.make_room(tmp_path / "nowhere", 10)


def test_a_user_whom_nobody_knows_gets_a_home(monkeypatch, tmp_path):
    """As in a container with a random user id and no HOME."""
    import os
    import pwd
    import tempfile
    from pathlib import Path

    def unknown(uid):
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("HOME", "x")
    monkeypatch.delenv("HOME")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert machine.cache_folder().is_dir()
    assert Path.home() == tmp_path / f"graftline-{os.getuid()}"
    assert Path.home().stat().st_mode & 0o077 == 0


def test_where_nothing_can_be_written_what_only_reads_still_works(monkeypatch, tmp_path):
    """A read-only container without a home and without a folder for temporary files."""
    import os
    import pwd
    import tempfile

    def unknown(uid):
        raise KeyError(uid)

    def nowhere():
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(tempfile, "gettempdir", nowhere)
    monkeypatch.setenv("HOME", "x")
    monkeypatch.delenv("HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    machine.ensure_home()
    assert os.environ["HOME"] == "/"
    monkeypatch.setenv("HOME", "/proc/nowhere")
    with pytest.raises(StoreReadOnly, match="no folder for temporary files") as refused:
        machine.cache_folder()
    assert "Set TMPDIR" in str(refused.value)
    with pytest.raises(FileNotFoundError) as raised:
        tempfile.TemporaryDirectory()
    assert str(system_error(raised.value)) == str(refused.value)


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (MemoryError(), True),
        (RuntimeError("std::bad_alloc"), True),
        (OSError(12, "Cannot allocate memory"), True),
        # As CPython 3.11 said it to steps that were starved by a limit on address space.
        (SystemError("<function _read> returned NULL without setting an exception"), True),
        (SystemError("bad argument to internal function"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_a_lack_of_memory_is_recognised(error: Exception, wanted: bool) -> None:
    assert machine.is_out_of_memory(error) is wanted
