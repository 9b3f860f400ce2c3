"""Pictures to judge near-duplicates by: independent ones, planted copies, and scenes.

The pictures have what photographs have: clouds whose power falls with frequency (Field, 1987), and
things with edges. The scenes are what looks alike as a whole and is not the same picture.
"""

import io
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

from graftline.data.snapshot import read_snapshot
from graftline.steps.ingest.step import run

SIZE = (320, 240)
WORDS = ["open", "file", "edit", "view", "help", "save", "print", "close", "name", "date", "size"]


def picture(seed: int, size: tuple[int, int] = SIZE) -> Image.Image:
    """Clouds of colour and a few things; no two seeds alike."""
    rng = np.random.default_rng(seed)
    width, height = size
    frequency = np.hypot(
        np.fft.fftfreq(height)[:, None] * height, np.fft.fftfreq(width)[None] * width
    )
    frequency[0, 0] = 1
    steepness = rng.uniform(1.1, 1.7)
    clouds = []
    for _ in range(3):
        waves = np.fft.fft2(rng.normal(0, 1, (height, width))) / frequency**steepness
        cloud = np.fft.ifft2(waves).real
        clouds.append(cloud / cloud.std())
    mixed = np.stack(clouds, -1) @ (rng.normal(0, 0.5, (3, 3)) + np.eye(3)).T
    pixels = mixed * rng.uniform(25, 50) + rng.uniform(80, 170, 3)
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(rng.integers(1, 9)):
        x, y = rng.uniform(-0.1, 0.9) * width, rng.uniform(-0.1, 0.9) * height
        box = (x, y, x + rng.uniform(0.05, 0.5) * width, y + rng.uniform(0.05, 0.5) * height)
        shape = draw.ellipse if rng.random() < 0.5 else draw.rectangle
        shape(box, fill=_colour(rng))
    return image


def _colour(rng: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in rng.integers(0, 256, 3))
    return red, green, blue


def _cropped(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    left, top, right, bottom = rng.uniform(0.01, 0.05, 4)
    width, height = image.size
    box = (left * width, top * height, width - right * width, height - bottom * height)
    return image.crop(tuple(round(value) for value in box))


def _brighter(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(rng.uniform(1.1, 1.25))


def _resized(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    share = rng.uniform(0.5, 1.5)
    size = (round(image.width * share), round(image.height * share))
    return image.resize(size, Image.Resampling.BICUBIC)


COPIES: Mapping[str, Callable[[Image.Image, np.random.Generator], tuple[Image.Image, int]]] = {
    "re-encoded": lambda image, rng: (image, int(rng.integers(50, 80))),
    "resized": lambda image, rng: (_resized(image, rng), 90),
    "slightly cropped": lambda image, rng: (_cropped(image, rng), 90),
    "brighter": lambda image, rng: (_brighter(image, rng), 90),
    "blurred": lambda image, rng: (
        image.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 1.5))),
        90,
    ),
}


