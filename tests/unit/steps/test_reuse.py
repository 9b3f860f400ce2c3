"""What has not changed is not computed again: by a step that counts how often it runs."""

import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from graftline.steps import kept_results
from graftline.steps.reuse import (
    FRESH_VARIABLE,
    KeptResult,
    artifact_digest,
    result_key,
    reuse_or_run,
)
from graftline.steps.runtime import Recorder, StepResult
from graftline.storage import open_store


@dataclasses.dataclass(frozen=True, kw_only=True)
class CountResult(StepResult):
    total: float
    pairs: list[tuple[int, float]]
    page: Path

    def metrics(self) -> dict[str, float]:
        return {"total": self.total}

    def files(self) -> dict[str, Path]:
        return {"count/page.html": self.page}


class Work:
    """A step `count`, and what is around one call of it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.calls = folder, 0
        self.store = str(folder / "store")
        self.numbers = folder / "numbers"
        self.numbers.mkdir()
        (self.numbers / "a.json").write_text("[1, 2]")

    def run(self, *, numbers: Path, out: Path, page: Path, factor: float = 1.0) -> CountResult:
        self.calls += 1
        total = factor * sum(json.loads((numbers / "a.json").read_text()))
        (out / "deep").mkdir(parents=True)
        (out / "deep" / "total.txt").write_text(str(total))
        page.write_text("<html>")
        return CountResult(total=np.float64(total), pairs=[(1, 0.5)], page=page)

    def __call__(self, name: str, run: str = "r1", **options: Any) -> Any:
        outputs = {"out": self.folder / name / "out", "page": self.folder / name / "page"}
        (self.folder / name).mkdir(exist_ok=True)
        settings = options.pop("settings", {})
        inputs = {"numbers": self.numbers}
        return reuse_or_run(
            "count", self.store, run, inputs=inputs, outputs=outputs, settings=settings, **options
        )

    def total(self, name: str) -> str:
        return (self.folder / name / "out" / "deep" / "total.txt").read_text()


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Work]:
    made = Work(tmp_path)
    package, module = ModuleType("graftline.steps.count"), ModuleType("graftline.steps.count.step")
    module.run = made.run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, package.__name__, package)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.delenv(FRESH_VARIABLE, raising=False)
    return made


def test_an_equal_step_takes_the_files_and_the_result_and_says_so(
    work: Work, caplog: pytest.LogCaptureFixture
) -> None:
    first = work("one", run="run-1")
    with caplog.at_level("INFO"):
        second = work("two", run="run-2")
    assert work.calls == 1
    assert "count: reused from run run-1" in caplog.text
    assert work.total("two") == "3.0"
    assert isinstance(second, KeptResult)
    assert (first.reused_from, second.reused_from) == (None, "run-1")
    assert second.total == 3.0
    assert second.pairs == [[1, 0.5]]
    assert second.page == str(work.folder / "two" / "page")  # of this run, not of the other
    assert second.metrics() == {"total": 3.0}
    assert second.files() == {"count/page.html": work.folder / "two" / "page"}
    assert second.files()["count/page.html"].read_text() == "<html>"
    with pytest.raises(AttributeError):
        second.unknown  # noqa: B018


def test_the_record_of_a_reused_step_names_the_run(work: Work, tmp_path: Path) -> None:
    work("one", run="run-1")
    Recorder("count", tmp_path / "rundir").record(work("two"))
    record = json.loads((tmp_path / "rundir" / "steps" / "count.json").read_text())
    assert record["reused_from"] == "run-1"
    assert record["total"] == 3.0


def test_whatever_decides_the_result_is_in_the_key(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    work("one")
    work("two", settings={"factor": 2.0})
    assert work.calls == 2
    work("three", state={"champion": "1"})
    assert work.calls == 3
    (work.numbers / "a.json").write_text("[1, 2, 3]")
    assert work("four").total == 6.0
    assert work.calls == 4
    for name, other in (
        ("code_digest", lambda step: "x"),
        ("library_versions", lambda: {"a": "2"}),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(f"graftline.steps.reuse.{name}", other)
            work(name)
    assert work.calls == 6
    work("again", state={"champion": "1"})
    assert work.calls == 7  # of other numbers
    work("again-2", settings={"factor": 1.0}, state={"champion": "1"})
    assert work.calls == 8


def test_fresh_computes_again_and_replaces(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    work("one", run="run-1")
    monkeypatch.setenv(FRESH_VARIABLE, "1")
    assert work("two", run="run-2").reused_from is None
    monkeypatch.delenv(FRESH_VARIABLE)
    assert work("three").reused_from == "run-2"  # the newest
    assert work.calls == 2


@pytest.mark.parametrize("damage", ["object", "missing object", "entry", "half an entry", "escape"])
def test_a_damaged_entry_is_ignored_computed_again_and_kept_whole(work: Work, damage: str) -> None:
    work("one", run="run-1")
    store = open_store(work.store)
    (entry,) = [info.key for info in store.list("results/count/")]
    objects = [info.key for info in store.list(f"{kept_results.OBJECTS}/")]
    total = next(key for key in objects if store.read(key) == b"3.0")
    if damage == "object":
        store.write(total, b"4.0")
    elif damage == "missing object":
        store.delete(total)
    elif damage == "entry":
        store.write(entry, store.read(entry).replace(b"3.0", b"4.0", 1))
    elif damage == "half an entry":
        store.write(entry, store.read(entry)[:-9])
    else:
        store.write(entry, store.read(entry).replace(b"deep/total.txt", b"../../total.txt"))
    assert work("two", run="run-2").reused_from is None
    assert work.calls == 2
    assert work.total("two") == "3.0"
    assert work("three").reused_from == "run-2"
    assert work.total("three") == "3.0"


def test_an_entry_of_another_state_is_adapted_or_left(work: Work) -> None:
    work("one", run="run-1")
    seen = []

    def adapt(kept: KeptResult, outputs: Any) -> KeptResult | None:
        seen.append((outputs["out"] / "deep" / "total.txt").read_text())
        return kept if len(seen) > 1 else None

    assert work("two", state={"champion": "1"}, adapt=adapt).reused_from is None
    assert work.total("two") == "3.0"  # written by the step into empty outputs
    assert work("three", state={"champion": "2"}, adapt=adapt).reused_from == "r1"
    assert seen == ["3.0", "3.0"]


def test_of_each_step_the_newest_entries_stay_and_their_files(work: Work) -> None:
    for number in range(kept_results.MOST_ENTRIES + 3):
        work(f"n{number}", settings={"factor": float(number)})
    store = open_store(work.store)
    assert len(list(store.list("results/count/"))) == kept_results.MOST_ENTRIES
    kept = {store.read(info.key) for info in store.list(f"{kept_results.OBJECTS}/")}
    last = kept_results.MOST_ENTRIES + 3
    assert kept == {str(3.0 * n).encode() for n in range(3, last)} | {b"<html>"}
    assert work("old", settings={"factor": 1.0}).reused_from is None
    assert work("new", settings={"factor": last - 1.0}).reused_from == "r1"


def test_garbage_is_what_no_entry_names(work: Work) -> None:
    work("one")
    store = open_store(work.store)
    assert kept_results.collect_garbage(store, remove=True) == (0, 0)
    store.write(f"{kept_results.OBJECTS}/{'0' * 64}", b"left")
    assert kept_results.collect_garbage(store, remove=False) == (1, 4)
    assert kept_results.collect_garbage(store, remove=True) == (1, 4)
    assert work("two").reused_from == "r1"


def test_a_store_that_keeps_nothing_does_not_fail_the_step(
    work: Work, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from graftline.errors import NoSpace

    def full(*_: Any, **__: Any) -> None:
        raise NoSpace("the disk is full")

    monkeypatch.setattr(kept_results, "keep", full)
    with caplog.at_level("INFO"):
        assert work("one").total == 3.0
    assert "were not kept" in caplog.text


def test_results_that_may_not_be_read_or_removed_do_not_fail_the_step(
    work: Work, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from graftline.errors import StoreAccessDenied
    from graftline.storage.local import FileStore

    work("one")

    def refused(*_: Any, **__: Any) -> None:
        raise StoreAccessDenied("not yours")

    with monkeypatch.context() as patch, caplog.at_level("INFO"):
        patch.setattr(FileStore, "delete", refused)
        patch.setattr(FileStore, "download", refused)
        assert work("two").reused_from is None
    assert "computes its own" in caplog.text
    assert work.total("two") == "3.0"
    assert work("three").reused_from == "r1"


def test_what_every_run_writes_differently_is_not_in_a_digest(tmp_path: Path) -> None:
    for name, created in (("a", "2026-01-01"), ("b", "2026-02-02")):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "snapshot.json").write_text(json.dumps({"id": "x", "created": created}))
        (folder / "data.html").write_text(created)
    assert artifact_digest(tmp_path / "a") == artifact_digest(tmp_path / "b")
    (tmp_path / "b" / "snapshot.json").write_text(json.dumps({"id": "y", "created": "2026-01-01"}))
    assert artifact_digest(tmp_path / "a") != artifact_digest(tmp_path / "b")


def test_a_step_s_key_has_its_own_code_and_not_that_of_other_steps(tmp_path: Path) -> None:
    assert result_key("fit_head", {}, {}) != result_key("export_onnx", {}, {})
    assert result_key("fit_head", {}, {"a": 1}) != result_key("fit_head", {}, {"a": 2})
