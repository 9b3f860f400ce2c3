"""Where in an image its label comes from, by the exported file alone: occlusion.

Places of the image are covered with its mean colour, one after the other, and the fall of the
label's log odds is what the place was worth (Zeiler and Fergus 2014). No gradients, no PyTorch.
"""

import dataclasses

import numpy as np
from PIL import Image, ImageFilter

from graftline.onnx_model.predict import OnnxClassifier

SIDE = 256  # the longer side of the copy that is covered: the networks see no more
STEPS = 9  # places along each side
SHARE = 0.25  # of each side that is covered at a time
FLOOR = 1e-6  # of a probability, so that its log odds are finite
LEAST = 0.05  # of the log odds: a weaker fall is noise, and is not stretched to full colour


@dataclasses.dataclass(frozen=True)
class Occlusion:
    """What covering each place does.

    Attributes:
        picture: The copy, uint8 (H, W, 3).
        strength: float32 (H, W), 0 where covering does nothing, 1 where it matters most.
        label: What was explained.
        lowest: The label's probability with the most important place covered.
    """

    picture: np.ndarray
    strength: np.ndarray
    label: str
    lowest: float


def occlusion(model: OnnxClassifier, image: np.ndarray, label: str) -> Occlusion:
    """Cover places of an image and ask the model each time.

    Args:
        model: The exported file.
        image: uint8 (H, W, 3).
        label: The class to explain.
    """
    picture = _smaller(image)
    height, width = picture.shape[:2]
    windows = [
        (rows, columns) for rows in _windows(height, STEPS) for columns in _windows(width, STEPS)
    ]
    fill = picture.reshape(-1, 3).mean(axis=0).round().astype(np.uint8)
    which = model.classes.index(label)

    def covered() -> "list[np.ndarray]":
        found = [picture]
        for rows, columns in windows:
            copy = picture.copy()
            copy[rows, columns] = fill
            found.append(copy)
        return found

    probabilities = model.probabilities(covered())[:, which].astype(np.float64)
    clipped = probabilities.clip(FLOOR, 1 - FLOOR)
    odds = np.log(clipped / (1 - clipped))
    falls = (odds[0] - odds[1:]).clip(0)
    total, times = np.zeros((height, width)), np.zeros((height, width))
    for fall, (rows, columns) in zip(falls, windows, strict=True):
        total[rows, columns] += fall
        times[rows, columns] += 1
    mean = total / np.maximum(times, 1)
    strength = _smooth(mean / max(float(mean.max()), LEAST), min(height, width))
    return Occlusion(picture, strength, label, float(probabilities.min()))


def overlay(found: Occlusion) -> np.ndarray:
    """The picture in grey with the strength over it in yellow, uint8 (H, W, 3)."""
    grey = found.picture.astype(np.float32).mean(axis=2, keepdims=True) * 0.62
    weight = found.strength[..., None]
    low, high = np.array([200.0, 40.0, 30.0]), np.array([255.0, 225.0, 60.0])
    mixed = grey * (1 - 0.75 * weight) + (low + (high - low) * weight) * 0.75 * weight
    return np.asarray(mixed.clip(0, 255), dtype=np.uint8)


def _smooth(strength: np.ndarray, side: int) -> np.ndarray:
    """Without the edges of the windows, which mean nothing."""
    grey = Image.fromarray((255 * strength).round().astype(np.uint8))
    blurred = np.asarray(grey.filter(ImageFilter.GaussianBlur(side * SHARE / 6)), np.float32)
    return blurred / 255


def _smaller(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    scale = SIDE / max(height, width)
    if scale >= 1:
        return image
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


def _windows(length: int, steps: int) -> list[slice]:
    """Overlapping windows that reach from the first pixel to the last."""
    size = max(1, round(length * SHARE))
    starts = np.unique(np.linspace(0, length - size, steps).round().astype(int))
    return [slice(int(start), int(start) + size) for start in starts]
