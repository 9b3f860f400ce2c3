"""The time that MLflow's client is given."""

import os

import pytest

from graftline.tracking.client import time_to_store

TIMEOUT = "MLFLOW_HTTP_REQUEST_TIMEOUT"


def waited_for(path):
    with time_to_store(path):
        return int(os.environ[TIMEOUT])


def test_a_large_file_gets_the_time_that_its_server_needs_to_store_it(tmp_path, monkeypatch):
    monkeypatch.setenv(TIMEOUT, "16")
    (tmp_path / "report.html").write_text("small")
    small = waited_for(tmp_path)
    with (tmp_path / "model.onnx").open("wb") as file:
        file.truncate(2 * 1024**3)  # sparse
    assert small == 16
    # At 10 MB a second a file of 2 GiB takes 215 s.
    assert waited_for(tmp_path) > 215
    assert waited_for(tmp_path / "model.onnx") > 215
    assert os.environ[TIMEOUT] == "16"


def test_the_users_own_time_comes_back_after_a_failed_upload(tmp_path, monkeypatch):
    monkeypatch.setenv(TIMEOUT, "300")
    with pytest.raises(OSError, match="gone"), time_to_store(tmp_path):
        raise OSError("gone")
    assert os.environ[TIMEOUT] == "300"
