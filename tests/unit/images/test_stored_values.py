"""Images of more than 8 bits and unusual TIFFs, written byte by byte and compared with numpy."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from graftline.errors import DataError
from graftline.images.decode import decode, decode_image
from graftline.images.stored_values import OWN

FORMATS = {"u": 1, "i": 2, "f": 3}


def tiff(
    array: np.ndarray,
    *,
    photometric: int | None = None,
    extra: tuple[int, ...] | None = None,
    order: str = "<",
    planar: bool = False,
) -> bytes:
    """A plain TIFF after the TIFF 6.0 specification: one strip, no compression."""
    bands = array.shape[2] if array.ndim == 3 else 1
    bits = array.dtype.itemsize * 8
    if photometric is None:
        photometric = 2 if bands >= 3 else 1
    pixels = np.moveaxis(array, 2, 0) if planar else array
    body = pixels.astype(array.dtype.newbyteorder(order)).tobytes()
    tags: list[tuple[int, int, tuple[int, ...]]] = [
        (256, 4, (array.shape[1],)),
        (257, 4, (array.shape[0],)),
        (258, 3, (bits,) * bands),
        (259, 3, (1,)),
        (262, 3, (photometric,)),
        (273, 4, (8,)),
        (277, 3, (bands,)),
        (278, 4, (array.shape[0],)),
        (279, 4, (len(body),)),
        (284, 3, (2 if planar else 1,)),
    ]
    if planar:
        size = len(body) // bands
        tags[5] = (273, 4, tuple(8 + band * size for band in range(bands)))
        tags[8] = (279, 4, (size,) * bands)
    if extra is not None:
        tags.append((338, 3, extra))
    tags.append((339, 3, (FORMATS[array.dtype.kind],) * bands))
    at = 8 + len(body) + len(body) % 2
    later = at + 2 + 12 * len(tags) + 4
    entries, values = b"", b""
    for number, kind, items in tags:
        packed = struct.pack(f"{order}{len(items)}{'HI'[kind == 4]}", *items)
        if len(packed) <= 4:
            field = packed.ljust(4, b"\0")
        else:
            field = struct.pack(f"{order}I", later + len(values))
            values += packed
        entries += struct.pack(f"{order}HHI", number, kind, len(items)) + field
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", at)
    body = body.ljust(at - 8, b"\0")
    return head + body + struct.pack(f"{order}H", len(tags)) + entries + b"\0" * 4 + values


def png(array: np.ndarray, *chunks: tuple[bytes, bytes], last: bool = False) -> bytes:
    """A PNG of 8 or 16 bits after its specification, filter 0; further chunks before the pixels."""
    bands = array.shape[2] if array.ndim == 3 else 1
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[bands]
    rows = array.astype(array.dtype.newbyteorder(">"))
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    head = struct.pack(
        ">IIBBBBB", array.shape[1], array.shape[0], 8 * array.dtype.itemsize, colour, 0, 0, 0
    )
    more = list(chunks)
    parts = [(b"IHDR", head), *([] if last else more), (b"IDAT", zlib.compress(raw))]
    parts += [*(more if last else []), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    )


def expected(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """What a range means, in double precision; halves go to the even level, as numpy rounds."""
    scaled = (values.astype(np.float64) - low) * (255 / (high - low))
    grey = np.rint(np.clip(scaled, 0, 255))
    return grey if grey.ndim == 3 else np.repeat(grey[..., None], 3, axis=2)


def noise(dtype: str, low: float, high: float, shape: tuple[int, ...] = (17, 23)) -> np.ndarray:
    return np.random.default_rng(0).uniform(low, high, shape).astype(dtype)


@pytest.mark.parametrize(
    ("array", "options", "bounds"),
    [
        (noise("u2", 0, 4096), {}, (0, 4095)),
        (noise("u2", 0, 4096), {"order": ">"}, (0, 4095)),
        (noise("u2", 28_000, 31_000), {}, (28_000, 31_000)),
        (noise("i2", -1024, 3072), {}, (-1024, 3071)),
        (noise("i2", -1024, 3072), {"order": ">"}, (-160, 240)),
        (noise("i4", 0, 1_000_000), {}, (0, 1_000_000)),
        (noise("u4", 0, 4_000_000_000), {}, (0, 4_294_967_295)),
        (noise("i1", -128, 128), {}, (-128, 127)),
        (noise("f4", 0, 1), {}, (0, 1)),
        (noise("f4", 0, 4095), {}, (0, 4095)),
        (noise("f4", -1, 1), {"order": ">"}, (-1, 1)),
        (noise("u2", 0, 4096, (9, 7, 3)), {}, (0, 4095)),
        (noise("u2", 0, 4096, (9, 7, 3)), {"order": ">"}, (0, 4095)),
        (noise("u2", 0, 4096, (9, 7, 4)), {"extra": (0,)}, (0, 4095)),
    ],
    ids=lambda value: value.dtype.str if isinstance(value, np.ndarray) else str(value),
)
def test_a_tiff_is_read_by_the_range(
    array: np.ndarray, options: dict[str, Any], bounds: tuple[float, float]
) -> None:
    found = decode_image(tiff(array, **options), value_range=bounds)
    colours = array[..., :3] if array.ndim == 3 else array
    assert np.array_equal(found.pixels, expected(colours, *bounds))
    assert found.values is not None
    assert (found.values.lowest, found.values.highest) == (colours.min(), colours.max())
    assert (
        found.values.kind
        == {
            "u1": "uint8",
            "i1": "int8",
            "u2": "uint16",
            "i2": "int16",
            "u4": "uint32",
            "i4": "int32",
            "f4": "float32",
        }[array.dtype.str[1:]]
    )


@pytest.mark.parametrize("bands", [1, 3])
def test_a_png_of_12_bits_in_16_keeps_its_levels(bands: int) -> None:
    levels = np.arange(217, dtype=np.uint16).reshape(7, 31) * 16 + 300
    array = levels if bands == 1 else np.stack([levels, levels[::-1], levels.T.reshape(7, 31)], 2)
    found = decode(png(array), value_range=(0, 4095))
    assert np.array_equal(found, expected(array, 0, 4095))
    assert len(np.unique(found[..., 0])) >= 216
    assert len(np.unique(decode(png(array))[..., 0])) <= 16  # without a range: what it was


def test_an_odd_filter_and_a_compressed_tiff_are_unpacked_alike() -> None:
    array = noise("u2", 0, 4096, (33, 21, 3))
    stream = io.BytesIO()
    Image.open(io.BytesIO(tiff(array))).convert("RGB").save(stream, "TIFF")  # a sane reader
    for compression in ("tiff_lzw", "tiff_adobe_deflate"):
        grey = io.BytesIO()
        Image.fromarray(array[..., 0]).save(grey, "TIFF", compression=compression)
        found = decode(grey.getvalue(), value_range=(0, 4095))
        assert np.array_equal(found, expected(array[..., 0], 0, 4095))
    saved = io.BytesIO()
    Image.fromarray(array[..., 0]).save(saved, "PNG")  # libpng's filters
    found = decode(saved.getvalue(), value_range=(0, 4095))
    assert np.array_equal(found, expected(array[..., 0], 0, 4095))


@pytest.mark.parametrize("bands", [2, 4])
def test_transparency_of_16_bits_lies_on_white(bands: int) -> None:
    array = noise("u2", 0, 4096, (8, 8, bands))
    array[..., -1] = 65_535
    array[:4, :, -1] = 0
    found = decode(png(array), value_range=(0, 4095))
    colours = array[..., 0] if bands == 2 else array[..., :3]
    assert (found[:4] == 255).all()
    assert np.array_equal(found[4:], expected(colours[4:], 0, 4095))


def test_white_is_zero() -> None:
    eight, wide, floats = noise("u1", 0, 256), noise("u2", 0, 4096), noise("f4", 0, 1)
    assert np.array_equal(decode(tiff(eight, photometric=0))[..., 0], 255 - eight)
    for array, bounds in ((wide, (0, 4095)), (floats, (0, 1))):
        found = decode(tiff(array, photometric=0), value_range=bounds)
        assert np.array_equal(found, 255 - expected(array, *bounds))
    assert np.array_equal(
        decode(tiff(noise("u2", 0, 65_536), photometric=0)),
        255 - expected(noise("u2", 0, 65_536), 0, 65_535),
    )


def test_values_that_are_not_finite_are_black_or_white() -> None:
    array = np.array([[0, 1, np.nan, np.inf, -np.inf, 0.5]], np.float32)
    found = decode_image(tiff(array), value_range=(0, 1))
    assert found.pixels[0, :, 0].tolist() == [0, 255, 0, 255, 0, 128]
    assert found.values is not None and found.values.highest == 1


def test_images_of_8_bits_are_not_touched_by_a_range() -> None:
    for array in (noise("u1", 0, 256), noise("u1", 0, 256, (9, 7, 3))):
        for data in (png(array), tiff(array)):
            found = decode_image(data, value_range=(0, 4095))
            assert found.values is None and np.array_equal(found.pixels, decode(data))


def test_looks_of_a_wide_image_are_by_its_own_range() -> None:
    array = noise("u2", 1000, 1217)
    found = decode(png(array), value_range=OWN)
    assert found.min() == 0 and found.max() == 255


def test_a_fourth_band_that_is_infrared_is_left_out() -> None:
    array = noise("u1", 20, 236, (16, 16, 4))
    for extra in ((0,), None):  # called unspecified, or not called anything
        assert np.array_equal(decode(tiff(array, extra=extra)), array[..., :3])
    with pytest.raises(DataError, match="fourth band does not look like transparency") as refused:
        decode(tiff(array, extra=(2,)))
    assert "infrared" in str(refused.value)


def test_a_fourth_band_that_is_transparency_is_one() -> None:
    array = noise("u1", 20, 236, (16, 16, 4))
    array[..., 3] = 255
    array[:8, :, 3] = 0
    for extra in ((2,), None):
        found = decode(tiff(array, extra=extra))
        assert (found[:8] == 255).all() and np.array_equal(found[8:], array[8:, :, :3])


def test_what_cannot_be_read_is_refused_with_the_true_reason() -> None:
    eight_bands = noise("u1", 0, 256, (8, 8, 8))
    with pytest.raises(DataError, match="cannot be read") as refused:
        decode(tiff(eight_bands, photometric=1, extra=(0,) * 7))
    assert "8 band(s) of 8 bits" in str(refused.value.why)
    with pytest.raises(DataError, match="cannot be read") as refused:
        decode(tiff(noise("f4", 0, 1, (8, 8, 3))))
    assert "3 band(s) of 32 bits, floating-point" in str(refused.value.why)
    with pytest.raises(DataError, match="separate planes"):
        decode(tiff(noise("u2", 0, 4096, (8, 8, 3)), planar=True))
    with pytest.raises(DataError, match="CIELAB"):
        decode(tiff(noise("u1", 0, 256, (8, 8, 3)), photometric=8))
    planes = noise("u1", 0, 256, (8, 8, 3))
    assert np.array_equal(decode(tiff(planes, planar=True)), planes)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("name", [b"zTXt", b"iTXt", b"iCCP", b"tEXt"])
def test_texts_and_profiles_beyond_limits_do_not_matter(name: bytes, last: bool) -> None:
    if last and name == b"iCCP":
        return  # the specification wants it before the pixels
    long = b"x" * (3 * 2**20)
    packed = zlib.compress(long)
    chunk = {
        b"zTXt": b"Comment\0\0" + packed,
        b"iTXt": b"Comment\0\1\0\0\0" + packed,
        b"iCCP": b"profile\0\0" + packed,
        b"tEXt": b"Comment\0" + long,
    }[name]
    array = noise("u1", 0, 256, (6, 7, 3))
    many = [(name, chunk)] * (1 if name == b"iCCP" else 25)  # 75 MB of text
    assert np.array_equal(decode(png(array, *many, last=last)), array)


def test_a_damaged_png_with_texts_is_still_damaged() -> None:
    data = png(noise("u1", 0, 256, (6, 7, 3)), (b"tEXt", b"Comment\0" + b"x" * 99))
    with pytest.raises(DataError, match=r"cut short|damaged"):
        decode(data[:-30])


def _png_with(alpha: np.ndarray) -> bytes:
    rgb = np.random.default_rng(0).integers(0, 256, (*alpha.shape, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(np.dstack([rgb, alpha])).save(stream, "PNG")
    return stream.getvalue()


def test_infrared_as_the_fourth_band_of_a_png_is_rejected_and_transparency_is_not() -> None:
    random = np.random.default_rng(1)
    ramp = np.tile(np.linspace(10, 240, 40).astype(np.uint8), (40, 1))
    infrared = np.clip(ramp + random.normal(0, 8, ramp.shape), 5, 250).astype(np.uint8)
    with pytest.raises(DataError, match="last band") as refused:
        decode(_png_with(infrared))
    assert "infrared" in str(refused.value.why)
    disc = (np.hypot(*np.mgrid[-20:20, -20:20]) < 15) * np.uint8(255)
    noise = np.where(random.random((40, 40)) < 0.3, 128, 255).astype(np.uint8)
    for alpha in (ramp, disc, noise, np.full_like(ramp, 128), np.zeros_like(ramp)):
        assert decode(_png_with(alpha)).shape == (40, 40, 3)
