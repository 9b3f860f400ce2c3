"""Everything about a run file that can be known before anything runs.

``graftline check`` prints all of it. ``graftline run`` asks the same and stops at a problem, so
that a run does not spend an hour on its way to a mistake that was there at the start.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from graftline.errors import GraftlineError, WeightsError
from graftline_pipelines.preflight.data import (
    check_source,
    check_space,
    check_test_images,
    note_unknown_source,
    open_settings_source,
)
from graftline_pipelines.preflight.report import Preflight, PreflightError, show_notes
from graftline_pipelines.preflight.store import check_store
from graftline_pipelines.runfile.settings import RunSettings

Asking = Callable[[str], None]
Elsewhere = Callable[[RunSettings], Preflight | None]
LATER = ("the backbone's weights", "MLflow's experiment", "the champion", "the pipeline")
LARGEST_READ = 2**31  # bytes of a local checkpoint that is read to see whether it fits


def require(
    settings: RunSettings,
    console: Console | None = None,
    asking: Asking = lambda _: None,
    elsewhere: Elsewhere = lambda _: None,
    all_elsewhere: Elsewhere = lambda _: None,
) -> None:
    """Ask everything that a run needs, and raise all problems at once.

    A local MLflow whose folder was moved is brought in order first.

    Args:
        settings: The run file, with absolute paths.
        console: Where notes are told.
        asking: Is told what is asked.
        elsewhere: Asks about MLflow in a process that has imported it; None where it cannot.
        all_elsewhere: Asks everything in such a process.

    Raises:
        PreflightError: with every problem found.
    """
    _relocate(settings, console)
    found = all_elsewhere(settings)
    if found is None:
        found, _ = ask_everything(settings, asking, elsewhere)
    _note_single_node(settings, found)
    if found.problems:
        raise PreflightError(found.problems)
    if console is not None:
        show_notes(found, console)


def examine(settings: RunSettings, asking: Asking = lambda _: None) -> Preflight:
    """Ask the same, and what a run would do."""
    found, entries = ask_everything(settings, asking)
    if not found.unasked:
        from graftline_pipelines.preflight.forecast import training_forecast

        found.look("pipeline", lambda: _pipeline(settings))
        found.look("fine-tuning", lambda: training_forecast(settings, entries))
    if not found.problems:
        found.facts["a run would"] = _plan(settings)
    return found


def ask_everything(
    settings: RunSettings,
    asking: Asking = lambda _: None,
    elsewhere: Elsewhere = lambda _: None,
) -> tuple[Preflight, list[Any]]:
    """The cheap questions first; those that need a large library only if all went well.

    Returns:
        What was found, and the source's entries.
    """
    found = Preflight(asking=asking)
    found.look("store", lambda: check_store(settings.store))
    entries = check_source(settings, found)
    check_space(settings, entries, found)
    found.look("backbone", lambda: _known(settings))
    found.look("tracking.uri", lambda: _answers(settings))
    if found.problems:
        found.unasked = [*LATER]
        return found, entries
    found.look("backbone", lambda: _backbone(settings))
    asking("tracking.uri")
    of_mlflow = elsewhere(settings)
    if of_mlflow is None:
        ask_mlflow(settings, found)
    else:
        found.take(of_mlflow)
    if str(found.facts.get("champion", "")).startswith("version"):
        note_unknown_source(settings, found)
    first = found.failed("tracking.uri") or found.facts.get("champion") == NO_CHAMPION
    check_test_images(settings, entries, found, first=first)
    return found, entries


def _note_single_node(settings: RunSettings, found: Preflight) -> None:
    """Say that what runs here trains on this machine alone."""
    section = "scratch" if settings.strategy == "scratch" else "fine_tune"
    nodes = getattr(settings, section).nodes
    if nodes > 1 and settings.strategy in ("auto", "fine_tune", "scratch"):
        text = (
            f"{nodes} nodes train together on a cluster only. This run trains on this machine "
            f"alone, where `{section}.processes` shares each batch among processes."
        )
        found.notes.append((f"{section}.nodes", text))


def ask_mlflow(settings: RunSettings, found: Preflight) -> None:
    """Ask what needs MLflow's own library, which takes seconds to import."""
    found.look("tracking.uri", lambda: _tracking(settings, found))
    if not found.failed("tracking.uri"):
        found.look("champion", lambda: _champion(settings))


def _known(settings: RunSettings) -> str:
    from graftline.models.known import check_known
    from graftline.models.weights import location
    from graftline.storage.uri import local_path

    check_known(settings.backbone)
    weights = str(settings.weights or "")
    if weights.startswith(("/", "file://")):
        path = local_path(location.parse(weights).location)
        if path is not None and not path.exists():
            raise _no_weights(weights)
    return ""


def _answers(settings: RunSettings) -> str:
    from graftline.tracking.readiness import check_answers

    check_answers(settings.tracking.uri)
    return ""


