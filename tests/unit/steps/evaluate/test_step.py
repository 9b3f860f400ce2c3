"""The step on a small real world: digit images in a store, a real network, real ONNX champions."""

import dataclasses
import hashlib
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file
from sklearn.linear_model import LogisticRegression

from graftline.classifier.bundle import (
    Classifier,
    HeldOut,
    load_classifier,
    read_held_out,
    save_classifier,
)
from graftline.data.shards import ShardWriter
from graftline.data.snapshot import MANIFEST, SET_ASIDE, Snapshot, keep_snapshot, write_snapshot
from graftline.errors import ConfigurationError, DataError
from graftline.features.matrix import Features, write_features
from graftline.inference.engine import forward_images
from graftline.models.backbone import build
from graftline.records.verdict import read_verdict
from graftline.steps.evaluate import champion as champion_module
from graftline.steps.evaluate.step import run
from graftline.storage import open_store

BACKBONE = "timm/test_resnet.r160_in1k"
SIZE = 64


@dataclasses.dataclass
class World:
    folder: Path
    snapshot: Snapshot
    store: str
    classifier: Classifier
    features: np.ndarray

    def arguments(self, name: str = "out", **more: Any) -> dict[str, Any]:
        out = self.folder / name
        return {
            "snapshot_folder": self.snapshot.folder,
            "features_folder": self.folder / "features",
            "classifier_folder": self.folder / "classifier",
            "store": self.store,
            "calibrated_folder": out / "calibrated",
            "verdict_file": out / "verdict.json",
            "report_file": out / "report.html",
            "evaluation": {"robustness_images": 0, "bootstrap": 200, "worst_mistakes": 4},
            **more,
        }


def make_world(
    folder: Path,
    digits: tuple[Any, Any],
    *,
    classes: int = 4,
    per_class: int = 40,
    rename: Callable[[int], str] = str,
    skip: int = 0,
    wreck: float = 0.0,
) -> World:
    """Digits in a store; a probe on a network of random weights.

    Args:
        skip: Leave out the first images of each class, for another snapshot of like data.
        wreck: Share of the training labels to shuffle, for a worse model.
    """
    store = open_store(str(folder / "store"))
    rows = []
    with ShardWriter(store) as writer:
        for label in range(classes):
            chosen = np.flatnonzero(digits[1] == label)[skip : skip + per_class]
            for count, index in enumerate(chosen):
                pixels = (digits[0][index] * 255 / 16).astype("uint8")
                stream = io.BytesIO()
                Image.fromarray(pixels).resize((24, 24)).save(stream, "PNG")
                data = stream.getvalue()
                image_id = hashlib.sha256(data).hexdigest()
                writer.add(image_id, data, "png", rename(label))
                split = ("train", "train", "train", "val", "test")[int(index) % 5]
                rows.append(
                    {
                        "image_id": image_id,
                        "source": f"camera-{count % 2}/{label}/{index}.png",
                        "source_version": "1",
                        "label": rename(label),
                        "split": split,
                        "group": None,
                        "width": 24,
                        "height": 24,
                        "format": "png",
                        "bytes": len(data),
                        "dhash": 0,
                        "scanner": "<b>old</b>" if count % 3 else "new",
                    }
                )
    for row in rows:
        place = writer.byte_ranges[row["image_id"]]
        row |= {"shard": place.shard, "offset": place.offset, "length": place.length}
    schema = MANIFEST.append(pa.field("scanner", pa.string()))
    aside = [
        {
            "source": "x.png",
            "label": "1",
            "reason": "not an image",
            "detail": "<i>text</i>",
            "image_id": None,
        }
    ]
    snapshot = write_snapshot(
        folder / "snapshot",
        pa.Table.from_pylist(rows, schema=schema),
        pa.Table.from_pylist(aside, schema=SET_ASIDE),
        store=store.uri,
        source="digits",
    )
    keep_snapshot(store, snapshot)
    torch.manual_seed(0)
    backbone = build(BACKBONE, weights="random", image_size=SIZE)
    from graftline.data.snapshot import read_images

    images = [data for _, data in read_images(snapshot, snapshot.rows(), store=store)]
    matrix = forward_images(
        backbone, backbone.spec.preprocessing, images, total=len(images), description="features"
    )
    write_features(
        folder / "features",
        Features(
            matrix,
            backbone.fingerprint(),
            snapshot.id,
            BACKBONE,
            "torch",
            "fp32",
            len(images),
            0,
            {},
        ),
        np.ones(len(images), dtype=bool),
    )
    classifier = probe(snapshot, backbone, matrix, wreck)
    held_out = HeldOut(
        snapshot.rows("val"), classifier.logits_of_features(matrix[snapshot.rows("val")])
    )
    save_classifier(folder / "classifier", classifier, held_out=held_out)
    return World(folder, snapshot, store.uri, classifier, matrix)


