"""Slices: parts of the test split that a mean may hide.

By the user's attribute columns, and by what every image has: size, brightness, shape, format and
the folder that it came from.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftline.data.snapshot import Snapshot
from graftline.errors import ConfigurationError
from graftline.stats.intervals import share_interval
from graftline.stats.wording import significant

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

MOST_VALUES = 20
BRIGHTNESS = "brightness"
SHAPE = "shape"
FEWEST_IN_SHAPE = 8  # test images; of fewer, even all wrong would say little


@dataclass(frozen=True)
class SliceFigures:
    """One slice on the test split.

    Attributes:
        column: What it is cut by.
        value: Which part.
        images: Test images in it.
        accuracy: Share that was right.
        interval: Its exact interval.
        champion: The champion's accuracy on the compared images in it; None without any.
    """

    column: str
    value: str
    images: int
    accuracy: float
    interval: tuple[float, float]
    champion: float | None = None


def columns_of(
    snapshot: Snapshot, rows: Ints, brightness: Mapping[int, float]
) -> dict[str, NDArray[Any]]:
    """Text values by column, each of shape (n,); an empty text where it is not known.

    Args:
        snapshot: The data.
        rows: Its test rows.
        brightness: Mean of the pixels, 0 to 255, of the rows for which it was measured.
    """
    found: dict[str, NDArray[Any]] = {}
    for name in snapshot.attributes:
        found[name] = _texts(snapshot.column(name)[rows])
    pixels = snapshot.column("width")[rows].astype(float) * snapshot.column("height")[rows]
    found["size"] = _thirds(np.sqrt(pixels), "px", ("small", "medium", "large"))
    bright = np.array([brightness.get(int(row), np.nan) for row in rows])
    found[BRIGHTNESS] = _thirds(bright, "of 255", ("dark", "medium", "bright"))
    found[SHAPE] = _shapes(snapshot, rows)
    found["format"] = _texts(snapshot.column("format")[rows])
    found["source"] = _folders(snapshot, rows)
    return found


def interesting(columns: Mapping[str, NDArray[Any]], labels: Ints) -> dict[str, NDArray[Any]]:
    """Columns with a few values each, that are not the label in other words."""
    kept = {}
    for name, values in columns.items():
        known = values != ""
        distinct = np.unique(values[known])
        if not 2 <= len(distinct) <= MOST_VALUES:
            continue
        pairs = {(str(v), int(c)) for v, c in zip(values[known], labels[known], strict=True)}
        if len(pairs) > len(np.unique(labels[known])):
            kept[name] = values
    return kept


def figures(
    columns: Mapping[str, NDArray[Any]],
    right: Bools,
    confidence: float,
    champion_right: Bools | None = None,
    comparable: Bools | None = None,
) -> list[SliceFigures]:
    """Accuracy of each slice, column by column."""
    rows = []
    for name, values in columns.items():
        for value in sorted(set(values.tolist()) - {""}, key=_order):
            mask = values == value
            n, hits = int(mask.sum()), int(right[mask].sum())
            old = None
            if champion_right is not None and comparable is not None and (mask & comparable).any():
                old = float(champion_right[mask & comparable].mean())
            interval = share_interval(hits, n, confidence)
            rows.append(SliceFigures(name, str(value), n, hits / n, interval, old))
    return rows


def guarded(
    wanted: tuple[str, ...], columns: Mapping[str, NDArray[Any]]
) -> tuple[dict[str, Bools], list[str]]:
    """The images of the slices that the gate guards, and those that have no test image.

    Args:
        wanted: ``column`` for each value of it, or ``column=value``.
        columns: As :func:`columns_of` gives them.

    Raises:
        ConfigurationError: There is no such column.
    """
    masks: dict[str, Bools] = {}
    empty = []
    for text in wanted:
        column, equals, value = text.partition("=")
        if column not in columns:
            near = difflib.get_close_matches(column, list(columns), 1)
            raise ConfigurationError(
                f"gate.slices names {column!r}, which is not a column of the snapshot",
                fix=f"Did you mean {near[0]!r}? "
                * bool(near)
                + f"It can be sliced by {', '.join(columns)}; name your own columns in "
                "data.attributes.",
            )
        values = columns[column]
        wanted_values = [value] if equals else sorted(set(values.tolist()) - {""}, key=_order)
        for one in wanted_values:
            mask = values == one
            if one.isalpha() and not mask.any():  # "small" stands for "small (up to 64 px)"
                mask = np.array([str(v).startswith(f"{one} (") for v in values], dtype=bool)
            if mask.any():
                masks[f"{column}={one}"] = mask
            else:
                empty.append(f"{column}={one}")
    return masks, empty


def shape_warnings(
    shapes: NDArray[Any],
    right: Bools,
    seen: NDArray[np.float64],
    fit: str,
    confidence: float,
) -> list[str]:
    """Sentences on wide and upright images that are recognised less often than the others.

    Args:
        shapes: ``upright``, ``square`` or ``wide``, shape (n,).
        right: Whether each image was recognised, shape (n,).
        seen: Share of its area that the network sees, shape (n,).
        fit: ``image.fit`` of the model.
        confidence: Level at which the difference is beyond chance.
    """
    warnings = []
    for shape in ("wide", "upright"):
        mask = shapes == shape
        count, others = int(mask.sum()), int((~mask).sum())
        if count < FEWEST_IN_SHAPE or not others:
            continue
        accuracy, rest = float(right[mask].mean()), float(right[~mask].mean())
        if share_interval(int(right[mask].sum()), count, confidence)[1] >= rest:
            continue
        warnings.append(
            f"{shape.capitalize()} images are recognised less often: {accuracy:.1%} of {count:,}, "
            f"against {rest:.1%} of the {others:,} others. " + _why_of_shape(seen[mask], fit)
        )
    return warnings


def _why_of_shape(seen: NDArray[np.float64], fit: str) -> str:
    if fit == "crop":
        return (
            f"`image.fit: crop` shows the network {seen.mean():.0%} of their area on average; try "
            "`squash` or `pad`, which show all of it."
        )
    other = "pad" if fit == "squash" else "squash"
    return f"They are seen whole (`image.fit: {fit}`); `{other}` may suit them better."


def _texts(values: NDArray[Any]) -> NDArray[Any]:
    """Values as text; many different numbers are cut in thirds."""
    numbers = values.dtype.kind in "iuf"
    distinct = {value for value in values.tolist() if value is not None and value == value}
    if numbers and len(distinct) > MOST_VALUES:
        return _thirds(values.astype(float), "", ("low", "medium", "high"))
    texts = ["" if v is None or v != v else str(v) for v in values.tolist()]
    return np.array(texts, dtype=object)


def _thirds(values: NDArray[Any], unit: str, names: tuple[str, str, str]) -> NDArray[Any]:
    known = ~np.isnan(values)
    result = np.full(len(values), "", dtype=object)
    if not known.any():
        return result
    low, high = np.quantile(values[known], [1 / 3, 2 / 3])
    unit = f" {unit}" if unit else ""
    if low == high or (values[known] <= low).all():
        return result  # nearly all alike
    texts = (
        f"{names[0]} (up to {significant(low, 3)}{unit})",
        f"{names[1]} ({significant(low, 3)} to {significant(high, 3)}{unit})",
        f"{names[2]} (over {significant(high, 3)}{unit})",
    )
    part = np.where(values <= low, 0, np.where(values <= high, 1, 2))
    result[known] = np.array(texts, dtype=object)[part[known]]
    return result


def _shapes(snapshot: Snapshot, rows: Ints) -> NDArray[Any]:
    ratio = snapshot.column("width")[rows] / np.maximum(snapshot.column("height")[rows], 1)
    names = np.array(["upright", "square", "wide"], dtype=object)
    return names[np.where(ratio < 0.9, 0, np.where(ratio > 1 / 0.9, 2, 1))]


def _folders(snapshot: Snapshot, rows: Ints) -> NDArray[Any]:
    """The folder that an image came from, without the parts that are its label."""
    sources, labels = snapshot.column("source")[rows], snapshot.column("label")[rows]
    folders = []
    for source, label in zip(sources.tolist(), labels.tolist(), strict=True):
        parts = str(source).replace("\\", "/").split("/")[:-1]
        folders.append("/".join(part for part in parts if part != label) or "/")
    return np.array(folders, dtype=object)


def _order(value: str) -> tuple[int, str]:
    names = ("small", "dark", "low", "upright", "medium", "square", "large", "bright", "high")
    first = value.split(" ", 1)[0]
    return (names.index(first) if first in names else len(names), value)
