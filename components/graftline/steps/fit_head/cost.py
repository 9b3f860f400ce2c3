"""What a fine-tuning would cost: hours on the pool that it runs in, and their price."""

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from graftline import machine
from graftline.models.backbone import Backbone
from graftline.steps.fit_head.config import TrainingPlan

# Sustained floating-point operations a second in training, with augmentation and validation.
# A core of a server did 27e9 with EfficientNet-Lite0 at 96 pixels. GPUs differ by their model,
# which a pool does not name, and small networks do not fill them: hence the wide interval.
CORE_RATE = 25e9
ACCELERATOR_RATE = 3e12
CORE_FACTOR, ACCELERATOR_FACTOR = 2.0, 4.0
# Forward, and backward through weights and inputs. With frozen blocks it is less.
PASSES = 3.0
DECODED_A_SECOND = 400.0  # JPEG photographs on one core; once, then they are kept


@dataclass(frozen=True)
class Cost:
    """Expected hours and money.

    Attributes:
        hours: Of training.
        hours_interval: Where they should lie.
        device: Where it would run, in words.
        accelerators: GPUs; 0 for none.
        hourly_price: Of a node; None where it is not known.
    """

    hours: float
    hours_interval: tuple[float, float]
    device: str
    accelerators: int
    hourly_price: float | None

    @property
    def money(self) -> float | None:
        """Expected price."""
        return None if self.hourly_price is None else self.hours * self.hourly_price

    @property
    def money_interval(self) -> tuple[float, float] | None:
        """Where the price should lie."""
        if self.hourly_price is None:
            return None
        low, high = self.hours_interval
        return low * self.hourly_price, high * self.hourly_price


def operations(network: Backbone) -> float:
    """Floating-point operations of one image's forward pass."""
    size = network.spec.preprocessing.input_size
    device = next(network.parameters()).device
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(torch.zeros(1, 3, size, size, device=device))
    return float(counter.get_total_flops())


def forecast_cost(plan: TrainingPlan, images: int, flops: float) -> Cost:
    """The cost of a training.

    Args:
        plan: Where it would run and how long at most.
        images: Training images.
        flops: As :func:`operations` counts them.
    """
    here = plan.pool is None
    accelerators = 1 if here and machine.has_cuda() else plan.accelerators
    cores = plan.cores or machine.cores()
    if accelerators:
        rate, factor = accelerators * ACCELERATOR_RATE, ACCELERATOR_FACTOR
        name = f"{accelerators} GPU" + "s" * (accelerators > 1)
    else:
        rate, factor = cores * CORE_RATE, CORE_FACTOR
        name = f"{cores:g} CPU core" + "s" * (cores != 1)
    seconds = images * plan.epochs * PASSES * flops / rate + images / (DECODED_A_SECOND * cores)
    limit = float("inf") if plan.max_minutes is None else plan.max_minutes / 60
    hours, low, high = (min(seconds * f / 3600, limit) for f in (1.0, 1 / factor, factor))
    place = "this machine" if here else f"pool {plan.pool}"
    price = None if here else plan.hourly_price
    return Cost(hours, (low, high), f"{place} ({name})", accelerators, price)
