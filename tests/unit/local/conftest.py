"""Folders of runs as the steps leave them, without running anything."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from graftline.onnx_model.reference import write_reference

CLASSES = ["cat", "dog"]


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Write a run's folder.

    Args of the maker:
        name: Its id.
        test: Image id to (label, answer, group) of the test split.
        train: Image id to label of the training split.
        when: Seconds since 1970 of its start.
        written: What ``run.json`` says; no such file where it is None.
    """

    def make(
        name: str,
        *,
        test: dict[str, tuple[str, str, str]] | None = None,
        train: dict[str, str] | None = None,
        when: float = 1_000_000.0,
        written: dict[str, Any] | None = None,
        promoted: bool = True,
        failed: bool = False,
    ) -> Path:
        folder = tmp_path / "runs" / name
        (folder / "steps").mkdir(parents=True)
        rows = [
            {"image_id": i, "label": label, "split": "test", "group": group}
            for i, (label, _, group) in (test or {}).items()
        ] + [
            {"image_id": i, "label": label, "split": "train", "group": i}
            for i, label in (train or {}).items()
        ]
        snapshot = folder / "artifacts" / "x-1" / "ingest" / "snapshot"
        snapshot.mkdir(parents=True)
        if rows:
            pq.write_table(pa.Table.from_pylist(rows), snapshot / "manifest.parquet")
        labels = [row["label"] for row in rows]
        results: dict[str, Any] = {
            "ingest": {
                "snapshot_id": name,
                "images": {"train": len(train or {}), "test": len(test or {})},
                "classes": CLASSES,
                "per_class": {label: labels.count(label) for label in CLASSES},
                "set_aside": {},
            }
        }
        if failed:
            event = {"what": "Too few images.", "why": None, "fix": "Add some."}
            _events(folder, "fit_head", when, ("started", {}), ("failed", event))
        else:
            accuracy = np.mean([label == answer for label, answer, _ in (test or {}).values()])
            results["fit_head"] = {"strategy": "probe"}
            results["evaluate"] = {"test": {"images": len(test or {}), "accuracy": accuracy}}
            results["promote"] = {"version": "3", "alias": "champion" if promoted else None}
            (folder / "report.html").write_text("report")
            if test:
                given = [CLASSES.index(answer) for _, answer, _ in test.values()]
                write_reference(folder, "sha", list(test), np.eye(2, dtype=np.float32)[given])
        for step, result in results.items():
            (folder / "steps" / f"{step}.json").write_text(json.dumps(result))
            if not (failed and step == "fit_head"):
                _events(folder, step, when, ("started", {}), ("finished", {"seconds": 2.0}))
        if written is not None:
            content = {"schema_version": 1, **written}
            (folder / "run.json").write_text(json.dumps(content))
        return folder

    return make


def _events(folder: Path, step: str, when: float, *events: tuple[str, dict[str, Any]]) -> None:
    lines = [
        json.dumps({"time": when + n, "step": step, "event": event, **more})
        for n, (event, more) in enumerate(events)
    ]
    (folder / "steps" / f"{step}.events.jsonl").write_text("\n".join(lines) + "\n")
