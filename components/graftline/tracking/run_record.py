"""What a run was asked to do and on which data, for whoever looks at it in MLflow.

The whole run file as parameters, where the run came from as tags, and the data set as an input.
All of it is best effort: a failure of MLflow is one warning.
"""

import getpass
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from graftline import __version__
from graftline.tracking.mlflow_run import TAG, open_tracking
from graftline.tracking.server_answers import redacted

BATCH = 100  # parameters or tags in one request, MLflow's limit
LONGEST_VALUE = 500  # characters; a list of hundreds of paths is in the run file
LONGEST_NAME = 500
VARIABLES = "cluster.variables."  # of the pods; a value may be private though no name says so
MASKED = "***"
LONGEST_DIGEST = 36  # MLflow's column


class Ingested(Protocol):
    """What the step ``ingest`` came to."""

    @property
    def snapshot_id(self) -> str:
        """Of the snapshot."""

    @property
    def images(self) -> Mapping[str, int]:
        """Images by split."""

    @property
    def classes(self) -> Sequence[str]:
        """The labels."""


def record_settings(options: Mapping[str, Any], run_id: str) -> None:
    """Put the run file into the run as parameters, and where the run came from as tags.

    Args:
        options: Of the step ``ingest``: ``uri``, and ``settings`` and ``where`` if there are any.
        run_id: The tracking run.
    """
    settings, uri = options.get("settings") or {}, options["uri"]
    if not settings:
        return
    tracker = open_tracking(uri, run_id, best_effort=True)
    params = {
        key: MASKED if key.startswith(VARIABLES) else redacted(text, uri)
        for key, text in flattened(settings).items()
    }
    for part in _batches(params):
        tracker.params(part)
    tags = {
        "mlflow.source.name": f"graftline {settings.get('name', '')}".strip(),
        "mlflow.source.type": "JOB" if options.get("where") == "cluster" else "LOCAL",
        "mlflow.user": _user(),
        f"{TAG}version": __version__,
        f"{TAG}source": redacted(str(settings.get("data", {}).get("source", "")), uri),
        f"{TAG}store": redacted(str(settings.get("store", "")), uri),
        f"{TAG}backbone": str(settings.get("backbone", "")),
        f"{TAG}strategy_asked": str(settings.get("strategy", "")),
    }
    tracker.tags({key: text for key, text in tags.items() if text})


def record_dataset(
    options: Mapping[str, Any], run_id: str, source: str, ingested: Ingested
) -> None:
    """Put the data set into the run as its input, under the snapshot's id.

    Args:
        options: As of :func:`record_settings`.
        run_id: The tracking run.
        source: The images' address.
        ingested: What came in.
    """
    uri = options["uri"]
    address = redacted(source, uri)
    tracker = open_tracking(uri, run_id, best_effort=True)
    tracker.dataset(
        name=str((options.get("settings") or {}).get("name") or address)[:LONGEST_NAME],
        digest=ingested.snapshot_id[:LONGEST_DIGEST],
        kind="s3" if address.startswith("s3://") else "local",
        source={"uri": address},
        profile={**ingested.images, "classes": len(ingested.classes)},
    )
    tracker.tags({f"{TAG}snapshot_id": ingested.snapshot_id})


def flattened(settings: Mapping[str, Any]) -> dict[str, str]:
    """A run file with one text for each key, as ``data.split.val``: ``0.15``.

    A list is one text; what is long is cut.
    """
    return {key: _shortened(value) for key, value in _leaves(settings, "")}


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, each in value.items():
            yield from _leaves(each, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def shortened(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A run file whose long values are cut texts, so that it fits into a pipeline's parameter."""
    return {key: _short_value(value) for key, value in settings.items()}


def _short_value(value: Any) -> Any:
    if isinstance(value, Mapping):
        return shortened(value)
    text = _shortened(value)
    return text if text.endswith("...") else value


def _shortened(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 3]}..."


def _batches(values: Mapping[str, str]) -> Iterator[dict[str, str]]:
    items = list(values.items())
    for start in range(0, len(items), BATCH):
        yield dict(items[start : start + BATCH])


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container's user need not have a name
        return ""
