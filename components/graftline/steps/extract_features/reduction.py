"""Whether large JPEGs of a data set may be decoded at 1/2, 1/4 or 1/8, measured on its own images.

libjpeg leaves out the higher frequencies of each block of 8 x 8 pixels. What the resize would have
averaged away leaves a trace then: fine stripes, meshes and weaves become waves, at any ratio (on
stripes of 2.1 pixels in 3,400 x 3,400, the network's input differs by 7 of 255 and the features
have nothing in common). Usual photographs keep a cosine of 0.9997. So a sample is put through
the network both ways, before anything is computed, and the answer is kept in the store. One image
in which the reduction shows is enough: then all are decoded in full.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from graftline.data.snapshot import Snapshot, read_images
from graftline.errors import DataError, IntegrityError, StoreNotFound
from graftline.images.preprocessing import Preprocessing
from graftline.inference.decode_workers import network_input, smallest_side
from graftline.progress import message, progress
from graftline.steps.extract_features.request import FeatureRequest, request_key
from graftline.storage import commit
from graftline.storage.base import Store

if TYPE_CHECKING:
    from graftline.models.backbone import Backbone

SCHEMA_VERSION = 1
AT_RANDOM = 48  # images; of data with fine patterns in one image of 15, 96% hold one
# What the reduction leaves out costs bytes: at JPEG quality 92, stripes and meshes of 2 to 3 pixels
# take 3.1 to 4.8 bits a pixel, photographs 1.0 to 1.7. So a few among thousands are met, too.
DENSEST = 48
SIZES = 4  # groups of like size: the bytes of a pixel depend on the camera
LEAST_COSINE = 0.999  # between the features of the two ways, for each image of the sample
JPEG = ("jpeg", "mpo")

Rows = npt.NDArray[np.int64]


def reduced_rows(snapshot: Snapshot, preprocessing: Preprocessing) -> Rows:
    """Rows of the JPEGs so large that they would be decoded at half their size or less."""
    shorter = np.minimum(snapshot.column("width"), snapshot.column("height"))
    large = shorter >= 2 * smallest_side(preprocessing)
    return np.flatnonzero(large & np.isin(snapshot.column("format"), JPEG)).astype(np.int64)


def hides(
    snapshot: Snapshot,
    store: Store,
    request: FeatureRequest,
    rows: Rows,
    backbone: "Callable[[], Backbone]",
) -> bool:
    """Whether the resize hides the reduction on this data.

    Args:
        snapshot: The data.
        store: Keeps the answer, so that all workers and later runs decide alike.
        request: What is asked for, with reduction.
        rows: From :func:`reduced_rows`, at least one.
        backbone: Builds the network; asked only where the answer is new.
    """
    sample = sampled(snapshot, rows)
    ids = snapshot.image_ids()
    key = _key(store, request, [ids[row] for row in sample])
    cosine = _known(store, key)
    if cosine is None:
        cosine = _least_cosine(snapshot, store, sample, backbone())
        content = {"schema_version": SCHEMA_VERSION, "least_cosine": cosine}
        if not commit.create(store, key, content):
            known = _known(store, key)
            if known is None:  # damaged
                commit.overwrite(store, key, content)
            cosine = known or cosine  # another worker was faster
    hidden = cosine >= LEAST_COSINE
    message(
        "Large JPEGs are decoded %s: of %d of them, the features of reduced ones keep a cosine of "
        "%.4f or more.",
        "at a fraction of their size" if hidden else "in full",
        len(sample),
        cosine,
    )
    return hidden


def sampled(snapshot: Snapshot, rows: Rows) -> Rows:
    """Rows to measure: some at random, and of each size those with the most bytes a pixel.

    Rows are in the order of the image ids, which are digests: a sample drawn alike everywhere.
    """
    pixels = snapshot.column("width")[rows].astype(np.float64) * snapshot.column("height")[rows]
    density = snapshot.column("bytes")[rows] / pixels
    chosen = [np.arange(min(AT_RANDOM, len(rows)))]
    for group in np.array_split(np.argsort(pixels, kind="stable"), SIZES):
        densest = group[np.argsort(-density[group], kind="stable")]
        chosen.append(densest[: -(-DENSEST // SIZES)])
    return np.asarray(rows[np.unique(np.concatenate(chosen))])


def _key(store: Store, request: FeatureRequest, sample: list[str]) -> str:
    identity = {"schema_version": SCHEMA_VERSION, "request": request_key(store, request)}
    text = json.dumps({**identity, "sample": sample}, sort_keys=True)
    return f"features/requests/reduction-{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"


def _known(store: Store, key: str) -> float | None:
    try:
        content = commit.read(store, key).content
        if content["schema_version"] != SCHEMA_VERSION:
            return None
        return float(content["least_cosine"])
    except (StoreNotFound, IntegrityError, ValueError, KeyError, TypeError):
        return None


def _least_cosine(snapshot: Snapshot, store: Store, rows: Rows, backbone: "Backbone") -> float:
    """The smallest cosine between features of images decoded in full and reduced."""
    import torch

    reduced = backbone.spec.preprocessing
    full = replace(reduced, full_decoding=True)
    size = reduced.input_size
    least = 1.0
    images = read_images(snapshot, snapshot.storage_order(rows), store=store)
    for _, data in progress(images, "measuring reduced decoding", total=len(rows)):
        both = np.zeros((2, 3, size, size), np.float32)
        try:
            network_input(data, full, both[0])
            network_input(data, reduced, both[1])
        except DataError:
            continue  # the extraction names it
        with torch.no_grad():
            one, other = backbone(torch.from_numpy(both)).double().numpy()
        lengths = float(np.linalg.norm(one) * np.linalg.norm(other))
        least = min(least, float(one @ other) / lengths if lengths else 1.0)
    return least
