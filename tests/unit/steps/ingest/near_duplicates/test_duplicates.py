"""Near-duplicates: found by bands of bits as by comparing all pairs, on real and drawn pictures."""

import io
import itertools

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from graftline.images.decode import decode
from graftline.steps.ingest.near_duplicates.duplicates import (
    THUMBNAIL_BYTES,
    near_duplicates,
    picture_hash,
)


def picture(seed: int, size: tuple[int, int] = (320, 240)) -> Image.Image:
    """Smooth colours with edges, as photographs have; no two seeds alike."""
    generator = np.random.default_rng(seed)
    coarse = Image.fromarray(generator.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    image = coarse.resize(size, Image.Resampling.BICUBIC)
    for _ in range(4):
        x, y = generator.integers(0, size[0] - 60), generator.integers(0, size[1] - 60)
        colour = tuple(int(value) for value in generator.integers(0, 256, 3))
        image.paste(colour, (x, y, x + 50, y + 40))
    return image


def saved(image: Image.Image, **options) -> np.ndarray:
    stream = io.BytesIO()
    image.save(stream, **{"format": "JPEG", **options})
    return decode(stream.getvalue())


def found(images: list[np.ndarray], distance: int = 4) -> set[tuple[int, int]]:
    looks = [picture_hash(pixels) for pixels in images]
    hashes = np.array([one.dhash for one in looks], dtype=np.uint64)
    thumbnails = np.frombuffer(b"".join(one.thumbnail for one in looks), dtype=np.uint8)
    pairs = near_duplicates(hashes, thumbnails.reshape(len(images), THUMBNAIL_BYTES), distance)
    return {(int(a), int(b)) for a, b in pairs}


def changed(name: str, image: Image.Image) -> np.ndarray:
    return {
        "quality 40": lambda: saved(image, quality=40),
        "png": lambda: saved(image, format="PNG"),
        "half as large": lambda: saved(image.resize((160, 120), Image.Resampling.LANCZOS)),
        "twice as large": lambda: saved(image.resize((640, 480), Image.Resampling.BICUBIC)),
        "a little brighter": lambda: saved(ImageEnhance.Brightness(image).enhance(1.05)),
        "a little blurred": lambda: saved(image.filter(ImageFilter.GaussianBlur(1))),
    }[name]()


@pytest.mark.parametrize(
    "name",
    [
        *("quality 40", "png", "half as large", "twice as large"),
        *("a little brighter", "a little blurred"),
    ],
)
def test_picture_saved_again_is_found_and_others_are_not(name: str) -> None:
    originals = [picture(seed) for seed in range(30)]
    images = [saved(image) for image in originals] + [changed(name, image) for image in originals]
    pairs = found(images)
    hits = {(i, i + 30) for i in range(30)}
    assert not pairs - hits
    assert len(pairs & hits) >= 29


@pytest.mark.parametrize("change", ["mirrored", "other colours", "negative"])
def test_what_a_person_calls_another_picture_is_another(change: str) -> None:
    from PIL import ImageOps

    originals = [picture(seed) for seed in range(30)]
    others = {
        "mirrored": ImageOps.mirror,
        "negative": ImageOps.invert,
        "other colours": lambda image: Image.merge("RGB", image.split()[::-1]),
    }[change]
    assert not found([saved(image) for image in [*originals, *map(others, originals)]])


def test_real_digits_are_hardly_ever_taken_for_one_another(digits: tuple) -> None:
    images, labels = digits
    pixels = [np.repeat((i * 255 / 16).astype(np.uint8)[:, :, None], 3, 2) for i in images]
    pairs = found(pixels)
    assert len(pairs) <= 40  # of 1.6 million, in a data set that holds repeated writing
    assert all(labels[a] == labels[b] for a, b in pairs)


@pytest.mark.parametrize("distance", [0, 1, 4, 8])
def test_bands_find_what_comparing_all_pairs_finds(
    distance: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(distance)
    base = generator.integers(0, 2**63, 60, dtype=np.uint64)
    flips = np.zeros((5, 60), dtype=np.uint64)
    for row, column in itertools.product(range(5), range(60)):
        for bit in generator.choice(64, generator.integers(0, 2 * distance + 2), replace=False):
            flips[row, column] |= np.uint64(1) << np.uint64(bit)
    hashes = (base[None] ^ flips).ravel()
    monkeypatch.setattr("graftline.steps.ingest.near_duplicates.duplicates.PARTNERS", len(hashes))
    alike = np.zeros((len(hashes), THUMBNAIL_BYTES), dtype=np.uint8)
    pairs = {(int(a), int(b)) for a, b in near_duplicates(hashes, alike, distance)}
    expected = {
        (a, b)
        for a, b in itertools.combinations(range(len(hashes)), 2)
        if (int(hashes[a]) ^ int(hashes[b])).bit_count() <= distance
    }
    assert expected and pairs == expected


def groups(pairs: np.ndarray, count: int) -> list[int]:
    """The smallest row that each row is connected with."""
    graph = csr_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    _, labels = connected_components(graph, directed=False)
    smallest: dict[int, int] = {}
    return [smallest.setdefault(int(label), row) for row, label in enumerate(labels)]


def test_thousands_of_plain_images_are_grouped_by_a_few_pairs_each() -> None:
    """All pairs of a folder of black frames would be millions."""
    count = 5000
    thumbnails = np.zeros((count, THUMBNAIL_BYTES), dtype=np.uint8)
    thumbnails[1::2, : 16 * 16] = 200  # as plain, much brighter
    thumbnails[2::4, 16 * 16 :] = 90  # as dark, another colour
    pairs = near_duplicates(np.zeros(count, dtype=np.uint64), thumbnails)
    assert len(pairs) <= 8 * count
    assert groups(pairs, count) == [{0: 0, 1: 1, 2: 2, 3: 1}[row % 4] for row in range(count)]


def test_row_among_thousands_alike_still_meets_every_side() -> None:
    count, sides = 3000, np.ones(3000, dtype=np.int64)
    sides[2990:], sides[1234] = 0, 3  # newcomers; one that is in another split
    alike = np.zeros((count, THUMBNAIL_BYTES), dtype=np.uint8)
    pairs = near_duplicates(np.zeros(count, dtype=np.uint64), alike, 4, sides)
    for row in range(2990, count):
        partners = {int(a + b - row) for a, b in pairs if row in (a, b)}
        assert {int(sides[partner]) for partner in partners} == {0, 1, 3}


def test_nothing_and_one() -> None:
    for count in (0, 1):
        hashes = np.zeros(count, dtype=np.uint64)
        assert len(near_duplicates(hashes, np.zeros((count, THUMBNAIL_BYTES), np.uint8))) == 0