def _noisy(image: Image.Image, rng: np.random.Generator, sigma: float) -> Image.Image:
    pixels = np.asarray(image) + rng.normal(0, sigma, (image.height, image.width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def fixed_camera(count: int) -> Iterator[Image.Image]:
    """One view, a little lighter or darker, with one thing in it that is always another."""
    rng = np.random.default_rng(1)
    view = picture(10**6)
    for _ in range(count):
        frame = view.copy()
        side = int(rng.integers(16, 60))
        x, y = (int(rng.integers(0, limit - side)) for limit in SIZE)
        box = (x, y, x + side, y + side)
        draw = ImageDraw.Draw(frame)
        (draw.ellipse if rng.random() < 0.5 else draw.rectangle)(box, fill=_colour(rng))
        yield _noisy(ImageEnhance.Brightness(frame).enhance(rng.uniform(0.95, 1.05)), rng, 2)


def surface(count: int) -> Iterator[Image.Image]:
    """Pieces of one material, half of them with a scratch."""
    rng = np.random.default_rng(2)
    for number in range(count):
        fine = rng.normal(0, 10, (256, 256, 1))
        coarse = rng.normal(0, 5, (64, 64, 1)).repeat(4, 0).repeat(4, 1)
        pixels = (128 + fine + coarse).repeat(3, 2).clip(0, 255).astype(np.uint8)
        image = Image.fromarray(pixels)
        if number % 2:
            x, y = (int(value) for value in rng.integers(20, 190, 2))
            end = (x + 45, y + int(rng.integers(-15, 15)))
            ImageDraw.Draw(image).line((x, y, *end), fill=(60, 60, 60), width=2)
        yield image


def screenshots(count: int) -> Iterator[Image.Image]:
    """One program's window with other text in it."""
    rng = np.random.default_rng(3)
    for _ in range(count):
        image = Image.new("RGB", SIZE, (245, 245, 245))
        draw = ImageDraw.Draw(image)
        draw.rectangle((0, 0, SIZE[0], 24), fill=(40, 60, 120))
        draw.rectangle((0, 24, 60, SIZE[1]), fill=(220, 220, 228))
        for line in range(8):
            draw.text((6, 34 + 24 * line), WORDS[line], fill=(60, 60, 60))
        for line in range(12):
            text = " ".join(rng.choice(WORDS, int(rng.integers(2, 8))))
            draw.text((70, 34 + 16 * line), text, fill=(20, 20, 20))
        yield image


def cells(count: int) -> Iterator[Image.Image]:
    """A bright field with cells in other places."""
    rng = np.random.default_rng(4)
    for number in range(count):
        image = Image.new("RGB", (160, 160), (225, 200, 215))
        draw = ImageDraw.Draw(image)
        for _ in range(int(rng.integers(6, 14))):
            x, y = (int(value) for value in rng.integers(0, 160, 2))
            radius = int(rng.integers(6, 12))
            body = (190, 90, 140) if number % 2 else (170, 120, 160)
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=body)
            core = radius // 2
            draw.ellipse((x - core, y - core, x + core, y + core), fill=(110, 50, 120))
        yield _noisy(image.filter(ImageFilter.GaussianBlur(1)), rng, 3)


SCENES = {
    "fixed camera": fixed_camera,
    "textured surface": surface,
    "screenshots": screenshots,
    "cells": cells,
}


def _jpeg(image: Image.Image, quality: int = 90) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def _groups(files: Mapping[str, bytes]) -> dict[str, str]:
    """The group of each file after an ingest of them all, in two classes.

    Two neighbours are in one class: a picture and its copy under two labels would stop the run.
    """
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, data) in enumerate(files.items()):
            path = Path(folder, "images", "ab"[number // 2 % 2], name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        snapshot = Path(folder, "snapshot")
        run(source=f"{folder}/images", store=f"{folder}/store", snapshot_folder=snapshot)
        rows = read_snapshot(snapshot).manifest.select(["source", "group"]).to_pylist()
    return {row["source"].partition("/")[2]: row["group"] for row in rows}


def _share_in_groups(groups: Mapping[str, str]) -> float:
    sizes = Counter(groups.values())
    return sum(sizes[group] > 1 for group in groups.values()) / len(groups)


def recall(count: int) -> dict[str, float]:
    """For each kind of copy, the share that is in the group of its original.

    Each kind is planted among other pictures by itself: what is grouped is what was compared.
    """
    shares = {}
    for kind, change in COPIES.items():
        rng = np.random.default_rng(5)
        files = {}
        for number in range(count):
            original = picture(number)
            copy, quality = change(original, rng)
            files[f"{number}.jpg"] = _jpeg(original)
            files[f"{number} copy.jpg"] = _jpeg(copy, quality)
        groups = _groups(files)
        # A copy that was saved with equal bytes is rejected as such: it has no group, and is found.
        pairs = [(groups.get(f"{n}.jpg"), groups.get(f"{n} copy.jpg")) for n in range(count)]
        hits = sum(None in pair or pair[0] == pair[1] for pair in pairs)
        shares[kind] = hits / count
    return shares


def false_groups(pictures: int, scene: int) -> dict[str, float]:
    """The share of images in a group with another one, where no two are the same picture."""
    independent = {f"{n}.jpg": _jpeg(picture(10**5 + n, (160, 120))) for n in range(pictures)}
    shares = {"independent pictures": _share_in_groups(_groups(independent))}
    for name, images in SCENES.items():
        files = {f"{n}.jpg": _jpeg(image) for n, image in enumerate(images(scene))}
        shares[name] = _share_in_groups(_groups(files))
    return shares
