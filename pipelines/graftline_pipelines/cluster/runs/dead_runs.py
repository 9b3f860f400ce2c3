"""Ends what a run that is over on the cluster left open in MLflow."""

from typing import Any

from rich.console import Console

from graftline.errors import GraftlineError
from graftline_pipelines.cluster.runs.run_spec import tracked_in
from graftline_pipelines.cluster.runs.run_tasks import was_stopped
from graftline_pipelines.cluster.server import Cluster


def close_dead(cluster: Cluster, run: Any, console: Console, *, stopped: bool = False) -> None:
    """End the MLflow run of a pipeline run that failed or was stopped.

    MLflow may be reachable from within the cluster only. Then the next run ends it.

    Args:
        cluster: The server.
        run: The run, as the server has it.
        console: Where a note is printed.
        stopped: Whether it was stopped just now.
    """
    stopped = stopped or was_stopped(run)
    if not stopped and run.state != "FAILED":
        return
    where = tracked_in(cluster, run)
    if where is None:
        return
    from graftline.tracking.dead_runs import End, close_runs

    status: End = "KILLED" if stopped else "FAILED"
    why = "stopped" if stopped else "the pipeline run failed"
    try:
        closed = close_runs(where.uri, where.experiment, run.run_id, status, why)
    except GraftlineError as error:
        console.print(
            f"[yellow]Note:[/] the run is not ended in MLflow: {error.what} The exit handler or "
            "the next run ends it.",
            highlight=False,
        )
        return
    if closed:
        console.print(f"Its run in MLflow is ended as {status}.", highlight=False)
