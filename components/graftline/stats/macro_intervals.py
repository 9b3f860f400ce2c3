"""Intervals of balanced accuracy and macro F1, and of their differences, that hold for few images.

A mean over classes with one, two or three images each has no usable bootstrap: resampling within
such a class hardly varies. Here the interval is the set of truths under which the figure seen
would be no surprise, as Clopper and Pearson's is for a share (of one class it is that interval):

1. A model of the answers is fitted: the chances of each outcome (right, wrong) by class. Classes of
   few images borrow from the others, as much as a Dirichlet-multinomial allows that the counts do
   not reject (the most even one within its 95% likelihood interval).
2. The model is shifted along the one-parameter family in which the figure is hardest to tell from
   another (exponential tilting by its influence: DiCiccio and Romano, 1990, Nonparametric
   confidence limits by resampling methods and least favorable families, Int. Stat. Review 58).
3. A bound lies where a figure at least as far out as the one seen has half of the error's chance.
   That is computed by simulation of all test splits at once, with importance weights (balance
   heuristic: Veach and Guibas, 1995); the figure's own bias for few images is so taken off.

Groups are simulated too: a share of them, their correlation, answers as one.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from graftline.stats.answer_model import AnswerModel, Answers
from graftline.stats.intervals import difference_interval, share_interval

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Statistic = Callable[[Floats, Floats, Floats | None], Floats]

_DRAWS, _FEWEST_DRAWS = 2000, 500
_MOST_CELLS = 6_000_000  # outcomes held at once: about 50 MB
_PROPOSALS, _GRID = 25, 97
_FEW, _FEW_DIFFER = 50, 30  # images, and different answers, under which accuracy binds too


def macro_intervals(
    answers: Answers, confidence: float, *, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Two-sided intervals of ``balanced_accuracy`` and ``macro_f1``.

    With two models, of the first one's figures minus the second one's. Means are over the classes
    that have test images.

    Args:
        answers: To the test images, at least one.
        confidence: Such as 0.95.
        seed: Equal seeds give equal intervals.
    """
    model = AnswerModel.of(answers)
    draws = _Draws.of(model, confidence, np.random.default_rng(seed))
    found = {}
    for name, statistic in (("balanced_accuracy", _recall), ("macro_f1", _f1)):
        seen = _figure(statistic, model, model.counts[None], model.false[None])[0]
        low, high = draws.interval(statistic, float(seen), confidence)
        found[name] = _joined((low, high), _by_formula(name, float(seen), model, confidence))
    return found


def _joined(first: tuple[float, float], second: tuple[float, float]) -> tuple[float, float]:
    return float(min(first[0], second[0])), float(max(first[1], second[1]))


def _by_formula(
    name: str, seen: float, model: AnswerModel, confidence: float
) -> tuple[float, float]:
    """What the family misses: where wrong labels fall (F1), and how often few answers differ.

    For F1 the variance is that of the delta method, with the fitted chances. One model's interval
    is the exact one of a share with that variance. The difference's is Student's, and for fewer
    than 50 images, or fewer than 30 that only one model gets right, never narrower than the score
    interval of the accuracies' difference.
    """
    low, high = seen, seen
    if name == "macro_f1":
        by_class = _f1_variance(model)
        variance = float(by_class.sum())
        # Satterthwaite's degrees of freedom, with two more a class for what it borrows.
        square = float((by_class**2 / (1 / model.worths() + 2)).sum())
        freedom = variance**2 / square if square > 0 else 1e6
        t = float(stats.t.ppf((1 + confidence) / 2, freedom))
        if len(model.wrong) == 1:
            if 0 < seen < 1 and variance > 0:
                narrow = float(special.ndtri((1 + confidence) / 2)) / t
                worth = min(float(model.images.sum()), seen * (1 - seen) / variance) * narrow**2
                low, high = share_interval(seen * worth, worth, confidence)
        else:
            half = t * math.sqrt(variance)
            low, high = max(-1.0, seen - half), min(1.0, seen + half)
    worth = len(model.tilt) ** 2 / float(model.worths().sum())
    differ = float(model.counts[:, 1:3].sum()) if len(model.wrong) == 2 else math.inf
    if len(model.wrong) == 2 and (worth < _FEW or differ < _FEW_DIFFER):
        shares = (model.counts / model.images[:, None]).mean(axis=0) * worth
        bounds = difference_interval(shares[1], shares[2], worth, confidence)
        shift = seen - (shares[1] - shares[2]) / worth
        low, high = min(low, max(-1.0, bounds[0] + shift)), max(high, min(1.0, bounds[1] + shift))
    return low, high


