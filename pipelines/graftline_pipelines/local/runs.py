"""The runs in a runs folder: what each was asked, how it ended, what came of it.

A run's folder is read as it stands, so that it may be moved, and one that an older version wrote,
without ``run.json``, is listed too.
"""

import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import graftline
from graftline.errors import ConfigurationError
from graftline.schema import write_json
from graftline.steps.runtime import read_result
from graftline_pipelines.local.progress import failure_of, seconds_by_step, unfinished_step
from graftline_pipelines.runfile.settings import RunSettings

RUN_FILE = "run.json"
SCHEMA_VERSION = 1
State = Literal["running", "done", "failed", "stopped"]
NEWEST = "latest"
BEFORE = "previous"  # the one before the newest


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One run of this machine.

    Attributes:
        folder: Where it is.
        state: How it ended, or that it runs. ``stopped`` includes one that was killed.
        started: When, in UTC; None where nothing says so.
        seconds: Of its steps, in order.
        settings: The run file with all defaults; empty where an older version ran it.
        results: What each finished step recorded.
        failure: Step, error, reason and remedy of a failed one.
    """

    folder: Path
    state: State
    started: datetime | None
    seconds: Mapping[str, float] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    results: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    failure: Mapping[str, Any] | None = None

    @property
    def run_id(self) -> str:
        """Its id, which names its folder."""
        return self.folder.name

    def result(self, step: str) -> Mapping[str, Any]:
        """What a step recorded; empty where it did not finish."""
        return self.results.get(step, {})

    @property
    def test(self) -> Mapping[str, Any]:
        """Figures on the test split."""
        found: Mapping[str, Any] = self.result("evaluate").get("test") or {}
        return found

    @property
    def strategy(self) -> str | None:
        """How the classifier was made."""
        made = self.result("fine_tune") or self.result("fit_head")
        return made.get("strategy")

    @property
    def model(self) -> Path | None:
        """The exported file."""
        found = self.folder / "model.onnx"
        return found if found.is_file() else None

    def page(self, name: str) -> Path | None:
        """One of its pages: ``report``, ``decision`` or ``data``."""
        found = self.folder / f"{name}.html"
        return found if found.is_file() else None

    def artifact(self, step: str, name: str) -> Path | None:
        """A file that a step left, wherever the run's folder is now."""
        # KFP numbers a task of either branch: evaluate-2.
        steps = f"artifacts/*/{step.replace('_', '-')}*/{name}"
        return next(iter(sorted(self.folder.glob(steps))), None)

    def outcome(self) -> str:
        """What came of it, in a few words."""
        if self.state == "failed":
            return f"failed in {self.failure['step']}" if self.failure else "failed"
        if self.state != "done":
            return self.state
        promoted = self.result("promote")
        if not promoted:
            return "nothing to train" if self.result("watch") else "done"
        version = f"version {promoted.get('version')}"
        return f"promoted, {version}" if promoted.get("alias") else f"not promoted ({version})"

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        promoted = self.result("promote")
        return {
            "run_id": self.run_id,
            "folder": str(self.folder),
            "state": self.state,
            "started": self.started.isoformat() if self.started else None,
            "seconds": dict(self.seconds),
            "strategy": self.strategy,
            "snapshot_id": self.result("ingest").get("snapshot_id"),
            "test": dict(self.test),
            "promoted": bool(promoted.get("alias")),
            "version": promoted.get("version"),
            "failure": dict(self.failure) if self.failure else None,
            "model": str(self.model) if self.model else None,
            "report": str(self.page("report")) if self.page("report") else None,
        }


def write_start(run_dir: Path, settings: RunSettings) -> None:
    """Record what a run was asked, before its first step."""
    _write(run_dir, settings.model_dump(mode="json"), "running")


def write_end(run_dir: Path, state: State) -> None:
    """Record how it ended."""
    written = _written(run_dir)
    _write(run_dir, written.get("settings", {}), state, started=written.get("started"))


def list_runs(runs_dir: Path) -> list[RunRecord]:
    """The runs of a folder, the newest first."""
    folders = [path.parent for path in runs_dir.glob("*/steps") if path.is_dir()]
    found = [read_run(folder) for folder in folders]
    oldest = datetime.min.replace(tzinfo=UTC)
    return sorted(found, key=lambda run: (run.started or oldest, run.run_id), reverse=True)


