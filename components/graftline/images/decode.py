"""The one image decoder: ingest, features, evaluation and prediction all see the same pixels.

Needs numpy and Pillow only.
"""

import dataclasses
import io
import re
import struct
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

from graftline.errors import DataError
from graftline.images import stored_values
from graftline.images.stored_values import ValueRange, Values
from graftline.machine import is_out_of_memory

MAX_PIXELS = 89_478_485  # Pillow's own limit before it warns; 268 MB as RGB

# Closed formats only: some of Pillow's others start programs (EPS) or read further files.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
SUFFIXES = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"),
        *(".ppm", ".pgm", ".pbm", ".pnm", ".mpo", ".jp2", ".j2k", ".avif"),
    )
)

PNG = b"\x89PNG\r\n\x1a\n"
PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")

# What Pillow's plugins raise for broken files.
_FAULTS = (
    *(OSError, SyntaxError, ValueError, TypeError, struct.error, EOFError, IndexError, KeyError),
    *(OverflowError, ZeroDivisionError, MemoryError, AttributeError),
)

# More than decoding takes: the file's own pixels, RGB, and a turned copy of it.
SPARE_BYTES, BYTES_PER_PIXEL = 32 * 2**20, 24

Pixels = npt.NDArray[np.uint8]


@dataclasses.dataclass(frozen=True, slots=True)
class Decoded:
    """An image.

    Attributes:
        pixels: (height, width, 3), RGB.
        format: Pillow's name of the file format, in lower case.
        values: Which values the file stores, where they have more than 8 bits and a range was
            given to read them by; else None.
        kind: Of the stored values, such as ``uint16``; None for the usual 8 bits.
    """

    pixels: Pixels
    format: str
    values: Values | None = None
    kind: str | None = None


def decode(
    data: bytes,
    *,
    max_pixels: int = MAX_PIXELS,
    shortest: int | None = None,
    value_range: ValueRange | None = None,
) -> Pixels:
    """Decode an image file to RGB.

    The EXIF orientation is applied, transparency is laid on white, and an animation gives its
    first frame.

    Args:
        data: The file's bytes.
        max_pixels: A larger image is refused before it is unpacked.
        shortest: A JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, which costs a fraction, as
            long as both sides keep this many pixels. None decodes in full.
        value_range: Of files with more than 8 bits: the stored values that become black and
            white, those of the data set. None for sets of 8-bit images: 16 bits are then scaled
            from 0 to 65,535, other values by the range that the image itself has.

    Returns:
        (height, width, 3), contiguous.

    Raises:
        DataError: Not an image, cut short, damaged, or too large; the message says which.
    """
    return decode_image(
        data, max_pixels=max_pixels, shortest=shortest, value_range=value_range
    ).pixels


def decode_image(
    data: bytes,
    *,
    max_pixels: int = MAX_PIXELS,
    shortest: int | None = None,
    value_range: ValueRange | None = None,
) -> Decoded:
    """Like :func:`decode`, with the file's format, and the values of more than 8 bits."""
    try:
        return _decoded(data, max_pixels, shortest, value_range)
    except DataError:
        plain = _without_texts(data)
        if plain is None:
            raise
        try:
            return _decoded(plain, max_pixels, shortest, value_range)
        except DataError:
            pass
        raise


def _decoded(
    data: bytes, max_pixels: int, shortest: int | None, value_range: ValueRange | None
) -> Decoded:
    image = _opened(data, max_pixels)
    width, height = image.size
    pixels = width * height
    if pixels > max_pixels:
        raise DataError(
            f"the image has {width:,} x {height:,} pixels, more than the {max_pixels:,} allowed"
        )
    try:
        if shortest is not None:
            image.draft(None, (shortest, shortest))  # JPEG only; others ignore it
        return _loaded(image, data, value_range)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(error, max_pixels) from error
    except _FAULTS as error:
        _check_memory(error, pixels)
        raise _broken(error) from error


