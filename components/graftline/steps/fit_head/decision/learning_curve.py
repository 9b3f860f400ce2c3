"""What more labels would buy: the probe's accuracy at parts of the data, and a law through it.

The error of a classifier falls with the number of its training images as ``a + b * n ** -c`` over
a wide range (Cortes et al. 1993, "Learning Curves: Asymptotic Values and Rate of Convergence";
Figueroa et al. 2012, "Predicting sample size required for classification performance"; Viering
and Loog 2021, "The Shape of Learning Curves: a Review"). Four points do not tell a curve with a
floor ``a`` from one without, so both are fitted and the interval covers both.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftline.progress import Progress
from graftline.stats.intervals import wilson
from graftline.steps.fit_head.probes.folds import Folds, Index, subsample
from graftline.steps.fit_head.probes.linear import balanced_weights, fit_linear
from graftline.steps.fit_head.probes.parallel import side_by_side
from graftline.steps.fit_head.probes.scaling import Matrix, standardisation
from graftline.steps.fit_head.probes.search import SEARCH_ITERATIONS, SEARCH_TOLERANCE, Candidate

SHARES = ((0.1, 4), (0.25, 2), (0.5, 2), (1.0, 1))  # of a fold's fit rows, and repeats
REPLICATES = 1000
# Of the gain, on both sides: that far off is a law through four points, however exact they are.
LEAST_DOUBT = 1.25
EXPONENTS = np.linspace(0.05, 2.0, 40)  # c; beyond them the points look flat or like a step
ROUND_NUMBERS = (1_000_000, 100_000, 10_000, 1_000, 500, 200, 100, 50, 20, 10)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Point:
    """The probe fitted on a part of the images.

    Attributes:
        share: Part of the images that a fold of the cross-validation is fitted on.
        images: How many images that is, on average over the fits.
        fits: Over how many fits.
        errors: How often each image was classified wrongly while held out, 0 to 1, shape (N,).
        noise: Standard error of the mean error that the choice of training images brings.
        spread: Variance of one fit's true error between samples of this size.
    """

    share: float
    images: float
    fits: int
    errors: Floats
    noise: float
    spread: float


def learning_curve(
    features: Matrix,
    labels: Index,
    groups: Index,
    folds: Folds,
    scores: Floats,
    chosen: Candidate,
    *,
    train_images: int,
    balanced: bool,
    seed: int,
) -> dict[str, Any]:
    """Cross-validate the chosen candidate on parts of the data and extrapolate.

    Args:
        features: Raw features, shape (N, feature_dim).
        labels: Class indices, shape (N,).
        groups: Group of each row; parts hold whole groups.
        folds: The folds that chose the candidate.
        scores: Of each row by the candidate fitted on the folds without it, (N, classes).
        chosen: The candidate.
        train_images: Images of the whole training split, from which the forecast starts.
        balanced: Whether classes are weighted by their inverse frequency.
        seed: Of the parts and of the interval.

    Returns:
        For the decision record: ``points``, and where three sizes or more differ ``law``,
        ``twice`` (the gain of twice the data) and ``labels`` (of a round number of new labels),
        each with its 95% interval; always a ``sentence``.
    """
    parts = list(_parts(labels, groups, folds, seed))
    smaller = [part for part in parts if part.share < 1]
    with Progress("learning curve", len(smaller), "fits") as bar:

        def run(part: "_Part") -> NDArray[np.bool_]:
            wrong = _wrong(features, labels, part, scores.shape[1], chosen, balanced)
            bar.advance(1)
            return wrong

        found = iter(side_by_side(run, smaller, product=features.size * scores.shape[1]))
    # The whole folds were fitted already.
    whole = scores.argmax(axis=1) != labels
    wrong = [next(found) if part.share < 1 else whole[part.held_out] for part in parts]
    points = _points(parts, wrong, len(labels))
    figures: dict[str, Any] = {"points": [_point_figures(p, folds.effective) for p in points]}
    if len(points) < 3:
        sentence = "There are too few images to say what more labels would buy."
        return {**figures, "sentence": sentence}
    return {**figures, **extrapolate(points, groups, train_images, seed)}


@dataclass(frozen=True)
class _Part:
    """Rows to fit on and rows to be classified."""

    share: float
    fold: int
    fit: Index
    held_out: Index


def _parts(labels: Index, groups: Index, folds: Folds, seed: int) -> Iterator[_Part]:
    for fold, (fit, held_out) in enumerate(folds):
        for share, repeats in SHARES:
            for repeat in range(repeats):
                limit = round(share * len(fit))
                at = seed + 1000 * fold + repeat
                taken = subsample(labels[fit], groups[fit], limit, at, rare=1)
                yield _Part(share, fold, fit[taken], held_out)


def _wrong(
    features: Matrix,
    labels: Index,
    part: _Part,
    classes: int,
    chosen: Candidate,
    balanced: bool,
) -> NDArray[np.bool_]:
    """Which held-out rows are classified wrongly."""
    y = labels[part.fit]
    scaling = standardisation(features[part.fit], chosen.scaling, y, in_span=True)
    fit = fit_linear(
        scaling.apply(features[part.fit]),
        y,
        classes,
        family=chosen.family,
        C=chosen.C,
        class_weight=balanced_weights(y, classes) if balanced else None,
        max_iterations=SEARCH_ITERATIONS,
        tolerance=SEARCH_TOLERANCE,
    )
    said = fit.decide(scaling.apply(features[part.held_out])).argmax(axis=1)
    wrong: NDArray[np.bool_] = said != labels[part.held_out]
    return wrong


def _points(parts: Sequence[_Part], wrong: Sequence[NDArray[np.bool_]], rows: int) -> list[Point]:
    """The mean over the fits of each size; equal sizes count once."""
    points: list[Point] = []
    variance = spread = 0.0
    for share, repeats in SHARES:
        mine = [i for i, part in enumerate(parts) if part.share == share]
        by_fold: dict[int, list[NDArray[np.bool_]]] = {}
        for i in mine:
            by_fold.setdefault(parts[i].fold, []).append(wrong[i])
        errors = np.zeros(rows)
        for i in mine:
            errors[parts[i].held_out] = np.mean(by_fold[parts[i].fold], axis=0)
        images = float(np.mean([len(parts[i].fit) for i in mine]))
        if repeats > 1:
            variance, spread = _spread(by_fold.values(), share)
        else:  # the last size has no repeats; twice the images halve what they would show
            factor = points[-1].images / images
            variance, spread = variance * factor, spread * factor
        if points and images < 1.2 * points[-1].images:
            points.pop()
        noise = float(np.sqrt(variance / len(mine)))
        points.append(Point(share, images, len(mine), errors, noise, spread))
    return points


def _spread(by_fold: Iterable[Sequence[NDArray[np.bool_]]], share: float) -> tuple[float, float]:
    """Variance of a fit's error between samples of one size: as measured, and its true part.

    What is measured on the few images of a fold differs by chance as well, even between two
    equally good fits. And samples of a half share half of their images, and differ by half as
    much as new ones.
    """
    stacks = [np.stack(fits).astype(np.float64) for fits in by_fold]
    measured = float(np.mean([stack.mean(axis=1).var(ddof=1) for stack in stacks]))
    chance = float(np.mean([stack.var(axis=0, ddof=1).mean() / stack.shape[1] for stack in stacks]))
    return measured, max(0.0, measured - chance) / (1 - share)


def extrapolate(
    points: Sequence[Point], groups: Index, train_images: int, seed: int
) -> dict[str, Any]:
    """The law through the points, and what it says of more images.

    The interval is of a bootstrap: images (groups, where they belong together) are drawn again,
    each point moves by the noise of its training images, and the law is fitted again, half of
    the times without a floor. It covers what a training on other images of that number would
    measure, not only the mean of many.

    Args:
        points: At least three sizes.
        groups: Group of each row.
        train_images: From where the forecast starts.
        seed: Of the bootstrap.
    """
    sizes = np.array([point.images for point in points])
    errors = np.stack([point.errors for point in points])
    noise = np.array([point.noise for point in points])
    random = np.random.default_rng(seed)
    drawn = _replicates(errors, groups, noise, random)
    weights = 1.0 / np.maximum(drawn.var(axis=0), 1e-8)
    observed = errors.mean(axis=1)[None]
    central = [_fit(sizes, observed, weights, floor=floor) for floor in (False, True)]
    half = len(drawn) // 2
    redrawn = [
        _fit(sizes, drawn[:half], weights, floor=False),
        _fit(sizes, drawn[half:], weights, floor=True),
    ]
    labels = _round_number(train_images)
    a, b, c = (float(value[0]) for value in central[1])
    one_fit = points[-1].spread * sizes[-1] / train_images
    wander = random.normal(size=len(drawn)) * np.sqrt(one_fit)
    twice = _gain(central, redrawn, wander, train_images, 2 * train_images)
    more = _gain(central, redrawn, wander, train_images, train_images + labels)
    return {
        "law": {"floor": round(a, 6), "scale": round(b, 6), "exponent": round(c, 6)},
        "twice": {"images": 2 * train_images, **twice},
        "labels": {"images": labels, **more},
        "sentence": _sentence(labels, more, twice),
    }


_Law = tuple[Floats, Floats, Floats]


def _fit(sizes: Floats, errors: Floats, weights: Floats, *, floor: bool) -> _Law:
    """Weighted least squares of ``a + b * n ** -c`` with a, b >= 0; every c of a grid is tried.

    Args:
        sizes: Shape (points,).
        errors: Shape (replicates, points).
        weights: Shape (points,).
        floor: Whether ``a`` may be above zero.

    Returns:
        a, b and c, each of shape (replicates,).
    """
    powers = (sizes[None] / sizes[-1]) ** -EXPONENTS[:, None]  # (c, points)
    w = weights / weights.sum()
    mean_p, mean_e = powers @ w, errors @ w
    pp, pe = (powers**2) @ w, (errors * w) @ powers.T  # (c,), (replicates, c)
    b = pe / pp
    a = np.zeros_like(b)
    if floor:
        slope = (pe - mean_e[:, None] * mean_p) / np.maximum(pp - mean_p**2, 1e-15)
        level = mean_e[:, None] - slope * mean_p
        flat = slope < 0  # the points rise: a constant is the best that is left
        slope, level = np.where(flat, 0.0, slope), np.where(flat, mean_e[:, None], level)
        inside = level >= 0  # below zero, the law without a floor is the constrained optimum
        a, b = np.where(inside, level, a), np.where(inside, slope, b)
    residual = ((errors**2) @ w)[:, None] - 2 * (a * mean_e[:, None] + b * pe)
    residual += a**2 + 2 * a * b * mean_p + b**2 * pp
    best = residual.argmin(axis=1)
    rows = np.arange(len(errors))
    c = EXPONENTS[best]
    return a[rows, best], b[rows, best] * sizes[-1] ** c, c


def _replicates(
    errors: Floats, groups: Index, noise: Floats, random: np.random.Generator
) -> Floats:
    """Mean error at each size when groups are drawn with replacement, (replicates, points)."""
    _, number, counts = np.unique(groups, return_inverse=True, return_counts=True)
    sums = np.stack([np.bincount(number, weights=row) for row in errors], axis=1)
    table = np.column_stack([sums, counts])  # (groups, points + 1)
    means = np.empty((REPLICATES, len(errors)))
    for row in range(REPLICATES):
        times = np.bincount(random.integers(len(counts), size=len(counts)), minlength=len(counts))
        total = times @ table
        means[row] = total[:-1] / total[-1]
    moved = means + random.normal(size=means.shape) * noise
    return np.clip(moved, 0.0, 1.0)


def _gain(
    central: Sequence[_Law], redrawn: Sequence[_Law], wander: Floats, now: int, later: int
) -> dict[str, Any]:
    """How far the accuracy rises between two sizes, as a share.

    Args:
        central: The laws through the points as measured.
        redrawn: The same through the replicates.
        wander: Replicates of the deviation of one fit on ``now`` images.
        now: Images now.
        later: Images then. Most of the images of both are the same if they are few more.
    """

    def fall(law: _Law) -> Floats:
        _, b, c = law
        return b * (float(now) ** -c - float(later) ** -c)

    middle = float(np.mean([fall(law)[0] for law in central]))
    falls = np.concatenate([fall(law) for law in redrawn])
    falls += wander * np.sqrt(2 * (1 - now / later))
    low, high = np.quantile(falls, [0.025, 0.975])
    least = LEAST_DOUBT * abs(middle)
    bounds = [min(float(low), middle - least), max(float(high), middle + least)]
    accuracy = 1.0 - float(
        np.mean([law[0][0] + law[1][0] * float(later) ** -law[2][0] for law in central])
    )
    return {
        "accuracy": round(accuracy, 6),
        "gain": round(middle, 6),
        "gain_interval": [round(bound, 6) for bound in bounds],
    }


def _round_number(images: int) -> int:
    """New labels to speak of: a round number that at most doubles the data, 1,000 if it can."""
    fitting = [number for number in ROUND_NUMBERS if number <= images]
    within = [number for number in fitting if number <= 1000]
    return within[0] if within else images


def _sentence(labels: int, more: dict[str, Any], twice: dict[str, Any]) -> str:
    low, high = more["gain_interval"]
    twice_low, twice_high = twice["gain_interval"]
    said = (
        f"{labels:,} more labels would buy about {100 * more['gain']:z.1f} points of accuracy (95% "
        f"interval {100 * low:z.1f} to {100 * high:z.1f}), twice the training images about "
        f"{100 * twice['gain']:z.1f} ({100 * twice_low:z.1f} to {100 * twice_high:z.1f})."
    )
    return said.replace("-", "−")  # of its numbers: it has no hyphen else


def _point_figures(point: Point, units: int) -> dict[str, Any]:
    accuracy = 1.0 - float(point.errors.mean())
    return {
        "share": point.share,
        "images": round(point.images),
        "accuracy": round(accuracy, 6),
        "interval": [round(bound, 6) for bound in wilson(accuracy, units)],
        "fits": point.fits,
    }
