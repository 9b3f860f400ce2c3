"""All that an evaluation found, for the page and the tracking run."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from graftline.classifier.bundle import Classifier
from graftline.records.decision import Decision
from graftline.records.verdict import Verdict
from graftline.stats.calibration import Reliability
from graftline.steps.evaluate.answers import CalibratedAnswers
from graftline.steps.evaluate.config import EvaluateConfig
from graftline.steps.evaluate.metrics import ClassFigures
from graftline.steps.evaluate.out_of_distribution import Coverage, OutOfDistribution
from graftline.steps.evaluate.robustness import Robustness
from graftline.steps.evaluate.slices import SliceFigures

Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class SideBySide:
    """Challenger and champion on the images on which both can be compared.

    Attributes:
        challenger: Figures by metric.
        champion: Figures by metric.
        difference: Interval of challenger minus champion, by metric.
    """

    challenger: dict[str, float]
    champion: dict[str, float]
    difference: dict[str, list[float]]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Figures of the classifier on the test split.

    Attributes:
        figures: By metric, see :func:`graftline.steps.evaluate.metrics.overall`.
        intervals: By metric.
        uncalibrated_ece: Before temperature scaling.
        ece_noise: What a perfectly calibrated model would stay below.
        classes: One by one.
        confusion: Rows are true classes.
        reliability: After temperature scaling.
        reliability_before: Before it.
        curves: ROC and precision-recall points.
        coverage: Accuracy against the share answered.
        slices: Parts of the test split.
        side_by_side: With the champion; None without one.
    """

    figures: dict[str, float]
    intervals: dict[str, list[float]]
    uncalibrated_ece: float
    ece_noise: float
    classes: list[ClassFigures]
    confusion: Ints
    reliability: Reliability
    reliability_before: Reliability
    curves: dict[str, list[tuple[float, float]]]
    coverage: Coverage
    slices: list[SliceFigures]
    side_by_side: SideBySide | None = None


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A test image on the page.

    Attributes:
        row: Manifest row.
        source: Where it came from.
        uri: Thumbnail as a data URI.
        map_uri: Class-activation map over it, as a data URI; empty without one.
    """

    row: int
    source: str
    uri: str
    map_uri: str = ""


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Everything, see the fields' own classes.

    Attributes:
        name: Of the registered model; of the backbone where it will not be registered.
        pictures: By position among the test images.
        worst: Positions of the most confident mistakes, the worst first.
        notes: Warnings about wide and upright images.
    """

    name: str
    classifier: Classifier
    decision: Decision | None
    settings: EvaluateConfig
    test: CalibratedAnswers
    measured: Measured
    verdict: Verdict
    ood: OutOfDistribution | None = None
    robustness: Robustness | None = None
    pictures: dict[int, Picture] = field(default_factory=dict)
    worst: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
