"""The decision records of runs on this machine."""

from collections.abc import Iterator
from pathlib import Path

from graftline.errors import IntegrityError, SchemaVersionError
from graftline.progress import message
from graftline.records.decision import Decision, parse_decision
from graftline.steps.runtime import read_result


def local_decisions(runs_dir: Path) -> Iterator[tuple[str, Decision]]:
    """The runs' ids and decisions, the newest first.

    Args:
        runs_dir: The folder of all runs.
    """
    folders = [path for path in runs_dir.iterdir() if path.is_dir()] if runs_dir.is_dir() else []
    for folder in sorted(folders, key=lambda path: path.stat().st_mtime, reverse=True):
        for step in ("fine_tune", "fit_head"):  # the later one holds the outcome
            try:
                record = (read_result(folder, step) or {}).get("decision")
                if record is not None:
                    yield folder.name, parse_decision(record, f"{folder}/steps/{step}.json")
                    break
            except (IntegrityError, SchemaVersionError, ValueError, AttributeError) as error:
                message("%s is left out: %s", folder.name, error)
                break
