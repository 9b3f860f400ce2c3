import base64
import hashlib
import html.parser
import io
import json
import re
from collections.abc import Callable
from types import SimpleNamespace

import jinja2
import numpy as np
import pytest
from markupsafe import Markup
from PIL import Image

from graftline.reports import charts
from graftline.reports import html as report

HOSTILE = "<script>alert(1)</script>\"'&</title><img src=x onerror=alert(1)>"


class Reader(html.parser.HTMLParser):
    """Collects the tags, and every attribute that would fetch something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.fetched: list[str] = []
        self.handlers: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "action", "data", "poster", "srcset"):
                self.fetched.append(value or "")
            if name.startswith("on"):
                self.handlers.append(name)

    def handle_data(self, data: str) -> None:
        self.text += data


TEMPLATE = """
{% extends "base.html" %}
{% block content %}
{% import "ui.html" as ui with context %}
{{ ui.banner("good", x, [x]) }}
{% for anchor in ["one", "two", "three"] %}
{% call ui.section(anchor, x, intro=x) %}
{{ ui.cards([(x, x, x)]) }}
{{ ui.table([x, column(x)], [[x, x], [code_cell(x), cell(x, 1.0, "warn")]], caption=x) }}
{{ ui.paragraph(x) }}{{ ui.heading(x) }}{{ ui.folded(x, ui.code(x)) }}{{ ui.chip(x) }}
{{ ui.columns([ui.bullets([x]), x]) }}
<ul>{{ ui.picture("data:image/png;base64,AA==", x, x, x, x) }}{{ ui.picture(none, x) }}</ul>
{{ bars }}{{ lines }}
{% endcall %}
{% endfor %}
{{ ui.run_section(run) }}
{% endblock %}
"""


@pytest.fixture
def template(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Adds a template under the name of ``page.html``."""
    environment = report._environment("graftline.reports")

    def add(text: str) -> None:
        loaders = [jinja2.DictLoader({"page.html": text}), environment.loader]
        monkeypatch.setattr(environment, "loader", jinja2.ChoiceLoader(loaders))
        environment.cache.clear()

    return add


@pytest.fixture
def hostile_page(template: Callable[[str], None]) -> str:
    template(TEMPLATE)
    return report.render_page(
        "page.html",
        HOSTILE,
        lead=HOSTILE,
        kicker=HOSTILE,
        footer=HOSTILE,
        facts=[report.Fact(HOSTILE, HOSTILE), report.Fact(HOSTILE, HOSTILE, "https://x.org/?<a>")],
        data=[report.Data("values", {"label": HOSTILE})],
        x=HOSTILE,
        run=SimpleNamespace(
            steps=[(HOSTILE, "1 s", "1 s")], settings=[(report.Cell(HOSTILE, code=True), HOSTILE)]
        ),
        bars=charts.bar_chart(HOSTILE, [charts.Bar(HOSTILE, 0.5, (0.4, 0.6), 0.3)], marks=HOSTILE),
        lines=charts.line_chart(
            HOSTILE,
            [charts.Series(HOSTILE, [(0, 0), (1, 1)]), charts.Series(HOSTILE, [(0, 1)], "b")],
            x_title=HOSTILE,
            y_title=HOSTILE,
        ),
    )


def test_user_text_never_becomes_markup(hostile_page: str) -> None:
    reader = Reader(hostile_page)
    assert reader.tags.count("script") == 2  # the page's own, and the data block
    assert reader.tags.count("img") == 3  # the pictures of the sections
    assert reader.handlers == []
    assert HOSTILE in reader.text
    assert HOSTILE not in hostile_page  # always escaped, in attributes too


def test_the_page_fetches_nothing_and_allows_only_its_own_scripts(hostile_page: str) -> None:
    text = hostile_page
    reader = Reader(text)
    link = "https://x.org/?<a>"  # of the header: followed by a click, never by itself
    fetched = [address for address in reader.fetched if address != link]
    assert all(address.startswith(("#", "data:image/png;base64,AA==")) for address in fetched)
    assert link in reader.fetched
    # Outside the escaped text there is no other address at all.
    assert "http:" not in text and text.count("https:") == 1 and "@import" not in text
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None and "default-src 'none'" in policy[1]
    scripts = re.findall(r"<script>(.*?)</script>", text, flags=re.DOTALL)
    for script in scripts:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy[1].replace("&#39;", "'")


