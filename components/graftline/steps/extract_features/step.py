"""Features of every image of a snapshot; each image meets the network once, ever.

What the store holds is copied; only what it lacks is computed. PyTorch is not even imported where
nothing is missing.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from graftline.data.snapshot import Snapshot, read_images, read_snapshot
from graftline.errors import ConfigurationError
from graftline.features.engine_record import Choice, EngineRecord, choose, tell_difference
from graftline.features.matrix import Features, create_matrix, write_features
from graftline.features.parts import IdIndex, Ids, binary_ids
from graftline.features.store import FeatureStore
from graftline.features.writer import PartWriter
from graftline.images.fit import Fit
from graftline.images.preprocessing import Preprocessing
from graftline.progress import Progress, message
from graftline.settings import read_section
from graftline.steps.extract_features import reduction
from graftline.steps.extract_features.config import ExtractConfig
from graftline.steps.extract_features.request import (
    FeatureRequest,
    ResolvedBackbone,
    keep_answer,
    known_answer,
    request_key,
)
from graftline.steps.runtime import StepResult
from graftline.storage import open_store
from graftline.storage.base import Store

if TYPE_CHECKING:
    from graftline.inference.engine import Engine
    from graftline.models.backbone import Backbone

SHARE_IMAGES = 256  # so many are worth one more worker, which has to start and open the network
STORED = "stored"
READ_AHEAD = 65_536  # images whose byte ranges are read at once
LITTLE_SEEN = 0.5  # of an image's area
MANY = 0.1  # of the images

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class ExtractResult(StepResult):
    """What the extraction came to.

    Attributes:
        fingerprint: Of the features.
        extracted: Images that met the network now.
        reused: Images whose features were stored.
        dim: Width of the features.
        engine: What ran the network; ``stored`` where nothing was missing.
        precision: ``fp32`` or ``bf16``.
        images_per_second: Of those that met the network, everything included.
        agreement: The engine against PyTorch in fp32 on a sample.
    """

    fingerprint: str
    backbone: str
    extracted: int
    reused: int
    dim: int
    engine: str
    precision: str
    images_per_second: float
    agreement: dict[str, float] = field(default_factory=dict)

    def metrics(self) -> dict[str, float]:
        """Figures for the tracking run."""
        return {
            "extracted": self.extracted,
            "reused": self.reused,
            "images_per_second": self.images_per_second,
            **{f"agreement_{name}": value for name, value in self.agreement.items()},
        }

    def params(self) -> dict[str, str]:
        """Choices for the tracking run."""
        return {
            "backbone": self.backbone,
            "fingerprint": self.fingerprint,
            "engine": self.engine,
            "precision": self.precision,
        }


def run(
    *, snapshot_folder: Path, store: str, features_folder: Path | None, **config: Any
) -> ExtractResult:
    """Compute what the store lacks and write the artifact.

    Args:
        snapshot_folder: The dataset snapshot.
        store: URI of the store; its images and features.
        features_folder: The artifact; None for one worker's share, which goes to the store alone.
        config: See :class:`graftline.steps.extract_features.config.ExtractConfig`.

    Raises:
        ConfigurationError: A setting is unknown or out of range.
        UnknownBackbone: No library has it.
        WeightsError: The weights cannot be had or do not fit.
        StoreError: The store cannot be read or written.
    """
    settings = read_section(ExtractConfig, "extract", config)
    worker, workers = settings.worker, settings.workers
    _check_share(worker, workers, features_folder)
    snapshot, place = read_snapshot(snapshot_folder), open_store(store)
    network = _network(
        snapshot, place, _request(settings, snapshot), settings.engine, settings.batch_size
    )
    features = network.features
    ids = binary_ids(snapshot.manifest.column("image_id"))
    index, filled, matrix = IdIndex(ids), np.zeros(len(snapshot), bool), None
    if features_folder is None:
        stored = index.rows(features.ids())
        filled[stored[stored >= 0]] = True
        filled |= _shares(ids, workers) != worker
    else:
        matrix = create_matrix(features_folder, len(snapshot), network.answer.dim)
        features.load(index, matrix, filled)
    missing = np.flatnonzero(~filled)
    rate = 0.0
    if len(missing):
        missing = snapshot.storage_order(missing)
        rate = _extract(snapshot, missing, ids, features, network, matrix)
        filled[missing] = True
    mine = int((_shares(ids, workers) == worker).sum())
    extracted = min(mine, len(missing) + settings.extracted_by_workers)
    result = _result(network, extracted, mine - extracted, rate)
    if features_folder is not None and matrix is not None:
        features.compact()  # not by a share: others are still gathering their parts
        write_features(features_folder, _artifact(result, snapshot, matrix), filled)
    return result


def _request(settings: ExtractConfig, snapshot: Snapshot) -> FeatureRequest:
    return FeatureRequest(
        settings.backbone,
        settings.weights,
        settings.image_size,
        _requested_precision(settings.precision, settings.engine),
        settings.fit,
        snapshot.value_range,
    )


def _result(network: "_Network", extracted: int, reused: int, rate: float) -> ExtractResult:
    answer = network.answer
    message(
        "Features: %s computed, %s reused, %s wide.", f"{extracted:,}", f"{reused:,}", answer.dim
    )
    return ExtractResult(
        fingerprint=answer.fingerprint,
        backbone=answer.backbone,
        extracted=extracted,
        reused=reused,
        dim=answer.dim,
        engine=network.kind,
        precision=answer.precision,
        images_per_second=round(rate, 1),
        agreement=network.agreement or network.features.agreement(),
    )


def plan(
    *,
    snapshot_folder: Path,
    store: str,
    backbone: str,
    workers: int,
    weights: str | None = None,
    image_size: int | None = None,
    engine: str = "auto",
    precision: str = "fp32",
    fit: Fit = "crop",
    share_images: int = SHARE_IMAGES,
) -> list[str]:
    """Split the missing images over workers.

    Args:
        snapshot_folder: The dataset snapshot.
        store: URI of the store.
        backbone: Name of the network.
        workers: The most shares there may be.
        weights: As of :func:`run`.
        image_size: As of :func:`run`.
        engine: As of :func:`run`.
        precision: As of :func:`run`.
        fit: As of :func:`run`.
        share_images: What one share is worth at least; fewer images are left to fewer workers.

    Returns:
        Shares as ``worker/workers``, at least one and at most ``workers``; as many as there is
        work for.
    """
    if workers < 1:
        raise ConfigurationError(f"`extract.workers: {workers}`: at least one is needed.")
    snapshot, place = read_snapshot(snapshot_folder), open_store(store)
    precision_asked = _requested_precision(precision, engine)
    request = FeatureRequest(
        backbone, weights, image_size, precision_asked, fit, snapshot.value_range
    )
    network = _network(snapshot, place, request, engine, None)
    index = IdIndex(binary_ids(snapshot.manifest.column("image_id")))
    stored = network.features.ids()
    missing = len(snapshot) - int((index.rows(stored) >= 0).sum())
    count = max(1, min(workers, -(-missing // share_images)))
    message("%s images to compute, in %s shares.", f"{missing:,}", count)
    return [f"{worker}/{count}" for worker in range(count)]


def _network(
    snapshot: Snapshot, store: Store, request: FeatureRequest, engine: str, batch_size: int | None
) -> "_Network":
    """The network of a request, with large JPEGs decoded as the data allows."""
    network = _Network(store, request, engine, batch_size)
    _say_what_is_cut(snapshot, network.preprocessing)
    large = reduction.reduced_rows(snapshot, network.preprocessing)
    if len(large) and not reduction.hides(
        snapshot, store, request, large, lambda: network.backbone
    ):
        full = replace(request, full_decoding=True)
        return _Network(store, full, engine, batch_size)
    return network


def _say_what_is_cut(snapshot: Snapshot, preprocessing: Preprocessing) -> None:
    """Say it where much of many images is never seen."""
    seen = preprocessing.share_seen(snapshot.column("height"), snapshot.column("width"))
    poor = seen < LITTLE_SEEN
    if preprocessing.fit == "crop" and poor.mean() > MANY:
        message(
            "%s of %s images are so wide or tall that the crop shows only %.0f%% of them; "
            "`image.fit: squash` or `pad` shows all.",
            f"{int(poor.sum()):,}",
            f"{len(snapshot):,}",
            100 * float(seen[poor].mean()),
        )


class _Network:
    """The network of a request; built only when something needs it."""

    def __init__(
        self, store: Store, request: FeatureRequest, engine: str, batch_size: int | None
    ) -> None:
        self._store, self._request = store, request
        self._engine, self._batch_size = engine, batch_size
        self._backbone: Backbone | None = None
        self._opened: Engine | None = None
        key = request_key(store, request)  # before any weights are read
        self.answer = known_answer(store, key) or self._ask(key)
        self.features = FeatureStore(store, self.answer.fingerprint)

    def _ask(self, key: str) -> ResolvedBackbone:
        from graftline.inference.engine import GRAPH, resolve_precision

        backbone = self.backbone
        precision = resolve_precision(self._request.precision, self._engine)
        answer = ResolvedBackbone(
            fingerprint=backbone.fingerprint(precision),
            backbone=backbone.spec.name,
            dim=backbone.spec.feature_dim,
            precision=precision,
            graph=backbone.fingerprint(GRAPH),
            spec=backbone.spec.to_dict(),
        )
        if request_key(self._store, self._request) != key:
            return answer  # other weights were put there meanwhile: these are not theirs
        return keep_answer(self._store, key, answer)

    @property
    def preprocessing(self) -> Preprocessing:
        """From bytes to the network's input."""
        return Preprocessing.from_dict(self.answer.spec["preprocessing"])

    @property
    def backbone(self) -> "Backbone":
        """The network with its weights; seconds the first time."""
        from graftline.models.backbone import build

        if self._backbone is None:
            self._backbone = build(
                self._request.backbone,
                weights=self._request.weights,
                image_size=self._request.image_size,
                store=self._store,
                **self._request.preprocessing(),
            )
        return self._backbone

    def open(self) -> "Engine":
        """The engine that the stored features were computed with, unless the settings name one.

        The network is built only where this machine lacks its graph.
        """
        known = self.features.engine()
        opened = self._open(choose(known, self._engine, self._batch_size))
        counts = self.features.keep_engine(EngineRecord(opened.kind, opened.batch_size))
        theirs = choose(counts, self._engine, self._batch_size)
        if known is None and not theirs.is_met_by(opened.kind, opened.batch_size):
            del opened  # another run was first meanwhile; its memory is free before the next opens
            opened = self._open(theirs)
        tell_difference(counts, opened.kind)
        self._opened = opened
        return opened

    def _open(self, choice: Choice) -> "Engine":
        from graftline.inference.engine import open_named

        return open_named(
            self._proven,
            self.answer.graph,
            self.preprocessing,
            engine=self._engine,
            precision=self.answer.precision,
            batch_size=choice.batch_size,
            kind=choice.kind,
        )

    def _proven(self) -> "Backbone":
        """The network; weights that are not those of the answer are refused."""
        backbone = self.backbone
        found = backbone.fingerprint(self.answer.precision)
        if found != self.answer.fingerprint:
            raise ConfigurationError(
                f"The weights of '{backbone.spec.name}' have changed where they are published.",
                why=f"Stored features have fingerprint {self.answer.fingerprint}, now {found}.",
                fix="Keep one set of weights in the store with `graftline mirror-weights "
                f"{backbone.spec.name} --store {self._store.uri}`.",
            )
        return backbone

    @property
    def kind(self) -> str:
        """The engine that ran, or ``stored``."""
        return self._opened.kind if self._opened else STORED

    @property
    def agreement(self) -> dict[str, float]:
        """Of the engine that ran with PyTorch in fp32."""
        return self._opened.agreement.to_dict() if self._opened else {}


