"""Labelled images unlike ImageNet, as folders: digits, rendered glyphs, drawings."""

import os
import random
import shutil
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

FONTS = Path(os.environ.get("FONTS", "/usr/share/fonts"))
CLIPART = Path(os.environ.get("OPENCLIPART", "/usr/share/openclipart/png"))
GLYPHS = "ABCDEFGHKMNPRSTXYZ2345789&"
LARGEST = 12  # of openclipart's categories
SIDE = 64


def digits(folder: Path, most: int) -> Path:
    """scikit-learn's handwritten digits, 8 x 8."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    for number, (image, label) in enumerate(zip(bunch.images, bunch.target, strict=True)):
        if number < most:
            path = _path(folder, str(label), number)
            Image.fromarray(np.round(image * (255 / 16)).astype(np.uint8)).save(path)
    return folder


def glyphs(folder: Path, most: int) -> Path:
    """Characters in every font of this machine that has them, turned and shifted a little."""
    found = sorted(path for kind in ("*.ttf", "*.otf", "*.t1") for path in FONTS.rglob(kind))
    fonts = [path for path in found if _has_letters(path)]
    draw = random.Random(0)
    draw.shuffle(fonts)
    each = max(1, most // len(GLYPHS))
    for label in GLYPHS:
        for number in range(each):
            font = ImageFont.truetype(str(fonts[number % len(fonts)]), draw.randint(28, 44))
            image = Image.new("L", (SIDE, SIDE), draw.randint(180, 255))
            place = SIDE / 2 + draw.uniform(-8, 8), SIDE / 2 + draw.uniform(-8, 8)
            ink = draw.randint(0, 90)
            ImageDraw.Draw(image).text(place, label, font=font, fill=ink, anchor="mm")
            image = image.rotate(draw.uniform(-12, 12), Image.Resampling.BILINEAR, fillcolor=220)
            noise = np.random.default_rng(number).normal(0, 12, (SIDE, SIDE))
            pixels = np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8)
            name = "and" if label == "&" else label
            Image.fromarray(pixels).save(_path(folder, name, number))
    return folder


def clipart(folder: Path, most: int) -> Path:
    """The twelve largest categories of Debian's openclipart-png, as they are drawn."""
    if not CLIPART.exists():
        raise SystemExit(f"{CLIPART} is not there: apt-get install openclipart-png")
    found = {path.name: sorted(path.rglob("*.png")) for path in CLIPART.iterdir() if path.is_dir()}
    largest = sorted(found, key=lambda name: -len(found[name]))[:LARGEST]
    draw = random.Random(0)
    for name in largest:
        draw.shuffle(found[name])
        for number, path in enumerate(found[name][: most // LARGEST]):
            shutil.copyfile(path, _path(folder, name, number))
    return folder


def _has_letters(path: Path) -> bool:
    """Not a font of pictures in fixed sizes, nor one that draws a box for every Latin letter."""
    try:
        font = ImageFont.truetype(str(path), 40)
    except OSError:
        return False
    return bytes(font.getmask("A")) != bytes(font.getmask("g"))


SETS = {"digits": digits, "glyphs": glyphs, "openclipart": clipart}


def _path(folder: Path, label: str, number: int) -> Path:
    path = folder / label / f"{number:05}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
