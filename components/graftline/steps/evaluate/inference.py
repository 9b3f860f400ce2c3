"""The classifier's answers to images of the snapshot, by the shortest way."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from graftline.classifier.bundle import FROZEN, Classifier
from graftline.data.snapshot import Snapshot, read_images
from graftline.features.matrix import Features
from graftline.images.preprocessing import Preprocessing
from graftline.inference.engine import forward_images
from graftline.steps.stored_features import stored_features
from graftline.storage.base import Store

Floats32 = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Answers:
    """What the classifier says of some rows.

    Attributes:
        rows: Manifest rows, shape (n,).
        embedding: Pooled features, shape (n, feature_dim), float32.
        logits: Uncalibrated, shape (n, classes), float32.
    """

    rows: Ints
    embedding: Floats32
    logits: Floats32


class Inference:
    """Runs the classifier; takes stored features where they are its own backbone's.

    Args:
        classifier: In eval mode.
        snapshot: The images.
        store: Holds their bytes.
        features: The feature artifact of the run, or None.
    """

    def __init__(
        self, classifier: Classifier, snapshot: Snapshot, store: Store, features: Features | None
    ) -> None:
        self.classifier = classifier
        self.snapshot = snapshot
        self.store = store
        fits = (
            features is not None
            and features.fingerprint == classifier.backbone_fingerprint
            and features.snapshot_id == snapshot.id
        )
        self.stored: Floats32 | None = features.matrix if fits and features is not None else None

    def answers(self, rows: Ints, description: str) -> Answers:
        """Embedding and logits of rows, in their order."""
        embedding = self.embedding(rows, description)
        return Answers(rows, embedding, self.classifier.logits_of_features(embedding))

    def embedding(self, rows: Ints, description: str) -> Floats32:
        """Pooled features of rows, each once; read where they are stored, else computed."""
        if self.stored is not None:
            return np.asarray(self.stored[rows], dtype=np.float32)
        found, filled = self._kept(rows)
        order = self.snapshot.storage_order(rows[~filled])
        images = (data for _, data in read_images(self.snapshot, order, store=self.store))
        computed = self.embed_images(images, len(order), description)
        place = {int(row): index for index, row in enumerate(rows)}
        found[[place[int(row)] for row in order]] = computed
        return found

    def _kept(self, rows: Ints) -> tuple[Floats32, NDArray[np.bool_]]:
        """What the store has of a frozen network's features, and of which rows."""
        dim = self.classifier.backbone.spec.feature_dim
        if self.classifier.strategy in FROZEN:
            fingerprint = self.classifier.backbone_fingerprint
            return stored_features(self.snapshot, rows, fingerprint, dim, self.store)
        return np.zeros((len(rows), dim), np.float32), np.zeros(len(rows), bool)

    def embed_images(
        self,
        images: Iterable[bytes],
        total: int,
        description: str,
        preprocessing: Preprocessing | None = None,
        precision: str = "fp32",
    ) -> Floats32:
        """Pooled features of encoded images, in their order.

        Args:
            images: The encoded images.
            total: How many there are.
            description: For the progress bar.
            preprocessing: In place of the classifier's own.
            precision: ``fp32``, which the exported file computes in, or ``auto`` where figures need
                no more than bf16.
        """
        # In full, as the exported file sees them: whether reduced decoding shows was measured on
        # the frozen network, and this one may be another.
        prepare = replace(preprocessing or self.classifier.preprocessing, full_decoding=True)
        if total == 0:
            width = self.classifier.backbone.spec.feature_dim
            return np.zeros((0, width), dtype=np.float32)
        computed: Floats32 = forward_images(
            self.classifier.backbone,
            prepare,
            images,
            total=total,
            description=description,
            precision=precision,
        )
        return computed

    def encoded(self, rows: Ints) -> Iterator[tuple[int, bytes]]:
        """Row and encoded bytes, in the order in which the store reads fastest."""
        return read_images(self.snapshot, self.snapshot.storage_order(rows), store=self.store)
