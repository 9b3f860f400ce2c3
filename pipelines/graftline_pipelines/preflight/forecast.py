"""How long fine-tuning would take in each pool, what it costs, and what more GPUs would bring."""

from typing import Any

from graftline.records.training_forecast import (
    Forecast,
    Rate,
    forecast,
    read_rate,
    table_rate,
    training_operations,
)
from graftline_pipelines.runfile.devices import devices_of
from graftline_pipelines.runfile.pools import DEFAULT_POOLS, PoolSettings, pool_name
from graftline_pipelines.runfile.quantities import to_cores
from graftline_pipelines.runfile.settings import RunSettings

PAYS = 1.15  # speedup below which another device is not worth asking for
STEP = "fine_tune"


class Work:
    """What one training asks of a device, as far as the run file says it.

    Args:
        settings: The run file.
        images: Of the training split.
    """

    def __init__(self, settings: RunSettings, images: int) -> None:
        from graftline.models.forward_cost import forward_cost
        from graftline.steps.fine_tune.recipe import trained_count

        section: Any = settings.scratch if settings.strategy == "scratch" else settings.fine_tune
        cost = forward_cost(settings.backbone, settings.image_size)
        total = len(cost.shares)
        if settings.strategy == "scratch":
            blocks = total
        elif section.frozen_fraction is not None:
            blocks = trained_count(total, 1.0 - section.frozen_fraction)
        else:
            # What auto comes to is known after fit_head; all blocks at most.
            blocks = trained_count(total, 1.0 if section.unfreeze == "auto" else section.unfreeze)
        self.images, self.epochs, self.batch = images, section.epochs, section.batch_size
        self.trained = cost.trained(blocks)
        self.operations = training_operations(cost.operations, self.trained)
        self.trained_bytes = 4.0 * cost.trained_parameters(blocks)
        self.backbone, self.image_size, self.store = (
            settings.backbone,
            cost.image_size,
            settings.store,
        )

    def rate(self, device: str, cores: float) -> Rate:
        """Measured on such a device, else the table's."""
        from graftline.storage import open_store

        store = open_store(self.store)
        measured = read_rate(
            store, self.backbone, self.image_size, self.trained, device, cores=cores
        )
        return measured or table_rate(device, self.operations, cores)

    def on(self, rate: Rate, devices: int, link: Any = "GPU") -> Forecast:
        """The forecast with several devices."""
        return forecast(
            self.images,
            self.epochs,
            rate,
            devices=devices,
            batch=self.batch,
            trained_bytes=self.trained_bytes,
            link=link,
        )


def training_forecast(settings: RunSettings, entries: list[Any]) -> str:
    """A line for each pool that could train; empty where nothing is trained.

    With ``auto`` it is said only of pools with accelerators: counting a network's work imports
    PyTorch, and on this machine's own CPU most such runs will not train.

    Args:
        settings: The run file.
        entries: Of the source.
    """
    usable = [entry for entry in entries if entry.problem is None and not entry.archive]
    if settings.strategy not in ("auto", "fine_tune", "scratch") or not usable:
        return ""
    if settings.strategy == "auto" and not any(p.accelerator for _, p in _pools(settings)):
        return ""
    given = sum(entry.split == "train" for entry in usable)
    images = given or round(len(usable) * settings.data.split.train)
    work = Work(settings, images)
    if_needed = " if the measurement asks for it" if settings.strategy == "auto" else ""
    lines = [
        f"{images:,} images x {work.epochs} epochs{if_needed}, at most (training stops early when "
        "it no longer improves)"
    ]
    return "\n".join([*lines, *(_pool_line(work, *pool) for pool in _pools(settings))])


def _pools(settings: RunSettings) -> list[tuple[str, PoolSettings]]:
    """The pool that trains first, then the others that have accelerators."""
    own = pool_name(STEP, settings.assign)
    known = {**DEFAULT_POOLS, **settings.pools}
    others = [name for name, pool in settings.pools.items() if pool.accelerator and name != own]
    return [(name, known[name]) for name in (own, *others) if name in known]


def _pool_line(work: Work, name: str, pool: PoolSettings) -> str:
    devices = devices_of(pool)
    cores = to_cores(pool.cpu_limit or pool.cpu)
    rates = sorted(
        (work.rate(device, cores) for device in devices), key=lambda rate: -rate.images_per_second
    )
    here = pool.accelerators or 1
    now = [work.on(rate, here) for rate in rates]
    basis = "measured" if all(r.basis == "measured" for r in rates) else "within a factor of two"
    what = " or ".join(devices) if pool.accelerator else f"{cores:g} CPU cores"
    line = f"{name} ({here} x {what}): {_time([f.hours for f in now])}"
    if pool.hourly_price is not None:
        line += f", cost {_range([f.cost(pool.hourly_price) for f in now])}"
    line += f" ({basis})"
    if pool.accelerator:
        slow = rates[-1]
        gpu = now[-1].hours / work.on(slow, here + 1).hours
        node = now[-1].hours / work.on(slow, 2 * here, "node").hours
        line += f"; one more GPU: {_times(gpu)}, a second node: {_times(node)}"
    return line


def _times(speedup: float) -> str:
    if speedup < PAYS:
        return "no faster"
    return f"{speedup:.1f} times as fast"


def _time(hours: list[float]) -> str:
    if max(hours) < 1.5:
        return f"{_range([max(1.0, 60 * value) for value in hours])} min"
    return f"{_range(hours)} h"


def _range(values: list[float]) -> str:
    few = [f"{v:.2g}" if v < 10 else f"{v:,.0f}" for v in (min(values), max(values))]
    return few[0] if few[0] == few[1] else f"{few[0]} to {few[1]}"
