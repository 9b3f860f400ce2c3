"""What a run was asked to do and on which data, read back with MLflow's own client."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from graftline.tracking.mlflow_run import start_run
from graftline.tracking.registry import LONGEST_DESCRIPTION, _cut
from graftline.tracking.run_record import flattened, record_dataset, record_settings
from graftline_pipelines.runfile.settings import RunSettings


@dataclass
class Ingested:
    snapshot_id: str = "0f646c047d72a152b0fddc8d33d31358"
    images: Mapping[str, int] = field(default_factory=lambda: {"train": 8, "test": 2})
    classes: tuple[str, ...] = ("a", "b")


def test_the_whole_run_file_is_there_and_nothing_private(mlflow_sqlite: str) -> None:
    from mlflow import MlflowClient

    settings = RunSettings.model_validate(
        {
            "name": "digits",
            "data": {"source": "s3://bucket/digits", "exclude": [f"**/{n}/*" for n in range(200)]},
            "store": "s3://bucket/store",
            "tracking": {"uri": mlflow_sqlite},
        }
    ).model_dump(mode="json")
    settings["cluster"]["variables"]["PROXY"] = "http://me:word@proxy"  # a run file may not hold it
    run_id = start_run(mlflow_sqlite, "digits", "run")
    options = {"uri": mlflow_sqlite, "settings": settings, "where": "local"}
    record_settings(options, run_id)
    record_dataset(options, run_id, "s3://bucket/digits", Ingested())

    run = MlflowClient(mlflow_sqlite).get_run(run_id)
    params = run.data.params
    assert params["data.source"] == "s3://bucket/digits"
    assert params["backbone"] == "tf_efficientnet_lite0"
    assert params["gate.max_ece"] == str(settings["gate"]["max_ece"])
    assert params["data.split.val"] == "0.15"
    assert len(params) == len(flattened(settings)) > 100  # more than one request takes
    assert all(len(text) <= 500 for text in params.values())
    assert "word" not in json.dumps(params)
    assert params["cluster.variables.PROXY"] == "***"
    tags = run.data.tags
    assert tags["mlflow.source.name"] == "graftline digits"
    assert tags["mlflow.source.type"] == "LOCAL"
    assert tags["graftline.store"] == "s3://bucket/store"
    assert tags["graftline.snapshot_id"] == Ingested.snapshot_id
    (given,) = run.inputs.dataset_inputs
    assert (given.dataset.name, given.dataset.digest) == ("digits", Ingested.snapshot_id)
    assert (given.dataset.source_type, given.tags[0].value) == ("s3", "training")
    assert json.loads(given.dataset.source) == {"uri": "s3://bucket/digits"}
    assert json.loads(given.dataset.profile) == {"train": 8, "test": 2, "classes": 2}


def test_a_server_that_is_away_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    options = {"uri": "http://127.0.0.1:9", "settings": {"name": "digits", "data": {"source": "x"}}}
    with caplog.at_level("INFO"):
        record_settings(options, "0" * 32)
        record_dataset(options, "0" * 32, "x", Ingested())
    assert "is not in MLflow" in caplog.text


def test_without_a_run_file_nothing_is_recorded(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody listens there: whoever tried to record would be told so."""
    with caplog.at_level("INFO"):
        record_settings({"uri": "http://127.0.0.1:9"}, "0" * 32)
    assert not caplog.text


def test_keys_are_those_of_the_run_file() -> None:
    settings = {"a": {"b": 1, "c": {"d": None}}, "e": [1, "x"], "f": {}, "g": "text"}
    assert flattened(settings) == {
        "a.b": "1",
        "a.c.d": "null",
        "e": '[1, "x"]',
        "f": "{}",
        "g": "text",
    }


def test_a_long_card_is_cut_at_a_line() -> None:
    assert _cut(None) is None
    assert _cut("# Card") == "# Card"
    cut = _cut("a line of the card\n" * 500)
    assert cut is not None and len(cut) <= LONGEST_DESCRIPTION
    assert cut.split("\n\n")[0].endswith("a line of the card") and "MODEL_CARD.md" in cut