def _extract(
    snapshot: Snapshot,
    rows: npt.NDArray[np.int64],
    ids: Ids,
    features: FeatureStore,
    network: _Network,
    matrix: Vectors | None,
) -> float:
    """Run the network over rows; the images a second come back."""
    engine = network.open()
    features.describe(network.answer.spec | {"precision": engine.precision})
    about = {"engine": engine.kind, "precision": engine.precision}
    started, done = time.perf_counter(), 0
    with (
        Progress("Extracting features", len(rows)) as bar,
        PartWriter(features, network.answer.dim, about) as writer,
    ):
        for vectors in engine.run(_bytes(snapshot, rows, network)):
            batch = rows[done : done + len(vectors)]
            writer.add(ids[batch], vectors)
            if matrix is not None:
                matrix[batch] = vectors
            done += len(vectors)
            bar.advance(len(vectors))
    features.keep_agreement(engine.kind, engine.agreement.to_dict())
    return len(rows) / (time.perf_counter() - started)


def _bytes(snapshot: Snapshot, rows: npt.NDArray[np.int64], network: _Network) -> Iterator[bytes]:
    for first in range(0, len(rows), READ_AHEAD):  # the places of millions would fill the memory
        part = rows[first : first + READ_AHEAD]
        for _, data in read_images(snapshot, part, store=network._store):
            yield data


def _shares(ids: Ids, workers: int) -> npt.NDArray[np.int64]:
    """Which worker an image belongs to: by its digest, so every worker decides alike."""
    return ids[:, :4].copy().view(">u4").reshape(-1).astype(np.int64) % workers


def _requested_precision(precision: str, engine: str) -> str:
    """The precision of the request: ``auto`` is one answer for all engines that compute in bf16."""
    return "fp32" if precision == "auto" and engine == "onnxruntime" else precision


def _check_share(worker: int, workers: int, features_folder: Path | None) -> None:
    if workers < 1 or not 0 <= worker < workers:
        raise ConfigurationError(f"There is no share {worker} of {workers}.")
    if workers > 1 and features_folder is not None:
        raise ConfigurationError(
            "One worker's share is not a whole artifact.", fix="Assemble it after all workers."
        )


def _artifact(result: ExtractResult, snapshot: Snapshot, matrix: Vectors) -> Features:
    return Features(
        matrix=matrix,
        fingerprint=result.fingerprint,
        snapshot_id=snapshot.id,
        backbone=result.backbone,
        engine=result.engine,
        precision=result.precision,
        extracted=result.extracted,
        reused=result.reused,
        agreement=result.agreement,
    )
