"""Which engine computes the features of a fingerprint, written down beside them.

    features/<fingerprint>/engine.json      written once, by whoever computes first

Engines agree to about 1e-5, not to the bit. If every machine took the one that is fastest there,
the same images would give features of another digest on a laptop and on a cluster, and a mixture
of both in one store. So the first run writes down what it computes with, and later runs keep to it
unless their settings name another.
"""

import logging
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from graftline import machine
from graftline.errors import IntegrityError, StoreNotFound
from graftline.machine import CPU_ENGINES
from graftline.progress import message
from graftline.storage import commit
from graftline.storage.base import Store

KEY = "engine.json"
SCHEMA_VERSION = 1
CUDA = "cuda"
KINDS = (*CPU_ENGINES, CUDA)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EngineRecord:
    """What the features of a fingerprint are computed with.

    Attributes:
        engine: ``onnxruntime``, ``openvino``, ``torch`` (on the CPU) or ``cuda``.
        batch_size: Images in a batch, on which the last bits depend too; None where the store is
            older than this record.
    """

    engine: str
    batch_size: int | None

    def to_json(self) -> dict[str, Any]:
        """As it is in the store."""
        return {
            "schema_version": SCHEMA_VERSION,
            "engine": self.engine,
            "batch_size": self.batch_size,
        }


@dataclass(frozen=True)
class Choice:
    """What a run computes with.

    Attributes:
        kind: The engine; None leaves it to the settings.
        batch_size: Images in a batch; None for what suits the engine.
    """

    kind: str | None
    batch_size: int | None

    def is_met_by(self, kind: str, batch_size: int) -> bool:
        """Whether an engine that is open already is the one."""
        return self.kind in (None, kind) and self.batch_size in (None, batch_size)


def read_engine(store: Store) -> EngineRecord | None:
    """The record of a fingerprint.

    Args:
        store: The part of the store below the fingerprint.

    Returns:
        The record; for a store that is older than it, the engine that left its agreement there,
        of several the first by name; None where nothing was computed yet.
    """
    found = _read(store)
    if found is not None:
        return found
    names = (info.key.removeprefix("agreement/") for info in store.list("agreement/"))
    engines = sorted(name.removesuffix(".json") for name in names)
    known = [engine for engine in engines if engine in KINDS]
    return EngineRecord(known[0], None) if known else None


def record_engine(store: Store, mine: EngineRecord) -> EngineRecord:
    """Write a record down; where another run was faster, its record counts and comes back."""
    if commit.create(store, KEY, mine.to_json()):
        return mine
    known = _read(store)
    if known is None:  # damaged
        commit.overwrite(store, KEY, mine.to_json())
    return known or mine


def choose(record: EngineRecord | None, engine: str, batch_size: int | None) -> Choice:
    """What to compute with, from the record and the settings.

    Args:
        record: Of the fingerprint.
        engine: The setting; anything but ``auto`` decides, whatever the record says.
        batch_size: The setting; a number decides, whatever the record says.
    """
    if record is None:
        return Choice(None, batch_size)
    if engine != "auto":
        named = CUDA if engine == "torch" and machine.has_cuda() else engine
        same = named == record.engine
        return Choice(None, batch_size or (record.batch_size if same else None))
    if not is_available(record.engine):
        message(
            "The stored features were computed with the engine %s, which this machine does not "
            "have. Another one computes the missing ones: they differ by about 1e-5, and so does "
            "their digest. Set `extract.engine` to choose one.",
            record.engine,
        )
        return Choice(None, batch_size)
    return Choice(record.engine, batch_size or record.batch_size)


def is_available(engine: str) -> bool:
    """Whether this machine has an engine."""
    if engine == CUDA:
        return machine.has_cuda()
    return engine == "torch" or find_spec(engine) is not None


def tell_difference(record: EngineRecord, computed_with: str) -> None:
    """Say that features of two engines stand under one fingerprint from now on."""
    if computed_with != record.engine:
        message(
            "These features are computed with %s, the stored ones with %s: they differ by about "
            "1e-5, and so does the digest of the whole. `extract.engine: auto` keeps to %s.",
            computed_with,
            record.engine,
            record.engine,
        )


def _read(store: Store) -> EngineRecord | None:
    try:
        content = commit.read(store, KEY).content
        if content["schema_version"] != SCHEMA_VERSION or content["engine"] not in KINDS:
            return None
        batch = content["batch_size"]
        return EngineRecord(content["engine"], int(batch) if batch else None)
    except (StoreNotFound, IntegrityError, ValueError, KeyError, TypeError):
        return None
