"""Exports of annotation tools in which each image has one class: read; boxes are refused."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from graftline.data.sources.base import Columns
from graftline.errors import GraftlineError

sys.path.insert(0, str(Path(__file__).parent))

from data_set_files import Files, classes, read, table

PETS = ("cat", "dog", "bird")
FLAT: Files = {f"images/{n}.jpg": "" for n in range(12)}
KINDS = dict.fromkeys(PETS, 4)


def lab(n: int) -> str:
    return PETS[n % 3]


def task(image: str, *results: dict[str, Any], cancelled: bool = False) -> dict[str, Any]:
    return {
        "id": 7,
        "data": {"image": image},
        "annotations": [{"result": list(results), "was_cancelled": cancelled}],
    }


def choice(*names: str, question: str = "animal") -> dict[str, Any]:
    return {"type": "choices", "from_name": question, "value": {"choices": list(names)}}


def studio(path: str, *, extra: tuple[dict[str, Any], ...] = ()) -> str:
    return json.dumps([task(path.format(n=n), choice(lab(n)), *extra) for n in range(12)])


def via(**more: Any) -> dict[str, Any]:
    return {
        f"{n}.jpg{n}": {
            "filename": f"{n}.jpg",
            "size": n,
            "regions": [],
            "file_attributes": {"kind": lab(n)},
            **more,
        }
        for n in range(12)
    }


def cvat(inside: str = '<tag label="{c}" source="manual"></tag>') -> str:
    images = (
        f'<image id="{n}" name="{n}.jpg" width="9" height="9">{inside.format(c=lab(n))}</image>'
        for n in range(12)
    )
    return f"<annotations><version>1.1</version>{''.join(images)}</annotations>"


VIA_HEAD = (
    "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,"
    "region_attributes"
)
VIA_ROWS = "\n".join(
    f'{n}.jpg,{n},"{{""kind"":""{lab(n)}""}}",0,0,"{{}}","{{}}"' for n in range(12)
)
UPLOADS: Files = {f"images/1a2b3c4d-p{n}.jpg": "" for n in range(12)}
MANIFEST = [
    {
        "source-ref": f"s3://their-bucket/images/{n}.jpg",
        "pets": n % 3,
        "pets-metadata": {"class-name": lab(n), "type": "groundtruth/image-classification"},
    }
    for n in range(12)
]

READ: dict[str, Files] = {
    "Label Studio": FLAT | {"p.json": studio("/data/upload/1/{n}.jpg")},
    "Label Studio, its own names": UPLOADS | {"p.json": studio("/data/upload/1/1a2b3c4d-p{n}.jpg")},
    "Label Studio, the names before": {f"images/p{n}.jpg": "" for n in range(12)}
    | {"p.json": studio("/data/upload/1/1a2b3c4d-p{n}.jpg")},
    "Label Studio, files of the server": FLAT
    | {"p.json": studio("/data/local-files/?d=images%2F{n}.jpg")},
    "VIA": FLAT | {"via.json": json.dumps(via())},
    "VIA, a project": FLAT | {"via.json": json.dumps({"_via_img_metadata": via()})},
    "VIA, check boxes": FLAT
    | {
        "via.json": json.dumps(
            {
                k: v | {"file_attributes": {"kind": {v["file_attributes"]["kind"]: True}}}
                for k, v in via().items()
            }
        )
    },
    "VIA, CSV": FLAT | {"via.csv": f"{VIA_HEAD}\n{VIA_ROWS}"},
    "CreateML": FLAT
    | {"a.json": json.dumps([{"image": f"{n}.jpg", "annotation": lab(n)} for n in range(12)])},
    "CreateML, a list": FLAT
    | {
        "a.json": json.dumps(
            [{"image": f"{n}.jpg", "annotations": [{"label": lab(n)}]} for n in range(12)]
        )
    },
    "CVAT": FLAT | {"annotations.xml": cvat()},
    "SageMaker": FLAT | {"output.manifest": "\n".join(map(json.dumps, MANIFEST))},
    "FiftyOne": FLAT
    | {"labels.json": json.dumps({"classes": PETS, "labels": {str(n): n % 3 for n in range(12)}})},
}


@pytest.mark.parametrize("name", READ)
def test_classes_of_whole_images_are_read(name: str, tmp_path: Path) -> None:
    entries, _ = read(tmp_path, READ[name])
    assert classes(entries) == KINDS
    numbers = {
        one.path: int(one.path.rpartition("/")[2].split("-")[-1].strip("p.jg"))
        for one in entries
        if one.label
    }
    assert all(one.label == lab(numbers[one.path]) for one in entries if one.label)


LINES = "\n".join(f"/data/upload/1/{n}.jpg,{n},{lab(n)},1" for n in range(12))
NAMED: dict[str, Files] = {
    "JSON-MIN": FLAT
    | {
        "p.json": json.dumps(
            [{"id": n, "image": f"/data/upload/1/{n}.jpg", "choice": lab(n)} for n in range(12)]
        )
    },
    "CSV": FLAT | {"p.csv": f"image,id,choice,annotator\n{LINES}"},
    "two questions": FLAT
    | {"p.json": studio("/data/upload/1/{n}.jpg", extra=(choice("a", question="choice"),))},
}


@pytest.mark.parametrize("name", ["JSON-MIN", "CSV"])
def test_a_column_of_another_name_is_named_and_then_read(name: str, tmp_path: Path) -> None:
    with pytest.raises(GraftlineError, match=r"`data\.label_column: choice`"):
        read(tmp_path, NAMED[name])
    assert classes(read(tmp_path, {}, Columns(label="choice"))[0]) == KINDS


BOX = {"type": "rectanglelabels", "value": {"x": 1, "rectanglelabels": ["cat"]}}
REFUSED: dict[str, tuple[Files, str]] = {
    "Label Studio, boxes": (
        FLAT | {"p.json": studio("/data/upload/1/{n}.jpg", extra=(BOX,))},
        "p.json",
    ),
    "VIA, regions": (
        FLAT | {"via.json": json.dumps(via(regions=[{"shape_attributes": {}}]))},
        "via.json",
    ),
    "CVAT, boxes": (FLAT | {"a.xml": cvat('<tag label="{c}"/><box label="x" xtl="1"/>')}, "a.xml"),
    "CVAT, entities": (FLAT | {"a.xml": '<!DOCTYPE a [<!ENTITY x "y">]>' + cvat()}, "a.xml"),
    "CreateML, boxes": (
        FLAT
        | {
            "_annotations.createml.json": json.dumps(
                [
                    {"image": f"{n}.jpg", "annotations": [{"label": lab(n), "coordinates": {}}]}
                    for n in range(12)
                ]
            )
        },
        "boxes around objects",
    ),
    "a manifest without classes": (
        FLAT
        | {
            "o.manifest": "\n".join(
                json.dumps({"source-ref": f"s3://b/{n}.jpg"}) for n in range(12)
            )
        },
        "o.manifest",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_labels_parts_of_images_is_refused_by_name(name: str, tmp_path: Path) -> None:
    files, word = REFUSED[name]
    with pytest.raises(GraftlineError) as error:
        read(tmp_path, files)
    assert word in str(error.value)


def test_what_two_people_say_differently_is_rejected(tmp_path: Path) -> None:
    """So is an image with two choices; one that was skipped has no label."""
    tasks = [task(f"/data/upload/1/{n}.jpg", choice(lab(n))) for n in range(12)]
    tasks[0]["annotations"].append({"result": [choice("bird")]})
    tasks[1] = task("/data/upload/1/1.jpg", choice("cat", "dog"))
    tasks[2] = task("/data/upload/1/2.jpg", choice("dog"), cancelled=True)
    tasks[3]["annotations"].append({"result": [choice(lab(3))]})  # they agree
    entries, _ = read(tmp_path, FLAT | {"p.json": json.dumps(tasks)})
    problems = {
        one.path: one.problem for one in entries if one.path.endswith("jpg") and one.problem
    }
    assert problems == {
        "images/0.jpg": "label is a list, not a text",
        "images/1.jpg": "label is a list, not a text",
        "images/2.jpg": "no label",
    }


def test_several_questions_are_asked_about(tmp_path: Path) -> None:
    with pytest.raises(GraftlineError, match="choice"):
        read(tmp_path, NAMED["two questions"])
    entries, _ = read(tmp_path, {}, Columns(label="animal"))
    assert classes(entries) == KINDS


def test_paths_of_another_machine_are_found_by_their_end(tmp_path: Path) -> None:
    """A folder must agree as well: the name alone may be that of another picture."""
    rows = [f"/home/eve/pets/images/{n}.jpg,{lab(n)}" for n in range(12)]
    entries, _ = read(tmp_path / "a", FLAT | {"t.csv": table("image,label", rows)})
    assert classes(entries) == KINDS
    rows = [f"/home/eve/pets/others/{n}.jpg,{lab(n)}" for n in range(12)]
    with pytest.raises(GraftlineError, match="file not found"):
        read(tmp_path / "b", FLAT | {"t.csv": table("image,label", rows)})