def probe(snapshot: Snapshot, backbone: Any, matrix: np.ndarray, wreck: float) -> Classifier:
    train = snapshot.rows("train")
    labels = snapshot.labels()[train].copy()
    rng = np.random.default_rng(1)
    broken = rng.random(len(labels)) < wreck
    labels[broken] = rng.permutation(labels[broken])
    mean, scale = matrix[train].mean(axis=0), matrix[train].std(axis=0) + 1e-6
    fitted = LogisticRegression(max_iter=500).fit((matrix[train] - mean) / scale, labels)
    head = torch.nn.Linear(matrix.shape[1], len(snapshot.classes))
    weight = fitted.coef_ / scale
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(weight))
        head.bias.copy_(torch.from_numpy(fitted.intercept_ - weight @ mean))
    return Classifier(
        backbone,
        head,
        snapshot.classes,
        preprocessing=backbone.spec.preprocessing,
        strategy="probe",
        snapshot_id=snapshot.id,
    ).eval()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, digits: tuple[Any, Any]) -> World:
    return make_world(tmp_path_factory.mktemp("world"), digits)


class Champion:
    """What the registry says of the champion; its ONNX file is a stand-in that answers by id."""

    def __init__(self, version: str, snapshot_id: str, store: str) -> None:
        self.version, self.snapshot_id, self.store = version, snapshot_id, store
        self.digest, self.tags = "d" * 64, {"graftline.store": store}

    def download_onnx(self, folder: Path) -> Path:
        return folder


def register(monkeypatch: pytest.MonkeyPatch, classifier: Classifier, champion: Champion) -> None:
    """Make a classifier champion; it answers through PyTorch in place of its ONNX file."""

    class Model:
        classes = classifier.classes

        def __init__(self, path: Path) -> None:
            pass

        def probabilities(self, images: Any) -> np.ndarray:
            batch = torch.stack([classifier.preprocessing.apply(image) for image in images])
            with torch.inference_mode():
                return classifier.probabilities(batch).numpy()

    class Registry:
        def champion(self, name: str) -> Champion:
            assert name == "model"
            return champion

    monkeypatch.setattr(champion_module, "open_registry", lambda uri: Registry())
    monkeypatch.setattr(champion_module, "OnnxClassifier", Model)


COMPARED = {"tracking_uri": "sqlite:///x", "registered_model": "model"}


def test_a_first_model_is_measured_and_promoted(world: World) -> None:
    result = run(**world.arguments())
    rows = world.snapshot.rows("test")
    labels = world.snapshot.labels()[rows]
    predicted = world.classifier.logits_of_features(world.features[rows]).argmax(axis=1)
    accuracy = float((predicted == labels).mean())
    assert result.test["accuracy"] == pytest.approx(accuracy)
    low, high = result.test["accuracy_ci"]
    assert low <= accuracy <= high
    assert result.verdict["promote"] is True
    verdict = read_verdict(result.verdict_file)
    assert verdict.first_model and verdict.snapshot_id == world.snapshot.id
    calibrated = load_classifier(world.folder / "out" / "calibrated")
    assert calibrated.temperature == result.temperature != 1.0
    assert calibrated.metadata["thresholds"]["none_of_these"]["distance"] > 0
    assert read_held_out(world.folder / "out" / "calibrated") is not None
    means = load_file(world.folder / "out" / "calibrated" / "references.safetensors")["means"]
    assert means.shape == (4, world.features.shape[1])
    json.dumps(dataclasses.asdict(result), default=str, allow_nan=False)
    assert result.metrics()["accuracy"] == pytest.approx(accuracy)
    for index, name in enumerate(world.snapshot.classes):
        hits = int(((labels == index) & (predicted == index)).sum())
        figures = result.class_figures[name]
        assert figures["images"] == (labels == index).sum()
        assert figures["recall"] == pytest.approx(hits / (labels == index).sum())
        assert figures["precision"] == pytest.approx(hits / (predicted == index).sum())


