"""The time that MLflow's client is given, and how a local database is made."""

import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from graftline.errors import ConfigurationError
from graftline.tracking.client import absolute_uri, connect, time_to_store

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


def test_two_processes_that_make_one_database_do_not_fail_each_other(tmp_path):
    """As the first two runs of a project, started together."""
    go = tmp_path / "go"
    code = (
        "import pathlib, sys, time\n"
        "import mlflow.store.tracking.sqlalchemy_store\n"
        "from graftline.tracking.client import connect\n"
        "print('ready', flush=True)\n"
        f"while not pathlib.Path({str(go)!r}).exists(): time.sleep(0.001)\n"
        f"connect('sqlite:///{tmp_path}/new/mlflow.db').search_experiments()\n"
    )
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    for one in both:
        assert one.stdout.readline() == "ready\n"
    go.touch()
    said = [one.communicate()[1] for one in both]
    assert [one.returncode for one in both] == [0, 0], said


def test_a_database_whose_making_was_killed_does_not_stand_in_the_way(tmp_path, monkeypatch):
    from mlflow.store.tracking import sqlalchemy_store

    class Killed(Exception):
        pass

    def killed(self, uri, root):
        Path(uri.removeprefix("sqlite:///")).write_bytes(b"half a database")
        raise Killed

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    with monkeypatch.context() as patched:
        patched.setattr(sqlalchemy_store.SqlAlchemyStore, "__init__", killed)
        with pytest.raises(Killed):
            connect(uri)
    (experiment,) = connect(uri).search_experiments()
    assert experiment.artifact_location == f"file://{tmp_path}/mlartifacts/0"
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]


def content_of(folder):
    """All that a new database in the folder holds, without the folder's name and the time."""
    folder.mkdir()
    connect(f"sqlite:///{folder}/mlflow.db")
    assert [path.name for path in folder.iterdir()] == ["mlflow.db"]
    with sqlite3.connect(folder / "mlflow.db") as database:
        # MLflow makes indexes and constraints in any order.
        lines = "\n".join(database.iterdump()).replace(" \n", "\n").splitlines()
    text = "\n".join(sorted(line.strip().rstrip(", ") for line in lines))
    return re.sub(r"\b\d{13}\b", "now", text).replace(str(folder), "here")


def test_a_database_from_the_kept_tables_is_what_mlflow_makes(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made = content_of(tmp_path / "first")
    assert "here/mlartifacts/0" in made
    (kept,) = (tmp_path / "cache/graftline/mlflow").iterdir()
    assert content_of(tmp_path / "second") == made
    kept.write_bytes(kept.read_bytes()[:5000])
    assert content_of(tmp_path / "third") == made


@pytest.mark.parametrize("uri", ["htp://mlflow:5000", "s3://bucket/mlflow", "wasbs://x"])
def test_a_scheme_that_mlflow_does_not_know_is_said_at_once(uri: str) -> None:
    with pytest.raises(ConfigurationError, match=uri.partition(":")[0]):
        absolute_uri(uri)


@pytest.mark.parametrize("uri", ["postgresql+psycopg2://db:5432/mlflow", "databricks://profile"])
def test_schemes_of_mlflow_pass(uri: str) -> None:
    assert absolute_uri(uri) == uri


def test_a_database_that_fails_prints_no_traceback(mlflow_sqlite, capfd):
    """MLflow logs what it raises, to the terminal; the error is told once, in our words."""
    import logging

    from mlflow.exceptions import MlflowException

    client = connect(mlflow_sqlite)
    shown = logging.StreamHandler()  # by now a test may have turned MLflow's own off
    log = logging.getLogger("mlflow.store.db.utils")
    log.addHandler(shown)
    try:
        with sqlite3.connect(mlflow_sqlite.removeprefix("sqlite:///")) as database:
            database.execute("DROP TABLE experiments")
        with pytest.raises(MlflowException):
            client.create_experiment("x")
    finally:
        log.removeHandler(shown)
    assert "Traceback" not in capfd.readouterr().err
