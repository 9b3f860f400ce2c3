"""What every backbone is, in a table: finding it out anew takes a quarter of a second each.

``backbones.csv`` beside this module is made by ``python -m graftline.catalogue`` with the pinned
versions of timm and torchvision. Names that it lacks are measured and remembered on the machine.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

from graftline import machine
from graftline.errors import BackboneError

TABLE = Path(__file__).with_name("backbones.csv")
COLUMNS = ("name", "parameters", "feature_dim", "input_size", "pretrained")


@dataclass(frozen=True)
class Entry:
    """One backbone.

    Attributes:
        name: With its library.
        parameters: Without a head.
        feature_dim: Width of its pooled features.
        input_size: Side of the input in pixels.
        pretrained: Whether its library publishes weights.
    """

    name: str
    parameters: int
    feature_dim: int
    input_size: int
    pretrained: bool


def entries(pattern: str | None = None) -> Iterator[Entry]:
    """The backbones whose names contain the pattern; those without pooled features are left out."""
    from graftline.backbones import matching

    known = _table()
    for name in matching(pattern):
        entry = known.get(name) or measure(name)
        if entry is not None and entry.feature_dim:
            yield entry


def measure(name: str) -> Entry | None:
    """Find out about one backbone; None where it has no pooled features."""
    from graftline.backbones import resolve

    key = {"name": name, "versions": [version("timm"), version("torchvision")]}
    remembered = machine.remembered("backbones", key)
    if remembered is not None:
        return Entry(**remembered)
    try:
        spec = resolve(name, weights="random")
    except BackboneError:
        return None
    from graftline.architectures import find

    entry = Entry(name, spec.parameters, spec.feature_dim, spec.native_size, find(name).pretrained)
    machine.remember("backbones", key, entry.__dict__)
    return entry


@lru_cache
def _table() -> dict[str, Entry]:
    if not TABLE.exists():
        return {}
    with TABLE.open(encoding="utf-8", newline="") as stream:
        return {
            row["name"]: Entry(
                row["name"],
                int(row["parameters"]),
                int(row["feature_dim"]),
                int(row["input_size"]),
                row["pretrained"] == "yes",
            )
            for row in csv.DictReader(stream)
        }


def write_table() -> int:
    """Measure every backbone anew and write the table; how many have pooled features."""
    from graftline.backbones import matching

    measured = [entry for name in matching() if (entry := measure(name)) is not None]
    with TABLE.open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(COLUMNS)
        for entry in measured:
            published = "yes" if entry.pretrained else "no"
            table.writerow(
                (entry.name, entry.parameters, entry.feature_dim, entry.input_size, published)
            )
    return len(measured)


if __name__ == "__main__":
    print(f"{write_table():,} backbones")
