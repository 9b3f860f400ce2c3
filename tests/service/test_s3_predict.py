"""Batch prediction and evaluation from a bucket into a bucket, as a pod does it."""

import io
import json
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

import graftline
from graftline.errors import StoreError
from graftline.onnx_model.predict import OnnxClassifier
from graftline.steps.predict.config import PredictConfig
from graftline.steps.predict.step import run
from graftline_pipelines.cli.main import app
from graftline_pipelines.preflight.prediction import ask_prediction
from graftline_pipelines.runfile.load import load_values


def png(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (24, 20, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def model(exported_model: tuple[Any, ...]) -> Path:
    return Path(exported_model[2].onnx)


@pytest.fixture
def bucket(s3_bucket: str, model: Path) -> str:
    client, name = boto3.client("s3"), s3_bucket.removeprefix("s3://")
    classes = OnnxClassifier(model).classes
    for number in range(30):
        key = f"new/{classes[number % 3]}/{number:02}.png"
        client.put_object(Bucket=name, Key=key, Body=png(number))
    client.put_object(Bucket=name, Key="new/cat/broken.png", Body=b"\x89PNG")
    client.put_object(Bucket=name, Key="new/readme.txt", Body=b"x")
    rows = f"image\nnew/cat/00.png\n{s3_bucket}/new/dog/01.png\nnew/cat/none.png\n"
    client.put_object(Bucket=name, Key="list.csv", Body=rows.encode())
    return s3_bucket


def read(uri: str) -> list[dict[str, Any]]:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    body = boto3.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
    rows: list[dict[str, Any]] = pq.read_table(io.BytesIO(body)).to_pylist()
    return rows


def test_prefix_to_parquet_in_the_bucket(bucket: str, model: Path, tmp_path: Path) -> None:
    out = f"{bucket}/answers/a.parquet"
    result = run(model=model, sources=[f"{bucket}/new"], output=out, config=PredictConfig(top=2))
    assert (result.images, result.failed, result.skipped) == (31, 1, 1)
    rows = read(out)
    assert [row["image"] for row in rows] == sorted(row["image"] for row in rows)
    for row in rows:
        if row["image"].endswith("broken.png"):
            assert row["label"] is None and row["error"]
            continue
        number = int(row["image"][-6:-4])
        (tmp_path / "one.png").write_bytes(png(number))
        (alone,) = OnnxClassifier(model).predict([tmp_path / "one.png"], top=2)
        assert (row["label"], row["label_2"]) == (alone.top[0][0], alone.top[1][0])


def test_table_and_command(bucket: str, model: Path) -> None:
    out = f"{bucket}/b.parquet"
    done = CliRunner().invoke(
        app, ["predict", str(model), f"{bucket}/list.csv", "-o", out, "--json"]
    )
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    # Kinds of reasons: the address of the one that is missing is in its row.
    assert said["images"] == 3 and said["reasons"] == {"file not found": 1}
    assert [bool(row["error"]) for row in read(out)] == [False, False, True]


def test_evaluate_on_a_bucket(bucket: str, model: Path) -> None:
    found = graftline.evaluate(model, f"{bucket}/new")
    assert found.images == 30 and sum(found.left_out.values()) >= 1
    assert found.confusion.sum() == 30


def test_a_bucket_that_is_not_there(bucket: str, model: Path, tmp_path: Path) -> None:
    for source, output in (
        ("s3://no-such-bucket-anywhere/x", str(tmp_path / "a.csv")),
        (f"{bucket}/new", "s3://no-such-bucket-anywhere/a.csv"),
    ):
        with pytest.raises(StoreError, match=r"^s3://no-such-bucket-anywhere: there is no such"):
            run(model=model, sources=[source], output=output)
    assert list(tmp_path.iterdir()) == []


def test_what_is_missing_is_said_before_a_pod_is_started(
    bucket: str, mlflow_sqlite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_values(
        {
            "name": "birds",
            "data": {"source": f"{bucket}/new"},
            "store": f"{bucket}/store",
            "tracking": {"uri": mlflow_sqlite},
        }
    )

    def ask(source: str, output: str) -> list[str]:
        problems, notes = ask_prediction(settings, {"source": source, "output": output})
        assert problems[0].startswith("tracking.registered_model: MLflow has no registered model")
        return [*problems[1:], *notes]

    assert ask(f"{bucket}/new", f"{bucket}/a.csv") == []  # nothing has to be there yet
    said = ask(f"{bucket}/none", "s3://no-such-bucket-anywhere/a.csv")
    assert said[0] == f"predict.source: There are no images in {bucket}/none. Correct the prefix."
    assert said[1].startswith("predict.output: s3://no-such-bucket-anywhere: there is no such")
    assert ask(f"{bucket}/list.csv", f"{bucket}/a.csv") == []
    boto3.client("s3").put_object(
        Bucket=bucket.removeprefix("s3://"), Key="other.csv", Body=b"file\nnew/cat/00.png\n"
    )
    assert "has no column 'image'" in ask(f"{bucket}/other.csv", f"{bucket}/a.csv")[0]
    # What the cluster sees and this machine does not is no mistake.
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://minio.invalid:9000")
    (note,) = ask(f"{bucket}/none", f"{bucket}/a.csv")
    assert "not checked from here" in note and "http://minio.invalid:9000 is not known here" in note
