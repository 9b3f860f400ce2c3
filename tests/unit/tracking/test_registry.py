"""Registered models that are named and are not there: said by name, and nothing is made."""

from pathlib import Path

import pytest

from graftline.errors import ConfigurationError, TrackingError
from graftline.steps.predict.step import fetch_registered
from graftline.tracking.client import connect


def test_a_database_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="There is no database"):
        fetch_registered(f"sqlite:///{tmp_path}/none.db", "m", "champion", tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_is_not_registered_is_named(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = connect(uri)
    client.create_registered_model("m")
    for _ in range(2):
        client.create_model_version("m", source=str(tmp_path), run_id=None)
    with pytest.raises(TrackingError, match="no registered model 'other'"):
        fetch_registered(uri, "other", "champion", tmp_path)
    with pytest.raises(TrackingError, match="no registered model 'other'"):
        fetch_registered(uri, "other", "1", tmp_path)
    with pytest.raises(TrackingError, match="'m' has no champion"):
        fetch_registered(uri, "m", "champion", tmp_path)
    with pytest.raises(TrackingError, match="'m' has no version 3") as refused:
        fetch_registered(uri, "m", "3", tmp_path)
    assert refused.value.fix == "It has 1, 2."
