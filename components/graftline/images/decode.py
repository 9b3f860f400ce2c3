"""The one image decoder: ingest, features, evaluation and prediction all see the same pixels.

Needs numpy and Pillow only.
"""

import dataclasses
import io
import struct
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from graftline.errors import DataError

MAX_PIXELS = 89_478_485  # Pillow's own limit before it warns; 268 MB as RGB

# Closed formats only: some of Pillow's others start programs (EPS) or read further files.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
SUFFIXES = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"),
        *(".ppm", ".pgm", ".pbm", ".pnm", ".mpo", ".jp2", ".j2k", ".avif"),
    )
)

# What Pillow's plugins raise for broken files.
_FAULTS = (
    *(OSError, SyntaxError, ValueError, TypeError, struct.error, EOFError, IndexError, KeyError),
    *(OverflowError, ZeroDivisionError, MemoryError, AttributeError),
)

Pixels = npt.NDArray[np.uint8]


@dataclasses.dataclass(frozen=True, slots=True)
class Decoded:
    """An image.

    Attributes:
        pixels: (height, width, 3), RGB.
        format: Pillow's name of the file format, in lower case.
    """

    pixels: Pixels
    format: str


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS, shortest: int | None = None) -> Pixels:
    """Decode an image file to RGB.

    The EXIF orientation is applied, 16-bit values are scaled to 8 bits, transparency is laid on
    white, and an animation gives its first frame.

    Args:
        data: The file's bytes.
        max_pixels: A larger image is refused before it is unpacked.
        shortest: A JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, which costs a fraction, as
            long as both sides keep this many pixels. None decodes in full.

    Returns:
        (height, width, 3), contiguous.

    Raises:
        DataError: Not an image, cut short, damaged, or too large; the message says which.
    """
    return decode_image(data, max_pixels=max_pixels, shortest=shortest).pixels


def decode_image(
    data: bytes, *, max_pixels: int = MAX_PIXELS, shortest: int | None = None
) -> Decoded:
    """Like :func:`decode`, with the file's format."""
    if not data:
        raise DataError("the file is empty")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError("the image is too large to be decoded safely", why=str(error)) from error
    except UnidentifiedImageError as error:
        raise DataError("not an image in a known format") from error
    except _FAULTS as error:
        raise _broken(error) from error
    width, height = image.size
    if width * height > max_pixels:
        raise DataError(
            f"the image has {width} x {height} pixels, more than the {max_pixels:,} allowed"
        )
    try:
        if shortest is not None:
            image.draft(None, (shortest, shortest))  # JPEG only; others ignore it
        image.load()
        pixels = _to_rgb(_upright(image))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError("the image is too large to be decoded safely", why=str(error)) from error
    except _FAULTS as error:
        raise _broken(error) from error
    return Decoded(pixels, (image.format or "unknown").lower())


def _broken(error: BaseException) -> DataError:
    cut = any(sign in str(error).lower() for sign in ("truncated", "not enough"))
    return DataError("the file is cut short" if cut else "the file is damaged", why=str(error))


def _upright(image: Image.Image) -> Image.Image:
    """The image as it is meant to be seen; an unreadable EXIF block is as good as none."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except _FAULTS:
        return image
    if orientation not in range(2, 9):
        return image
    return ImageOps.exif_transpose(image)


def _to_rgb(image: Image.Image) -> Pixels:
    if image.mode.startswith("I") or image.mode == "F":
        grey = _to_eight_bits(np.asarray(image))
        return np.ascontiguousarray(np.repeat(grey[:, :, None], 3, axis=2))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    if image.mode != "RGB":
        image = image.convert("RGB")
    return np.ascontiguousarray(np.asarray(image, dtype=np.uint8))


def _to_eight_bits(values: npt.NDArray[Any]) -> Pixels:
    """Scale grey values of more than 8 bits; Pillow's own conversion cuts them off at 255.

    Integers up to 65,535 are taken as 16-bit; larger ones, and floats, by the range they lie in:
    floats within 0..1 are fractions, within 0..255 grey levels.
    """
    if values.dtype == np.uint16:
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    wide = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    top = float(wide.max(initial=0.0))
    if values.dtype.kind == "f" and top <= 255:
        scale = 255.0 if top <= 1 else 1.0
    else:
        scale = 1 / 257 if top <= 65_535 else 255 / top
    return np.clip(np.rint(wide * scale), 0, 255).astype(np.uint8)
