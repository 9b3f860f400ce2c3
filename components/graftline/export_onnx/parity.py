"""The proof that the file answers as the evaluated model does, image by image.

The original bytes are decoded once and the pixels put through both: PyTorch in fp32 with the
shared preprocessing, and ONNX Runtime with the very file that will be registered.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch

from graftline.classifier import Classifier
from graftline.errors import ParityError
from graftline.predict import OnnxClassifier, batches
from graftline.preprocessing import resize_crop_normalise

MAX_DIFFERENCE = 1e-3
NAMED = 10  # images that an error names
# Sizes that resizing gets wrong first: tiny, thin, flat, odd, smaller and larger than the input.
ODD_SIZES = ((1, 1), (8, 8), (2, 500), (700, 1), (33, 31), (255, 257), (613, 421), (96, 1280))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Disagreement:
    """An image on which file and PyTorch differ."""

    image: str
    pytorch: str
    onnx: str
    difference: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parity:
    """How well the file agrees with PyTorch.

    Attributes:
        images: Images compared.
        label_agreement: Fraction with the same likeliest class.
        max_probability_difference: Over all images and classes.
        max_embedding_difference: Largest over the length of the longest embedding.
        odd_sizes_difference: Largest probability difference on made-up images of odd sizes.
        differing: Images with another label, or beyond the limit.
    """

    images: int
    label_agreement: float
    max_probability_difference: float
    max_embedding_difference: float = 0.0
    odd_sizes_difference: float = 0.0
    differing: tuple[Disagreement, ...] = ()


def compare(
    model: OnnxClassifier,
    classifier: Classifier,
    images: Iterable[np.ndarray],
    names: Sequence[str],
    *,
    limit: float = MAX_DIFFERENCE,
) -> tuple[Parity, np.ndarray, np.ndarray]:
    """Put every image through both and compare.

    Args:
        model: The exported file.
        classifier: What it was exported from.
        images: Decoded pixels, uint8 (H, W, 3).
        names: What to call each image.
        limit: Probability difference from which an image is named.

    Returns:
        The figures, PyTorch's probabilities and the file's, both (N, classes) in the order given.
    """
    expected = np.zeros((len(names), len(classifier.classes)), np.float32)
    found = np.zeros_like(expected)
    embedding_difference, embedding_scale = 0.0, 1e-12
    for rows, batch in batches(images):
        found[rows], vectors = model.run(batch)
        expected[rows], references = reference(classifier, batch)
        embedding_difference = max(embedding_difference, float(abs(vectors - references).max()))
        embedding_scale = max(embedding_scale, float(np.linalg.norm(references, axis=1).max()))
    parity = summarise(expected, found, names, classifier.classes, limit)
    return (
        dataclasses.replace(
            parity, max_embedding_difference=embedding_difference / embedding_scale
        ),
        expected,
        found,
    )


def reference(classifier: Classifier, batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """PyTorch's probabilities and embeddings of a batch, eager and in fp32.

    Args:
        classifier: The trained model.
        batch: uint8 (N, H, W, 3).
    """
    device = next(classifier.parameters()).device
    with torch.inference_mode():
        writable = batch if batch.flags.writeable else batch.copy()  # PyTorch knows no other
        pixels = resize_crop_normalise(torch.from_numpy(writable), classifier.preprocessing)
        pixels = pixels.to(device).contiguous(memory_format=torch.channels_last)
        embedding = classifier.embed(pixels)
        probabilities = torch.softmax(classifier.head(embedding) / classifier.temperature, dim=1)
    return probabilities.float().cpu().numpy(), embedding.float().cpu().numpy()


def summarise(
    expected: np.ndarray,
    found: np.ndarray,
    names: Sequence[str],
    classes: Sequence[str],
    limit: float = MAX_DIFFERENCE,
) -> Parity:
    """Figures of two sets of probabilities (N, classes) for the same images."""
    if len(names) == 0:
        return Parity(images=0, label_agreement=1.0, max_probability_difference=0.0)
    differences = np.abs(expected - found).max(axis=1)
    differences = np.where(np.isfinite(differences), differences, 1.0)  # NaN never agrees
    labels, answers = expected.argmax(axis=1), found.argmax(axis=1)
    wrong = np.flatnonzero((labels != answers) | (differences > limit))
    worst_first = wrong[np.argsort(-differences[wrong], kind="stable")]
    return Parity(
        images=len(names),
        label_agreement=float((labels == answers).mean()),
        max_probability_difference=float(differences.max()),
        differing=tuple(
            Disagreement(
                image=names[row],
                pytorch=classes[labels[row]],
                onnx=classes[answers[row]],
                difference=float(differences[row]),
            )
            for row in worst_first
        ),
    )


def odd_sizes_difference(model: OnnxClassifier, classifier: Classifier) -> float:
    """Largest probability difference on made-up images of odd sizes.

    A test split of equally large images says nothing about the sizes that a caller will send.
    """
    names = [f"{height}x{width}" for height, width in ODD_SIZES]
    parity, _, _ = compare(model, classifier, _odd_images(), names)
    return parity.max_probability_difference


def _odd_images() -> Iterator[np.ndarray]:
    random = np.random.default_rng(0)
    for height, width in ODD_SIZES:
        yield random.integers(0, 256, (height, width, 3), dtype=np.uint8)


def check(parity: Parity, *, label_tolerance: int = 0, limit: float = MAX_DIFFERENCE) -> None:
    """Refuse a file that answers differently.

    Args:
        parity: As :func:`compare` gave it.
        label_tolerance: Images whose label may differ.
        limit: Probability difference that no image may exceed.

    Raises:
        ParityError: It does, beyond the tolerance; the message names the images.
    """
    other_label = sum(item.pytorch != item.onnx for item in parity.differing)
    worst = max(parity.max_probability_difference, parity.odd_sizes_difference)
    if other_label <= label_tolerance and worst <= limit:
        return
    named = "\n".join(
        f"  {item.image}: {item.pytorch} in PyTorch, {item.onnx} in the file, "
        f"probabilities differ by {item.difference:.2g}"
        for item in parity.differing[:NAMED]
    )
    more = len(parity.differing) - NAMED
    raise ParityError(
        f"The ONNX file does not answer as the evaluated model does: of {parity.images:,} images "
        f"{other_label} get another label (allowed: {label_tolerance}), the largest probability "
        f"difference is {parity.max_probability_difference:.2g} on them and "
        f"{parity.odd_sizes_difference:.2g} on odd sizes (allowed: {limit:.2g})."
        + (f"\n{named}" if named else "")
        + (f"\n  and {more:,} more" if more > 0 else ""),
        why="An exporter or a runtime treats an operator differently from PyTorch.",
        fix="Try another export.opset; if only near-ties differ, state how many may in "
        "export.label_tolerance. Please report which backbone it was.",
    )
