"""The folds of a cross-validation, standardised and turned once for all that is fitted on them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from graftline.steps.fit_head.probes.folds import Folds, Index
from graftline.steps.fit_head.probes.linear import LinearFit, on_device
from graftline.steps.fit_head.probes.parallel import side_by_side
from graftline.steps.fit_head.probes.scaling import (
    WIDEST,
    Matrix,
    Scaling,
    principal,
    standardisation,
    turned,
)


class Part:
    """A fold with its features standardised by its own fit rows and turned.

    Attributes:
        rows: The held-out rows.
        fit: Features that are fitted, on their device.
        fit_labels: Their labels.
        spread: Variance of each direction; None where they were not turned.
        held_out: Features of the held-out rows.
        held_out_labels: Their labels.
    """

    def __init__(
        self,
        features: Matrix,
        labels: Index,
        fold: tuple[Index, Index],
        scaling: Scaling,
        turn: NDArray[np.float64] | None,
    ) -> None:
        fit, self.rows = fold
        raw = features[fit]
        by = standardisation(raw, scaling, labels[fit], in_span=turn is None)
        in_span = by.rotation is not None and scaling is not Scaling.WITHIN  # principal directions
        if turn is None and not in_span and by.kept <= WIDEST:
            turn = principal(by.apply(raw))
        if turn is not None:
            by = turned(by, turn)
        inside = by.apply(raw)
        uncorrelated = in_span or turn is not None
        self.spread = inside.var(axis=0, dtype=np.float64) if uncorrelated else None
        self.fit, self.fit_labels = on_device(inside), labels[fit]
        self.held_out, self.held_out_labels = by.apply(features[self.rows]), labels[self.rows]

    def correct(self, fit: LinearFit) -> int:
        """How many held-out rows it labels correctly."""
        return int((fit.decide(self.held_out).argmax(axis=1) == self.held_out_labels).sum())


class Divided:
    """The folds, prepared for a scaling when it is first asked for.

    Args:
        features: Raw features, shape (N, feature_dim).
        labels: Class indices, shape (N,).
        folds: Fold of each row.
    """

    def __init__(self, features: Matrix, labels: Index, folds: Folds) -> None:
        self.features, self.labels, self.folds = features, labels, folds
        self._rows = list(folds)
        self._turns: dict[Scaling, NDArray[np.float64] | None] = {}
        self._parts: dict[tuple[Scaling, int], Part] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def parts(self, scaling: Scaling, numbers: Sequence[int] | None = None) -> list[Part]:
        """The folds with these numbers, or all."""
        wanted = range(len(self._rows)) if numbers is None else numbers
        if scaling not in self._turns:
            self._turns[scaling] = _common_turn(self.features, self.labels, scaling)
        missing = [number for number in wanted if (scaling, number) not in self._parts]

        def prepare(number: int) -> Part:
            turn = self._turns[scaling]
            return Part(self.features, self.labels, self._rows[number], scaling, turn)

        made = side_by_side(prepare, missing)
        self._parts |= {(scaling, n): part for n, part in zip(missing, made, strict=True)}
        return [self._parts[scaling, number] for number in wanted]

    def forget(self, *, all_but: Sequence[Scaling]) -> None:
        """Free the memory of scalings that nothing is fitted on any more."""
        kept = {key: part for key, part in self._parts.items() if key[0] in all_but}
        self._parts = kept


def _common_turn(features: Matrix, labels: Index, scaling: Scaling) -> NDArray[np.float64] | None:
    """Principal directions of all images, near enough those of every fold: found once.

    It is a turn and nothing else: no fold learns from it what its held-out images are. None with
    so few images that each fold is quickly turned by itself, and with too many features.
    """
    count, width = features.shape
    if count <= width // 2 or width > WIDEST:
        return None
    return principal(standardisation(features, scaling, labels).apply(features))