def find_run(runs_dir: Path, name: str) -> RunRecord:
    """One run: by its folder, its id, the start or the end of its id, ``latest``, or ``previous``.

    Raises:
        ConfigurationError: There is none, or more than one.
    """
    folder = Path(name)
    if (folder / "steps").is_dir():
        return read_run(folder.absolute())
    ids = sorted(path.parent.name for path in runs_dir.glob("*/steps") if path.is_dir())
    if not ids:
        raise ConfigurationError(
            f"There are no runs in {runs_dir}.",
            fix="Go to the folder that `graftline run` ran in, or give --runs-dir.",
        )
    if name == NEWEST:
        return list_runs(runs_dir)[0]
    if name == BEFORE:
        if len(ids) < 2:
            raise ConfigurationError(
                f"There is only one run in {runs_dir}, and so none before it.",
                fix="`graftline run` makes another.",
            )
        return list_runs(runs_dir)[1]
    matches = [run for run in ids if run == name] or [
        run for run in ids if run.startswith(name) or run.endswith(name)
    ]
    if len(matches) != 1:
        shown = ", ".join((matches or ids)[-5:])
        raise ConfigurationError(
            f"{len(matches)} runs in {runs_dir} match {name!r}: {shown}."
            if matches
            else f"There is no run {name!r} in {runs_dir}.",
            fix="Give more of the name." if matches else f"There are: {shown}.",
        )
    return read_run(runs_dir / matches[0])


def read_run(folder: Path) -> RunRecord:
    """Read a run's folder."""
    written = _written(folder)
    steps = sorted(path.stem for path in (folder / "steps").glob("*.json"))
    results = {step: read_result(folder, step) or {} for step in steps}
    failure = failure_of(folder)
    return RunRecord(
        folder=folder,
        state=_state(folder, written, results, failed=failure is not None),
        started=_started(folder, written),
        seconds=seconds_by_step(folder),
        settings=written.get("settings", {}),
        results=results,
        failure=failure,
    )


def _state(
    folder: Path,
    written: Mapping[str, Any],
    results: Mapping[str, Mapping[str, Any]],
    *,
    failed: bool,
) -> State:
    """A run that was killed wrote no end; whether it still runs is asked of its process."""
    state: State | None = written.get("state")
    if state is not None and state != "running":
        return state
    if state == "running" and _is_alive(written):
        return "running"
    if failed:
        return "failed"
    nothing_to_train = "watch" in results and not results["watch"].get("start")
    if ("promote" in results or nothing_to_train) and unfinished_step(folder) is None:
        return "done"
    return "stopped"


def _is_alive(written: Mapping[str, Any]) -> bool:
    if written.get("host") != socket.gethostname():
        return True  # of another machine that shares the folder: it is believed
    try:
        os.kill(int(written["pid"]), 0)
    except (ProcessLookupError, KeyError, ValueError):
        return False
    except PermissionError:
        return True
    return True


def _started(folder: Path, written: Mapping[str, Any]) -> datetime | None:
    if written.get("started"):
        return datetime.fromisoformat(written["started"])
    times = []
    for path in (folder / "steps").glob("*.events.jsonl"):
        with path.open(encoding="utf-8") as stream:
            line = stream.readline()
        if line:
            times.append(float(json.loads(line)["time"]))
    return datetime.fromtimestamp(min(times), UTC) if times else None


def _write(
    run_dir: Path, settings: Mapping[str, Any], state: State, started: str | None = None
) -> None:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    content = {
        "schema_version": SCHEMA_VERSION,
        "graftline_version": graftline.__version__,
        "state": state,
        "started": started or now,
        "ended": None if state == "running" else now,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "settings": settings,
    }
    write_json(run_dir / RUN_FILE, content)


def _written(folder: Path) -> Mapping[str, Any]:
    """What ``run.json`` says; nothing where it is missing, damaged or of another version."""
    try:
        content = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    known = isinstance(content, dict) and content.get("schema_version") == SCHEMA_VERSION
    return content if known else {}
