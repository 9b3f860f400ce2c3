"""Looks backbones up: in the table, or by asking the libraries where the table does not answer."""

import csv
import re
from collections.abc import Iterable, Iterator, Sequence

from graftline import machine
from graftline.errors import BackboneError, UnknownBackbone
from graftline.models import catalogue, known
from graftline.models.catalogue import COLUMNS, TABLE, Entry
from graftline.models.names import LIBRARIES
from graftline.models.weights import published
from graftline.storage.base import Store


def entries(pattern: str | None = None) -> Iterator[Entry]:
    """The backbones whose names contain the pattern; those without pooled features are left out."""
    listed = catalogue.table()
    for name in _matching(_names(), pattern):
        entry = listed.get(name) or measure(name)
        if entry is not None and entry.feature_dim:
            yield entry


def one(name: str) -> Entry | None:
    """The backbone of exactly this name, with or without its library; None for anything else.

    A name with a tag is none of the table's: :func:`graftline.models.backbone.resolve` knows it.
    """
    names = _names()
    for full in (name, *(f"{library}/{name}" for library in LIBRARIES)):
        if full in names:
            return catalogue.table().get(full) or measure(full)
    return None


def unknown(name: str) -> UnknownBackbone:
    """The error for a name that no backbone has, with near ones."""
    return known.unknown(name, _names())


def available_locally(found: Sequence[Entry], store: Store | None = None) -> set[str]:
    """Names of those whose weights need no download: one listing of a store, two of folders."""
    here = published.available_locally([entry.source for entry in found if entry.source])
    mirrored = published.mirrored_names(store) if store is not None else set()
    return {
        entry.name
        for entry in found
        if entry.source in here or entry.name in mirrored or published.package_of(entry.name)
    }


def measure(name: str) -> Entry | None:
    """Find out about one backbone; None where it has no pooled features."""
    key = {"name": name, "columns": COLUMNS, "versions": catalogue.versions()}
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
    if catalogue.table() and catalogue.made_with() == catalogue.versions():
        return list(catalogue.table())
    from graftline.models.architectures import matching

    return matching()


def _matching(names: Iterable[str], pattern: str | None) -> Iterator[str]:
    expression = re.compile(re.escape(pattern or "").replace(r"\*", ".*"), re.IGNORECASE)
    return (name for name in names if expression.search(name))


def write_table() -> int:
    """Measure every backbone again and write the table; how many have pooled features."""
    from graftline.models.architectures import matching

    measured = [entry for name in matching() if (entry := measure(name)) is not None]
    with TABLE.open("w", encoding="utf-8", newline="") as stream:
        made_with = (f"{n} {v}" for n, v in zip(LIBRARIES, catalogue.versions(), strict=True))
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
