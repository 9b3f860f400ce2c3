"""Local runs as they are found on the disk."""

import json
import logging
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from graftline.errors import ConfigurationError, StoreAccessDenied
from graftline_pipelines.cli.main import app
from graftline_pipelines.local.index import write_index
from graftline_pipelines.local.run import _quiet_kfp
from graftline_pipelines.local.runs import (
    DECISION,
    EVALUATION,
    MODEL,
    Need,
    find_run,
    list_runs,
    page_need,
    read_run,
    write_end,
    write_start,
)
from graftline_pipelines.runfile.settings import RunSettings

TEST = {"i1": ("cat", "cat", "i1"), "i2": ("dog", "dog", "i2")}


def dead_process() -> int:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


def test_runs_are_listed_newest_first_wherever_the_folder_is(
    make_run: Callable[..., Path], tmp_path: Path
) -> None:
    make_run("a-1", test=TEST, when=2000)
    make_run("a-2", test=TEST, when=3000, promoted=False)
    make_run("a-0", failed=True, when=1000)
    (tmp_path / "runs" / "notes").mkdir()
    moved = (tmp_path / "runs").rename(tmp_path / "moved")
    found = list_runs(moved)
    assert [run.run_id for run in found] == ["a-2", "a-1", "a-0"]
    assert [run.outcome() for run in found] == [
        "not promoted (version 3)",
        "promoted, version 3",
        "failed in fit_head",
    ]
    assert found[0].test["accuracy"] == 1.0 and found[0].page("report") == moved / "a-2/report.html"


@pytest.mark.parametrize(
    ("written", "state"),
    [
        ({"state": "done"}, "done"),
        ({"state": "failed"}, "failed"),
        ({"state": "stopped"}, "stopped"),
        ({"state": "running", "host": socket.gethostname(), "pid": os.getpid()}, "running"),
        ({"state": "running", "host": "elsewhere", "pid": 1}, "running"),
    ],
)
def test_state_is_what_the_run_wrote(
    make_run: Callable[..., Path], written: dict[str, object], state: str
) -> None:
    assert read_run(make_run("a", test=TEST, written=written)).state == state


def test_killed_run_does_not_read_as_running(make_run: Callable[..., Path]) -> None:
    written = {"state": "running", "host": socket.gethostname(), "pid": dead_process()}
    folder = make_run("a", test=TEST, written=written)
    (folder / "steps" / "promote.json").unlink()
    assert read_run(folder).state == "stopped"
    assert read_run(folder).outcome() == "stopped"
    (folder / "run.json").write_text("{")
    assert read_run(folder).state == "stopped"


def test_what_a_run_writes_is_read_back(tmp_path: Path) -> None:
    settings = RunSettings.model_validate({"name": "a", "data": {"source": "x"}, "seed": 7})
    (tmp_path / "steps").mkdir()
    write_start(tmp_path, settings)
    assert read_run(tmp_path).state == "running"
    write_end(tmp_path, "stopped")
    run = read_run(tmp_path)
    assert run.state == "stopped" and run.settings["seed"] == 7
    assert run.settings == settings.model_dump(mode="json")


def test_a_run_is_found_by_parts_of_its_name(make_run: Callable[..., Path], tmp_path: Path) -> None:
    first = make_run("a-2025-aaaa", test=TEST, when=1)
    make_run("a-2026-bbbb", test=TEST, when=2)
    runs = tmp_path / "runs"
    for name in ("a-2025-aaaa", "a-2025", "aaaa", str(first)):
        assert find_run(runs, name).run_id == "a-2025-aaaa"
    assert find_run(runs, "latest").run_id == "a-2026-bbbb"
    with pytest.raises(ConfigurationError, match="2 runs in"):
        find_run(runs, "a-")
    with pytest.raises(ConfigurationError, match="There are: a-2025-aaaa, a-2026-bbbb"):
        find_run(runs, "zz")
    with pytest.raises(ConfigurationError, match="There are no runs"):
        find_run(tmp_path / "none", "latest")


def newest(kind: str, make_run: Callable[..., Path]) -> str:
    """A newest run that has nothing to show; how it ended."""
    ours = {"state": "running", "host": socket.gethostname(), "pid": os.getpid()}
    if kind == "failed":
        make_run("a-9", failed=True, when=9)
        return "failed in fit_head"
    folder = make_run("a-9", failed=True, when=9, written=ours if kind == "running" else None)
    for path in (folder / "steps").iterdir():
        path.unlink()
    if kind == "retrain":
        (folder / "steps" / "watch.json").write_text(json.dumps({"start": False}))
    line = {"time": 9, "step": "watch", "event": "started"}
    (folder / "steps" / "watch.events.jsonl").write_text(
        json.dumps(line) + "\n" + json.dumps({**line, "event": "finished", "seconds": 1}) + "\n"
        if kind == "retrain"
        else json.dumps(line) + "\n"
    )
    return {"running": "running", "stopped": "stopped", "retrain": "nothing to train"}[kind]


NEEDS = (MODEL, DECISION, EVALUATION, page_need("report"))


