"""Charts for the pages, as inline SVG: no script, no library to load, colours of the page.

Each chart is an image with a title for screen readers; the figures behind it stand in a table of
the page. Coordinates are pixels of a view box that scales with the window.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from graftline.reports.html import join, percent

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

    def frame(self, x_title: str, y_title: str) -> Markup:
        parts = []
        for value in ticks(*self.y):
            level = self.up(value)
            parts.append(
                Markup(
                    '<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>'
                    '<text x="{}" y="{}" text-anchor="end">{}</text>'
                ).format(
                    self.left,
                    self.width - self.right,
                    level,
                    level,
                    self.left - 8,
                    level + 4,
                    percent(value, _digits(*self.y)),
                )
            )
        floor = self.height - self.bottom
        for value in ticks(*self.x):
            parts.append(
                Markup('<text x="{}" y="{}" text-anchor="middle">{}</text>').format(
                    self.across(value), floor + 17, self._across_text(value)
                )
            )
        parts.append(
            Markup('<line class="axis" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
                self.left, self.width - self.right, floor, floor
            )
        )
        middle = (self.top + floor) / 2
        parts.append(
            Markup(
                '<text x="{}" y="{}" text-anchor="middle">{}</text>'
                '<text transform="translate(12 {}) rotate(-90)" text-anchor="middle">{}</text>'
            ).format((self.left + self.width) / 2, self.height - 6, x_title, middle, y_title)
        )
        return join(parts)

    def _across_text(self, value: float) -> str:
        return f"{value:g}" if self.counts else percent(value, _digits(*self.x))


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
    parts = [axes.frame(x_title, y_title)]
    for line in series:
        if line.low is not None and line.high is not None:
            parts.append(_band(axes, line))
        parts.append(_line(axes, line))
        if line.markers:
            parts += [_dot(axes, line.style, px, py, 3.5) for px, py in line.points]
    return join([_legend(series), _svg(title, width, height, join(parts))])


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

    parts = [
        Markup(
            '<line class="grid" x1="{0}" x2="{0}" y1="4" y2="{1}"/>'
            '<text x="{0}" y="{2}" text-anchor="middle">{3}</text>'
        ).format(across(value), height - 20, height - 5, percent(value, _digits(*x)))
        for value in ticks(*x)
    ]
    for index, bar in enumerate(bars):
        middle = 4 + row * index + row / 2
        parts.append(_bar(bar, across, label, middle, width))
    legend = Markup()
    if marks and any(bar.other is not None for bar in bars):
        legend = Markup(
            '<ul class="legend"><li><i class="a"></i>this model</li>'
            '<li><i class="b"></i>{}</li></ul>'
        ).format(marks)
    drawn = Markup('<div class="scroll">{}</div>').format(
        _svg(title, width, height, join(parts), "wide")
    )
    return join([legend, drawn])


def _bar(
    bar: Bar, across: Callable[[float], float], label: int, middle: float, width: int
) -> Markup:
    name = bar.name if len(bar.name) <= MOST_LETTERS else bar.name[: MOST_LETTERS - 1] + "…"
    parts = [
        Markup('<text x="{}" y="{}" text-anchor="end">{}<title>{}</title></text>').format(
            label - 10, middle + 4, name, bar.name
        ),
        Markup('<text class="strong" x="{}" y="{}" text-anchor="end">{}</text>').format(
            width - 4, middle + 4, percent(bar.value)
        ),
    ]
    if bar.interval is not None:
        low, high = across(bar.interval[0]), across(bar.interval[1])
        parts.append(
            Markup('<rect class="soft-a" x="{}" y="{}" width="{}" height="12" rx="3"/>').format(
                low, middle - 6, max(1.0, round(high - low, 1))
            )
        )
    if bar.other is not None:
        at = across(bar.other)
        parts.append(
            Markup(
                '<line class="b" stroke-width="2.5" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>'
            ).format(at, middle - 8, middle + 8)
        )
    parts.append(
        Markup('<circle class="fill-a" cx="{}" cy="{}" r="4.5"/>').format(across(bar.value), middle)
    )
    return join(parts)


def reliability_diagram(
    title: str,
    confidence: Sequence[float],
    accuracy: Sequence[float],
    share: Sequence[float],
    *,
    intervals: Pairs = (),
    before: Pairs = (),
) -> Markup:
    """Accuracy against confidence, bin by bin: the larger a dot, the more images are in its bin.

    Args:
        title: What is shown, for screen readers.
        confidence: Mean confidence of each bin that holds images.
        accuracy: Accuracy in each of them.
        share: Share of all images in each of them.
        intervals: Bounds of each accuracy, drawn as strokes.
        before: Points (confidence, accuracy) before calibration.
    """
    width, height = 520, 360
    axes = _Axes((0.0, 1.0), (0.0, 1.0), width, height)
    ideal = Series("perfect calibration", [(0, 0), (1, 1)], "dash")
    parts = [axes.frame("confidence of the model", "how often it was right"), _line(axes, ideal)]
    legend = [ideal]
    if before:
        legend.append(Series("before calibration", before, "b"))
        parts.append(_line(axes, legend[-1]))
        parts += [_dot(axes, "b", at, level, 3.0) for at, level in before]
    legend.append(Series("calibrated", list(zip(confidence, accuracy, strict=True))))
    for at, (low, high) in zip(confidence, intervals, strict=False):
        parts.append(
            Markup('<line class="a" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>').format(
                axes.across(at), axes.up(low), axes.up(high)
            )
        )
    most = max([*share, 1e-9])
    for (at, level), part in zip(legend[-1].points, share, strict=True):
        parts.append(_dot(axes, "a", at, level, round(3 + 6 * (part / most) ** 0.5, 1)))
    return join([_legend(legend), _svg(title, width, height, join(parts))])


def _line(axes: _Axes, line: Series) -> Markup:
    path = " ".join(f"{axes.across(px)},{axes.up(py)}" for px, py in line.points)
    kind = "line dash" if line.style == "dash" else f"line {line.style}"
    return Markup('<polyline class="{}" points="{}"/>').format(kind, path)


def _dot(axes: _Axes, style: str, x: float, y: float, radius: float) -> Markup:
    return Markup('<circle class="fill-{}" cx="{}" cy="{}" r="{}"/>').format(
        style, axes.across(x), axes.up(y), radius
    )


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round values between two bounds, at most ``most`` of them."""
    span = high - low
    if not span > 0:
        return [low]
    for step in (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.25, 0.5, 1.0):
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


def _band(axes: _Axes, line: Series) -> Markup:
    assert line.low is not None and line.high is not None
    xs = [px for px, _ in line.points]
    upper = [f"{axes.across(px)},{axes.up(v)}" for px, v in zip(xs, line.high, strict=True)]
    lower = [f"{axes.across(px)},{axes.up(v)}" for px, v in zip(xs, line.low, strict=True)]
    edge = " ".join([*upper, *reversed(lower)])
    return Markup('<polygon class="soft-{}" points="{}"/>').format(line.style, edge)


def _legend(series: Sequence[Series]) -> Markup:
    if len(series) < 2:
        return Markup()
    keys = {"dash": "n"}
    items = join(
        Markup('<li><i class="{}"></i>{}</li>').format(keys.get(line.style, line.style), line.name)
        for line in series
    )
    return Markup('<ul class="legend">{}</ul>').format(items)


def _svg(title: str, width: int, height: int, content: Markup, kind: str = "") -> Markup:
    return Markup(
        '<svg class="{}" viewBox="0 0 {} {}" role="img" aria-label="{}"><title>{}</title>{}</svg>'
    ).format(kind, width, height, title, title, content)
