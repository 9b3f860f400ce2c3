"""What MLflow would refuse late is refused early, by MLflow's own judgement."""

from pathlib import Path

import pytest

from graftline.errors import ConfigurationError, TrackingError
from graftline.tracking.client import connect
from graftline.tracking.readiness import check_names, check_ready


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    found = f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"
    connect(found)
    return found


@pytest.mark.parametrize("name", ["a/b", "a:b", " ", "..", "x" * 257])
def test_model_names_that_mlflow_refuses(name: str, uri: str) -> None:
    with pytest.raises(ConfigurationError, match=r"tracking\.registered_model"):
        check_ready(uri, "e", name)
    client = connect(uri)
    if len(name) <= 256:  # SQLite does not keep to the width of its columns; other databases do
        with pytest.raises(Exception, match=r"(?i)name"):
            client.create_registered_model(name)


@pytest.mark.parametrize("name", ["a", "birds of prey", "Größe-1_x", "x" * 256])
def test_model_names_that_mlflow_takes(name: str, uri: str) -> None:
    check_names("e", name)
    connect(uri).create_registered_model(name)


def test_experiment_name(uri: str) -> None:
    with pytest.raises(ConfigurationError, match=r"tracking\.experiment"):
        check_names("e" * 501, "m")


def test_a_database_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    check_ready(f"sqlite:///{tmp_path}/new/mlflow.db", "e", "m")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(TrackingError, match=r"mlflow\.db cannot be made"):
        check_ready(f"sqlite:///{tmp_path}/file/mlflow.db", "e", "m")


def test_nothing_is_written(uri: str) -> None:
    check_ready(uri, "new", "new")
    client = connect(uri)
    assert client.get_experiment_by_name("new") is None
    assert not [m for m in client.search_registered_models() if m.name == "new"]


def test_deleted_experiment(uri: str) -> None:
    client = connect(uri)
    client.delete_experiment(client.create_experiment("gone"))
    with pytest.raises(TrackingError, match="was deleted"):
        check_ready(uri, "gone", "m")


def test_files_that_cannot_be_written(uri: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    connect(uri).create_experiment("away", f"file://{tmp_path}/file/files")
    with pytest.raises(TrackingError, match="cannot be written"):
        check_ready(uri, "away", "m")
    check_ready(uri, "away", "m", moved=True)
