"""Values as a file stores them, where it stores more than 8 bits: measured, and turned to 8 bits.

Which stored value is black and which is white cannot be seen in one picture: a dark scene of a
12-bit camera and a bright one of a 10-bit camera hold the same numbers. So the range is a property
of the data set (:mod:`graftline.steps.ingest.value_range`) and travels with the model.

Needs numpy and Pillow only.
"""

import io
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from graftline.errors import DataError

ValueRange = tuple[float, float]
OWN: ValueRange = (float("nan"), float("nan"))  # each picture by its own range: for its looks only

MEASURED_VALUES = 65_536  # of a picture; its extremes are taken over all
TAIL = 0.001  # share of the values that may lie beyond `low`, and beyond `high`: hot pixels
PARTLY = (3, 252)  # alpha between these is neither clear nor solid
ALL_PARTLY, SMOOTH, MANY_VALUES = 0.9, 1.5, 32  # of a PNG's fourth band that is no transparency
MOST_PARTLY = 0.5  # share of the pixels; more than that is no transparency

TIFF_BITS, TIFF_PHOTOMETRIC, TIFF_PLANAR, TIFF_EXTRA, TIFF_SAMPLE_FORMAT = 258, 262, 284, 338, 339
WHITE_IS_ZERO, SIGNED = 0, 2

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Values:
    """Which values a picture stores.

    Attributes:
        kind: ``uint8``, ``int8``, ``uint16``, ``int16``, ``uint32``, ``int32`` or ``float32``.
        lowest: Smallest.
        low: A thousandth of them are smaller.
        high: A thousandth of them are larger.
        highest: Largest.
    """

    kind: str
    lowest: float
    low: float
    high: float
    highest: float


