"""What an earlier version wrote (a store, a run folder, a registry) is read and gone on from."""

import hashlib
import json
import os
import sqlite3
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graftline.classifier.bundle import bundle_digest, load_classifier, read_held_out
from graftline.data.snapshot import fetch_snapshot, read_images, read_snapshot
from graftline.features.matrix import read_features
from graftline.onnx_model.predict import OnnxClassifier
from graftline.records.decision import read_decision
from graftline.records.verdict import read_verdict
from graftline.steps.extract_features import step as extract_features
from graftline.steps.ingest import step as ingest
from graftline.storage import open_store
from graftline.tracking.champion_log import ChampionLog
from graftline.tracking.registry import open_registry

DATA = Path(__file__).parent.parent / "data" / "legacy" / "legacy.tar.xz"
MADE_IN = "/tmp/graftline-legacy"
SNAPSHOT = "97d66c17c48dc06c739980268ae20ef5"
FINGERPRINT = "80a568d63ead904a9fc923ec9576ae47"


def source_key(folder: str) -> str:
    """Where that version kept what it had seen of a source."""
    return hashlib.sha256(f"file://{folder}/images".encode()).hexdigest()[:32]


def move(folder: Path) -> None:
    """Let everything look as if it had been made in this folder."""
    old, new = source_key(MADE_IN), source_key(str(folder))
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_file() and (path.suffix in (".json", "") and path.stat().st_size < 2**20):
            text = path.read_bytes().replace(MADE_IN.encode(), str(folder).encode())
            path.write_bytes(text.replace(old.encode(), new.encode()))
        if old in path.name:
            path.rename(path.with_name(path.name.replace(old, new)))
    database = sqlite3.connect(folder / "mlflow.db")
    tables = [
        row[0] for row in database.execute("select name from sqlite_master where type='table'")
    ]
    for table in tables:
        for _, column, kind, *_ in database.execute(f"pragma table_info('{table}')").fetchall():
            if "CHAR" in kind.upper() or "TEXT" in kind.upper():
                database.execute(
                    f"update {table} set {column} = replace({column}, ?, ?) "
                    f"where {column} like '%{MADE_IN}%'",
                    (MADE_IN, str(folder)),
                )
    database.commit()
    database.close()


@pytest.fixture(scope="module")
def legacy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("legacy")
    unpacked = subprocess.run(["tar", "-xJf", str(DATA), "-C", str(folder)])
    if unpacked.returncode != 0:  # no xz on this machine; Python's rounds the times of files
        with tarfile.open(DATA) as archive:
            archive.extractall(folder, filter="data")
    move(folder)
    return folder


@pytest.fixture(scope="module")
def artifacts(legacy: Path) -> Path:
    (found,) = legacy.glob(".graftline/runs/legacy-*/artifacts/legacy-*")
    return found


@pytest.fixture(scope="module")
def tracking(legacy: Path) -> str:
    return f"sqlite:///{legacy}/mlflow.db"


