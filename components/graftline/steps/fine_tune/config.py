"""How the network itself is trained."""

from typing import Annotated, Literal

from pydantic import (
    Field,
)

from graftline.settings import Fraction, PositiveInt, Section


class TrainSettings(Section):
    """What `fine_tune` and `scratch` have in common."""

    epochs: PositiveInt = 10
    """Epochs over the training split."""
    batch_size: PositiveInt = 64
    """Images in one optimiser step; split into smaller passes where memory is short."""
    learning_rate: Annotated[float, Field(gt=0)] = 3e-4
    """Peak learning rate of the head."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    """Weight decay of AdamW; none on biases and normalisation."""
    warmup_fraction: Fraction = 0.1
    """Share of the steps in which the learning rate rises from zero."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability mass that is spread over the wrong classes."""
    augment: bool = True
    """Random resized crops of the training images."""
    flip: bool = False
    """Random horizontal flips; wrong where left and right matter, as with digits and text."""
    patience: PositiveInt = 5
    """Epochs without improvement on validation before training stops."""
    class_weight: Literal["none", "balanced"] = "none"
    """`balanced` weights images by the inverse frequency of their class."""


class FineTuneSettings(TrainSettings):
    """`strategy: fine_tune`: lower blocks frozen, upper blocks and head trained."""

    layer_decay: Annotated[float, Field(gt=0, le=1)] = 0.75
    """Factor on the learning rate from each block to the one below it."""
    frozen_fraction: Fraction = 0.5
    """Share of the blocks, counted from the input, that stay frozen."""


class ScratchSettings(TrainSettings):
    """`strategy: scratch`: random weights, to measure what the transfer was worth."""

    epochs: PositiveInt = 30
    """Epochs over the training split."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Peak learning rate."""
