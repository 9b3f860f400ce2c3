"""How to train: the settings, and what ``auto`` stands for on this data."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from graftline.errors import ConfigurationError
from graftline.records.decision import Decision

# ``unfreeze: auto``, by the cell of the guide: the share of the blocks that is trained. Little
# data cannot pay for many weights; data unlike ImageNet needs other features lower down.
UNFREEZE_BY_CELL = {
    ("small", "similar"): 0.5,
    ("small", "different"): 0.5,
    ("large", "similar"): 0.75,
    ("large", "different"): 1.0,
}
# Images a class from which ``policy: auto`` and ``mix: auto`` do more than crop. Both need many
# steps to pay, and TrivialAugment turns by up to 135 degrees, which makes a 9 of a 6.
LARGE_IMAGES = 500

Unfreeze = int | float | str | None


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to train; the run file's section ``fine_tune`` or ``scratch``.

    ``adapt_batch_norm`` lets BatchNorm use and gather statistics of the new data in the trained
    blocks. From random weights there is no other way. From a probe it destroys the start: the
    head was fitted on features under the pretrained statistics (EfficientNet-Lite0 on digits,
    4 epochs: 43% with, 95% without, probe 94%).
    """

    epochs: int = 10
    batch_size: int = 64
    optimizer: str = "adamw"
    learning_rate: float = 3e-4
    weight_decay: float = 0.05
    warmup_fraction: float = 0.1
    label_smoothing: float = 0.0
    augment: bool = True
    flip: bool = False
    policy: str = "auto"
    mix: str = "auto"
    patience: int = 5
    class_weight: str = "none"
    layer_decay: float = 0.85
    unfreeze: Unfreeze = "auto"
    frozen_fraction: float | None = None
    gradual: float = 0.0
    ema: float = 0.0
    guard: bool = True
    views: int | None = None
    max_minutes: float | None = None
    precision: str = "auto"
    adapt_batch_norm: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        problems = list(self._problems())
        if problems:
            raise ConfigurationError("; ".join(problems), fix="correct these keys of fine_tune")

    def _problems(self) -> Sequence[str]:
        allowed = {
            "optimizer": ("adamw", "sgd"),
            "policy": ("auto", "none", "trivial", "rand"),
            "mix": ("auto", "none", "mixup", "cutmix"),
            "class_weight": ("none", "balanced"),
            "precision": ("auto", "fp32", "bf16"),
        }
        found = [
            f"{name} {getattr(self, name)!r} is not one of {', '.join(values)}"
            for name, values in allowed.items()
            if getattr(self, name) not in values
        ]
        found += [
            f"{name} {getattr(self, name)!r} is below 1"
            for name in ("epochs", "batch_size", "patience")
            if getattr(self, name) < 1
        ]
        unfreeze = self.unfreeze
        if isinstance(unfreeze, str) and unfreeze not in ("auto", "all"):
            found.append(f"unfreeze {unfreeze!r} is not auto, all, a number or a fraction")
        elif isinstance(unfreeze, int | float) and unfreeze < 0:
            found.append(f"unfreeze {unfreeze} is negative")
        elif isinstance(unfreeze, float) and unfreeze > 1:
            found.append(
                f"unfreeze {unfreeze} is a fraction over 1; write whole blocks without a dot"
            )
        if self.frozen_fraction is not None and unfreeze not in (None, "auto"):
            found.append("unfreeze and frozen_fraction say the same thing twice: keep unfreeze")
        return found


def trained_count(total: int, unfreeze: float | str | None) -> int:
    """How many of a network's blocks are trained, counted from the top.

    Args:
        total: Blocks of the network.
        unfreeze: ``all``; a whole number of blocks, 0 for the head alone; or the share of the
            blocks as a float, rounded down, but one block at least.

    Raises:
        ConfigurationError: It is none of these.
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
