"""Images that were moved by themselves: noticed, and given their memory back by one command."""

from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from graftline.errors import ConfigurationError
from graftline.steps.ingest.source_index import last_snapshot_id, memory_key
from graftline.storage import open_store
from graftline_pipelines.cli.main import app
from graftline_pipelines.preflight.data import note_unknown_source
from graftline_pipelines.preflight.report import Preflight
from graftline_pipelines.runfile.load import load


def test_the_memory_of_the_old_folder_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for label in ("a", "b"):
        folder = tmp_path / "new pictures" / label
        folder.mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(folder / "1.png")
    (tmp_path / "run.yaml").write_text(
        f"name: x\ndata: {{source: {tmp_path}/new pictures}}\nstore: {tmp_path}/store\n"
    )
    settings = load(tmp_path / "run.yaml")
    store = open_store(settings.store)
    old = (tmp_path / "old").as_uri()
    store.write(memory_key(old), b'{"schema_version": 1, "snapshot": "s1"}')

    def notes() -> list[tuple[str, str]]:
        found = Preflight()
        note_unknown_source(settings, found)
        return found.notes

    ((key, said),) = notes()
    assert key == "data.source" and "relocate RUN.yaml --source-was" in said
    wrong = CliRunner().invoke(app, ["relocate", "run.yaml", "--source-was", "none"])
    assert isinstance(wrong.exception, ConfigurationError) and "none" in str(wrong.exception)
    done = CliRunner().invoke(app, ["relocate", "run.yaml", "--source-was", "old"])
    assert done.exit_code == 0, done.output
    assert last_snapshot_id(store, (tmp_path / "new pictures").as_uri()) == "s1"
    assert notes() == []


def test_it_needs_the_run_file() -> None:
    done = CliRunner().invoke(app, ["relocate", "--source-was", "old"])
    assert isinstance(done.exception, ConfigurationError) and "run file" in str(done.exception)
