"""Runs a graph on this machine, under KFP's local runner."""

import errno
import logging
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ContextDecorator, contextmanager, nullcontext, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from rich.console import Console
from rich.markup import escape

from graftline.errors import ConfigurationError, GraftlineError, StoreNotFound
from graftline.steps.runtime import RUN_DIR_VARIABLE
from graftline.storage.uri import absolute
from graftline_pipelines.local.index import write_index
from graftline_pipelines.local.progress import (
    StepFollower,
    earlier_seconds,
    failure_of,
    seconds_by_step,
    steps_of,
    unfinished_step,
)
from graftline_pipelines.local.runs import RUN_FILE, State, write_end, write_start
from graftline_pipelines.local.shared_output import KfpOutput
from graftline_pipelines.local.tasks import KILLED, STOPPED, local_tasks
from graftline_pipelines.local.warm import WarmServer, warm_process
from graftline_pipelines.runfile.settings import RunSettings, new_run_id

Runner = Literal["subprocess", "docker"]
MLFLOW_SECONDS = 2.0  # for the warm process, which imports PyTorch for up to a minute
BATCHES = {  # the settings that decide how much memory a step takes
    "extract_features": "extract.batch_size",
    "fine_tune": "fine_tune.batch_size",
}


class StepFailed(GraftlineError):  # noqa: N818 -- a step has failed; this is its error, not ours
    """A step of a local run failed; the message is the step's own."""

    def __init__(self, step: str, what: str, why: str | None, fix: str | None, log: Path) -> None:
        super().__init__(what, why=why, fix=fix)
        self.step = step
        self.log = log


class OneAtATime(ContextDecorator):
    """Lets the runs of a process's threads wait for each other.

    KFP's local runner is a process's only one: it replaces ``print`` and reads the environment.
    """

    _lock = threading.RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


@dataclass(frozen=True)
class LocalRun:
    """A run that has ended well."""

    run_id: str
    run_dir: Path
    seconds: dict[str, float]
    total_seconds: float


def with_absolute_paths(settings: RunSettings) -> RunSettings:
    """The same settings, local paths made absolute: steps need not share our working folder."""
    uri = settings.tracking.uri
    if uri.startswith("sqlite:///") and not uri.startswith("sqlite:////"):
        database = Path(uri.removeprefix("sqlite:///")).absolute()
        database.parent.mkdir(parents=True, exist_ok=True)
        uri = f"sqlite:///{database}"
    return settings.model_copy(
        update={
            "store": absolute(settings.store),
            "weights": settings.weights
            if settings.weights in (None, "random")
            else absolute(str(settings.weights)),
            "data": settings.data.model_copy(update={"source": absolute(settings.data.source)}),
            "tracking": settings.tracking.model_copy(update={"uri": uri}),
        }
    )


@OneAtATime()
def run(
    settings: RunSettings,
    build: Callable[[RunSettings, str], Callable[[], Any]],
    *,
    runs_dir: Path,
    console: Console,
    runner: Runner = "subprocess",
    retrain: bool = False,
    server: WarmServer | None = None,
) -> LocalRun:
    """Run a graph here and follow it.

    Args:
        settings: The run file.
        build: Makes the KFP pipeline from the settings and the run id.
        runs_dir: The folder of all runs; this one gets a folder of its own in it.
        console: Where progress is shown.
        runner: ``subprocess``, or ``docker`` for one container a step.
        server: A warm process for the steps, if one was started before.
        retrain: Whether the graph begins with the look for changes.

    Raises:
        StepFailed: with the step's own error.
    """
    if runner == "docker":  # before the run has a folder
        from graftline_pipelines.local.docker import require_engine

        require_engine(settings, console.print)
    run_id = new_run_id(settings.name)
    run_dir = _new_folder(runs_dir / run_id, settings)
    started = time.monotonic()
    settings = with_absolute_paths(settings)
    console.file = console.file  # the stream of now: `sys.stdout` is KFP's for a while
    with (
        nullcontext(server) if server else warm_process(wanted=runner == "subprocess") as warm,
        local_tasks(warm, run_dir, settings.store, settings.tracking.uri, _onnx(settings)) as codes,
        # KFP leaves a folder for each task in the system's temporary folder: it gets its own.
        TemporaryDirectory(prefix="graftline-", ignore_cleanup_errors=True) as scratch,
        StepFollower(
            run_dir,
            console,
            steps_of(settings.strategy, retrain=retrain),
            earlier_seconds(runs_dir, settings.name),
        ),
        _quiet_kfp(run_dir),
        _environment(run_dir, scratch),
    ):
        pipeline = build(settings, run_id)
        _initialise(runner, run_dir, settings)
        failed = _executed(pipeline)
        if failed is not None and set(codes.values()) & set(STOPPED):
            failed = KeyboardInterrupt()  # Ctrl-C; ours may get lost, in a destructor for example
        if failed is not None:
            _end(failed, run_dir, settings, console, warm)
    if isinstance(failed, KeyboardInterrupt):
        raise failed
    if failed is not None:
        raise _step_error(run_dir, failed, codes)
    _note_end(run_dir, "done")
    return LocalRun(run_id, run_dir, seconds_by_step(run_dir), time.monotonic() - started)


