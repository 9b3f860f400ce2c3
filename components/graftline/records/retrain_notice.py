"""The last check for changes, kept in the store for the step that notifies people.

An exit handler of KFP sees how a pipeline ended and none of its outputs.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from graftline.errors import GraftlineError, IntegrityError, StoreNotFound
from graftline.progress import message
from graftline.storage import commit, open_store

SCHEMA_VERSION = 1


def write_notice(
    store: str, model: str, start: bool, reasons: Sequence[str], pipeline_run: str = ""
) -> None:
    """Keep what a check found; a failure is a warning, for the check itself is done.

    Args:
        store: URI of the store.
        model: The registered model.
        start: Whether training starts.
        reasons: Why, or why not.
        pipeline_run: Id of the pipeline run that checked.
    """
    notice = {
        "schema_version": SCHEMA_VERSION,
        "start": start,
        "reasons": list(reasons),
        "pipeline_run": pipeline_run,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    try:
        commit.overwrite(open_store(store), _key(model), notice)
    except GraftlineError as error:
        message("WARNING: what was found could not be saved for the notification. %s", error)


def read_notice(store: str, model: str, pipeline_run: str = "") -> dict[str, Any] | None:
    """What the last check found, or None where there was none.

    Args:
        store: URI of the store.
        model: The registered model.
        pipeline_run: Id of the pipeline run that is asked for; what another one found is not its.

    Raises:
        StoreError: The store cannot be read.
    """
    try:
        notice = commit.read(open_store(store), _key(model)).content
    except StoreNotFound:
        return None
    except IntegrityError as error:
        message("WARNING: what the last check found is not known. %s", error)
        return None
    if notice.get("schema_version") != SCHEMA_VERSION:
        return None
    started = notice.get("pipeline_run")
    return None if started and pipeline_run and started != pipeline_run else notice


def _key(model: str) -> str:
    return f"news/{quote(model, safe='')}.json"
