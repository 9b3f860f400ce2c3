"""Names with quotes in MLflow's searches: a real registry takes them."""

from pathlib import Path

import pytest
from mlflow import MlflowClient

from graftline.errors import ConfigurationError
from graftline.steps.notify import step as notify
from graftline.steps.watch import step as watch
from graftline.storage import open_store
from graftline.tracking.filters import equals
from graftline.tracking.mlflow_run import TAG


@pytest.mark.parametrize("name", ["rock 'n' roll", 'the "best"', "plain", "O'Hara"])
def test_a_name_with_quotes_is_found_and_no_other(
    mlflow_sqlite: str, tmp_path: Path, name: str
) -> None:
    client = MlflowClient(mlflow_sqlite)
    for each in (name, "other"):
        client.create_registered_model(each)
        client.create_model_version(each, str(tmp_path), tags={"content": f"of {each}"})
    found = client.search_model_versions(equals("name", name))
    assert [(version.name, version.version) for version in found] == [(name, 1)]
    both = f"{equals('name', name)} and {equals('tags.`content`', f'of {name}')}"
    assert len(client.search_model_versions(both)) == 1


def test_both_kinds_of_quotes_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="both kinds of quotes"):
        equals("name", "a'b\"c")


def test_the_notice_names_the_champion_of_a_model_with_a_quote(
    mlflow_sqlite: str, tmp_path: Path
) -> None:
    name = "O'Hara"
    client = MlflowClient(mlflow_sqlite)
    client.create_registered_model(name)
    client.create_model_version(name, str(tmp_path))
    client.set_registered_model_alias(name, "champion", "1")
    assert notify._champion(mlflow_sqlite, name) == f"The champion of {name} is version 1."


def test_a_model_with_a_quote_that_was_registered_since_the_notice_is_a_training(
    mlflow_sqlite: str, tmp_path: Path
) -> None:
    name = "O'Hara"
    client = MlflowClient(mlflow_sqlite)
    client.create_registered_model(name)
    client.create_model_version(name, str(tmp_path))
    notice = {"start": True, "when": "2020-01-01T00:00:00+00:00"}
    assert notify._promoted([], notice, mlflow_sqlite, name)


def test_the_check_for_changes_finds_the_versions_of_a_model_with_a_quote(
    mlflow_sqlite: str, tmp_path: Path
) -> None:
    name = "O'Hara"
    client = MlflowClient(mlflow_sqlite)
    client.create_registered_model(name)
    tags = {f"{TAG}code_version": "another", f"{TAG}backbone": "net"}
    client.create_model_version(name, str(tmp_path), tags=tags)
    store = open_store(str(tmp_path / "store"))
    # The newest version was trained by other code, so nothing is known to be refused.
    assert watch._refused_before({}, None, name, mlflow_sqlite, store, "net") is None
