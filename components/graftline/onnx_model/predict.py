"""Answers of an exported model: nothing but numpy, ONNX Runtime and Pillow.

The file holds all that is needed: pixels of any size go in, resizing and normalisation are part
of the graph, and the classes are in the file's metadata. This module is also the reader and
the writer of that metadata.
"""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from graftline.errors import ConfigurationError, DataError, SchemaVersionError
from graftline.images.decode import Decoded, decode, decode_image
from graftline.images.stored_values import ValueRange
from graftline.onnx_model.session import EXPORTED, Session

SCHEMA_VERSION = 1
PREFIX = "graftline."
INPUT = "images"
PROBABILITIES = "probabilities"
EMBEDDING = "embedding"
DISTANCE = "distance"  # to the nearest class; in files of runs that measured its threshold
BATCH = 32  # images of one size that go through the graph together
BATCH_PIXELS = 8_000_000  # ... and at most so many pixels, which bounds the memory
PENDING_PIXELS = 64_000_000  # decoded images that wait for others of their size


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelMetadata:
    """What an exported file says about itself.

    Attributes:
        classes: Class names, in the order of the columns of ``probabilities``.
        preprocessing: Resolved values: sizes, interpolation, crop, mean and standard deviation;
            with images of more than 8 bits also ``value_range``.
        temperature: What the logits are divided by before the softmax.
        thresholds: Limits found in the evaluation, such as the out-of-distribution threshold.
        snapshot_id: Dataset snapshot that the model was trained and evaluated on.
        run_id: Tracking run that made the model.
        strategy: How it was trained.
        backbone: Name of its network.
        opset: Version of the ONNX operator set.
        precision: ``fp32``, ``fp16`` or ``int8``.
        graftline_version: Version of the code that wrote the file.
    """

    classes: tuple[str, ...]
    preprocessing: Mapping[str, Any]
    temperature: float = 1.0
    thresholds: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    snapshot_id: str = ""
    run_id: str = ""
    strategy: str = ""
    backbone: str = ""
    opset: int = 0
    precision: str = "fp32"
    graftline_version: str = ""

    @property
    def value_range(self) -> ValueRange | None:
        """The stored values that are black and white in files of more than 8 bits, or None."""
        found = self.preprocessing.get("value_range")
        return None if found is None else (float(found[0]), float(found[1]))

    def to_properties(self) -> dict[str, str]:
        """The key and value strings that ONNX metadata can hold."""
        properties = {PREFIX + "schema_version": str(SCHEMA_VERSION)}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            text = value if isinstance(value, str) else json.dumps(_plain(value), sort_keys=True)
            properties[PREFIX + field.name] = text
        if self.value_range is not None:  # once more by itself, for callers that prepare pixels
            properties[PREFIX + "value_range"] = json.dumps(list(self.value_range))
        return properties

    @classmethod
    def from_properties(cls, properties: Mapping[str, str], origin: str) -> "ModelMetadata":
        """Read the strings back.

        Args:
            properties: Metadata of an ONNX file.
            origin: Name of the file, for messages.

        Raises:
            ConfigurationError: The file is no model of ours.
            SchemaVersionError: It was written under another schema version.
        """
        version = properties.get(PREFIX + "schema_version")
        if version is None or PREFIX + "classes" not in properties:
            raise ConfigurationError(
                f"{origin} is an ONNX file, but not one that Graftline exported.",
                why="Its metadata names no classes and no preprocessing.",
                fix="Give the model.onnx of a finished run or of a registered version.",
            )
        if version != str(SCHEMA_VERSION):
            raise SchemaVersionError(
                f"{origin} was written under schema version {version}.",
                why=f"This version of Graftline reads schema version {SCHEMA_VERSION}.",
                fix="Use the Graftline version that exported it, or export the model again.",
            )
        values: dict[str, Any] = {}
        try:
            for field in dataclasses.fields(cls):
                text = properties.get(PREFIX + field.name)
                if text is not None:
                    values[field.name] = text if field.type is str else json.loads(text)
            values["classes"] = tuple(values["classes"])
            found = cls(**values)
            found.check()
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            raise ConfigurationError(
                f"{origin} has damaged metadata.", why=str(error)[:300], fix=EXPORTED
            ) from error
        return found

    def check(self) -> None:
        """Raise a ``ValueError`` for what no export writes."""
        if not self.classes or not all(isinstance(name, str) for name in self.classes):
            raise ValueError("classes are no texts")
        if not isinstance(self.preprocessing, dict) or not isinstance(self.thresholds, dict):
            raise ValueError("preprocessing and thresholds are no objects")
        if not isinstance(self.thresholds.get("none_of_these", {}), dict):
            raise ValueError("a threshold is no object")
        if isinstance(self.temperature, bool) or not float(self.temperature) > 0:
            raise ValueError(f"the temperature is {self.temperature}")
        if self.value_range is not None and not self.value_range[0] < self.value_range[1]:
            raise ValueError(f"the value range is {self.value_range}")


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The answer for one image.

    Attributes:
        image: Path as it was given.
        label: The likeliest class.
        probability: Its calibrated probability.
        top: The likeliest classes with their probabilities, best first.
        distance: Cosine distance to the nearest class; None where the file does not give it.
        known: Whether that is within the threshold, so that the image is of one of the classes;
            None where the file states no threshold.
    """

    image: str
    label: str
    probability: float
    top: tuple[tuple[str, float], ...]
    distance: float | None = None
    known: bool | None = None


class OnnxClassifier:
    """An exported model, ready to answer.

    Args:
        path: The ``.onnx`` file.
        threads: Threads of one inference; all that this process may use when not given.
        providers: ONNX Runtime execution providers; the CPU when not given.

    Raises:
        ConfigurationError: There is no such file, or it is no model of ours.
        SchemaVersionError: It was written under another schema version.
    """

    def __init__(
        self, path: str | Path, threads: int | None = None, providers: Sequence[str] | None = None
    ) -> None:
        self.path = Path(path)
        self._session = Session(self.path, threads, providers)
        self.metadata = ModelMetadata.from_properties(self._session.metadata, str(self.path))
        self.classes = self.metadata.classes
        self.doubts: dict[str, str] = {}  # of images read so far, by path
        self.has_distance = DISTANCE in self._session.outputs

    def run(self, batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Put one batch through the graph.

        Args:
            batch: uint8 (N, H, W, 3), RGB.

        Returns:
            Probabilities (N, classes) and embeddings (N, dimension), float32.
        """
        outputs = self._session.run([PROBABILITIES, EMBEDDING], {INPUT: batch})
        return outputs[0].astype(np.float32), outputs[1].astype(np.float32)

    def outputs(self, images: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities and embeddings, rows in the order of the images.

        Images of one size go through the graph together; memory stays bounded.

        Args:
            images: uint8 arrays (H, W, 3), each of any size.
        """
        probabilities, embeddings = self._collect(images, (PROBABILITIES, EMBEDDING))
        return probabilities, embeddings

    def probabilities(self, images: Iterable[np.ndarray]) -> np.ndarray:
        """Calibrated probabilities, float32 (N, classes), in the order of the images.

        Args:
            images: uint8 arrays (H, W, 3), each of any size.
        """
        return self._collect(images, (PROBABILITIES,))[0]

    def embeddings(self, images: Iterable[np.ndarray]) -> np.ndarray:
        """Pooled features of the backbone, float32 (N, dimension), in the order of the images.

        Args:
            images: uint8 arrays (H, W, 3), each of any size.
        """
        return self._collect(images, (EMBEDDING,))[0]

    def _collect(self, images: Iterable[np.ndarray], names: Sequence[str]) -> list[np.ndarray]:
        """The named outputs, float32, rows in the order of the images."""
        rows: dict[int, tuple[np.ndarray, ...]] = {}
        for positions, batch in batches(images):
            found = self._session.run(names, {INPUT: batch})
            self._check_classes(names, found)
            rows.update(zip(positions, zip(*found, strict=True), strict=True))
        if not rows:
            widths = {PROBABILITIES: len(self.classes)}
            return [np.zeros((0, widths.get(name, 0)), np.float32) for name in names]
        ordered = [rows[position] for position in range(len(rows))]
        return [
            np.stack([row[output] for row in ordered]).astype(np.float32)
            for output in range(len(names))
        ]

    def _check_classes(self, names: Sequence[str], found: Sequence[np.ndarray]) -> None:
        for name, answer in zip(names, found, strict=True):
            wanted = {PROBABILITIES: (len(self.classes),), DISTANCE: answer.shape[1:2]}.get(name)
            if wanted is not None and (answer.shape[1:] != wanted or not answer[0].size):
                raise ConfigurationError(
                    f"{self.path} names {len(self.classes)} classes, and its output {name} has the "
                    f"shape {answer.shape}.",
                    fix=EXPORTED,
                )

    def predict(self, paths: Sequence[str | Path], top: int = 1) -> list[Prediction]:
        """Classify image files.

        Args:
            paths: Image files of any format that Pillow reads.
            top: How many classes to name for each.

        Raises:
            DataError: A file is missing or is no image; the message names it.
        """
        images = ((str(path), self.read(path)) for path in paths)
        return [prediction for prediction, _ in self.classify(images, top)]

    def classify(
        self, images: Iterable[tuple[str, np.ndarray]], top: int = 1
    ) -> list[tuple[Prediction, np.ndarray]]:
        """Classify decoded images, those of one size together.

        Args:
            images: A name and its pixels, uint8 (H, W, 3), each of any size.
            top: How many classes to name for each.

        Returns:
            For each, in order, the prediction and the probabilities of all classes.
        """
        names: list[str] = []

        def pixels() -> Iterator[np.ndarray]:
            for name, image in images:
                names.append(name)
                yield image

        wanted = (PROBABILITIES, DISTANCE) if self.has_distance else (PROBABILITIES,)
        outputs = self._collect(pixels(), wanted)
        return [
            (self._prediction(name, *answers, top=top), answers[0])
            for name, *answers in zip(names, *outputs, strict=True)
        ]

    def decode(self, data: bytes) -> np.ndarray:
        """Decode an image file as the model's data set was: uint8 (H, W, 3).

        Raises:
            DataError: It cannot be decoded.
        """
        pixels: np.ndarray = decode(data, value_range=self.metadata.value_range)
        return pixels

    def read(self, path: str | Path) -> np.ndarray:
        """Decode one file as the model's data set was: uint8 (H, W, 3).

        Where its values are not of the model's kind, :attr:`doubts` says so afterwards.

        Raises:
            DataError: It is missing or no image; the message names it.
        """
        decoded = _decoded(path, self.metadata.value_range)
        doubt = doubt_of(decoded, self.metadata.value_range)
        if doubt is not None:
            self.doubts[str(path)] = doubt
        pixels: np.ndarray = decoded.pixels
        return pixels

    def _prediction(
        self, image: str, probabilities: np.ndarray, distance: np.ndarray | None = None, *, top: int
    ) -> Prediction:
        best = np.argsort(-probabilities, kind="stable")[: max(1, top)]
        away = None if distance is None else float(distance[0])
        limit = self.metadata.thresholds.get("none_of_these", {}).get("distance")
        return Prediction(
            image,
            self.classes[best[0]],
            float(probabilities[best[0]]),
            tuple((self.classes[i], float(probabilities[i])) for i in best),
            distance=away,
            known=None if away is None or limit is None else away <= limit,
        )


def read_image(path: str | Path, value_range: ValueRange | None = None) -> np.ndarray:
    """Decode one file as every step does: uint8 (H, W, 3), RGB, upright.

    Args:
        path: The file.
        value_range: The model's, see :attr:`ModelMetadata.value_range`.

    Raises:
        DataError: It is missing or no image; the message names it.
    """
    pixels: np.ndarray = _decoded(path, value_range).pixels
    return pixels


def doubt_of(decoded: Decoded, value_range: ValueRange | None) -> str | None:
    """Why an image may not mean to the model what it shows, in a sentence; None where it does.

    Args:
        decoded: By the model's range.
        value_range: The model's; None for one of 8-bit images.
    """
    if value_range is None:
        if decoded.kind is None:
            return None
        return (
            f"it stores {decoded.kind} values, and the model was trained on images of 8 bits: it "
            "is read from 0 to 65,535, or by its own range"
        )
    range_text = f"{value_range[0]:g} to {value_range[1]:g}"
    if decoded.values is None:
        return f"it has 8 bits; the model's images have more, with values from {range_text}"
    if decoded.values.high <= value_range[0] or decoded.values.low >= value_range[1]:
        found = f"{decoded.values.lowest:g} to {decoded.values.highest:g}"
        return f"its values, {found}, lie outside of what the model reads, {range_text}"
    return None


def _decoded(path: str | Path, value_range: ValueRange | None) -> Decoded:
    try:
        return decode_image(Path(path).read_bytes(), value_range=value_range)
    except OSError as error:
        raise DataError(f"{path} cannot be read.", why=error.strerror or str(error)) from error
    except DataError as error:
        raise DataError(f"{path}: {error.what}", why=error.why, fix=error.fix) from error


def batches(images: Iterable[np.ndarray]) -> Iterator[tuple[list[int], np.ndarray]]:
    """Group images of one size, in bounded memory.

    Args:
        images: uint8 arrays (H, W, 3), each of any size.

    Yields:
        The positions of a group's images, ascending, and their stack (N, H, W, 3).
    """
    waiting: dict[tuple[int, ...], list[tuple[int, np.ndarray]]] = {}
    pending = 0
    for row, image in enumerate(images):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise DataError(
                f"Image {row} is {image.dtype} of shape {image.shape}.",
                fix="Give uint8 arrays (height, width, 3), as graftline.images.decode.decode does.",
            )
        group = waiting.setdefault(image.shape, [])
        group.append((row, image))
        pixels = image.shape[0] * image.shape[1]
        pending += pixels
        if len(group) >= BATCH or len(group) * pixels >= BATCH_PIXELS:
            pending -= len(group) * pixels
            yield _stack(waiting.pop(image.shape))
        elif pending >= PENDING_PIXELS:
            yield from (_stack(group) for group in waiting.values())
            waiting, pending = {}, 0
    yield from (_stack(group) for group in waiting.values())


def _stack(group: list[tuple[int, np.ndarray]]) -> tuple[list[int], np.ndarray]:
    return [row for row, _ in group], np.stack([image for _, image in group])
