"""Batch prediction, judged by the same model image by image, and by pandas-free readers."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from graftline.errors import ConfigurationError, StoreUnreachable, TrackingError
from graftline.onnx_model import bulk
from graftline.onnx_model.predict import OnnxClassifier
from graftline.steps.predict.config import PredictConfig
from graftline.steps.predict.inputs import find_images
from graftline.steps.predict.output import open_table
from graftline.steps.predict.step import run, run_registered
from graftline_pipelines.cli.main import app


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 images of mixed sizes in two folders, one broken, one empty, and files that are none."""
    folder = tmp_path_factory.mktemp("data") / "photos"
    random = np.random.default_rng(3)
    for number in range(40):
        side = (20, 33, 48)[number % 3]
        pixels = random.integers(0, 256, (side, 30, 3), dtype=np.uint8)
        path = folder / ("a" if number % 2 else "b/c") / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    (folder / "a" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut")
    (folder / "a" / "empty.png").write_bytes(b"")
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden.png").write_bytes(b"x")
    return folder


@pytest.fixture(scope="module")
def model(exported_model: tuple) -> Path:
    return Path(exported_model[2].onnx)


def names(*inputs: str) -> list[str]:
    return [item.name for item in find_images(inputs).items]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_folder_to_csv_is_what_each_image_gives_alone(
    model: Path, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "answers.csv"
    config = PredictConfig(top=2, probabilities=True)
    result = run(model=model, sources=[str(photos)], output=str(out), config=config)
    assert (result.images, result.failed, result.skipped) == (42, 2, 1)
    found = rows(out)
    assert [row["image"] for row in found] == sorted(
        str(path)
        for path in photos.rglob("*")
        if path.suffix in (".png", ".jpg")
        if not path.name.startswith(".")
    )
    classifier = OnnxClassifier(model)
    for row in found:
        if Path(row["image"]).name in ("broken.jpg", "empty.png"):
            assert row["label"] == "" and row["error"]
            continue
        (alone,) = classifier.predict([row["image"]], top=2)
        assert (row["label"], row["label_2"]) == (alone.top[0][0], alone.top[1][0])
        assert float(row["probability"]) == pytest.approx(alone.probability, abs=1e-5)
        given = [float(row[f"p({name})"]) for name in classifier.classes]
        assert sum(given) == pytest.approx(1, abs=1e-4) and row["error"] == ""
    assert sum(result.classes.values()) == 40


def test_parquet_holds_the_same(
    model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graftline.steps.predict.output.ROW_GROUP", 7)
    monkeypatch.setattr(bulk, "CHUNK", 5)
    run(model=model, sources=[str(photos)], output=str(tmp_path / "a.csv"))
    run(model=model, sources=[str(photos)], output=str(tmp_path / "a.parquet"))
    table = pq.read_table(tmp_path / "a.parquet").to_pylist()
    for row, other in zip(rows(tmp_path / "a.csv"), table, strict=True):
        assert row["image"] == other["image"] and (row["label"] or None) == other["label"]
        assert (row["error"] or None) == other["error"]
        if other["probability"] is not None:
            assert float(row["probability"]) == pytest.approx(other["probability"], rel=1e-4)
    assert sorted(os.listdir(tmp_path)) == ["a.csv", "a.parquet"]  # no half-written files


def test_a_name_that_is_no_text_is_escaped_in_the_table(model: Path, tmp_path: Path) -> None:
    """Names from before UTF-8, as old archives bring them; the terminal escapes them alike."""
    picture = os.fsencode(tmp_path / "photos") + b"/K\xe4se.png"
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (20, 20)).save(tmp_path / "x.png")
    os.rename(tmp_path / "x.png", picture)
    source = str(tmp_path / "photos")
    for out in ("a.csv", "a.parquet"):
        run(model=model, sources=[source], output=str(tmp_path / out))
    (row,) = pq.read_table(tmp_path / "a.parquet").to_pylist()
    with (tmp_path / "a.csv").open() as stream:
        (line,) = csv.DictReader(stream)
    assert row["image"] == line["image"] == f"{source}/K\\udce4se.png"
    assert row["label"] == line["label"]


def test_a_name_cannot_steer_the_terminal(model: Path, tmp_path: Path) -> None:
    for name in ("a\nb.png", "\x1b[2Jc.png"):
        Image.new("RGB", (20, 20)).save(tmp_path / name)
    (tmp_path / "\x1b[2Jd.png").write_bytes(b"")
    done = CliRunner().invoke(app, ["predict", str(model), str(tmp_path)])
    assert "\x1b" not in done.output and len(done.stdout.splitlines()) == 2
    for name in ("a\\nb.png", "\\x1b[2Jc.png", "\\x1b[2Jd.png: the file is empty."):
        assert f"{tmp_path}/{name}" in done.output


def test_patterns_tables_and_files(photos: Path, tmp_path: Path) -> None:
    assert len(names(str(photos / "*" / "*.png"))) == 21
    assert len(names(str(photos / "**" / "*.png"))) == 41
    assert names(str(photos / "a" / "01.png")) == [str(photos / "a" / "01.png")]
    (photos.parent / "list.csv").write_text(
        f"image,other\nphotos/a/01.png,1\n{photos}/a/03.png,2\n,3\nhttp://x/y.png,4\n"
        "photos/a/none.png,5\n"
    )
    found = find_images([str(photos.parent / "list.csv")]).items
    assert [item.name for item in found] == [
        *("photos/a/01.png", f"{photos}/a/03.png", "row 4", "http://x/y.png"),
        "photos/a/none.png",
    ]
    assert found[0].read() == (photos / "a" / "01.png").read_bytes() == found[0].read()
    assert found[1].read() == (photos / "a" / "03.png").read_bytes()
    with pytest.raises(ConfigurationError, match="no images"):
        names(str(tmp_path))
    with pytest.raises(ConfigurationError, match="no images"):
        names(str(tmp_path / "*.png"))
    with pytest.raises(Exception, match=r"(?s)no column 'picture'.*'image'"):
        find_images([str(photos.parent / "list.csv")], "picture")


def test_a_bad_row_of_a_table_has_its_reason(model: Path, photos: Path, tmp_path: Path) -> None:
    table = photos.parent / "rows.csv"
    table.write_text("image\nphotos/a/01.png\nphotos/a/none.png\nhttp://x/y.png\n../../etc\n")
    run(model=model, sources=[str(table)], output=str(tmp_path / "a.csv"))
    errors = [row["error"] for row in rows(tmp_path / "a.csv")]
    assert errors[0] == "" and all(errors[1:])
    assert "kind that cannot be read" in errors[2]


def test_a_store_that_goes_away_ends_it_and_leaves_no_table(model: Path, tmp_path: Path) -> None:
    def gone() -> bytes:
        raise StoreUnreachable("away")

    classifier = OnnxClassifier(model)
    with (
        pytest.raises(StoreUnreachable),
        open_table(str(tmp_path / "a.csv"), ["x"], 1, probabilities=False) as table,
    ):
        for answers in bulk.predict_many(classifier, [("a", gone)]):
            table.write(answers)
    assert list(tmp_path.iterdir()) == []


def test_little_is_read_ahead_of_the_model(model: Path, photos: Path) -> None:
    read: list[int] = []
    data = (photos / "a" / "01.png").read_bytes()

    def image(number: int) -> bytes:
        read.append(number)
        return data

    many = ((str(n), lambda n=n: image(n)) for n in range(100_000))
    classifier = OnnxClassifier(model)
    answers = bulk.predict_many(classifier, many)
    assert [one.image for one in next(answers)] == [str(n) for n in range(bulk.CHUNK)]
    assert len(read) < 2_000
    answers.close()


def test_other_endings_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"neither \.csv nor"):
        run(model=tmp_path / "none.onnx", sources=["x"], output="a.xlsx")


def test_champion_from_the_registry(model: Path, photos: Path, tmp_path: Path) -> None:
    from graftline.storage import open_store
    from graftline.tracking.client import connect
    from graftline.tracking.mlflow_run import open_tracking, start_run
    from graftline.tracking.registry import open_registry

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    run_id = start_run(uri, "birds", "first")
    open_tracking(uri, run_id).files({"model": model.parent})
    source = connect(uri).get_run(run_id).info.artifact_uri + "/model"
    registry, store = open_registry(uri), open_store(str(tmp_path / "store"))
    version = registry.register("birds", run_id=run_id, source=source, tags={}, store=store)
    out = tmp_path / "a.csv"
    with pytest.raises(TrackingError, match="no champion"):
        run_registered(
            tracking_uri=uri,
            registered_model="birds",
            version="champion",
            source=str(photos),
            output=str(out),
        )
    registry.promote(version, compared_with=None, verdict="v", store=store)
    result = run_registered(
        tracking_uri=uri,
        registered_model="birds",
        version="champion",
        source=str(photos),
        output=str(out),
    )
    assert result.images == 42 and len(rows(out)) == 42
    done = CliRunner().invoke(
        app,
        ["predict", "models:/birds@champion", str(photos / "a/01.png"), "--tracking", uri],
    )
    assert done.exit_code == 0, done.output
    for wrong in ("models:/birds", "models:/birds@best", "models:/birds/x"):
        assert CliRunner().invoke(app, ["predict", wrong, "x.png"]).exit_code


def test_command(model: Path, photos: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "a.parquet")
    done = CliRunner().invoke(app, ["predict", str(model), str(photos), "--out", out, "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["images"], told["failed"]) == (42, 2) and sum(told["reasons"].values()) == 2
    done = CliRunner().invoke(app, ["predict", str(model), str(photos / "a"), "--json"])
    assert done.exit_code == 1  # two cannot be read, and there is no table to say so
    told = json.loads(done.stdout)
    assert len(told["predictions"]) == 20 and len(told["failed"]) == 2
    bad = str(photos / "a" / "empty.png")
    assert CliRunner().invoke(app, ["predict", str(model), bad, "--out", out]).exit_code == 1
