"""The record of an export: proven files only, and each fault by name."""

import hashlib
import json
from pathlib import Path

import pytest

from graftline.errors import GraftlineError, IntegrityError, SchemaVersionError, StoreNotFound
from graftline.records.export import (
    EXPORT_FILE,
    MODEL_FILE,
    agreement,
    read_export,
    write_export,
)


@pytest.fixture
def export(tmp_path: Path) -> Path:
    (tmp_path / MODEL_FILE).write_bytes(b"graph")
    write_export(tmp_path, {"sha256": hashlib.sha256(b"graph").hexdigest(), "opset": 20})
    return tmp_path


def test_what_was_written_is_read(export: Path) -> None:
    assert read_export(export)["opset"] == 20
    assert [path.name for path in sorted(export.iterdir())] == [EXPORT_FILE, MODEL_FILE]


@pytest.mark.parametrize(
    ("content", "error", "said"),
    [
        (None, StoreNotFound, "holds no exported model"),
        ('{"schema_version": 1, "sha', IntegrityError, "is not JSON"),
        ("[]", IntegrityError, "not a JSON object"),
        ('{"schema_version": 2}', SchemaVersionError, "schema version 2"),
        ('{"schema_version": 1}', IntegrityError, "is not the file that was compared"),
    ],
)
def test_another_record_is_refused(
    export: Path, content: str | None, error: type[GraftlineError], said: str
) -> None:
    if content is None:
        (export / EXPORT_FILE).unlink()
    else:
        (export / EXPORT_FILE).write_text(content)
    with pytest.raises(error, match=said):
        read_export(export)


def test_another_model_is_refused(export: Path) -> None:
    (export / MODEL_FILE).write_bytes(b"another")
    with pytest.raises(IntegrityError, match="is not the file that was compared"):
        read_export(export)
    assert json.loads((export / EXPORT_FILE).read_text())["schema_version"] == 1


@pytest.mark.parametrize(
    ("images", "fraction", "said"),
    [
        (45, 1.0, "all 45 test images"),
        (1, 1.0, "1 of 1 test image"),
        (1300, 1299 / 1300, "1,299 of 1,300 test images"),
        (30000, 29999 / 30000, "29,999 of 30,000 test images"),  # no 100.00%
    ],
)
def test_agreement_is_a_count(images: int, fraction: float, said: str) -> None:
    assert agreement(images, fraction) == said
