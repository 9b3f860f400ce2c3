"""The one decoder: what each kind of file becomes, and what each kind of fault is called."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image

from graftline.errors import DataError
from graftline.images.decode import decode, decode_image


def encoded(pixels: np.ndarray | Image.Image, form: str, **options: object) -> bytes:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


@pytest.fixture
def picture() -> np.ndarray:
    """(30, 40, 3), no two pixels alike."""
    rows, columns = np.mgrid[0:30, 0:40]
    return np.stack([rows * 8, columns * 6, (rows + columns) * 3], axis=-1).astype(np.uint8)


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "PPM", "WEBP"])
def test_lossless_files_give_their_pixels(form: str, picture: np.ndarray) -> None:
    options = {"lossless": True} if form == "WEBP" else {}
    found = decode_image(encoded(picture, form, **options))
    assert np.array_equal(found.pixels, picture) and found.format == form.lower()
    assert found.pixels.dtype == np.uint8 and found.pixels.flags.c_contiguous


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_orientation_is_applied(orientation: int, picture: np.ndarray) -> None:
    turned = {
        1: picture,
        2: picture[:, ::-1],
        3: picture[::-1, ::-1],
        4: picture[::-1],
        5: picture.transpose(1, 0, 2),
        6: picture.transpose(1, 0, 2)[:, ::-1],
        7: picture[::-1, ::-1].transpose(1, 0, 2),
        8: picture.transpose(1, 0, 2)[::-1],
    }
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    assert np.array_equal(decode(encoded(picture, "PNG", exif=exif)), turned[orientation])


def test_an_unreadable_exif_block_is_as_good_as_none(picture: np.ndarray) -> None:
    broken = b"Exif\x00\x00II*\x00\xff\xff\xff\xff"
    assert decode(encoded(picture, "JPEG", exif=broken)).shape == (30, 40, 3)


def test_sixteen_bits_are_scaled_not_cut_off() -> None:
    wide = np.array([[0, 257, 32_896, 65_535]], np.uint16)
    found = decode(encoded(wide, "PNG"))
    assert found[0, :, 0].tolist() == [0, 1, 128, 255]
    assert (found[..., 0] == found[..., 2]).all()


def test_transparency_lies_on_white_and_greys_and_palettes_become_rgb(picture: np.ndarray) -> None:
    clear = np.dstack([picture, np.zeros((30, 40), np.uint8)])
    assert (decode(encoded(clear, "PNG")) == 255).all()
    grey = picture[..., 0]
    assert np.array_equal(decode(encoded(grey, "PNG")), np.repeat(grey[..., None], 3, axis=2))
    palette = Image.fromarray(picture // 64 * 64).convert("P", palette=Image.Palette.ADAPTIVE)
    assert np.array_equal(decode(encoded(palette, "PNG")), np.asarray(palette.convert("RGB")))
    ink = Image.fromarray(picture).convert("CMYK")
    assert decode(encoded(ink, "JPEG")).shape == (30, 40, 3)


def test_an_animation_gives_its_first_frame(picture: np.ndarray) -> None:
    first, second = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    data = encoded(first, "GIF", save_all=True, append_images=[second])
    assert decode(data)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "the file is empty"),
        (b"<html>not found</html>", "not an image in a known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image in a known format"),
    ],
)
def test_what_is_no_image_is_named(data: bytes, words: str) -> None:
    with pytest.raises(DataError) as refused:
        decode(data)
    assert refused.value.what == words


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP"])
def test_a_file_cut_anywhere_is_refused_never_filled_up(form: str, picture: np.ndarray) -> None:
    data = encoded(picture, form)
    whole, refused = decode(data), 0
    for length in range(0, len(data), max(1, len(data) // 40)):
        try:
            assert np.array_equal(decode(data[:length]), whole)  # only a trailer is missing
        except DataError as error:
            assert "the file is" in error.what or "not an image" in error.what
            refused += 1
    assert refused > 20


def test_damaged_bytes_never_raise_anything_else(picture: np.ndarray) -> None:
    generator = np.random.default_rng(0)
    for form in ("JPEG", "PNG", "TIFF", "GIF", "WEBP", "BMP"):
        whole = encoded(picture, form)
        for _ in range(40):
            data = bytearray(whole)
            for _ in range(6):
                data[generator.integers(len(data))] = generator.integers(256)
            try:
                assert decode(bytes(data)).shape[2] == 3
            except DataError:
                continue


def test_too_many_pixels_are_refused_before_they_are_unpacked() -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header
    chunk += struct.pack(">I", zlib.crc32(b"IHDR" + header)) + struct.pack(">I", 0) + b"IDAT"
    with pytest.raises(DataError) as refused:
        decode(b"\x89PNG\r\n\x1a\n" + chunk)
    assert "too large" in refused.value.what
    assert refused.value.why == "3,600,000,000 pixels, more than the 89,478,485 allowed"
    with pytest.raises(DataError, match="40 x 30 pixels, more than the 1,199"):
        decode(encoded(np.zeros((30, 40, 3), np.uint8), "PNG"), max_pixels=1_199)


@pytest.mark.parametrize(
    ("shortest", "shape"),
    [(None, (400, 600, 3)), (201, (400, 600, 3)), (200, (200, 300, 3)), (60, (100, 150, 3))],
)
def test_a_jpeg_is_reduced_only_as_far_as_asked(
    shortest: int | None, shape: tuple[int, ...], picture: np.ndarray
) -> None:
    large = Image.fromarray(picture).resize((600, 400), Image.Resampling.BICUBIC)
    data = encoded(large, "JPEG", quality=95)
    found = decode(data, shortest=shortest)
    assert found.shape == shape
    mean = decode(data).reshape(shape[0], 400 // shape[0], shape[1], -1, 3).mean((1, 3))
    assert np.abs(found - mean).max() < 4


def test_reduction_keeps_orientation_and_leaves_other_formats_alone(picture: np.ndarray) -> None:
    large = Image.fromarray(picture).resize((600, 400), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    assert decode(encoded(large, "JPEG", exif=exif), shortest=100).shape == (150, 100, 3)
    assert decode(encoded(large, "PNG"), shortest=10).shape == (400, 600, 3)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "`git lfs pull`"),
        (b"\n<!DOCTYPE html><html><head>404", "a web page"),
        (b"\xef\xbb\xbf<svg xmlns='x'/>", "an SVG drawing"),
        (b"%PDF-1.7", "a PDF"),
        (b"PK\3\4 more", "a ZIP archive"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 99, "an HEIC photo"),
        (b"\0" * 128 + b"DICM" + b"\0" * 99, "a DICOM file"),
    ],
)
def test_what_a_file_is_that_is_no_image(data: bytes, kind: str) -> None:
    with pytest.raises(DataError, match="not an image in a known format") as error:
        decode(data)
    assert kind in str(error.value.why)
