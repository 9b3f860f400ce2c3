"""What a training's last bits depend on besides its data, settings and seed.

A preempted training may go on elsewhere: on a node with other cores, or in an image without
OpenVINO. Its checkpoint says what it was computed with. Where this machine can compute the same
way, it does; where it cannot, that is said, since the weights then differ from those of an
undisturbed run.
"""

from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version

import torch

from graftline import machine
from graftline.progress import message
from graftline.steps.fine_tune.network.precision import autocasts
from graftline.steps.fine_tune.recipe import Settings

FROZEN = "frozen blocks"
PYTORCH = "PyTorch"
Numerics = Mapping[str, str]


def numerics(device: torch.device, settings: Settings, *, engine: bool) -> dict[str, str]:
    """What a training computes with here.

    Args:
        device: Where.
        settings: How to train.
        engine: Whether OpenVINO runs the frozen blocks.
    """
    gpu = device.type == "cuda"
    return {
        "PyTorch": torch.__version__,
        "processor": torch.cuda.get_device_name() if gpu else machine.processor(),
        "threads": str(1 if gpu else torch.get_num_threads()),
        "precision": "bf16" if autocasts(device, settings.precision) else "fp32",
        FROZEN: f"OpenVINO {version('openvino')}" if engine else PYTORCH,
    }


def as_begun(settings: Settings, begun: Numerics) -> Settings:
    """The settings with the precision in which the training began, if every machine has that."""
    precise = settings.precision == "auto" and begun.get("precision") == "fp32"
    return replace(settings, precision="fp32") if precise else settings


def began_in_pytorch(begun: Numerics) -> bool:
    """Whether the frozen blocks must stay in PyTorch, whatever this machine would choose."""
    return begun.get(FROZEN) == PYTORCH


def say_changes(begun: Numerics, here: Numerics) -> None:
    """Warn of what differs from the machine on which a resumed training began."""
    changes = [
        f"{name} {begun[name]!r}, here {value!r}"
        for name, value in here.items()
        if name in begun and begun[name] != value
    ]
    if changes:
        message(
            "WARNING: this training began on another kind of machine (%s). It goes on here; its "
            "weights can differ from those of an undisturbed run.",
            "; ".join(changes),
        )
