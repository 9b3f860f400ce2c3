"""How the network itself is trained."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from graftline.settings import Fraction, PositiveInt, Section


class TrainSettings(Section):
    """What `fine_tune` and `scratch` have in common."""

    epochs: PositiveInt = 10
    """Epochs over the training split."""
    batch_size: PositiveInt = 64
    """Images in one optimiser step; split into smaller passes if memory is short."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """`sgd` uses Nesterov momentum of 0.9 and needs a learning rate about 30 times as large."""
    # EfficientNet-Lite0 at 96 pixels, 10 epochs, best on validation, 3e-4 on the upper half against
    # 1e-3 on all blocks: 2,136 glyphs of fonts 64% and 78% (probe 54%), 1,807 drawings at least 62%
    # and 64% (probe 59%). In 4 epochs on 728 glyphs 3e-4 was better (86% against 80%).
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Peak learning rate of the head."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    """Weight decay of the optimiser; none on biases and normalisation."""
    warmup_fraction: Fraction = 0.1
    """Share of the steps in which the learning rate rises from zero, ten steps at least; afterwards
    it falls by a cosine. 0: no rise."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability mass that is spread over the wrong classes."""
    augment: bool = True
    """Random resized crops of the training images, plus `policy` and `mix`."""
    flip: bool = False
    """Random horizontal flips; wrong where left and right matter, as with digits and text."""
    policy: Literal["auto", "none", "trivial", "rand"] = "auto"
    """Changes of colour and angle: TrivialAugment or RandAugment. `auto` uses `rand` if the median
    class has at least 500 training images, otherwise none. `trivial` turns images by up to 135
    degrees."""
    mix: Literal["auto", "none", "mixup", "cutmix"] = "auto"
    """Mixes pairs of images and their labels. `auto` uses `mixup` if the median class has at least
    500 training images, otherwise none."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.98
    """Decay of an exponential moving average of the weights, in each step. The average is what is
    measured and kept: it does not fall below the probe where single steps do. 0.98 reaches back
    about 50 steps, at the beginning fewer. 0: no average."""
    patience: PositiveInt = 5
    """Epochs without improvement on validation before training stops; the best epoch is kept."""
    class_weight: Literal["none", "balanced"] = "none"
    """`balanced` weights images by the inverse frequency of their class."""
    max_minutes: Annotated[float, Field(gt=0)] | None = None
    """Training stops after this many minutes; the best epoch is kept. Default: no limit."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Precision of the forward and backward passes. `auto` uses bf16 if the processor or GPU
    computes in it. Weights and evaluations stay in fp32."""
    processes: PositiveInt | None = None
    """Processes on the step's machine that share each batch, one for each of its images at most.
    Default: one for each GPU."""
    nodes: PositiveInt = 1
    """Nodes that share each batch. More than one: on a cluster with Kubeflow Trainer the step makes
    a TrainJob on nodes of its pool, and itself waits for it on any node. `graftline check` says
    what a second node would bring. On one's own machine there is one node."""


class FineTuneSettings(TrainSettings):
    """`strategy: fine_tune`: lower blocks frozen, upper blocks and head trained."""

    layer_decay: Annotated[float, Field(gt=0, le=1)] = 0.85
    """Factor on the learning rate from each block to the one below it; in networks of more than 20
    blocks from each twentieth of the depth."""
    unfreeze: Annotated[int, Field(ge=0)] | Fraction | Literal["auto", "all"] = "auto"
    """The upper blocks that are trained: a number of them (0 for the head alone), a fraction such
    as 0.33 (rounded down, one at least), `all`, or `auto`, as the decision guide says. A block is
    one residual unit or transformer layer, so a third of them is about a third of the work. The
    blocks below stay frozen, with their BatchNorm statistics."""
    frozen_fraction: Fraction | None = None
    """Share of the blocks, counted from the input, that stays frozen. Set this or `unfreeze`, not
    both."""
    gradual: Fraction = 0.0
    """Gradual unfreezing: training begins with the head alone, and the blocks join one by one
    until, after this share of the training, all are trained. 0: all at once."""
    search: Annotated[float, Field(gt=0)] | None = None
    """Minutes for a search over learning rate and blocks before the training: short trainings on
    part of the images, the best on validation is taken. The trials are in the record. Default: no
    search."""
    guard: bool = True
    """If validation stays below the probe's for three epochs, cut the learning rate to a tenth and
    restore the best weights, once."""
    views: PositiveInt | None = None
    """Use only this many augmented views of each image, and keep the output of the frozen blocks
    for each on the node's disk: later epochs run only the upper blocks. On a CPU they are kept in
    the store, too, for the next training with the same frozen blocks. Default: new views in every
    epoch, nothing kept."""

    @model_validator(mode="after")
    def _says_it_once(self) -> Self:
        if self.frozen_fraction is not None and self.unfreeze != "auto":
            raise ValueError(
                "unfreeze and frozen_fraction both say which blocks are trained; keep unfreeze"
            )
        return self


class ScratchSettings(TrainSettings):
    """`strategy: scratch`: random weights, to measure what the transfer was worth."""

    epochs: PositiveInt = 30
    """Epochs over the training split."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Peak learning rate."""