def _onnx(settings: RunSettings) -> dict[str, Any] | None:
    """What decides the exported graph before a head is fitted; None where the network is trained.

    With ``auto`` a linear probe is most likely.
    """
    if settings.strategy in ("fine_tune", "scratch"):
        return None
    return {
        "backbone": settings.backbone,
        "weights": settings.weights,
        "image_size": settings.image_size,
        "fit": settings.image.fit,
        "store": settings.store,
        "strategy": settings.strategy,
        "hidden": settings.head.hidden,
        "dropout": settings.head.dropout,
        "opset": settings.export.opset,
    }


def _executed(pipeline: Callable[[], Any]) -> RuntimeError | KeyboardInterrupt | None:
    """Run the pipeline; what ended it before its time."""
    try:
        pipeline()
    except (RuntimeError, KeyboardInterrupt) as error:
        return error
    return None


def _note_end(run_dir: Path, state: State) -> None:
    """Record how the run ended, and renew the page of all runs; neither may hide an error."""
    with suppress(GraftlineError, OSError):
        write_end(run_dir, state)
        write_index(run_dir.parent)


def _end(
    failed: RuntimeError | KeyboardInterrupt,
    run_dir: Path,
    settings: RunSettings,
    console: Console,
    warm: WarmServer | None,
) -> None:
    """Record how a run ended that did not end well: in its folder and in MLflow."""
    stopped = isinstance(failed, KeyboardInterrupt)
    if stopped:
        step = unfinished_step(run_dir)
        console.print(f"\nStopping {step} ..." if step else "\nStopping ...")
        if warm is not None:
            warm.end_steps()
    if not _was_removed(run_dir):
        _note_end(run_dir, "stopped" if stopped else "failed")
    why = "stopped" if stopped else "the run failed"
    asked = [run_dir.name, "KILLED" if stopped else "FAILED", why]
    problem = _end_in_mlflow(settings, asked, warm)
    if problem:
        said = f"[yellow]Note:[/] {escape(problem)}"
        console.print(said, highlight=False, soft_wrap=not console.is_terminal)


def _end_in_mlflow(settings: RunSettings, asked: list[str], warm: WarmServer | None) -> str:
    """End what a failed run left open in MLflow, so that it does not read RUNNING for ever.

    On a server in the warm process, which has imported MLflow: alone that takes seconds, for which
    somebody who pressed Ctrl-C waits.
    """
    uri = settings.tracking.uri
    local = uri.startswith("sqlite:///")
    if local and not Path(uri.removeprefix("sqlite:///")).exists():
        return ""  # the run did not come so far as to make it
    asked = [uri, settings.experiment, *asked]
    if warm is not None and not local:
        with warm.calling(f"{__name__}:close_in_mlflow", asked) as call:
            problem = call.answer(within=MLFLOW_SECONDS)
        if problem is not None:
            return str(problem)
    return close_in_mlflow(asked)


def close_in_mlflow(asked: list[Any]) -> str:
    """End a pipeline run's MLflow runs. Returns why that was not possible, else nothing.

    Args:
        asked: What :func:`graftline.tracking.dead_runs.close_runs` takes.
    """
    from graftline.tracking.dead_runs import close_runs

    try:
        close_runs(*asked)
    except GraftlineError as error:
        return error.what
    return ""


