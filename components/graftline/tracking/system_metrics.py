"""What the machine does while a step works: CPU, memory, disk, network and GPU, into MLflow."""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

from graftline.errors import TrackingError
from graftline.tracking.client import absolute_uri, connect
from graftline.tracking.mlflow_run import open_curves

SECONDS = 10.0  # between two samples, as MLflow's own default; its variables overrule it
LAST_SECONDS = 10.0  # that the end waits for the last figures


@contextmanager
def watched(
    uri: str, run_id: str, step_name: str
) -> Iterator[Callable[[Mapping[str, float]], None]]:
    """The machine's figures while a step works, and what puts an epoch's figures into the run.

    See :func:`graftline.tracking.mlflow_run.open_curves`.
    """
    with system_metrics(uri, run_id):
        yield open_curves(uri, run_id, step_name)


@contextmanager
def system_metrics(uri: str, run_id: str, seconds: float = SECONDS) -> Iterator[None]:
    """MLflow's own monitor beside the work, so that its page of system metrics shows the step.

    A server that is away costs the figures, never the work.

    Args:
        uri: Tracking URI of MLflow; nothing is measured where it is empty.
        run_id: The run that all steps join.
        seconds: Between two samples.
    """
    finish = None
    if uri and run_id:
        with suppress(TrackingError):
            connect(uri)  # is it there? and its client is set to give up in time
            finish = _start(absolute_uri(uri), run_id, seconds)
    try:
        yield
    finally:
        if finish is not None:
            finish.start()
            finish.join(LAST_SECONDS)


def _start(uri: str, run_id: str, seconds: float) -> threading.Thread:
    """Start the monitor; the thread returned, once started, ends it."""
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    logging.getLogger("mlflow.system_metrics").setLevel(logging.ERROR)
    monitor = SystemMetricsMonitor(
        run_id, sampling_interval=seconds, resume_logging=True, tracking_uri=uri
    )
    monitor.start()
    return threading.Thread(target=monitor.finish, daemon=True)
