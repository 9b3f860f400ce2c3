"""The usual guide of transfer learning, as every course on it teaches: a table of four cells.

"With little data, fit a linear classifier on the features; with much data like ImageNet, train a
new head or fine-tune; with much data unlike it, fine-tune; never train from scratch without need."
"""

from dataclasses import dataclass
from typing import Any, Literal

from graftline.steps.fit_head.config import AutoSettings

Size = Literal["small", "large"]
Similarity = Literal["similar", "different"]

PROBE_NAMES = {
    "logistic": "logistic regression",
    "svm": "a linear SVM",
    "mean": "the nearest class mean",
}


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        strategy: What the guide does first.
        advice: What it says.
    """

    strategy: str
    advice: str


GUIDE: dict[tuple[Size, Similarity], Cell] = {
    ("small", "similar"): Cell(
        "probe",
        "a linear classifier on frozen features: fine-tuning would overfit and has little to gain",
    ),
    ("small", "different"): Cell(
        "probe",
        "a linear classifier on frozen features is the safe choice; fine-tuning may pay where "
        "each class still has some dozens of images",
    ),
    ("large", "similar"): Cell(
        "fine_tune",
        "a new head, or fine-tune gladly: there is enough data and the network is a good start",
    ),
    ("large", "different"): Cell(
        "fine_tune",
        "fine-tune rather than use a frozen extractor: the features do not fit, and there is data "
        "to change them",
    ),
}


@dataclass(frozen=True)
class Place:
    """Where data stands in the guide, and the figures that put it there.

    Attributes:
        size: By images of the median class.
        similarity: By the accuracy of the probe on frozen features.
        reasons: The figures beside the limits, in sentences.
    """

    size: Size
    similarity: Similarity
    reasons: tuple[str, str]

    @property
    def name(self) -> str:
        """The cell in words."""
        return f"{self.size} and {self.similarity}"

    @property
    def cell(self) -> Cell:
        """What the guide says there."""
        return GUIDE[self.size, self.similarity]


def place(figures: dict[str, Any], settings: AutoSettings) -> Place:
    """Put the data into its cell.

    Args:
        figures: As :func:`graftline.steps.fit_head.probe.measure` gives them.
        settings: The limits between the cells.
    """
    counts, probe = figures["images_per_class"], figures["probe"]
    least, like = settings.large_images_per_class, settings.similar_accuracy
    large, similar = counts["median"] >= least, probe["accuracy"] >= like
    size: Size = "large" if large else "small"
    similarity: Similarity = "similar" if similar else "different"
    likeness = "similar to" if similar else "different from"
    images = "image" if counts["median"] == 1 else "images"
    low, high = probe["interval"]
    name = PROBE_NAMES[probe["family"]]
    if probe["family"] == "mean" and probe["scaling"] == "within":
        name = "shrunken discriminant analysis"
    return Place(
        size,
        similarity,
        (
            f"The data is {size}: the median class has {counts['median']:g} training {images} "
            f"({'at least' if large else 'under'} {least}), the rarest {counts['min']:,}.",
            f"It is {likeness} what the network knows: on its frozen features {name} "
            f"classifies {probe['accuracy']:.1%} of held-out training images correctly "
            f"(95% interval {low:.1%} to {high:.1%}), which "
            f"{'reaches' if similar else 'stays under'} {like:.0%}; guessing the largest class "
            f"would give {figures['majority']:.1%}.",
        ),
    )