def graftline(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    main = "from graftline_pipelines.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", main, *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def answer(folder: Path, *arguments: str) -> Any:
    return json.loads(graftline(folder, *arguments, "--json").stdout.splitlines()[-1])


def test_the_snapshot_and_its_images_are_read(legacy: Path, artifacts: Path) -> None:
    snapshot = read_snapshot(artifacts / "ingest" / "snapshot")
    assert (snapshot.id, len(snapshot), snapshot.classes) == (SNAPSHOT, 120, ("0", "1", "2"))
    sources = snapshot.column("source")
    for row, data in read_images(snapshot, snapshot.rows("test")):
        assert data == (legacy / "images" / sources[row]).read_bytes()
    kept = fetch_snapshot(open_store(str(legacy / "store")), SNAPSHOT, legacy / "fetched")
    assert kept.image_ids() == snapshot.image_ids()


def test_features_bundle_and_records_are_read_and_belong_together(artifacts: Path) -> None:
    features = read_features(artifacts / "extract-features" / "features")
    assert features.fingerprint == FINGERPRINT and features.matrix.shape == (120, 256)
    snapshot = read_snapshot(artifacts / "ingest" / "snapshot")
    bundle = artifacts / "evaluate" / "calibrated"
    classifier = load_classifier(bundle)
    assert classifier.snapshot_id == SNAPSHOT and classifier.classes == snapshot.classes
    assert classifier.backbone.fingerprint() == FINGERPRINT
    assert bundle_digest(bundle) and read_held_out(bundle) is not None
    rows = snapshot.rows("test")
    logits = classifier.logits_of_features(features.matrix[rows])
    verdict = read_verdict(artifacts / "evaluate" / "verdict")
    accuracy = (logits.argmax(axis=1) == snapshot.labels()[rows]).mean()
    assert verdict.promote and verdict.test("better_than_majority")
    assert verdict.figures["test"]["accuracy"] == pytest.approx(accuracy)
    decision = read_decision(artifacts / "fit-head" / "decision")
    assert (decision.choice, decision.cell) == ("probe", "small and similar")


def test_the_export_answers_as_the_bundle(legacy: Path, artifacts: Path) -> None:
    record = json.loads((artifacts / "export-onnx" / "model" / "export.json").read_text())
    model = artifacts / "export-onnx" / "model" / "model.onnx"
    assert hashlib.sha256(model.read_bytes()).hexdigest() == record["sha256"]
    snapshot = read_snapshot(artifacts / "ingest" / "snapshot")
    features = read_features(artifacts / "extract-features" / "features")
    classifier = load_classifier(artifacts / "evaluate" / "calibrated")
    rows = snapshot.rows("test")
    paths = [legacy / "images" / snapshot.column("source")[row] for row in rows]
    logits = classifier.logits_of_features(features.matrix[rows]) / classifier.temperature
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for path, row, said in zip(paths, expected, OnnxClassifier(model).predict(paths), strict=True):
        label, probability = said.top[0]
        assert label == classifier.classes[row.argmax()] == path.parent.name
        assert probability == pytest.approx(row.max(), abs=1e-3)


def test_the_registry_and_the_log_of_champions_are_read(
    legacy: Path, artifacts: Path, tracking: str, tmp_path: Path
) -> None:
    champion = open_registry(tracking).champion("legacy")
    assert champion is not None
    assert (champion.version, champion.snapshot_id) == ("1", SNAPSHOT)
    assert champion.store == f"file://{legacy}/store"
    onnx = champion.download_onnx(tmp_path)
    exported = artifacts / "export-onnx" / "model" / "model.onnx"
    assert onnx.read_bytes() == exported.read_bytes()
    (entry,) = ChampionLog(open_store(str(legacy / "store")), "legacy").entries()
    assert (entry.kind, entry.version, entry.replaced) == ("promotion", "1", None)


def test_ingest_and_extract_features_go_on_with_what_is_there(legacy: Path, tmp_path: Path) -> None:
    store = str(legacy / "store")
    taken = ingest.run(
        source=str(legacy / "images"), store=store, snapshot_folder=tmp_path / "snapshot"
    )
    assert (taken.snapshot_id, taken.fetched) == (SNAPSHOT, 0)
    result = extract_features.run(
        snapshot_folder=tmp_path / "snapshot",
        store=store,
        backbone="test_efficientnet",
        features_folder=tmp_path / "features",
        weights=str(legacy / "weights.safetensors"),
    )
    assert (result.extracted, result.reused, result.fingerprint) == (0, 120, FINGERPRINT)


def test_history_predict_and_data_on_what_is_there(
    legacy: Path, artifacts: Path, tracking: str
) -> None:
    (entry,) = answer(legacy, "history", "legacy", "--tracking", tracking)["history"]
    assert (entry["version"], entry["snapshot_id"]) == ("1", SNAPSHOT)
    model = str(artifacts / "export-onnx" / "model" / "model.onnx")
    image = str(next((legacy / "images" / "2").iterdir()))
    assert answer(legacy, "predict", model, image)["predictions"][0]["label"] == "2"
    assert answer(legacy, "data", "run.yaml")["snapshot_id"] == SNAPSHOT


def test_retrain_finds_the_data_unchanged(legacy: Path) -> None:
    said = answer(legacy, "retrain", "run.yaml")
    assert said["trained"] is False
    assert said["watch"]["champion"]["snapshot_id"] == SNAPSHOT
    assert said["watch"]["changes"]["unchanged"] == 120


@pytest.mark.slow
def test_a_run_goes_on_from_the_champion(legacy: Path, tracking: str) -> None:
    """Last: it adds to what the other tests read."""
    said = answer(legacy, "run", "run.yaml")
    assert said["snapshot_id"] == SNAPSHOT
    assert (said["extracted"], said["reused"]) == (0, 120)
    assert said["verdict"]["champion"] == "1"
    # Today's search finds another head, so it is a model of its own; it is not better.
    assert (said["registered"]["version"], said["verdict"]["promote"]) == ("2", False)
    champion = open_registry(tracking).champion("legacy")
    assert champion is not None and champion.version == "1"
