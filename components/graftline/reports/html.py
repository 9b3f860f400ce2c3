"""The pages a person reads: one HTML file each, nothing fetched from anywhere.

A page is a Jinja template of its step that extends ``base.html`` and is made of the macros of
``ui.html``, see :func:`render_page`:

    {% extends "base.html" %}
    {% block content %}
    {% import "ui.html" as ui with context %}
    {{ ui.banner("good", "All tests passed", reasons) }}
    {% call ui.section("classes", "Classes", intro="One row a class.") %}
      {{ ui.table(["class", column("images")], rows, sortable=true) }}
    {% endcall %}
    {% endblock %}

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
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import jinja2
import numpy as np
from markupsafe import Markup
from PIL import Image

import graftline
from graftline.redaction import redacted

Text = str | Markup
NOT_KNOWN = "–"


@dataclass(frozen=True)
class Cell:
    """A table cell.

    Attributes:
        text: What it says.
        value: It is sorted by this in place of its text.
        chip: Shown as a label of this kind: ``good``, ``bad``, ``warn`` or ``plain``.
        code: Shown as a name, path or identifier.
    """

    text: Text
    value: float | None = None
    chip: str = ""
    code: bool = False

    @property
    def sorts(self) -> bool:
        """Whether it is sorted by its value."""
        return self.value is not None and not math.isnan(self.value)


@dataclass(frozen=True)
class Column:
    """A table column; numbers stand on the right."""

    title: Text
    number: bool = False


@dataclass(frozen=True)
class Fact:
    """One line of a page's header, such as the run; with a link where it has an address."""

    name: str
    text: str
    link: str = ""

    def __post_init__(self) -> None:
        if self.link and urlsplit(self.link).scheme not in ("http", "https"):
            raise ValueError(f"{self.link!r} is not the address of a page")


@dataclass
class Contents:
    """The sections of a page, in the order in which its template makes them."""

    sections: list[tuple[str, str]] = field(default_factory=list)

    def add(self, anchor: str, name: str) -> None:
        """A section with its name in the navigation."""
        self.sections.append((anchor, name))


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


def render_page(
    template: str,
    title: str,
    *,
    package: str = "graftline.reports",
    facts: Sequence[Fact] = (),
    styles: Sequence[str] = (),
    scripts: Sequence[str] | None = (),
    data: Sequence[Data] = (),
    **values: Any,
) -> str:
    """A whole page as one HTML document.

    Args:
        template: In the folder ``templates`` of the package; it extends ``base.html``.
        title: Heading and title of the page.
        package: Where the template, the styles and the scripts are.
        facts: For the header: run, date, links.
        styles: Style sheets of this page, by file name.
        scripts: JavaScript of this page, by file name; None for a page without any.
        data: Values that the scripts read.
        values: What the template shows. ``kicker`` is the small line above the heading, ``lead``
            the paragraph below it, ``footer`` the last line.
    """
    sheets = [asset("page.css"), *(asset(name, package) for name in styles)]
    texts = []
    if scripts is not None:
        texts = [asset("page.js"), *(asset(name, package) for name in scripts)]
    code = [Markup(text) for text in texts]  # noqa: S704 -- our own files
    hashes = " ".join(f"'sha256-{_digest(script)}'" for script in code) or "'none'"
    defaults = {"kicker": "Graftline", "lead": "", "footer": ""}
    text = (
        _environment(package)
        .get_template(template)
        .render(
            title=title,
            facts=facts,
            style=Markup("\n".join(sheets)),  # noqa: S704 -- our own files
            scripts=code,
            script_hashes=Markup(hashes),  # noqa: S704 -- base64 of digests
            data=data,
            contents=Contents(),
            **{**defaults, **values},
        )
    )
    return redacted(text)


def compile_templates(package: str) -> None:
    """Compile a package's templates now: a page would wait a tenth of a second for it."""
    environment = _environment(package)
    for name in environment.list_templates(extensions=["html"]):
        environment.get_template(name)


def asset(name: str, package: str = "graftline.reports") -> str:
    """A file from a package's ``templates`` folder."""
    path = importlib.resources.files(package) / "templates" / name
    return path.read_text(encoding="utf-8")


def ui(macro: str, *values: Any) -> Markup:
    """What a macro of ``ui.html`` makes."""
    module = _environment("graftline.reports").get_template("ui.html").module
    made: Markup = getattr(module, macro)(*values)
    return made


def percent(value: float | None, digits: int = 1) -> str:
    """A share as a percentage; a dash where it is not known."""
    return NOT_KNOWN if value is None or math.isnan(value) else f"{100 * value:z.{digits}f}%"


def points(value: float | None, digits: int = 1) -> str:
    """A difference of shares in percentage points, with its sign."""
    if value is None or math.isnan(value):
        return NOT_KNOWN
    return f"{100 * value:+z.{digits}f}".replace("-", "−")


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
    # `optimize` of PNG takes 9 times as long (42 ms of a noisy 128 x 128) for 0.04% fewer bytes.
    options: dict[str, Any] = {"quality": 80} if form == "JPEG" else {}
    picture.save(stream, form, **options)
    encoded = base64.b64encode(stream.getvalue()).decode("ascii")
    return f"data:image/{form.lower()};base64,{encoded}"


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")


@functools.cache
def _environment(package: str) -> jinja2.Environment:
    """Templates of a package, and below them those of all pages."""
    packages = dict.fromkeys([package, "graftline.reports"])
    made = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(each, "templates") for each in packages]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        extensions=["jinja2.ext.do"],
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "as_cell": lambda found: found if isinstance(found, Cell) else Cell(found),
        "as_column": lambda found: found if isinstance(found, Column) else Column(found),
        "percent": percent,
        "points": points,
        "interval": interval,
        "count": "{:,}".format,
    }
    made.globals |= {
        "column": lambda title: Column(title, number=True),
        "cell": Cell,
        "code_cell": lambda text: Cell(text, code=True),
        "NOT_KNOWN": NOT_KNOWN,
        "version": graftline.__version__,
    }
    return made
