"""What ``run`` and ``retrain`` have in common: a run file, checked and run on this machine."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from graftline_pipelines.cli.commands.race import chosen_backbone
from graftline_pipelines.cli.options import checking, chosen_runner

if TYPE_CHECKING:
    from rich.console import Console

    from graftline_pipelines.local.run import LocalRun, Runner
    from graftline_pipelines.local.warm import WarmServer
    from graftline_pipelines.runfile.settings import RunSettings


@dataclass(frozen=True)
class HereRun:
    """A run that has ended well, its run file, and where a command prints."""

    finished: "LocalRun"
    settings: "RunSettings"
    console: "Console"


def run_here(
    run_file: Path,
    overrides: Sequence[str] | None,
    *,
    runs_dir: Path,
    runner: str,
    as_json: bool,
    retrain: bool = False,
) -> HereRun:
    """Check a run file, run its graph here and follow it; a step's failure ends the command.

    Args:
        run_file: The run file.
        overrides: As ``--set`` gives them.
        runs_dir: The folder of all runs.
        runner: As ``--runner`` gives it.
        as_json: Whether standard output is for JSON alone.
        retrain: Whether the graph is the one that checks for changes first.
    """
    from graftline_pipelines.local.warm import warm_process

    chosen = chosen_runner(runner)
    # Before anything else: the steps' process imports its libraries while the file is checked.
    with warm_process(wanted=chosen == "subprocess") as server:
        return _checked_and_run(
            run_file,
            overrides,
            server,
            runs_dir=runs_dir,
            runner=chosen,
            as_json=as_json,
            retrain=retrain,
        )


def _checked_and_run(
    run_file: Path,
    overrides: Sequence[str] | None,
    server: "WarmServer | None",
    *,
    runs_dir: Path,
    runner: "Runner",
    as_json: bool,
    retrain: bool,
) -> HereRun:
    from graftline_pipelines.local.screen import Screen, show_error
    from graftline_pipelines.runfile.load import load

    settings = load(run_file, overrides or ())
    console = Screen(stderr=as_json)
    settings = chosen_backbone(settings, console)

    from graftline_pipelines.local import run as local
    from graftline_pipelines.preflight import examine as preflight
    from graftline_pipelines.preflight.remote import all_in_warm_process, in_warm_process

    def build(resolved: Any, run_id: str) -> Any:
        if retrain:
            from graftline_pipelines.graphs.retraining import retraining_pipeline as pipeline
        else:
            from graftline_pipelines.graphs.training import training_pipeline as pipeline
        return pipeline(resolved, run_id, on_cluster=False)

    with checking(console) as asking:
        preflight.require(
            local.with_absolute_paths(settings),
            console,
            asking,
            in_warm_process(server),
            all_in_warm_process(server),
        )
    try:
        finished = local.run(
            settings,
            build,
            runs_dir=runs_dir,
            console=console,
            runner=runner,
            server=server,
            retrain=retrain,
        )
    except local.StepFailed as failure:
        show_error(f"Step {failure.step} failed: {failure}\nLog: {failure.log}")
        raise typer.Exit(1) from None
    return HereRun(finished, settings, console)