def test_the_same_answers_without_stored_features(world: World) -> None:
    stored = run(**world.arguments("stored"))
    computed = run(**world.arguments("computed", features_folder=None))
    assert computed.test["accuracy"] == stored.test["accuracy"]
    assert computed.test["log_loss"] == pytest.approx(stored.test["log_loss"], rel=1e-3)


def test_robustness_starts_from_the_evaluations_own_answers(world: World) -> None:
    result = run(**world.arguments("corrupted", evaluation={"robustness_images": 8}))
    rows = world.snapshot.rows("test")
    assert len(rows) > 8 and result.robustness is not None and 0 < result.robustness < 1
    text = (world.folder / "corrupted" / "report.html").read_text()
    assert "low resolution" in text and "The same 8 test images" in text


def test_corrupted_images_cost_no_more_than_the_features_did(world: World) -> None:
    run(**world.arguments("share", evaluation={}))
    images = len(world.snapshot.labels())
    # Seven kinds at three strengths, and 12 images at least so that a loss can show.
    expected = min(len(world.snapshot.rows("test")), max(12, images // 21))
    assert images // 21 < 64
    text = (world.folder / "share" / "report.html").read_text()
    assert f"The same {expected} test images" in text


def test_the_same_input_gives_the_same_result(world: World) -> None:
    first, second = run(**world.arguments("a")), run(**world.arguments("b"))
    assert first.test == second.test
    assert (world.folder / "a/report.html").read_text() == (
        world.folder / "b/report.html"
    ).read_text()


def test_the_page_escapes_what_users_wrote(world: World) -> None:
    run(**world.arguments("page", registered_model="the <i>one</i>"))
    text = (world.folder / "page" / "report.html").read_text()
    assert "Evaluation of the &lt;i&gt;one&lt;/i&gt;" in text
    assert "<b>old</b>" not in text and "<i>text</i>" not in text
    assert "&lt;b&gt;old&lt;/b&gt;" in text
    assert "not an image" in text
    assert not re.search(r'(src|href)="(?!data:|#|data\.html")', text)


def test_the_same_model_again_is_not_promoted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    champion = Champion("7", world.snapshot.id, world.store)
    register(monkeypatch, world.classifier, champion)
    result = run(**world.arguments("again", **COMPARED))
    assert result.verdict["promote"] is False
    assert result.verdict["champion"] == "7"
    reason = " ".join(result.verdict["reasons"])
    assert "not better than the champion" in reason
    assert "the same label to all" in reason
    assert result.compared["champion"]["accuracy"] == result.compared["challenger"]["accuracy"]


def test_a_worse_model_is_not_promoted_and_the_page_shows_why(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(monkeypatch, world.classifier, Champion("7", "another", world.store))
    worse = probe(world.snapshot, world.classifier.backbone, world.features, wreck=0.9)
    save_classifier(world.folder / "worse", worse)
    result = run(
        **world.arguments("worse-out", classifier_folder=world.folder / "worse", **COMPARED)
    )
    assert result.verdict["promote"] is False
    failed = {test["name"] for test in result.verdict["tests"] if not test["passed"]}
    assert "not_worse" in failed
    text = (world.folder / "worse-out" / "report.html").read_text()
    assert "Lost: only the champion is right" in text
    assert "that can only favour the champion" in text  # its snapshot is not in the store


def test_images_that_the_champion_trained_on_are_left_out(
    tmp_path: Path, digits: tuple[Any, Any], world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The champion's snapshot has five of our test images in its training split.
    table = world.snapshot.manifest.to_pylist()
    ours = world.snapshot.rows("test")[:5]
    for row in ours:
        table[row]["split"] = "train"
    theirs = write_snapshot(
        tmp_path / "theirs",
        pa.Table.from_pylist(table, schema=world.snapshot.manifest.schema),
        world.snapshot.set_aside,
        store=world.store,
        source="digits",
    )
    keep_snapshot(open_store(world.store), theirs)
    register(monkeypatch, world.classifier, Champion("3", theirs.id, world.store))
    run(**world.arguments("left", **COMPARED))
    verdict = read_verdict(world.folder / "left" / "verdict.json")
    assert verdict.left_out == {champion_module.LEFT_OUT_TRAINED: 5}
    assert verdict.compared_images == len(world.snapshot.rows("test")) - 5
    assert verdict.champion_snapshot_id == theirs.id


def test_other_classes_are_compared_on_the_shared_ones(
    tmp_path: Path, digits: tuple[Any, Any], world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    three = make_world(tmp_path / "three", digits, classes=3)
    register(monkeypatch, three.classifier, Champion("2", three.snapshot.id, three.store))
    run(**world.arguments("more", **COMPARED))
    verdict = read_verdict(world.folder / "more" / "verdict.json")
    of_three = int((world.snapshot.column("label")[world.snapshot.rows("test")] == "3").sum())
    assert verdict.left_out[champion_module.LEFT_OUT_CLASS] == of_three
    kept = verdict.test("classes_kept")
    assert kept is not None and kept.passed and "'3' besides" in kept.reason

    register(monkeypatch, world.classifier, Champion("2", "elsewhere", world.store))
    run(**three.arguments("fewer", **COMPARED))
    verdict = read_verdict(three.folder / "fewer" / "verdict.json")
    kept = verdict.test("classes_kept")
    assert kept is not None and not kept.passed and "no longer knows '3'" in kept.reason


def test_guarded_slices_and_wrong_settings(world: World) -> None:
    result = run(
        **world.arguments(
            "slices", gate={"slices": ["scanner", "source=camera-1"], "min_slice_accuracy": 0.2}
        )
    )
    assert any(test["name"] == "slice_floor" for test in result.verdict["tests"])
    gone = run(**world.arguments("gone", gate={"slices": ["scanner=newer"]}))
    assert gone.verdict["promote"] is False
    assert "'scanner=newer', of which there are no test images" in gone.verdict["reasons"][0]
    with pytest.raises(ConfigurationError, match="scanner"):
        run(**world.arguments("bad", gate={"slices": ["scaner"]}))
    with pytest.raises(ConfigurationError, match=r"gate\.margin"):
        run(**world.arguments("bad", gate={"margn": 0.1}))
    with pytest.raises(ConfigurationError, match=r"gate\.margin is 2"):
        run(**world.arguments("bad", gate={"margin": 2}))


def test_no_test_images_and_foreign_classes_are_told(
    tmp_path: Path, world: World, digits: tuple[Any, Any]
) -> None:
    other = make_world(tmp_path / "other", digits, classes=2, per_class=10)
    with pytest.raises(DataError, match="classes are not the snapshot's"):
        run(**world.arguments("x", classifier_folder=other.folder / "classifier"))
    table = [{**row, "split": "train"} for row in world.snapshot.manifest.to_pylist()]
    write_snapshot(
        tmp_path / "empty",
        pa.Table.from_pylist(table, schema=world.snapshot.manifest.schema),
        world.snapshot.set_aside,
        store=world.store,
        source="digits",
    )
    with pytest.raises(DataError, match="no test images"):
        run(**world.arguments("y", snapshot_folder=tmp_path / "empty"))


def test_kfp_artifacts_are_filled(tmp_path: Path, digits: tuple[Any, Any], world: World) -> None:
    from kfp.dsl import ClassificationMetrics, Metrics

    from graftline.steps.evaluate.ui import fill_classification, fill_metrics

    metrics, classification = Metrics(), ClassificationMetrics()
    result = run(**world.arguments("kfp"))
    fill_metrics(metrics, result)
    fill_classification(classification, result)
    assert metrics.metadata["accuracy"] == result.test["accuracy"]
    matrix = classification.metadata["confusionMatrix"]
    assert [spec["displayName"] for spec in matrix["annotationSpecs"]] == ["0", "1", "2", "3"]
    counts = np.array([row["row"] for row in matrix["rows"]])
    assert counts.sum() == len(world.snapshot.rows("test"))
    assert len(classification.metadata["confidenceMetrics"]) > 2  # of all classes together
    two = make_world(tmp_path / "two", digits, classes=2, per_class=30)
    binary = ClassificationMetrics()
    fill_classification(binary, run(**two.arguments("kfp")))
    curve = binary.metadata["confidenceMetrics"]
    assert curve[0]["recall"] == 0 and curve[-1]["recall"] == 1
    assert all(0 <= point["confidenceThreshold"] <= 1 for point in curve)