def _f1_variance(model: AnswerModel) -> Floats:
    """Variance of the macro F1, or of its difference, by class: the delta method, shape (K,).

    F1 of a class is 2h / (s + g): h right ones among s images and g given labels.
    """
    errors = _errors(model.chance * model.images[:, None])
    effects = []
    for one, wrong in enumerate(model.wrong):
        false = wrong.expected(errors[one][None])[0][:-1]
        hits = model.images - errors[one]
        total = model.images + hits + false
        f1 = 2 * hits / total
        # An image adds to s; given its own label, 2 to h's numerator and 1 to g; else 1 to another.
        own, other = (2 - f1) / total, np.r_[-f1 / total, 0.0]
        effects.append((own, -f1 / total, other))
    per_image = model.images * model.worths()  # design effect
    scores = _influences(model, effects)
    mean = (model.chance * scores[0]).sum(axis=1)
    square = (model.chance * scores[1]).sum(axis=1)
    within = np.maximum(square - mean**2, 0.0)
    # Classes are drawn too where the test split was drawn without regard to them.
    centred = mean - (model.images * mean).sum() / model.images.sum()
    variance = model.images * per_image * (within + centred**2)
    return np.asarray(variance * model.widen / len(model.images) ** 2)


def _influences(
    model: AnswerModel, effects: list[tuple[Floats, Floats, Floats]]
) -> tuple[Floats, Floats]:
    """First and second moment of an image's influence by class and outcome, each (K, J)."""
    moments = []
    for wrong, (own, seen, other) in zip(model.wrong, effects, strict=True):
        rows = wrong.rows if wrong.rows is not None else wrong.pooled[None]
        first, second = rows @ other, rows @ other**2
        moments.append((own + seen, seen + first, second - first**2))
    if len(moments) == 1:
        right, mean, spread = (np.broadcast_to(m, own.shape) for m in moments[0])
        first = np.stack([mean, right], axis=1)
        return first, first**2 + np.stack([spread, 0 * spread], axis=1)
    (right, mean, spread), (right2, mean2, spread2) = (
        [np.broadcast_to(m, own.shape) for m in one] for one in moments
    )
    first = np.stack([right - right2, right - mean2, mean - right2, mean - mean2], axis=1)
    zero = 0 * spread
    apart = (1 - model.same) * (spread + spread2)
    return first, first**2 + np.stack([zero, spread2, spread, apart], axis=1)


