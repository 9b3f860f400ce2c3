"""The pages a person reads: one HTML file each, nothing fetched from anywhere.

Text is escaped unless it is :class:`Markup`. Labels, file names and sources come from users and
are hostile until escaped. A content security policy inside the page allows its own scripts, by
their digest, and no request at all. Pages follow the reader's light or dark setting and print.
"""

import base64
import functools
import hashlib
import importlib.resources
import io
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup, escape
from PIL import Image

import graftline
from graftline.redaction import redacted

Text = str | Markup
NOT_KNOWN = "–"


@dataclass(frozen=True)
class Section:
    """One part of a page.

    Attributes:
        title: Its heading.
        body: Its content; build it with the helpers of this module.
        intro: A sentence or two on what is shown and how to read it.
        anchor: Name to link to.
        short: Its name in the navigation, where the heading is long.
    """

    title: str
    body: Markup
    anchor: str
    intro: Text = ""
    short: str = ""


@dataclass(frozen=True)
class Cell:
    """A table cell that sorts by a value other than its text."""

    text: Text
    value: float | None = None


@dataclass(frozen=True)
class Column:
    """A table column; numbers stand on the right."""

    title: Text
    number: bool = False


@dataclass(frozen=True)
class Data:
    """Values for a page's script, kept in the page as JSON."""

    name: str
    value: Any = field(repr=False)

    @property
    def json(self) -> Markup:
        """JSON that cannot end the script element it stands in."""
        text = json.dumps(self.value, allow_nan=False, separators=(",", ":"))
        escaped = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
        return Markup(escaped)  # noqa: S704 -- escaped on the line above


def html_page(
    title: str,
    sections: Sequence[Section],
    *,
    kicker: str = "Graftline",
    lead: Text = "",
    banner: Markup | None = None,
    footer: str = "",
    styles: Sequence[str] = (),
    scripts: Sequence[str] = (),
    data: Sequence[Data] = (),
) -> str:
    """A whole page as one HTML document.

    Args:
        title: Heading and title of the page.
        sections: What it holds, in order.
        kicker: The small line above the heading.
        lead: The paragraph below the heading.
        banner: What must be seen first, see :func:`banner`.
        footer: The last line.
        styles: Style sheets of this page; only ours.
        scripts: JavaScript of this page; only code of ours, never a user's text.
        data: Values that the scripts read.
    """
    style = Markup("\n".join([asset("page.css"), *styles]))  # noqa: S704 -- our own files
    code = [Markup(script) for script in (asset("page.js"), *scripts)]  # noqa: S704 -- ours
    hashes = " ".join(f"'sha256-{_digest(script)}'" for script in code)
    template = _environment().get_template("page.html")
    text = template.render(
        title=title,
        sections=sections,
        kicker=kicker,
        lead=lead,
        banner=banner or "",
        footer=footer,
        style=style,
        scripts=code,
        script_hashes=Markup(hashes),  # noqa: S704 -- base64 of digests
        data=data,
        version=graftline.__version__,
    )
    return redacted(text)


def asset(name: str, package: str = "graftline.reports") -> str:
    """A file from a package's ``templates`` folder."""
    path = importlib.resources.files(package) / "templates" / name
    return path.read_text(encoding="utf-8")


def banner(kind: str, headline: str, reasons: Iterable[Text]) -> Markup:
    """The box at the top of a page.

    Args:
        kind: ``good``, ``bad`` or ``plain``.
        headline: What was decided.
        reasons: Why, one sentence each.
    """
    mark = {"good": "✓", "bad": "✕", "plain": "i"}[kind]
    return Markup(
        '<div class="banner {}" role="status"><span class="mark" aria-hidden="true">{}</span>'
        "<div><h2>{}</h2>{}</div></div>"
    ).format(kind, mark, headline, bullets(reasons))


def bullets(items: Iterable[Text]) -> Markup:
    """A list of sentences; nothing where there are none."""
    lines = join(Markup("<li>{}</li>").format(item) for item in items)
    return Markup("<ul>{}</ul>").format(lines) if lines else Markup()


def cards(items: Iterable[tuple[Text, Text, Text]]) -> Markup:
    """Key figures: triples of name, value and a line below it."""
    boxes = [
        Markup('<div><dt>{}</dt><dd class="value{}">{}</dd><dd class="under">{}</dd></div>').format(
            name, " long" if len(value) > 11 else "", value, under
        )
        for name, value, under in items
    ]
    return Markup('<dl class="cards">{}</dl>').format(join(boxes))


