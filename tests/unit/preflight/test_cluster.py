"""``check --cluster``: what would be refused is a problem, what only the cluster sees is a note."""

from pathlib import Path

import pytest

from graftline.errors import ConfigurationError, StoreUnreachable, TrackingUnreachable, WeightsError
from graftline_pipelines.preflight import cluster
from graftline_pipelines.preflight.report import Preflight
from graftline_pipelines.runfile.load import load_values

REMOTE = {
    "name": "a",
    "data": {"source": "s3://b/images"},
    "store": "s3://b/store",
    "tracking": {"uri": "http://mlflow.graftline:5000"},
    "images": {"registry": "registry.example.com/ml"},
}


def found_by(
    values: dict, monkeypatch: pytest.MonkeyPatch, *problems: tuple[str, Exception]
) -> Preflight:
    found = Preflight(problems=list(problems))
    monkeypatch.setattr(cluster, "examine", lambda *_: found)
    return cluster.examine_for_cluster(load_values(values), "train", registry=False)


def test_paths_that_no_pod_sees_are_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    found = found_by({"name": "a", "data": {"source": str(Path.cwd())}}, monkeypatch)
    said = "\n".join(str(error) for _, error in found.problems)
    for part in ("data.source", "store", "tracking.uri", "images.registry"):
        assert part in said


def test_what_does_not_answer_from_here_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    found = found_by(
        REMOTE,
        monkeypatch,
        ("store", StoreUnreachable("no bucket here")),
        ("tracking.uri", TrackingUnreachable("no MLflow here")),
    )
    assert found.problems == []
    said = [text for _, text in found.notes]
    assert "no bucket here" in said[0] and "no MLflow here" in said[1]
    assert "pipeline" in found.facts and "nothing was sent" in found.facts["a run would"]


def test_other_problems_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    problems = (("backbone", WeightsError("none")), ("data.source", ConfigurationError("wrong")))
    assert found_by(REMOTE, monkeypatch, *problems).problems == list(problems)
