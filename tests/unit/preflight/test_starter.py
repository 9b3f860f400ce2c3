"""A run file from a look at the images: judged by the reader of run files and by YAML itself."""

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from graftline.errors import ConfigurationError, DataError, StoreError
from graftline_pipelines.cli.main import app
from graftline_pipelines.preflight.starter import name_of, starter
from graftline_pipelines.runfile.load import load


def folders(root: Path, **counts: int) -> Path:
    for name, count in counts.items():
        folder = root / name
        folder.mkdir(parents=True)
        for number in range(count):
            (folder / f"{number}.png").write_bytes(b"\x89PNG")
    return root


def test_what_is_found_stands_in_a_file_that_can_be_read(tmp_path: Path) -> None:
    source = folders(tmp_path / "My Flowers 2", rose=300, daisy=12)
    made = starter(str(source))
    assert made.problem is None and made.name == "my-flowers-2"
    (tmp_path / "run.yaml").write_text(made.text)
    settings = load(tmp_path / "run.yaml")
    assert settings.data.source == str(source) and settings.strategy == "auto"
    assert settings == type(settings).model_validate(
        {"name": "my-flowers-2", "data": {"source": str(source)}}
    )
    comments = [line for line in made.text.splitlines() if line.startswith("#")]
    text = re.sub(r"\s*\n# *", " ", "\n".join(comments))
    assert "rose (300), daisy (12)" in text and "each folder is a class" in text
    assert "Few images: 'daisy' has 12" in text and "25 times as many" in text


def test_hostile_names_stay_comments(tmp_path: Path) -> None:
    source = folders(tmp_path / "a: b # c", **{"x\nstore: /evil": 5, "y\r\x85name: evil": 5})
    made = starter(str(source))
    assert set(yaml.safe_load(made.text)) == {
        *("name", "data", "store", "tracking", "backbone", "strategy", "gate")
    }
    assert yaml.safe_load(made.text)["data"]["source"] == str(source)
    assert "evil" not in str(yaml.safe_load(made.text))


@pytest.mark.parametrize(
    ("source", "store"),
    [
        ("s3://b/flowers/", "s3://b/graftline"),
        ("s3://b/graftline/flowers", "s3://b/graftline-store"),
        ("s3://b", ".graftline/store"),
    ],
)
def test_store_is_not_among_the_images(
    source: str, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graftline_pipelines.preflight.starter._look", lambda settings: ([], None))
    assert yaml.safe_load(starter(source).text)["store"] == store


@given(st.text(max_size=100))
def test_every_source_has_a_name(text: str) -> None:
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", name_of(f"/data/{text}"))
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", name_of(text))


def test_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "My_Data").mkdir()
    monkeypatch.chdir(tmp_path / "My_Data")
    assert name_of("photos/") == "photos" and name_of("s3://bucket") == "bucket"
    assert name_of("Dög späce") == "dog-space" and name_of("Vögel.csv") == "vogel"
    assert name_of("a/labels.csv") == "labels" and name_of(".") == "my-data"


def test_nothing_is_written_for_an_empty_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "flowers").mkdir()
    monkeypatch.chdir(tmp_path)
    answer = CliRunner().invoke(app, ["init", "flowers"])
    assert isinstance(answer.exception, DataError) and "is empty" in str(answer.exception)
    assert not (tmp_path / "flowers.yaml").exists()  # it would stand in the way later


def test_a_problem_is_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folders(tmp_path / "photos", rose=300)
    done = CliRunner().invoke(app, ["init", "photos"])
    assert done.exit_code == 1 and "at least two classes" in done.output
    text = (tmp_path / "photos.yaml").read_text()
    assert "A run would stop" in text and load(tmp_path / "photos.yaml").name == "photos"


def test_nothing_is_overwritten_and_nothing_is_written_without_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folders(tmp_path / "photos", rose=30, daisy=30)
    done = CliRunner().invoke(app, ["init", "photos", "-o", "run.yaml"])
    assert done.exit_code == 0 and "graftline check run.yaml" in done.output
    before = (tmp_path / "run.yaml").read_bytes()
    done = CliRunner().invoke(app, ["init", "photos", "-o", "run.yaml"])
    assert isinstance(done.exception, ConfigurationError)
    assert (tmp_path / "run.yaml").read_bytes() == before
    for source, options in (("nowhere", []), ("s3://", []), ("photos", ["--name", "No Name"])):
        done = CliRunner().invoke(app, ["init", source, *options])
        assert isinstance(done.exception, (ConfigurationError, StoreError)), done.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "run.yaml"]


def test_a_table_of_other_columns_gets_a_file_to_name_them_in(tmp_path: Path) -> None:
    folders(tmp_path / "photos", a=12, b=12)
    rows = [f"photos/{label}/{number}.png,{label}" for label in "ab" for number in range(12)]
    (tmp_path / "list.csv").write_text("\n".join(["file,kind", *rows]))
    made = starter(str(tmp_path / "list.csv"))
    assert isinstance(made.problem, ConfigurationError) and not made.empty
    assert "no columns 'image' and 'label'" in str(made.problem)
    text = made.text.replace("# image_column: path", "image_column: file")
    (tmp_path / "run.yaml").write_text(
        text.replace("# label_column: category", "label_column: kind")
    )
    data = load(tmp_path / "run.yaml").data
    assert (data.image_column, data.label_column) == ("file", "kind")
    (tmp_path / "empty.csv").touch()
    assert starter(str(tmp_path / "empty.csv")).empty  # nothing that a key could correct


def test_a_table_whose_files_are_not_there_is_told_about_its_paths(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("image,label\ngone/0.png,a\n")
    problem = starter(str(tmp_path / "list.csv")).problem
    assert problem is not None and "the only file was rejected: file not found (1)" in str(problem)
    assert (problem.fix or "").startswith("Correct the paths in the table")


def test_names_keep_to_their_line_and_one_is_singular(tmp_path: Path) -> None:
    folders(tmp_path / "x" / "rose\nred", inside=6)
    folders(tmp_path / "x" / "daisy", inside=6)
    text = "\n".join(starter(str(tmp_path / "x")).found)
    assert "inside below it means nothing" in text and "rose red/  class" in text
