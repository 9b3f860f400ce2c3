"""The features of all blocks before a training: digits, which the last block knows little of."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from graftline.classifier.bundle import load_classifier, read_held_out
from graftline.data.snapshot import Snapshot, read_images, read_snapshot
from graftline.features.matrix import read_features
from graftline.records.decision import read_decision
from graftline.steps.extract_features.step import run as extract_features
from graftline.steps.fit_head import block_candidate
from graftline.steps.fit_head.block_candidate import (
    AllBlocks,
    Start,
    expected_lead,
    takes_all_blocks,
    try_all_blocks,
)
from graftline.steps.fit_head.config import AutoSettings, FitHeadConfig
from graftline.steps.fit_head.fitted import fit_probe
from graftline.steps.fit_head.probe import measure
from graftline.steps.fit_head.step import FitHeadResult, run
from graftline.steps.ingest.step import run as ingest
from graftline.storage import open_store

BACKBONE, SIZE = "tf_efficientnet_lite0", 32


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, digits: tuple[np.ndarray, np.ndarray]) -> Path:
    """A folder with a snapshot of 240 digits and the features of the last block."""
    folder = tmp_path_factory.mktemp("digits")
    source = folder / "digits"
    images, labels = digits
    for label in range(6):
        (source / str(label)).mkdir(parents=True)
        for number in np.flatnonzero(labels == label)[:40]:
            pixels = (images[number] * 255 / 16).astype("uint8")
            Image.fromarray(pixels).save(source / str(label) / f"{number:04}.png")
    store = str(folder / "store")
    ingest(
        source=str(source), store=store, snapshot_folder=folder / "snapshot", near_duplicates="off"
    )
    extract_features(
        snapshot_folder=folder / "snapshot",
        features_folder=folder / "features",
        store=store,
        backbone=BACKBONE,
        image_size=SIZE,
    )
    return folder


def fitted(world: Path, into: Path, **settings: Any) -> FitHeadResult:
    return run(
        snapshot_folder=world / "snapshot",
        features_folder=world / "features",
        store=str(world / "store"),
        classifier_folder=into / "probe",
        decision_file=into / "decision.json",
        backbone=BACKBONE,
        image_size=SIZE,
        **settings,
    )


def right(classifier_folder: Path, world: Path) -> float:
    """Accuracy on the test images, decoded and run here."""
    classifier, snapshot = load_classifier(classifier_folder), read_snapshot(world / "snapshot")
    rows = snapshot.rows("test")
    found = dict(read_images(snapshot, rows, store=open_store(str(world / "store"))))
    prepare = classifier.preprocessing
    images = torch.stack([prepare.apply(prepare.decode(found[int(row)])) for row in rows])
    with torch.inference_mode():
        said = classifier.eval()(images).argmax(dim=1).numpy()
    return float((said == snapshot.labels()[rows]).mean())


def test_auto_takes_them_where_it_would_train_and_they_lead(world: Path, tmp_path: Path) -> None:
    last = fitted(world, tmp_path / "last", strategy="probe")
    auto = fitted(world, tmp_path / "auto", strategy="auto", auto={"pilot": False})
    assert last.decision["choice"] == "probe" and "all_blocks" not in last.decision["figures"]
    figures = auto.decision["figures"]["all_blocks"]
    assert auto.strategy == "probe" and not auto.fine_tune
    assert figures["accuracy"] > figures["probe_accuracy"] + 0.02
    assert auto.cv_accuracy == pytest.approx(figures["accuracy"], abs=0.02)
    classifier = load_classifier(tmp_path / "auto" / "probe")
    assert classifier.backbone.spec.name == f"timm/{BACKBONE}+blocks"
    held_out = read_held_out(tmp_path / "auto" / "probe")
    assert held_out is not None and held_out.logits.shape[1] == 6
    assert right(tmp_path / "auto" / "probe", world) > right(tmp_path / "last" / "probe", world)
    record = read_decision(tmp_path / "auto" / "decision.json")
    assert record.backbone == classifier.backbone.spec.name
    assert "nothing is trained" in record.reasons[-1]
    # The forecast is now over what is used.
    plain = fitted(world, tmp_path / "asked", strategy="fine_tune").decision["forecast"]
    lead = expected_lead(figures)
    assert record.forecast is not None
    assert record.forecast.gain == pytest.approx(plain["gain"] - lead, abs=1e-6)


def test_what_is_measured_is_what_scikit_learn_measures(world: Path) -> None:
    snapshot, features = read_snapshot(world / "snapshot"), read_features(world / "features")
    settings = FitHeadConfig(backbone=BACKBONE, image_size=SIZE)
    network = block_candidate.build(BACKBONE, image_size=SIZE)
    measured = measure(snapshot, features.matrix, settings.probe, 0)
    start = Start(network, features, measured)
    tried = try_all_blocks(snapshot, start, settings, open_store(str(world / "store")))
    assert tried is not None
    rows = snapshot.rows("train")
    matrix = tried.start.features.matrix
    assert not matrix[snapshot.rows("test")].any()
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500))
    theirs = cross_val_score(model, matrix[rows], snapshot.labels()[rows], cv=5).mean()
    assert tried.found["all_blocks_accuracy"] == pytest.approx(theirs, abs=0.03)
    assert tried.found["images"] == len(rows)
    # Both classifiers' own, as they were measured, and their sum.
    own, last = tried.start.measured, measured
    assert tried.found["all_blocks_accuracy"] == pytest.approx(own.right.mean(), abs=1e-6)
    assert tried.start.partner is not None
    weights = tried.start.partner.weights
    together = weights[0] * last.scores + weights[1] * own.scores
    share = (together.argmax(axis=1) == snapshot.labels()[rows]).mean()
    assert tried.found["accuracy"] == pytest.approx(share, abs=1e-6)
    _check_folded(tried.start, snapshot, settings)
    assert tried.found["probe_accuracy"] == pytest.approx(measured.right.mean(), abs=1e-6)
    # The pooled features of the last block come last, as they are.
    width = features.dim
    np.testing.assert_allclose(
        matrix[rows][:, -width:], features.matrix[rows], rtol=1e-3, atol=1e-3
    )


def _check_folded(start: Start, snapshot: Snapshot, settings: FitHeadConfig) -> None:
    """What is delivered gives the weighted sum of the logits of two classifiers of their own."""
    partner, matrix = start.partner, start.features.matrix
    assert partner is not None
    given = (snapshot, start.features, start.network, start.measured, settings.probe)
    together, alone = fit_probe(*given, partner).classifier, fit_probe(*given).classifier
    plain = dataclasses.replace(start.features, matrix=matrix[:, -partner.width :])
    theirs = dataclasses.replace(start.measured, best=partner.candidate)
    last = fit_probe(snapshot, plain, start.network, theirs, settings.probe).classifier
    rows = snapshot.rows("train")
    expected = partner.weights[0] * last.logits_of_features(plain.matrix[rows])
    expected += partner.weights[1] * alone.logits_of_features(matrix[rows])
    found = together.logits_of_features(matrix[rows])
    assert np.abs(found - expected).max() < 1e-3 * np.abs(expected).max()
    assert np.abs(found - alone.logits_of_features(matrix[rows])).max() > 0.1


def test_they_are_not_tried_twice_nor_on_too_many_images(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot, features = read_snapshot(world / "snapshot"), read_features(world / "features")
    settings = FitHeadConfig(backbone=BACKBONE, image_size=SIZE)
    store = open_store(str(world / "store"))
    measured = measure(snapshot, features.matrix, settings.probe, 0)
    every = block_candidate.build(f"{BACKBONE}+blocks", image_size=SIZE)
    assert try_all_blocks(snapshot, Start(every, features, measured), settings, store) is None
    monkeypatch.setattr(block_candidate, "MOST_IMAGES", 10)
    plain = block_candidate.build(BACKBONE, image_size=SIZE)
    assert try_all_blocks(snapshot, Start(plain, features, measured), settings, store) is None


def test_they_are_not_tried_where_the_run_file_says_so(world: Path, tmp_path: Path) -> None:
    result = fitted(world, tmp_path, strategy="auto", auto={"pilot": False, "all_blocks": False})
    assert "all_blocks" not in result.decision["figures"]
    assert load_classifier(tmp_path / "probe").backbone.spec.name == f"timm/{BACKBONE}"


def found(blocks: float, last: float, half: float) -> dict[str, Any]:
    lead = blocks - last
    return {
        "accuracy": blocks,
        "probe_accuracy": last,
        "images": 100,
        "difference_interval": [lead - half, lead + half],
    }


@pytest.mark.parametrize(("lead", "half"), [(0.1, 0.02), (0.0, 0.06), (-0.05, 0.01)])
def test_the_expected_lead_is_bayes(lead: float, half: float) -> None:
    grid = np.linspace(-1, 1, 200_001)
    prior = np.exp(-((grid - 0.06) ** 2) / (2 * 0.05**2))
    seen = np.exp(-((grid - lead) ** 2) / (2 * (half / 1.2815515655446004) ** 2))
    expected = (grid * prior * seen).sum() / (prior * seen).sum()
    assert expected_lead(found(0.5 + lead, 0.5, half)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("blocks", "last", "half", "gain", "trains", "taken"),
    [
        (0.90, 0.80, 0.001, 0.05, True, True),
        (0.90, 0.80, 0.001, 0.104, True, True),  # 0.4 points more, under auto.min_gain
        (0.90, 0.80, 0.001, 0.106, True, False),
        (0.90, 0.80, 0.001, 0.106, False, True),  # too dear, say
        (0.80, 0.80, 0.1, 0.01, False, True),  # few images: what is usual counts
        (0.80, 0.80, 0.1, 0.06, True, False),
        (0.75, 0.80, 0.01, 0.0, False, False),  # many: what was seen counts
        (0.75, 0.80, 0.01, 0.05, True, False),
    ],
)
def test_a_training_has_to_come_further(
    blocks: float, last: float, half: float, gain: float, trains: bool, taken: bool
) -> None:
    given = found(blocks, last, half)
    assert takes_all_blocks(given, gain, AutoSettings(min_gain=0.005), trains=trains) is taken


def test_a_probe_without_errors_leaves_nothing_to_try(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot, features = read_snapshot(world / "snapshot"), read_features(world / "features")
    settings = FitHeadConfig(backbone=BACKBONE, image_size=SIZE)
    measured = measure(snapshot, features.matrix, settings.probe, 0)

    class Tried(Exception):
        pass

    def extracted(*_: Any) -> None:
        raise Tried

    monkeypatch.setattr(block_candidate, "_extracted", extracted)
    store = open_store(str(world / "store"))
    network = block_candidate.build(BACKBONE, image_size=SIZE)

    def tried(images: int) -> AllBlocks | None:
        right = np.eye(6)[measured.labels]
        faultless = dataclasses.replace(measured, scores=right, units=images)
        return try_all_blocks(snapshot, Start(network, features, faultless), settings, store)

    assert tried(140) is None  # 0.35% of new images are expected to be wrong
    with pytest.raises(Tried):  # 0.68%
        tried(72)


def test_a_training_that_comes_further_is_begun_from_the_last_block(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(block_candidate, "takes_all_blocks", lambda *_, **__: False)
    assert fitted(world, tmp_path, strategy="auto", auto={"pilot": False}).fine_tune
    record = read_decision(tmp_path / "decision.json")
    assert "a training is expected to bring more" in record.reasons[-1]
    assert load_classifier(tmp_path / "probe").backbone.spec.name == f"timm/{BACKBONE}"
    assert dataclasses.asdict(record)["figures"]["all_blocks"]["images"] > 0
