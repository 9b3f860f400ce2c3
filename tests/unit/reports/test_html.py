import base64
import hashlib
import html.parser
import io
import json
import re

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


def hostile_page() -> str:
    body = report.join(
        [
            report.cards([(HOSTILE, HOSTILE, HOSTILE)]),
            report.table([HOSTILE], [[HOSTILE], [report.Cell(HOSTILE, 1.0)]], caption=HOSTILE),
            report.paragraph(HOSTILE),
            report.folded(HOSTILE, report.code(HOSTILE)),
            report.chip(HOSTILE),
            report.columns(report.bullets([HOSTILE])),
            charts.bar_chart(HOSTILE, [charts.Bar(HOSTILE, 0.5, (0.4, 0.6), 0.3)], marks=HOSTILE),
            charts.line_chart(
                HOSTILE,
                [charts.Series(HOSTILE, [(0, 0), (1, 1)]), charts.Series(HOSTILE, [(0, 1)], "b")],
                x_title=HOSTILE,
                y_title=HOSTILE,
            ),
        ]
    )
    section = report.Section(HOSTILE, body, anchor="one", intro=HOSTILE)
    return report.html_page(
        HOSTILE,
        [section, section, section],
        lead=HOSTILE,
        kicker=HOSTILE,
        banner=report.banner("good", HOSTILE, [HOSTILE]),
        footer=HOSTILE,
        data=[report.Data("values", {"label": HOSTILE})],
    )


def test_user_text_never_becomes_markup() -> None:
    reader = Reader(hostile_page())
    assert reader.tags.count("script") == 2  # the page's own, and the data block
    assert "img" not in reader.tags
    assert reader.handlers == []
    assert HOSTILE in reader.text


def test_the_page_fetches_nothing_and_allows_only_its_own_scripts() -> None:
    text = hostile_page()
    reader = Reader(text)
    assert all(address.startswith("#") for address in reader.fetched)
    # Outside the escaped text there is no address at all.
    assert "http:" not in text and "https:" not in text and "@import" not in text
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None and "default-src 'none'" in policy[1]
    scripts = re.findall(r"<script>(.*?)</script>", text, flags=re.DOTALL)
    for script in scripts:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy[1].replace("&#39;", "'")


def test_data_comes_back_as_it_went_in() -> None:
    text = hostile_page()
    block = re.search(r'<script type="application/json" id="values">(.*?)</script>', text)
    assert block is not None
    assert json.loads(block[1]) == {"label": HOSTILE}


def test_figures_as_text() -> None:
    assert report.percent(0.98765) == "98.8%"
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
    text = report.table(["a"], [[report.Cell("10%", 0.1)], [report.Cell("?", float("nan"))]])
    assert 'data-value="0.1"' in text
    assert "nan" not in text


def test_axis_ticks_lie_within_their_bounds() -> None:
    for low, high in [(0.0, 1.0), (0.9, 1.0), (0.95, 1.0), (0.993, 1.0), (0.0, 0.03)]:
        values = charts.ticks(low, high)
        assert 2 <= len(values) <= 7
        assert all(low - 1e-9 <= value <= high + 1e-9 for value in values)
    assert charts.ticks(0.5, 0.5) == [0.5]


def test_markup_is_kept_and_text_is_escaped() -> None:
    assert report.join([Markup("<b>"), "<i>"]) == "<b>&lt;i&gt;"


def test_charts_are_named_for_screen_readers() -> None:
    chart = charts.reliability_diagram("Reliability", [0.2, 0.8], [0.3, 0.7], [0.4, 0.6])
    assert 'role="img" aria-label="Reliability"' in chart
    assert chart.count("<circle") == 2
