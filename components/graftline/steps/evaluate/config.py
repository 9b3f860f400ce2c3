"""How much is measured, and what a model must show before it replaces the champion."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from graftline.settings import Fraction, PositiveInt, Section

FEW_IMAGES = 50  # test images: below it a verdict warns; 50 faultless ones allow 7% of errors
SLICE_COLUMNS = ("size", "brightness", "shape", "format", "source")  # beside the user's own


class EvaluationSettings(Section):
    """How the classifier is measured on the test split."""

    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Level of every interval."""
    bootstrap: Annotated[int, Field(ge=100)] = 2000
    """Replicates of the bootstrap."""
    top_k: PositiveInt = 5
    """The k of the top-k accuracy; at most the number of classes."""
    worst_mistakes: Annotated[int, Field(ge=0, le=200)] = 24
    """Pictures of the most confident mistakes on the page."""
    robustness_images: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    """Test images that are corrupted to measure robustness; 0 skips this. `auto`: 12 to 64, so that
    it takes no longer than the features of all images did."""
    reject_quantile: Annotated[float, Field(gt=0, lt=1)] = 0.99
    """Share of the validation images that must pass the out-of-distribution threshold."""


class GateSettings(Section):
    """When a new model replaces the champion. See the gate guide."""

    margin: Annotated[float, Field(ge=0, lt=1)] = 0.01
    """Accuracy that the new model may lose at most, at the stated confidence."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Confidence of each test."""
    min_gain: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Accuracy that the new model must gain. 0: a newer model that is not worse is enough."""
    max_class_drop: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Recall that no class may lose beyond noise."""
    min_test_images: Annotated[int, Field(ge=0)] = 0
    """Fewest test images for a promotion. 0: few test images only cause a warning."""
    min_accuracy: Fraction = 0.0
    """Lowest test accuracy for a promotion."""
    max_ece: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Highest expected calibration error for a promotion."""
    max_slice_drop: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Accuracy that no slice named in `slices` may lose beyond noise."""
    min_slice_accuracy: Fraction = 0.0
    """Lowest accuracy allowed for every slice named in `slices`."""
    slices: tuple[str, ...] = ()
    """Slices that the gate guards: `column` for each value of it, or `column=value`; an attribute
    column, or `size`, `brightness`, `shape`, `format`, `source`."""
    allow_removed_classes: bool = False
    """Whether the data may lack a class that the champion knows."""


class EvaluateConfig(Section):
    """All that the step takes besides its inputs and outputs."""

    gate: GateSettings = GateSettings()
    """What a model must show."""
    evaluation: EvaluationSettings = EvaluationSettings()
    """How it is measured."""
    seed: int = 0
    """Of the resampling."""

    @field_validator("gate", "evaluation", mode="before")
    @classmethod
    def _none_is_the_default(cls, value: Any) -> Any:
        return {} if value is None else value
