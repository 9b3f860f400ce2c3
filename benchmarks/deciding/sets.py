"""Labelled images: drawings from Debian's packages, photographs of public git repositories.

Each builder gives labelled pictures; :func:`write` draws a split and writes the table that
Graftline reads. The packages are named in :data:`PACKAGES`; ``root`` is where they are unpacked.
Repositories (``photographs.py``) are cloned for the time that this takes.
"""

import csv
import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from deciding.photographs import REPOSITORIES, Labelled, download

PACKAGES = (
    "faenza-icon-theme",
    "fonts-adf-accanthis",
    "fonts-adf-baskervald",
    "fonts-adf-berenis",
    "fonts-adf-gillius",
    "fonts-adf-ikarius",
    "fonts-adf-irianis",
    "fonts-adf-libris",
    "fonts-adf-mekanus",
    "fonts-adf-romande",
    "fonts-adf-solothurn",
    "fonts-adf-switzera",
    "fonts-adf-tribun",
    "fonts-adf-universalis",
    "fonts-adf-verana",
    "fonts-cabin",
    "fonts-cantarell",
    "fonts-croscore",
    "fonts-dejavu-core",
    "fonts-dejavu-extra",
    "fonts-ebgaramond",
    "fonts-firacode",
    "fonts-freefont-ttf",
    "fonts-hack",
    "fonts-lato",
    "fonts-liberation",
    "fonts-linuxlibertine",
    "fonts-noto-color-emoji",
    "fonts-noto-core",
    "fonts-open-sans",
    "fonts-quicksand",
    "fonts-roboto-unhinted",
    "fonts-texgyre",
    "fonts-urw-base35",
    "gnome-icon-theme",
    "lomiri-wallpapers-16.04",
    "openclipart-png",
    "oxygen-icon-theme",
    "tango-icon-theme",
    "tuxpaint-stamps-default",
    "unicode-data",
    "wesnoth-1.16-data",
)
SIDE = 96
QUALITY = 80  # of WebP
STORED = 72  # pixels of the longer side: the network sees 64
LARGEST = 25_000_000  # pixels; a few drawings are posters
SMALL, DRAWS = 80, 3  # training images up to which a row is drawn several times
TEST = 500  # images at most, so that a difference of two models is known to about a point
CHARACTERS = "ABCDEFGHKMNPRSTXYZ2345789"
SMALL_LETTERS = "abdefghmnqrt"
Image.MAX_IMAGE_PIXELS = None  # the size is looked at before a picture is decoded
# One letter block of each script, in fonts of fonts-noto-core.
SCRIPTS = {
    "arabic": ("NotoNaskhArabic", 0x0628, 0x064A),
    "armenian": ("NotoSansArmenian", 0x0531, 0x0586),
    "bengali": ("NotoSansBengali", 0x0985, 0x09B9),
    "cherokee": ("NotoSansCherokee", 0x13A0, 0x13F4),
    "devanagari": ("NotoSansDevanagari", 0x0905, 0x0939),
    "ethiopic": ("NotoSansEthiopic", 0x1208, 0x1356),
    "georgian": ("NotoSansGeorgian", 0x10D0, 0x10F0),
    "gujarati": ("NotoSansGujarati", 0x0A85, 0x0AB9),
    "hebrew": ("NotoSansHebrew", 0x05D0, 0x05EA),
    "khmer": ("NotoSansKhmer", 0x1780, 0x17B3),
    "lao": ("NotoSansLao", 0x0E81, 0x0EAE),
    "malayalam": ("NotoSansMalayalam", 0x0D05, 0x0D39),
    "sinhala": ("NotoSansSinhala", 0x0D85, 0x0DC6),
    "tamil": ("NotoSansTamil", 0x0B85, 0x0BB9),
    "telugu": ("NotoSansTelugu", 0x0C05, 0x0C39),
    "thai": ("NotoSansThai", 0x0E01, 0x0E2E),
}
CONTEXTS = ("actions", "apps", "categories", "devices", "emblems", "mimetypes", "places", "status")
# Of a unit in motion; what is left shows it standing.
FRAME = re.compile(
    r"attack|defen|idle|ranged|melee|stand|run|fly|die|death|magic|[0-9]|-[ns][ew]?[-.]"
)

