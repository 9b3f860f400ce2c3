"""The probe's sweep against scikit-learn's LogisticRegressionCV on the same values and folds.

    python benchmarks/heads.py                        # 20,000 x 1280 features of 50 classes
    python benchmarks/heads.py --images 4000 --width 256 --classes 10 --exact
    python benchmarks/heads.py --json                 # one JSON object as the last line

The features are made like those of a network: classes in a space of 64 directions, mixed into
positive features with noise; a fifth more of them are the test set. Three sweeps of the 45 values
of C over five folds are timed:

- LogisticRegressionCV on standardised features. At full size that takes it an hour or more:
  without ``--exact`` a part of its (fold, C) fits is run, each warm-started from the one before as
  it does itself; the time is their mean times the number of all, and the output says so.
- ours, the same: logistic regression on standardised features, all images, coarse to fine;
- the whole search of the step: all families and scalings, on ``probe.search_images`` of the images.

Times are of the processor (all threads), which other work on the machine hardly changes. The
accuracies are of the best C of each, fitted on all images. The limit is a sweep whose fits take
one step each: two matrix products (scores and gradient) for every fit that our sweep visits.
"""

import argparse
import json
import sys
import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from threadpoolctl import threadpool_limits

from graftline import machine
from graftline.steps.fit_head.config import ProbeSettings
from graftline.steps.fit_head.probes.folds import Folds, make_folds, subsample
from graftline.steps.fit_head.probes.scaling import Scaling, standardisation
from graftline.steps.fit_head.probes.search import Candidate, fit_candidate, search

Data = tuple[NDArray[np.float32], NDArray[np.int64]]


def main() -> None:
    """Run the sweeps and print the table."""
    options = arguments()
    (x, y), test = features(options.images, options.width, options.classes)
    names = tuple(str(number) for number in range(options.classes))
    folds = make_folds(y, np.arange(len(y)), names, options.folds, 0)
    settings = ProbeSettings()

    started, wall = time.process_time(), time.perf_counter()
    same = search(
        x,
        y,
        folds,
        options.classes,
        grid=settings.grid,
        balanced=False,
        families=["logistic"],
        scalings=[Scaling.EACH],
    )
    ours, wall = time.process_time() - started, time.perf_counter() - wall
    rows = [(spoken("the same sweep", same[0]), ours, accuracy(same[0], (x, y), test))]
    progress(f"the same sweep: {ours:.1f} s of the processor, {wall:.1f} s, {rows[0][2]:.4f}")
    found: dict[str, Any] = {
        "seconds": round(ours, 2),
        "wall_seconds": round(wall, 2),
        "accuracy": round(rows[0][2], 5),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
    }
    if not options.same_only:
        whole, seconds = whole_search(x, y, names, settings, options.folds)
        rows.append((spoken("whole search", whole), seconds, accuracy(whole, (x, y), test)))
        progress(f"the whole search: {seconds:.1f} s of the processor, {rows[1][2]:.4f}")
        found["whole_search_seconds"] = round(seconds, 2)
        found["whole_search_accuracy"] = round(rows[1][2], 5)
    if not options.ours_only:
        row, measured = by_sklearn((x, y), test, folds, settings.grid, options)
        found |= {
            "times_faster_than_sklearn": round(row[1] / ours, 2),
            "accuracy_difference": round(rows[0][2] - row[2], 5),
            "sklearn_seconds": round(row[1], 2),
            "sklearn_measured": measured,
        }
        if not options.same_only:
            found["whole_search_times_faster"] = round(row[1] / rows[1][1], 2)
            found["whole_search_accuracy_difference"] = round(rows[1][2] - row[2], 5)
        rows.insert(0, row)
    fits = sum(len(candidate.fold_accuracies) for candidate in same)
    floor = fits * one_iteration(x, options.classes, options.folds)
    print(f"{'':72}{'seconds':>10}{'accuracy':>10}")
    for name, seconds, right in rows:
        print(f"{name:72}{seconds:10.1f}{right:10.4f}")
    print(f"{'limit: one step a fit':72}{floor:10.1f}")
    if options.json:
        size = {"images": options.images, "width": options.width, "classes": options.classes}
        limit = {"limit_seconds": round(floor, 2), "fits": fits, "cores": machine.cores()}
        print(json.dumps({**found, **limit, **size}))


