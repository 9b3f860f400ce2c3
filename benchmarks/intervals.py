"""How often the 95% intervals hold the truth, and how wide they are: simulated test splits.

    python benchmarks/intervals.py                       1,000 test splits a case
    python benchmarks/intervals.py --simulations 200     a quick look
    python benchmarks/intervals.py --case d20x2 --case grouped

Each case is a truth: images of each class, and for each model a table of what it answers to each
class. Test splits are drawn from it, the evaluation's own functions are asked for the intervals,
and the truth, computed from the table by the definitions, is or is not inside. Grouped images are
right or wrong together in seven groups of ten. Nothing of the judge is taken from the code that is
judged: answers are drawn image by image, and the widths are compared with those of formulas from
scipy (Clopper and Pearson's for one model, the normal one for a difference), with the number of
independent images.

With --json the last line is one JSON object: `coverage` and `width` by case and figure, `relative`
(the mean width, divided by the formula's, of accuracies), `least_coverage`, `simulations`. The exit
status is 1 where less than 93% are covered beyond chance.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import stats

from graftline import machine
from graftline.stats.intervals import Bootstrap
from graftline.steps.evaluate import metrics

LEAST = 0.93
TOGETHER = 0.7
FIGURES = ("accuracy", "balanced_accuracy", "macro_f1")
PIECE = 50


@dataclass(frozen=True)
class Case:
    """A truth.

    Attributes:
        name: For the table.
        images: Of each class.
        recall: True recall of each class.
        other: That of a second model, or none.
        skewed: Whether wrong labels fall on a few classes.
        group: Images in a group.
        mixed: Whether groups hold images of several classes.
        drawn: Whether the classes of the images are drawn too.
    """

    name: str
    images: tuple[int, ...]
    recall: tuple[float, ...]
    other: tuple[float, ...] = ()
    skewed: bool = False
    group: int = 1
    mixed: bool = False
    drawn: bool = False


def even(classes: int, each: int, recall: float, other: float | None = None, **more: int) -> Case:
    """Classes that are all alike."""
    name = f"{classes} x {each}, {recall:.0%}"
    if other is not None:
        name += f" against {other:.0%}"
    if "group" in more:
        name += f", groups of {more['group']}" + ", mixed" * ("mixed" in more)
    second = () if other is None else (other,) * classes
    return Case(name, (each,) * classes, (recall,) * classes, second, **more)  # type: ignore[arg-type]


SPREAD = tuple(np.random.default_rng(2).beta(3, 1, 100).round(3).tolist())
CASES = (
    *(even(c, n, p) for c, n in ((5, 1), (3, 2), (2, 3), (5, 2)) for p in (0.6, 0.9, 0.99)),
    *(even(c, n, p) for c, n in ((20, 1), (20, 2), (10, 3)) for p in (0.6, 0.9, 0.98)),
    even(200, 1, 0.8),
    even(100, 3, 0.9),
    even(100, 3, 0.99),
    even(10, 20, 0.97),
    even(5, 100, 0.95),
    even(10, 500, 0.9),
    Case("100 x 3, 10% to 100%, skewed", (3,) * 100, SPREAD, skewed=True),
    Case("5 x 1, 30% to 99%", (1,) * 5, (0.99, 0.9, 0.7, 0.5, 0.3)),
    Case("1000 and 5", (1000, 5), (0.98, 0.8)),
    Case("90, 10 and 3", (90, 10, 3), (0.95, 0.8, 0.6)),
    Case("40, 4, 2 and 1, skewed", (40, 4, 2, 1), (0.95, 0.8, 0.6, 0.5), skewed=True),
    Case("45 and 5, drawn", (45, 5), (0.95, 0.6), drawn=True),
    Case(
        "10 x 200, 60% to 99%, skewed",
        (200,) * 10,
        tuple(np.linspace(0.6, 0.99, 10).round(3).tolist()),
        skewed=True,
    ),
    even(4, 25, 0.9, group=5),
    even(3, 10, 0.95, group=5),
    even(5, 100, 0.9, group=5),
    even(4, 32, 0.85, group=4, mixed=True),
    even(5, 1, 0.8, 0.6),
    even(5, 1, 0.95, 0.95),
    even(3, 2, 0.9, 0.5),
    even(20, 1, 0.9, 0.7),
    even(20, 2, 0.9, 0.8),
    even(10, 10, 0.99, 0.99),
    even(100, 3, 0.9, 0.85),
    even(10, 200, 0.95, 0.93),
    even(4, 25, 0.9, 0.8, group=5),
    even(4, 32, 0.9, 0.8, group=4, mixed=True),
    Case("100, 10 and 3, two models", (100, 10, 3), (0.95, 0.8, 0.7), (0.9, 0.8, 0.4)),
)


def tables(case: Case) -> list[np.ndarray]:
    """Chance of each answer (column) to each class (row), by model."""
    rng = np.random.default_rng(len(case.name))
    result = []
    for recall in (case.recall, case.other) if case.other else (case.recall,):
        classes = len(recall)
        wrong = rng.dirichlet(np.full(classes, 0.3 if case.skewed else 1e6), classes)
        np.fill_diagonal(wrong, 0)
        wrong *= ((1 - np.array(recall)) / wrong.sum(axis=1))[:, None]
        result.append(wrong + np.diag(recall))
    return result


def truth(table: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Accuracy, balanced accuracy and macro F1 of endless test images."""
    hits, given = share * np.diag(table), share @ table
    return np.array([hits.sum(), np.diag(table).mean(), np.mean(2 * hits / (share + given))])