class _Draws:
    """Test splits drawn all along the family, with what weighs them for each place in it."""

    def __init__(
        self, model: AnswerModel, counts: Floats, false: Floats, weights: Floats, at: Floats
    ):
        self._model, self._counts, self._false = model, counts, false
        self._weights, self._at = weights, at

    @classmethod
    def of(cls, model: AnswerModel, confidence: float, rng: np.random.Generator) -> "_Draws":
        """Draw; the family is covered far beyond any bound."""
        grid = _grid(model, confidence)
        proposals = grid[np.linspace(0, len(grid) - 1, _PROPOSALS).round().astype(int)]
        classes, outcomes = model.counts.shape
        draws = int(np.clip(_MOST_CELLS // (classes * outcomes), _FEWEST_DRAWS, _DRAWS))
        which = np.arange(draws) % _PROPOSALS
        chances, _ = model.shifted(proposals)
        counts = np.zeros((draws, classes, outcomes))
        false = np.zeros((draws, *model.false.shape))
        sufficient, trials = np.zeros(draws), np.zeros((draws, classes))
        for size, number in _trials(model, draws, rng).items():
            found = _outcomes(number, chances, which, rng)
            counts += size * found
            false += size * _false_labels(model, found, rng)
            sufficient += (found @ model.scores) @ model.tilt
            trials += number
        sums = model.shifted(grid)[1]
        logs = sufficient[:, None] * grid - trials @ sums.T
        mixture = sufficient[:, None] * proposals - trials @ model.shifted(proposals)[1].T
        logs -= special.logsumexp(mixture, axis=1)[:, None]
        logs -= logs.max(axis=0)
        weights = np.exp(logs)
        return cls(model, counts, false, weights / weights.sum(axis=0), grid)

    def interval(self, statistic: Statistic, seen: float, confidence: float) -> tuple[float, float]:
        """The interval of a figure of which ``seen`` was seen."""
        model, tail = self._model, (1 - confidence) / 2
        drawn = _figure(statistic, model, self._counts, self._false)
        chances, _ = model.shifted(self._at)
        expected = chances * model.images[:, None]
        errors = _errors(expected)
        false = np.stack(
            [one.expected(e) for one, e in zip(model.wrong, errors, strict=True)], axis=1
        )
        truth = _figure(statistic, model, expected, false)
        above = (drawn >= seen - 1e-9) @ self._weights
        below = (drawn <= seen + 1e-9) @ self._weights
        floor = -1.0 if len(model.wrong) == 2 else 0.0
        low = _crossing(np.maximum.accumulate(above), truth, tail, floor)
        high = _crossing(np.maximum.accumulate(below[::-1]), truth[::-1], tail, 1.0)
        by = math.sqrt(model.widen) if floor < seen < 1.0 else model.widen
        low, high = seen - by * (seen - low), seen + by * (high - seen)
        return max(floor, min(low, seen)), min(1.0, max(high, seen))


def _grid(model: AnswerModel, confidence: float) -> Floats:
    """Places in the family that are even in its mean score, and reach far beyond the bounds."""
    wide = np.sinh(np.linspace(-20, 20, 401)) / 1e4
    mean = np.concatenate(
        [(model.shifted(part)[0] @ model.scores).mean(axis=1) for part in np.array_split(wide, 8)]
    )
    centre = float((model.chance @ model.scores).mean())
    classes = len(model.tilt)
    worth = classes**2 / model.worths().sum()
    sure = 1 - (1 - confidence) / 5
    if len(model.wrong) == 1:
        low, high = share_interval(centre * worth, worth, sure)
    else:
        shares = model.chance.mean(axis=0) * worth
        low, high = difference_interval(shares[1], shares[2], worth, sure)
    targets = np.linspace(centre - 2.5 * (centre - low), centre + 2.5 * (high - centre), _GRID)
    mean, first = np.unique(mean, return_index=True)
    targets = np.clip(targets, mean[0], mean[-1])
    return np.unique(np.interp(targets, mean, wide[first]))


def _trials(model: AnswerModel, draws: int, rng: np.random.Generator) -> dict[int, Ints]:
    """Independent answers of each size by class, shape (draws, K): a group that goes together."""
    alone = np.zeros((draws, len(model.images)), dtype=np.int64)
    result = {1: alone}
    for size, number in model.clusters.items():
        whole = np.broadcast_to(number.astype(np.int64), alone.shape)
        if size == 1:
            alone += whole
            continue
        result[size] = rng.binomial(whole, model.together)
        alone += size * (whole - result[size])
    return result


def _outcomes(number: Ints, chances: Floats, which: Ints, rng: np.random.Generator) -> Floats:
    """Outcomes of independent answers, shape (draws, K, J); ``which`` names each draw's place."""
    left = number.copy()
    rest = np.ones(number.shape)
    found = np.zeros((*number.shape, chances.shape[2]))
    for outcome in range(chances.shape[2] - 1):
        share = chances[which, :, outcome]
        ratio = np.clip(share / np.maximum(rest, 1e-300), 0.0, 1.0)
        drawn = rng.binomial(left, ratio)
        found[..., outcome] = drawn
        left -= drawn
        rest -= share
    found[..., -1] = left
    return found


def _errors(counts: Floats) -> list[Floats]:
    """Wrong answers by class, of each model, each shape (.., K)."""
    if counts.shape[-1] == 2:
        return [counts[..., 0]]
    return [counts[..., 2] + counts[..., 3], counts[..., 1] + counts[..., 3]]


def _false_labels(model: AnswerModel, counts: Floats, rng: np.random.Generator) -> Floats:
    """Wrong labels given, by model, shape (draws, M, K + 1)."""
    whole = counts.astype(np.int64)
    if len(model.wrong) == 1:
        return model.wrong[0].drawn(whole[..., 0], rng)[:, None]
    shared = rng.binomial(whole[..., 3], model.same)
    alike = model.wrong[0].drawn(shared, rng)
    apart = whole[..., 3] - shared
    first = model.wrong[0].drawn(whole[..., 2] + apart, rng)
    second = model.wrong[1].drawn(whole[..., 1] + apart, rng)
    return np.stack([first + alike, second + alike], axis=1)


def _figure(statistic: Statistic, model: AnswerModel, counts: Floats, false: Floats) -> Floats:
    """The figure, or its difference between both models, shape (draws,)."""
    values = [
        statistic(model.images - errors, model.images, false[:, one, :-1])
        for one, errors in enumerate(_errors(counts))
    ]
    return values[0] if len(values) == 1 else values[0] - values[1]


def _recall(right: Floats, images: Floats, false: Floats | None) -> Floats:
    return np.asarray((right / images).mean(axis=-1))


def _f1(right: Floats, images: Floats, false: Floats | None) -> Floats:
    assert false is not None
    return np.asarray((2 * right / (images + right + false)).mean(axis=-1))


def _crossing(chance: Floats, truth: Floats, tail: float, extreme: float) -> float:
    """Where a rising chance reaches the tail; the extreme where it is never below."""
    at = int(np.searchsorted(chance, tail, side="left"))
    if at == 0:
        return extreme
    if at == len(chance):
        return float(truth[-1])
    left, right = (math.log(max(float(chance[i]), 1e-12)) for i in (at - 1, at))
    share = (math.log(tail) - left) / (right - left) if right > left else 1.0
    return float(truth[at - 1] + share * (truth[at] - truth[at - 1]))