def test_data_comes_back_as_it_went_in(hostile_page: str) -> None:
    block = re.search(r'<script type="application/json" id="values">(.*?)</script>', hostile_page)
    assert block is not None
    assert json.loads(block[1]) == {"label": HOSTILE}


def test_figures_as_text() -> None:
    assert report.percent(0.98765) == "98.8%"
    assert report.percent(-0.0001) == "0.0%"
    assert report.percent(float("nan")) == report.NOT_KNOWN
    assert report.points(-0.01) == "−1.0"
    assert report.points(-0.0001) == "+0.0"
    assert report.points(0.004) == "+0.4"
    assert report.interval((0.5, 0.75)) == "50.0% – 75.0%"
    assert report.interval(None) == report.NOT_KNOWN


@pytest.mark.parametrize(("height", "width"), [(8, 8), (1, 300), (400, 90), (64, 64), (65, 64)])
def test_thumbnails_keep_shape_and_stay_small(height: int, width: int) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    uri = report.thumbnail(image, 128)
    form, encoded = re.fullmatch(r"data:image/(jpeg|png);base64,(.*)", uri).groups()
    picture = Image.open(io.BytesIO(base64.b64decode(encoded)))
    assert max(picture.size) <= 128
    if (height, width) == (8, 8):
        assert form == "png"
        assert picture.size == (128, 128)
        assert np.array_equal(np.asarray(picture)[::16, ::16], image)


def test_sorting_by_value_not_by_text() -> None:
    rows = [[report.Cell("10%", 0.1)], [report.Cell("?", float("nan"))]]
    text = report.ui("table", ["a"], rows)
    assert 'data-value="0.1"' in text
    assert "nan" not in text


def test_sections_are_in_the_navigation_in_their_order(hostile_page: str) -> None:
    navigation = re.search(r"<nav.*?</nav>", hostile_page, flags=re.DOTALL)
    assert navigation is not None
    assert re.findall(r'href="#(\w+)"', navigation[0]) == ["one", "two", "three", "run"]


def test_a_page_without_a_run_has_no_section_of_it(template: Callable[[str], None]) -> None:
    template(TEMPLATE)
    text = report.render_page(
        "page.html", "t", x="x", bars="", lines="", run=SimpleNamespace(steps=[], settings=[])
    )
    assert 'id="run"' not in text and 'class="facts"' not in text.partition("<body>")[2]


def test_a_misspelt_value_is_an_error_and_no_gap(template: Callable[[str], None]) -> None:
    template('{% extends "base.html" %}{% block content %}{{ mising }}{% endblock %}')
    with pytest.raises(jinja2.UndefinedError, match="mising"):
        report.render_page("page.html", "t")


def test_axis_ticks_lie_within_their_bounds() -> None:
    for low, high in [(0.0, 1.0), (0.9, 1.0), (0.95, 1.0), (0.993, 1.0), (0.0, 0.03)]:
        values = charts.ticks(low, high)
        assert 2 <= len(values) <= 7
        assert all(low - 1e-9 <= value <= high + 1e-9 for value in values)
    assert charts.ticks(0.5, 0.5) == [0.5]


def test_markup_is_kept_and_text_is_escaped() -> None:
    assert report.ui("columns", [Markup("<b>"), "<i>"]).count("<b>") == 1
    assert "&lt;i&gt;" in report.ui("columns", [Markup("<b>"), "<i>"])


def test_charts_are_named_for_screen_readers() -> None:
    chart = charts.reliability_diagram("Reliability", [0.2, 0.8], [0.3, 0.7], [0.4, 0.6])
    assert 'role="img" aria-label="Reliability"' in chart
    assert chart.count("<circle") == 2


def test_bins_of_few_images_are_drawn_hollow() -> None:
    chart = charts.reliability_diagram(
        "Reliability", [0.2, 0.8], [0.3, 0.7], [0.1, 0.9], sparse=[True, False]
    )
    assert chart.count('class="hollow"') == 1 and chart.count('class="fill-a"') == 1
