"""What stops a training, or makes it go on with less."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import torch

from graftline.errors import TrainingError
from graftline.progress import message
from graftline.steps.fine_tune.checkpoints.state import Progressed
from graftline.steps.fine_tune.recipe import Settings


def halved(batch: int, error: Exception) -> int:
    """Half as many images at once, where memory was short; the gradient stays the whole batch's.

    Raises:
        TrainingError: It was a single image already.
        Exception: The error itself, where it says nothing of memory.
    """
    if not _of_memory(error):
        raise error
    if batch == 1:
        raise TrainingError(
            "one image does not fit into the device's memory",
            why=str(error).splitlines()[0] if str(error) else "memory ran out",
            fix="freeze more blocks (a smaller fine_tune.unfreeze, or a larger "
            "fine_tune.frozen_fraction), set a smaller image_size or backbone, or take a device "
            "with more memory",
        ) from error
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    fewer = math.ceil(batch / 2)
    message("Out of memory: continuing with %d images at once.", fewer)
    return fewer


@contextmanager
def no_memory_left() -> Iterator[None]:
    """An error with a remedy where memory ends in something that cannot be done in parts."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        halved(1, error)


def _of_memory(error: Exception) -> bool:
    """Whether memory was short: a GPU's, or what this process may have."""
    kinds = (torch.OutOfMemoryError, MemoryError)
    return isinstance(error, kinds) or "DefaultCPUAllocator" in str(error)


def diverged(
    what: str, value: float, at: Progressed, settings: Settings, *, measured: bool = False
) -> NoReturn:
    """Stop with the learning rate to try.

    Args:
        what: Which figure.
        value: Of it, not finite.
        at: Where training stands.
        settings: With the learning rate.
        measured: Whether it was found by the evaluation at the end of an epoch.

    Raises:
        TrainingError: Always.
    """
    where = f"in epoch {at.epoch + 1}, step {at.step + 1}"
    rate = settings.learning_rate
    raise TrainingError(
        f"the {what} is {value} {f'after epoch {at.epoch}' if measured else where}",
        why=f"training diverged: learning_rate {rate:g} is too large for this network, or its "
        "weights are damaged",
        fix=f"set fine_tune.learning_rate (or scratch.learning_rate) to {gentler(rate):g}",
    )


def gentler(rate: float) -> float:
    """The learning rate to try after one that diverged: a tenth, and no more than the default."""
    return min(rate / 10, Settings().learning_rate)
