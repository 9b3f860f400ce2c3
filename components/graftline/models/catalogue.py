"""What every backbone is, in a table: the command line answers from it without PyTorch.

``backbones.csv`` beside this module is made by ``python -m graftline.models.catalogue`` with the pinned
versions of timm and torchvision, which its first line names. With other versions the libraries
are asked; that takes seconds, and a quarter of a second for a backbone that the table lacks.
"""

import csv
import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from graftline import machine
from graftline.errors import BackboneError, UnknownBackbone
from graftline.images.preprocessing import Preprocessing
from graftline.models.weights import published
from graftline.storage.base import Store

TABLE = Path(__file__).with_name("backbones.csv")
LIBRARIES = ("timm", "torchvision")
COLUMNS = (
    "name",
    "parameters",
    "feature_dim",
    "input_size",
    "resize_size",
    "interpolation",
    "crop_mode",
    "mean",
    "std",
    "source",
    "tags",
)


@dataclass(frozen=True)
class Entry:
    """One backbone.

    Attributes:
        name: With its library.
        parameters: Without a head.
        feature_dim: Width of its pooled features.
        preprocessing: At the size it was pretrained with.
        source: Of the weights that its library publishes, see :mod:`graftline.models.weights.published`; empty
            where there are none.
        tags: Of all the weights that its library has, the default first.
    """

    name: str
    parameters: int
    feature_dim: int
    preprocessing: Preprocessing
    source: str
    tags: tuple[str, ...]

    @property
    def pretrained(self) -> bool:
        """Whether its library publishes weights."""
        return bool(self.source)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "preprocessing": self.preprocessing.to_dict()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Entry":
        """Read what :meth:`to_dict` gave."""
        preprocessing = Preprocessing.from_dict(values["preprocessing"])
        tags = tuple(values["tags"])
        return cls(**{**values, "preprocessing": preprocessing, "tags": tags})


def entries(pattern: str | None = None) -> Iterator[Entry]:
    """The backbones whose names contain the pattern; those without pooled features are left out."""
    known = _table()
    for name in _matching(_names(), pattern):
        entry = known.get(name) or measure(name)
        if entry is not None and entry.feature_dim:
            yield entry


def one(name: str) -> Entry | None:
    """The backbone of exactly this name, with or without its library; None for anything else.

    A name with a tag is none of the table's: :func:`graftline.models.backbone.resolve` knows it.
    """
    names = _names()
    for full in (name, *(f"{library}/{name}" for library in LIBRARIES)):
        if full in names:
            return _table().get(full) or measure(full)
    return None


def unknown(name: str) -> UnknownBackbone:
    """The error for a name that no backbone has, with near ones."""
    return UnknownBackbone(
        f"No backbone is called '{name}'.",
        why="Neither timm nor torchvision has it.",
        fix=near(name, _names()),
    )


def near(name: str, full_names: Iterable[str]) -> str:
    """A sentence with the names that come closest, to be put in an error."""
    bare: dict[str, str] = {}
    for full in full_names:
        bare.setdefault(full.partition("/")[2], full)
    wanted = name.rpartition("/")[2].partition(".")[0].lower()
    close = difflib.get_close_matches(wanted, list(bare), n=5, cutoff=0.6)
    close += [
        known for known in bare if len(wanted) > 2 and wanted in known and known not in close
    ][:5]
    if not close:
        return "See `graftline backbones` for the names."
    return f"Did you mean {', '.join(close[:6])}? See `graftline backbones` for all names."


def at_hand(found: Sequence[Entry], store: Store | None = None) -> set[str]:
    """Names of those whose weights need no download: one listing of a store, two of folders."""
    here = published.at_hand([entry.source for entry in found if entry.source])
    mirrored = published.mirrored_names(store) if store is not None else set()
    return {
        entry.name
        for entry in found
        if entry.source in here or entry.name in mirrored or published.package_of(entry.name)
    }


def measure(name: str) -> Entry | None:
    """Find out about one backbone; None where it has no pooled features."""
    key = {"name": name, "columns": COLUMNS, "versions": _versions()}
    remembered = machine.remembered("backbones", key)
    if remembered is not None:
        return Entry.from_dict(remembered)
    from graftline.models.architectures import find, tags_of
    from graftline.models.backbone import resolve

    try:
        spec, architecture = resolve(name, weights="random"), find(name)
    except BackboneError:
        return None
    entry = Entry(
        name=name,
        parameters=spec.parameters,
        feature_dim=spec.feature_dim,
        preprocessing=architecture.preprocessing,
        source=architecture.source,
        tags=tags_of(architecture),
    )
    machine.remember("backbones", key, entry.to_dict())
    return entry


def _names() -> tuple[str, ...] | list[str]:
    """All names: the table's where it was made with the libraries that are installed."""
    if _table() and _made_with() == _versions():
        return list(_table())
    from graftline.models.backbone import matching

    return matching()


def _matching(names: Iterable[str], pattern: str | None) -> Iterator[str]:
    expression = re.compile(re.escape(pattern or "").replace(r"\*", ".*"), re.IGNORECASE)
    return (name for name in names if expression.search(name))


def _versions() -> list[str]:
    found = []
    for library in LIBRARIES:
        try:
            found.append(version(library).partition("+")[0])
        except PackageNotFoundError:
            found.append("none")
    return found


def _made_with() -> list[str]:
    with TABLE.open(encoding="utf-8") as stream:
        return stream.readline().removeprefix("#").split()[1::2]


@lru_cache
def _table() -> dict[str, Entry]:
    if not TABLE.exists():
        return {}
    with TABLE.open(encoding="utf-8", newline="") as stream:
        stream.readline()
        return {row["name"]: _entry(row) for row in csv.DictReader(stream)}


def _entry(row: dict[str, str]) -> Entry:
    return Entry(
        name=row["name"],
        parameters=int(row["parameters"]),
        feature_dim=int(row["feature_dim"]),
        preprocessing=Preprocessing.from_dict(
            {**row, "mean": row["mean"].split(), "std": row["std"].split()}
        ),
        source=row["source"],
        tags=tuple(row["tags"].split()),
    )


def write_table() -> int:
    """Measure every backbone anew and write the table; how many have pooled features."""
    from graftline.models.backbone import matching

    measured = [entry for name in matching() if (entry := measure(name)) is not None]
    with TABLE.open("w", encoding="utf-8", newline="") as stream:
        made_with = (f"{n} {v}" for n, v in zip(LIBRARIES, _versions(), strict=True))
        stream.write(f"# {' '.join(made_with)}\n")
        table = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        table.writeheader()
        for entry in measured:
            values = {**entry.to_dict(), **entry.preprocessing.to_dict(), "tags": entry.tags}
            for column in ("mean", "std", "tags"):
                values[column] = " ".join(str(value) for value in values[column])
            table.writerow({column: values[column] for column in COLUMNS})
    return len(measured)


if __name__ == "__main__":
    print(f"{write_table():,} backbones")
