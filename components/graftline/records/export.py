"""The record of an export, ``export.json``: the file's digest, and how well it agrees with PyTorch.

``export_onnx`` writes it beside ``model.onnx`` once the file is proven; ``promote`` registers
nothing without it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graftline.errors import IntegrityError, SchemaVersionError, StoreNotFound
from graftline.files import sha256_of, write_atomic

SCHEMA_VERSION = 1
MODEL_FILE = "model.onnx"
EXPORT_FILE = "export.json"


def write_export(folder: Path, record: Mapping[str, Any]) -> None:
    """Write the record; it comes last, and makes the export complete."""
    content = {"schema_version": SCHEMA_VERSION, **record}
    text = json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n"
    write_atomic(folder / EXPORT_FILE, text.encode())


def read_export(folder: Path) -> dict[str, Any]:
    """The record of the export, once the file beside it has the digest that it states.

    Raises:
        StoreNotFound: There is no export in the folder.
        SchemaVersionError: It was written under another schema version.
        IntegrityError: ``model.onnx`` is not the file that was compared with PyTorch.
    """
    path = folder / EXPORT_FILE
    if not path.is_file() or not (folder / MODEL_FILE).is_file():
        raise StoreNotFound(
            f"{folder} holds no exported model.",
            why=f"It must hold {MODEL_FILE} and {EXPORT_FILE}.",
            fix="Give the folder that the step export_onnx wrote.",
        )
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if record.get("schema_version") != SCHEMA_VERSION:
        raise SchemaVersionError(
            f"{path} was written under schema version {record.get('schema_version')}.",
            why=f"This version of Graftline reads schema version {SCHEMA_VERSION}.",
            fix="Export the model again.",
        )
    if sha256_of(folder / MODEL_FILE) != record["sha256"]:
        raise IntegrityError(
            f"{folder / MODEL_FILE} is not the file that was compared with PyTorch.",
            why=f"Its sha256 is not the one in {EXPORT_FILE}.",
            fix="Run the step export_onnx again.",
        )
    return record
