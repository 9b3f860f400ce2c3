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


def write_notice(store: str, model: str, start: bool, reasons: Sequence[str]) -> None:
    """Keep what a look found; a failure is a warning, for the look itself is done."""
    news = {
        "schema_version": SCHEMA_VERSION,
        "start": start,
        "reasons": list(reasons),
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    try:
        open_store(store).write(_key(model), json.dumps(news).encode())
    except GraftlineError as error:
        message("WARNING: what was found could not be saved for the notification. %s", error)


def read_notice(store: str, model: str) -> dict[str, Any] | None:
    """What the last look found, or None where there was none.

    Raises:
        StoreError: The store cannot be read.
    """
    place = open_store(store)
    if not place.exists(_key(model)):
        return None
    news: dict[str, Any] = json.loads(place.read(_key(model)))
    return news if news.get("schema_version") == SCHEMA_VERSION else None


def _key(model: str) -> str:
    return f"news/{quote(model, safe='')}.json"
