"""Images that are made from one picture, by their names: one group, so that none leaks."""

import sys
from collections import defaultdict
from pathlib import Path

import pytest

from graftline.data.sources.base import Entry
from graftline.data.sources.layouts.variant_names import variants

sys.path.insert(0, str(Path(__file__).parent))

from data_set_files import Files, classes, read

PETS = ("cat", "dog")


def ends(*names: str, count: int = 9, form: str = "{c}/{n:03}{end}.png") -> Files:
    return {form.format(c=c, n=n, end=end): "" for c in PETS for n in range(count) for end in names}


def together(entries: list[Entry]) -> dict[str, set[str]]:
    groups: dict[str, set[str]] = defaultdict(set)
    for one in entries:
        if one.group is not None:
            groups[one.group].add(one.path)
    return groups


ONE_PICTURE = {
    "turned": ends("_r0", "_r90", "_r180", "_r270"),
    "turned, with the picture": ends("", "_rot90", "_rotated_180"),
    "mirrored": ends("", "_flip", "_hflip", "-mirrored"),
    "augmented": ends("", "_aug1", "_aug2", "_augmented"),
    "twice": ends("", "_hflip_rot90", "_blur"),
    "bands": ends("_B02", "_B03", "_B8A"),
    "eyes": ends("_left", "_right"),
    "eyes, short": ends("_L", "_R"),
    "a disaster": ends("_pre_disaster", "_post_disaster"),
    "channels": ends("_ch1", "_ch2"),
    "Roboflow": {
        f"{c}/img{n}_jpg.rf.{n * 7919 + k * 104729 + len(c) * 2**28 + ord(c[0]):08x}.jpg": ""
        for c in PETS
        for n in range(9)
        for k in range(3)
    },
}


@pytest.mark.parametrize("name", ONE_PICTURE)
def test_images_of_one_picture_are_one_group(name: str, tmp_path: Path) -> None:
    files = ONE_PICTURE[name]
    entries, source = read(tmp_path, files)
    assert set(classes(entries)) == set(PETS)
    groups = together(entries)
    assert len(groups) == 18 and set().union(*groups.values()) == files.keys()
    for paths in groups.values():  # the same number, and the same class
        assert len({(p.split("/")[0], p.split("/")[1][:4].strip("_-.j")) for p in paths}) == 1
    assert any("one picture by their names" in note for note in source.notes)


NO_GROUPS = {
    "numbers": ends("_1", "_2", "_3"),
    "one side each": {
        f"{c}/{n}_{'left' if n % 2 else 'right'}.jpg": "" for c in PETS for n in range(9)
    },
    "words": ends("_sitting", "_standing"),
    "no ends": ends(""),
}


@pytest.mark.parametrize("name", NO_GROUPS)
def test_other_ends_say_nothing(name: str, tmp_path: Path) -> None:
    entries, _ = read(tmp_path, NO_GROUPS[name])
    assert not together(entries)


def images(*paths: str) -> list[Entry]:
    return [Entry(path, "", 0, split=path.partition("/")[0]) for path in paths]


def test_names_count_in_all_folders_where_each_is_there_once() -> None:
    """The two eyes of a patient may be of two grades; 0_left of two classes is of two patients."""
    eyes = [f"all/{(n + k) % 2}/{n}_{e}.jpg" for n in range(4) for k, e in enumerate("LR")]
    assert len(set(variants(images(*eyes)).values())) == 4
    twice = [f"all/{c}/{n}_{e}.jpg" for c in PETS for n in range(4) for e in "LR"]
    assert len(set(variants(images(*twice)).values())) == 8


def test_names_count_within_a_split() -> None:
    """train/1.jpg and test/1_flip.jpg have nothing in common: each split counts from 1."""
    paths = [
        f"{s}/cat/{n}{e}.jpg" for s in ("train", "test") for n in range(3) for e in ("", "_flip")
    ]
    found = variants(images(*paths))
    assert len(set(found.values())) == 6 and len(found) == 12


def test_views_and_what_is_made_from_them_are_one_group() -> None:
    ends_of = ("_left", "_left_flip", "_right", "_right_rot90")
    found = variants(images(*(f"all/cat/{n}{e}.png" for n in range(3) for e in ends_of)))
    assert len(set(found.values())) == 3 and len(found) == 12


@pytest.mark.parametrize(
    ("picture", "masks"),
    [
        ("_rgb", ("_mask",)),
        ("_rgb", ("_depth",)),
        ("_crop", ("_depthcrop", "_maskcrop")),
        ("", ("_mask", "_seg")),
        ("_image", ("_gt",)),
    ],
)
def test_masks_beside_a_picture_are_no_pictures(
    picture: str, masks: tuple[str, ...], tmp_path: Path
) -> None:
    entries, _ = read(tmp_path, ends(picture, *masks))
    assert classes(entries) == dict.fromkeys(PETS, 9)
    kept = {one.path for one in entries if one.problem is None}
    assert all(path.endswith(f"{picture}.png") for path in kept)


def test_instances_below_a_class_are_groups(tmp_path: Path) -> None:
    files = {
        f"{c}/{c}_{k}/{c}_{k}_{n}.png": "" for c in PETS for k in range(1, 4) for n in range(4)
    }
    entries, source = read(tmp_path, files)
    assert source.layout is not None and source.layout.text == "class/group"
    assert classes(entries) == dict.fromkeys(PETS, 12) and len(together(entries)) == 6


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ("patient{k:02}_{n}.png", True),
        ("{c}_video{k}_frame{n}.jpg", True),
        ("{k}-{n}.jpg", False),
        ("IMG_{k}{n}.jpg", False),
    ],
)
def test_names_of_patients_and_videos_are_said(form: str, said: bool, tmp_path: Path) -> None:
    files = {
        f"{c}/{form.format(c=c, k=k, n=n)}": "" for c in PETS for k in range(4) for n in range(5)
    }
    _, source = read(tmp_path, files)
    assert any("name patients, videos" in note for note in source.notes) == said
