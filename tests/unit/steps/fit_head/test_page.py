"""The decision page: the marked cell, pictures of suspects, the map, and hostile names."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graftline.data.snapshot import read_snapshot
from graftline.records.decision import Decision, Forecast
from graftline.steps.fit_head.page import render, write_page
from graftline.steps.fit_head.page_evidence import gather
from graftline.storage import open_store

HOSTILE = "<script>alert(1)</script>"


def decision(**changes: Any) -> Decision:
    candidate = {"family": "logistic", "scaling": "within", "C": 0.1, "accuracy": 0.9}
    candidate["interval"] = [0.8, 0.95]
    figures = {
        "classes": 4,
        "train_images": 72,
        "images_per_class": {"min": 9, "median": 18.0, "max": 27},
        "majority": 0.25,
        "knn": {"k": 5, "accuracy": 0.7},
        "probe": candidate,
        "candidates": [candidate, {**candidate, "C": 1.0, "accuracy": 0.85}],
    }
    record = Decision(
        strategy="auto",
        choice="probe",
        size="small",
        similarity="similar",
        cell="small and similar",
        advice="a linear classifier",
        figures=figures,
        thresholds={},
        reasons=["Because."],
        snapshot_id="abc",
        backbone="net",
    )
    return replace(record, **changes)


@pytest.fixture
def shown(make_snapshot: Callable[..., tuple[Path, str]]) -> Callable[[Decision], str]:
    folder, uri = make_snapshot(12, 4)
    snapshot = read_snapshot(folder)
    matrix = np.random.default_rng(0).normal(size=(len(snapshot.labels()), 8)).astype(np.float32)

    def show(record: Decision) -> str:
        suspects = record.figures.get("suspects", {}).get("images", [])
        for image, row in zip(suspects, snapshot.rows("train"), strict=False):
            image["image_id"] = snapshot.image_ids()[row]
        ids = (image["image_id"] for image in suspects)
        return render(record, snapshot, gather(snapshot, matrix, ids, open_store(uri), 0))

    return show


@pytest.mark.parametrize("size", ["small", "large"])
@pytest.mark.parametrize("similarity", ["similar", "different"])
def test_the_cell_of_this_data_is_marked(
    shown: Callable[[Decision], str], size: str, similarity: str
) -> None:
    page = shown(decision(size=size, similarity=similarity))
    assert page.count("this data</span>") == 1
    rows = re.findall(r'<th scope="row">(\w+)</th>(.*?)</tr>', page, re.DOTALL)
    marked = {
        name: [('class="here"' in cell) for cell in cells.split("<td")[1:]] for name, cells in rows
    }
    assert marked[size] == [similarity == "similar", similarity == "different"]


def test_suspects_have_their_picture_and_both_labels_and_names_stay_text(
    shown: Callable[[Decision], str],
) -> None:
    record = decision(reasons=[HOSTILE])
    image = {"source": f"0/{HOSTILE}.png", "given": HOSTILE, "likely": "1", "confidence": 0.9}
    record.figures["suspects"] = {"count": 1, "of": 24, "images": [image]}
    record.figures["hardest_pairs"] = [
        {"classes": [HOSTILE, "1"], "confused": 3, "of": 12, "share": 0.25}
    ]
    page = shown(record)
    assert HOSTILE not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; → 1" in page
    assert "1 of 24 training images are suspect" in page
    assert page.count('class="dot') == page.count("data-image=") > 20
    assert 'ring"' in page
    images = json.loads(re.search(r'id="map-images">(.*?)</script>', page, re.DOTALL)[1])  # type: ignore[index]
    assert all(uri.startswith("data:image/") for uri, _, _ in images)
    assert {label for _, label, _ in images} == {"0", "1", "2", "3"}


def test_the_curve_and_the_forecast_are_shown_where_the_record_has_them(
    shown: Callable[[Decision], str],
) -> None:
    assert "What more labels would buy" not in shown(decision())
    record = decision(
        forecast=Forecast(gain=0.02, gain_interval=(-0.01, 0.05), confidence=0.6, basis="a set")
    )
    record.figures["learning_curve"] = {
        "points": [
            {"share": 0.5, "images": 30, "accuracy": 0.7, "interval": [0.6, 0.8], "fits": 2},
            {"share": 1.0, "images": 60, "accuracy": 0.8, "interval": [0.7, 0.9], "fits": 2},
        ],
        "law": {"floor": 0.0, "scale": 2.0, "exponent": 0.5},
        "sentence": "100 more labels would buy about 2.0 points.",
    }
    page = shown(record)
    assert page.count("100 more labels would buy about 2.0 points.") == 1
    assert "+2.0 (−1.0 to +5.0)" in page


def test_a_store_that_is_gone_costs_the_page_only(
    make_snapshot: Callable[..., tuple[Path, str]], tmp_path: Path
) -> None:
    folder, _ = make_snapshot(12, 4)
    snapshot = read_snapshot(folder)
    matrix = np.ones((len(snapshot.labels()), 8), dtype=np.float32)
    gone = open_store(str(tmp_path / "gone"))
    path = tmp_path / "page.html"
    assert write_page(decision(), snapshot, matrix, gone, path, 0) is None
    assert path.read_bytes() == b""  # on a cluster, fine_tune takes the file as an input
