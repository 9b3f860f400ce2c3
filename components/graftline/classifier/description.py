"""What a classifier bundle says of itself, read without building a network or importing PyTorch."""

from pathlib import Path
from typing import Any

from graftline.errors import IntegrityError, SchemaVersionError, StoreNotFound
from graftline.schema import read_json

SCHEMA_VERSION = 1
KIND = "graftline.classifier"
DESCRIPTION_FILE = "classifier.json"


def read_description(folder: Path) -> dict[str, Any]:
    """The content of ``classifier.json``, checked for kind and version; no network is built."""
    path = folder / DESCRIPTION_FILE
    return read_json(
        path,
        kind=KIND,
        version=SCHEMA_VERSION,
        missing=StoreNotFound(
            f"{folder} holds no classifier: {DESCRIPTION_FILE} is not there",
            why="the folder is another artifact's, or the step that writes it did not finish",
            fix="pass the folder that fit_head, fine_tune or evaluate wrote",
        ),
        damaged=lambda why: damaged(path, why),
        outdated=lambda version: SchemaVersionError(
            f"the classifier in {folder} has schema version {version}; "
            f"this Graftline reads {SCHEMA_VERSION}",
            why="it was written by another version of Graftline",
            fix="run the training again with this version, or use the version that wrote it",
        ),
    )


def damaged(path: Path, why: str) -> IntegrityError:
    """The error for a file of a bundle that is not what it should be."""
    return IntegrityError(
        f"{path} cannot be used",
        why=why,
        fix="run the step that writes it again; do not edit or mix the files of a bundle",
    )
