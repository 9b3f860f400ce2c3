"""How to train: the settings, and what ``auto`` stands for on this data."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from graftline.errors import ConfigurationError
from graftline.progress import message
from graftline.records.decision import Decision
from graftline.settings import read_section
from graftline.steps.fine_tune.config import FineTuneSettings

# ``unfreeze: auto``, by the cell of the guide: the share of the blocks that is trained. Little
# data cannot pay for many weights; data unlike ImageNet needs other features from the first block
# on (config.py, at ``learning_rate``, has what was measured).
UNFREEZE_BY_CELL = {
    ("small", "similar"): 0.5,
    ("small", "different"): 1.0,
    ("large", "similar"): 0.75,
    ("large", "different"): 1.0,
}
# Images a class from which ``policy: auto`` and ``mix: auto`` do more than crop. Both need many
# steps to pay, and TrivialAugment turns by up to 135 degrees, which makes a 9 of a 6.
LARGE_IMAGES = 500

Unfreeze = int | float | str | None


_SECTION = FineTuneSettings()


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to train: the run file's section ``fine_tune`` or ``scratch``, and what follows from it.

    Values, limits and defaults are :class:`~graftline.steps.fine_tune.config.FineTuneSettings`'.

    Attributes:
        adapt_batch_norm: Lets BatchNorm use and gather statistics of the new data in the trained
            blocks. From random weights there is no other way. From a probe it destroys the start:
            the head was fitted on features under the pretrained statistics (EfficientNet-Lite0 on
            digits, 4 epochs: 43% with, 95% without, probe 94%).
        seed: Of every random choice.
    """

    epochs: int = _SECTION.epochs
    batch_size: int = _SECTION.batch_size
    optimizer: str = _SECTION.optimizer
    learning_rate: float = _SECTION.learning_rate
    weight_decay: float = _SECTION.weight_decay
    warmup_fraction: float = _SECTION.warmup_fraction
    label_smoothing: float = _SECTION.label_smoothing
    augment: bool = _SECTION.augment
    flip: bool = _SECTION.flip
    policy: str = _SECTION.policy
    mix: str = _SECTION.mix
    patience: int = _SECTION.patience
    class_weight: str = _SECTION.class_weight
    layer_decay: float = _SECTION.layer_decay
    unfreeze: Unfreeze = _SECTION.unfreeze
    frozen_fraction: float | None = _SECTION.frozen_fraction
    gradual: float = _SECTION.gradual
    ema: float = _SECTION.ema
    guard: bool = _SECTION.guard
    views: int | None = _SECTION.views
    max_minutes: float | None = _SECTION.max_minutes
    precision: str = _SECTION.precision
    adapt_batch_norm: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        if given["unfreeze"] is None:  # settled: frozen_fraction says it
            del given["unfreeze"]
        known = FineTuneSettings.model_fields.keys() & given.keys()
        read_section(FineTuneSettings, "fine_tune", {name: given[name] for name in sorted(known)})


def trained_count(total: int, unfreeze: float | str | None) -> int:
    """How many of a network's blocks are trained, counted from the top.

    Args:
        total: Blocks of the network.
        unfreeze: ``all``; a whole number of blocks, 0 for the head alone; or the share of the
            blocks as a float, rounded down, but one block at least.

    Raises:
        ConfigurationError: The recipe is not one of these.
    """
    if unfreeze == "all":
        return total
    if isinstance(unfreeze, int):
        return min(unfreeze, total)
    if isinstance(unfreeze, float):
        return max(1, math.floor(unfreeze * total + 1e-9)) if unfreeze else 0
    raise ConfigurationError(
        f"fine_tune.unfreeze {unfreeze!r} is not known",
        fix="use auto, all, a whole number of blocks or a fraction such as 0.5",
    )


def resolve(settings: Settings, decision: Decision, counts: Sequence[int]) -> Settings:
    """The settings with every ``auto`` replaced by what it comes to.

    Args:
        settings: As the user gave them.
        decision: Of fit_head; its cell says how many blocks are worth training.
        counts: Training images of each class.
    """
    unfreeze = settings.unfreeze
    if settings.frozen_fraction is not None:
        unfreeze = None
    elif unfreeze in (None, "auto"):
        unfreeze = UNFREEZE_BY_CELL.get((decision.size, decision.similarity), 0.5)
    there = [count for count in counts if count] or [0]
    median = float(np.median(there))
    policy, mix = settings.policy, settings.mix
    if policy == "auto":
        policy = "rand" if settings.augment and median >= LARGE_IMAGES else "none"
    if mix == "auto":
        mix = "mixup" if settings.augment and median >= LARGE_IMAGES else "none"
    return replace(settings, unfreeze=unfreeze, policy=policy, mix=mix)


def without_effect(settings: Settings, images: int, blocks: int) -> list[str]:
    """Settings that do nothing, or less than they say, on this data and network.

    Args:
        settings: Without ``auto``.
        images: Training images.
        blocks: Of the network.
    """
    found = []
    if settings.batch_size > images:
        found.append(f"batch_size is {settings.batch_size:,}: each step takes all {images} images")
    if type(settings.unfreeze) is int and settings.unfreeze > blocks:
        found.append(f"unfreeze is {settings.unfreeze}: all {blocks} blocks are trained")
    if not settings.augment:
        unused = [
            *(["policy"] if settings.policy != "none" else []),
            *(["flip"] if settings.flip else []),
            *(["views"] if settings.views is not None else []),
        ]
        found += [f"{name} has no effect, since augment is false" for name in unused]
    kept = settings.views is not None or not settings.augment
    if settings.mix != "none" and min(settings.batch_size, images) == 1:
        found.append("mix has no effect, since a batch is one image")
    elif settings.mix == "cutmix" and kept and settings.unfreeze not in ("all", 1.0):
        found.append("mix is mixup: the kept outputs of frozen blocks have no area to cut")
    return found


def say_without_effect(settings: Settings, images: int, blocks: int) -> None:
    """Say of each that it does."""
    for sentence in without_effect(settings, images, blocks):
        message("Note: %s.", sentence)