def values_of(array: npt.NDArray[Any], kind: str) -> Values:
    """Measure an array; what is not finite is left out."""
    flat = array.reshape(-1)
    if flat.dtype.kind == "f":
        flat = flat[np.isfinite(flat)]
    if not flat.size:
        return Values(kind, 0.0, 0.0, 0.0, 0.0)
    sample = np.sort(flat[:: -(-flat.size // MEASURED_VALUES)])
    tail = int(TAIL * (sample.size - 1))
    return Values(
        kind,
        float(flat.min()),
        float(sample[tail]),
        float(sample[-1 - tail]),
        float(flat.max()),
    )


@dataclass(frozen=True)
class Stored:
    """What a file of more than 8 bits stores.

    Attributes:
        array: (H, W) or (H, W, 3).
        kind: See :class:`Values`.
        alpha: (H, W), or None where nothing is transparent.
        white_is_zero: Whether the smallest value is white.
    """

    array: npt.NDArray[Any]
    kind: str
    alpha: Pixels | None = None
    white_is_zero: bool = False

    def to_rgb(self, value_range: ValueRange) -> Pixels:
        """(H, W, 3): ``value_range[0]`` becomes black, ``value_range[1]`` white."""
        low, high = value_range
        if value_range is OWN:
            measured = values_of(self.array, self.kind)
            low, high = measured.low, measured.high
        grey = _eight_bits(self.array, low, high)
        if self.white_is_zero:
            grey = 255 - grey
        rgb = np.repeat(grey[:, :, None], 3, axis=2) if grey.ndim == 2 else grey
        if self.alpha is not None:
            rgb = on_white(rgb, self.alpha)
        return np.ascontiguousarray(rgb)


def on_white(rgb: Pixels, alpha: Pixels) -> Pixels:
    """Lay pixels on white, as Pillow's ``alpha_composite`` does."""
    image = Image.fromarray(np.dstack([rgb, alpha]))
    white = Image.new("RGBA", image.size, "white")
    return np.asarray(Image.alpha_composite(white, image).convert("RGB"), dtype=np.uint8)


def _eight_bits(values: npt.NDArray[Any], low: float, high: float) -> Pixels:
    """Linear from ``low`` to ``high``, cut off beyond; NaN is black."""
    if not high > low:  # nothing but one value: black up to it, white beyond
        high = np.nextafter(low, np.inf)
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        table = _eight_bits(np.arange(65_536, dtype=np.float64), low, high)
        found: Pixels = table[values]
        return found
    wide = values.astype(np.float64)
    np.subtract(wide, low, out=wide)
    np.multiply(wide, 255.0 / (high - low), out=wide)
    np.nan_to_num(wide, copy=False, nan=0.0, posinf=255.0, neginf=0.0)
    return np.clip(np.rint(wide, out=wide), 0, 255, out=wide).astype(np.uint8)


def tag(image: Image.Image, number: int, default: Any) -> Any:
    """A TIFF's tag; the default for other formats."""
    return image.tag_v2.get(number, default) if image.format == "TIFF" else default  # type: ignore[attr-defined]


def kind_of(image: Image.Image) -> str | None:
    """Which values an opened image stores; None for the usual 8 bits."""
    sample = tag(image, TIFF_SAMPLE_FORMAT, (1,))[0]
    bits = tag(image, TIFF_BITS, (8,))[0]
    if image.mode.startswith("I;16"):
        return "uint16"
    if image.mode == "F":
        return "float32"
    if image.mode == "I":
        if image.format == "PPM":
            return "uint16"  # Pillow scales what the file says is white to 65,535
        signed = image.format != "TIFF" or sample == SIGNED
        return f"{'' if signed else 'u'}int{32 if bits == 8 else bits}"
    if image.mode == "L" and sample == SIGNED:
        return "int8"
    if _rawmode(image).partition(";")[2] in ("16B", "16L", "16N") and image.mode != "CMYK":
        return "uint16"
    return None


def check_planes(image: Image.Image) -> None:
    """Refuse what Pillow reads as noise: planes of 16 bits, one after the other."""
    bits = tag(image, TIFF_BITS, (8,))
    if tag(image, TIFF_PLANAR, 1) == 2 and len(bits) > 1 and max(bits) > 8:
        raise DataError(
            "the colours are stored as separate planes of 16 bits",
            why="Pillow reads only interleaved colours of 16 bits",
            fix="Save the image with interleaved colours (planar configuration 1).",
        )


def stored(image: Image.Image, data: bytes, kind: str, upright: Any) -> Stored:
    """Read the values of an opened image.

    Args:
        image: Not loaded yet.
        data: Its file.
        kind: From :func:`kind_of`, not None.
        upright: Turns a loaded image as it is meant to be seen.
    """
    check_planes(image)
    inverted = tag(image, TIFF_PHOTOMETRIC, 1) == WHITE_IS_ZERO and ";I" not in _rawmode(image)[1:]
    if image.mode in ("RGB", "RGBA", "LA"):
        return _colours(image, data, upright)
    image.load()
    array = np.asarray(upright(image))
    if kind == "int8":
        array = array.view(np.int8)
    elif kind == "uint32":
        array = array.view(np.uint32)
    elif not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    return Stored(array, kind, white_is_zero=inverted)


def _colours(image: Image.Image, data: bytes, upright: Any) -> Stored:
    """Colours of 16 bits.

    Pillow has no mode for them and keeps the upper byte of each. Unpacked as if the bytes were in
    the other order, it keeps the lower one.
    """
    rawmode, extra = _rawmode(image), tag(image, TIFF_EXTRA, None)
    if rawmode.startswith("RGBa"):
        raise DataError(
            "the colours of 16 bits are multiplied by their transparency",
            fix="Save the image with plain (unassociated) transparency, or without.",
        )
    if rawmode == "LA;16B":  # as four bytes a pixel: grey's upper and lower, alpha's
        _unpack_as(image, "RGBA")
        image.load()
        four = np.asarray(upright(image)).astype(np.uint16)
        return Stored(four[..., 0] << 8 | four[..., 1], "uint16", four[..., 2].astype(np.uint8))
    alpha_checked = image.mode == "RGBA" and image.format == "TIFF"
    image.load()
    high = np.asarray(upright(image))
    with Image.open(io.BytesIO(data), formats=(str(image.format),)) as twin:
        little = rawmode[-1] == "L" or (rawmode[-1] == "N" and sys.byteorder == "little")
        _unpack_as(twin, rawmode[:-1] + ("B" if little else "L"))
        twin.load()
        low = np.asarray(upright(twin))
    array = high[..., :3].astype(np.uint16) << 8 | low[..., :3]
    alpha = high[..., 3] if image.mode == "RGBA" else None
    if alpha is not None and not alpha_checked:
        check_alpha(alpha)
    if alpha is not None and alpha_checked and not is_transparency(alpha, extra):
        alpha = None
    return Stored(array, "uint16", alpha)


def is_transparency(alpha: Pixels, extra: tuple[int, ...] | None) -> bool:
    """Whether a TIFF's fourth band is transparency rather than, say, infrared.

    Args:
        alpha: (H, W).
        extra: What the file says of the band (tag ExtraSamples); None where it says nothing.

    Raises:
        DataError: The file says so, and the band does not look like it.
    """
    partly = float(((alpha >= PARTLY[0]) & (alpha <= PARTLY[1])).mean())
    if partly <= MOST_PARTLY or alpha.min() == alpha.max():
        return True
    if extra is None:
        return False
    raise DataError(
        "the fourth band does not look like transparency",
        why=f"the file calls it that, and {partly:.0%} of its pixels are neither clear nor solid: "
        "it may be infrared",
        fix="Save the image with its three colours only.",
    )


def check_alpha(alpha: Pixels) -> None:
    """Refuse the last band of a PNG or WebP that is a picture of its own, such as infrared.

    Both formats call it transparency, and mean it: soft edges, shadows and fades are taken. A band
    with hardly a clear or solid pixel that changes from pixel to pixel is not transparency.

    Args:
        alpha: (H, W).

    Raises:
        DataError: It does not look like transparency.
    """
    partly = float(((alpha >= PARTLY[0]) & (alpha <= PARTLY[1])).mean())
    if partly <= ALL_PARTLY or alpha.shape[1] < 3:
        return
    bends = float(np.abs(np.diff(alpha.astype(np.int16), n=2, axis=1)).mean())  # none in a fade
    if bends <= SMOOTH or np.unique(alpha).size < MANY_VALUES:
        return
    raise DataError(
        "the last band does not look like transparency",
        why=f"{partly:.0%} of its pixels are neither clear nor solid, and they differ from their "
        "neighbours as those of a picture do: it may be infrared",
        fix="Save the image without its last band.",
    )


def _rawmode(image: Image.Image) -> str:
    """How Pillow unpacks the file; empty where that does not matter."""
    tiles = getattr(image, "tile", None)
    if not tiles:
        return ""
    args = tiles[0].args
    first = args[0] if isinstance(args, tuple) and args else args
    return first if isinstance(first, str) else ""


def _unpack_as(image: Image.Image, rawmode: str) -> None:
    tiles = image.tile  # type: ignore[attr-defined]
    image.tile = [  # type: ignore[attr-defined]
        tile._replace(args=(rawmode, *tile.args[1:]) if isinstance(tile.args, tuple) else rawmode)
        for tile in tiles
    ]
