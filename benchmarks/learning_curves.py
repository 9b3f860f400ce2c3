"""Does the learning curve's interval hold what twice the images really bring? Set by set.

    python benchmarks/learning_curves.py --pictures FOLDER [--sizes 50 100 200 400 800] [--json]

FOLDER is that of ``decision.py --pictures``. A trial draws N images of a data set, asks the curve
what N more would bring, adds them, and compares on all other images. Such a gain differs by the
chance of the test images as well, which is not taken off. The interval has one factor that trials
have set (``LEAST_DOUBT``): here each data set is judged by the smallest factor that covers 95% on
all other sets, and by the factor of this version.
"""

import argparse
import json
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from deciding.sets import SETS
from head_views import BACKBONE, IMAGE_SIZE, Floats, Rows, features, read
from rich.console import Console
from rich.table import Table

from graftline.models.backbone import build
from graftline.steps.fit_head.decision import learning_curve as curves
from graftline.steps.fit_head.probes.divided import Divided
from graftline.steps.fit_head.probes.folds import make_folds
from graftline.steps.fit_head.probes.search import Candidate, fit_candidate, search
from graftline.steps.fit_head.suspects import out_of_fold

SHIPPED = curves.LEAST_DOUBT
FACTORS = tuple(step / 4 for step in range(21))
COVERED = 0.95
GRID = (0.003, 0.03, 0.3)
LEAST_TEST = 200

console = Console(stderr=True)


@dataclass(frozen=True)
class Trial:
    """One doubling.

    Attributes:
        set: The data set.
        images: Before it.
        expected: Gain.
        low: Of the interval without the factor.
        high: Of it.
        gained: On the test images.
    """

    set: str
    images: int
    expected: float
    low: float
    high: float
    gained: float

    def held(self, factor: float) -> bool:
        """Whether the interval with a factor holds the gain."""
        least = factor * abs(self.expected)
        low, high = min(self.low, self.expected - least), max(self.high, self.expected + least)
        return low <= self.gained <= high


def main() -> None:
    """Run the trials and print the coverage of each set."""
    options = arguments()
    curves.LEAST_DOUBT = 0.0
    found = [trial for name in options.sets for trial in trials(name, options)]
    table = Table("data set", "trials", "factor from others", "held", "held by the shipped factor")
    held = dict[str, list[bool]]()
    for name in options.sets:
        mine = [trial for trial in found if trial.set == name]
        if not mine:
            continue
        factor = fitted([trial for trial in found if trial.set != name])
        held[name] = [trial.held(factor) for trial in mine]
        shipped = sum(trial.held(SHIPPED) for trial in mine)
        table.add_row(name, str(len(mine)), f"{factor:g}", str(sum(held[name])), str(shipped))
    console.print(table)
    every = [one for some in held.values() for one in some]
    result = {
        "trials": len(found),
        "datasets": len(held),
        "coverage_leave_one_set_out": round(statistics.mean(every), 4),
        "coverage_shipped": round(statistics.mean(t.held(SHIPPED) for t in found), 4),
        "coverage_without_factor": round(statistics.mean(t.held(0.0) for t in found), 4),
        "factor_shipped": SHIPPED,
        "factor_fitted_on_all": fitted(found),
        "mean_error_points": round(
            100 * statistics.mean(abs(t.expected - t.gained) for t in found), 2
        ),
    }
    print(json.dumps(result) if options.json else result)


def fitted(some: list[Trial]) -> float:
    """The smallest factor that covers enough of these."""
    for factor in FACTORS:
        if statistics.mean(trial.held(factor) for trial in some) >= COVERED:
            return factor
    return FACTORS[-1]


def trials(name: str, options: argparse.Namespace) -> Iterator[Trial]:
    """Every size and seed that leaves enough images to test on."""
    x, y = of_all(options.pictures / name)
    for images in options.sizes:
        for seed in range(options.seeds if 2 * images + LEAST_TEST <= len(y) else 0):
            order = np.random.default_rng(seed).permutation(len(y))
            done = trial(
                name, x, y, order[:images], order[images : 2 * images], order[2 * images :]
            )
            if done is not None:
                console.print(done)
                yield done


def trial(name: str, x: Floats, y: Rows, now: Rows, more: Rows, test: Rows) -> Trial | None:
    """What the curve expects of more images, and what they bring; None where it is silent."""
    classes = int(y.max()) + 1
    there, labels = np.ascontiguousarray(x[now]), y[now]
    folds = make_folds(labels, np.arange(len(now)), tuple(map(str, range(classes))), 5, 0)
    divided = Divided(there, labels, folds)
    best = search(there, labels, folds, classes, grid=GRID, balanced=False, divided=divided)[0]
    curve = curves.learning_curve(
        there,
        labels,
        np.arange(len(now)),
        folds,
        out_of_fold(divided, classes, best, balanced=False),
        best,
        train_images=len(now),
        balanced=False,
        seed=0,
    )
    if "twice" not in curve:
        return None
    before, after = (
        accuracy(x, y, rows, test, best) for rows in (now, np.concatenate([now, more]))
    )
    twice = curve["twice"]
    low, high = twice["gain_interval"]
    return Trial(name, len(now), twice["gain"], low, high, after - before)


def accuracy(x: Floats, y: Rows, rows: Rows, test: Rows, best: Candidate) -> float:
    """Of the candidate fitted on some images."""
    fit, scaling = fit_candidate(
        np.ascontiguousarray(x[rows]), y[rows], int(y.max()) + 1, best, balanced=False
    )
    return float((fit.decide(scaling.apply(x[test])).argmax(axis=1) == y[test]).mean())


def of_all(folder: Path) -> tuple[Floats, Rows]:
    """Features and labels of a data set, kept in its folder."""
    kept = folder / f"features-{IMAGE_SIZE}.npz"
    if not kept.exists():
        images, labels, _ = read(folder / "all.csv")
        backbone = build(BACKBONE, image_size=IMAGE_SIZE)
        x = np.concatenate(
            [features(backbone, images[at : at + 100]) for at in range(0, len(images), 100)]
        )
        np.savez(kept, x=x, y=labels)
    loaded = np.load(kept)
    return loaded["x"], loaded["y"]


def arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--sizes", nargs="+", type=int, default=[50, 100, 200, 400, 800])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    return parser.parse_args()


if __name__ == "__main__":
    main()
