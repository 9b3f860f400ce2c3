"""Robustness: the same test images, corrupted as cameras and pipelines corrupt them.

Corruptions after Hendrycks and Dietterich (2019), made by torchvision and Pillow, at three
strengths. What is corrupted is the picture that the network gets, resized and cropped by its own
preprocessing: a strength means the same for every data set, and nothing but the corruption differs
from the evaluation on clean images. Strengths are about the benchmark's levels 1, 3 and 5.
"""

import dataclasses
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from graftline.images.preprocessing import Preprocessing
from graftline.stats.intervals import share_interval
from graftline.steps.evaluate.inference import Inference

Ints = NDArray[np.int64]
Pixels = NDArray[np.uint8]

STRENGTHS = ("weak", "medium", "strong")
FEWEST, MOST = 12, 64  # images where nobody says how many


@dataclass(frozen=True)
class Corruption:
    """One kind of corruption.

    Attributes:
        name: For people.
        levels: What each strength is, in the unit that ``unit`` names.
        unit: What the levels are.
        apply: uint8 (3, H, W) and a level in, the same shape out.
    """

    name: str
    levels: tuple[float, float, float]
    unit: str
    apply: Callable[[Tensor, float], Tensor]


@dataclass(frozen=True)
class Robustness:
    """Accuracy on corrupted images.

    Attributes:
        images: Test images that were corrupted.
        clean: Accuracy on them as they are.
        rows: Name, what the levels are, accuracy by strength, and its intervals.
    """

    images: int
    clean: float
    rows: list[tuple[str, str, list[float], list[tuple[float, float]]]]

    @property
    def mean(self) -> float:
        """Mean accuracy over corruptions and strengths."""
        return float(np.mean([row[2] for row in self.rows]))


def measure(
    inference: Inference,
    rows: Ints,
    labels: Ints,
    right: NDArray[np.bool_],
    *,
    images: int | Literal["auto"],
    confidence: float,
    seed: int,
) -> Robustness | None:
    """Accuracy under each corruption, on a sample of the test images that keeps their classes.

    Args:
        inference: The classifier with its images.
        rows: Test rows.
        labels: Class index of each, shape (n,).
        right: Whether it was recognised as it is, shape (n,).
        images: How many to corrupt at most; none for 0. With ``auto`` their passes through the
            network are as many as the snapshot has images, within limits.
        confidence: Of the intervals.
        seed: For the sample and the noise.
    """
    kinds = corruptions()
    versions = len(kinds) * len(STRENGTHS)
    most = _affordable(inference, versions) if images == "auto" else images
    if most == 0 or len(rows) == 0:
        return None
    chosen = sample(labels, most, seed)
    order = inference.snapshot.storage_order(rows[chosen])
    place = {int(row): position for position, row in enumerate(rows)}
    positions = np.array([place[int(row)] for row in order])
    preprocessing = inference.classifier.preprocessing

    def encoded() -> Iterator[bytes]:
        for row, data in inference.encoded(order):
            generator = torch.Generator().manual_seed(seed * 1_000_003 + row)
            seen = preprocessing.resize_and_crop(preprocessing.decode(data))
            pixels = seen.round().clamp(0, 255)
            for kind in kinds:
                for level in kind.levels:
                    yield _ppm(_noisy(kind, pixels.to(torch.uint8), level, generator))

    with _one_thread():
        # By far the most forward passes of the step: 21 for each image. What bf16 rounds is small
        # beside the corruption.
        embedding = inference.embed_images(
            encoded(),
            versions * len(order),
            "corrupted test images",
            as_they_are(preprocessing),
            precision="auto",
        )
    answers = inference.classifier.logits_of_features(embedding).argmax(axis=1)
    still = answers.reshape(len(order), versions) == labels[positions][:, None]
    result = [
        _row(kind, still[:, index * len(STRENGTHS) :][:, : len(STRENGTHS)], confidence)
        for index, kind in enumerate(kinds)
    ]
    return Robustness(len(order), float(right[positions].mean()), result)


