"""From measurements to a strategy: the guide's cell, the expected gain, its cost, and a choice."""

from dataclasses import dataclass
from typing import Any

from graftline.models.names import BLOCKS
from graftline.records.decision import Decision, Forecast, Pilot
from graftline.stats.posterior_gain import Expected, Validation
from graftline.stats.wording import significant
from graftline.steps.fit_head.config import AutoSettings
from graftline.steps.fit_head.decision.cost import Cost
from graftline.steps.fit_head.decision.forecast import (
    PILOT_EPOCHS,
    PILOT_IMAGES,
    Calibration,
    Gain,
    calibration,
)
from graftline.steps.fit_head.decision.guide import Place, place
from graftline.steps.fit_head.decision.worth import PilotPlan, worth_of_pilot, worth_of_training

CONFIDENCE = 0.6  # of the forecast's intervals: outside it the odds are four to one or better
TIE = 1e-4  # of the accuracy: a pilot that brings no more than that is not made
FEW_HOURS = 1 / 60  # of a training, under which it is said in seconds


@dataclass(frozen=True)
class _Choice:
    strategy: str
    why: str
    pilot: Pilot | None = None


@dataclass(frozen=True)
class Line:
    """The expected gain after a pilot, ``offset + slope * measured gain``, and the pilot."""

    offset: float
    plan: PilotPlan


def decide(
    strategy: str,
    figures: dict[str, Any],
    settings: AutoSettings,
    *,
    notes: list[str],
    snapshot_id: str,
    backbone: str,
    validation_images: int = 100,
    epochs: int = 10,
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
        epochs: Of the fine-tuning that would follow.
        cost: Of it; None where it is not known.
        calibrated: The forecast; None for the one of this version.
    """
    placed = place(figures, settings)
    calibrated = calibrated or calibration()
    gain = calibrated.gain(figures, CONFIDENCE)
    reasons = [*placed.reasons, *_clusters(figures)]
    shown = Validation(calibrated.apart_on(figures), max(1, validation_images))
    if of_all_blocks := backbone.endswith(BLOCKS):
        guided = _on_all_blocks(placed, cost, settings)
    else:
        reasons.append(_forecast_in_words(gain, cost))
        line = _line(calibrated, figures, gain, shown, epochs)
        guided = _choose(gain, cost, settings, line, shown)
    if strategy == "auto":
        choice, pilot = guided.strategy, guided.pilot
        reasons += [guided.why, *_against_the_guide(choice, placed)]
    else:
        choice, pilot = strategy, None
        reasons.append(_opinion(strategy, guided))
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
        forecast=None if of_all_blocks else _recorded(gain, cost),
        pilot=pilot,
    )


def _opinion(strategy: str, guided: _Choice) -> str:
    """What `auto` says of an order."""
    agrees = guided.strategy == strategy and guided.pilot is None
    opinion = "agrees" if agrees else f"would have chosen {_named(guided)}: {guided.why}"
    return f"The run file asks for {strategy}; auto {opinion}".rstrip(".") + "."


def _against_the_guide(choice: str, placed: Place) -> list[str]:
    if choice == placed.cell.strategy:
        return []
    return [f"The usual guide for data that is {placed.name} would say otherwise."]


def _on_all_blocks(placed: Place, cost: Cost | None, settings: AutoSettings) -> _Choice:
    """With features of all blocks, for which no forecast was measured: as the guide says."""
    if settings.min_gain <= 0:
        return _Choice("fine_tune", "auto.min_gain asks for a training in any case.")
    said = (
        "The features are those of all blocks, for which there is no forecast of a training's "
        f"gain. The usual guide decides; for data that is {placed.name} it says "
        f"{placed.cell.strategy}"
    )
    too_much = _too_expensive(cost, settings) if placed.cell.strategy == "fine_tune" else None
    if too_much is not None:
        return _Choice("probe", f"{said}; but {too_much}")
    return _Choice(placed.cell.strategy, f"{said}.")


def _choose(
    gain: Gain, cost: Cost | None, settings: AutoSettings, line: Line, validation: Validation
) -> _Choice:
    """What the expected gain and cost come to.

    Args:
        gain: Expected.
        cost: Expected; None where it is not known.
        settings: Limits.
        line: What a pilot would show of the gain.
        validation: What is used in the end, it decides.
    """
    expected = Expected(gain.mean, gain.deviation)
    brings = validation.used_gain(expected)
    trained = worth_of_training(expected, validation, settings.min_gain)
    piloted = -1.0
    if settings.pilot:
        piloted = worth_of_pilot(expected, validation, settings.min_gain, line.plan)
    said = (
        f"A training would bring {brings:+z.1%} on average, since the better of the two on "
        f"{_images(validation.images)} is used"
    )
    if max(trained, piloted) < 0:
        ending = ". A pilot would not pay either" if settings.pilot else ""
        why = f"{said}; that is below auto.min_gain ({settings.min_gain:.1%}){ending}."
        return _Choice("probe", why)
    too_much = _too_expensive(cost, settings)
    if too_much is not None:
        return _Choice("probe", f"{said}; but {too_much}")
    if trained >= piloted - TIE:
        return _Choice(
            "fine_tune", f"{said}; that reaches auto.min_gain ({settings.min_gain:.1%})."
        )
    planned = Pilot(
        epochs=PILOT_EPOCHS,
        minutes=settings.pilot_minutes,
        images=PILOT_IMAGES,
        offset=line.offset,
        slope=line.plan.slope,
        min_gain=validation.needed(
            line.plan.rest(settings.min_gain), line.plan.left(gain.deviation)
        ),
    )
    why = (
        f"{said}; auto.min_gain is {settings.min_gain:.1%}. It is in doubt on this data, so a "
        f"pilot decides (at most {planned.epochs} epochs, {planned.images:,} images and "
        f"{planned.minutes:g} minutes: {line.plan.share:.0%} of the training)."
    )
    return _Choice("fine_tune", why, planned)


def _line(
    calibrated: Calibration,
    figures: dict[str, Any],
    gain: Gain,
    validation: Validation,
    epochs: int,
) -> Line:
    """What a pilot would show; few images' is the beginning of the training itself."""
    offset, slope = calibrated.after_pilot(figures, gain, validation.images)
    images = max(1, int(figures["train_images"]))
    share = PILOT_EPOCHS * min(images, PILOT_IMAGES) / (max(1, epochs) * images)
    repeated = images > PILOT_IMAGES
    return Line(offset, PilotPlan(slope, min(1.0, share), repeated))


def _images(count: int) -> str:
    return "1 validation image" if count == 1 else f"{count:,} validation images"


def _too_expensive(cost: Cost | None, settings: AutoSettings) -> str | None:
    """Why the cost forbids it, as the end of a sentence; None where it does not."""
    if cost is None:
        return None
    hours, money = settings.max_hours, settings.max_cost
    if hours is not None and cost.hours > hours:
        return f"it would take {significant(cost.hours, 2)} hours, over auto.max_hours ({hours:g})."
    if money is not None and cost.money is not None and cost.money > money:
        return f"it would cost {cost.money:.2f}, over auto.max_cost ({money:g})."
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
        f" and to take {significant(middle * times, 2)} {unit} on {cost.device} "
        f"({significant(shortest * times, 1)} to {significant(longest * times, 1)})"
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
