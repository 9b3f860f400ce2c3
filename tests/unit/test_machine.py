"""What this machine is, and what is remembered of it."""

import os
from pathlib import Path

import pytest

from graftline import machine


def test_cores_obey_affinity_and_the_containers_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)))
    limits = {"max 100000": 6, "150000 100000": 2, "50000 100000": 1, "900000 100000": 6}
    for line, wanted in limits.items():
        monkeypatch.setattr(machine, "_lines", lambda _, line=line: [line])
        assert machine.cores() == wanted, line
    monkeypatch.setattr(machine, "_lines", lambda _: [])
    assert machine.cores() == 6


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
