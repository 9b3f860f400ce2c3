"""Features of another network than the run's feature artifact is of, kept in the store like it.

``fit_head`` computes those of all blocks, ``evaluate`` needs them again, and so does the next run.
"""

import numpy as np
from numpy.typing import NDArray

from graftline.data.snapshot import Snapshot, read_images
from graftline.features.parts import IdIndex, binary_ids
from graftline.features.store import FeatureStore
from graftline.features.writer import PartWriter
from graftline.inference.engine import forward_images
from graftline.models.backbone import Backbone
from graftline.storage.base import Store

PRECISION = "fp32"
TOGETHER = 256  # vectors that are handed over at once

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]


def stored_features(
    snapshot: Snapshot, rows: Rows, fingerprint: str, dim: int, store: Store
) -> tuple[Floats, NDArray[np.bool_]]:
    """What the store has of these rows.

    Args:
        snapshot: The images.
        rows: Of its manifest, shape (n,), each once.
        fingerprint: Of the network, its weights, preprocessing and precision.
        dim: Width of its features.
        store: The run's.

    Returns:
        Features (n, dim) in the order of the rows, and which of them the store has, (n,); the
        others are zero.
    """
    found, filled = np.zeros((len(rows), dim), np.float32), np.zeros(len(rows), bool)
    index = IdIndex(binary_ids(snapshot.manifest.column("image_id"))[rows])
    FeatureStore(store, fingerprint).load(index, found, filled)
    return found, filled


def features_of(
    snapshot: Snapshot, rows: Rows, network: Backbone, store: Store, description: str
) -> tuple[Floats, int]:
    """Features of these rows: what the store lacks is computed, and kept there.

    Args:
        snapshot: The images.
        rows: Of its manifest, shape (n,), each once.
        network: In eval mode.
        store: The run's.
        description: What is being done, a few words.

    Returns:
        Features (n, dim) in the order of the rows, and how many were computed.
    """
    fingerprint, dim = network.fingerprint(PRECISION), network.spec.feature_dim
    found, filled = stored_features(snapshot, rows, fingerprint, dim, store)
    if filled.all():
        return found, 0
    order = snapshot.storage_order(rows[~filled])
    computed = forward_images(
        network,
        network.spec.preprocessing,
        (data for _, data in read_images(snapshot, order, store=store)),
        total=len(order),
        description=description,
    )
    place = np.zeros(len(snapshot), np.int64)
    place[rows] = np.arange(len(rows))
    found[place[order]] = computed
    ids = binary_ids(snapshot.manifest.column("image_id"))[order]
    features = FeatureStore(store, fingerprint)
    features.describe(network.spec.to_dict() | {"precision": PRECISION})
    with PartWriter(features, dim, {"precision": PRECISION}) as writer:
        for begin in range(0, len(order), TOGETHER):
            writer.add(ids[begin : begin + TOGETHER], computed[begin : begin + TOGETHER])
    return found, len(order)
