"""The resize of :mod:`graftline.images.preprocessing` for one image on a CPU, seven times as fast.

``F.interpolate`` with antialiasing resizes the whole image and then most of the work is cropped
away; here only what the crop shows is computed. A separable resize is two products with sparse
matrices; each is cut into bands of output rows, whose inputs are narrow, and a band is a small
dense product. Weights as in PyTorch's ``UpSampleKernel.cpp``; the results differ by less than
0.001 of 255, from the order of summation alone.

Needs numpy only: what decodes does not wait for PyTorch to be imported.
"""

from functools import lru_cache

import numpy as np
import numpy.typing as npt

BAND = 16  # output rows a product; 16 to 32 were fastest from 100 to 1,000 pixels
SUPPORT = {"bilinear": 1.0, "bicubic": 2.0}  # half width of the filter, in pixels of the output

Floats = npt.NDArray[np.float32]
Bands = tuple[tuple[slice, slice, Floats], ...]


def resample(
    image: npt.NDArray[np.uint8],
    size: tuple[int, int],
    crop: tuple[int, int, int, int],
    interpolation: str,
) -> Floats:
    """Resize an image and cut a part out of the result.

    Args:
        image: (H, W, 3).
        size: Height and width that the whole image is resized to.
        crop: Top, left, height and width of the part.
        interpolation: ``bilinear`` or ``bicubic``.

    Returns:
        (3, height, width) in about 0..255; a view that is not contiguous.
    """
    top, left, high, across = crop
    rows, first_row, last_row = _bands(image.shape[0], size[0], top, high, interpolation)
    columns, first, last = _bands(image.shape[1], size[1], left, across, interpolation)
    seen = image[first_row:last_row, first:last].astype(np.float32)
    wide = seen.shape[1]
    flat = seen.reshape(len(seen), wide * 3)
    tall = np.empty((high, wide * 3), np.float32)
    for out, source, weights in rows:
        np.matmul(weights, flat[source], out=tall[out])
    # The second direction as the first one: columns become rows.
    turned = np.ascontiguousarray(tall.reshape(high, wide, 3).transpose(1, 2, 0))
    turned = turned.reshape(wide, 3 * high)
    result = np.empty((across, 3 * high), np.float32)
    for out, source, weights in columns:
        np.matmul(weights, turned[source], out=result[out])
    return result.reshape(across, 3, high).transpose(1, 2, 0)


@lru_cache(maxsize=512)
def _bands(
    length: int, resized: int, start: int, count: int, interpolation: str
) -> tuple[Bands, int, int]:
    """Products for ``count`` outputs from ``start``, and which inputs they need."""
    first, weights = _weights(length, resized, interpolation)
    first, weights = first[start : start + count], weights[start : start + count]
    taps = weights.shape[1]
    inputs = np.minimum(first[:, None] + np.arange(taps), length - 1)
    lowest, highest = int(first.min()), int(inputs.max()) + 1
    bands = []
    for low in range(0, count, BAND):
        high = min(low + BAND, count)
        begin, end = int(first[low:high].min()), int(inputs[low:high].max()) + 1
        dense = np.zeros((high - low, end - begin), np.float32)
        rows = np.arange(high - low)[:, None]
        # A tap beyond the edge has weight zero and falls on the last pixel.
        np.add.at(dense, (rows, inputs[low:high] - begin), weights[low:high])
        source = slice(begin - lowest, end - lowest)
        bands.append((slice(low, high), source, dense))
    return tuple(bands), lowest, highest


def _weights(
    length: int, resized: int, interpolation: str
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """First input and weights of every output of an antialiased resize.

    Returns:
        (resized,) first inputs, and (resized, taps) weights that sum to 1.
    """
    scale = np.float32(length) / np.float32(resized)
    stretch = max(scale, np.float32(1.0))
    support = np.float32(SUPPORT[interpolation]) * stretch
    centre = scale * (np.arange(resized, dtype=np.float32) + np.float32(0.5))
    first = np.maximum((centre - support + np.float32(0.5)).astype(np.int64), 0)
    last = np.minimum((centre + support + np.float32(0.5)).astype(np.int64), length)
    taps = int((last - first).max())
    positions = first[:, None] + np.arange(taps)
    distance = np.abs((positions - centre[:, None] + 0.5) / stretch)
    weights = _triangle(distance) if interpolation == "bilinear" else _cubic(distance)
    weights[positions >= last[:, None]] = 0.0
    return first, (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def _triangle(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.maximum(1.0 - x, 0.0)


def _cubic(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Keys' cubic with a = -0.5, which PyTorch and Pillow use with antialiasing."""
    a = -0.5
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    far = (((x - 5.0) * x + 8.0) * x - 4.0) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))
