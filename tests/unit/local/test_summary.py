"""What a local run ends with, from what its steps recorded."""

import io
import json
from pathlib import Path

from rich.console import Console

from graftline_pipelines.local import summary
from graftline_pipelines.local.run import LocalRun
from graftline_pipelines.runfile.settings import RunSettings


def finished(folder: Path, *, report: bool = True) -> LocalRun:
    """A run's folder as the steps leave it."""
    artifacts, steps = folder / "artifacts", folder / "steps"
    (artifacts / "model").mkdir(parents=True)
    steps.mkdir()
    if report:
        (artifacts / "report").write_text("<html>the page</html>")
    (artifacts / "model" / "model.onnx").write_bytes(b"onnx")
    recorded = {
        "ingest": {
            "snapshot_id": "s",
            "images": {"train": 3, "val": 1, "test": 2},
            "classes": ["a", "b"],
            "set_aside": {"not an image": 1},
        },
        "extract_features": {"extracted": 6, "reused": 0},
        "fit_head": {"strategy": "probe", "decision": {"reasons": ["Small."]}},
        "evaluate": {
            "test": {"accuracy": 1.0, "accuracy_ci": [0.4, 1.0], "macro_f1": 1.0, "ece": 0.1},
            "verdict": {"promote": True, "reasons": ["Better [than] it was."]},
            "report_file": str(artifacts / "report"),
        },
        "export_onnx": {"onnx": str(artifacts / "model" / "model.onnx"), "parity": None},
        "promote": {"name": "m", "version": "1", "alias": "champion", "run_id": "r"},
    }
    for step, result in recorded.items():
        (steps / f"{step}.json").write_text(json.dumps(result))
    return LocalRun("run-1", folder, {"ingest": 1.0}, 2.0)


def settings(folder: Path) -> RunSettings:
    return RunSettings.model_validate(
        {
            "name": "m",
            "data": {"source": str(folder)},
            "store": str(folder / "store"),
            "tracking": {"uri": "sqlite:///x.db"},
        }
    )


def test_report_and_model_stand_in_the_runs_folder_and_are_named(tmp_path: Path) -> None:
    run = finished(tmp_path / "run")
    result = summary.summarise(run, settings(tmp_path))
    assert result["report"] == str(tmp_path / "run" / "report.html")
    assert Path(result["report"]).read_text() == "<html>the page</html>"
    assert Path(result["onnx"]).read_bytes() == b"onnx"
    assert json.loads(json.dumps(result))["test"]["accuracy"] == 1.0
    stream = io.StringIO()
    summary.show(result, Console(file=stream, width=200), None)
    shown = stream.getvalue()
    assert str(tmp_path / "run" / "report.html") in shown
    assert "Better [than] it was." in shown


def test_summarising_again_changes_nothing(tmp_path: Path) -> None:
    run = finished(tmp_path / "run")
    first = summary.summarise(run, settings(tmp_path))
    assert summary.summarise(run, settings(tmp_path)) == first


def test_a_report_that_is_not_there_is_not_claimed(tmp_path: Path) -> None:
    result = summary.summarise(finished(tmp_path / "run", report=False), settings(tmp_path))
    assert result["report"] is None


def told(folder: Path, **promoted: object) -> str:
    """The row about the registry, of a run whose verdict was against it."""
    run = finished(folder)
    evaluated = json.loads((folder / "steps" / "evaluate.json").read_text())
    promote = promoted.pop("promote", False)
    verdict = {"promote": promote, "reasons": ["No."], "champion": promoted.pop("champion")}
    (folder / "steps" / "evaluate.json").write_text(json.dumps({**evaluated, "verdict": verdict}))
    (folder / "steps" / "promote.json").write_text(
        json.dumps({"name": "m", "alias": None, **promoted})
    )
    stream = io.StringIO()
    shown = summary.summarise(run, settings(folder))
    summary.show(shown, Console(file=stream, width=200), None)
    return next(line for line in stream.getvalue().splitlines() if "Registered" in line)


def test_who_is_champion_is_said_beside_the_version(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "abcd"]
    for folder in folders:
        folder.mkdir()
    assert "version 2, not promoted; version 1 stays champion" in told(
        folders[0], version="2", champion="1"
    )
    assert "made the same model again" in told(folders[1], version="1", champion="1")
    assert "there is no champion" in told(folders[2], version="1", champion=None)
    why = "Not promoted: it was compared with no champion, but the champion is version 1 now."
    passed = told(folders[3], version="2", champion=None, promote=True, reason=why)
    assert "version 2, not promoted. it was compared with no champion, but" in passed
    assert "there is no champion" not in passed


def test_reused_steps_are_named_and_piped_lines_are_whole(tmp_path: Path) -> None:
    run = finished(tmp_path / "run")
    path = tmp_path / "run" / "steps" / "fit_head.json"
    long = {"strategy": "probe", "decision": {"reasons": ["Small. " * 40]}, "reused_from": "run-0"}
    path.write_text(json.dumps(long))
    run = LocalRun(run.run_id, run.run_dir, {"ingest": 1.0, "fit_head": 0.1}, 2.0)
    result = summary.summarise(run, settings(tmp_path))
    assert result["reused_steps"] == {"fit_head": "run-0"}
    stream = io.StringIO()
    summary.show(result, Console(file=stream, width=60), None)
    lines = stream.getvalue().splitlines()
    assert "  Reused         fit_head from run run-0" in lines
    (strategy,) = [line for line in lines if line.startswith("  Strategy ")]
    assert strategy.count("Small.") == 40
