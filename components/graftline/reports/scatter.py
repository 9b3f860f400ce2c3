"""Points with intervals over a logarithmic axis, as inline SVG: accuracy against time or size."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from graftline.reports.charts import ticks
from graftline.reports.html import join, percent

WIDTH, HEIGHT = 620, 340
LEFT, RIGHT, TOP, BOTTOM = 56, 24, 14, 46


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

    parts = [*_levels(bottom, top, up), *_columns(first, last, across)]
    parts.append(_titles(x_title, y_title))
    front = sorted((point for point in points if point.marked), key=lambda point: point.x)
    path = " ".join(f"{across(point.x)},{up(point.y)}" for point in front)
    parts.append(Markup('<polyline class="dash" points="{}"/>').format(path))
    parts += [_point(point, across(point.x), up) for point in points]
    return Markup(
        '<svg viewBox="0 0 {} {}" role="img" aria-label="{}"><title>{}</title>{}</svg>'
    ).format(WIDTH, HEIGHT, title, title, join(parts))


def _levels(bottom: float, top: float, up: Callable[[float], float]) -> list[Markup]:
    line = Markup(
        '<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>'
        '<text x="{}" y="{}" text-anchor="end">{}</text>'
    )
    digits = 0 if top - bottom >= 0.05 else 1
    return [
        line.format(LEFT, WIDTH - RIGHT, up(v), up(v), LEFT - 8, up(v) + 4, percent(v, digits))
        for v in ticks(bottom, top)
    ]


def _columns(first: float, last: float, across: Callable[[float], float]) -> list[Markup]:
    """Round values of a logarithmic axis: 1, 2 and 5 in each tenfold."""
    values = [
        digit * 10.0**power
        for power in range(math.floor(first), math.ceil(last) + 1)
        for digit in (1, 2, 5)
        if first <= math.log10(digit) + power <= last
    ]
    text = Markup('<text x="{}" y="{}" text-anchor="middle">{}</text>')
    return [text.format(across(v), HEIGHT - BOTTOM + 17, f"{v:g}") for v in values]


def _titles(x_title: str, y_title: str) -> Markup:
    middle = (TOP + HEIGHT - BOTTOM) / 2
    return Markup(
        '<text x="{}" y="{}" text-anchor="middle">{}</text>'
        '<text transform="translate(12 {}) rotate(-90)" text-anchor="middle">{}</text>'
    ).format((LEFT + WIDTH) / 2, HEIGHT - 6, x_title, middle, y_title)


def _point(point: Point, x: float, up: Callable[[float], float]) -> Markup:
    kind = "b" if point.marked else "a"
    low, high = (up(value) for value in point.interval)
    side = -1 if x > WIDTH / 2 else 1
    return Markup(
        '<line class="{}" x1="{}" x2="{}" y1="{}" y2="{}"/>'
        '<circle class="fill-{}" cx="{}" cy="{}" r="5"/>'
        '<text x="{}" y="{}" text-anchor="{}">{}</text>'
    ).format(
        kind,
        x,
        x,
        low,
        high,
        kind,
        x,
        up(point.y),
        x + 9 * side,
        up(point.y) - 7,
        "end" if side < 0 else "start",
        point.name,
    )
