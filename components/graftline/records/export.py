"""The record of an export, ``export.json``: the file's digest, and how well it agrees with PyTorch.

``export_onnx`` writes it beside ``model.onnx`` once the file is proven; ``promote`` registers
nothing without it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graftline.errors import IntegrityError, SchemaVersionError, StoreNotFound
from graftline.files import sha256_of
from graftline.schema import read_json, write_json

SCHEMA_VERSION = 1
MODEL_FILE = "model.onnx"
EXPORT_FILE = "export.json"


def write_export(folder: Path, record: Mapping[str, Any]) -> None:
    """Write the record; it comes last, and makes the export complete."""
    content = {"schema_version": SCHEMA_VERSION, **record}
    write_json(folder / EXPORT_FILE, content, sort_keys=True)


def read_export(folder: Path) -> dict[str, Any]:
    """The record of the export, once the file beside it has the digest that it states.

    Raises:
        StoreNotFound: There is no export in the folder.
        SchemaVersionError: It was written under another schema version.
        IntegrityError: ``model.onnx`` is not the file that was compared with PyTorch.
    """
    path = folder / EXPORT_FILE
    missing = StoreNotFound(
        f"{folder} holds no exported model.",
        why=f"It must hold {MODEL_FILE} and {EXPORT_FILE}.",
        fix="Give the folder that the step export_onnx wrote.",
    )
    if not (folder / MODEL_FILE).is_file():
        raise missing
    record = read_json(
        path,
        kind=None,
        version=SCHEMA_VERSION,
        missing=missing,
        damaged=lambda why: IntegrityError(
            f"{path} is damaged.", why=why, fix="Run the step export_onnx again."
        ),
        outdated=lambda version: SchemaVersionError(
            f"{path} was written under schema version {version}.",
            why=f"This version of Graftline reads schema version {SCHEMA_VERSION}.",
            fix="Export the model again.",
        ),
    )
    if sha256_of(folder / MODEL_FILE) != record.get("sha256"):
        raise IntegrityError(
            f"{folder / MODEL_FILE} is not the file that was compared with PyTorch.",
            why=f"Its sha256 is not the one in {EXPORT_FILE}.",
            fix="Run the step export_onnx again.",
        )
    return record


def agreement(images: int, fraction: float, noun: str = "test image") -> str:
    """On how many images two sets of answers have the same label, as a count: no "100.00% of 45".

    Args:
        images: Images compared.
        fraction: Of them with the same label.
        noun: What they are.
    """
    same = round(images * fraction)
    if same == images:
        return f"all {images:,} {noun}s" if images != 1 else f"1 of 1 {noun}"
    return f"{same:,} of {images:,} {noun}s"
