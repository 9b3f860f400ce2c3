"""The chart of a race: nothing of it is cut, and its axis has labels for any range."""

import re

import pytest

from graftline.reports.scatter import HEIGHT, Point, scatter_chart


def texts(points: list[Point]) -> list[tuple[float, float, str]]:
    chart = str(scatter_chart("t", points, x_title="size", y_title="accuracy"))
    found = re.findall(r"<text ([^>]*)>([^<]*)<", chart)
    return [
        (float(at["x"]), float(at["y"]), said)
        for attributes, said in found
        if "x" in (at := dict(re.findall(r'(\w+)="([^"]*)"', attributes)))
    ]


@pytest.mark.parametrize(("small", "large"), [(13.5, 16.5), (0.4, 0.6), (11.4, 17.7), (5.0, 340.0)])
def test_the_axis_has_labels_within_it(small: float, large: float) -> None:
    points = [
        Point("one", small, 1.0, (0.95, 1.0), marked=True),
        Point("two", large, 0.9, (0.8, 1.0)),
    ]
    labels = [float(said) for _, y, said in texts(points) if HEIGHT - 40 < y < HEIGHT - 20]
    assert 3 <= len(labels) <= 9 and labels == sorted(labels)


def test_the_name_of_a_point_at_the_top_is_inside() -> None:
    points = [Point("one", 1.0, 1.0, (0.95, 1.0)), Point("two", 2.0, 0.9, (0.8, 1.0))]
    heights = {said: y for _, y, said in texts(points)}
    assert heights["one"] >= 14  # its letters are 12 px high
