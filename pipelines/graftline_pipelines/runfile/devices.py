"""Which kinds of GPU the nodes of a pool may have."""

from graftline.records.training_forecast import DEVICES, device_of
from graftline_pipelines.runfile.pools import PoolSettings

UNKNOWN = ("T4", "A100")  # a GPU that nothing names is most likely one of these or between


def devices_of(pool: PoolSettings) -> list[str]:
    """The kinds of device that a pool's nodes may have."""
    if pool.accelerator is None:
        return ["CPU"]
    values: list[str] = []
    for value in pool.node_selectors.values():
        values.extend([value] if isinstance(value, str) else value)
    found = [device for value in values if (device := device_of(value)) in DEVICES]
    return list(dict.fromkeys(found)) or list(UNKNOWN)