def table(
    columns: Sequence[Column | str],
    rows: Iterable[Sequence[Cell | Text]],
    *,
    caption: Text = "",
    sortable: bool = False,
) -> Markup:
    """A table; wide ones scroll sideways in place of the page."""
    heads = [column if isinstance(column, Column) else Column(column) for column in columns]
    head = join(
        Markup('<th scope="col"{}>{}</th>').format(_number(column), column.title)
        for column in heads
    )
    body = []
    for row in rows:
        cells = [cell if isinstance(cell, Cell) else Cell(cell) for cell in row]
        line = join(
            Markup("<td{}{}>{}</td>").format(_number(column), _value(cell), cell.text)
            for column, cell in zip(heads, cells, strict=True)
        )
        body.append(Markup("<tr>{}</tr>").format(line))
    return Markup(
        '<div class="scroll"><table{}>{}<thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>'
    ).format(
        Markup(' class="sortable"') if sortable else "",
        Markup("<caption>{}</caption>").format(caption) if caption else "",
        head,
        join(body),
    )


def paragraph(text: Text, kind: str = "") -> Markup:
    """A paragraph; ``kind`` is a class of the style sheet, such as ``quiet`` or ``note warn``."""
    return Markup('<p class="{}">{}</p>').format(kind, text)


def heading(text: Text) -> Markup:
    """A heading within a section."""
    return Markup("<h3>{}</h3>").format(text)


def columns(*parts: Markup) -> Markup:
    """Parts side by side where the window is wide enough."""
    return Markup('<div class="columns">{}</div>').format(
        join(Markup("<div>{}</div>").format(part) for part in parts)
    )


def folded(summary: Text, body: Markup) -> Markup:
    """Content that is shown on a click."""
    return Markup("<details><summary>{}</summary>{}</details>").format(summary, body)


def chip(text: Text, kind: str = "plain") -> Markup:
    """A small label; ``kind`` is ``good``, ``bad``, ``warn`` or ``plain``."""
    return Markup('<span class="chip {}">{}</span>').format(kind, text)


def code(text: Text) -> Markup:
    """A name, path or identifier."""
    return Markup("<code>{}</code>").format(text)


def join(parts: Iterable[Text]) -> Markup:
    """Parts one after the other, each escaped where it is not markup."""
    return Markup().join(escape(part) for part in parts)


def percent(value: float | None, digits: int = 1) -> str:
    """A share as a percentage; a dash where it is not known."""
    return NOT_KNOWN if value is None or math.isnan(value) else f"{100 * value:.{digits}f}%"


def points(value: float | None, digits: int = 1) -> str:
    """A difference of shares in percentage points, with its sign."""
    if value is None or math.isnan(value):
        return NOT_KNOWN
    rounded = round(100 * value, digits) + 0.0  # no "-0.0"
    return f"{rounded:+.{digits}f}".replace("-", "−")


def interval(bounds: Sequence[float] | None, digits: int = 1) -> str:
    """An interval of shares, such as ``95.2% – 98.1%``; a dash where it is not known."""
    if bounds is None or any(math.isnan(bound) for bound in bounds):
        return NOT_KNOWN
    return f"{percent(bounds[0], digits)} – {percent(bounds[1], digits)}"


def thumbnail(image: np.ndarray, size: int = 128) -> str:
    """A picture as a data URI: JPEG for photographs, PNG where the picture is tiny.

    Args:
        image: uint8, shape (H, W, 3).
        size: Its longer side at most, in pixels; small pictures are enlarged without smoothing.
    """
    picture = Image.fromarray(image)
    longest = max(picture.size)
    if longest * 2 <= size:
        factor = size // longest
        picture = picture.resize(
            (picture.width * factor, picture.height * factor), Image.Resampling.NEAREST
        )
        return _data_uri(picture, "PNG")
    picture.thumbnail((size, size))
    return _data_uri(picture, "JPEG")


def _data_uri(picture: Image.Image, form: str) -> str:
    stream = io.BytesIO()
    options: dict[str, Any] = {"quality": 80} if form == "JPEG" else {"optimize": True}
    picture.save(stream, form, **options)
    encoded = base64.b64encode(stream.getvalue()).decode("ascii")
    return f"data:image/{form.lower()};base64,{encoded}"


def _number(column: Column) -> Markup:
    return Markup(' class="number"') if column.number else Markup()


def _value(cell: Cell) -> Markup:
    if cell.value is None or math.isnan(cell.value):
        return Markup()
    return Markup(' data-value="{}"').format(f"{cell.value:.9g}")


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")


@functools.cache
def _environment() -> jinja2.Environment:
    loader = jinja2.PackageLoader("graftline.reports", "templates")
    return jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
