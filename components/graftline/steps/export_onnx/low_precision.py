"""Smaller and faster files: written, measured, and refused where they lose too much."""

import dataclasses
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx

from graftline.classifier.bundle import Classifier
from graftline.classifier.class_means import ClassMeans
from graftline.data.snapshot import Snapshot, read_images
from graftline.onnx_model.predict import ModelMetadata, OnnxClassifier
from graftline.progress import message, progress
from graftline.steps.export_onnx.graph import compose_graph, save_model
from graftline.steps.export_onnx.quantise import to_fp16, to_int8
from graftline.storage.base import Store

TIMED_SIZE = (375, 500)  # height and width of the images that latency is measured on
REPEATS = 7
# First convolutions left in fp32, until one is good enough. On tf_efficientnet_lite0 and digits the
# three forms get 43.7%, 96.2% and 99.0% of the test images right, fp32 98.3%.
SPARED = (0, 2, 8)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Smaller:
    """A file in lower precision.

    Attributes:
        path: The file; None where it was refused.
        bytes: Its size.
        accuracy: On the test split.
        accuracy_drop: Against PyTorch in fp32; negative where it is better.
        label_agreement: Fraction of test images with PyTorch's label.
        latency_1_ms: Median milliseconds for one image of 375 x 500.
        latency_32_ms: The same for a batch of 32.
        speedup: Of the batch of 32, against the fp32 file on this machine.
        refused: Why it was refused; None where it was not.
    """

    path: str | None
    bytes: int
    accuracy: float
    accuracy_drop: float
    label_agreement: float
    latency_1_ms: float
    latency_32_ms: float
    speedup: float
    refused: str | None


@dataclasses.dataclass(frozen=True)
class Exported:
    """The fp32 file's parts, and what it was proven on.

    Attributes:
        network: The fp32 network.
        metadata: Of the fp32 file.
        classifier: What is exported.
        class_means: For the output ``distance``.
        snapshot: Test images to measure on, training images to calibrate on.
        store: Where they are.
        expected: PyTorch's probabilities of the test split, in manifest order.
    """

    network: onnx.ModelProto
    metadata: ModelMetadata
    classifier: Classifier
    class_means: ClassMeans | None
    snapshot: Snapshot
    store: Store
    expected: np.ndarray


def write_low_precision(
    precision: str,
    exported: Exported,
    *,
    folder: Path,
    max_drop: float,
    calibration_images: int,
    seed: int,
) -> Smaller:
    """Write ``model.<precision>.onnx`` beside the fp32 file and measure it.

    Args:
        precision: ``int8`` or ``fp16``.
        exported: The fp32 file.
        folder: Where ``model.onnx`` is.
        max_drop: Accuracy that it may lose.
        calibration_images: How many training images are used.
        seed: Of their choice.
    """
    path = folder / f"model.{precision}.onnx"
    stated = dataclasses.replace(exported.metadata, precision=precision)
    snapshot, expected = exported.snapshot, exported.expected
    candidates = _candidates(precision, exported, calibration_images, seed)
    best: tuple[float, float] = (-1.0, 0.0)
    accuracy_before = _accuracy(expected, snapshot)
    for attempt in candidates:
        trial = path.with_suffix(".trial")
        save_model(compose_graph(attempt, stated, exported.classifier, exported.class_means), trial)
        found = _answers(OnnxClassifier(trial), snapshot, exported.store, precision)
        agreement = float((found.argmax(1) == expected.argmax(1)).mean()) if len(found) else 1.0
        accuracy = _accuracy(found, snapshot)
        if (accuracy, agreement) > best:
            best = accuracy, agreement
            trial.replace(path)
        trial.unlink(missing_ok=True)
        if accuracy_before - best[0] <= max_drop:
            break
    drop = accuracy_before - best[0]
    refused = None
    if drop > max_drop:
        refused = (
            f"It loses {drop:.4f} of {accuracy_before:.4f} test accuracy; "
            f"export.max_drop allows {max_drop:g}."
        )
    return _measured(precision, path, folder / "model.onnx", best, drop, refused)


def _candidates(
    precision: str, exported: Exported, calibration_images: int, seed: int
) -> Iterator[onnx.ModelProto]:
    """Conversions to try, the fastest first."""
    if precision == "fp16":
        yield to_fp16(exported.network)
        return
    snapshot = exported.snapshot
    rows = snapshot.rows("train")
    chosen = np.random.default_rng(seed).permutation(rows)[:calibration_images]
    found = read_images(snapshot, snapshot.storage_order(chosen), store=exported.store)
    prepare = exported.classifier.preprocessing
    images = np.stack([prepare.apply(prepare.decode(data)).numpy() for _, data in found])
    for spared in SPARED:
        yield to_int8(exported.network, images, spared=spared)


def _answers(model: OnnxClassifier, snapshot: Snapshot, store: Store, precision: str) -> np.ndarray:
    """Probabilities of the test split, in manifest order."""
    order = snapshot.storage_order(snapshot.rows("test"))
    found = read_images(snapshot, order, store=store)
    pixels = (
        model.decode(data)
        for _, data in progress(found, f"measuring {precision}", total=len(order))
    )
    return model.probabilities(pixels)[np.argsort(order, kind="stable")]


def _accuracy(probabilities: np.ndarray, snapshot: Snapshot) -> float:
    labels = snapshot.labels()[snapshot.rows("test")]
    return float((probabilities.argmax(1) == labels).mean()) if len(labels) else 0.0


def _measured(
    precision: str,
    path: Path,
    fp32: Path,
    best: tuple[float, float],
    drop: float,
    refused: str | None,
) -> Smaller:
    model, before = OnnxClassifier(path), OnnxClassifier(fp32)
    at_32 = latency_ms(model, 32)
    measured = Smaller(
        path=None if refused else str(path),
        bytes=path.stat().st_size,
        accuracy=best[0],
        accuracy_drop=drop,
        label_agreement=best[1],
        latency_1_ms=latency_ms(model, 1),
        latency_32_ms=at_32,
        speedup=latency_ms(before, 32) / at_32,
        refused=refused,
    )
    if refused:
        path.unlink()
        message("WARNING: the %s file is refused. %s", precision, refused)
    return measured


def latency_ms(model: OnnxClassifier, batch: int, repeats: int = REPEATS) -> float:
    """Median milliseconds of one call, from uint8 pixels to probabilities."""
    images = np.random.default_rng(0).integers(0, 256, (batch, *TIMED_SIZE, 3), dtype=np.uint8)
    model.run(images)
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        model.run(images)
        seconds.append(time.perf_counter() - started)
    return 1000 * statistics.median(seconds)
