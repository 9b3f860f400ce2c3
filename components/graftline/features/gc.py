"""What is stored under which backbone, and removing what no kept snapshot uses."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from graftline.data.snapshot import kept_manifest
from graftline.data.tables import read_parquet
from graftline.errors import ConfigurationError, IntegrityError, StoreNotFound
from graftline.features.parts import IdIndex, Ids, Part, binary_ids, unique_ids
from graftline.features.store import FeatureStore
from graftline.storage.base import Store


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
        damaged: Keys of parts that are damaged: quarantined by a run, or found by a check.
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
        damaged: Damaged parts that were quarantined; their images are computed again.
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

    The parts are listed before the snapshots are: what a run adds meanwhile is not touched. Where
    all snapshots are kept, they are listed again before each removal: what one that was added
    meanwhile reuses stays.

    Args:
        store: The store.
        keep: Snapshot ids; None keeps all that the store has.
        remove: False only looks.

    Raises:
        ConfigurationError: A snapshot to be kept is not in the store, or nothing would be kept.
        IntegrityError: A snapshot is damaged: what it uses cannot be known.
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
            fix="If you want that, delete its `features/` folder yourself.",
        )
    used = _Used(store, kept, grows=keep is None)
    for fingerprint, features in found.items():
        yield _collect(features, parts[fingerprint], used, remove)


class _Used:
    """The images of the kept snapshots; where all are kept, of those too that are added later."""

    def __init__(self, store: Store, kept: Sequence[str], *, grows: bool) -> None:
        self._store, self._grows, self._kept = store, grows, set(kept)
        self._ids = _ids_of(store, kept)
        self._index = IdIndex(self._ids)

    def now(self) -> IdIndex:
        """What is used as of now."""
        added = sorted(set(snapshots(self._store)) - self._kept) if self._grows else []
        if added:
            self._kept.update(added)
            self._ids = unique_ids(np.concatenate([self._ids, _ids_of(self._store, added)]))
            self._index = IdIndex(self._ids)
        return self._index


def _collect(features: FeatureStore, parts: Sequence[Part], used: _Used, remove: bool) -> Removal:
    backbone = _named(features)[0]
    unwanted = in_parts = 0
    index = used.now()
    for part in parts:
        total, unused = features.unused(part, index)
        in_parts += total
        unwanted += unused
        if remove and unused:
            features.drop_unused(part, used.now)
    damaged = [info.key for info in features.store.list("damaged/")]
    if remove:
        for key in damaged:
            features.store.delete(key)
        if not features.parts():  # a run that begins just now says again what it computes
            features.forget()
    return Removal(features.fingerprint, backbone, unwanted, in_parts - unwanted, len(damaged))


def _ids_of(store: Store, snapshot_ids: Iterable[str]) -> Ids:
    """The ids of all images of some snapshots, each once."""
    ids = np.zeros((0, 32), np.uint8)
    for snapshot_id in snapshot_ids:
        try:
            found = binary_ids(read_parquet(_manifest(store, snapshot_id))["image_id"])
        except (StoreNotFound, IntegrityError, ValueError, KeyError, TypeError) as error:
            raise IntegrityError(
                f"Snapshot {snapshot_id} in {store.uri} is damaged, so the features "
                "that it uses are unknown.",
                why=str(error),
                fix="Run `ingest` on its source again, or name the snapshots to keep with --keep.",
            ) from error
        ids = unique_ids(np.concatenate([ids, found]))
    return ids


def _manifest(store: Store, snapshot_id: str) -> bytes:
    try:
        return kept_manifest(store, snapshot_id)
    except (StoreNotFound, IntegrityError):  # an earlier version may just be writing it again
        return kept_manifest(store, snapshot_id)


def _named(features: FeatureStore) -> tuple[str, str, int | None]:
    """Backbone, precision and image size; empty where they were never said."""
    description = features.description()
    preprocessing = description.get("preprocessing")
    size = preprocessing.get("input_size") if isinstance(preprocessing, dict) else None
    size = size if isinstance(size, int) else None
    return str(description.get("name", "")), str(description.get("precision", "")), size


def _stored(store: Store, fingerprint: str, check: bool) -> Stored:
    features = FeatureStore(store, fingerprint)
    backbone, precision, image_size = _named(features)
    parts = features.parts()
    reasons: dict[str, str] = {}
    if check:
        reasons = {part.key: why for part, why in features.check() if why is not None}
    moved = (info.key for info in features.store.list("damaged/"))
    return Stored(
        fingerprint=fingerprint,
        backbone=backbone,
        precision=precision,
        image_size=image_size,
        images=sum(part.rows for part in parts),
        parts=len(parts),
        bytes=sum(part.size for part in parts),
        damaged=(*reasons, *moved),
        reasons=reasons,
    )
