"""A model of the answers to few test images: chances of right and wrong by class.

Classes of few images borrow from the others, as much as a Dirichlet-multinomial allows that the
counts do not reject: the most even one within its 95% likelihood interval.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import special

from graftline.stats.intervals import correlation

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_ROWS = 24  # with more classes wrong labels are drawn for all of them together
_ALONE = np.array([0.0, 1.0])  # wrong, right
_BESIDE = np.array([0.0, 1.0, -1.0, 0.0])  # both right, gained, lost, both wrong


@dataclass(frozen=True)
class Answers:
    """Answers of one model, or of two models to the same images.

    Attributes:
        labels: Class index of each image, shape (n,).
        given: Class index that the model gives, shape (n,).
        other: Class index that the second model gives, shape (n,); None with one model.
        groups: Group number, shape (n,), or None where images stand alone.
    """

    labels: Ints
    given: Ints
    other: Ints | None = None
    groups: Ints | None = None


@dataclass
class AnswerModel:
    """The fitted model, and what was seen; K classes with test images, J outcomes, M models.

    Attributes:
        counts: Seen outcomes, shape (K, J).
        false: Wrong labels of each class that were given, by model, shape (M, labels).
        chance: Fitted chance of each outcome, shape (K, J).
        tilt: Weight of a class in the tilting, shape (K,).
        clusters: Groups of each size by class: size to shape (K,).
        together: Share of the groups that answer as one.
        wrong: By model, chances of the wrong labels, see :class:`WrongLabels`.
        same: Of images that both models get wrong, the share with the same wrong label.
        widen: By how much more groups of several classes vary.
    """

    counts: Floats
    false: Floats
    chance: Floats
    scores: Floats
    tilt: Floats
    clusters: dict[int, Floats]
    together: float
    wrong: list["WrongLabels"]
    same: float
    widen: float
    images: Floats = field(init=False)

    def __post_init__(self) -> None:
        self.images = self.counts.sum(axis=1)

    @classmethod
    def of(cls, answers: Answers) -> "AnswerModel":
        """The model of some answers."""
        given = [answers.given] if answers.other is None else [answers.given, answers.other]
        present, labels = np.unique(answers.labels, return_inverse=True)
        right = [column == answers.labels for column in given]
        if answers.other is None:
            outcome, scores = right[0].astype(np.int64), _ALONE
        else:
            outcome = np.where(right[0], np.where(right[1], 0, 1), np.where(right[1], 2, 3))
            scores = _BESIDE
        counts = np.zeros((len(present), len(scores)))
        np.add.at(counts, (labels, outcome), 1.0)
        chance = _borrowed(counts)
        value = scores[outcome]
        groups = answers.groups
        together = 0.0
        if groups is not None:
            together = correlation(value - (chance @ scores)[labels], value, groups)
        clusters, effective = _clusters(labels, groups, len(present), together)
        tilt = 1 / effective
        # A wrong label may also be of a class without test images: they share one place, the last.
        column_of = np.full(
            max(int(max(g.max() for g in given)), int(present.max())) + 1, len(present)
        )
        column_of[present] = np.arange(len(present))
        wrong = [WrongLabels.of(labels, column_of[column], len(present)) for column in given]
        both = ~right[0] & ~right[-1]
        same = 0.0
        if len(given) == 2:
            same = (int((both & (given[0] == given[1])).sum()) + 0.5) / (int(both.sum()) + 1)
        return cls(
            counts=counts,
            false=np.stack([one.seen for one in wrong]),
            chance=chance,
            scores=scores,
            tilt=tilt / tilt.max(),
            clusters=clusters,
            together=together,
            wrong=wrong,
            same=same,
            widen=_across_classes(labels, groups, chance, scores, tilt, together),
        )

    def shifted(self, at: Floats) -> tuple[Floats, Floats]:
        """Chances along the family, shape (len(at), K, J), and the log of their sums, (.., K)."""
        logs = np.log(self.chance) + at[:, None, None] * self.tilt[:, None] * self.scores
        most = logs.max(axis=2, keepdims=True)
        chances = np.exp(logs - most)
        sums = chances.sum(axis=2, keepdims=True)
        return chances / sums, (np.log(sums) + most)[..., 0]

    def worths(self) -> Floats:
        """1 divided by what the images of each class are worth, shape (K,)."""
        squares = np.sum([size**2 * number for size, number in self.clusters.items()], axis=0)
        effect = 1 + self.together * (squares / self.images - 1)
        return np.asarray(effect / self.images)


class WrongLabels:
    """Which wrong labels are given: by true class with few classes, over all with many.

    Attributes:
        seen: How often each label was wrongly given, shape (K + 1,); the last is of no class that
            has test images.
    """

    def __init__(self, rows: Floats | None, pooled: Floats, seen: Floats) -> None:
        self.rows, self.pooled, self.seen = rows, pooled, seen

    @classmethod
    def of(cls, labels: Ints, given: Ints, classes: int) -> "WrongLabels":
        """From the labels and what was given."""
        errors = given != labels
        seen = np.bincount(given[errors], minlength=classes + 1).astype(np.float64)
        even = np.r_[np.ones(classes), 1e-3]
        pooled = _borrowed(seen[None], even[None] / even.sum())[0]
        if classes > _ROWS:
            return cls(None, pooled, seen)
        confusion = np.zeros((classes, classes + 1))
        np.add.at(confusion, (labels[errors], given[errors]), 1.0)
        base = np.tile(pooled, (classes, 1))
        base[np.arange(classes), np.arange(classes)] = 0.0
        base = np.maximum(base, 1e-12 * (base > 0))
        base /= base.sum(axis=1, keepdims=True)
        return cls(_borrowed(confusion, base), pooled, seen)

    def expected(self, errors: Floats) -> Floats:
        """Mean number of wrong labels by class; errors of each class, shape (R, K)."""
        if self.rows is not None:
            return np.asarray(errors @ self.rows)
        scaled = errors / (1 - self.pooled[:-1])
        own = np.concatenate([scaled, np.zeros((len(scaled), 1))], axis=1)
        return np.asarray(self.pooled * (scaled.sum(axis=1, keepdims=True) - own))

    def drawn(self, errors: Ints, rng: np.random.Generator) -> Floats:
        """A draw of them, shape (R, K + 1)."""
        if self.rows is not None:
            total = np.zeros((len(errors), self.rows.shape[1]))
            for row, chances in enumerate(self.rows):
                total += rng.multinomial(errors[:, row], chances / chances.sum())
            return total
        rates = self.expected(errors.astype(np.float64))
        rates = np.where(rates.sum(axis=1, keepdims=True) > 0, rates, 1.0)
        chances = rates / rates.sum(axis=1, keepdims=True)
        return rng.multinomial(errors.sum(axis=1), chances).astype(np.float64)


def _borrowed(counts: Floats, base: Floats | None = None) -> Floats:
    """Chances of each row's outcomes, drawn towards the base: the most even not rejected.

    Args:
        counts: Shape (rows, outcomes).
        base: Chances to be drawn to, of each row; the rows' own mean for None.
    """
    total = counts.sum(axis=1, keepdims=True)
    strength = np.geomspace(0.5, 1e6, 32)
    if base is None:
        pooled = (counts / np.sqrt(np.maximum(total, 1))).sum(axis=0)
        pooled = pooled / pooled.sum() + 1e-3 / counts.sum()
        base = np.tile(pooled / pooled.sum(), (len(counts), 1))
    held = (total[:, 0] > 0).nonzero()[0]
    if not len(held):
        return base
    likelihood = np.array([_dirichlet(counts[held], k * base[held]) for k in strength])
    best = likelihood.max() - 1.92  # half the 95% quantile of chi-squared with 1 degree
    k = strength[(likelihood >= best).nonzero()[0].max()]
    return np.asarray((counts + k * base) / (total + k))


def _dirichlet(counts: Floats, prior: Floats) -> float:
    """Log-likelihood of a Dirichlet-multinomial, up to what the prior does not change."""
    whole, known = prior.sum(axis=1), prior > 0
    safe = np.where(known, prior, 1.0)
    parts = np.where(known, special.gammaln(counts + safe) - special.gammaln(safe), 0.0)
    ends = special.gammaln(whole) - special.gammaln(whole + counts.sum(axis=1))
    return float((ends + parts.sum(axis=1)).sum())


def _clusters(
    labels: Ints, groups: Ints | None, classes: int, together: float
) -> tuple[dict[int, Floats], Floats]:
    """Groups of each size by class, and what the images of each class are worth."""
    images = np.bincount(labels, minlength=classes).astype(np.float64)
    if groups is None:
        return {1: images}, images
    _, number = np.unique(groups, return_inverse=True)
    _, first, size = np.unique(
        labels * (int(number.max()) + 1) + number, return_index=True, return_counts=True
    )
    of = labels[first]
    clusters = {
        int(one): np.bincount(of[size == one], minlength=classes).astype(np.float64)
        for one in np.unique(size)
    }
    squares = np.bincount(of, weights=size.astype(np.float64) ** 2, minlength=classes)
    return clusters, images / (1 + together * (squares / images - 1))


def _across_classes(
    labels: Ints,
    groups: Ints | None,
    chance: Floats,
    scores: Floats,
    tilt: Floats,
    together: float,
) -> float:
    """Variance with groups of several classes, as a multiple of that with each class apart."""
    if groups is None or together == 0.0:
        return 1.0
    deviation = np.sqrt(np.maximum(chance @ scores**2 - (chance @ scores) ** 2, 1e-12))
    weight = (tilt * deviation)[labels]
    _, number = np.unique(groups, return_inverse=True)
    _, cell = np.unique(labels * (int(number.max()) + 1) + number, return_inverse=True)
    apart = float((np.bincount(cell, weights=weight) ** 2).sum())
    whole = float((np.bincount(number, weights=weight) ** 2).sum())
    alone = float((weight**2).sum())
    return 1 + together * (whole - apart) / (together * apart + (1 - together) * alone)
