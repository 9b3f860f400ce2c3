"""What the decision page shows besides the record: a map of the features, and pictures."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from graftline.data.snapshot import Snapshot, read_images
from graftline.errors import GraftlineError
from graftline.images.decode import decode
from graftline.reports.html import thumbnail
from graftline.steps.fit_head.probes.folds import subsample
from graftline.storage.base import Store

MAP_IMAGES = 400  # with a thumbnail each: about half a megabyte
SUSPECTS_SHOWN = 60
FITTED_ON = 5000  # images that the map's axes are computed from
SMALL, LARGE = 56, 128

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Evidence:
    """Rows of the manifest, where they lie, and their pictures.

    Attributes:
        rows: Of the map, shape (M,).
        places: Their coordinates, both between 0 and 1, shape (M, 2).
        explained: Share of the variance along both axes.
        suspects: Manifest rows by image id, of the suspects that are shown.
        pictures: Data URIs by manifest row; one that cannot be shown is missing.
    """

    rows: Rows
    places: NDArray[np.float64]
    explained: float
    suspects: Mapping[str, int]
    pictures: Mapping[int, str] = field(repr=False)


def gather(
    snapshot: Snapshot, matrix: NDArray[Any], suspects: Iterable[str], store: Store, seed: int
) -> Evidence:
    """Choose the images of the map and read all pictures.

    Args:
        snapshot: The data.
        matrix: Features of every manifest row.
        suspects: Image ids, the least credible first.
        store: Where the images are.
        seed: Of the choice.

    Raises:
        StoreError: The store cannot be read.
    """
    train = snapshot.rows("train")
    labels = snapshot.labels()[train]
    alone = np.arange(len(train))
    first = list(suspects)[:SUSPECTS_SHOWN]
    wanted = set(first)
    row_of = {i: row for row, i in enumerate(snapshot.image_ids()) if i in wanted}
    sample = train[subsample(labels, alone, MAP_IMAGES, seed, rare=1)][:MAP_IMAGES]
    chosen = np.union1d(sample, np.array(sorted(row_of.values()), dtype=np.int64))
    fitted = train[subsample(labels, alone, FITTED_ON, seed, rare=1)]
    axes = PCA(2, random_state=seed).fit(np.asarray(matrix[fitted], dtype=np.float32))
    places = axes.transform(np.asarray(matrix[chosen], dtype=np.float32)).astype(np.float64)
    low, high = places.min(axis=0), places.max(axis=0)
    places = (places - low) / np.maximum(high - low, 1e-12)
    return Evidence(
        rows=chosen,
        places=places,
        explained=float(axes.explained_variance_ratio_.sum()),
        suspects=row_of,
        pictures=_pictures(snapshot, store, {int(row) for row in chosen}, set(row_of.values())),
    )


def _pictures(snapshot: Snapshot, store: Store, small: set[int], large: set[int]) -> dict[int, str]:
    found: dict[int, str] = {}
    rows = snapshot.storage_order(sorted(small | large))
    for row, data in read_images(snapshot, rows, store=store):
        try:
            image = decode(data, shortest=LARGE, value_range=snapshot.value_range)
        except GraftlineError:
            continue  # larger than the usual limit: named without a picture
        found[row] = thumbnail(image, LARGE if row in large else SMALL)
    return found
