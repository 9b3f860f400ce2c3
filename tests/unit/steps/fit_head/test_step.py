"""The probe against scikit-learn, the folds, the head, and the step as a whole."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from graftline.classifier.bundle import load_classifier, read_held_out
from graftline.classifier.heads import MLPHead
from graftline.data.snapshot import read_snapshot
from graftline.errors import ConfigurationError, DataError
from graftline.features.matrix import read_features, write_features
from graftline.models.backbone import build
from graftline.records.decision import read_decision
from graftline.stats.intervals import wilson
from graftline.steps.export_onnx.network_graph import export_network
from graftline.steps.fit_head.config import ProbeSettings
from graftline.steps.fit_head.mlp import TrainedHead, train_mlp
from graftline.steps.fit_head.probes import scaling as scaling_module
from graftline.steps.fit_head.probes.divided import Divided
from graftline.steps.fit_head.probes.folding import fold
from graftline.steps.fit_head.probes.folds import make_folds, subsample
from graftline.steps.fit_head.probes.linear import Family, LinearFit, balanced_weights, fit_linear
from graftline.steps.fit_head.probes.scaling import (
    Scaling,
    Standardisation,
    principal,
    standardisation,
    turned,
)
from graftline.steps.fit_head.probes.search import fit_candidate, knn_accuracies, search
from graftline.steps.fit_head.step import FitHeadResult, run

NAME = "timm/test_resnet"
SIZE = 64

Data = tuple[NDArray[np.float32], NDArray[np.int64]]


def clusters(
    count: int = 200, width: int = 20, classes: int = 4, spread: float = 2.0, seed: int = 0
) -> Data:
    """Overlapping clouds whose features differ in mean and size by orders of magnitude."""
    random = np.random.default_rng(seed)
    labels = random.integers(classes, size=count)
    centres = random.normal(size=(classes, width)) * 1.5
    x = centres[labels] + random.normal(size=(count, width)) * spread
    x = x * np.exp(random.normal(size=width) * 2) + random.normal(size=width) * 5
    return x.astype(np.float32), labels


# --- linear.py ---


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("balanced", [False, True])
def test_logistic_regression_is_scikit_learns(classes: int, balanced: bool) -> None:
    x, y = clusters(classes=classes)
    z = standardisation(x).apply(x)
    weights = balanced_weights(y, classes) if balanced else None
    mine = fit_linear(
        z, y, classes, family="logistic", C=0.3, class_weight=weights, tolerance=1e-7
    ).decide(z)
    theirs = LogisticRegression(
        C=0.3, tol=1e-8, max_iter=5000, class_weight="balanced" if balanced else None
    ).fit(z.astype(np.float64), y)
    probabilities = torch.softmax(torch.from_numpy(mine), dim=1).numpy()
    if classes > 2:  # scikit-learn's binary form penalises one vector, ours two: C differs by 2
        assert np.abs(probabilities - theirs.predict_proba(z)).max() < 2e-3
    else:
        half = LogisticRegression(
            C=0.6, tol=1e-8, max_iter=5000, class_weight="balanced" if balanced else None
        ).fit(z.astype(np.float64), y)
        assert np.abs(probabilities - half.predict_proba(z)).max() < 2e-3


def test_svm_is_scikit_learns() -> None:
    x, y = clusters(classes=4)
    z = standardisation(x).apply(x)
    mine = fit_linear(z, y, 4, family="svm", C=0.05, tolerance=1e-7).decide(z)
    # liblinear penalises the intercept; a large scaling makes that penalty vanish
    theirs = LinearSVC(C=0.05, dual=False, intercept_scaling=100.0, tol=1e-8, max_iter=20000)
    expected = theirs.fit(z.astype(np.float64), y).decision_function(z)
    assert np.abs(mine - expected).max() < 5e-3


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("estimator", [LogisticRegression(C=0.1), LinearSVC(C=0.01)])
def test_the_folded_layer_is_scikit_learns_decision_function(
    classes: int, estimator: LogisticRegression | LinearSVC
) -> None:
    x, y = clusters(classes=classes)
    scaler = StandardScaler().fit(x.astype(np.float64))
    z = scaler.transform(x.astype(np.float64))
    estimator.fit(z, y)
    weight, bias = estimator.coef_, estimator.intercept_
    fit = LinearFit(weight, bias, "logistic", C=0.1, iterations=1, converged=True)
    layer = fold(fit, Standardisation(scaler.mean_, scaler.scale_))
    with torch.inference_mode():
        logits = layer(torch.from_numpy(x)).numpy()
    expected = estimator.decision_function(z).reshape(len(z), -1)
    assert np.abs(logits - expected).max() < 1e-4


@pytest.mark.parametrize("family", ["logistic", "svm"])
@pytest.mark.parametrize("how", list(Scaling))
def test_folding_changes_no_score(family: str, how: Scaling) -> None:
    x, y = clusters(classes=3)
    scaling = standardisation(x, how, y)
    assert (scaling.rotation is not None) == (how is Scaling.WITHIN)
    fit = fit_linear(scaling.apply(x), y, 3, family=family, C=0.1)  # type: ignore[arg-type]
    with torch.inference_mode():
        logits = fold(fit, scaling)(torch.from_numpy(x)).numpy()
    assert np.abs(logits - fit.decide(scaling.apply(x))).max() < 1e-4


@pytest.mark.parametrize("family", ["logistic", "svm"])
def test_the_log_loss_is_scikit_learns_over_the_whole_grid(
    family: Literal["logistic", "svm"],
) -> None:
    """On images that the fits have not seen; in the precision that a tiny penalty needs."""
    x, y = clusters(count=400, classes=4)
    by = standardisation(x[:300])
    z, held_out = by.apply(x[:300]).astype(np.float64), by.apply(x[300:])
    fit = None
    for C in ProbeSettings().grid[::4]:
        if family == "svm" and not 1e-4 <= C <= 100:
            continue  # liblinear penalises the intercept, and converges late
        options = {"tolerance": 1e-10, "max_iterations": 5000}
        fit = fit_linear(z, y[:300], 4, family=family, C=C, start=fit, **options)  # type: ignore[arg-type]
        found = torch.log_softmax(torch.from_numpy(fit.decide(held_out)).double(), dim=1).numpy()
        if family == "logistic":
            theirs = LogisticRegression(C=C, tol=1e-10, max_iter=10_000).fit(z, y[:300])
            expected = theirs.predict_log_proba(held_out.astype(np.float64))
        else:
            svm = LinearSVC(C=C, dual=False, intercept_scaling=1000.0, tol=1e-9, max_iter=50_000)
            scores = svm.fit(z, y[:300]).decision_function(held_out.astype(np.float64))
            expected = torch.log_softmax(torch.from_numpy(scores), dim=1).numpy()
        rows = np.arange(100)
        loss, reference = -found[rows, y[300:]].mean(), -expected[rows, y[300:]].mean()
        assert loss == pytest.approx(reference, abs=1e-3), C


def test_the_grid_has_45_values_from_a_millionth_to_a_hundred_thousand() -> None:
    grid = ProbeSettings().grid
    assert len(grid) == 45
    assert (min(grid), max(grid)) == (1e-6, 1e5)
    assert ProbeSettings(c_grid=(1.0, 2.0)).grid == (1.0, 2.0)


def test_the_nearest_class_mean_is_scikit_learns_discriminant_analysis() -> None:
    """Its covariance shrunken to a sphere; on features whitened within classes: shrunken LDA."""
    x, y = clusters(count=90, width=12)
    y[:30] = 0
    fit = fit_linear(x, y, 4, family="mean", C=1.0)
    sphere = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=1.0)
    expected = sphere.fit(x.astype(np.float64), y).predict_log_proba(x)
    found = torch.log_softmax(torch.from_numpy(fit.decide(x)).double(), dim=1).numpy()
    assert np.abs(found - expected).max() < 2e-3 * np.abs(expected).max()
    weighted = fit_linear(x, y, 4, family="mean", C=1.0, class_weight=balanced_weights(y, 4))
    assert np.allclose(weighted.weight, fit.weight)
    shares = np.bincount(y) / 90
    assert np.allclose(weighted.bias - np.log(0.25), fit.bias - np.log(shares))


@pytest.mark.parametrize("count", [3, 5])
def test_a_long_grid_is_searched_coarse_to_fine_and_finds_what_all_values_find(
    monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    x, y = clusters(count=150, width=10, classes=3, spread=3.0)
    folds = make_folds(y, np.arange(150), tuple("abc"), count, seed=0)
    grid = ProbeSettings().grid
    ranked = search(x, y, folds, 3, grid=grid, balanced=False)
    tried = {(c.family, c.scaling, c.C) for c in ranked}
    monkeypatch.setattr("graftline.steps.fit_head.probes.search.LONG_GRID", 1000)
    every = search(x, y, folds, 3, grid=grid, balanced=False)
    assert len(tried) == len(ranked) < 2 / 3 * len(every)
    # Of more than three folds, only the best paths are walked on all.
    measured = [len(candidate.fold_accuracies) for candidate in ranked]
    assert measured[0] == max(measured) == count and measured == sorted(measured, reverse=True)
    assert min(measured) == (2 if count == 5 else count)
    assert ranked[0].C in grid
    assert ranked[0].accuracy >= every[0].accuracy - 0.007  # one of 150 images


@pytest.mark.parametrize("how", list(Scaling))
def test_few_images_are_fitted_in_their_span_with_the_same_scores(how: Scaling) -> None:
    x, y = clusters(count=80, width=200)
    scores = []
    for in_span in (False, True):
        scaling = standardisation(x[:60], how, y[:60], in_span=in_span)
        fit = fit_linear(
            scaling.apply(x[:60]),
            y[:60],
            4,
            family="logistic",
            C=0.01,
            tolerance=1e-6,
            max_iterations=2000,
        )
        scores.append(fit.decide(scaling.apply(x[60:])))
    assert scaling.rotation is not None
    assert scaling.rotation.shape == (200, 59)  # about their mean
    assert np.abs(scores[0] - scores[1]).max() < 5e-3


@pytest.mark.parametrize("how", list(Scaling))
@pytest.mark.parametrize("count", [40, 400])
def test_a_folds_directions_are_uncorrelated_and_spread_as_it_says(
    how: Scaling, count: int
) -> None:
    x, y = clusters(count=count, width=100)
    folds = make_folds(y, np.arange(count), tuple("abcd"), 2, 0)
    for part in Divided(x, y, folds).parts(how):
        covariance = np.cov(part.fit.cpu().numpy().T, bias=True)
        assert part.spread is not None and len(part.spread) == min(count // 2 - 1, 100)
        assert np.allclose(np.diag(covariance), part.spread, rtol=1e-3)
        if count == 40:  # of many images, those of all folds together are taken
            spread = np.sqrt(np.outer(part.spread, part.spread))
            assert np.abs(covariance / spread - np.eye(len(spread))).max() < 1e-2


def test_many_features_of_few_images_are_whitened_in_their_span(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x, y = clusters(count=150, width=200)
    whole = standardisation(x, Scaling.WITHIN, y).apply(x)
    monkeypatch.setattr(scaling_module, "WIDEST", 120)
    for count, tried in ((90, True), (110, False)):
        folds = make_folds(y[:count], np.arange(count), tuple("abcd"), 3, 0)
        found = search(x[:count], y[:count], folds, 4, grid=(0.01, 1.0), balanced=False)
        assert any(one.scaling is Scaling.WITHIN for one in found) is tried
    # More images are fitted in the end than were searched: with validation's.
    by = standardisation(x, Scaling.WITHIN, y, in_span=True)
    assert by.kept == 149
    inside = by.apply(x)
    assert np.abs(inside @ inside.T - whole @ whole.T).max() < 1e-3 * np.abs(whole @ whole.T).max()


def test_a_warm_start_ends_where_a_cold_one_does() -> None:
    x, y = clusters()
    z = standardisation(x).apply(x)
    near = fit_linear(z, y, 4, family="logistic", C=0.1, tolerance=1e-7)
    warm = fit_linear(z, y, 4, family="logistic", C=0.2, start=near, tolerance=1e-7)
    cold = fit_linear(z, y, 4, family="logistic", C=0.2, tolerance=1e-7)
    assert np.abs(warm.decide(z) - cold.decide(z)).max() < 1e-2
    assert warm.iterations < cold.iterations


def test_standardisation_is_exact_in_blocks_and_floors_constant_features() -> None:
    x, _ = clusters(count=103)
    x[:, 3] = 1e3
    blocks = standardisation(x, block=10)
    assert np.allclose(blocks.mean, x.astype(np.float64).mean(axis=0))
    wide = x.astype(np.float64).std(axis=0)
    floor = 0.01 * wide.mean()
    assert np.allclose(blocks.scale, np.maximum(wide, floor))
    assert blocks.scale[3] == pytest.approx(floor)
    assert np.isfinite(standardisation(np.ones((5, 2), np.float32)).apply(x[:5, :2])).all()


def test_images_of_one_class_scatter_alike_in_every_direction() -> None:
    """Against the covariance written out: shrunken by a tenth it becomes a sphere."""
    x, y = clusters(count=500, width=12)
    scaling = standardisation(x, Scaling.WITHIN, y, block=64)
    z = (x - scaling.mean) / scaling.scale
    residual = z - np.stack([z[y == label].mean(axis=0) for label in range(4)])[y]
    covariance = residual.T @ residual / len(z)
    shrunken = 0.9 * covariance + 0.1 * np.eye(12) * np.trace(covariance) / 12
    assert scaling.rotation is not None
    sphere = scaling.rotation.T @ shrunken @ scaling.rotation
    assert np.allclose(sphere, np.eye(12) * sphere[0, 0], atol=1e-4)
    assert np.var(scaling.apply(x), axis=0).mean() == pytest.approx(1, rel=1e-3)


def test_one_image_a_class_tells_nothing_of_the_scatter_within() -> None:
    x = clusters(count=6)[0]
    scaling = standardisation(x, Scaling.WITHIN, np.arange(6))
    assert scaling.rotation is None
    assert np.isfinite(scaling.apply(x)).all()


def test_a_class_without_training_images_is_hardly_ever_answered() -> None:
    x, y = clusters(classes=3)
    y = np.where(y == 1, 2, y)
    fit = fit_linear(x, y, 3, family="logistic", C=0.01)
    scores = fit.decide(x)
    assert scores.shape == (len(x), 3)
    assert not (scores.argmax(axis=1) == 1).any()


# --- folds.py ---


def test_no_group_is_on_both_sides_of_a_fold() -> None:
    random = np.random.default_rng(0)
    labels, groups = random.integers(3, size=90), random.integers(25, size=90)
    folds = make_folds(labels, groups, ("a", "b", "c"), 5, seed=1)
    seen = []
    for fit, held_out in folds:
        assert not set(groups[fit]) & set(groups[held_out])
        assert len(np.intersect1d(fit, held_out)) == 0
        seen += held_out.tolist()
    assert sorted(seen) == list(range(90))
    assert folds.grouped
    assert folds.effective == len(np.unique(groups))


def test_folds_are_stratified_and_repeatable() -> None:
    labels = np.repeat([0, 1], [80, 20])
    folds = make_folds(labels, np.arange(100), ("a", "b"), 5, seed=3)
    assert [int((labels[held] == 1).sum()) for _, held in folds] == [4] * 5
    again = make_folds(labels, np.arange(100), ("a", "b"), 5, seed=3)
    other = make_folds(labels, np.arange(100), ("a", "b"), 5, seed=4)
    assert np.array_equal(folds.assignment, again.assignment)
    assert not np.array_equal(folds.assignment, other.assignment)
    assert folds.notes == ()


@pytest.mark.parametrize("counts", [(10, 1), (1, 1), (2, 2, 1), (40, 3, 2)])
def test_classes_rarer_than_the_folds_are_named(counts: tuple[int, ...]) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    names = tuple("abcd"[: len(counts)])
    folds = make_folds(labels, np.arange(len(labels)), names, 5, seed=0)
    held = np.concatenate([held_out for _, held_out in folds])
    assert sorted(held) == list(range(len(labels)))
    for name, count in zip(names, counts, strict=True):
        assert (f"{name} ({count})" in " ".join(folds.notes)) == (count < folds.count)


def test_a_sample_keeps_groups_whole_and_rare_classes() -> None:
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [3000, 900, 6])
    groups = np.where(labels == 2, 9000 + np.arange(3906), random.integers(1200, size=3906))
    rows = subsample(labels, groups, 400, seed=0)
    assert 350 < len(rows) < 600
    assert (labels[rows] == 2).sum() == 6
    inside = np.isin(groups, groups[rows])
    assert np.array_equal(np.flatnonzero(inside), rows)
    assert np.array_equal(rows, subsample(labels, groups, 400, seed=0))
    assert np.array_equal(subsample(labels, groups, 5000, seed=0), np.arange(3906))


def test_wilson_interval_has_known_values() -> None:
    # Newcombe 1998, table I: 81 of 263 gives 0.2553 to 0.3662; 0 of 20 gives 0 to 0.1611
    assert wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0.0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


@pytest.mark.parametrize("how", list(Scaling))
@pytest.mark.parametrize("family", ["logistic", "svm"])
def test_turned_features_give_the_same_scores_in_fewer_steps(how: Scaling, family: Family) -> None:
    x, y = clusters(count=200, width=30, spread=3.0)
    x[:, ::2] *= 30  # loud and quiet directions: a badly conditioned fit
    plain = standardisation(x[:150], how, y[:150])
    turn = turned(plain, principal(plain.apply(x[:150])))
    inside = turn.apply(x[:150])
    options: dict[str, Any] = {
        "family": family,
        "C": 1.0,
        "max_iterations": 2000,
        "tolerance": 1e-6,
    }
    fits = [
        fit_linear(plain.apply(x[:150]).astype(np.float64), y[:150], 4, **options),
        fit_linear(
            inside.astype(np.float64),
            y[:150],
            4,
            spread=inside.var(axis=0).astype(float),
            **options,
        ),
    ]
    scores = [fits[0].decide(plain.apply(x[150:])), fits[1].decide(turn.apply(x[150:]))]
    assert scores[1] == pytest.approx(scores[0], abs=2e-3 * float(np.abs(scores[0]).max()))
    if how is Scaling.SHARED:
        assert fits[1].iterations < fits[0].iterations / 2


# --- search.py ---


def test_nearest_neighbours_are_scikit_learns() -> None:
    x, y = clusters(count=150, spread=1.0)
    folds = make_folds(y, np.arange(150), tuple("abcd"), 5, seed=0)
    mine = knn_accuracies(x, y, folds, (1, 7), 4)
    for k in (1, 7):
        right = 0
        for fit, held_out in folds:
            theirs = KNeighborsClassifier(
                k, metric="cosine", weights=lambda distance: 2.0 - distance
            ).fit(x[fit], y[fit])
            right += int((theirs.predict(x[held_out]) == y[held_out]).sum())
        assert mine[k] == pytest.approx(right / 150, abs=1e-9)


def test_the_search_finds_what_separates() -> None:
    x, y = clusters(count=300, spread=1.0)
    folds = make_folds(y, np.arange(300), tuple("abcd"), 5, seed=0)
    ranked = search(x, y, folds, 4, grid=(1e-6, 1e-2, 1.0), balanced=False)
    assert ranked[0].accuracy > 0.95
    assert ranked[0].C != 1e-6
    assert [c.accuracy for c in ranked] == sorted((c.accuracy for c in ranked), reverse=True)
    low, high = ranked[0].interval
    assert 0.9 < low < ranked[0].accuracy <= high
    assert np.mean(ranked[0].fold_accuracies) == pytest.approx(ranked[0].accuracy, abs=0.01)
    fit, scaling = fit_candidate(x, y, 4, ranked[0], balanced=False)
    assert (fit.decide(scaling.apply(x)).argmax(axis=1) == y).mean() > 0.97


def test_scatter_within_classes_no_longer_hides_what_tells_them_apart() -> None:
    """Classes differ in a quiet direction and, by little of its scatter, in a loud one."""
    random = np.random.default_rng(0)
    y = random.integers(2, size=300)
    x = random.normal(size=(300, 60))
    x[:, 0] = 10 * x[:, 0] + 6 * y
    x[:, 1] += 3 * y
    x = (x @ np.linalg.qr(random.normal(size=(60, 60)))[0]).astype(np.float32)
    folds = make_folds(y, np.arange(300), ("a", "b"), 5, seed=0)
    ranked = search(x, y, folds, 2, grid=(1e-4, 1e-3), balanced=False)
    best = {how: max(c.accuracy for c in ranked if c.scaling is how) for how in Scaling}
    assert ranked[0].scaling is Scaling.WITHIN
    assert best[Scaling.WITHIN] > best[Scaling.SHARED] + 0.02


def test_pure_noise_gives_no_more_than_chance() -> None:
    random = np.random.default_rng(0)
    x, y = random.normal(size=(200, 50)).astype(np.float32), random.integers(2, size=200)
    folds = make_folds(y, np.arange(200), ("a", "b"), 5, seed=0)
    best = search(x, y, folds, 2, grid=(0.01, 1.0), balanced=False)[0]
    assert best.interval[0] < 0.55


# --- mlp.py ---


def test_the_head_learns_what_no_line_separates() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(600, 2)).astype(np.float32) * 100 + 50
    y = ((x[:, 0] > 50) ^ (x[:, 1] > 50)).astype(np.int64)
    trained = train_mlp(
        (x[:400], y[:400]), (x[400:], y[400:]), 2, hidden=(32,), dropout=0.0, learning_rate=1e-2
    )
    assert trained.val_accuracy > 0.93
    with torch.inference_mode():
        logits = trained.head(torch.from_numpy(x[400:]))
    right = (logits.argmax(dim=1).numpy() == y[400:]).mean()
    assert right == pytest.approx(trained.val_accuracy, abs=0.011)  # folded: raw features in
    assert 1 <= trained.best_epoch <= trained.epochs <= 100


def test_the_head_is_the_same_for_the_same_seed() -> None:
    x, y = clusters()
    one, two, other = (
        train_mlp((x, y), (x, y), 4, epochs=3, seed=seed).head.state_dict() for seed in (5, 5, 6)
    )
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["0.weight"], other["0.weight"])


# --- the step ---


@pytest.fixture
def fitted(
    make_snapshot: Callable[..., tuple[Path, str]],
    make_features: Callable[..., Path],
    tmp_path: Path,
) -> Callable[..., tuple[FitHeadResult, Path]]:
    def fit(counts: dict[int, int] | None = None, **options: object) -> tuple[FitHeadResult, Path]:
        snapshot, store = make_snapshot(30, 4, counts=counts)
        probe = options.pop("probe", {})
        options["probe"] = {"c_grid": [0.01, 0.1], **probe}  # type: ignore[dict-item]
        backbone = build(NAME, weights="random", image_size=SIZE)
        features = make_features(snapshot, backbone)
        result = run(
            snapshot_folder=snapshot,
            features_folder=features,
            store=store,
            backbone=NAME,
            weights="random",
            image_size=SIZE,
            classifier_folder=tmp_path / "classifier",
            decision_file=tmp_path / "decision.json",
            **options,  # type: ignore[arg-type]
        )
        return result, tmp_path

    return fit


def test_the_step_fits_a_probe_on_real_digits(
    fitted: Callable[..., tuple[FitHeadResult, Path]],
) -> None:
    result, folder = fitted(strategy="auto", probe={"c_grid": None}, auto={"all_blocks": False})
    assert (result.strategy, result.fine_tune) == ("probe", False)
    assert result.cv_accuracy > 0.85
    classifier = load_classifier(folder / "classifier")
    features = read_features(folder / "features")
    snapshot = read_snapshot(folder / "data" / "snapshot")
    assert classifier.backbone_fingerprint == features.fingerprint
    logits = classifier.logits_of_features(features.matrix)
    test = snapshot.rows("test")
    assert (logits[test].argmax(axis=1) == snapshot.labels()[test]).mean() > 0.85
    decision = read_decision(folder / "decision.json")
    assert decision.to_dict() == result.decision
    assert decision.cell == "small and similar"
    assert decision.figures["images_per_class"] == {"min": 18, "median": 18.0, "max": 18}
    page = folder / "decision.html"
    assert result.files()["fit_head/decision.html"] == page
    assert decision.figures["learning_curve"]["sentence"] in page.read_text()
    tried = [candidate["C"] for candidate in decision.figures["candidates"]]
    assert min(tried) == 1e-6
    assert decision.figures["suspects"]["of"] == 72
    assert decision.figures["learning_curve"]["sentence"] in decision.notes


def test_validation_logits_come_from_a_model_that_never_saw_validation(
    fitted: Callable[..., tuple[FitHeadResult, Path]],
) -> None:
    result, folder = fitted(strategy="probe")
    snapshot = read_snapshot(folder / "data" / "snapshot")
    features = read_features(folder / "features")
    held_out = read_held_out(folder / "classifier")
    assert held_out is not None and held_out.head is not None
    assert np.array_equal(held_out.rows, snapshot.rows("val"))
    layer = torch.nn.Linear(features.dim, 4)
    layer.load_state_dict(dict(held_out.head))
    probe = load_classifier(folder / "classifier")
    again = probe.with_head(layer).logits_of_features(features.matrix[held_out.rows])
    assert np.allclose(again, held_out.logits, atol=1e-5)
    own = probe.logits_of_features(features.matrix[held_out.rows])
    assert np.abs(own - held_out.logits).max() > 1e-3  # the refit is another model
    truth = snapshot.labels()[held_out.rows]
    assert result.val_accuracy == pytest.approx((held_out.logits.argmax(axis=1) == truth).mean())


def test_the_step_is_repeatable(fitted: Callable[..., tuple[FitHeadResult, Path]]) -> None:
    first, folder = fitted()
    weights = (folder / "classifier" / "weights.safetensors").read_bytes()
    second, _ = fitted()
    assert (folder / "classifier" / "weights.safetensors").read_bytes() == weights
    assert first == second


def test_strategy_head_trains_layers_and_compares_them(
    fitted: Callable[..., tuple[FitHeadResult, Path]],
) -> None:
    result, folder = fitted(strategy="head", head={"hidden": [32], "epochs": 60})
    head = result.decision["figures"]["head"]
    probe = result.decision["figures"]["probe"]
    classifier = load_classifier(folder / "classifier")
    expected = "head" if head["val_accuracy"] >= probe["val_accuracy"] else "probe"
    assert result.strategy == classifier.strategy == expected
    assert isinstance(classifier.head, MLPHead) == (expected == "head")
    assert "The head is" in result.decision["reasons"][-1]
    assert not result.fine_tune


def test_a_head_that_auto_chooses_is_written_and_exported(
    make_snapshot: Callable[..., tuple[Path, str]],
    make_features: Callable[..., Path],
    tmp_path: Path,
) -> None:
    """Classes that only products of two features tell apart: no line does."""
    folder, store = make_snapshot(170, 4)
    backbone = build(NAME, weights="random", image_size=SIZE)
    features, labels = make_features(folder, backbone), read_snapshot(folder).labels()
    random = np.random.default_rng(0)
    signs = np.sign(random.normal(size=(len(labels), 2)))
    matrix = np.zeros((len(labels), backbone.spec.feature_dim))  # scaling makes noise as large
    matrix[:, :4] = np.abs(random.normal(1, 0.2, (len(labels), 4)))
    for bit in (0, 1):
        matrix[:, 2 * bit] *= signs[:, bit]
        matrix[:, 2 * bit + 1] *= signs[:, bit] * np.where(labels >> bit & 1, 1, -1)
    given = replace(read_features(features), matrix=matrix.astype(np.float32))
    write_features(features, given, np.ones(len(labels), bool))
    result = run(
        snapshot_folder=folder,
        features_folder=features,
        store=store,
        backbone=NAME,
        weights="random",
        image_size=SIZE,
        auto={"min_gain": 1.0},
        probe={"c_grid": [0.01, 0.1]},
        classifier_folder=tmp_path / "classifier",
        decision_file=tmp_path / "decision.json",
    )
    assert (result.strategy, result.fine_tune) == ("head", False)
    classifier = load_classifier(tmp_path / "classifier").eval()
    assert classifier.strategy == "head" and isinstance(classifier.head, MLPHead)
    test = read_snapshot(folder).rows("test")
    logits = classifier.logits_of_features(given.matrix[test])
    assert (logits.argmax(axis=1) == labels[test]).mean() > 0.95 > 0.6 > result.cv_accuracy
    pixels = torch.from_numpy(random.normal(size=(5, 3, SIZE, SIZE)).astype(np.float32))
    session = onnxruntime.InferenceSession(export_network(classifier, 20).SerializeToString())
    probabilities = session.run(["probabilities"], {"pixels": pixels.numpy()})[0]
    with torch.inference_mode():
        expected = torch.softmax(classifier(pixels), dim=1).numpy()
    assert np.abs(probabilities - expected).max() < 1e-4


def test_a_head_that_cannot_learn_gives_way_to_the_probe(
    fitted: Callable[..., tuple[FitHeadResult, Path]],
) -> None:
    result, folder = fitted(strategy="head", head={"epochs": 1, "learning_rate": 1e-9})
    assert result.strategy == "probe"
    assert load_classifier(folder / "classifier").strategy == "probe"
    assert "worse than the probe" in result.decision["reasons"][-1]


def test_a_class_of_one_image_is_met_and_said(
    fitted: Callable[..., tuple[FitHeadResult, Path]],
) -> None:
    result, folder = fitted(strategy="probe", counts={2: 1}, probe={"class_weight": "balanced"})
    notes = " ".join(result.decision["notes"])
    assert "2 (1)" in notes
    logits = load_classifier(folder / "classifier").logits_of_features(
        read_features(folder / "features").matrix
    )
    assert np.isfinite(logits).all()
    assert logits.shape[1] == 4


def test_a_large_set_is_searched_on_a_sample_and_says_so(
    fitted: Callable[..., tuple[FitHeadResult, Path]],
) -> None:
    result, _ = fitted(counts=dict.fromkeys(range(4), 80), probe={"search_images": 100})
    assert result.decision["figures"]["train_images"] == 192
    assert 95 <= result.decision["figures"]["searched_images"] <= 110
    assert "sample" in " ".join(result.decision["notes"])


def test_features_that_are_not_finite_are_named(
    make_snapshot: Callable[..., tuple[Path, str]],
    make_features: Callable[..., Path],
    tmp_path: Path,
) -> None:
    snapshot, store = make_snapshot(10, 2)
    features = make_features(snapshot, build(NAME, weights="random", image_size=SIZE))
    matrix = np.load(features / "features.npy", mmap_mode="r+")
    matrix[7, 3] = np.nan
    matrix.flush()
    with pytest.raises(DataError, match="NaN or infinity") as caught:
        _run(snapshot, features, store, tmp_path)
    assert read_snapshot(snapshot).column("source")[7] in str(caught.value)


def test_features_of_other_weights_are_refused(
    make_snapshot: Callable[..., tuple[Path, str]],
    make_features: Callable[..., Path],
    tmp_path: Path,
) -> None:
    snapshot, store = make_snapshot(10, 2)
    features = make_features(snapshot, build(NAME, weights="random", image_size=SIZE + 32))
    with pytest.raises(ConfigurationError, match="did not come from") as caught:
        _run(snapshot, features, store, tmp_path)
    assert "image_size" in str(caught.value)


def test_one_class_only_is_refused(
    make_snapshot: Callable[..., tuple[Path, str]],
    make_features: Callable[..., Path],
    tmp_path: Path,
) -> None:
    snapshot, store = make_snapshot(10, 1)
    features = make_features(snapshot, build(NAME, weights="random", image_size=SIZE))
    with pytest.raises(DataError, match="holds 1 class"):
        _run(snapshot, features, store, tmp_path)


def test_features_of_another_snapshot_are_refused(
    make_snapshot: Callable[..., tuple[Path, str]],
    make_features: Callable[..., Path],
    tmp_path: Path,
) -> None:
    first, store = make_snapshot(10, 2, name="first")
    second, _ = make_snapshot(12, 2, name="second")
    features = make_features(first, build(NAME, weights="random", image_size=SIZE))
    with pytest.raises(DataError, match="belong to snapshot"):
        _run(second, features, store, tmp_path)


def _run(snapshot: Path, features: Path, store: str, folder: Path) -> FitHeadResult:
    return run(
        snapshot_folder=snapshot,
        features_folder=features,
        store=store,
        backbone=NAME,
        weights="random",
        image_size=SIZE,
        classifier_folder=folder / "classifier",
        decision_file=folder / "decision.json",
    )


def test_validation_images_choose_only_between_the_head_and_the_probe(
    fitted: Callable[..., tuple[FitHeadResult, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They neither train the compared head nor choose its epoch; the winner sees them at last."""
    calls: list[tuple[int, int | None, int]] = []

    def recorded(train: Data, val: Data | None, classes: int, **options: object) -> TrainedHead:
        calls.append((len(train[1]), None if val is None else len(val[1]), options["epochs"]))  # type: ignore[arg-type]
        return train_mlp(train, val, classes, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("graftline.steps.fit_head.fitted.train_mlp", recorded)
    result, folder = fitted(strategy="head", head={"hidden": [32], "epochs": 60})
    best = result.decision["figures"]["head"]["best_epoch"]
    snapshot = read_snapshot(folder / "data" / "snapshot")
    train, val = len(snapshot.rows("train")), len(snapshot.rows("val"))
    inside, outside, _ = calls[0]
    assert outside is not None
    assert inside + outside == train
    assert calls[1] == (train, None, best)
    assert calls[2:] == ([(train + val, None, best)] if result.strategy == "head" else [])
