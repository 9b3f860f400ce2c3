"""The last look for changes, kept in the store for whoever tells people of it.

An exit handler of KFP sees how a pipeline ended and none of its outputs.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from graftline.errors import GraftlineError
from graftline.progress import message
from graftline.storage import open_store

SCHEMA_VERSION = 1


def write_notice(
    store: str, model: str, start: bool, reasons: Sequence[str], pipeline_run: str = ""
) -> None:
    """Keep what a look found; a failure is a warning, for the look itself is done.

    Args:
        store: URI of the store.
        model: The registered model.
        start: Whether training starts.
        reasons: Why, or why not.
        pipeline_run: Id of the pipeline run that looked.
    """
    news = {
        "schema_version": SCHEMA_VERSION,
        "start": start,
        "reasons": list(reasons),
        "pipeline_run": pipeline_run,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    try:
        open_store(store).write(_key(model), json.dumps(news).encode())
    except GraftlineError as error:
        message("WARNING: what was found could not be saved for the notification. %s", error)


def read_notice(store: str, model: str, pipeline_run: str = "") -> dict[str, Any] | None:
    """What the last look found, or None where there was none.

    Args:
        store: URI of the store.
        model: The registered model.
        pipeline_run: Id of the pipeline run that is asked for; what another one found is not its.

    Raises:
        StoreError: The store cannot be read.
    """
    place = open_store(store)
    if not place.exists(_key(model)):
        return None
    news: dict[str, Any] = json.loads(place.read(_key(model)))
    if news.get("schema_version") != SCHEMA_VERSION:
        return None
    looked = news.get("pipeline_run")
    return None if looked and pipeline_run and looked != pipeline_run else news


def _key(model: str) -> str:
    return f"news/{quote(model, safe='')}.json"