def _tracking(settings: RunSettings, found: Preflight) -> str:
    from graftline.tracking import relocation
    from graftline.tracking.readiness import check_ready, exists

    uri = settings.tracking.uri
    moved = relocation.find(uri)
    if moved is not None:
        found.notes.append(("tracking.uri", _moved(moved.before, copied=moved.copied)))
    check_ready(uri, settings.experiment, settings.registered_model, moved=moved is not None)
    return (
        f"{uri} {'answers' if exists(uri) else 'is made by the first run'}; "
        f"experiment {settings.experiment!r}, "
        f"registered model {settings.registered_model!r}"
    )


def _moved(before: object, *, copied: bool) -> str:
    if copied:
        return (
            f"MLflow's records here name files in {before}, from where this folder was copied. A "
            "run would write there. `graftline relocate RUN.yaml` lets them name the files here."
        )
    return (
        f"MLflow's records name files in {before}, which is gone: this folder was moved. The "
        "next run, or `graftline relocate RUN.yaml`, lets them name the files here."
    )


def _relocate(settings: RunSettings, console: Console | None) -> None:
    """Bring the records of a moved folder in order; a copy's stay until somebody says so."""
    from graftline.tracking import relocation

    moved = relocation.find(settings.tracking.uri)
    if moved is None or moved.copied:
        return
    changed = relocation.apply(moved)
    carry_source(settings, *moved.roots)
    if console is not None:
        console.print(
            f"[yellow]Note:[/] this folder was moved from {escape(str(moved.before))}; "
            f"{changed:,} of MLflow's records now name the files here.",
            highlight=False,
            soft_wrap=not console.is_terminal,
        )


def carry_source(settings: RunSettings, before: Path, now: Path) -> bool:
    """Let the source in a folder that was moved keep its splits, and what was looked at.

    Args:
        settings: The run file, with absolute paths.
        before: The folder as it was.
        now: As it is.

    Returns:
        Whether anything was remembered of it.
    """
    from graftline.steps.ingest.moved_source import carry_memory, uri_before
    from graftline.storage import open_store

    try:
        uri = open_settings_source(settings).uri
        was = uri_before(uri, before.resolve(), now.resolve())
        return was is not None and carry_memory(open_store(settings.store), was, uri)
    except GraftlineError:  # of a source or store that cannot be read: said by its own check
        return False


NO_CHAMPION = "none yet: the first model has to pass the floors only"


def _champion(settings: RunSettings) -> str:
    from graftline.tracking import relocation
    from graftline.tracking.readiness import check_champion, exists
    from graftline.tracking.registry import open_registry

    moved = relocation.find(settings.tracking.uri)
    if moved is not None and not moved.copied:
        return "known after the folder's records are in order"
    if not exists(settings.tracking.uri):
        return NO_CHAMPION
    champion = open_registry(settings.tracking.uri).champion(settings.registered_model)
    if champion is None:
        return NO_CHAMPION
    check_champion(champion)
    return f"version {champion.version}, trained on snapshot {champion.snapshot_id}"


def _backbone(settings: RunSettings) -> str:
    fit = settings.image.fit
    return _network(settings) + ("" if fit == "crop" else f"; image.fit: {fit}")


def _network(settings: RunSettings) -> str:
    from graftline.models import lookup

    # The table answers without PyTorch, whose import alone takes seconds.
    entry = lookup.one(settings.backbone)
    if entry is not None and settings.weights is None and settings.image_size is None:
        weights = _published(settings, entry.name, entry.source)
        return (
            f"{entry.name}, {entry.parameters / 1e6:.1f} M parameters, {entry.feature_dim} "
            f"features, {entry.preprocessing.input_size} px; weights {weights}"
        )
    from graftline.models.architectures import find
    from graftline.models.backbone import resolve

    spec = resolve(settings.backbone, weights=settings.weights, image_size=settings.image_size)
    if settings.weights is None:
        known = find(settings.backbone)
        _published(settings, known.full_name, known.source)
    elif not spec.available_locally:
        raise _no_weights(spec.weights)
    elif settings.weights != "random":
        _check_fit(settings)
    return (
        f"{spec.name}, {spec.parameters / 1e6:.1f} M parameters, {spec.feature_dim} features, "
        f"{spec.preprocessing.input_size} px; weights {settings.weights or spec.weights}"
    )


def _no_weights(place: str) -> WeightsError:
    return WeightsError(
        f"There are no weights at '{place}'.",
        fix="Correct `weights`, or leave it out for the library's own.",
    )


def _published(settings: RunSettings, name: str, source: str) -> str:
    """Where the library's own weights would come from.

    Raises:
        WeightsError: They are not on this machine, and cannot be downloaded.
    """
    from graftline.models.weights import published
    from graftline.storage import open_store

    origin = published.origin(name, source, open_store(settings.store))
    if origin.available_locally:
        return "mirrored in the store" if origin.kind == "mirror" else "available locally"
    published.check_obtainable(source, name)
    return f"downloaded when first needed, from {origin.location}"


def _check_fit(settings: RunSettings) -> None:
    """Read a local checkpoint, which takes a second or two: it may be of another network."""
    from graftline.models.backbone import build
    from graftline.storage.uri import local_path

    path = local_path(str(settings.weights).partition("#")[0])
    if path is not None and path.stat().st_size <= LARGEST_READ:
        build(settings.backbone, weights=settings.weights, image_size=settings.image_size)


def _pipeline(settings: RunSettings) -> str:
    import tempfile

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
