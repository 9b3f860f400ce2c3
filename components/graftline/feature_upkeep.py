"""What is stored under which backbone, and removing what no kept snapshot uses."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from graftline.dataset import snapshot_key
from graftline.errors import ConfigurationError
from graftline.feature_parts import IdIndex, Ids, binary_ids, unique_ids
from graftline.feature_store import FeatureStore
from graftline.store import Store


@dataclass(frozen=True)
class Stored:
    """What one fingerprint holds.

    Attributes:
        fingerprint: Its name.
        backbone: What made the features; empty where a run was killed before saying so.
        precision: ``fp32`` or ``bf16``.
        images: Stored vectors; one that two runs computed may count twice until it is folded.
        parts: Number of parts.
        bytes: Their size.
        damaged: Parts that were set aside.
    """

    fingerprint: str
    backbone: str
    precision: str
    images: int
    parts: int
    bytes: int
    damaged: int


@dataclass(frozen=True)
class Removal:
    """What one fingerprint holds in vain.

    Attributes:
        fingerprint: Its name.
        images: Vectors that no kept snapshot uses.
        kept: Vectors that stay.
    """

    fingerprint: str
    images: int
    kept: int


def stored(store: Store) -> list[Stored]:
    """All fingerprints in a store, by name. Reads no vectors."""
    keys: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for info in store.list("features/"):
        fingerprint, _, rest = info.key.removeprefix("features/").partition("/")
        if fingerprint != "requests" and rest:
            keys[fingerprint].append((rest, info.size))
    return [_stored(store, fingerprint, found) for fingerprint, found in sorted(keys.items())]


def snapshots(store: Store) -> list[str]:
    """Ids of the snapshots that a store keeps."""
    listed = (info.key.split("/") for info in store.list("snapshots/"))
    return sorted({parts[1] for parts in listed if parts[-1] == "snapshot.json"})


def collect_garbage(
    store: Store, keep: Sequence[str] | None = None, *, remove: bool
) -> Iterator[Removal]:
    """Find, and remove, the features of images that no kept snapshot holds.

    The parts are listed before the snapshots are: what a run adds meanwhile is not touched.

    Args:
        store: The store.
        keep: Snapshot ids; None keeps all that the store has.
        remove: False only looks.

    Raises:
        ConfigurationError: A snapshot to be kept is not in the store, or nothing would be kept.
    """
    found = {one.fingerprint: FeatureStore(store, one.fingerprint).parts() for one in stored(store)}
    have = snapshots(store)
    unknown = sorted(set(keep or ()) - set(have))
    if unknown:
        raise ConfigurationError(
            f"The store has no snapshot {', '.join(unknown)}.",
            fix=f"It has {', '.join(have) or 'none'}.",
        )
    kept = list(have if keep is None else keep)
    if not kept:
        raise ConfigurationError(
            f"{store.uri} keeps no snapshot, so every feature in it would be removed.",
            fix="If that is meant, delete its `features/` yourself.",
        )
    used = IdIndex(_ids_of(store, kept))
    for fingerprint, parts in found.items():
        features = FeatureStore(store, fingerprint)
        unwanted = in_parts = 0
        for part in parts:
            total, unused = features.drop_from(part, used, remove=remove)
            in_parts += total
            unwanted += unused
        if remove and unwanted == in_parts:
            for info in list(store.list(f"features/{fingerprint}/")):
                if "/parts/" not in info.key:
                    store.delete(info.key)
        yield Removal(fingerprint, unwanted, in_parts - unwanted)


def _ids_of(store: Store, snapshot_ids: Iterable[str]) -> Ids:
    """The ids of all images of some snapshots, each once."""
    columns = []
    for snapshot_id in snapshot_ids:
        manifest = pa.BufferReader(store.read(snapshot_key(snapshot_id, "manifest.parquet")))
        columns.append(binary_ids(pq.read_table(manifest, columns=["image_id"])["image_id"]))
    return unique_ids(np.concatenate(columns))


def _stored(store: Store, fingerprint: str, keys: Sequence[tuple[str, int]]) -> Stored:
    features = FeatureStore(store, fingerprint)
    description = features.description()
    parts = features.parts()
    return Stored(
        fingerprint=fingerprint,
        backbone=str(description.get("name", "")),
        precision=str(description.get("precision", "")),
        images=sum(part.rows for part in parts),
        parts=len(parts),
        bytes=sum(part.size for part in parts),
        damaged=sum(key.startswith("damaged/") for key, _ in keys),
    )