def by_sklearn(
    train: Data, test: Data, folds: Folds, grid: Any, options: argparse.Namespace
) -> tuple[tuple[str, float, float], str]:
    """A row of LogisticRegressionCV, and how much of it was measured."""
    z = standardisation(train[0], Scaling.EACH)
    x, y = z.apply(train[0]), train[1]
    seconds, best, measured = (exact if options.exact else sampled)(
        x, y, folds, grid, options.pairs
    )
    progress(f"LogisticRegressionCV: {seconds:.0f} s, {measured}")
    reference = LogisticRegression(C=best, max_iter=1000).fit(x, y)
    right = float((reference.predict(z.apply(test[0])) == test[1]).mean())
    return (f"LogisticRegressionCV ({measured}): C {best:g}", seconds, right), measured


def progress(text: str) -> None:
    """The benchmark takes minutes: say what is done."""
    print(text, file=sys.stderr, flush=True)


def spoken(name: str, best: Candidate) -> str:
    """A row's name."""
    return f"{name}: {best.family}, {best.scaling.value}, C {best.C:g}"


def accuracy(best: Candidate, train: Data, test: Data) -> float:
    """Of the candidate fitted on all training images."""
    fit, scaling = fit_candidate(*train, int(train[1].max()) + 1, best, balanced=False)
    return float((fit.decide(scaling.apply(test[0])).argmax(axis=1) == test[1]).mean())


def whole_search(
    x: NDArray[np.float32],
    y: NDArray[np.int64],
    names: tuple[str, ...],
    settings: ProbeSettings,
    count: int,
) -> tuple[Candidate, float]:
    """The search as the step does it: the best candidate, and the processor time."""
    started = time.process_time()
    rows = subsample(y, np.arange(len(y)), settings.search_images, 0)
    folds = make_folds(y[rows], rows, names, count, 0)
    ranked = search(x[rows], y[rows], folds, len(names), grid=settings.grid, balanced=False)
    return ranked[0], time.process_time() - started


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
    started = time.process_time()
    # What it spends on the last fit of all images is not part of the sweep.
    fitted = LogisticRegressionCV(
        Cs=list(grid),
        cv=list(folds),
        refit=False,
        scoring="accuracy",
        l1_ratios=(0,),
        use_legacy_attributes=False,
    ).fit(z, y)
    seconds = time.process_time() - started
    scores = np.mean(fitted.scores_.reshape(folds.count, -1), axis=0)
    return seconds, float(grid[int(np.argmax(scores))]), "all fits"


def sampled(
    z: NDArray[np.float32], y: NDArray[np.int64], folds: Folds, grid: Any, pairs: int
) -> tuple[float, float, str]:
    """One fold's path, every so many values of C, as LogisticRegressionCV fits it.

    The values between the best one and its neighbours are fitted too, so that its choice is not
    worse for being sampled; they count for no time.
    """
    fit_rows, held_out = next(iter(folds))
    grid, step = list(grid), max(1, len(grid) // pairs)
    model, scores = LogisticRegression(warm_start=True), dict[float, float]()

    def path(values: list[float]) -> list[float]:
        seconds = []
        for C in values:
            model.set_params(C=C)
            started = time.process_time()
            model.fit(z[fit_rows], y[fit_rows])
            seconds.append(time.process_time() - started)
            scores[C] = float(model.score(z[held_out], y[held_out]))
        return seconds

    seconds = path(grid[::step])
    at = grid.index(max(scores, key=lambda C: scores[C]))
    path([C for C in grid[max(0, at - step + 1) : at + step] if C not in scores])
    best = max(scores, key=lambda C: scores[C])
    total = float(np.mean(seconds)) * len(grid) * folds.count
    return total, best, f"extrapolated from {len(seconds)} of {len(grid) * folds.count} fits"


def one_iteration(x: NDArray[np.float32], classes: int, folds: int) -> float:
    """Seconds of the two matrix products of one step on one fold."""
    rows = torch.from_numpy(x[: len(x) * (folds - 1) // folds])
    weight = torch.zeros(classes, x.shape[1])
    best = float("inf")
    for _ in range(5):
        started = time.process_time()
        scores = rows @ weight.T
        scores.T @ rows
        best = min(best, time.process_time() - started)
    return best


def arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--classes", type=int, default=50)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=9, help="values of C that scikit-learn fits")
    parser.add_argument("--same-only", action="store_true", help="leave out the whole search")
    parser.add_argument("--ours-only", action="store_true", help="leave out scikit-learn")
    parser.add_argument("--exact", action="store_true", help="run all of LogisticRegressionCV")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    return parser.parse_args()


if __name__ == "__main__":
    with threadpool_limits(machine.cores()):
        main()
