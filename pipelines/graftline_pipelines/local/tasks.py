"""How the tasks of KFP's local runner start, and how each ended."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from graftline.errors import StoreError
from graftline.steps.kept_results import PREFIX
from graftline.steps.reuse import computes_again
from graftline.steps.runtime import read_result
from graftline.storage import open_store
from graftline_pipelines.local.processes import end_below
from graftline_pipelines.local.progress import step_of
from graftline_pipelines.local.warm import COMPONENT, WarmServer, component_of, has_computed

STOPPED = (-signal.SIGINT, 128 + signal.SIGINT)
BESIDE = "fit_head"  # the step that leaves a core idle, behind the extraction that needs them all
KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL)  # of a process, and of a shell's or a container's


@contextlib.contextmanager
def local_tasks(
    server: WarmServer | None,
    run_dir: Path,
    store: str,
    tracking_uri: str = "",
    graph: Mapping[str, Any] | None = None,
) -> Iterator[dict[str, int]]:
    """Let KFP's local runner start its tasks in a warm process, or each in one of its own.

    Args:
        server: The warm process; None for a process of its own for each step.
        run_dir: The run's folder.
        store: URI of the store, whose results may be reused.
        tracking_uri: Tracking URI of MLflow.
        graph: Of what ``export_onnx`` can be prepared while ``fit_head`` runs; None for nothing.

    Yields:
        Exit codes of the steps that failed, as they end; negative for a signal.
    """
    from kfp.local import status, subprocess_task_handler

    failed: dict[str, int] = {}
    computes = computes_again() or not _has_results(store)
    if server is not None:
        server.open_tracking(tracking_uri)
        if computes:
            server.import_large_beside_next()
    original = subprocess_task_handler.SubprocessTaskHandler

    class TaskHandler(original):  # type: ignore[misc, valid-type]
        """Runs a task in a fork of the warm process; in a process of its own where it is gone."""

        def run(self) -> status.Status:
            environment = {**os.environ, **self.env_vars}
            idle = _step_in(self.full_command) == BESIDE and (computes or has_computed(run_dir))
            if server is not None and graph is not None and idle:
                _prepare_export(server, run_dir, graph)
            code = server.run(self.full_command, environment) if server is not None else None
            if code is None:
                code = run_cold(self.full_command, environment)
            elif server is not None and has_computed(run_dir):
                server.import_large()
            if code == 0:
                return status.Status.SUCCESS
            failed[_step_in(self.full_command)] = code
            return status.Status.FAILURE

    # KFP picks the handler by the runner's exact class, so a runner of our own is refused.
    subprocess_task_handler.SubprocessTaskHandler = TaskHandler
    try:
        yield failed
    finally:
        subprocess_task_handler.SubprocessTaskHandler = original


def _prepare_export(server: WarmServer, run_dir: Path, graph: Mapping[str, Any]) -> None:
    """Let the backbone's graph be exported beside ``fit_head``, which keeps one core busy."""
    data, features = read_result(run_dir, "ingest"), read_result(run_dir, "extract_features")
    if data is None or features is None:
        return
    known = {"classes": len(data["classes"]), "fingerprint": features["fingerprint"]}
    known["precision"] = features["precision"]
    server.begin_beside("graftline.steps.export_onnx.prepare:prepare", {**graph, **known})


def run_cold(command: list[str], environment: dict[str, str]) -> int:
    """Run a lightweight component in a process of its own and print what it prints.

    Without KFP's shell between: were the shell alone killed, the step would go on unseen.

    Returns:
        Its exit code, negative for a signal.
    """
    source, arguments = component_of(command)
    with TemporaryDirectory() as folder:
        path = Path(folder) / COMPONENT
        path.write_text(source, encoding="utf-8")
        started = [sys.executable, "-m", "kfp.dsl.executor_main"]
        with subprocess.Popen(
            [*started, "--component_module_path", str(path), *arguments],
            env={**environment, "_KFP_RUNTIME": "true"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        ) as process:
            try:
                for line in process.stdout or ():
                    print(line, end="")
                return process.wait()
            except KeyboardInterrupt:
                end_below(process.pid, itself=True)
                raise


def _step_in(command: list[str]) -> str:
    arguments = component_of(command)[1]
    return step_of(arguments[arguments.index("--function_to_execute") + 1])


def _has_results(store: str) -> bool:
    try:
        return next(iter(open_store(store).list(f"{PREFIX}/")), None) is not None
    except StoreError:  # the first step says what is wrong
        return False
