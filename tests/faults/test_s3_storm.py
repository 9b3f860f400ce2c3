"""Ingest over a network that spoils three of ten requests, 200 times."""

import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.service.fault_proxy import FaultProxy

from graftline.data.snapshot import fetch_snapshot, read_images
from graftline.errors import StoreError
from graftline.steps.ingest.step import run
from graftline.storage import open_store
from graftline.storage._s3_client import PATIENCE_VARIABLE

COUNT = 12


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for number in range(COUNT):
        path = folder / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return folder


QUARTERS = [(first, 50) for first in (0, 50, 100, 150)]  # most of the time is waiting: side by side


@pytest.mark.parametrize(
    ("first", "runs"),
    [(1000, 8), *(pytest.param(*each, marks=pytest.mark.slow) for each in QUARTERS)],
)
@pytest.mark.timeout(1500)
def test_a_spoilt_network_costs_requests_and_never_data(
    images: Path,
    s3_server: str,
    s3_bucket: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Any,
    first: int,
    runs: int,
) -> None:
    monkeypatch.setenv(PATIENCE_VARIABLE, "8")
    with FaultProxy(s3_server, stall_seconds=9) as proxy:

        def ingest(store: str, name: str) -> str:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
                place = tmp_path / name
                return run(source=str(images), store=store, snapshot_folder=place).snapshot_id

        expected = ingest(f"{s3_bucket}/undisturbed", "undisturbed")
        undisturbed = len(proxy.lines)
        ends: Counter[str] = Counter()
        asked = 0
        for number in range(first, first + runs):
            proxy.storm = random.Random(number)
            proxy.lines.clear()
            store, found = f"{s3_bucket}/run-{number}", ""
            try:
                found = ingest(store, f"run-{number}")
            except StoreError as error:
                assert error.fix, number
                ends[type(error).__name__] += 1
            else:
                assert found == expected, number
                ends["done"] += 1
            asked += len(proxy.lines)
            proxy.storm = None
            if ends.total() % 10 == 0 and found == expected:  # what is there is whole
                snapshot = fetch_snapshot(open_store(store), expected, tmp_path / f"see-{number}")
                assert len(list(read_images(snapshot, snapshot.rows()))) == COUNT
    assert asked <= 3 * runs * undisturbed, (asked / runs, undisturbed)
    assert ends["done"] > 0.5 * runs, ends
    record_property("points", runs)
    record_property("ends", dict(ends))
    record_property("requests", asked / runs / undisturbed)