Builder = Callable[[Path], Labelled]


@dataclass(frozen=True)
class DataSet:
    """A data set and how many training images it is cut to.

    Attributes:
        build: Gives labelled pictures from the folder of unpacked packages.
        half: ``fit`` where the forecast is fitted on it, ``measure`` where it is judged on it.
        sizes: Training images; validation gets a fifth of that on top, tests as many as are left.
    """

    build: Builder
    half: str
    sizes: tuple[int, ...]


def digits(_: Path) -> Labelled:
    """scikit-learn's handwritten digits."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    scaled = np.round(bunch.images * (255 / 16)).astype(np.uint8)
    return [(str(y), Image.fromarray(x)) for x, y in zip(scaled, bunch.target, strict=True)]


def glyphs(root: Path) -> Labelled:
    """Characters in all fonts that draw them, turned and shifted a little."""
    fonts = [font for family in _families(root).values() for font in family]
    return _drawn([(c, c, font) for c in CHARACTERS for font in fonts], most=260)


def typefaces(root: Path) -> Labelled:
    """Which font family a letter is drawn in."""
    families = sorted(_families(root).items(), key=lambda pair: (-len(pair[1]), pair[0]))[:20]
    letters = CHARACTERS + SMALL_LETTERS
    wanted = [(name, c, font) for name, fonts in families for font in fonts for c in letters]
    return _drawn(wanted, most=140)


def scripts(root: Path) -> Labelled:
    """Which writing system a letter belongs to."""
    wanted = []
    for label, (family, first, last) in SCRIPTS.items():
        fonts = sorted(_fonts(root).rglob(f"{family}-*.ttf"))
        wanted += [(label, chr(code), font) for code in range(first, last + 1) for font in fonts]
    return _drawn(wanted, most=140)


def emoji(root: Path) -> Labelled:
    """The group that Unicode puts an emoji into."""
    font = ImageFont.truetype(str(next(_fonts(root).rglob("NotoColorEmoji.ttf"))), 109)
    group, found = "", list[tuple[str, Image.Image | Path]]()
    for line in (_share(root) / "unicode/emoji/emoji-test.txt").read_text("utf-8").splitlines():
        if line.startswith("# group:"):
            group = line.removeprefix("# group:").strip()
        elif "; fully-qualified" in line and "skin tone" not in line:
            text = "".join(chr(int(code, 16)) for code in line.split(";")[0].split())
            image = Image.new("RGB", (136, 128), "white")
            ImageDraw.Draw(image).text((0, 0), text, font=font, embedded_color=True)
            found.append((group.replace(" ", ""), image.resize((SIDE, SIDE))))
    return found


def icon_context(root: Path) -> Labelled:
    """What an icon is for, in the Oxygen and GNOME themes."""
    themes = {"oxygen/base/64x64": "", "gnome/48x48": ""}
    return [
        (context, path)
        for theme in themes
        for context in CONTEXTS
        for path in _pictures(_share(root) / "icons" / theme / context)
    ]


def icon_theme(root: Path) -> Labelled:
    """Which theme an icon is drawn for."""
    folders = {
        "oxygen": "oxygen/base/48x48",
        "gnome": "gnome/48x48",
        "tango": "Tango/32x32",
        "faenza": "Faenza/apps/48",
    }
    return [
        (label, path)
        for label, folder in folders.items()
        for path in _pictures(_share(root) / "icons" / folder)
    ]


def clipart(root: Path) -> Labelled:
    """The twelve largest categories of Open Clip Art."""
    return _largest(_share(root) / "openclipart/png", 12)


def stamps(root: Path) -> Labelled:
    """Tux Paint's stamps by subject: photographs and drawings."""
    return _largest(_share(root) / "tuxpaint/stamps", 10)


def terrain(root: Path) -> Labelled:
    """The ground that a tile of Battle for Wesnoth shows: grass, water, a castle..."""
    return _largest(_wesnoth(root) / "terrain", 12)


def units(root: Path) -> Labelled:
    """The people that a unit of Battle for Wesnoth belongs to, standing still."""
    found = _largest(_wesnoth(root) / "units", 12)
    return [(x, p) for x, p in found if isinstance(p, Path) and not FRAME.search(p.name)]


