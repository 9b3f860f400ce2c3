"""What the gate decides by: which test images each model gets right."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from graftline.stats.paired_tests import effective_images, score_bound, score_statistic

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Champion:
    """The champion's answers to the same test images.

    Attributes:
        version: Registered version, for the sentences.
        right: Whether it gave the right label, shape (n,).
        comparable: Images that count: known classes, not in its training. Shape (n,).
        same_snapshot: Whether it was trained on the challenger's snapshot.
        removed_classes: Classes that it knows and the challenger does not.
        new_classes: Classes that only the challenger knows.
    """

    version: str
    right: Bools
    comparable: Bools
    same_snapshot: bool = False
    removed_classes: tuple[str, ...] = ()
    new_classes: tuple[str, ...] = ()
    same_answers: bool = False


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What the gate decides by; arrays are over all test images.

    Attributes:
        labels: Class index, shape (n,).
        right: Whether the challenger gave the right label, shape (n,).
        classes: Class names.
        majority: The most frequent class of the training split; not decided by: a first model is
            compared with the best constant answer to the test images.
        groups: Group number, shape (n,), or None where images stand alone.
        champion: None for a first model.
        ece: The challenger's calibration error after scaling; None where it was not measured.
        ece_noise: What a perfectly calibrated model would stay below on these images.
        slices: Guarded slices: name to the images in it.
        given: Class index that the challenger gave, shape (n,); None where it is not known.
    """

    labels: Ints
    right: Bools
    classes: tuple[str, ...]
    majority: int
    groups: Ints | None = None
    champion: Champion | None = None
    ece: float | None = None
    ece_noise: float = 0.0
    slices: dict[str, Bools] = field(default_factory=dict)
    given: Ints | None = None


@dataclass(frozen=True)
class Paired:
    """Challenger against champion on a set of images.

    Attributes:
        gained: Images that only the challenger gets right.
        lost: Images that only the champion gets right.
        n: Images.
        effective: What they are worth, where groups make them depend on one another.
    """

    gained: int
    lost: int
    n: int
    effective: float

    @property
    def difference(self) -> float:
        """Accuracy of the challenger minus that of the champion."""
        return (self.gained - self.lost) / self.n if self.n else 0.0

    def bound(self, confidence: float, side: str) -> float:
        """One-sided score bound of the difference."""
        scale = self.effective / self.n if self.n else 0.0
        return score_bound(self.gained * scale, self.lost * scale, self.effective, confidence, side)

    def z(self, difference: float) -> float:
        """Score statistic against an assumed true difference."""
        scale = self.effective / self.n if self.n else 0.0
        if not self.n:
            return 0.0
        return score_statistic(self.gained * scale, self.lost * scale, self.effective, difference)


def paired(evidence: Evidence, images: Bools) -> Paired:
    """Counts over some images."""
    assert evidence.champion is not None
    new, old = evidence.right[images], evidence.champion.right[images]
    groups = None if evidence.groups is None else evidence.groups[images]
    differences = new.astype(np.int64) - old
    return Paired(
        gained=int((new & ~old).sum()),
        lost=int((old & ~new).sum()),
        n=len(new),
        effective=effective_images(differences, groups),
    )
