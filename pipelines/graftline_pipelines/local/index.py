"""The page of all runs in a runs folder. Its links are relative: the folder may be moved."""

from importlib.resources import files
from pathlib import Path

from graftline.files import os_errors, write_atomic
from graftline_pipelines.local.runs import RunRecord, list_runs

INDEX_FILE = "index.html"


def write_index(runs_dir: Path) -> Path:
    """Write the page anew; returns where it is.

    Raises:
        StoreError: The folder cannot be written to.
    """
    import jinja2

    source = (files("graftline_pipelines.local") / "templates" / "runs.html").read_text("utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    page = environment.from_string(source).render(
        folder=str(runs_dir.absolute()), runs=list_runs(runs_dir), accuracy=accuracy
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
