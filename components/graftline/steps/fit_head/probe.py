"""Features in, figures out: what the frozen features are worth on this data."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftline.data.snapshot import Snapshot
from graftline.errors import DataError
from graftline.features.matrix import Features
from graftline.stats.wording import counted
from graftline.steps.fit_head.config import HeadSettings, ProbeSettings
from graftline.steps.fit_head.decision.learning_curve import learning_curve
from graftline.steps.fit_head.head_candidate import head_candidate
from graftline.steps.fit_head.probes.divided import Divided
from graftline.steps.fit_head.probes.folds import Folds, make_folds, subsample
from graftline.steps.fit_head.probes.scaling import Matrix
from graftline.steps.fit_head.probes.search import Candidate, knn_accuracies, search
from graftline.steps.fit_head.suspects import (
    Probabilities,
    Scores,
    hardest_pairs,
    out_of_fold,
    probabilities,
    suspects,
)

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Measured:
    """The best candidate and everything that was measured on the way.

    Attributes:
        best: The candidate that is fitted in the end.
        figures: For the decision record.
        notes: For it, too.
        scores: Of the best candidate for each of the images that were searched, fitted without
            it, shape (N, classes).
        labels: Of these images, shape (N,).
        units: How many of them are independent: groups where there are any.
    """

    best: Candidate
    figures: dict[str, Any]
    notes: list[str]
    scores: Scores
    labels: Rows
    units: int

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether each of the images that were searched was recognised while held out."""
        found: NDArray[np.bool_] = self.scores.argmax(axis=1) == self.labels
        return found


def check(snapshot: Snapshot, features: Features, backbone: str) -> None:
    """Refuse data that no classifier can be fitted on.

    Raises:
        DataError: Under two classes in train, no validation image, features that are not
            finite or belong to another snapshot.
    """
    if features.snapshot_id != snapshot.id or len(features.matrix) != len(snapshot.labels()):
        raise DataError(
            f"the features belong to snapshot {features.snapshot_id}, not to {snapshot.id}",
            fix="extract the features of this snapshot",
        )
    labels = snapshot.labels()
    in_train = np.unique(labels[snapshot.rows("train")])
    if len(in_train) < 2:
        named = ", ".join(snapshot.classes[i] for i in in_train) or "none"
        raise DataError(
            f"the training split holds {counted(len(in_train), 'class', 'classes')}: {named}",
            why="a classifier needs at least two classes",
            fix="add labelled images of another class, or correct the label column",
        )
    if not len(snapshot.rows("val")):
        raise DataError(
            "the validation split is empty",
            why="it decides between models and calibrates the probabilities",
            fix="give data.split.val a larger share, or put images in val in the split column",
        )
    for start in range(0, len(features.matrix), 65536):
        piece = np.asarray(features.matrix[start : start + 65536])
        bad = np.flatnonzero(~np.isfinite(piece).all(axis=1))
        if len(bad):
            row = start + int(bad[0])
            raise DataError(
                f"the features of image {snapshot.image_ids()[row][:16]} "
                f"({snapshot.column('source')[row]}) hold NaN or infinity",
                why=f"{backbone} overflowed on it, or its weights are damaged",
                fix="extract with extract.precision: fp32, and check the weights",
            )


