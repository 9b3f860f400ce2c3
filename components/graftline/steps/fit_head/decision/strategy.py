"""From measurements to a strategy: the guide's cell, the expected gain, its cost, and a choice."""

from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist
from typing import Any

from graftline.records.decision import Decision, Forecast, Pilot
from graftline.steps.fit_head.config import AutoSettings
from graftline.steps.fit_head.decision.cost import Cost
from graftline.steps.fit_head.decision.forecast import (
    PILOT_EPOCHS,
    PILOT_IMAGES,
    Calibration,
    Gain,
    calibration,
)
from graftline.steps.fit_head.decision.guide import place
from graftline.steps.fit_head.decision.used_gain import Validation

# Of the forecast's intervals. Outside it the odds are four to one or better, which settles it;
# where it includes min_gain, a pilot decides.
CONFIDENCE = 0.6
# A pilot must have this chance of changing the choice: on 20 validation images chance alone is ten
# points, so such a pilot would cost a training and settle nothing.
LEAST_CHANCE = 0.15
FEW_HOURS = 1 / 60  # of a training, under which it is said in seconds


@dataclass(frozen=True)
class _Choice:
    strategy: str
    why: str
    pilot: Pilot | None = None


def decide(
    strategy: str,
    figures: dict[str, Any],
    settings: AutoSettings,
    *,
    notes: list[str],
    snapshot_id: str,
    backbone: str,
    validation_images: int = 100,
    cost: Cost | None = None,
    calibrated: Calibration | None = None,
) -> Decision:
    """Place the data in the guide and choose, or record why the run file's strategy stands.

    Args:
        strategy: What the run file asks for.
        figures: As :func:`graftline.steps.fit_head.probe.measure` gives them.
        settings: Limits.
        notes: For the record.
        snapshot_id: For the record.
        backbone: For the record.
        validation_images: That a pilot would be measured on.
        cost: Of the fine-tuning that would follow; None where it is not known.
        calibrated: The forecast; None for the one of this version.
    """
    placed = place(figures, settings)
    calibrated = calibrated or calibration()
    gain = calibrated.gain(figures, CONFIDENCE)
    reasons = [*placed.reasons, *_clusters(figures), _forecast_in_words(gain, cost)]
    line = calibrated.after_pilot(figures, gain, validation_images)
    shown = Validation(calibrated.apart_on(figures), max(1, validation_images))
    guided = _choose(gain, cost, settings, line, shown)
    if strategy == "auto":
        choice, pilot = guided.strategy, guided.pilot
        reasons.append(guided.why)
        if choice != placed.cell.strategy:
            reasons.append(f"The usual guide for data that is {placed.name} would say otherwise.")
    else:
        choice, pilot = strategy, None
        agrees = guided.strategy == strategy and guided.pilot is None
        opinion = "agrees" if agrees else f"would have chosen {_named(guided)}: {guided.why}"
        reasons.append(f"The run file asks for {strategy}; auto {opinion}".rstrip(".") + ".")
    return Decision(
        strategy=strategy,
        choice=choice,
        size=placed.size,
        similarity=placed.similarity,
        cell=placed.name,
        advice=placed.cell.advice,
        figures=figures,
        thresholds={k: v for k, v in settings.model_dump().items() if v is not None},
        reasons=reasons,
        notes=notes,
        snapshot_id=snapshot_id,
        backbone=backbone,
        forecast=_recorded(gain, cost),
        pilot=pilot,
    )


def _choose(
    gain: Gain,
    cost: Cost | None,
    settings: AutoSettings,
    after_pilot: tuple[float, float],
    validation: Validation,
) -> _Choice:
    """What the expected gain and cost come to.

    Args:
        gain: Expected.
        cost: Expected; None where it is not known.
        settings: Limits.
        after_pilot: Offset and slope of the expected gain over what a pilot measures.
        validation: What is used in the end, it decides.
    """
    offset, slope = after_pilot
    left = gain.deviation * sqrt(max(0.0, 1 - slope))
    needed = validation.needed(settings.min_gain, gain.deviation)
    needed_then = validation.needed(settings.min_gain, left)
    least = _least(settings.min_gain, needed, validation)
    pilot = settings.pilot and _may_change(gain, slope, needed_then)
    if gain.mean < needed and not pilot:
        if gain.interval[1] < needed:
            why = f"Even the upper end of the expected gain is below {least}."
        else:
            why = f"The expected gain is below {least}.{_no_pilot(settings)}"
        return _Choice("probe", why)
    too_much = _too_expensive(cost, settings)
    if too_much is not None:
        return _Choice("probe", too_much)
    if not pilot:
        if gain.interval[0] >= needed:
            why = f"Even the lower end of the expected gain reaches {least}."
        else:
            why = f"The expected gain reaches {least}.{_no_pilot(settings)}"
        return _Choice("fine_tune", why)
    planned = Pilot(
        epochs=PILOT_EPOCHS,
        minutes=settings.pilot_minutes,
        images=PILOT_IMAGES,
        offset=offset,
        slope=slope,
        min_gain=needed_then,
    )
    why = (
        f"Whether it reaches {least}, is in doubt: a pilot (at most {planned.epochs} epochs, "
        f"{planned.images} images and {planned.minutes:g} minutes of fine-tuning) decides."
    )
    return _Choice("fine_tune", why, planned)


