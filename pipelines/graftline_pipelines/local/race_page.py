"""The race as one HTML page: accuracy against time and size, and the figures."""

from markupsafe import Markup

from graftline.reports.html import interval, percent, render_page
from graftline.reports.scatter import Point, scatter_chart
from graftline_pipelines.local.race import Race

TITLE = "Backbone race"


def render(race: Race) -> str:
    """The page as one HTML document."""
    return render_page(
        "race.html",
        TITLE,
        package="graftline_pipelines.local",
        lead=f"{len(race.entrants)} backbones, each with a linear probe on up to {race.images:,} "
        f"training images of {race.source}, cross-validated.",
        footer=f"Snapshot {race.snapshot_id}",
        race=race,
        by_time=_chart(
            race, "latency_ms", "milliseconds an image on one core (ONNX Runtime, fp32)"
        ),
        by_size=_chart(race, "megabytes", "megabytes of weights in fp32"),
        rows=[
            (
                entrant.name,
                percent(entrant.accuracy),
                interval(entrant.interval),
                f"{entrant.images:,}",
                f"{entrant.latency_ms:.1f}",
                f"{entrant.megabytes:.1f}",
                str(entrant.image_size),
                "yes" if entrant.pareto else "",
                entrant.stopped,
            )
            for entrant in race.entrants
        ],
    )


def _chart(race: Race, what: str, x_title: str) -> Markup:
    points = [
        Point(e.name, getattr(e, what), e.accuracy, e.interval, marked=e.pareto)
        for e in race.entrants
    ]
    return scatter_chart(
        f"Accuracy against {x_title}", points, x_title=x_title, y_title="accuracy of the probe"
    )
