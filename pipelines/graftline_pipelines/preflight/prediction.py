"""What a prediction on a cluster needs, asked from here before a pod is: model, images, table."""

import os
import socket
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import islice
from typing import Any

from graftline.addresses import split_address
from graftline.errors import (
    ConfigurationError,
    DataError,
    GraftlineError,
    StoreNotFound,
    StoreUnreachable,
)
from graftline_pipelines.runfile.settings import RunSettings

LOOKED_AT = 10_000  # objects of a prefix, among which there should be an image
WRONG = (ConfigurationError, DataError, StoreNotFound)  # an answer; others are the lack of one
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
PROXIES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy")


def ask_prediction(
    settings: RunSettings, parameters: Mapping[str, Any]
) -> tuple[list[str], list[str]]:
    """Ask the registry and the bucket that answer here.

    Args:
        settings: The run file.
        parameters: Values that replace those of its section ``predict``.

    Returns:
        What would make the pod fail, and what could not be asked.
    """
    problems, notes = _ask_registry(settings, str(parameters.get("version", "")))
    wanted = settings.predict
    source = str(parameters.get("source") or wanted.source)
    output = str(parameters.get("output") or wanted.output)
    try:
        _check_host()
        _list_first(settings.store)  # else another S3 server than the cluster's answers here
    except GraftlineError as error:
        return problems, [*notes, f"predict.source and predict.output: {_unasked(error)}"]
    questions: dict[str, Callable[[], None]] = {
        "predict.source": partial(_images, source, wanted.image_column),
        "predict.output": partial(_list_first, output.rpartition("/")[0]),
    }
    for key, ask in questions.items():
        try:
            ask()
        except WRONG as error:
            problems.append(f"{key}: {_in_a_line(error)}")
        except GraftlineError as error:
            notes.append(f"{key}: {_unasked(error)}")
    return problems, notes


def _ask_registry(settings: RunSettings, version: str) -> tuple[list[str], list[str]]:
    from graftline.steps.predict.step import registered_version
    from graftline.tracking.readiness import check_answers
    from graftline.tracking.registry import existing_registry, unknown_model

    uri, name = settings.tracking.uri, settings.registered_model
    key = "tracking.registered_model"
    try:
        check_answers(uri)
        registry = existing_registry(uri)
        known = registry.has(name)
    except GraftlineError as error:
        return [], [f"{key}: {_unasked(error)}"]
    if not known:
        return [f"{key}: {_in_a_line(unknown_model(name))}"], []
    try:
        registered_version(registry, name, version or settings.predict.version)
    except GraftlineError as error:
        return [f"predict.version: {_in_a_line(error)}"], []
    return [], []


def _check_host() -> None:
    """Refuse an S3 server whose name only the cluster knows: asked for, it is waited for."""
    endpoint = next(filter(None, map(os.environ.get, ENDPOINTS)), None)
    host = split_address(endpoint).hostname if endpoint else None
    if host is None or any(map(os.environ.get, PROXIES)):
        return
    try:
        socket.getaddrinfo(host, None)
    except OSError as error:
        raise StoreUnreachable(
            f"The host of {endpoint} is not known here", why=error.strerror
        ) from error


def _list_first(uri: str) -> None:
    from graftline.storage import open_store

    next(iter(open_store(uri).list()), None)


def _images(source: str, image_column: str) -> None:
    """Refuse a table without the column, and a prefix without images; a large one is not listed."""
    from graftline.data.sources.base import TABLES
    from graftline.data.sources.table_images import is_image
    from graftline.steps.predict.inputs import find_images
    from graftline.storage import open_store

    if source.lower().endswith(TABLES) or is_image(source):
        find_images([source], image_column)
        return
    keys: Iterator[str] = (one.key for one in open_store(source.rstrip("/")).list())
    first = list(islice(keys, LOOKED_AT))
    if len(first) < LOOKED_AT and not any(map(is_image, first)):
        raise ConfigurationError(f"There are no images in {source}.", fix="Correct the prefix.")


def _unasked(error: GraftlineError) -> str:
    return f"not checked from here, where pods may see more: {_sentences(error.what, error.why)}"


def _in_a_line(error: GraftlineError) -> str:
    return _sentences(error.what, error.why, error.fix)


def _sentences(*parts: str | None) -> str:
    return " ".join(f"{_begun(part).rstrip('.')}." for part in parts if part)


def _begun(text: str) -> str:
    """With a capital letter, unless it begins with an address."""
    return text[0].upper() + text[1:] if text.partition(" ")[0].isalpha() else text
