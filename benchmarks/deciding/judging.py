"""What `auto` decides on a measured row, and what that loses against the best in hindsight."""

import statistics
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from deciding.measure import RECIPE
from graftline.records.decision import Decision
from graftline.stats.posterior_gain import Expected, posterior
from graftline.steps.fine_tune.recipe import Settings
from graftline.steps.fit_head.block_candidate import expected_wrong, takes_all_blocks
from graftline.steps.fit_head.config import AutoSettings
from graftline.steps.fit_head.decision.forecast import Calibration, calibration, pilot_gain
from graftline.steps.fit_head.decision.strategy import decide

FORWARD = 1 / 3  # of a pass of training, which goes back through the network as well
MEAN_TARGET, WORST_TARGET, COMPUTE_TARGET = 0.5, 2.0, 0.3
JUDGED = "measure"
FROZEN = ("probe", "all_blocks")  # what `auto` chooses from that trains nothing


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
