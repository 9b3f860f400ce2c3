"""What a fine-tuning would cost: hours on the pool that it runs in, and their price."""

import math
from dataclasses import dataclass

import torch

from graftline import machine
from graftline.models.backbone import BackboneSpec
from graftline.models.forward_cost import forward_cost
from graftline.records.training_forecast import (
    DEVICES,
    Rate,
    device_of,
    forecast,
    read_rate,
    table_rate,
    training_operations,
)
from graftline.steps.fit_head.config import TrainingPlan
from graftline.storage.base import Store

TRAINED = 1.0  # of the blocks: `unfreeze: auto` for data unlike ImageNet; less for others
# A measured rate varies with the images and the neighbours; the table holds within a factor of two.
FACTOR = {"measured": 1.5, "table": 2.0}


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


def forecast_cost(plan: TrainingPlan, images: int, spec: BackboneSpec, store: Store) -> Cost:
    """The cost of a training.

    Args:
        plan: Where it would run and how long at most.
        images: Training images.
        spec: The network.
        store: Where measured rates are.
    """
    if plan.pool is None:
        place, price = "this machine", None
        gpu = torch.cuda.get_device_name() if machine.has_cuda() else ""
        devices: tuple[str, ...] = (device_of(gpu) or gpu,) if gpu else ("CPU",)
        count = torch.cuda.device_count() if gpu else 0
        cores = float(machine.cores())
    else:
        place, price = f"pool {plan.pool}", plan.hourly_price
        devices, count, cores = plan.devices, plan.accelerators, plan.cores
    rates = [_rate(device, cores, spec, store) for device in devices]
    limit = math.inf if plan.max_minutes is None else plan.max_minutes / 60
    hours = [forecast(images, plan.epochs, rate, devices=max(1, count)).hours for rate in rates]
    low, high = (
        min(hours) / max(FACTOR[rate.basis] for rate in rates),
        max(hours) * max(FACTOR[rate.basis] for rate in rates),
    )
    middle = math.sqrt(min(hours) * max(hours))
    names = f"{count} x {' or '.join(devices)}" if count else f"{cores:g} CPU cores"
    return Cost(
        min(middle, limit),
        (min(low, limit), min(high, limit)),
        f"{place} ({names})",
        count,
        price,
    )


def _rate(device: str, cores: float, spec: BackboneSpec, store: Store) -> Rate:
    """Measured on such a device, else the table's; a GPU that it lacks counts as the slowest."""
    size = spec.preprocessing.input_size
    work = forward_cost(spec.name, size)
    trained = work.trained(max(1, int(TRAINED * len(work.shares))))
    measured = read_rate(store, spec.name, size, trained, device, cores=cores)
    if measured is not None:
        return measured
    known = (
        device if device == "CPU" or device in DEVICES else min(DEVICES, key=DEVICES.__getitem__)
    )
    return table_rate(known, training_operations(work.operations, trained), cores)
