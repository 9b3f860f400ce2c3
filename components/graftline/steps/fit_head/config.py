"""What is fitted on frozen features, and from where on fine-tuning is worth its cost."""

from typing import Annotated, Literal

from pydantic import (
    Field,
)

from graftline.settings import Fraction, PositiveInt, Section
from graftline.steps.backbone_config import BackboneConfig

Strategy = Literal["auto", "probe", "head", "fine_tune", "scratch"]


class AutoSettings(Section):
    """`strategy: auto`: when fine-tuning is worth its cost. See the decision guide."""

    min_gain: Annotated[float, Field(ge=-1, le=1)] = 0.005
    """What a whole fine-tuning must bring on average in accuracy over the probe: 0.01 is one image
    in a hundred. A pilot must bring its share of that."""
    max_cost: Annotated[float, Field(ge=0)] | None = None
    """Largest expected cost of a fine-tuning, in the currency of `hourly_price` of the pool that
    `fine_tune` runs in. Default: no limit."""
    max_hours: Annotated[float, Field(gt=0)] | None = None
    """Largest expected duration of a fine-tuning, in hours. Default: no limit."""
    all_blocks: bool = True
    """Try a linear classifier on the features of all blocks, too, together with that on the last
    one's: one more pass of up to 5,000 images through the network, on the CPUs of `fit_head`."""
    pilot: bool = True
    """If the expected gain is in doubt, begin with a short fine-tuning, which decides whether the
    whole one follows: up to 2,000 training images its own first epochs, else one on a part."""
    pilot_minutes: Annotated[float, Field(gt=0)] = 5.0
    """Longest training of the pilot."""
    large_images_per_class: PositiveInt = 500
    """Median images per class from which the data counts as large."""
    similar_accuracy: Fraction = 0.8
    """Cross-validated accuracy on frozen features from which the data counts as similar to what
    the backbone was trained on."""


class TrainingPlan(Section):
    """The fine-tuning that would follow, for the forecast of its cost."""

    epochs: PositiveInt = 10
    """At most."""
    max_minutes: Annotated[float, Field(gt=0)] | None = None
    """At most."""
    pool: str | None = None
    """Name of the node pool; None for this machine."""
    devices: tuple[str, ...] = ("CPU",)
    """What it may train on there: `CPU`, or the GPUs that its nodes may have."""
    accelerators: Annotated[int, Field(ge=0)] = 0
    """GPUs that it takes there."""
    cores: Annotated[float, Field(gt=0)] = 1.0
    """CPUs that it takes there."""
    hourly_price: Annotated[float, Field(ge=0)] | None = None
    """Price of a node for one hour."""


class ProbeSettings(Section):
    """`strategy: probe`: k-NN, logistic regression, linear SVM and class means on features."""

    c_grid: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] | None = None
    """Values of C (inverse regularisation strength) that are tried; by default 45 from 1e-6 to
    1e5, searched coarse to fine."""
    folds: Annotated[int, Field(ge=2, le=20)] = 5
    """Folds of the cross-validation; fewer if a class has fewer images."""
    knn: tuple[PositiveInt, ...] = (1, 5, 20)
    """Numbers of neighbours that are tried; k-NN measures similarity and is not promoted."""
    class_weight: Literal["none", "balanced"] = "none"
    """`balanced` weights images by the inverse frequency of their class."""
    search_images: PositiveInt = 10_000
    """If there are more training images than this, the grid is searched on a stratified sample of
    this size. The chosen classifier is fitted on all of them."""

    @property
    def grid(self) -> tuple[float, ...]:
        """The values of C that are tried: four a decade by default."""
        if self.c_grid is not None:
            return self.c_grid
        return tuple(float(f"{10 ** (step / 4):.3g}") for step in range(-24, 21))

    @property
    def balanced(self) -> bool:
        """Whether classes are weighted by their inverse frequency."""
        return self.class_weight == "balanced"


class HeadSettings(Section):
    """`strategy: head`: fully connected layers trained on frozen features."""

    hidden: tuple[PositiveInt, ...] = (256,)
    """Width of each hidden layer."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Dropout before each layer."""
    epochs: PositiveInt = 100
    """Maximum number of epochs; training stops earlier when validation no longer improves."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Peak learning rate of AdamW."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    """Weight decay of AdamW."""
    patience: PositiveInt = 10
    """Epochs without improvement on validation before training stops."""


class FitHeadConfig(BackboneConfig):
    """All that the step takes besides its inputs and outputs."""

    strategy: Strategy = "auto"
    """What the run file asks for."""
    probe: ProbeSettings = ProbeSettings()
    """The linear classifiers."""
    head: HeadSettings = HeadSettings()
    """The fully connected head."""
    auto: AutoSettings = AutoSettings()
    """When ``auto`` fine-tunes."""
    training: TrainingPlan = TrainingPlan()
    """What would follow."""
    seed: int = 0
    """Of folds, samples and the head's training."""
