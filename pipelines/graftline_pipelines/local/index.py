"""The page of all runs in a runs folder. Its links are relative: the folder may be moved."""

from pathlib import Path

from graftline.files import os_errors, write_atomic
from graftline_pipelines.local.runs import RunRecord, list_runs

INDEX_FILE = "index.html"


def write_index(runs_dir: Path) -> Path:
    """Write the page again; returns where it is.

    Raises:
        StoreError: The folder cannot be written to.
    """
    from graftline.reports.html import render_page  # with numpy and Pillow

    page = render_page(
        "runs.html",
        "Runs",
        package="graftline_pipelines.local",
        scripts=None,
        lead=str(runs_dir.absolute()),
        runs=list_runs(runs_dir),
        accuracy=accuracy,
    )
    path = runs_dir / INDEX_FILE
    with os_errors(str(path), "write"):
        write_atomic(path, page.encode())
    return path


def accuracy(run: RunRecord) -> str:
    """The test accuracy with its interval; a dash where nothing was measured."""
    value, interval = run.test.get("accuracy"), run.test.get("accuracy_ci")
    if value is None:
        return "–"
    span = f" ({interval[0]:.1%} to {interval[1]:.1%})" if interval else ""
    return f"{value:.1%}{span}"
