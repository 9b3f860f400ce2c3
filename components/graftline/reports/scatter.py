"""Points with intervals over a logarithmic axis, as inline SVG: accuracy against time or size."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from graftline.reports.charts import Chart, Shape, circle_shape, line_shape, text_shape, ticks
from graftline.reports.html import percent, ui

WIDTH, HEIGHT = 620, 340
LEFT, RIGHT, TOP, BOTTOM = 56, 24, 28, 46  # above: the name of a point at 100%
FEW = 3  # labels of the axis, under which it says too little


@dataclass(frozen=True)
class Point:
    """A named point.

    Attributes:
        name: Beside it.
        x: Above 0.
        y: A share.
        interval: Of ``y``.
        marked: Whether it is on the front, which is joined by a line.
    """

    name: str
    x: float
    y: float
    interval: tuple[float, float]
    marked: bool = False


def scatter_chart(title: str, points: Sequence[Point], *, x_title: str, y_title: str) -> Markup:
    """A chart of points; those that are marked are joined."""
    low = min(point.interval[0] for point in points)
    high = max(point.interval[1] for point in points)
    room = max(0.01, 0.08 * (high - low))
    bottom, top = max(0.0, low - room), min(1.0, high + room)
    first, last = (math.log10(f(p.x for p in points)) for f in (min, max))
    margin = max(0.08, 0.12 * (last - first))
    first, last = first - margin, last + margin

    def across(value: float) -> float:
        share = (math.log10(value) - first) / (last - first)
        return round(LEFT + (WIDTH - LEFT - RIGHT) * share, 1)

    def up(value: float) -> float:
        share = (value - bottom) / (top - bottom)
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share, 1)

    shapes = [*_levels(bottom, top, up), *_columns(first, last, across)]
    shapes += _titles(x_title, y_title)
    front = sorted((point for point in points if point.marked), key=lambda point: point.x)
    path = " ".join(f"{across(point.x)},{up(point.y)}" for point in front)
    shapes.append(Shape("polyline", {"class": "dash", "points": path}))
    for point in points:
        shapes += _point(point, across(point.x), up)
    return ui("chart", Chart(title, WIDTH, HEIGHT, shapes))


def _levels(bottom: float, top: float, up: Callable[[float], float]) -> list[Shape]:
    digits = 0 if top - bottom >= 0.05 else 1
    shapes = []
    for value in ticks(bottom, top):
        shapes.append(line_shape("grid", LEFT, up(value), WIDTH - RIGHT, up(value)))
        shapes.append(text_shape(percent(value, digits), LEFT - 8, up(value) + 4, "end"))
    return shapes


def _columns(first: float, last: float, across: Callable[[float], float]) -> list[Shape]:
    """Round values of a logarithmic axis: 1, 2 and 5 in each tenfold, or as close as it needs."""
    values = [
        digit * 10.0**power
        for power in range(math.floor(first), math.ceil(last) + 1)
        for digit in (1, 2, 5)
        if first <= math.log10(digit) + power <= last
    ]
    if len(values) < FEW:
        values = ticks(10**first, 10**last)
    return [text_shape(f"{value:g}", across(value), HEIGHT - BOTTOM + 17) for value in values]


def _titles(x_title: str, y_title: str) -> list[Shape]:
    turned = f"translate(12 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)"
    return [
        text_shape(x_title, (LEFT + WIDTH) / 2, HEIGHT - 6),
        Shape("text", {"transform": turned, "text-anchor": "middle"}, y_title),
    ]


def _point(point: Point, x: float, up: Callable[[float], float]) -> list[Shape]:
    kind = "b" if point.marked else "a"
    low, high = (up(value) for value in point.interval)
    side = -1 if x > WIDTH / 2 else 1
    return [
        line_shape(kind, x, low, x, high),
        circle_shape(f"fill-{kind}", x, up(point.y), 5),
        text_shape(point.name, x + 9 * side, up(point.y) - 7, "end" if side < 0 else "start"),
    ]