def _too_large(error: Exception, most: int) -> DataError:
    size = re.search(r"\d+", str(error))  # Pillow's "Image size (400000000 pixels) exceeds ..."
    had = f"{int(size[0]):,} pixels, " if size else ""
    return DataError(
        "the image is too large to be decoded safely", why=f"{had}more than the {most:,} allowed"
    )


def _check_memory(error: Exception, pixels: int) -> None:
    """Pass a lack of memory on: an image that could not be decoded for it is not broken.

    A broken file may ask for more than any image of its size needs, and is broken then.
    """
    if not is_out_of_memory(error):
        return
    try:
        np.empty(SPARE_BYTES + BYTES_PER_PIXEL * pixels, np.uint8)
    except MemoryError:
        raise MemoryError(f"decoding an image of {pixels:,} pixels") from error


def _opened(data: bytes, max_pixels: int) -> Image.Image:
    if not data:
        raise DataError("the file is empty")
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(error, max_pixels) from error
    except UnidentifiedImageError as error:
        raise _unidentified(data) from error
    except _FAULTS as error:
        _check_memory(error, 0)
        raise _broken(error) from error


def _loaded(image: Image.Image, data: bytes, value_range: ValueRange | None) -> Decoded:
    form = (image.format or "unknown").lower()
    kind = stored_values.kind_of(image)
    if kind is not None and (value_range is not None or _must_be_measured(image, kind)):
        stored = stored_values.stored(image, data, kind, _upright)
        bounds = value_range or _usual_range(stored)
        values = stored_values.values_of(stored.array, kind)
        return Decoded(stored.to_rgb(bounds), form, values, kind)
    stored_values.check_planes(image)
    fourth_band = image.format == "TIFF" and image.mode == "RGBA"
    extra = stored_values.tag(image, stored_values.TIFF_EXTRA, None)
    image.load()
    upright = _upright(image)
    if image.mode in ("RGBA", "LA") and not fourth_band:
        stored_values.check_alpha(np.asarray(upright.getchannel("A")))
    if fourth_band and not stored_values.is_transparency(
        np.asarray(upright.getchannel("A")), extra
    ):
        upright = upright.convert("RGB")
    return Decoded(_to_rgb(upright), form, kind=kind)


def _must_be_measured(image: Image.Image, kind: str) -> bool:
    """Whether Pillow's own reading is wrong, with or without a range."""
    white = stored_values.tag(image, stored_values.TIFF_PHOTOMETRIC, 1)
    return kind in ("int8", "uint32") or (
        white == stored_values.WHITE_IS_ZERO and image.mode.startswith(("I", "F"))
    )


def _usual_range(stored: stored_values.Stored) -> ValueRange:
    """What stands for black and white where no data set says so."""
    if stored.array.dtype.kind != "f" and stored.array.itemsize <= 2:
        kinds = np.iinfo(stored.array.dtype)
        return float(kinds.min), float(kinds.max)
    top = stored_values.values_of(stored.array, stored.kind).highest
    usual = (1.0, 255.0, 65_535.0) if stored.array.dtype.kind == "f" else (65_535.0,)
    return 0.0, next((one for one in usual if top <= one), top)


def _unidentified(data: bytes) -> DataError:
    """Not an image; or one of a kind that Pillow does not read, and why not."""
    for form in FORMATS:
        factory, accepts = Image.OPEN.get(form, (None, None))
        if factory is None or accepts is None or accepts(data[:16]) is not True:
            continue
        try:
            factory(io.BytesIO(data), "")
        except _FAULTS as error:
            why = f"it begins as a {form} does: {error}"
            if form == "TIFF" and (described := _tiff_of(data)):
                return DataError(
                    "a TIFF of a kind that cannot be read",
                    why=f"it holds {described} ({error})",
                    fix="Save it as grey or RGB of 8 or 16 bits.",
                )
            return DataError("not an image in a known format", why=why)
    return DataError("not an image in a known format", why=_told_by_its_beginning(data))