@pytest.mark.parametrize("kind", ["failed", "running", "stopped", "retrain"])
@pytest.mark.parametrize("need", NEEDS, ids=lambda need: need.what)
def test_latest_is_the_newest_run_that_has_what_is_needed(
    make_run: Callable[..., Path], tmp_path: Path, kind: str, need: Need
) -> None:
    runs, said = tmp_path / "runs", list[str]()
    for number in (1, 2):
        folder = make_run(f"a-{number}", test=TEST, when=number)
        (folder / "model.onnx").write_bytes(b"onnx")
        head = folder / "steps" / "fit_head.json"
        head.write_text(json.dumps({"strategy": "probe", "decision": {"choice": "probe"}}))
    assert find_run(runs, "latest", need, said.append).run_id == "a-2" and not said
    outcome = newest(kind, make_run)
    assert find_run(runs, "latest").run_id == "a-9"
    assert find_run(runs, "latest", need, said.append).run_id == "a-2"
    news = f"a-9 is newer and has no {need.what} ({outcome}): this is a-2."
    assert said == ([] if kind == "retrain" else [news])  # every night without a change is one
    assert find_run(runs, "previous", need, said.append).run_id == "a-1"
    if need.required:
        with pytest.raises(ConfigurationError, match=f"a-9 has no {need.what}") as refused:
            find_run(runs, "a-9", need)
        assert {"running": "still runs"}.get(outcome, outcome) in str(refused.value)
    else:
        assert find_run(runs, "a-9", need).run_id == "a-9"
    for number in (1, 2):
        shutil.rmtree(runs / f"a-{number}")
    with pytest.raises(ConfigurationError, match=f"No run in .* has an? {need.what}") as refused:
        find_run(runs, "latest", need)
    assert outcome in str(refused.value)


def test_index_page_names_all_runs_and_escapes_what_they_say(
    make_run: Callable[..., Path], tmp_path: Path
) -> None:
    make_run("a-1", test=TEST)
    folder = make_run("a-2", failed=True)
    events = folder / "steps" / "fit_head.events.jsonl"
    events.write_text(events.read_text().replace("Too few", "<script>alert(1)</script>"))
    page = write_index(tmp_path / "runs").read_text()
    assert 'href="a-1/report.html"' in page and "a-2" in page and "2 runs" in page
    assert "<script" not in page and "&lt;script&gt;" in page
    assert "100.0%" in page and str(tmp_path) in page


def test_commands(
    make_run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda url: opened.append(url) or True)
    for name in ("KF_PIPELINES_ENDPOINT", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    make_run("a-1", test=TEST, when=1)
    make_run("a-2", failed=True, when=2)
    runs = ["--runs-dir", str(tmp_path / "runs")]

    def call(*arguments: str, code: int = 0) -> str:
        done = CliRunner().invoke(app, [*arguments, *runs])
        assert (done.exit_code != 0) == bool(code), done.output
        return done.output

    listed = call("runs")
    assert listed.index("a-2") < listed.index("a-1") and "failed in fit_head" in listed
    assert [run["run_id"] for run in json.loads(call("runs", "--json"))] == ["a-2", "a-1"]
    assert "1 more" in call("runs", "--limit", "1")
    call("open")
    call("open", "a-1")
    assert [url.rpartition("/runs/")[2] for url in opened] == ["index.html", "a-1/report.html"]
    call("open", "a-2", code=1)
    call("open", "a-1", "--page", "x", code=2)
    shutil.rmtree(tmp_path / "runs")
    assert "No runs in" in call("runs")
    call("open", code=1)


def test_a_server_that_is_set_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[object] = []

    def connect(host: object, *_: object, **__: object) -> None:
        asked.append(host)
        raise ConfigurationError("asked")

    monkeypatch.setattr("graftline_pipelines.cli.commands.cluster.connect", connect)
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", "http://h")
    runs = ["--runs-dir", str(tmp_path)]
    assert CliRunner().invoke(app, ["runs", *runs]).exit_code
    assert asked == [None]
    assert CliRunner().invoke(app, ["runs", "--local", *runs]).exit_code == 0
    monkeypatch.delenv("KF_PIPELINES_ENDPOINT")
    assert CliRunner().invoke(app, ["runs", "--host", "http://h", *runs]).exit_code
    assert asked == [None, "http://h"]


def test_a_runs_model_is_found_by_the_runs_name(
    make_run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from graftline_pipelines.cli.commands.predict import model_file

    monkeypatch.setattr(
        "graftline_pipelines.cli.commands.predict.DEFAULT_RUNS_DIR", tmp_path / "runs"
    )
    older = make_run("a-1", test=TEST, when=1)
    (older / "model.onnx").write_bytes(b"")
    make_run("a-2", failed=True, when=2)
    with model_file("a-1", "") as found:
        assert found == older / "model.onnx"
    with (
        pytest.raises(ConfigurationError, match=r"(?s)no exported file.*failed"),
        model_file("a-2", ""),
    ):
        pass
    with pytest.raises(ConfigurationError, match="There is no run"), model_file("b", ""):
        pass
    with model_file("b.onnx", "") as found:
        assert found == Path("b.onnx")  # whoever opens it says that it is not there


def test_a_runs_folder_that_cannot_be_read_is_not_called_empty(
    make_run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run("a-1", test=TEST)

    def refused(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refused)
    with pytest.raises(StoreAccessDenied, match=r"Cannot read .*runs"):
        find_run(tmp_path / "runs", "latest")


def test_a_full_disk_under_kfps_log_is_said_without_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "kfp.log").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as full, _quiet_kfp(tmp_path):
        handler = logging.StreamHandler(sys.stdout)
        handler.emit(logging.makeLogRecord({"msg": "as KFP logs"}))
        print("as KFP prints")
    assert full.value.filename == str(tmp_path / "logs" / "kfp.log")
    assert "Traceback" not in capsys.readouterr().err and logging.raiseExceptions
