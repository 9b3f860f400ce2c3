"""Step: the classifier as one ONNX file, proven equal on every test image."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import graftline
from graftline.classifier.bundle import Classifier, load_classifier
from graftline.classifier.class_means import read_class_means
from graftline.data.snapshot import Snapshot, read_images, read_snapshot
from graftline.errors import ConfigurationError
from graftline.files import sha256_of
from graftline.onnx_model.parity import NAMED, Parity, check
from graftline.onnx_model.predict import ModelMetadata, OnnxClassifier
from graftline.onnx_model.reference import write_reference
from graftline.progress import message, progress
from graftline.records.export import EXPORT_FILE, MODEL_FILE, agreement, write_export
from graftline.settings import read_section
from graftline.steps.export_onnx.config import ExportConfig
from graftline.steps.export_onnx.graph import (
    compose_graph,
    content_digest,
    save_model,
)
from graftline.steps.export_onnx.kept_network import network_of
from graftline.steps.export_onnx.low_precision import Exported, Smaller, write_low_precision
from graftline.steps.export_onnx.parity import compare, odd_sizes_difference
from graftline.steps.runtime import StepResult
from graftline.storage import open_store
from graftline.storage.base import Store


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportResult(StepResult):
    """What was exported.

    Attributes:
        onnx: Path of the file.
        sha256: Its digest.
        content_sha256: Digest of all but the run's id, equal for equal models of two runs.
        bytes: Its size.
        opset: Operator set.
        parity: How well it agrees with PyTorch over the test split.
        smaller: Files in lower precision, by precision, with what they cost and gain.
    """

    onnx: str
    sha256: str
    content_sha256: str
    bytes: int
    opset: int
    parity: dict[str, Any]
    smaller: dict[str, dict[str, Any]]

    def metrics(self) -> dict[str, float]:
        """Agreement with PyTorch, and what smaller files lose."""
        figures = {
            "parity_images": float(self.parity["images"]),
            "parity_label_agreement": float(self.parity["label_agreement"]),
            "parity_max_probability_difference": float(self.parity["max_probability_difference"]),
            "onnx_megabytes": self.bytes / 1e6,
        }
        for precision, each in self.smaller.items():
            figures[f"{precision}_accuracy_drop"] = float(each["accuracy_drop"])
            figures[f"{precision}_speedup"] = float(each["speedup"])
        return figures

    def params(self) -> dict[str, str]:
        """The operator set and the file's digest."""
        return {"opset": str(self.opset), "onnx_sha256": self.sha256}

    def files(self) -> dict[str, Path]:
        """The record of the export; ``promote`` uploads the model itself."""
        return {f"export/{EXPORT_FILE}": Path(self.onnx).with_name(EXPORT_FILE)}


def run(
    *,
    classifier_folder: Path,
    snapshot_folder: Path,
    store: str | Store,
    onnx_folder: Path,
    **config: Any,
) -> ExportResult:
    """Export the classifier and prove the file equal to it.

    Args:
        classifier_folder: The calibrated classifier that ``evaluate`` wrote.
        snapshot_folder: The dataset snapshot.
        store: Store that holds its images.
        onnx_folder: Where to write ``model.onnx`` and what goes with it.
        config: See :class:`graftline.steps.export_onnx.config.ExportConfig`.

    Raises:
        ConfigurationError: A setting is unknown or out of range.
        ParityError: The file answers differently; the images are named.
    """
    settings = read_section(ExportConfig, "export", config)
    place = open_store(store) if isinstance(store, str) else store
    classifier = load_classifier(classifier_folder).eval()
    snapshot = read_snapshot(snapshot_folder)
    _check_classes(classifier, snapshot)
    message("exporting %s with opset %d", classifier.backbone.spec.name, settings.opset)
    network = network_of(classifier, settings.opset)
    metadata = _metadata(classifier, settings.opset, settings.run_id)
    path = onnx_folder / MODEL_FILE
    class_means = read_class_means(classifier_folder)
    model = compose_graph(network, metadata, classifier, class_means)
    content = content_digest(model, metadata)
    save_model(model, path)
    del model

    limit = settings.max_probability_difference
    parity, expected = _prove(path, classifier, snapshot, place, limit)
    check(parity, label_tolerance=settings.label_tolerance, limit=limit)
    ids = [snapshot.image_ids()[row] for row in snapshot.rows("test")]
    write_reference(onnx_folder, sha256_of(path), ids, expected)

    exported = Exported(network, metadata, classifier, class_means, snapshot, place, expected)
    smaller = _in_low_precision(exported, onnx_folder, settings)
    return _record(onnx_folder, path, parity, smaller, metadata, content)