# What stands under the names of images in repositories, downloads and on telephones.
_BEGINNINGS = (
    (b"version https://git-lfs", "a pointer of Git LFS; `git lfs pull` fetches the image"),
    (b"<!doctype html", "a web page, as a download that failed leaves one"),
    (b"<html", "a web page, as a download that failed leaves one"),
    (b"<svg", "an SVG drawing"),
    (b"<?xml", "XML, perhaps an SVG drawing"),
    (b"%pdf", "a PDF"),
    (b"8bps", "a Photoshop file"),
    (b"pk\3\4", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\0\0\1\0", "an icon (ICO)"),
)
_HEIC = (b"heic", b"heix", b"hevc", b"mif1", b"msf1")


_SIGNATURES = (b"\xff\xd8\xff", PNG, b"GIF8", b"BM", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP  ")


def begins_as_image(data: bytes) -> bool:
    """Whether the first bytes are those of an image, whatever the file is called."""
    webp = data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    return data.startswith(_SIGNATURES) or webp or data[4:12] == b"ftypavif"


def _told_by_its_beginning(data: bytes) -> str | None:
    """What a file is that is no image here; None where its first bytes do not tell."""
    start = data[:64].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    kind = next((kind for begin, kind in _BEGINNINGS if start.startswith(begin)), None)
    if data[4:8] == b"ftyp" and data[8:12] in _HEIC:
        kind = "an HEIC photo; convert it to JPEG"
    if data[128:132] == b"DICM":
        kind = "a DICOM file; convert it to PNG or TIFF"
    return f"it is {kind}" if kind else None


def _tiff_of(data: bytes) -> str:
    """What a TIFF says that it holds; empty where its tags cannot be read."""
    try:
        stream = io.BytesIO(data)
        head = stream.read(8)
        if 43 in head[2:4]:  # BigTIFF has a longer one
            head += stream.read(8)
        tags = TiffImagePlugin.ImageFileDirectory_v2(head)
        order: Literal["little", "big"] = "little" if head[:2] == b"II" else "big"
        entries = int.from_bytes(data[tags.next : tags.next + 2], order)
        if tags.next + 2 + 12 * entries > len(data):  # cut short
            return ""
        stream.seek(tags.next)
        tags.load(stream)
        bits = tags.get(stored_values.TIFF_BITS, (1,))
        bands = tags.get(277, len(bits))
        meant = tags.get(stored_values.TIFF_SAMPLE_FORMAT, (1,))[0]
        name = {1: "unsigned", 2: "signed", 3: "floating-point"}.get(meant, "complex or unknown")
        colours = tags.get(stored_values.TIFF_PHOTOMETRIC, "not given")
        if not all(tags.get(number) for number in (256, 257, stored_values.TIFF_BITS)):
            return ""
    except _FAULTS:
        return ""
    return f"{bands} band(s) of {bits[0]} bits, {name}, photometric interpretation {colours}"


def _without_texts(data: bytes) -> bytes | None:
    """A PNG without its texts and colour profile, which do not change the pixels.

    Pillow refuses a file whose texts or profile unpack to more than it allows; None where there
    are none to leave out.
    """
    if not data.startswith(PNG):
        return None
    kept, at, dropped = [PNG], len(PNG), False
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        end = at + 12 + length
        if data[at + 4 : at + 8] in PNG_TEXTS and end <= len(data):
            dropped = True
        else:
            kept.append(data[at:end])
        at = end
    return b"".join([*kept, data[at:]]) if dropped else None


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
    if image.mode == "LAB":
        raise DataError(
            "the colours are stored as CIELAB, which is not read", fix="Save the image as RGB."
        )
    if image.mode != "RGB":
        image = image.convert("RGB")
    return np.ascontiguousarray(np.asarray(image, dtype=np.uint8))


def _to_eight_bits(values: npt.NDArray[Any]) -> Pixels:
    """Scale grey values of more than 8 bits where no data set says by which range.

    Pillow's own conversion cuts them off at 255.

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
