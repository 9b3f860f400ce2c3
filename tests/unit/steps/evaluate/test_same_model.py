"""The evaluation of a model that has become champion, when the same model comes again."""

from pathlib import Path

import pytest

from graftline.records.verdict import GateTest, Verdict, read_verdict, write_verdict
from graftline.steps.evaluate.same_model import CLASSIFIER_TAG, as_champion, champion_state
from graftline.steps.reuse import KeptResult, artifact_digest
from graftline.tracking.registry import RegisteredVersion


@pytest.fixture
def outputs(tmp_path: Path) -> dict[str, Path]:
    """What the evaluation of a first model wrote."""
    found = {
        "calibrated_folder": tmp_path / "calibrated",
        "verdict_file": tmp_path / "verdict",
        "report_file": tmp_path / "report",
    }
    found["calibrated_folder"].mkdir()
    (found["calibrated_folder"] / "classifier.json").write_text('{"temperature": 1.5}')
    tests = [
        GateTest(name="min_accuracy", passed=True, reason="No floor."),
        GateTest(name="better_than_majority", passed=True, reason="Better than always 'a'."),
    ]
    verdict = Verdict(
        promote=True,
        reasons=[test.reason for test in tests],
        tests=tests,
        snapshot_id="s1",
        compared_images=30,
        figures={"test": {"images": 30.0, "accuracy": 0.9, "accuracy_ci": [0.8, 0.95]}},
    )
    write_verdict(found["verdict_file"], verdict)
    found["report_file"].write_text("<html><body><h1>Evaluation</h1></body></html>")
    return found


@pytest.fixture
def kept() -> KeptResult:
    tracked = {"metrics": {"accuracy": 0.9, "promote": 1.0}, "params": {}, "files": {}}
    return KeptResult(values={"verdict": {"promote": True}}, run="run-1", tracked=tracked)


def champion(digest: str) -> RegisteredVersion:
    tags = {
        CLASSIFIER_TAG: digest,
        "graftline.snapshot_id": "s1",
        "graftline.onnx_sha256": "f" * 64,
    }
    return RegisteredVersion("digits", "7", "run", tags, "sqlite:///x.db")


def test_the_same_model_is_not_better_than_itself(
    outputs: dict[str, Path], kept: KeptResult
) -> None:
    same = champion(artifact_digest(outputs["calibrated_folder"]))
    adapted = as_champion(same)(kept, outputs)
    assert adapted is not None
    verdict = read_verdict(outputs["verdict_file"])
    assert not verdict.promote
    assert [test.name for test in verdict.tests] == ["min_accuracy", "newer"]
    assert "same label to all 30 test images" in verdict.reasons[0]
    assert (verdict.champion_name, verdict.champion_version) == ("digits", "7")
    assert (verdict.champion_digest, verdict.champion_snapshot_id) == ("f" * 64, "s1")
    assert verdict.figures["champion"] == verdict.figures["challenger"]
    assert adapted.verdict["champion"] == "7"
    assert adapted.metrics() == {"accuracy": 0.9, "promote": 0.0, "champion_accuracy": 0.9}
    page = outputs["report_file"].read_text()
    assert "run-1" in page and "version 7" in page and "<h1>Evaluation</h1>" in page


@pytest.mark.parametrize("other", [None, champion("0" * 64), champion("")])
def test_another_champion_is_compared_with(
    outputs: dict[str, Path], kept: KeptResult, other: RegisteredVersion | None
) -> None:
    before = outputs["verdict_file"].read_bytes()
    assert as_champion(other)(kept, outputs) is None
    assert outputs["verdict_file"].read_bytes() == before


def test_the_state_is_the_champion() -> None:
    assert champion_state(None) == {}
    assert champion_state(champion("a")) == {"version": "7", "digest": "f" * 64}
