"""bf16 where the machine computes in it, for the forward and backward passes of a training.

Weights, their updates and evaluations stay in fp32.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from graftline import machine

GROUPS = 6  # place of `groups` among the arguments of torch.conv2d


@contextmanager
def autocast(device: torch.device, precision: str) -> Iterator[None]:
    """bf16 where it is asked for, or with ``auto`` where the device computes in it."""
    if not autocasts(device, precision):
        yield
    elif device.type == "cpu":
        with torch.autocast("cpu", torch.bfloat16), _GroupedInFp32():
            yield
    else:
        with torch.autocast(device.type, torch.bfloat16):
            yield


def autocasts(device: torch.device, precision: str) -> bool:
    """Whether :func:`autocast` computes in bf16."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        native: bool = torch.cuda.is_bf16_supported(including_emulation=False)
        return native
    return machine.has_bf16()


class _GroupedInFp32(TorchFunctionMode):
    """Grouped and depthwise convolutions in fp32, everything else as autocast has it.

    On a CPU their backward pass in bf16 has no fast kernel: a 5 x 5 one of EfficientNet-Lite0 took
    80 ms in bf16 and 16 ms in fp32 (16 images, one core of a Xeon with AMX, PyTorch 2.14), and the
    network's upper third 19 ms an image, against 11.6 in fp32 alone and 7.7 with this.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        options = kwargs or {}
        if func is not torch.conv2d:
            return func(*args, **options)
        groups = args[GROUPS] if len(args) > GROUPS else options.get("groups", 1)
        if groups == 1:
            return func(*args, **options)
        with torch.autocast("cpu", enabled=False):
            out: torch.Tensor = func(args[0].float(), *args[1:], **options)
        return out.bfloat16()