def _affordable(inference: Inference, versions: int) -> int:
    """Images whose versions together are as many as the snapshot's images, within limits."""
    return min(MOST, max(FEWEST, len(inference.snapshot.labels()) // versions))


def _row(
    kind: Corruption, still: NDArray[np.bool_], confidence: float
) -> tuple[str, str, list[float], list[tuple[float, float]]]:
    """Of one corruption: whether each image is still recognised, (images, strengths), summed up."""
    hits = still.sum(axis=0)
    return (
        kind.name,
        f"{kind.unit} {', '.join(f'{level:g}' for level in kind.levels)}",
        [float(hit) / len(still) for hit in hits],
        [share_interval(float(hit), len(still), confidence) for hit in hits],
    )


@contextmanager
def _one_thread() -> Iterator[None]:
    """Corrupt on one thread: the network has the other cores, and would be waited for."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def corruptions() -> list[Corruption]:
    """All of them."""
    return [
        Corruption("noise", (0.08, 0.18, 0.38), "standard deviation", _unchanged),
        Corruption("blur", (1.0, 3.0, 6.0), "sigma in pixels", _blur),
        Corruption("low resolution", (2, 4, 8), "times smaller", _shrink),
        Corruption("JPEG", (25, 12, 6), "quality", _jpeg),
        Corruption("dark", (0.7, 0.45, 0.25), "brightness times", F.adjust_brightness),
        Corruption("low contrast", (0.5, 0.3, 0.15), "contrast times", F.adjust_contrast),
        Corruption("tilt", (5, 12, 25), "degrees", _tilt),
    ]


def _noisy(kind: Corruption, pixels: Tensor, level: float, generator: torch.Generator) -> Tensor:
    if kind.name != "noise":
        return kind.apply(pixels, level)
    noise = torch.randn(pixels.shape, generator=generator) * (255 * level)
    return (pixels + noise).round().clamp(0, 255).to(torch.uint8)


def _unchanged(pixels: Tensor, level: float) -> Tensor:
    return pixels


def _blur(pixels: Tensor, sigma: float) -> Tensor:
    # The kernel reaches three sigma, or as far as reflection at the edge allows.
    sizes = [min(2 * int(3 * sigma) + 1, 2 * (side - 1) + 1) for side in pixels.shape[:0:-1]]
    # Along one axis and then the other: the same as at once, in a tenth of the time.
    blurred = F.gaussian_blur(pixels.float(), [sizes[0], 1], [sigma, sigma])
    blurred = F.gaussian_blur(blurred, [1, sizes[1]], [sigma, sigma])
    rounded: Tensor = blurred.round().clamp(0, 255).to(torch.uint8)
    return rounded


def _shrink(pixels: Tensor, factor: float) -> Tensor:
    height, width = pixels.shape[1:]
    small = [max(1, int(height / factor)), max(1, int(width / factor))]
    shrunk = F.resize(pixels, small, antialias=True)
    restored: Tensor = F.resize(shrunk, [height, width], antialias=True)
    return restored


def _jpeg(pixels: Tensor, quality: float) -> Tensor:
    stream = io.BytesIO()
    array = pixels.permute(1, 2, 0).contiguous().numpy()
    Image.fromarray(array).save(stream, "JPEG", quality=int(quality))
    decoded = torch.from_numpy(np.array(Image.open(stream)))
    return decoded.permute(2, 0, 1)


def _tilt(pixels: Tensor, degrees: float) -> Tensor:
    border = pixels.float().mean(dim=(1, 2)).tolist()
    tilted: Tensor = F.rotate(
        pixels, degrees, interpolation=F.InterpolationMode.BILINEAR, fill=border
    )
    return tilted


def as_they_are(preprocessing: Preprocessing) -> Preprocessing:
    """For pictures that have the network's size already: they are only normalised."""
    size = preprocessing.input_size
    return dataclasses.replace(preprocessing, resize_size=size, crop_mode="squash")


def _ppm(pixels: Tensor) -> bytes:
    """The plainest format there is: packing and unpacking cost next to nothing."""
    height, width = pixels.shape[1:]
    packed = pixels.permute(1, 2, 0).contiguous().numpy().tobytes()
    return f"P6 {width} {height} 255\n".encode() + packed


def sample(labels: Ints, images: int, seed: int) -> Ints:
    """Positions of up to ``images`` images, classes in turn, so that rare ones are in it."""
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(labels))
    turn = np.zeros(len(labels), dtype=np.int64)
    seen: dict[int, int] = {}
    for position in shuffled:
        label = int(labels[position])
        turn[position] = seen.get(label, 0)
        seen[label] = seen.get(label, 0) + 1
    order = shuffled[np.argsort(turn[shuffled], kind="stable")]
    return np.sort(order[:images])