def unit_frames(root: Path) -> Labelled:
    """The same units in all phases of their movements: many pictures are alike."""
    return _largest(_wesnoth(root) / "units", 12)


def patches(root: Path) -> Labelled:
    """Which of twelve photographs a patch was cut from."""
    draw, found = random.Random(0), list[tuple[str, Image.Image | Path]]()
    photographs = _pictures(_share(root) / "backgrounds", (".jpg",))[:12]
    for path in photographs:
        whole = Image.open(path).convert("RGB")
        whole.thumbnail((1600, 1600))
        for _ in range(120):
            x, y = draw.randrange(whole.width - SIDE), draw.randrange(whole.height - SIDE)
            found.append((path.stem, whole.crop((x, y, x + SIDE, y + SIDE))))
    return found


# The halves alternate within each kind (glyphs, icons, game art, photographs); fixed before
# anything was measured.
SETS = {
    "digits": DataSet(digits, "measure", (80, 320, 640, 1080)),
    "glyphs": DataSet(glyphs, "fit", (80, 320, 640, 1800)),
    "typefaces": DataSet(typefaces, "measure", (80, 320, 640, 1800)),
    "scripts": DataSet(scripts, "fit", (80, 320, 640)),
    "emoji": DataSet(emoji, "measure", (80, 320, 640)),
    "icon_context": DataSet(icon_context, "fit", (80, 320)),
    "icon_theme": DataSet(icon_theme, "measure", (20, 80, 320, 640)),
    "clipart": DataSet(clipart, "measure", (80, 320, 640, 1600)),
    "stamps": DataSet(stamps, "fit", (20, 80, 320)),
    "terrain": DataSet(terrain, "fit", (80, 320, 640, 1600)),
    "units": DataSet(units, "measure", (60, 180)),
    "unit_frames": DataSet(unit_frames, "fit", (80, 320, 640, 1600)),
    "patches": DataSet(patches, "measure", (80, 320, 640)),
}
# Photographs came later. Their halves alternate by name, the first one judges; fixed before
# anything was measured on them.
LARGE = ("brains", "cifar10", "clothing", "flowers", "scenes")
SETS |= {
    name: DataSet(
        REPOSITORIES[name].labelled,
        ("measure", "fit")[number % 2],
        (80, 320, 640, 1600) if name in LARGE else (80, 320, 640),
    )
    for number, name in enumerate(sorted(REPOSITORIES))
}


def write(name: str, root: Path, folder: Path) -> None:
    """Write the pictures that the cuts of a data set need, small, with ``all.csv``; once."""
    table = folder / "all.csv"
    if table.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="clone-") as clone:
        if name in REPOSITORIES:
            root = Path(clone)
            download(REPOSITORIES[name], root)
        rows = _shrunken(SETS[name].build(root), max(SETS[name].sizes), folder)
    _save(table, [("image", "label"), *rows])


def _shrunken(found: Labelled, largest: int, folder: Path) -> list[tuple[str, str]]:
    """Write as many pictures as the cuts need, drawn at random; file and label of each."""
    random.Random(2).shuffle(found)
    rows = list[tuple[str, str]]()
    for label, picture in found:
        image = Image.open(picture) if isinstance(picture, Path) else picture
        if image.width * image.height > LARGEST:
            continue
        path = f"{len(rows):04}.webp"
        _on_white(image).save(folder / path, quality=QUALITY, method=6)
        rows.append((path, label))
        if len(rows) == TEST + largest + validation_images(largest):
            break
    return rows


