import json
from pathlib import Path

import pytest

from graftline.errors import IntegrityError, SchemaVersionError, StoreNotFound
from graftline.records.verdict import GateTest, Verdict, read_verdict, write_verdict


def make(promote: bool = True) -> Verdict:
    return Verdict(
        promote=promote,
        reasons=["because"],
        tests=[GateTest(name="floor", passed=promote, reason="because", figures={"accuracy": 0.9})],
        snapshot_id="s1",
        champion_name="model",
        champion_version="3",
        champion_digest="ab" * 32,
        compared_images=20,
        left_out={"the champion was trained on them": 2},
    )


@pytest.mark.parametrize("promote", [True, False])
def test_a_verdict_is_read_as_it_was_written(tmp_path: Path, promote: bool) -> None:
    verdict = make(promote)
    path = tmp_path / "folder" / "verdict.json"
    write_verdict(path, verdict)
    assert read_verdict(path) == verdict
    assert not verdict.first_model
    assert verdict.test("floor") is verdict.tests[0]
    assert verdict.test("other") is None


def test_an_older_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "verdict.json"
    write_verdict(path, make())
    content = json.loads(path.read_text())
    content["schema_version"] = 0
    path.write_text(json.dumps(content))
    with pytest.raises(SchemaVersionError, match="schema version 0"):
        read_verdict(path)


def test_a_verdict_that_contradicts_its_tests_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "verdict.json"
    write_verdict(path, make(promote=False))
    content = json.loads(path.read_text())
    content["promote"] = True
    path.write_text(json.dumps(content))
    with pytest.raises(IntegrityError, match="not a verdict"):
        read_verdict(path)
    content["tests"] = []
    path.write_text(json.dumps(content))
    with pytest.raises(IntegrityError, match="not a verdict"):
        read_verdict(path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"kind": "graftline.decision"}', "\xff"])
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "verdict.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(IntegrityError):
        read_verdict(path)
    with pytest.raises(StoreNotFound):
        read_verdict(tmp_path / "none.json")


def test_a_missing_field_is_named(tmp_path: Path) -> None:
    path = tmp_path / "verdict.json"
    write_verdict(path, make())
    content = json.loads(path.read_text())
    del content["snapshot_id"]
    path.write_text(json.dumps(content))
    with pytest.raises(IntegrityError, match="snapshot_id"):
        read_verdict(path)
