"""How long a training will take, before it is asked for: images, work an image, and a rate.

The rate is measured where this network was trained on such a device before; else it follows from
the network's work an image and a table of devices. The table's figures hold within a factor of
two, so a forecast from it is an order of magnitude, and says so.
"""

import contextlib
import math
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote

from graftline.errors import StoreError
from graftline.storage import commit
from graftline.storage.base import Store

# Tera-operations a second that training reaches in mixed precision, a multiply and an add being
# two: from published training rates of resnet50.
DEVICES = {
    "T4": 9.0,
    "V100": 20.0,
    "A10G": 18.0,
    "L4": 16.0,
    "A6000": 25.0,
    "L40S": 45.0,
    "A100": 60.0,
    "H100": 110.0,
    "H200": 115.0,
}
CORE = 0.15  # a server's core with bf16; a quarter of it without
LINK_BYTES = {"GPU": 10e9, "node": 1.25e9}  # a second: PCIe between GPUs, 10 Gbit/s between nodes
PREFIX = "training-rates"


@dataclass(frozen=True)
class Rate:
    """Images a second of one device.

    Attributes:
        images_per_second: Forwards and backwards.
        basis: ``measured`` on such a device, or from the ``table``.
        device: Its name.
    """

    images_per_second: float
    basis: Literal["measured", "table"]
    device: str


@dataclass(frozen=True)
class Forecast:
    """What a training would take.

    Attributes:
        hours: Of each device.
        device_hours: Of all devices together.
        speedup: Over one device.
    """

    hours: float
    device_hours: float
    speedup: float

    def cost(self, hourly_price: float, nodes: int = 1) -> float:
        """Of nodes with this price each."""
        return self.hours * hourly_price * nodes


def fine_tune_hours(images: int, epochs: float, images_per_second: float) -> float:
    """Hours that one device trains.

    Args:
        images: Of the training split.
        epochs: Passes over them.
        images_per_second: The device's.
    """
    return images * epochs / images_per_second / 3600


def training_operations(forward: float, trained: float) -> float:
    """Operations for one training image: forwards through all, backwards through the trained part.

    Backwards costs twice as much as forwards: gradients of the inputs and of the weights.

    Args:
        forward: Operations of one image forwards.
        trained: Share of them in the trained blocks, 0 to 1.
    """
    return forward * (1 + 2 * trained)


def table_rate(device: str, operations: float, cores: float = 1) -> Rate:
    """The rate that the table promises.

    Args:
        device: A key of :data:`DEVICES`, or ``CPU``.
        operations: From :func:`training_operations`.
        cores: Of a CPU.
    """
    tera = CORE * cores if device == "CPU" else DEVICES[device]
    return Rate(tera * 1e12 / operations, "table", device)


def forecast(
    images: int,
    epochs: float,
    rate: Rate,
    *,
    devices: int = 1,
    batch: int = 64,
    trained_bytes: float = 0.0,
    link: Literal["GPU", "node"] = "GPU",
) -> Forecast:
    """Hours on one device or several that share each batch.

    A step takes its share of the batch's time, and the time in which the gradients of the trained
    weights are summed in a ring: each link carries them ``2 (n - 1) / n`` times.

    Args:
        images: Of the training split.
        epochs: Passes over them.
        rate: Of one device.
        devices: That share each batch.
        batch: Images of one step, over all devices.
        trained_bytes: Of the trained weights' gradients.
        link: Between the devices.
    """
    alone = fine_tune_hours(images, epochs, rate.images_per_second)
    if devices <= 1:
        return Forecast(alone, alone, 1.0)
    exchange = 2 * (devices - 1) / devices * trained_bytes / LINK_BYTES[link]
    steps = math.ceil(images / batch) * epochs
    hours = alone / devices + steps * exchange / 3600
    return Forecast(hours, hours * devices, alone / hours)


def device_of(text: str) -> str | None:
    """The device of the table that a text names, such as a node label's value; None for none."""
    plain = "".join(c for c in text.lower() if c.isalnum())
    for device in sorted(DEVICES, key=len, reverse=True):
        if device.lower() in plain:
            return device
    families = {"g4dn": "T4", "g5": "A10G", "g6e": "L40S", "g6": "L4", "p3": "V100", "p4": "A100"}
    families |= {"p5": "H100", "a2": "A100", "a3": "H100", "g2": "L4", "a10": "A10G"}
    return next((device for name, device in families.items() if plain.startswith(name)), None)


def write_rate(
    store: Store, backbone: str, image_size: int, trained: float, rate: Rate, *, cores: float = 1
) -> None:
    """Keep a measured rate in the store, for later forecasts; a store that is away loses it.

    Args:
        store: The run's.
        backbone: The network's name.
        image_size: In pixels.
        trained: Share of the forward work in the trained blocks.
        rate: Of one GPU, or of all cores of a CPU.
        cores: Of a CPU; the rate is kept for one.
    """
    each = rate.images_per_second / (cores if rate.device == "CPU" else 1)
    content = {"trained": trained, "images_per_second": each, "device": rate.device}
    with contextlib.suppress(StoreError):
        commit.overwrite(store, _key(backbone, image_size, rate.device), content)


def read_rate(
    store: Store, backbone: str, image_size: int, trained: float, device: str, *, cores: float = 1
) -> Rate | None:
    """The rate that was measured on such a device; None for none.

    What was measured with another share of trained blocks counts by the work that each takes.
    """
    try:
        content = commit.read(store, _key(backbone, image_size, device)).content
        work = training_operations(1, float(content["trained"])) / training_operations(1, trained)
        each = float(content["images_per_second"]) * work
    except (StoreError, ValueError, KeyError, TypeError):
        return None
    return Rate(each * (cores if device == "CPU" else 1), "measured", device)


def _key(backbone: str, image_size: int, device: str) -> str:
    return f"{PREFIX}/{quote(backbone, safe='')}/{image_size}/{quote(device, safe='')}.json"
