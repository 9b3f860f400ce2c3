"""The race as one HTML page: accuracy against time and size, and the figures."""

from markupsafe import Markup

from graftline.reports import html
from graftline.reports.html import Column, Section, percent
from graftline.reports.scatter import Point, scatter_chart
from graftline_pipelines.local.race import Race

TITLE = "Backbone race"


def render(race: Race) -> str:
    """The page as one HTML document."""
    line = html.join([html.paragraph(race.why), html.code(f"backbone: {race.chosen}")])
    sections = [
        Section("Which backbone to take", line, "choice"),
        Section(
            "Accuracy against time",
            _chart(race, "latency_ms", "milliseconds an image on one core (ONNX Runtime, fp32)"),
            "time",
            "The joined points are the Pareto front: no other backbone is at least as accurate and "
            "as fast. The bars are 95% intervals.",
        ),
        Section(
            "Accuracy against size",
            _chart(race, "megabytes", "megabytes of weights in fp32"),
            "size",
            "The same points by the size of the weights.",
        ),
        Section("All figures", _table(race), "figures"),
    ]
    lead = (
        f"{len(race.entrants)} backbones, each with a linear probe on up to {race.images:,} "
        f"training images of {race.source}, cross-validated."
    )
    return html.html_page(TITLE, sections, lead=lead, footer=f"Snapshot {race.snapshot_id}")


def _chart(race: Race, what: str, x_title: str) -> Markup:
    points = [
        Point(e.name, getattr(e, what), e.accuracy, e.interval, marked=e.pareto)
        for e in race.entrants
    ]
    return scatter_chart(
        f"Accuracy against {x_title}", points, x_title=x_title, y_title="accuracy of the probe"
    )


def _table(race: Race) -> Markup:
    columns: list[Column | str] = [
        "backbone",
        Column("accuracy", number=True),
        "95% interval",
        Column("images", number=True),
        Column("ms an image", number=True),
        Column("MB", number=True),
        Column("pixels", number=True),
        "Pareto front",
        "stopped",
    ]
    rows = [
        (
            e.name,
            percent(e.accuracy),
            html.interval(e.interval),
            f"{e.images:,}",
            f"{e.latency_ms:.1f}",
            f"{e.megabytes:.1f}",
            str(e.image_size),
            "yes" if e.pareto else "",
            e.stopped,
        )
        for e in race.entrants
    ]
    return html.table(columns, rows)