def measure(
    snapshot: Snapshot,
    matrix: Matrix,
    settings: ProbeSettings,
    seed: int,
    head: HeadSettings | None = None,
) -> Measured:
    """Cross-validate k-NN and the linear candidates on the training split.

    Args:
        snapshot: The data.
        matrix: Features of every manifest row, shape (N, feature_dim).
        settings: Grid, folds, neighbours.
        seed: Of folds and sample.
        head: Of the head that competes with the probes; None where it does not.
    """
    train = snapshot.rows("train")
    labels, groups = snapshot.labels()[train], group_numbers(snapshot)[train]
    chosen = subsample(labels, groups, settings.search_images, seed)
    rows, y, g = train[chosen], labels[chosen], groups[chosen]
    x = np.ascontiguousarray(matrix[rows], dtype=np.float32)
    folds = make_folds(y, g, snapshot.classes, settings.folds, seed)
    classes = len(snapshot.classes)
    knn = knn_accuracies(x, y, folds, settings.knn, classes)
    divided, balanced = Divided(x, y, folds), settings.balanced
    candidates = search(
        x, y, folds, classes, grid=settings.grid, balanced=balanced, divided=divided
    )
    scores = out_of_fold(divided, classes, candidates[0], balanced=balanced)
    curve = learning_curve(
        x,
        y,
        g,
        folds,
        scores,
        candidates[0],
        train_images=len(train),
        balanced=balanced,
        seed=seed,
    )
    figures = _figures(snapshot, labels, folds, knn, candidates, rows)
    figures["learning_curve"] = curve
    if head is not None:
        figures["head_candidate"] = head_candidate(divided, classes, scores, head, seed)
    logistic = next(candidate for candidate in candidates if candidate.family == "logistic")
    said = scores
    if logistic is not candidates[0]:
        said = out_of_fold(divided, classes, logistic, balanced=balanced)
    figures |= _doubtful(snapshot, rows, y, probabilities(said))
    notes = [*folds.notes, *_notes(snapshot, labels, train, rows), curve["sentence"]]
    return Measured(candidates[0], figures, notes, scores, y, folds.effective)


def _doubtful(snapshot: Snapshot, rows: Rows, y: Rows, said: Probabilities) -> dict[str, Any]:
    """Suspected label errors and the hardest pairs, by the best logistic regression."""
    return {
        "suspects": suspects(snapshot, rows, y, said),
        "hardest_pairs": hardest_pairs(y, said, snapshot.classes),
    }


def group_numbers(snapshot: Snapshot) -> Rows:
    """A number for each row's group; rows without a group are groups of their own."""
    names = [str(name) if name else "" for name in snapshot.column("group")]
    own = [name or f"\0{row}" for row, name in enumerate(names)]
    _, numbers = np.unique(np.asarray(own), return_inverse=True)
    return numbers.astype(np.int64)


def _figures(
    snapshot: Snapshot,
    labels: Rows,
    folds: Folds,
    knn: dict[int, float],
    candidates: list[Candidate],
    searched: Rows,
) -> dict[str, Any]:
    counts = np.bincount(labels, minlength=len(snapshot.classes))
    nearest = max(knn, key=lambda k: knn[k])
    return {
        "classes": len(snapshot.classes),
        "train_images": len(labels),
        "images_per_class": {
            "min": int(counts.min()),
            "median": float(np.median(counts)),
            "max": int(counts.max()),
        },
        "majority": round(float(counts.max() / counts.sum()), 6),
        "folds": folds.count,
        "grouped": folds.grouped,
        "searched_images": len(searched),
        "knn": {
            "k": nearest,
            "accuracy": round(knn[nearest], 6),
            "by_k": {str(k): round(value, 6) for k, value in knn.items()},
        },
        "probe": candidates[0].to_dict(),
        "candidates": [candidate.to_dict() for candidate in candidates],
    }


def _notes(snapshot: Snapshot, labels: Rows, train: Rows, searched: Rows) -> list[str]:
    notes = []
    counts = np.bincount(labels, minlength=len(snapshot.classes))
    absent = [snapshot.classes[i] for i in np.flatnonzero(counts == 0)]
    if absent:
        shown = ", ".join(absent[:10]) + (f" and {len(absent) - 10} more" if absent[10:] else "")
        notes.append(f"No training image shows: {shown}. The model hardly ever answers these.")
    if len(searched) < len(train):
        notes.append(
            f"The grid was searched on a stratified sample of {len(searched):,} of "
            f"{len(train):,} training images; the chosen classifier was fitted on all of them."
        )
    return notes
