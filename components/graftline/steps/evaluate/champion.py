"""The champion on the same test images, through the very file that is registered."""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftline.data.snapshot import Snapshot, fetch_snapshot
from graftline.errors import DataError, SchemaVersionError, StoreError
from graftline.images.decode import decode
from graftline.onnx_model.predict import OnnxClassifier
from graftline.progress import message, progress
from graftline.steps.evaluate.inference import Inference
from graftline.storage import open_store
from graftline.storage.base import Store
from graftline.tracking.registry import open_registry

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

LEFT_OUT_TRAINED = "the champion had them, or their group, in its training"
LEFT_OUT_CLASS = "the champion does not know their class"


@dataclass(frozen=True, kw_only=True)
class ChampionAnswers:
    """The champion and its answers.

    Attributes:
        name: Registered model.
        version: Registered version.
        digest: sha256 of its ONNX file.
        snapshot_id: What it was trained on; empty where that is not recorded.
        classes: Its classes.
        probabilities: Of the challenger's classes, then of those that only the champion knows;
            shape (test images, classes).
        comparable: Test images that count in the comparison, shape (test images,).
        left_out: Why and how many do not.
        notes: What else a reader must know.
    """

    name: str
    version: str
    digest: str
    snapshot_id: str
    classes: tuple[str, ...]
    probabilities: Floats
    comparable: Bools
    left_out: dict[str, int]
    notes: list[str]

    @property
    def predicted(self) -> Ints:
        """Class index of its answers; those past the challenger's classes are its own."""
        return np.asarray(self.probabilities.argmax(axis=1), dtype=np.int64)


def find_champion(
    inference: Inference, rows: Ints, tracking_uri: str, registered_model: str
) -> ChampionAnswers | None:
    """The champion's answers to the test rows, or None where there is no champion.

    Args:
        inference: The challenger with its images.
        rows: Its test rows.
        tracking_uri: Where the registry is; empty for none.
        registered_model: The model whose champion is asked for.
    """
    if not tracking_uri or not registered_model:
        return None
    version = open_registry(tracking_uri).champion(registered_model)
    if version is None:
        message("%s has no champion yet: this is its first model", registered_model)
        return None
    with tempfile.TemporaryDirectory(prefix="graftline-champion-") as folder:
        model = OnnxClassifier(version.download_onnx(Path(folder)))
        raw = _ask(model, rows, inference.encoded)
        classes = tuple(model.classes)
        seen, notes = _trained_on(version, inference.store, Path(folder) / "snapshot")
    snapshot = inference.snapshot
    known = np.isin(np.array(snapshot.classes, dtype=object)[snapshot.labels()[rows]], classes)
    trained = _overlap(snapshot, rows, seen)
    return ChampionAnswers(
        name=registered_model,
        version=str(version.version),
        digest=str(version.digest or ""),
        snapshot_id=str(version.snapshot_id or ""),
        classes=classes,
        probabilities=_aligned(raw, classes, snapshot.classes),
        comparable=known & ~trained,
        left_out={
            reason: int(count)
            for reason, count in (
                (LEFT_OUT_TRAINED, trained.sum()),
                (LEFT_OUT_CLASS, (~known & ~trained).sum()),
            )
            if count
        },
        notes=notes,
    )


def _ask(
    model: OnnxClassifier, rows: Ints, encoded: Callable[[Ints], Iterator[tuple[int, bytes]]]
) -> Floats:
    order: list[int] = []
    # As the champion's own data was read; a model that says nothing of it is of 8-bit images.
    value_range = getattr(getattr(model, "metadata", None), "value_range", None)

    def images() -> Iterator[NDArray[np.uint8]]:
        for row, data in progress(encoded(rows), "asking the champion", len(rows)):
            order.append(row)
            yield decode(data, value_range=value_range)

    answers = model.probabilities(images())
    place = {row: index for index, row in enumerate(order)}
    return np.asarray(answers, dtype=np.float64)[[place[int(row)] for row in rows]]


def _aligned(raw: Floats, classes: tuple[str, ...], ours: tuple[str, ...]) -> Floats:
    """Columns in our order; a class that is only ours gets nothing, theirs come last."""
    union = [*ours, *(name for name in classes if name not in set(ours))]
    place = {name: index for index, name in enumerate(union)}
    aligned = np.zeros((len(raw), len(union)))
    aligned[:, [place[name] for name in classes]] = raw
    return aligned


def _trained_on(
    version: Any, store: Store, folder: Path
) -> tuple[tuple[set[str], set[str]], list[str]]:
    """Image ids and groups that the champion was fitted or tuned on, and what was not found."""
    if not version.snapshot_id:
        return (set(), set()), [
            "The champion's registered version names no snapshot, so images of its training "
            "cannot be left out; that can only favour the champion."
        ]
    where = str(version.tags.get("graftline.store") or "")
    places = [store] if not where or where == store.uri else [store, open_store(where)]
    for place in places:
        try:
            theirs = fetch_snapshot(place, version.snapshot_id, folder)
        except (StoreError, DataError, SchemaVersionError):
            continue
        rows = np.concatenate([theirs.rows("train"), theirs.rows("val")])
        groups = theirs.column("group")[rows]
        ids = theirs.image_ids()
        return ({ids[row] for row in rows}, {str(group) for group in groups if group}), []
    return (set(), set()), [
        f"The champion's snapshot {version.snapshot_id} is not in the store, so images of its "
        "training cannot be left out; that can only favour the champion."
    ]


def _overlap(snapshot: Snapshot, rows: Ints, seen: tuple[set[str], set[str]]) -> Bools:
    ids, groups = seen
    own = snapshot.image_ids()
    group = snapshot.column("group")
    return np.array([own[row] in ids or str(group[row]) in groups for row in rows], dtype=bool)
