"""The proof of an exported file, repeated on any machine: no PyTorch needed.

The file's answers here, by this machine's ONNX Runtime, are compared with those that PyTorch gave
at export for the same original images (:mod:`graftline.onnx_model.reference`).
"""

import dataclasses
import hashlib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from graftline.errors import DataError, IntegrityError
from graftline.files import sha256_of
from graftline.images.decode import SUFFIXES
from graftline.onnx_model.parity import MAX_DIFFERENCE, Parity, check, summarise
from graftline.onnx_model.predict import OnnxClassifier
from graftline.onnx_model.reference import REFERENCE_FILE, Reference, read_reference

MIN_SHARE = 0.9  # of the proof's images; a folder may have lost a few since


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verification:
    """What came of it.

    Attributes:
        parity: Agreement with PyTorch.
        unknown: Images given that the proof at export did not hold.
        missing: Images of the proof that were not given.
        precision: Of the file: ``fp32``, ``fp16`` or ``int8``.
    """

    parity: Parity
    unknown: int
    missing: int
    precision: str


def verify(
    model: Path,
    images: Path,
    *,
    reference: Path | None = None,
    label_tolerance: int = 0,
    max_probability_difference: float = MAX_DIFFERENCE,
    min_share: float = MIN_SHARE,
) -> Verification:
    """Compare the file's answers here with PyTorch's at export.

    A file in lower precision is measured and not refused: its loss was judged at export.

    Args:
        model: The ONNX file.
        images: A snapshot's folder, or a folder with original image files.
        reference: PyTorch's answers; ``reference.npz`` beside the file when not given.
        label_tolerance: Images whose label may differ.
        max_probability_difference: Largest difference of a probability.
        min_share: Share of the proof's images that must be among those given.

    Raises:
        ParityError: The file answers differently here; the images are named.
        IntegrityError: It is not the file that was proven.
        DataError: None of the images is one of the proof's, or too few are.
    """
    classifier = OnnxClassifier(model)
    expected = read_reference(reference or model.parent / REFERENCE_FILE)
    precision = classifier.metadata.precision
    if precision == "fp32":
        _check_digest(model, expected)
    given = _Given(expected.rows())
    found = classifier.probabilities(given.pixels(classifier, images))
    given.check_any(model, images)
    parity = summarise(
        expected.probabilities[given.rows],
        found,
        given.names,
        classifier.classes,
        max_probability_difference,
    )
    if precision == "fp32":
        check(parity, label_tolerance=label_tolerance, limit=max_probability_difference)
    seen, proven = len(set(given.rows)), len(given.known)
    _check_share(seen, proven, min_share)
    return Verification(
        parity=parity, unknown=given.unknown, missing=proven - seen, precision=precision
    )


class _Given:
    """The images of a folder, matched with those of the proof while they are read.

    Args:
        known: Row in the proof by sha256 of the original bytes.
    """

    def __init__(self, known: Mapping[str, int]) -> None:
        self.known = known
        self.rows: list[int] = []
        self.names: list[str] = []
        self.unknown = 0

    def pixels(self, classifier: OnnxClassifier, images: Path) -> Iterator[np.ndarray]:
        for name, data in _originals(images):
            row = self.known.get(hashlib.sha256(data).hexdigest())
            if row is None:
                self.unknown += 1
                continue
            self.rows.append(row)
            self.names.append(name)
            yield classifier.decode(data)

    def check_any(self, model: Path, images: Path) -> None:
        if self.rows:
            return
        if not self.unknown:
            raise DataError(
                f"{images} holds no image files.",
                fix="Give the folder of the original test images, or the snapshot's folder.",
            )
        raise DataError(
            f"None of the {self.unknown} images in {images} is one that {model} was proven on.",
            why="Images are recognised by the sha256 of the original files' bytes.",
            fix="Give the original test images, or the snapshot's folder.",
        )


def _check_share(found: int, proven: int, least: float) -> None:
    if found < least * proven:
        raise DataError(
            f"Only {found:,} of the {proven:,} images of the proof were given.",
            why=f"The file agrees on them, but fewer than {least:.0%} prove little about the rest.",
            fix="Give all original test images, or the snapshot's folder. --min-share "
            f"{math.floor(1000 * found / proven) / 1000:g} accepts this many.",
        )


def _check_digest(model: Path, reference: Reference) -> None:
    digest = sha256_of(model)
    if digest != reference.model_sha256:
        raise IntegrityError(
            f"{model} is not the file that was proven.",
            why=f"Its sha256 is {digest}, the proof's is {reference.model_sha256}.",
            fix="Use model.onnx and reference.npz of the same run or version.",
        )


def _originals(images: Path) -> Iterator[tuple[str, bytes]]:
    """Names and bytes of the original files."""
    if (images / "snapshot.json").is_file():
        from graftline.data.snapshot import read_images, read_snapshot

        snapshot = read_snapshot(images)
        sources = snapshot.column("source")
        for row, data in read_images(snapshot, snapshot.storage_order(snapshot.rows("test"))):
            yield str(sources[row]), data
        return
    if not images.is_dir():
        raise DataError(f"There is no folder {images}.", fix="Give a folder of images.")
    for path in sorted(images.rglob("*")):
        if path.suffix.lower() in SUFFIXES and path.is_file():
            yield str(path.relative_to(images)), path.read_bytes()
