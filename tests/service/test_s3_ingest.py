"""`ingest` from S3 into S3, over a proxy that counts what is asked and spoils some of it."""

import io
import random
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
from PIL import Image

from graftline.data.snapshot import read_images, read_snapshot
from graftline.errors import StoreAccessDenied
from graftline.steps.ingest.step import run


def png(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def bucket(s3_bucket: str) -> str:
    """A bucket with 30 images in three classes, below `images/`."""
    client = boto3.client("s3")
    for number in range(30):
        key = f"images/{'abc'[number % 3]}/{number}.png"
        client.put_object(Bucket=s3_bucket.removeprefix("s3://"), Key=key, Body=png(number))
    return s3_bucket


def images_read(proxy: Any) -> list[str]:
    """Keys of the images that were fetched since the last call."""
    found = [line.partition("/images/")[2] for line in proxy.lines]
    proxy.lines.clear()
    return sorted(key for key in found if key)


def test_second_ingest_asks_for_nothing_but_what_is_new(
    bucket: str, proxy: Any, tmp_path: Path
) -> None:
    arguments = {
        "source": f"{bucket}/images",
        "store": f"{bucket}/store",
        "snapshot_folder": tmp_path / "snapshot",
    }
    first = run(**arguments)
    assert len(images_read(proxy)) == first.fetched == 30
    again = run(**arguments)
    assert images_read(proxy) == [] and again.snapshot_id == first.snapshot_id
    client, name = boto3.client("s3"), bucket.removeprefix("s3://")
    client.put_object(Bucket=name, Key="images/a/new.png", Body=png(99))
    client.put_object(Bucket=name, Key="images/b/1.png", Body=png(98))
    client.put_object(Bucket=name, Key="images/c/2.png", Body=png(2))  # the same bytes again
    client.delete_object(Bucket=name, Key="images/a/0.png")
    proxy.lines.clear()
    more = run(**arguments)
    assert images_read(proxy) == ["a/new.png", "b/1.png"]
    assert (more.fetched, more.reused, sum(more.images.values())) == (2, 28, 30)


def test_bad_network_changes_nothing_in_the_snapshot(
    bucket: str, proxy: Any, tmp_path: Path
) -> None:
    clean = run(
        source=f"{bucket}/images", store=f"{bucket}/clean", snapshot_folder=tmp_path / "clean"
    )
    generator = random.Random(0)
    kinds = ("503", "reset", "truncate", "flip", "lost")
    proxy.faults = [
        (kind, 1) for _ in range(40) for kind in ("none", "none", generator.choice(kinds))
    ]
    result = run(
        source=f"{bucket}/images", store=f"{bucket}/store", snapshot_folder=tmp_path / "snapshot"
    )
    assert len(proxy.faults) < 80
    proxy.faults = []
    assert result.snapshot_id == clean.snapshot_id and result.set_aside == {}
    snapshot = read_snapshot(tmp_path / "snapshot")
    assert len(list(read_images(snapshot, snapshot.rows()))) == 30


def test_images_that_may_be_listed_but_not_read(bucket: str, proxy: Any, tmp_path: Path) -> None:
    proxy.only, proxy.path, proxy.faults = "GET", "/images/", [("403", 1000)]
    with pytest.raises(StoreAccessDenied, match=r"Cannot read s3://.*/images/[abc]/\d+\.png"):
        run(source=f"{bucket}/images", store=f"{bucket}/store", snapshot_folder=tmp_path / "s")