def _new_folder(run_dir: Path, settings: RunSettings) -> Path:
    run_dir = run_dir.absolute()
    _make_folders(run_dir)
    write_start(run_dir, settings)
    return run_dir


def _make_folders(run_dir: Path) -> None:
    try:
        (run_dir / "steps").mkdir(parents=True)
        (run_dir / "logs").mkdir()
    except OSError as error:
        raise ConfigurationError(
            f"The run's folder {run_dir} cannot be created.",
            why=f"{error.strerror}.",
            fix="Give another folder with --runs-dir, or run in a folder that you can write to.",
        ) from error


def _initialise(runner: Runner, run_dir: Path, settings: RunSettings) -> None:
    from kfp import local

    chosen: Any
    if runner == "docker":
        from graftline_pipelines.local.docker import hardened_runner

        chosen = hardened_runner(run_dir=run_dir, settings=settings)
    else:
        chosen = local.SubprocessRunner(use_venv=False)
    local.init(runner=chosen, pipeline_root=str(run_dir / "artifacts"), raise_on_error=True)


@contextmanager
def _quiet_kfp(run_dir: Path) -> Iterator[None]:
    """KFP prints its own wrapping and each step's output: into the run's folder with it."""
    root, raises = logging.getLogger(), logging.raiseExceptions
    level = root.level
    path = run_dir / "logs" / "kfp.log"
    logging.raiseExceptions = False  # of a full disk, `logging` would print a traceback by itself
    try:
        with path.open("a", encoding="utf-8") as stream, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with redirect_stdout(KfpOutput(stream)):
                yield
    except OSError as error:
        if error.filename is None and error.errno in (errno.ENOSPC, errno.EDQUOT):
            error.filename = str(path)
        raise
    finally:
        root.setLevel(level)
        logging.raiseExceptions = raises


@contextmanager
def _environment(run_dir: Path, scratch: str) -> Iterator[None]:
    before = dict(os.environ)
    os.environ[RUN_DIR_VARIABLE] = str(run_dir)
    os.environ["TMPDIR"] = scratch
    # A library that writes its own progress bars would fill the step's log with them.
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _was_removed(run_dir: Path) -> bool:
    return not (run_dir / RUN_FILE).exists()


def _step_error(run_dir: Path, error: Exception, codes: dict[str, int]) -> GraftlineError:
    """Why a run failed: the step's own words, else how its process ended.

    Args:
        run_dir: The run's folder.
        error: What KFP said.
        codes: Exit codes of the steps that failed; empty where the runner tells none.
    """
    if _was_removed(run_dir):
        return StoreNotFound(
            f"The run's folder {run_dir} was removed while it ran.",
            fix="Run again: what the finished steps computed is in the store.",
        )
    failure = failure_of(run_dir)
    if failure is not None:
        log = run_dir / "logs" / f"{failure['step']}.log"
        return StepFailed(failure["step"], failure["what"], failure["why"], failure["fix"], log)
    # A process that is killed while it imports its libraries has no record yet.
    step = unfinished_step(run_dir) or next(reversed(codes), None)
    log = run_dir / "logs" / f"{step}.log"
    if not log.exists():
        log = run_dir / "logs" / "kfp.log"
    if step is None:
        return StepFailed("unknown", str(error).strip(), None, "See the log.", log)
    return StepFailed(step, *_ended(step, codes.get(step, -signal.SIGKILL)), log)


def _ended(step: str, code: int) -> tuple[str, str, str]:
    """What to say of a process that ended without an error of its own: what, why, fix."""
    if code in KILLED:
        smaller = f" or a smaller batch (`{BATCHES[step]}`)" if step in BATCHES else ""
        return (
            "The step's process was killed (SIGKILL): it ended without a message.",
            "It was killed from outside, most often by the system for lack of memory.",
            f"Close other programs or give it more memory{smaller}, and run again: what was "
            "computed is kept. The system's log says whether it was memory (`journalctl -k`).",
        )
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        return (
            f"The step's process was ended by {name}: it ended without a message.",
            "A library crashed, or someone sent the signal.",
            "See the log, and run again: what was computed is kept.",
        )
    return (
        f"The step's process ended with code {code} and no error of its own.",
        "It failed before the step's work began, or a library ended the process.",
        "See the log, and run again: what was computed is kept.",
    )
