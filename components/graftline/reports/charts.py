"""Charts for the pages, as inline SVG: no script, no library to load, colours of the page.

Each chart is an image with a title for screen readers; the figures behind it are in a table of
the page. Coordinates are pixels of a view box that scales with the window. The geometry is
computed here, the macro ``chart`` of ``ui.html`` writes it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from markupsafe import Markup

from graftline.reports.html import percent, ui

Pairs = Sequence[tuple[float, float]]

MOST_LETTERS = 26  # of a label beside a bar


@dataclass(frozen=True)
class Series:
    """A line: points (x, y) in data units.

    Attributes:
        name: For the legend.
        points: In the order in which they are joined.
        style: ``a`` (the new model), ``b`` (the champion) or ``dash`` (a reference).
        low: Lower edge of a band around the line, in data units, point by point.
        high: Its upper edge.
        markers: Whether each point gets a dot.
    """

    name: str
    points: Pairs
    style: str = "a"
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    markers: bool = False


@dataclass(frozen=True)
class Bar:
    """A value with an interval, and optionally the champion's beside it.

    Attributes:
        name: Label on the left.
        value: Between 0 and 1.
        interval: Its bounds, or None.
        other: The champion's value, or None.
    """

    name: str
    value: float
    interval: tuple[float, float] | None = None
    other: float | None = None


@dataclass(frozen=True)
class Shape:
    """An SVG element.

    Attributes:
        tag: Its name.
        attributes: Escaped when they are written.
        text: Its content.
        title: What is shown when the mouse rests on it.
    """

    tag: str
    attributes: dict[str, str | float | None]
    text: str = ""
    title: str = ""


@dataclass(frozen=True)
class Chart:
    """What is drawn; ``legend`` are pairs of a style and a name, ``wide`` charts may scroll."""

    title: str
    width: int
    height: int
    shapes: list[Shape]
    legend: list[tuple[str, str]] = field(default_factory=list)
    wide: bool = False


class _Axes:
    """Maps data units to pixels and draws the frame of a chart."""

    def __init__(
        self,
        x: tuple[float, float],
        y: tuple[float, float],
        width: int,
        height: int,
        counts: bool = False,
    ) -> None:
        self.x, self.y, self.width, self.height = x, y, width, height
        self.counts = counts
        self.left, self.right, self.top, self.bottom = 52, 22, 10, 44

    def across(self, value: float) -> float:
        low, high = self.x
        inner = self.width - self.left - self.right
        return round(self.left + inner * (value - low) / ((high - low) or 1), 1)

    def up(self, value: float) -> float:
        low, high = self.y
        inner = self.height - self.top - self.bottom
        return round(self.height - self.bottom - inner * (value - low) / ((high - low) or 1), 1)

    def frame(self, x_title: str, y_title: str) -> list[Shape]:
        shapes = []
        right, floor = self.width - self.right, self.height - self.bottom
        for value in ticks(*self.y):
            level = self.up(value)
            shapes.append(line_shape("grid", self.left, level, right, level))
            shapes.append(
                text_shape(percent(value, _digits(*self.y)), self.left - 8, level + 4, "end")
            )
        for value in ticks(*self.x):
            if self.counts and value != round(value):
                continue  # there is no half epoch
            said = f"{value:,.0f}" if self.counts else percent(value, _digits(*self.x))
            shapes.append(text_shape(said, self.across(value), floor + 17))
        shapes.append(line_shape("axis", self.left, floor, right, floor))
        shapes.append(text_shape(x_title, (self.left + self.width) / 2, self.height - 6))
        turned = f"translate(12 {(self.top + floor) / 2}) rotate(-90)"
        shapes.append(Shape("text", {"transform": turned, "text-anchor": "middle"}, y_title))
        return shapes

    def path(self, line: Series) -> Shape:
        points = " ".join(f"{self.across(px)},{self.up(py)}" for px, py in line.points)
        return Shape("polyline", {"class": f"line {line.style}", "points": points})

    def dot(self, style: str, x: float, y: float, radius: float) -> Shape:
        return circle_shape(f"fill-{style}", self.across(x), self.up(y), radius)

    def band(self, line: Series, low: Sequence[float], high: Sequence[float]) -> Shape:
        xs = [px for px, _ in line.points]
        upper = [f"{self.across(px)},{self.up(v)}" for px, v in zip(xs, high, strict=True)]
        lower = [f"{self.across(px)},{self.up(v)}" for px, v in zip(xs, low, strict=True)]
        edge = " ".join([*upper, *reversed(lower)])
        return Shape("polygon", {"class": f"soft-{line.style}", "points": edge})


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    x: tuple[float, float] = (0.0, 1.0),
    y: tuple[float, float] = (0.0, 1.0),
    x_title: str = "",
    y_title: str = "",
    width: int = 520,
    height: int = 320,
    counts: bool = False,
) -> Markup:
    """Lines over shares: both axes are percentages, or the lower one counts, as epochs."""
    axes = _Axes(x, y, width, height, counts)
    shapes = axes.frame(x_title, y_title)
    for line in series:
        if line.low is not None and line.high is not None:
            shapes.append(axes.band(line, line.low, line.high))
        shapes.append(axes.path(line))
        if line.markers:
            shapes += [axes.dot(line.style, px, py, 3.5) for px, py in line.points]
    return ui("chart", Chart(title, width, height, shapes, _legend(series)))


def bar_chart(
    title: str,
    bars: Sequence[Bar],
    *,
    x: tuple[float, float] = (0.0, 1.0),
    width: int = 1000,
    marks: str = "",
) -> Markup:
    """Horizontal values with their intervals; ``marks`` says what the upright strokes are."""
    row, label = 26, 24 + 7 * min(MOST_LETTERS, max([len(bar.name) for bar in bars], default=0))
    height = 26 + row * len(bars)
    inner = width - label - 74

    def across(value: float) -> float:
        share = (value - x[0]) / ((x[1] - x[0]) or 1)
        return round(label + inner * min(1.0, max(0.0, share)), 1)

    shapes = []
    for value in ticks(*x):
        shapes.append(line_shape("grid", across(value), 4, across(value), height - 20))
        shapes.append(text_shape(percent(value, _digits(*x)), across(value), height - 5))
    for index, bar in enumerate(bars):
        shapes += _bar(bar, across, label, 4 + row * index + row / 2, width)
    compared = marks and any(bar.other is not None for bar in bars)
    legend = [("a", "this model"), ("b", marks)] if compared else []
    return ui("chart", Chart(title, width, height, shapes, legend, wide=True))


def _bar(
    bar: Bar, across: Callable[[float], float], label: int, middle: float, width: int
) -> list[Shape]:
    name = bar.name if len(bar.name) <= MOST_LETTERS else bar.name[: MOST_LETTERS - 1] + "…"
    shapes = [
        text_shape(name, label - 10, middle + 4, "end", title=bar.name),
        text_shape(percent(bar.value), width - 4, middle + 4, "end", kind="strong"),
    ]
    if bar.interval is not None:
        low, high = across(bar.interval[0]), across(bar.interval[1])
        size = {"width": max(1.0, round(high - low, 1)), "height": 12, "rx": 3}
        shapes.append(Shape("rect", {"class": "soft-a", "x": low, "y": middle - 6, **size}))
    if bar.other is not None:
        at = across(bar.other)
        shapes.append(line_shape("b thick", at, middle - 8, at, middle + 8))
    shapes.append(circle_shape("fill-a", across(bar.value), middle, 4.5))
    return shapes


def reliability_diagram(
    title: str,
    confidence: Sequence[float],
    accuracy: Sequence[float],
    share: Sequence[float],
    *,
    intervals: Pairs = (),
    before: Pairs = (),
    sparse: Sequence[bool] = (),
) -> Markup:
    """Accuracy against confidence, bin by bin: the larger a dot, the more images are in its bin.

    Args:
        title: What is shown, for screen readers.
        confidence: Mean confidence of each bin that holds images.
        accuracy: Accuracy in each of them.
        share: Share of all images in each of them.
        intervals: Bounds of each accuracy, drawn as strokes.
        before: Points (confidence, accuracy) before calibration.
        sparse: Whether a bin holds too few images to say much: it is drawn hollow, off the line.
    """
    width, height = 520, 360
    axes = _Axes((0.0, 1.0), (0.0, 1.0), width, height)
    ideal = Series("perfect calibration", [(0, 0), (1, 1)], "dash")
    shapes = [*axes.frame("confidence of the model", "how often it was right"), axes.path(ideal)]
    legend = [ideal]
    if before:
        legend.append(Series("before calibration", before, "b"))
        shapes.append(axes.path(legend[-1]))
        shapes += [axes.dot("b", at, level, 3.0) for at, level in before]
    points = list(zip(confidence, accuracy, strict=True))
    legend.append(Series("calibrated", points))
    for (at, _), (low, high) in zip(points, intervals, strict=False):
        shapes.append(
            line_shape("a", axes.across(at), axes.up(low), axes.across(at), axes.up(high))
        )
    most = max([*share, 1e-9])
    few = list(sparse) or [False] * len(points)
    for (at, level), part, hollow in zip(points, share, few, strict=True):
        radius = round(3 + 6 * (part / most) ** 0.5, 1)
        shapes.append(
            circle_shape("hollow", axes.across(at), axes.up(level), radius)
            if hollow
            else axes.dot("a", at, level, radius)
        )
    return ui("chart", Chart(title, width, height, shapes, _legend(legend)))


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round values between two bounds, at most ``most`` of them."""
    span = high - low
    if not span > 0:
        return [low]
    counts = (digit * 10.0**power for power in range(12) for digit in (1, 2, 5))
    for step in (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.25, 0.5, *counts):
        if span / step <= most - 1 + 1e-9:
            break
    first = np.ceil(low / step - 1e-9) * step
    return [float(round(value, 6)) + 0.0 for value in np.arange(first, high + step * 1e-6, step)]