def _least(min_gain: float, needed: float, validation: Validation) -> str:
    """What the expected gain is compared with."""
    if round(needed, 3) == round(min_gain, 3):
        return f"auto.min_gain ({min_gain:.1%})"
    return (
        f"{needed:+z.1%} (auto.min_gain is {min_gain:.1%}; the network is used only if it leads by "
        f"about {validation.lead:.1%} on the {validation.images:,} validation images)"
    )


def _no_pilot(settings: AutoSettings) -> str:
    return " A pilot would hardly change that." if settings.pilot else ""


def _may_change(gain: Gain, slope: float, needed: float) -> bool:
    """Whether a pilot has a fair chance of changing the choice.

    The gain expected after it is normal about the one expected now; its variance is what the
    pilot takes of the forecast's.
    """
    deviation = gain.deviation * sqrt(max(slope, 0.0))
    if deviation <= 0:
        return False
    return NormalDist().cdf(-abs(needed - gain.mean) / deviation) >= LEAST_CHANCE


def _too_expensive(cost: Cost | None, settings: AutoSettings) -> str | None:
    """Why the cost forbids it; None where it does not."""
    if cost is None:
        return None
    hours, money = settings.max_hours, settings.max_cost
    if hours is not None and cost.hours > hours:
        return f"It would take {cost.hours:.2g} hours, over auto.max_hours ({hours:g})."
    if money is not None and cost.money is not None and cost.money > money:
        return f"It would cost {cost.money:.2f}, over auto.max_cost ({money:g})."
    return None


def _clusters(figures: dict[str, Any]) -> list[str]:
    probe, knn = figures["probe"], figures["knn"]
    said = [f"Without any fitting, {_neighbours(knn['k'])} {knn['accuracy']:.1%}."]
    if probe["accuracy"] - knn["accuracy"] > 0.1:
        said.append(
            "The classes are there in the features but do not lie in clusters: the linear "
            "classifier finds directions that plain distance does not."
        )
    return said


def _neighbours(count: int) -> str:
    if count == 1:
        return "the nearest neighbour alone gives"
    return f"the {count} nearest neighbours alone give"


def _forecast_in_words(gain: Gain, cost: Cost | None) -> str:
    low, high = gain.interval
    said = (
        f"Fine-tuning is expected to change the accuracy by {gain.mean:+z.1%} "
        f"({gain.confidence:.0%} interval {low:+z.1%} to {high:+z.1%})"
    )
    if cost is None:
        return f"{said}."
    count = max(1, cost.accelerators)
    middle = cost.hours * count
    shortest, longest = (hours * count for hours in cost.hours_interval)
    unit, times = "GPU-hours" if cost.accelerators else "hours", 1.0
    if middle < FEW_HOURS:
        unit, times = ("GPU-seconds" if cost.accelerators else "seconds"), 3600.0
    said += (
        f" and to take {middle * times:.2g} {unit} on {cost.device} "
        f"({shortest * times:.1g} to {longest * times:.1g})"
    )
    if cost.money is not None:
        said += f", which cost {cost.money:.2f}"
    return f"{said}."


def _recorded(gain: Gain, cost: Cost | None) -> Forecast:
    costs = {}
    if cost is not None:
        costs = {
            "hours": cost.hours,
            "hours_interval": cost.hours_interval,
            "device": cost.device,
            "accelerators": cost.accelerators,
            "cost": cost.money,
            "cost_interval": cost.money_interval,
        }
    return Forecast(
        gain=gain.mean,
        gain_interval=gain.interval,
        confidence=gain.confidence,
        basis=gain.basis,
        **costs,  # type: ignore[arg-type]
    )


def _named(choice: _Choice) -> str:
    return choice.strategy if choice.pilot is None else "a pilot of fine_tune"