def _check_classes(classifier: Classifier, snapshot: Snapshot) -> None:
    if classifier.classes != snapshot.classes:
        raise ConfigurationError(
            "The classifier and the snapshot do not have the same classes.",
            why=f"{len(classifier.classes)} against {len(snapshot.classes)}: "
            f"{', '.join(sorted(set(classifier.classes) ^ set(snapshot.classes))[:10])}.",
            fix="Export with the snapshot that the classifier was trained on.",
        )


def _metadata(classifier: Classifier, opset: int, run_id: str) -> ModelMetadata:
    return ModelMetadata(
        classes=classifier.classes,
        preprocessing=classifier.preprocessing.to_dict(),
        temperature=classifier.temperature,
        thresholds=classifier.metadata.get("thresholds", {}),
        snapshot_id=classifier.snapshot_id,
        run_id=run_id,
        strategy=classifier.strategy,
        backbone=classifier.backbone.spec.name,
        opset=opset,
        precision="fp32",
        graftline_version=graftline.__version__,
    )


def _prove(
    path: Path, classifier: Classifier, snapshot: Snapshot, store: Store, limit: float
) -> tuple[Parity, np.ndarray]:
    """Compare file and PyTorch over the whole test split, from the original bytes."""
    rows = snapshot.rows("test")
    order = snapshot.storage_order(rows)
    sources = snapshot.column("source")
    model = OnnxClassifier(path)

    def images() -> Iterator[np.ndarray]:
        found = read_images(snapshot, order, store=store)
        for _, data in progress(found, "comparing the file with PyTorch", total=len(order)):
            yield classifier.preprocessing.decode(data)

    names = [str(sources[row]) for row in order]
    parity, expected, _ = compare(model, classifier, images(), names, limit=limit)
    odd = odd_sizes_difference(model, classifier)
    in_manifest_order = np.argsort(order, kind="stable")
    return dataclasses.replace(parity, odd_sizes_difference=odd), expected[in_manifest_order]


def _in_low_precision(
    exported: Exported, folder: Path, settings: ExportConfig
) -> dict[str, Smaller]:
    """The files that the run file asks for, by precision."""
    asked = {"fp16": settings.fp16, "int8": settings.int8}
    return {
        precision: write_low_precision(
            precision,
            exported,
            folder=folder,
            max_drop=settings.max_drop,
            calibration_images=settings.calibration_images,
            seed=settings.seed,
        )
        for precision, wanted in asked.items()
        if wanted
    }


def _record(
    folder: Path,
    path: Path,
    parity: Parity,
    smaller: dict[str, Smaller],
    metadata: ModelMetadata,
    content: str,
) -> ExportResult:
    figures = dataclasses.asdict(parity)
    figures["differing"] = figures["differing"][:NAMED]
    result = ExportResult(
        onnx=str(path),
        sha256=sha256_of(path),
        content_sha256=content,
        bytes=path.stat().st_size,
        opset=metadata.opset,
        parity=figures,
        smaller={name: dataclasses.asdict(each) for name, each in smaller.items()},
    )
    fields = dataclasses.asdict(result)
    fields.pop("onnx")
    write_export(folder, {**fields, "metadata": metadata.to_properties()})
    message(
        "the file gives PyTorch's label to %s; largest difference of a probability %.1e",
        agreement(parity.images, parity.label_agreement),
        parity.max_probability_difference,
    )
    return result
