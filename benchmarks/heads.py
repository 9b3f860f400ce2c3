"""The probe's whole sweep against scikit-learn's LogisticRegressionCV on the same values and folds.

    python benchmarks/heads.py                        # 20,000 x 1280 features of 50 classes
    python benchmarks/heads.py --images 4000 --width 256 --classes 10 --exact
    python benchmarks/heads.py --json                 # one JSON object as the last line

The features are made like those of a network: classes in a space of 64 directions, mixed into
positive features with noise; a fifth more of them are the test set. LogisticRegressionCV walks the
same 45 values of C over the same five folds, on features that were standardised before. At full
size that takes it an hour: without ``--exact`` a part of its (fold, C) pairs is run, each
warm-started from the one before as it does itself, and the time is that of the pairs run times how
many there are. The accuracies are of the best C of each, fitted on all images.

The limit is what remains of the sweep if a fit took one iteration: two matrix products (scores and
gradient), for each pair of fold and C that ours visits.
"""

import argparse
import json
import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from threadpoolctl import threadpool_limits

from graftline import machine
from graftline.steps.fit_head.config import ProbeSettings
from graftline.steps.fit_head.folds import Folds, make_folds
from graftline.steps.fit_head.linear import Scaling, standardisation
from graftline.steps.fit_head.search import Candidate, fit_candidate, search

Data = tuple[NDArray[np.float32], NDArray[np.int64]]


def main() -> None:
    """Run both and print the table."""
    options = arguments()
    (x, y), (test_x, test_y) = features(options.images, options.width, options.classes)
    names = tuple(str(number) for number in range(options.classes))
    folds = make_folds(y, np.arange(len(y)), names, options.folds, 0)
    grid = ProbeSettings().grid
    started = time.perf_counter()
    ranked = search(x, y, folds, options.classes, grid=grid, balanced=False)
    ours = time.perf_counter() - started
    best = ranked[0]
    fit, scaling = fit_candidate(x, y, options.classes, best, balanced=False)
    right = fit.decide(scaling.apply(test_x)).argmax(axis=1) == test_y
    z = standardisation(x, Scaling.EACH)
    theirs, their_best, measured = (exact if options.exact else sampled)(
        z.apply(x), y, folds, grid, options.pairs
    )
    reference = LogisticRegression(C=their_best, max_iter=1000).fit(z.apply(x), y)
    their_right = reference.predict(z.apply(test_x)) == test_y
    visited = sum(len(candidate.fold_accuracies) for candidate in ranked)
    floor = visited * one_iteration(x, options.classes, options.folds)
    table(ours, theirs, floor, best, their_best, float(right.mean()), float(their_right.mean()))
    if options.json:
        print(
            json.dumps(
                {
                    "times_faster_than_sklearn": round(theirs / ours, 2),
                    "accuracy_difference": round(float(right.mean() - their_right.mean()), 5),
                    "seconds": round(ours, 2),
                    "sklearn_seconds": round(theirs, 2),
                    "sklearn_measured": measured,
                    "limit_seconds": round(floor, 2),
                    "images": options.images,
                    "width": options.width,
                    "classes": options.classes,
                    "fits": visited,
                    "cores": machine.cores(),
                }
            )
        )


def features(images: int, width: int, classes: int, seed: int = 0) -> tuple[Data, Data]:
    """Positive, correlated features whose classes overlap: a training and a test set."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(classes, 64)) * 0.55
    mixing = random.normal(size=(64, width)) * (np.arange(1, 65) ** -0.5)[:, None]

    def draw(count: int) -> Data:
        y = random.integers(classes, size=count)
        hidden = centres[y] + random.normal(size=(count, 64))
        x = hidden.astype(np.float32) @ mixing.astype(np.float32)
        x += 0.7 * random.standard_normal(size=x.shape, dtype=np.float32) - 0.3
        return np.maximum(x, 0), y

    return draw(images), draw(images // 5)


def exact(
    z: NDArray[np.float32], y: NDArray[np.int64], folds: Folds, grid: Any, _pairs: int
) -> tuple[float, float, str]:
    """LogisticRegressionCV itself: seconds, the chosen C, and that all of it was run."""
    started = time.perf_counter()
    # What it spends on the last fit of all images is not part of the sweep.
    fitted = LogisticRegressionCV(
        Cs=list(grid), cv=list(folds), refit=False, use_legacy_attributes=False
    ).fit(z, y)
    seconds = time.perf_counter() - started
    scores = np.mean(fitted.scores_.reshape(folds.count, -1), axis=0)
    return seconds, float(grid[int(np.argmax(scores))]), "all"


def sampled(
    z: NDArray[np.float32], y: NDArray[np.int64], folds: Folds, grid: Any, pairs: int
) -> tuple[float, float, str]:
    """One fold's path, every so many values of C, as LogisticRegressionCV fits it."""
    fit_rows, held_out = next(iter(folds))
    chosen = list(grid)[:: max(1, len(grid) // pairs)]
    model = LogisticRegression(warm_start=True)
    seconds, scores = [], []
    for C in chosen:
        model.set_params(C=C)
        started = time.perf_counter()
        model.fit(z[fit_rows], y[fit_rows])
        seconds.append(time.perf_counter() - started)
        scores.append(model.score(z[held_out], y[held_out]))
    best = chosen[int(np.argmax(scores))]
    total = float(np.mean(seconds)) * len(grid) * folds.count
    return total, best, f"{len(chosen)} of {len(grid) * folds.count} fits"


def one_iteration(x: NDArray[np.float32], classes: int, folds: int) -> float:
    """Seconds of the two matrix products of one step on one fold, with all cores."""
    rows = torch.from_numpy(x[: len(x) * (folds - 1) // folds])
    weight = torch.zeros(classes, x.shape[1])
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        scores = rows @ weight.T
        scores.T @ rows
        best = min(best, time.perf_counter() - started)
    return best


def table(
    ours: float,
    theirs: float,
    floor: float,
    best: Candidate,
    their_best: float,
    accuracy: float,
    their_accuracy: float,
) -> None:
    """Times and accuracies."""
    print(f"{'':42}{'seconds':>10}{'accuracy':>10}")
    chosen = f"{best.family}, {best.scaling.value}, C {best.C:g}"
    print(f"{'probe sweep: ' + chosen:42}{ours:10.1f}{accuracy:10.4f}")
    reference = f"LogisticRegressionCV: C {their_best:g}"
    print(f"{reference:42}{theirs:10.1f}{their_accuracy:10.4f}")
    print(f"{'limit: one step a fit':42}{floor:10.1f}")
    print(f"{theirs / ours:.1f} times as fast, accuracy {accuracy - their_accuracy:+.4f}")


def arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--classes", type=int, default=50)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=9, help="values of C that scikit-learn fits")
    parser.add_argument("--exact", action="store_true", help="run all of LogisticRegressionCV")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    return parser.parse_args()


if __name__ == "__main__":
    with threadpool_limits(machine.cores()):
        main()