def nice_floor(lowest: float) -> float:
    """Where an axis of shares starts, so that the differences near 1 can be seen."""
    for start in (0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.25):
        if lowest >= start:
            return start
    return 0.0


def _digits(low: float, high: float) -> int:
    return 0 if high - low >= 0.05 else 1


def _legend(series: Sequence[Series]) -> list[tuple[str, str]]:
    named = [("n" if line.style == "dash" else line.style, line.name) for line in series]
    return named if len(named) > 1 else []


def line_shape(kind: str, x1: float, y1: float, x2: float, y2: float) -> Shape:
    """A straight line; ``kind`` is a class of the style sheet."""
    return Shape("line", {"class": kind, "x1": x1, "y1": y1, "x2": x2, "y2": y2})


def text_shape(
    text: str, x: float, y: float, anchor: str = "middle", *, kind: str = "", title: str = ""
) -> Shape:
    """A text at a point; ``anchor`` is what of it stands there."""
    return Shape(
        "text", {"class": kind or None, "x": x, "y": y, "text-anchor": anchor}, text, title
    )


def circle_shape(kind: str, x: float, y: float, radius: float) -> Shape:
    """A dot; ``kind`` is a class of the style sheet."""
    return Shape("circle", {"class": kind, "cx": x, "cy": y, "r": radius})
