"""What annotation tools export where each image has one class: rows of a table.

Label Studio, VGG's VIA, CreateML, CVAT (tags) and SageMaker Ground Truth. An export with boxes or
outlines gives nothing: these label parts of images.
"""

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from graftline.data.sources.base import Columns

Values = dict[str, Any]
# One of these in a file tells that parts of an image are labelled.
_SHAPES = ("box", "polygon", "polyline", "points", "mask", "cuboid", "ellipse", "skeleton")
_CODE = re.compile("^[0-9a-f]{8}-")  # before the names of files that Label Studio was given


def exported_rows(value: Any, columns: Columns) -> list[Values] | None:
    """The rows of a JSON export; None where it has none of the forms known here.

    Args:
        value: The JSON.
        columns: What the columns of the table are called.
    """
    for form in (_label_studio, _via, _createml):
        rows = form(value, columns)
        if rows is not None:
            return _one_question(rows, columns)
    return None


def _one_question(rows: list[Values], columns: Columns) -> list[Values]:
    """The only column beside the image's is the label; several keep their names."""
    names = {name for row in rows for name in row} - {columns.image}
    if len(names) != 1 or columns.label in names:
        return rows
    name = names.pop()
    return [{columns.label if k == name else k: v for k, v in row.items()} for row in rows]


def _single(values: list[Any]) -> Any:
    """The one value, an empty text for none; several stay a list, which no row may hold."""
    return "" if not values else values[0] if len(values) == 1 else values


def _label_studio(value: Any, columns: Columns) -> list[Values] | None:
    """Tasks with the choices that a person made."""
    if not isinstance(value, list) or not value:
        return None
    rows = []
    for task in value:
        said = task.get("annotations", task.get("completions")) if isinstance(task, dict) else None
        data = task.get("data") if isinstance(task, dict) else None
        if not isinstance(said, list) or not isinstance(data, dict):
            return None
        image = next((one for one in data.values() if isinstance(one, str) and "." in one), None)
        row = {columns.image: image or ""}
        for one in said:
            if not isinstance(one, dict) or one.get("was_cancelled"):
                continue
            for result in one.get("result") or ():
                chosen = (result.get("value") or {}).get("choices")
                if chosen is None:
                    return None  # boxes, brushes, texts
                name = str(result.get("from_name", columns.label))
                row[name] = _agreed(row.get(name), _single(list(chosen)))
        rows.append(row)
    return rows


def _agreed(before: Any, now: Any) -> Any:
    """What two annotators say of one image: one value, or both, which no row may hold."""
    return now if before in (None, now) else [before, now]


def names_of_upload(path: str) -> list[str]:
    """What a file may be called that a path on Label Studio's server means.

    `/data/upload/3/1a2b3c4d-cat.jpg` is the copy of `cat.jpg`, and the export of the images calls
    it `1a2b3c4d-cat.jpg`; `/data/local-files/?d=pets/cat.jpg` is `pets/cat.jpg`.
    """
    if "/local-files/?d=" in path:
        return [unquote(path.partition("?d=")[2])]
    if "/upload/" in f"/{path}":
        name = unquote(path.rpartition("/")[2])
        return [name, _CODE.sub("", name)]
    return []


def _via(value: Any, columns: Columns) -> list[Values] | None:
    """Attributes of whole files; regions label parts of them."""
    if isinstance(value, dict) and isinstance(value.get("_via_img_metadata"), dict):
        value = value["_via_img_metadata"]
    if not isinstance(value, dict) or not value:
        return None
    rows = []
    for one in value.values():
        if not isinstance(one, dict) or not {"filename", "file_attributes"} <= one.keys():
            return None
        if one.get("regions") or not isinstance(one["file_attributes"], dict):
            return None
        chosen = {k: _ticked(v) for k, v in one["file_attributes"].items()}
        rows.append({**chosen, columns.image: one["filename"]})
    return rows


def _ticked(value: Any) -> Any:
    """The value of an attribute; of check boxes, those that are ticked."""
    return _single([k for k, v in value.items() if v]) if isinstance(value, dict) else value


def via_table(
    header: list[str], rows: list[Mapping[str, str]], columns: Columns
) -> list[Values] | None:
    """The rows of VIA's CSV export, whose attributes are JSON in a cell; None for another table."""
    if not {"filename", "file_attributes", "region_count"} <= set(header):
        return None
    files: dict[str, Values] = {}
    for row in rows:
        try:
            said = json.loads(row.get("file_attributes") or "{}")
            regions = int(row.get("region_count") or 0)
        except ValueError:
            return None
        one = {"filename": row.get("filename", ""), "file_attributes": said, "regions": regions}
        files[one["filename"]] = one
    found = _via(files, columns)
    return None if found is None else _one_question(found, columns)


def _createml(value: Any, columns: Columns) -> list[Values] | None:
    """Apple's list of images, each with its annotation."""
    if not isinstance(value, list) or not value:
        return None
    rows = []
    for one in value:
        if not isinstance(one, dict):
            return None
        image = one.get("image", one.get("imagefilename"))
        said = one.get("annotations", one.get("annotation"))
        if not isinstance(image, str) or said is None or len(one) != 2:
            return None
        labels = []
        for label in said if isinstance(said, list) else [said]:
            if isinstance(label, dict) and ("coordinates" in label or "label" not in label):
                return None
            labels.append(label["label"] if isinstance(label, dict) else label)
        rows.append({columns.image: image, columns.label: _single(labels)})
    return rows


def cvat_rows(data: bytes, columns: Columns) -> list[Values] | None:
    """The tags of CVAT's export "for images"; None for other XML, or with shapes in it."""
    if b"<annotations" not in data[:4096] or b"<!ENTITY" in data:
        return None
    try:
        root = ET.fromstring(data)  # noqa: S314 - no entities, see above, and expat bounds the rest
    except ET.ParseError:
        return None
    images = root.findall("image")
    if not images or any(image.find(shape) is not None for image in images for shape in _SHAPES):
        return None
    return [
        {
            columns.image: image.get("name", ""),
            columns.label: _single([tag.get("label", "") for tag in image.findall("tag")]),
        }
        for image in images
    ]


def manifest_rows(text: str, columns: Columns) -> list[Values] | None:
    """The lines of a SageMaker Ground Truth manifest, with the names of the classes."""
    rows = []
    for line in filter(str.strip, text.splitlines()):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            return None
        if not isinstance(value, dict) or not isinstance(value.get("source-ref"), str):
            return None
        names = list(_class_names(value))
        rows.append({columns.image: value["source-ref"], columns.label: _single(names)})
    return rows if any(row[columns.label] for row in rows) else None


def _class_names(line: Mapping[str, Any]) -> Iterator[str]:
    for key, said in line.items():
        if key.endswith("-metadata") and isinstance(said, dict):
            name = said.get("class-name")
            if isinstance(name, str):
                yield name
