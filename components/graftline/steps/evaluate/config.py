"""The settings of the evaluation and of the gate, checked once at the door."""

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import Field

from graftline.errors import ConfigurationError
from graftline.settings import Fraction, PositiveInt, Section

T = TypeVar("T", "GateRules", "EvaluationRules")


@dataclass(frozen=True, kw_only=True)
class GateRules:
    """What a model must show before it replaces the champion. docs/gate.md says what each costs.

    Attributes:
        margin: Accuracy that it may truly be worse by, at the stated confidence.
        confidence: One-sided, of each family of tests.
        min_gain: Accuracy that it must gain; 0: not worse, and newer, is enough.
        max_class_drop: Recall that no class may lose beyond noise.
        min_accuracy: Test accuracy below which nothing is promoted.
        max_ece: Calibration error beyond noise above which nothing is promoted.
        max_slice_drop: Accuracy that no guarded slice may lose beyond noise.
        min_slice_accuracy: Accuracy below which no guarded slice may be.
        slices: Guarded slices: ``column`` for each value of it, or ``column=value``.
        allow_removed_classes: Whether a class that the champion knows may be gone.
        replicates: Resamples of the paired bootstrap.
    """

    margin: float = 0.01
    confidence: float = 0.95
    min_gain: float = 0.0
    max_class_drop: float = 0.05
    min_accuracy: float = 0.0
    max_ece: float = 0.1
    max_slice_drop: float = 0.1
    min_slice_accuracy: float = 0.0
    slices: tuple[str, ...] = ()
    allow_removed_classes: bool = False
    replicates: int = 2000

    def __post_init__(self) -> None:
        object.__setattr__(self, "slices", tuple(self.slices))
        for name in ("margin", "min_gain", "max_class_drop", "min_accuracy", "max_ece",
                     "max_slice_drop", "min_slice_accuracy"):  # fmt: skip
            _check_share(f"gate.{name}", getattr(self, name))
        _check_confidence("gate.confidence", self.confidence)
        _check_count("gate.replicates", self.replicates, 100)


@dataclass(frozen=True, kw_only=True)
class EvaluationRules:
    """How much is measured.

    Attributes:
        confidence: Level of every interval.
        bootstrap: Resamples.
        top_k: The k of the top-k accuracy; fewer where there are fewer classes.
        worst_mistakes: Pictures of the most confident mistakes on the page.
        robustness_images: Test images that are corrupted; 0 leaves it out.
        reject_quantile: Share of validation images that pass the "none of these" threshold.
    """

    confidence: float = 0.95
    bootstrap: int = 2000
    top_k: int = 5
    worst_mistakes: int = 24
    robustness_images: int = 64
    reject_quantile: float = 0.99

    def __post_init__(self) -> None:
        _check_confidence("evaluation.confidence", self.confidence)
        _check_share("evaluation.reject_quantile", self.reject_quantile)
        for name, least in (("bootstrap", 100), ("top_k", 1), ("worst_mistakes", 0),
                            ("robustness_images", 0)):  # fmt: skip
            _check_count(f"evaluation.{name}", getattr(self, name), least)


def rules_from(kind: type[T], section: str, values: Mapping[str, Any] | None) -> T:
    """Rules out of a section of the run file.

    Raises:
        ConfigurationError: A key is unknown or a value is out of its range.
    """
    known = [field.name for field in dataclasses.fields(kind)]
    for name in values or {}:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            raise ConfigurationError(
                f"{section}.{name} is not a setting",
                fix=f"Did you mean {section}.{near[0]}?" if near else f"Use {', '.join(known)}.",
            )
    return kind(**(values or {}))


def _check_share(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ConfigurationError(f"{name} is {value!r}", fix="Give a share between 0 and 1.")


def _check_confidence(name: str, value: Any) -> None:
    _check_share(name, value)
    if not 0.5 < value < 1:
        raise ConfigurationError(
            f"{name} is {value!r}", fix="Give a share above 0.5 and below 1, such as 0.95."
        )


def _check_count(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigurationError(
            f"{name} is {value!r}", fix=f"Give a whole number of at least {least}."
        )


class EvaluationSettings(Section):
    """How the classifier is measured on the test split."""

    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Level of every interval."""
    bootstrap: Annotated[int, Field(ge=100)] = 2000
    """Replicates of the bootstrap."""
    top_k: PositiveInt = 5
    """The k of the top-k accuracy; fewer where there are fewer classes."""
    worst_mistakes: Annotated[int, Field(ge=0, le=200)] = 24
    """Pictures of the most confident mistakes on the page."""
    robustness_images: Annotated[int, Field(ge=0)] = 64
    """Test images that are corrupted to measure robustness; 0 leaves it out."""
    reject_quantile: Annotated[float, Field(gt=0, lt=1)] = 0.99
    """Share of the validation images that must pass the "none of these" threshold."""


class GateSettings(Section):
    """When a new model replaces the champion. See the gate guide."""

    margin: Annotated[float, Field(ge=0, lt=1)] = 0.01
    """Accuracy that the new model may lose at most, at the stated confidence."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Confidence of each test."""
    min_gain: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Accuracy that the new model must gain; 0: not worse, and newer, is enough."""
    max_class_drop: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Recall that no class may lose beyond noise."""
    min_accuracy: Fraction = 0.0
    """Test accuracy under which nothing is promoted."""
    max_ece: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Expected calibration error over which nothing is promoted."""
    max_slice_drop: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Accuracy that no slice named in `slices` may lose beyond noise."""
    min_slice_accuracy: Fraction = 0.0
    """Accuracy under which no slice named in `slices` may be."""
    slices: tuple[str, ...] = ()
    """Slices that the gate guards: `column` for each value of it, or `column=value`; an attribute
    column, or `size`, `brightness`, `shape`, `format`, `source`."""
    allow_removed_classes: bool = False
    """Whether a class that the champion knows may be gone from the data."""
