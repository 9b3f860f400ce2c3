"""The proof that the file answers as the evaluated model does, image by image.

The original bytes are decoded once and the pixels put through both: PyTorch in fp32 with the
shared preprocessing, and ONNX Runtime with the very file that will be registered.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch

from graftline.classifier.bundle import Classifier
from graftline.images.preprocessing import resize_crop_normalise
from graftline.onnx_model.parity import MAX_DIFFERENCE, Parity, summarise
from graftline.onnx_model.predict import OnnxClassifier, batches

# Sizes that resizing gets wrong first: tiny, thin, flat, odd, smaller and larger than the input.
ODD_SIZES = ((1, 1), (8, 8), (2, 500), (700, 1), (33, 31), (255, 257), (613, 421), (96, 1280))


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
    with torch.no_grad():
        writable = batch if batch.flags.writeable else batch.copy()  # PyTorch knows no other
        pixels = resize_crop_normalise(torch.from_numpy(writable), classifier.preprocessing)
        pixels = pixels.to(device).contiguous(memory_format=torch.channels_last)
        embedding = classifier.embed(pixels)
        probabilities = torch.softmax(classifier.head(embedding) / classifier.temperature, dim=1)
    return probabilities.float().cpu().numpy(), embedding.float().cpu().numpy()


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
