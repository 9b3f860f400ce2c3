"""JSON files: whole or not at all, equal bytes for equal content, and refused by name."""

import os
from pathlib import Path

import pytest

from graftline import files, schema
from graftline.errors import SchemaVersionError


def test_equal_content_gives_equal_bytes_with_keys_sorted(tmp_path: Path) -> None:
    schema.write_json(tmp_path / "a", {"b": 1, "a": [1.5]}, sort_keys=True)
    schema.write_json(tmp_path / "b", {"a": [1.5], "b": 1}, sort_keys=True)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").read_text() == '{\n "a": [\n  1.5\n ],\n "b": 1\n}\n'
    with pytest.raises(ValueError, match="JSON"):
        schema.write_json(tmp_path / "a", {"a": float("nan")})


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "a.json"
    schema.write_json(path, {"a": 1})

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    if call == "fsync":
        monkeypatch.setattr(os, "fsync", refuse)
    else:
        monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OSError, match="No space"):
        schema.write_json(path, {"a": 2})
    with pytest.raises(OSError, match="No space"), files.replacing(path) as temporary:
        temporary.write_bytes(b"3")
    monkeypatch.undo()
    assert path.read_text() == '{\n "a": 1\n}\n'
    assert list(tmp_path.iterdir()) == [path]


def test_another_version_is_refused_with_which_is_older() -> None:
    assert schema.parse_json(b'{"schema_version": 2}', 2, "It") == {"schema_version": 2}
    with pytest.raises(SchemaVersionError, match="Use the newer Graftline"):
        schema.parse_json('{"schema_version": 3}', 2, "It")
    with pytest.raises(SchemaVersionError, match="older Graftline"):
        schema.parse_json("[]", 2, "It")
    with pytest.raises(ValueError, match="Expecting"):
        schema.parse_json("{", 2, "It")
