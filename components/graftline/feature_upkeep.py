"""What is stored under which backbone, and removing what no kept snapshot uses."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from graftline.dataset import snapshot_key
from graftline.errors import ConfigurationError
from graftline.feature_parts import IdIndex, Ids, Part, binary_ids, unique_ids
from graftline.feature_store import FeatureStore
from graftline.store import Store


@dataclass(frozen=True)
class Stored:
    """What one fingerprint holds.

    Attributes:
        fingerprint: Its name.
        backbone: What made the features; empty where a run was killed before saying so.
        precision: ``fp32`` or ``bf16``.
        image_size: Side of the network's input in pixels; None where it was never said.
        images: Stored vectors; one that two runs computed may count twice until it is folded.
        parts: Number of parts.
        bytes: Their size.
        damaged: Keys of parts that are damaged: set aside by a run, or found so by a check.
        reasons: What is wrong with those that a check found, by key.
    """

    fingerprint: str
    backbone: str
    precision: str
    image_size: int | None
    images: int
    parts: int
    bytes: int
    damaged: tuple[str, ...]
    reasons: dict[str, str]


@dataclass(frozen=True)
class Removal:
    """What one fingerprint holds in vain.

    Attributes:
        fingerprint: Its name.
        backbone: What made the features.
        images: Vectors that no kept snapshot uses.
        kept: Vectors that stay.
        damaged: Damaged parts that were set aside; their images are computed anew.
    """

    fingerprint: str
    backbone: str
    images: int
    kept: int
    damaged: int


def stored(store: Store, *, check: bool = False) -> list[Stored]:
    """All fingerprints in a store, by name.

    Args:
        store: The store.
        check: Read every part and compare it with its digest; else no vectors are read.
    """
    return [_stored(store, fingerprint, check) for fingerprint in _fingerprints(store)]


def _fingerprints(store: Store) -> list[str]:
    listed = (info.key.removeprefix("features/") for info in store.list("features/"))
    found = {key.partition("/")[0] for key in listed if "/" in key}
    return sorted(found - {"requests"})


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
    found = {each: FeatureStore(store, each) for each in _fingerprints(store)}
    parts = {each: features.parts() for each, features in found.items()}
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
    for fingerprint, features in found.items():
        yield _collect(features, parts[fingerprint], used, remove)


def _collect(features: FeatureStore, parts: Sequence[Part], used: IdIndex, remove: bool) -> Removal:
    backbone = _named(features)[0]
    unwanted = in_parts = 0
    for part in parts:
        total, unused = features.drop_from(part, used, remove=remove)
        in_parts += total
        unwanted += unused
    damaged = [info.key for info in features.store.list("damaged/")]
    if remove:
        for key in damaged:
            features.store.delete(key)
        if not features.parts():  # a run that begins just now says again what it computes
            features.store.delete("backbone.json")
    return Removal(features.fingerprint, backbone, unwanted, in_parts - unwanted, len(damaged))


def _ids_of(store: Store, snapshot_ids: Iterable[str]) -> Ids:
    """The ids of all images of some snapshots, each once."""
    ids = np.zeros((0, 32), np.uint8)
    for snapshot_id in snapshot_ids:
        manifest = pa.BufferReader(store.read(snapshot_key(snapshot_id, "manifest.parquet")))
        column = pq.read_table(manifest, columns=["image_id"])["image_id"]
        ids = unique_ids(np.concatenate([ids, binary_ids(column)]))
    return ids


def _named(features: FeatureStore) -> tuple[str, str, int | None]:
    """Backbone, precision and image size; empty where they were never said."""
    description = features.description()
    size = description.get("preprocessing", {}).get("input_size")
    return str(description.get("name", "")), str(description.get("precision", "")), size


def _stored(store: Store, fingerprint: str, check: bool) -> Stored:
    features = FeatureStore(store, fingerprint)
    backbone, precision, image_size = _named(features)
    parts = features.parts()
    reasons: dict[str, str] = {}
    if check:
        reasons = {part.key: why for part, why in features.check() if why is not None}
    aside = (info.key for info in features.store.list("damaged/"))
    return Stored(
        fingerprint=fingerprint,
        backbone=backbone,
        precision=precision,
        image_size=image_size,
        images=sum(part.rows for part in parts),
        parts=len(parts),
        bytes=sum(part.size for part in parts),
        damaged=(*reasons, *aside),
        reasons=reasons,
    )
