"""Public git repositories with images, in the state in which they are published.

Their folders are rebuilt in small; what is expected is what a person reads out of them.
"""

import sys
from pathlib import Path

import pytest

from graftline.errors import GraftlineError

sys.path.insert(0, str(Path(__file__).parent))

from data_set_files import Files, below, classes, many, read

MASKS = ("with_mask", "without_mask")
CODE: Files = {"README.md": "", "train.py": "", "plot.png": ""}

READ: dict[str, tuple[Files, dict[str, int]]] = {
    "one picture of the documents beside the data": (
        CODE
        | many(below("dataset", *MASKS))
        | {"Screenshots/1.png": "", "app/static/logo.png": ""},
        dict.fromkeys(MASKS, 6),
    ),
    "data in a folder that is called as documents are": (
        {
            **CODE,
            **many(below("src/pkg/data", *MASKS)),
            **many(["doc/images"], each=1),
        },
        dict.fromkeys(MASKS, 6),
    ),
    "data below a folder of any name": (
        CODE
        | many(below("experiments/dest", *MASKS), each=12)
        | many(["classifier/gen/images"], each=2),
        dict.fromkeys(MASKS, 12),
    ),
    "rare patients are no data beside the others": (
        many(below("normal", "p1", "p2", "p3"), "{c}{}.png", 20) | many(["ill/p4"], "{c}{}.png", 3),
        {"normal": 60, "ill": 3},
    ),
}

REFUSED: dict[str, tuple[Files, list[str]]] = {
    "splits in one folder, pictures of the game beside it": (
        CODE
        | many(below("dataset/train|dataset/test", "none", "rock"), each=20)
        | many(["images"]),
        ["dataset holds nearly all images", "/dataset`", "`data.exclude: [images]`"],
    ),
    "pairs below PCBData, figures and tools": (
        CODE
        | many(below("PCBData/group1|PCBData/group2", "a", "b"), "{c}{}_test.jpg", 40)
        | many(["fig"])
        | many(["tools/examples"], each=4),
        ["PCBData holds nearly all images", "/PCBData`", "`data.exclude: [fig, tools]`"],
    ),
    "masks of the same name and another suffix": (
        many(below("MT_Crack|MT_Free", "Imgs"), "e{}.jpg")
        | many(below("MT_Crack|MT_Free", "Imgs"), "e{}.PNG"),
        ["The .png files", '`data.exclude: ["*.PNG"]`', '`data.layout: "class"`'],
    ),
    "whole pictures and what is cut out of them": (
        many(below("data", "images", "crops")) | {"data/annot.csv": "files,text,xmin\na.jpg,b,1"},
        ["The folders images", "rather than what these show"],
    ),
    "all pictures again before they were sorted": (
        many(below("data", "cats", "dogs", "raw_images"), "{c}{}.jpg"),
        ["The folders raw_images", "`data.exclude: [raw_images]`"],
    ),
    "pictures to try the model on": (
        many(below("data", "cats", "dogs", "test"), "{c}{}.jpg"),
        ["The folders test", "`data.exclude: [test]`"],
    ),
    "a class of two pictures": (
        many(["cats", "dogs"]) | many(["cnn_model"], each=2),
        ["Too few images in cnn_model (2)", "`data.exclude: [cnn_model]`"],
    ),
}


@pytest.mark.parametrize("name", READ)
def test_repositories_that_have_one_reading(name: str, tmp_path: Path) -> None:
    files, meant = READ[name]
    entries, _ = read(tmp_path, files)
    assert classes(entries) == meant


@pytest.mark.parametrize("name", REFUSED)
def test_repositories_that_are_asked_about(name: str, tmp_path: Path) -> None:
    files, words = REFUSED[name]
    with pytest.raises(GraftlineError) as error:
        read(tmp_path, files)
    assert all(word in str(error.value) for word in words), error.value


def test_a_line_of_the_error_leaves_the_masks_out(tmp_path: Path) -> None:
    from graftline.data.sources import open_source
    from graftline.data.sources.base import Reading

    files, _ = REFUSED["masks of the same name and another suffix"]
    with pytest.raises(GraftlineError):
        read(tmp_path, files)
    source = open_source(str(tmp_path), reading=Reading(exclude=("*.PNG",)))
    assert classes(source.entries()) == {"MT_Crack": 6, "MT_Free": 6}
    both = open_source(str(tmp_path), reading=Reading(layout="class")).entries()
    assert classes(both) == {"MT_Crack": 12, "MT_Free": 12}
    assert len({one.group for one in both}) == 12, "a picture and its twin are one group"
