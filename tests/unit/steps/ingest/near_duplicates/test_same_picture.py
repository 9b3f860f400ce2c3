"""The same picture, judged piece by piece: planted copies, and scenes that only look alike."""

import io
import itertools
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

from graftline.images.decode import decode
from graftline.steps.ingest.near_duplicates import candidates as search
from graftline.steps.ingest.near_duplicates.candidates import candidates
from graftline.steps.ingest.near_duplicates.duplicates import picture_hash
from graftline.steps.ingest.near_duplicates.same_picture import detail_of, same_picture

SIZE = (200, 150)


def picture(seed: int, size: tuple[int, int] = SIZE) -> Image.Image:
    """Clouds of colour, as photographs have, and things with edges."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8))
    pixels = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC)).astype(float)
    grain = Image.fromarray(rng.integers(0, 256, (40, 50), dtype=np.uint8)).resize(size)
    pixels += (np.asarray(grain).astype(float)[:, :, None] - 128) / 6
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(4):
        x, y = rng.integers(0, size[0] - 40), rng.integers(0, size[1] - 40)
        colour = tuple(int(value) for value in rng.integers(0, 256, 3))
        draw.ellipse((x, y, x + rng.integers(15, 50), y + rng.integers(15, 50)), fill=colour)
    return image


def saved(image: Image.Image, **options) -> np.ndarray:
    stream = io.BytesIO()
    image.save(stream, **{"format": "JPEG", "quality": 90, **options})
    return decode(stream.getvalue())


def details(images: list[np.ndarray]) -> np.ndarray:
    return np.stack([detail_of(pixels) for pixels in images])


def cropped(image: Image.Image, left: float, top: float, right: float, bottom: float):
    width, height = image.size
    box = (left * width, top * height, width - right * width, height - bottom * height)
    return saved(image.crop(tuple(round(value) for value in box)))


CHANGES: dict[str, Callable[[Image.Image], np.ndarray]] = {
    "re-encoded": lambda image: saved(image, quality=45),
    "half as large": lambda image: saved(image.resize((100, 75), Image.Resampling.LANCZOS)),
    "square": lambda image: saved(image.resize((224, 224))),
    "cropped all round": lambda image: cropped(image, 0.04, 0.04, 0.04, 0.04),
    "cropped at one corner": lambda image: cropped(image, 0.08, 0.06, 0, 0),
    "brighter": lambda image: saved(ImageEnhance.Brightness(image).enhance(1.2)),
    "blurred": lambda image: saved(image.filter(ImageFilter.GaussianBlur(1.2))),
    "all of it": lambda image: cropped(
        ImageEnhance.Brightness(image.filter(ImageFilter.GaussianBlur(0.7))).enhance(1.1),
        *(0.02, 0.02, 0.03, 0.02),
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_copies_are_candidates_and_are_confirmed(change: str) -> None:
    originals = [picture(seed) for seed in range(30)]
    images = [saved(one) for one in originals] + [CHANGES[change](one) for one in originals]
    looks = b"".join(picture_hash(pixels).thumbnail for pixels in images)
    thumbnails = np.frombuffer(looks, dtype=np.uint8).reshape(60, -1)
    pairs = candidates(thumbnails, np.ones(60, dtype=bool), np.zeros(60, dtype=np.int64))
    every = details(images)
    same = {
        (int(a), int(b))
        for (a, b), yes in zip(
            pairs, same_picture(every[pairs[:, 0]], every[pairs[:, 1]]), strict=True
        )
        if yes
    }
    planted = {(number, number + 30) for number in range(30)}
    assert not same - planted
    assert len(same & planted) >= 29


def camera(number: int) -> Image.Image:
    """One view with a thing of 9 to 12 pixels somewhere in it, and the noise of a sensor."""
    rng = np.random.default_rng(1000 + number)
    image = picture(999)
    side = int(rng.integers(9, 13))
    x, y = int(rng.integers(0, SIZE[0] - side)), int(rng.integers(0, SIZE[1] - side))
    light = np.asarray(image)[y : y + side, x : x + side].mean(axis=(0, 1))
    colour = tuple(int(value) for value in light + (-60 if light.mean() > 128 else 60))
    ImageDraw.Draw(image).rectangle((x, y, x + side, y + side), fill=colour)
    pixels = np.asarray(image) + rng.normal(0, 2, (SIZE[1], SIZE[0], 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def surface(number: int) -> Image.Image:
    rng = np.random.default_rng(2000 + number)
    pixels = 128 + rng.normal(0, 10, (150, 200, 1)) + np.zeros((1, 1, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def screenshot(number: int) -> Image.Image:
    rng = np.random.default_rng(3000 + number)
    image = Image.new("RGB", SIZE, (245, 245, 245))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, SIZE[0], 20), fill=(40, 60, 120))
    for line in range(8):
        words = "".join(rng.choice(list("abcdefgh klmnop"), int(rng.integers(8, 28))))
        draw.text((8, 26 + 15 * line), words, fill=(20, 20, 20))
    return image


def cells(number: int) -> Image.Image:
    rng = np.random.default_rng(4000 + number)
    image = Image.new("RGB", SIZE, (225, 200, 215))
    draw = ImageDraw.Draw(image)
    for _ in range(9):
        x, y = (int(value) for value in rng.integers(0, 150, 2))
        draw.ellipse((x - 8, y - 8, x + 8, y + 8), fill=(190, 90, 140))
    return image.filter(ImageFilter.GaussianBlur(1))


@pytest.mark.parametrize("scene", [camera, surface, screenshot, cells])
def test_one_scene_is_many_pictures(scene: Callable[[int], Image.Image]) -> None:
    every = details([saved(scene(number)) for number in range(14)])
    pairs = np.array(list(itertools.combinations(range(14), 2)))
    same = same_picture(every[pairs[:, 0]], every[pairs[:, 1]])
    assert not pairs[same].tolist()
    again = details([saved(scene(number), format="PNG") for number in range(14)])
    assert same_picture(every, again).mean() >= 0.95


def test_plain_images_are_the_same_and_other_colours_are_not() -> None:
    grey, again, red = (
        np.full((80, 100, 3), colour, dtype=np.uint8)
        for colour in ((90, 90, 90), (91, 91, 91), (150, 60, 60))
    )
    every = details([grey, again, red])
    assert same_picture(every[[0, 0]], every[[1, 2]]).tolist() == [True, False]


def test_search_in_neighbourhoods_finds_what_comparing_all_finds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (1500, 5, 5), dtype=np.uint8)
    luma = [np.asarray(Image.fromarray(one).resize((16, 16))).ravel() for one in coarse]
    originals = np.concatenate([np.stack(luma), np.full((1500, 32), 128)], axis=1)
    noise = rng.normal(0, 5, (500, 288))
    copies = (originals[:500] + noise).clip(0, 255)
    thumbnails = np.concatenate([originals, copies]).astype(np.uint8)
    new, sides = np.ones(2000, dtype=bool), rng.integers(0, 3, 2000)
    all_pairs = {tuple(pair) for pair in candidates(thumbnails, new, sides).tolist()}
    planted = {(number, number + 1500) for number in range(500)}
    assert planted <= all_pairs
    monkeypatch.setattr(search, "ALL_PAIRS", 0)
    near = {tuple(pair) for pair in candidates(thumbnails, new, sides).tolist()}
    assert near <= all_pairs and len(planted & near) >= 490


def test_only_pairs_with_a_new_row_are_candidates() -> None:
    thumbnails = np.repeat(np.arange(288, dtype=np.uint8)[None], 30, axis=0)
    new = np.zeros(30, dtype=bool)
    new[[3, 20]] = True
    sides = np.arange(30) % 3
    pairs = candidates(thumbnails, new, sides)
    assert all(set(pair) & {3, 20} for pair in pairs.tolist())
    for row in (3, 20):
        partners = {a + b - row for a, b in pairs.tolist() if row in (a, b)}
        assert {int(sides[partner]) for partner in partners} == {0, 1, 2}


def _on_a_ground(seed: int, ground: int, colours: tuple[int, ...] = (0, 1, 2)) -> np.ndarray:
    """A few blobs on white or black; of some colours only, as a fluorescence picture has."""
    random = np.random.default_rng(seed)
    picture = np.full((120, 160, 3), ground, np.uint8)
    y, x = np.mgrid[:120, :160]
    for _ in range(5):
        left, top = random.integers(20, 140), random.integers(20, 100)
        wide, high = random.integers(6, 18, 2)
        inside = ((x - left) / wide) ** 2 + ((y - top) / high) ** 2 < 1
        for band in colours:
            picture[..., band][inside] = random.integers(50, 205)
    return picture


GROUNDS = {
    "things on white": lambda seed: _on_a_ground(seed, 255),
    "things on black": lambda seed: _on_a_ground(seed, 0),
    "green cells on black": lambda seed: _on_a_ground(seed, 0, (1,)),
    "a colour that is full everywhere": lambda seed: np.where(
        [True, False, False], np.uint8(255), np.maximum(_on_a_ground(seed, 90), 1)
    ),
}


@pytest.mark.parametrize("kind", GROUNDS)
def test_pictures_on_white_or_black_are_compared_by_what_is_on_it(kind: str) -> None:
    """Where all that is white or black in both was left out, nothing was left to compare."""
    pictures = [GROUNDS[kind](seed) for seed in range(8)]
    details = np.array([detail_of(one) for one in pictures])
    assert same_picture(details, details).all()
    copies = []
    for one in pictures:
        stream = io.BytesIO()
        image = Image.fromarray(one[3:-3, 4:-4]).resize((130, 96))
        image.save(stream, "JPEG", quality=85, subsampling=0)
        copies.append(detail_of(decode(stream.getvalue())))
    assert same_picture(details, np.array(copies)).mean() >= 0.85
    first, second = np.triu_indices(len(pictures), 1)
    assert not same_picture(details[first], details[second]).any()
