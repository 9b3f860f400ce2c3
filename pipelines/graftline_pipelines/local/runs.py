"""The runs in a runs folder: what each was asked, how it ended, what came of it.

A run's folder is read as it stands, so that it may be moved, and one that an older version wrote,
without ``run.json``, is listed too.
"""

import json
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import graftline
from graftline.errors import ConfigurationError
from graftline.files import os_errors
from graftline.schema import write_json
from graftline.steps.runtime import read_result
from graftline_pipelines.local.progress import failure_of, seconds_by_step, unfinished_step

if TYPE_CHECKING:  # predictions are installed without what reads a run file
    from graftline_pipelines.runfile.settings import RunSettings

RUN_FILE = "run.json"
SCHEMA_VERSION = 1
State = Literal["running", "done", "failed", "stopped"]
NEWEST = "latest"
NOTHING_TO_TRAIN = "nothing to train"
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
            return NOTHING_TO_TRAIN if self.result("watch") else "done"
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


@dataclass(frozen=True)
class Need:
    """What a command wants of a run, so that ``latest`` is the newest run that has it.

    Attributes:
        what: Its name, without an article.
        has: Whether a run has it.
        required: Whether a run that is named by its id must have it, too.
    """

    what: str
    has: Callable[[RunRecord], bool]
    required: bool = True

    @property
    def named(self) -> str:
        """With its article."""
        return f"{'an' if self.what[0] in 'aeiou' else 'a'} {self.what}"


MODEL = Need("exported file", lambda run: run.model is not None)
DECISION = Need("decision record", lambda run: bool(run.result("fit_head").get("decision")))
EVALUATION = Need("evaluation", lambda run: bool(run.test), required=False)


def page_need(name: str) -> Need:
    """A page of a run: ``report``, ``decision`` or ``data``."""
    return Need(f"{name} page", lambda run: run.page(name) is not None)


def write_start(run_dir: Path, settings: "RunSettings") -> None:
    """Record what a run was asked, before its first step."""
    _write(run_dir, settings.model_dump(mode="json"), "running")


def write_end(run_dir: Path, state: State) -> None:
    """Record how it ended."""
    written = _written(run_dir)
    _write(run_dir, written.get("settings", {}), state, started=written.get("started"))


def list_runs(runs_dir: Path) -> list[RunRecord]:
    """The runs of a folder, the newest first."""
    found = [read_run(folder) for folder in _folders(runs_dir)]
    oldest = datetime.min.replace(tzinfo=UTC)
    return sorted(found, key=lambda run: (run.started or oldest, run.run_id), reverse=True)


def _folders(runs_dir: Path) -> list[Path]:
    with os_errors(str(runs_dir), "read"):  # a pattern finds nothing where it may not look
        if runs_dir.is_dir():
            next(runs_dir.iterdir(), None)
    return [path.parent for path in runs_dir.glob("*/steps") if path.is_dir()]


def find_run(
    runs_dir: Path,
    name: str,
    need: Need | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> RunRecord:
    """One run: by its folder, its id, the start or the end of its id, ``latest``, or ``previous``.

    Args:
        runs_dir: The folder of all runs.
        name: The run.
        need: What it is wanted for: ``latest`` is the newest run that has it.
        say: Is told where that is not the newest of all.

    Raises:
        ConfigurationError: There is none, or more than one, or it has not what is needed.
    """
    folder = Path(name)
    if (folder / "steps").is_dir():
        return _having(read_run(folder.absolute()), need)
    ids = sorted(folder.name for folder in _folders(runs_dir))
    if not ids:
        raise ConfigurationError(
            f"There are no runs in {runs_dir}.",
            fix="Go to the folder that `graftline run` ran in, or give --runs-dir.",
        )
    if name in (NEWEST, BEFORE):
        return _newest(runs_dir, (NEWEST, BEFORE).index(name), need, say)
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
    return _having(read_run(runs_dir / matches[0]), need)


def exported_file(name: str, runs_dir: Path, say: Callable[[str], None] = lambda _: None) -> Path:
    """A model's file: as named, or that of a local run.

    Args:
        name: An ``.onnx`` file, or what :func:`find_run` takes.
        runs_dir: The folder of all runs.
        say: As :func:`find_run` takes it.

    Raises:
        ConfigurationError: It is a folder of something else, or no such run.
    """
    path = Path(name)
    if path.is_file() or path.suffix == ".onnx":
        return path
    if path.is_dir() and not (path / "steps").is_dir():
        raise ConfigurationError(
            f"{name} is a folder, not a model.",
            fix="Name the model first: a file that `graftline run` exported, or `latest`; then "
            "the images.",
        )
    if name.startswith("models:"):
        raise ConfigurationError(
            f"{name} names no model of MLflow's registry here.",
            fix="Write models:/NAME@champion or models:/NAME/3; `graftline verify` and "
            "`graftline serve-manifest` take a file or a local run.",
        )
    if not runs_dir.is_dir() and name not in (NEWEST, BEFORE):
        raise ConfigurationError(
            f"There is no model {name}: no such file, and no runs in {runs_dir}.",
            fix="Give an exported .onnx file or models:/NAME@champion; or go to the folder that "
            "`graftline run` ran in, and give `latest` or the name of a run.",
        )
    found = find_run(runs_dir, name, MODEL, say).model
    assert found is not None
    return found


def _newest(
    runs_dir: Path, position: int, need: Need | None, say: Callable[[str], None]
) -> RunRecord:
    """The newest run, or the one before it, of those that have what is needed."""
    every = list_runs(runs_dir)
    found = [run for run in every if need is None or need.has(run)]
    if len(found) > position:
        if need is not None:
            _say_passed_over(every, found, position, need, say)
        return found[position]
    if need is not None and not found:
        raise ConfigurationError(
            f"No run in {runs_dir} has {need.named}.",
            why=f"The newest, {every[0].run_id}: {every[0].outcome()}.",
            fix="`graftline runs` lists them all; `graftline run` makes another.",
        )
    with_it = f" with {need.named}" if need is not None else ""
    raise ConfigurationError(
        f"There is only one run{with_it} in {runs_dir}, and so none before it.",
        fix="`graftline run` makes another.",
    )


def _say_passed_over(
    every: list[RunRecord],
    found: list[RunRecord],
    position: int,
    need: Need,
    say: Callable[[str], None],
) -> None:
    """Say that the chosen run is not the newest; nights that had nothing to train are no news."""
    tried = [run for run in every if run in found or run.outcome() != NOTHING_TO_TRAIN]
    first, chosen = tried[position], found[position].run_id
    if first.run_id == chosen:
        return
    if need.has(first):
        say(f"Runs without {need.what} are passed over: this is {chosen}.")
        return
    why = f"{first.run_id} is newer and has no {need.what} ({first.outcome()})"
    say(f"{why}: this is {chosen}.")


def _having(run: RunRecord, need: Need | None) -> RunRecord:
    """A run that was named, if it has what is needed."""
    if need is None or not need.required or need.has(run):
        return run
    ended = {"running": "It still runs.", "stopped": "It was stopped."}
    raise ConfigurationError(
        f"{run.run_id} has no {need.what}.",
        why=ended.get(run.state, f"The run: {run.outcome()}."),
        fix=f"Its logs are in {run.folder / 'logs'}. `latest` is the newest run that has one.",
    )


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
