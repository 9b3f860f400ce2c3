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
