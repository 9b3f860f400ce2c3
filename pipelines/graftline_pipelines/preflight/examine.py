"""Everything about a run file that can be known before anything runs.

``graftline check`` prints all of it. ``graftline run`` asks only whether there is a problem, so
that a run does not spend an hour on its way to a mistake that was there at the start.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from graftline.errors import ConfigurationError, GraftlineError, WeightsError
from graftline_pipelines.runfile.settings import RunSettings


@dataclass
class Preflight:
    """What was found: facts for a person to read, and problems that would stop a run."""

    facts: dict[str, str] = field(default_factory=dict)
    problems: list[tuple[str, GraftlineError]] = field(default_factory=list)

    def look(self, key: str, question: Callable[[], str]) -> None:
        """Ask one question; its answer is a fact, its error a problem."""
        try:
            self.facts[key] = question()
        except GraftlineError as error:
            self.problems.append((key, error))

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "ok": not self.problems,
            "facts": self.facts,
            "problems": [
                {"key": key, "what": error.what, "why": error.why, "fix": error.fix}
                for key, error in self.problems
            ],
        }


class PreflightError(ConfigurationError):
    """All that would stop the run."""

    def __init__(self, problems: list[tuple[str, GraftlineError]]) -> None:
        self.problems = problems
        count = f"{len(problems)} problems stop" if len(problems) > 1 else "A problem stops"
        told = "\n".join(f"{key}: {error}" for key, error in problems)
        super().__init__(f"{count} this run before it starts:\n{told}")


def require(settings: RunSettings) -> None:
    """Ask what costs no more than seconds, and raise all problems at once.

    Raises:
        PreflightError: with every problem found.
    """
    found = Preflight()
    found.look("store", lambda: _store(settings))
    found.look("data.source", lambda: _source_exists(settings))
    found.look("tracking.uri", lambda: _tracking(settings))
    found.look("backbone", lambda: _backbone(settings))
    if found.problems:
        raise PreflightError(found.problems)


def examine(settings: RunSettings) -> Preflight:
    """Ask everything, including what a listing of the source tells."""
    found = Preflight()
    found.look("data.source", lambda: _source(settings))
    found.look("store", lambda: _store(settings))
    found.look("backbone", lambda: _backbone(settings))
    found.look("tracking.uri", lambda: _tracking(settings))
    if not any(key == "tracking.uri" for key, _ in found.problems):
        found.look("champion", lambda: _champion(settings))
    found.look("pipeline", lambda: _pipeline(settings))
    found.facts["a run would"] = _plan(settings)
    return found


def show(found: Preflight, console: Console) -> None:
    """Print what was found for a person."""
    table = Table(show_header=False, box=None, padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for key, text in found.facts.items():
        table.add_row(key, escape(text))
    for key, error in found.problems:
        table.add_row(f"[red]{escape(key)}[/]", f"[red]{escape(str(error))}[/]")
    console.print(table)
    if found.problems:
        count = len(found.problems)
        console.print(f"[red]{count} problem{'s' if count > 1 else ''} would stop a run.[/]")
    else:
        console.print("[green]Ready to run.[/]")


def _store(settings: RunSettings) -> str:
    from graftline.storage import open_store

    open_store(settings.store).check_writable()
    return f"{settings.store}, writable"


def _source_exists(settings: RunSettings) -> str:
    source = open_settings_source(settings)
    _check_entries(settings, source, source.entries())
    return settings.data.source


def _source(settings: RunSettings) -> str:
    from graftline.steps.ingest.checks import MIN_IMAGES_PER_CLASS, check_listing

    source = open_settings_source(settings)
    entries = source.entries()
    carved = _check_entries(settings, source, entries)
    told = check_listing(source, entries, MIN_IMAGES_PER_CLASS)
    notes = "".join(f" {note}" for note in dict.fromkeys([*source.notes, carved]) if note)
    tree = f"\n{source.tree}" if source.tree else ""
    return f"{settings.data.source}: {told}.{notes}{tree}"


def _check_entries(settings: RunSettings, source: Any, entries: Any) -> str:
    """Refuse what a listing tells that no later step can work with."""
    from graftline.steps.ingest.checks import MIN_IMAGES_PER_CLASS, check_given, check_listing

    data = settings.data
    split = data.split.model_dump()
    carved = check_given(source, entries, split, MIN_IMAGES_PER_CLASS, data.missing_splits)
    check_listing(source, entries, MIN_IMAGES_PER_CLASS)
    return carved


def open_settings_source(settings: RunSettings) -> Any:
    """The source that a run file names."""
    from graftline.data.sources import open_source
    from graftline.data.sources.base import Columns, Reading

    data = settings.data
    columns = Columns(
        data.image_column,
        data.label_column,
        data.split_column,
        data.group_column,
        data.attributes,
    )
    reading = Reading(data.layout, data.exclude, data.similar_labels)
    return open_source(data.source, data.format, columns, reading)


def _tracking(settings: RunSettings) -> str:
    from graftline.tracking.mlflow_run import connect

    connect(settings.tracking.uri)
    return (
        f"{settings.tracking.uri} answers; experiment {settings.experiment!r}, "
        f"registered model {settings.registered_model!r}"
    )


def _champion(settings: RunSettings) -> str:
    from graftline.tracking.registry import open_registry

    champion = open_registry(settings.tracking.uri).champion(settings.registered_model)
    if champion is None:
        return "none yet: the first model has to pass the floors only"
    return f"version {champion.version}, trained on snapshot {champion.snapshot_id}"


def _backbone(settings: RunSettings) -> str:
    fit = settings.image.fit
    return _network(settings) + ("" if fit == "crop" else f"; image.fit: {fit}")


def _network(settings: RunSettings) -> str:
    from graftline.models import lookup

    # The table answers without PyTorch, whose import alone takes seconds.
    entry = lookup.one(settings.backbone)
    if entry is not None and settings.weights is None and settings.image_size is None:
        weights = (
            "available locally"
            if lookup.available_locally([entry])
            else "downloaded when first needed"
        )
        return (
            f"{entry.name}, {entry.parameters / 1e6:.1f} M parameters, {entry.feature_dim} "
            f"features, {entry.preprocessing.input_size} px; weights {weights}"
        )
    from graftline.models.backbone import resolve

    spec = resolve(settings.backbone, weights=settings.weights, image_size=settings.image_size)
    if settings.weights is not None and not spec.available_locally:
        raise WeightsError(
            f"There are no weights at '{spec.weights}'.",
            fix="Correct `weights`, or leave it out for the library's own.",
        )
    return (
        f"{spec.name}, {spec.parameters / 1e6:.1f} M parameters, {spec.feature_dim} features, "
        f"{spec.preprocessing.input_size} px; weights {settings.weights or spec.weights}"
    )


def _pipeline(settings: RunSettings) -> str:
    import tempfile
    from pathlib import Path

    from graftline_pipelines.graphs.compile import compile_to

    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "pipeline.yaml"
        compile_to(settings, "train", output)
        return f"compiles, {output.stat().st_size / 1024:.0f} KiB"


def _plan(settings: RunSettings) -> str:
    steps = ["ingest", "extract_features (only images that the store lacks)", "fit_head"]
    if settings.strategy == "auto":
        steps.append("fine_tune (only if the measurement asks for it)")
    elif settings.strategy in ("fine_tune", "scratch"):
        steps.append("fine_tune")
    return " -> ".join([*steps, "evaluate", "export_onnx", "promote"])
