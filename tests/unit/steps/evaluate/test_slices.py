"""Slices with known answers."""

from typing import Any

import numpy as np
import pytest

from graftline.errors import ConfigurationError
from graftline.steps.evaluate import slices


class Table:
    """As much of a snapshot as slicing reads."""

    def __init__(self, **columns: Any) -> None:
        n = len(next(iter(columns.values())))
        plain = {"width": 100, "height": 100, "format": "jpeg", "source": "a/b.jpg", "label": "a"}
        self.columns = {
            name: np.array([value] * n, dtype=object if isinstance(value, str) else np.int64)
            for name, value in plain.items()
        }
        own = {k: v for k, v in columns.items() if k not in plain}
        self.columns |= {name: np.asarray(v) for name, v in columns.items()}
        self.attributes = tuple(own)

    def column(self, name: str) -> np.ndarray:
        return self.columns[name]


def cut(brightness: dict[int, float] | None = None, **columns: Any) -> dict[str, np.ndarray]:
    table = Table(**columns)
    rows = np.arange(len(table.column("width")))
    return slices.columns_of(table, rows, brightness or {})  # type: ignore[arg-type]


def test_size_and_brightness_are_cut_in_thirds() -> None:
    side = np.arange(1, 10) * 10
    found = cut({i: 25.0 * i for i in range(9)}, width=side, height=side)
    assert [text.split(" (")[0] for text in found["size"]] == (
        ["small"] * 3 + ["medium"] * 3 + ["large"] * 3
    )
    assert found["size"][0] == "small (up to 36.7 px)"
    assert [text.split(" (")[0] for text in found["brightness"]] == (
        ["dark"] * 3 + ["medium"] * 3 + ["bright"] * 3
    )


def test_images_alike_are_not_cut_and_unknown_brightness_is_left_out() -> None:
    found = cut({0: 10.0, 1: 20.0, 2: 30.0}, width=np.full(5, 64), height=np.full(5, 64))
    assert set(found["size"]) == {""}
    assert found["brightness"][3] == found["brightness"][4] == ""
    assert found["brightness"][0].startswith("dark")


def test_shape_source_and_attributes() -> None:
    found = cut(
        width=np.array([50, 100, 200, 95]),
        height=np.array([100, 100, 100, 100]),
        source=np.array(["x/a/1.jpg", "x/b/2.jpg", "y/a/3.jpg", "4.jpg"], dtype=object),
        label=np.array(["a", "b", "a", "a"], dtype=object),
        camera=np.array(["one", None, "two", "two"], dtype=object),
        age=np.array([1.0, np.nan, 2.0, 2.0]),
    )
    assert found["shape"].tolist() == ["upright", "square", "wide", "square"]
    assert found["source"].tolist() == ["x", "x", "y", "/"]  # the label is no source
    assert found["camera"].tolist() == ["one", "", "two", "two"]
    assert found["age"].tolist() == ["1.0", "", "2.0", "2.0"]
    many = cut(age=np.arange(60))["age"]
    assert sorted({text.split(" (")[0] for text in many}) == ["high", "low", "medium"]


def test_columns_that_say_nothing_are_left_out() -> None:
    labels = np.array([0, 0, 1, 1])
    columns = {
        "label in other words": np.array(["p", "p", "q", "q"], dtype=object),
        "constant": np.array(["c"] * 4, dtype=object),
        "camera": np.array(["one", "two", "one", "two"], dtype=object),
    }
    assert list(slices.interesting(columns, labels)) == ["camera"]


def test_accuracy_by_slice_and_the_champions_on_compared_images() -> None:
    columns = {"camera": np.array(["one"] * 4 + ["two"] * 2 + [""], dtype=object)}
    right = np.array([1, 1, 1, 0, 1, 0, 1], dtype=bool)
    old = np.array([1, 0, 1, 1, 0, 0, 1], dtype=bool)
    comparable = np.array([1, 1, 0, 0, 0, 0, 1], dtype=bool)
    one, two = slices.figures(columns, right, 0.95, old, comparable)
    assert (one.value, one.images, one.accuracy, one.champion) == ("one", 4, 0.75, 0.5)
    assert (two.value, two.images, two.accuracy, two.champion) == ("two", 2, 0.5, None)
    assert one.interval[0] < 0.75 < one.interval[1]


def test_guarded_slices_by_column_by_value_and_by_short_name() -> None:
    columns = {
        "camera": np.array(["one", "two", "", "two"], dtype=object),
        "size": np.array(["small (up to 9 px)", "large (over 9 px)"] * 2, dtype=object),
    }
    masks, empty = slices.guarded(("camera", "size=small", "camera=three"), columns)
    assert {name: mask.tolist() for name, mask in masks.items()} == {
        "camera=one": [True, False, False, False],
        "camera=two": [False, True, False, True],
        "size=small": [True, False, True, False],
    }
    assert empty == ["camera=three"]
    with pytest.raises(ConfigurationError, match=r"(?s)'camra'.*Did you mean 'camera'"):
        slices.guarded(("camra",), columns)