def validation_images(size: int) -> int:
    """How many images validate a training on so many."""
    return max(20, size // 5)


@dataclass(frozen=True)
class Cut:
    """A data set cut to a size, once with these training images and once with others.

    Attributes:
        set: The data set.
        half: Its half.
        size: Training images.
        draw: Which draw of them.
        table: Images, labels and splits.
    """

    set: str
    half: str
    size: int
    draw: int
    table: Path


def draws(size: int) -> int:
    """How often so few training images are drawn: one draw says little of what others would do."""
    return DRAWS if size <= SMALL else 1


def cut(name: str, folder: Path, size: int, draw: int) -> Cut:
    """So many training images, a fifth of that to validate, the rest to test.

    Of the first draw a smaller cut is part of a larger one. All cuts of a set have the same test
    images.
    """
    with (folder / "all.csv").open(newline="") as file:
        rows = [(row["image"], row["label"]) for row in csv.DictReader(file)]
    random.Random(1).shuffle(rows)
    test = min(TEST, len(rows) // 3)
    held, others = [(*row, "test") for row in rows[:test]], rows[test:]
    if draw:
        random.Random(100 + draw).shuffle(others)
    train, val = _balanced(others, size), validation_images(size)
    left = [row for row in others if row not in set(train)]
    chosen = [(*row, "train") for row in train] + [(*row, "val") for row in left[:val]]
    table = folder / f"cut-{size}-{draw}.csv"
    _save(table, [("image", "label", "split"), *chosen, *held])
    return Cut(name, SETS[name].half, size, draw, table)


def _balanced(rows: list[tuple[str, str]], size: int) -> list[tuple[str, str]]:
    """The first ``size`` rows, after two of each class so that every class can be learned."""
    seen: dict[str, int] = defaultdict(int)
    first, later = list[tuple[str, str]](), list[tuple[str, str]]()
    for row in rows:
        seen[row[1]] += 1
        (first if seen[row[1]] <= 2 else later).append(row)
    return (first + later)[: max(size, len(first))]


def _save(path: Path, rows: Iterable[tuple[str, ...]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def _on_white(image: Image.Image) -> Image.Image:
    whole = image.convert("RGBA")
    whole.thumbnail((STORED, STORED))
    paper = Image.new("RGBA", whole.size, "white")
    return Image.alpha_composite(paper, whole).convert("RGB")


def _drawn(wanted: list[tuple[str, str, Path]], *, most: int) -> Labelled:
    """Letters on grey, at most so many of a label; fonts without the letter are left out."""
    draw = random.Random(0)
    draw.shuffle(wanted)
    counts: dict[str, int] = defaultdict(int)
    found = list[tuple[str, Image.Image | Path]]()
    for label, text, path in wanted:
        if counts[label] >= most:
            continue
        font = ImageFont.truetype(str(path), draw.randint(36, 56))
        image = Image.new("L", (SIDE, SIDE), draw.randint(180, 255))
        middle = SIDE / 2 + draw.uniform(-12, 12), SIDE / 2 + draw.uniform(-12, 12)
        before = image.tobytes()
        ImageDraw.Draw(image).text(middle, text, font=font, fill=draw.randint(0, 90), anchor="mm")
        if image.tobytes() == before:
            continue
        image = image.rotate(draw.uniform(-12, 12), Image.Resampling.BILINEAR, fillcolor=220)
        found.append((label, image))
        counts[label] += 1
    return found


def _families(root: Path) -> dict[str, list[Path]]:
    """Fonts with Latin letters, by family."""
    found: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(p for kind in ("*.ttf", "*.otf") for p in _fonts(root).rglob(kind)):
        if path.name.startswith("Noto"):  # one family for each script, and the emoji
            continue
        font = ImageFont.truetype(str(path), 40)
        if bytes(font.getmask("A")) != bytes(font.getmask("g")):  # not a font of symbols
            found[re.sub(r"[^a-z0-9]", "", font.getname()[0].lower())].append(path)  # type: ignore[union-attr]
    return found


def _largest(folder: Path, most: int) -> Labelled:
    """Pictures of the folders with most of them, labelled by folder."""
    inside = {path.name: _pictures(path) for path in folder.iterdir() if path.is_dir()}
    names = sorted(inside, key=lambda name: (-len(inside[name]), name))[:most]
    return [(name, path) for name in names for path in inside[name] if inside[name]]


def _pictures(folder: Path, kinds: tuple[str, ...] = (".png",)) -> list[Path]:
    if not folder.exists():
        raise SystemExit(f"{folder} is not there: apt-get install {' '.join(PACKAGES)}")
    found = [p for p in folder.rglob("*") if p.suffix in kinds and p.is_file()]
    return sorted(p for p in found if not p.is_symlink())


def _share(root: Path) -> Path:
    return root / "usr/share"


def _fonts(root: Path) -> Path:
    return _share(root) / "fonts"


def _wesnoth(root: Path) -> Path:
    return next((_share(root) / "games/wesnoth").glob("*/data/core/images"))
