"""From measurements to a strategy: the usual guide of transfer learning, with figures."""

from typing import Any

from graftline.records.decision import Decision
from graftline.steps.fit_head.config import AutoSettings

ADVICE = {
    "large and similar": "fine-tune gladly: there is enough data and the network is a good start",
    "large and different": "fine-tune rather than use a frozen extractor: the features do not "
    "fit, and there is data to change them",
    "small and similar": "a linear classifier on frozen features: fine-tuning would overfit and "
    "has little to gain",
    "small and different": "a linear classifier on frozen features is the safe choice; "
    "fine-tuning may pay where each class still has some dozens of images",
}


def decide(
    strategy: str,
    figures: dict[str, Any],
    thresholds: AutoSettings,
    *,
    notes: list[str],
    snapshot_id: str,
    backbone: str,
) -> Decision:
    """Place the data in the guide and choose, or record why the run file's strategy stands.

    Args:
        strategy: What the run file asks for.
        figures: As :func:`graftline.steps.fit_head.probe.measure` gives them.
        thresholds: Limits.
        notes: For the record.
        snapshot_id: For the record.
        backbone: For the record.
    """
    median = figures["images_per_class"]["median"]
    accuracy = figures["probe"]["accuracy"]
    size = "large" if median >= thresholds.large_images_per_class else "small"
    similarity = "similar" if accuracy >= thresholds.similar_accuracy else "different"
    cell = f"{size} and {similarity}"
    reasons = _describe(figures, thresholds, size, similarity)
    if strategy == "auto":
        choice, why = _choose(cell, median, accuracy, thresholds)
        reasons.append(why)
    else:
        choice = strategy
        guided, why = _choose(cell, median, accuracy, thresholds)
        agrees = "agrees" if guided == strategy else f"would have chosen {guided}: {why}"
        reasons.append(f"The run file asks for {strategy}; the guide {agrees}.".replace("..", "."))
    return Decision(
        strategy=strategy,
        choice=choice,
        size=size,
        similarity=similarity,
        cell=cell,
        advice=ADVICE[cell],
        figures=figures,
        thresholds=thresholds.model_dump(),
        reasons=reasons,
        notes=notes,
        snapshot_id=snapshot_id,
        backbone=backbone,
    )


def _describe(
    figures: dict[str, Any], thresholds: AutoSettings, size: str, similarity: str
) -> list[str]:
    counts, probe, knn = figures["images_per_class"], figures["probe"], figures["knn"]
    low, high = probe["interval"]
    than = "at least" if size == "large" else "under"
    reach = "reaches" if similarity == "similar" else "stays under"
    sentences = [
        f"The data is {size}: the median class has {counts['median']:g} training images "
        f"({than} {thresholds.large_images_per_class}), the rarest {counts['min']:,}.",
        f"It is {similarity} to what the network knows: on its frozen features "
        f"{_name(probe)} classifies {probe['accuracy']:.1%} of held-out training images correctly "
        f"(95% interval {low:.1%} to {high:.1%}), which {reach} "
        f"{thresholds.similar_accuracy:.0%}; guessing the largest class would give "
        f"{figures['majority']:.1%}.",
        f"Without any fitting, the {knn['k']} nearest neighbours alone give {knn['accuracy']:.1%}.",
    ]
    if probe["accuracy"] - knn["accuracy"] > 0.1:
        sentences.append(
            "The classes are there in the features but do not lie in clusters: the linear "
            "classifier finds directions that plain distance does not."
        )
    return sentences


def _choose(cell: str, median: float, accuracy: float, thresholds: AutoSettings) -> tuple[str, str]:
    """The strategy for a cell, and why."""
    left = 1 - accuracy
    if accuracy >= thresholds.good_enough:
        return "probe", (
            f"The probe is good enough: at {accuracy:.1%} (at least {thresholds.good_enough:.0%}) "
            f"fine-tuning has at most {left:.1%} to gain."
        )
    if cell.startswith("large"):
        return "fine_tune", (
            f"There is {left:.1%} to gain and enough data to fine-tune without overfitting."
        )
    if cell == "small and similar":
        return "probe", (
            "A linear classifier on frozen features is the better choice for small data that the "
            "network already separates: fine-tuning costs a GPU and tends to overfit."
        )
    if median >= thresholds.fewest_images_per_class:
        return "fine_tune", (
            f"The features miss {left:.1%} and the median class has at least "
            f"{thresholds.fewest_images_per_class} images: fine-tuning may pay, and is dropped "
            "if it does not."
        )
    return "probe", (
        f"The features miss {left:.1%}, but with under {thresholds.fewest_images_per_class} "
        "images in the median class fine-tuning would only learn them by heart: collect more."
    )


def _name(probe: dict[str, Any]) -> str:
    if probe["family"] == "mean":
        whitened = probe.get("scaling") == "within"
        return "shrunken discriminant analysis" if whitened else "the nearest class mean"
    return "logistic regression" if probe["family"] == "logistic" else "a linear SVM"
