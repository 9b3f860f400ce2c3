"""A moved folder's MLflow records, judged by MLflow's own client and by SQLite."""

import shutil
import sqlite3
from pathlib import Path

import pytest

from graftline.errors import ConfigurationError, TrackingError
from graftline.steps.predict.step import fetch_registered
from graftline.tracking import relocation
from graftline.tracking.readiness import check_champion, check_ready
from graftline.tracking.registry import existing_registry, open_registry


def project(folder: Path) -> str:
    """A project with one run, its files and a registered version; its tracking URI."""
    from graftline.storage import open_store
    from graftline.tracking.client import connect
    from graftline.tracking.mlflow_run import open_tracking, start_run

    uri = f"sqlite:///{folder}/.graftline/mlflow.db"
    run_id = start_run(uri, "birds", "first")
    model = folder / "m" / "model.onnx"
    model.parent.mkdir()
    model.write_bytes(b"onnx")
    (folder / "store").mkdir()
    open_tracking(uri, run_id).files({"model": model.parent})
    source = connect(uri).get_run(run_id).info.artifact_uri + "/model"
    store = open_store(str(folder / "store"))
    registry = open_registry(uri)
    tags = {"store": store.uri, "snapshot_id": "s"}
    version = registry.register("birds", run_id=run_id, source=source, tags=tags, store=store)
    registry.promote(version, compared_with=None, verdict="v", store=store)
    return uri


def paths_in(database: Path) -> str:
    with sqlite3.connect(database) as connection:
        return "\n".join(connection.iterdump())


def test_moved_project_is_found_and_mended(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    uri = project(tmp_path / "old")
    assert relocation.find(uri) is None
    check_champion(open_registry(uri).champion("birds"))

    (tmp_path / "old").rename(tmp_path / "new name")
    uri = uri.replace("/old/", "/new name/")
    moved = relocation.find(uri)
    assert moved is not None and not moved.copied
    assert moved.before == tmp_path / "old" / ".graftline"
    assert moved.roots == (tmp_path / "old", tmp_path / "new name")
    with pytest.raises(TrackingError, match="are gone"):
        check_champion(open_registry(uri).version("birds", "1"))
    with pytest.raises(ConfigurationError, match="This folder was moved"):
        existing_registry(uri)
    assert relocation.apply(moved) >= 6
    assert relocation.find(uri) is None
    assert f"{tmp_path}/old" not in paths_in(tmp_path / "new name/.graftline/mlflow.db")

    registry = open_registry(uri)
    champion = registry.champion("birds")
    check_champion(champion)
    assert champion.download_onnx(tmp_path / "out").read_bytes() == b"onnx"
    assert [entry.kind for entry in registry.history("birds")] == ["promotion"]
    assert not (tmp_path / "old").exists()  # nobody has made it again


def test_files_that_were_removed_by_hand_are_said(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    uri = project(tmp_path / "own")
    fetched = fetch_registered(uri, "birds", "champion", tmp_path / "one")
    assert fetched.read_bytes() == b"onnx"
    for path in (tmp_path / "own").rglob("model.onnx"):
        path.unlink()
    with pytest.raises(TrackingError, match="The files of birds version 1 are gone"):
        fetch_registered(uri, "birds", "1", tmp_path / "two")
    with pytest.raises(TrackingError, match="The files of the champion, birds version 1, are gone"):
        check_champion(open_registry(uri).champion("birds"))


def test_copy_is_changed_only_on_request(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    uri = project(tmp_path / "old")
    shutil.copytree(tmp_path / "old", tmp_path / "copy")
    before = paths_in(tmp_path / "old/.graftline/mlflow.db")
    moved = relocation.find(uri.replace("/old/", "/copy/"))
    assert moved is not None and moved.copied
    assert existing_registry(uri.replace("/old/", "/copy/")).history("birds")
    with pytest.raises(ConfigurationError, match="This folder was copied"):
        existing_registry(uri.replace("/old/", "/copy/"), changing=True)
    relocation.apply(moved)
    assert f"{tmp_path}/old" not in paths_in(tmp_path / "copy/.graftline/mlflow.db")
    assert paths_in(tmp_path / "old/.graftline/mlflow.db") == before


def test_files_that_did_not_come_along_stay_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    uri = project(tmp_path / "old")
    (tmp_path / "new").mkdir()
    (tmp_path / "old/.graftline").rename(tmp_path / "new/.graftline")
    moved = relocation.find(uri.replace("/old/", "/new/"))
    assert moved is not None
    relocation.apply(moved)
    text = paths_in(tmp_path / "new/.graftline/mlflow.db")
    assert f"{tmp_path}/old/store" in text and f"{tmp_path}/old/.graftline" not in text


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "postgresql://a/b", "sqlite:///none.db"])
def test_servers_and_new_databases_are_left_alone(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert relocation.find(uri) is None
    relocation.check_writable(uri)
    assert list(tmp_path.iterdir()) == []


def test_damaged_and_locked_databases_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = tmp_path / "bad.db"
    bad.write_bytes(b"no database at all, by no means" * 40)
    with pytest.raises(TrackingError, match="backup"):
        check_ready(f"sqlite:///{bad}", "a", "a")
    good = tmp_path / "good.db"
    monkeypatch.setattr(relocation, "BUSY_SECONDS", 0.1)
    with sqlite3.connect(good) as other:
        other.execute("CREATE TABLE t (x)")
        other.commit()
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(TrackingError, match="Another program"):
            relocation.check_writable(f"sqlite:///{good}")


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Databases as a user opens them who may not write to them; root may always."""
    connect = sqlite3.connect

    def opened(database: Path, **options: object) -> sqlite3.Connection:
        return connect(f"file:{database}?mode=ro", uri=True, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(sqlite3, "connect", opened)


def database(tmp_path: Path) -> str:
    path = tmp_path / "mlflow.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE runs (id)")
    return f"sqlite:///{path}"


def test_a_database_that_cannot_be_written_to_is_refused_before_a_run(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    uri = database(tmp_path)
    relocation.check_writable(uri)
    relocation.check_readable(uri)
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("runs",)]
    request.getfixturevalue("read_only")
    relocation.check_readable(uri)
    with pytest.raises(TrackingError, match=r"cannot be used") as refused:
        relocation.check_writable(uri)
    assert "readonly" in str(refused.value) and "writable" in str(refused.value)


def test_a_database_that_cannot_be_opened_is_refused_at_once(tmp_path: Path) -> None:
    uri = database(tmp_path)
    (tmp_path / "mlflow.db").write_bytes(b"no database" * 100)
    with pytest.raises(TrackingError, match="cannot be used"):
        existing_registry(uri)