def answers(
    case: Case, chances: Sequence[np.ndarray], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray | None, list[np.ndarray]]:
    """Labels, groups, and each model's answers to one test split."""
    images = np.array(case.images)
    labels = np.repeat(np.arange(len(images)), images)
    n = len(labels)
    if case.drawn:
        labels = rng.choice(len(images), n, p=images / n)
    if case.mixed:
        labels = rng.permutation(labels)
    unit = np.arange(n) // case.group
    one = (rng.random(unit[-1] + 1) < TOGETHER)[unit] if case.group > 1 else np.zeros(n, bool)

    def chance() -> np.ndarray:
        return np.where(one, rng.random(unit[-1] + 1)[unit], rng.random(n))

    first, second, alike = chance(), chance(), rng.random(n) < 0.6
    wrong, wrong2 = chance(), chance()
    found = []
    for number, table in enumerate(chances):
        which = first if number == 0 else np.where(alike, first, second)
        error = wrong if number == 0 else np.where(alike, wrong, wrong2)
        recall = np.diag(table)[labels]
        off = table.copy()
        np.fill_diagonal(off, 0)
        off = np.cumsum(off, axis=1)
        off /= np.maximum(off[:, -1:], 1e-300)
        other = (error[:, None] >= off[labels]).sum(axis=1)
        found.append(np.where(which < recall, labels, np.minimum(other, len(images) - 1)))
    return labels, unit if case.group > 1 else None, found


def replicates(
    given: np.ndarray, labels: np.ndarray, groups: np.ndarray | None, classes: int
) -> metrics.Replicates:
    """What the evaluation makes of answers."""
    probabilities = np.full((len(given), classes), 0.1 / classes)
    probabilities[np.arange(len(given)), given] += 0.9
    bootstrap = Bootstrap(np.zeros_like(labels), groups, replicates=200)
    return metrics.resampled(probabilities, labels, bootstrap)


def formula(case: Case, labels: np.ndarray, given: list[np.ndarray]) -> float:
    """Width of the accuracy's interval if images were independent."""
    n, right = len(labels), [one == labels for one in given]
    if len(given) == 1:
        exact = stats.binomtest(int(right[0].sum()), n).proportion_ci(0.95, "exact")
        return float(exact.high - exact.low)
    difference = right[0].astype(float) - right[1]
    return float(2 * 1.96 * np.sqrt(difference.var() / n))


def simulated(task: tuple[int, int, int]) -> np.ndarray:
    """Sums over some test splits: covered, width (a column each a figure); and the formula's."""
    number, start, count = task
    case = CASES[number]
    chances = tables(case)
    share = np.array(case.images) / sum(case.images)
    true = [truth(table, share) for table in chances]
    wanted = true[0] if len(true) == 1 else true[0] - true[1]
    total = np.zeros((3, len(FIGURES)))
    for split in range(start, start + count):
        rng = np.random.default_rng([number, split])
        labels, groups, given = answers(case, chances, rng)
        classes = len(case.images)
        made = [replicates(one, labels, groups, classes) for one in given]
        if len(made) == 1:
            probabilities = np.eye(classes)[given[0]]
            figures = metrics.overall(probabilities, labels)
            found = metrics.intervals(made[0], figures, 0.95)
        else:
            found = metrics.difference_intervals(made[0], made[1], 0.95)
        bounds = np.array([found[name] for name in FIGURES])
        total[0] += (bounds[:, 0] - 1e-9 <= wanted) & (wanted <= bounds[:, 1] + 1e-9)
        total[1] += bounds[:, 1] - bounds[:, 0]
        total[2] += formula(case, labels, given)
    return total


def main() -> None:
    """Simulate, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--simulations", type=int, default=1000, help="test splits of each case")
    parser.add_argument("--case", action="append", help="part of a case's name; all without it")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    arguments = parser.parse_args()
    console = Console(stderr=arguments.json, width=130)
    started = time.monotonic()
    parts = arguments.case or [""]
    chosen = [i for i, case in enumerate(CASES) if any(part in case.name for part in parts)]
    made = arguments.simulations
    tasks = [
        (number, start, min(PIECE, made - start))
        for number in chosen
        for start in range(0, made, PIECE)
    ]
    sums = {number: np.zeros((3, len(FIGURES))) for number in chosen}
    with ProcessPoolExecutor(machine.cores()) as pool:
        for task, found in zip(tasks, pool.map(simulated, tasks), strict=True):
            sums[task[0]] += found
    table = Table(
        "images a class, true recall",
        *(f"{name}: covered, width" for name in FIGURES),
        "accuracy's width / formula's",
    )
    coverage, width, relative = {}, {}, {}
    for number, found in sums.items():
        name, (covered, wide, formulas) = CASES[number].name, found / made
        coverage[name] = dict(zip(FIGURES, covered.tolist(), strict=True))
        width[name] = dict(zip(FIGURES, wide.tolist(), strict=True))
        relative[name] = float(wide[0] / formulas[0]) if formulas[0] else None
        cells = [f"{c:.1%}, {w:.3f}" for c, w in zip(covered, wide, strict=True)]
        table.add_row(name, *cells, f"{relative[name]:.2f}" if relative[name] else "")
    console.print(table)
    least = min(min(row.values()) for row in coverage.values())
    console.print(
        f"{made:,} test splits a case, {time.monotonic() - started:.0f} s; "
        f"least coverage {least:.1%}."
    )
    if arguments.json:
        print(
            json.dumps(
                {
                    "coverage": coverage,
                    "width": width,
                    "relative": relative,
                    "least_coverage": least,
                    "simulations": made,
                }
            )
        )
    # A share that is truly 93% is seen below this in one of a thousand cases.
    sys.exit(int(least < stats.binom.ppf(0.001, made, LEAST) / made))


if __name__ == "__main__":
    main()
