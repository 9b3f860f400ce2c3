"""The source before a run: whether it can be learned from, and how much it can show."""

from collections import Counter
from pathlib import Path
from typing import Any

from graftline.errors import ConfigurationError, DataError, GraftlineError, StoreError
from graftline.steps.evaluate.config import FEW_IMAGES
from graftline_pipelines.local.screen import size_of
from graftline_pipelines.preflight.report import Preflight
from graftline_pipelines.runfile.settings import RunSettings

KEY = "data.source"


def open_settings_source(settings: RunSettings) -> Any:
    """The source that a run file names."""
    from graftline.data.sources import open_source

    data = settings.data
    return open_source(data.source, data.format, data.columns, data.reading)


def check_source(settings: RunSettings, found: Preflight) -> list[Any]:
    """Ask all that a listing of the source tells; its entries, none where it cannot be used."""
    listed: list[Any] = []

    def ask() -> str:
        from graftline.data.absent import refuse_absent

        refuse_absent(settings.data.source)  # the libraries below take most of a second to import
        from graftline.steps.ingest.checks import (
            MIN_IMAGES_PER_CLASS,
            check_attributes,
            check_given,
            check_listing,
        )

        data = settings.data
        split = data.split.model_dump()
        check_attributes(data.attributes)
        _check_apart(settings)
        source = open_settings_source(settings)
        entries = source.entries()
        changed = _changed_split(settings, source.uri)
        if changed:
            found.notes.append(("data.split", changed))
        found.notes += [(KEY, f"{warning}.") for warning in source.warnings]
        carved = check_given(source, entries, split, MIN_IMAGES_PER_CLASS, data.missing_splits)
        counts = check_listing(source, entries, MIN_IMAGES_PER_CLASS)
        notes = "".join(f" {note}" for note in dict.fromkeys([*source.notes, carved]) if note)
        tree = f"\n{source.tree}" if source.tree else ""
        listed.extend(entries)
        return f"{data.source}: {counts}.{notes}{tree}"

    found.look(KEY, ask)
    return listed


def check_test_images(
    settings: RunSettings, entries: list[Any], found: Preflight, *, first: bool
) -> None:
    """Say how many test images there will be, where a verdict on them would mean little.

    Args:
        settings: The run file.
        entries: Of the source.
        found: Takes the note or the problem.
        first: Whether there is no champion, so that only the floors of the gate ask for images.
    """
    usable = [entry for entry in entries if entry.problem is None]
    if not usable or any(entry.archive for entry in usable):
        return  # nobody knows before the archives are read
    counts = Counter(entry.split for entry in usable)
    wanted = settings.gate.min_test_images
    given = counts["test"] if counts["test"] and counts[None] == 0 else None
    most = given if given is not None else len(usable)
    likely = given if given is not None else round(len(usable) * settings.data.split.test)
    about = f"{likely:,}" if given is not None else f"About {likely:,}"
    if most < wanted:
        error = DataError(
            f"gate.min_test_images asks for {wanted:,} test images, and there are only {most:,} "
            f"{'of them' if given is not None else 'images in all'}.",
            why="Nothing could be promoted.",
            fix="Label more images, or lower gate.min_test_images.",
        )
        found.problems.append(("gate.min_test_images", error))
    elif likely < wanted:
        found.notes.append(
            (
                "gate.min_test_images",
                f"{about} test images are expected; {wanted:,} are asked for, so the model may "
                "not be promoted. Label more images, or give data.split.test a larger share.",
            )
        )
    elif first and likely < FEW_IMAGES:
        found.notes.append(
            (
                "gate.min_test_images",
                f"{about} test images are expected. They show little of a first model, and "
                "nothing refuses it for that: set gate.min_test_images to ask for more.",
            )
        )


def note_unknown_source(settings: RunSettings, found: Preflight) -> None:
    """Say that a source is new to a store whose champion was trained on another.

    A folder that was moved is: its images may then get other splits than the champion's.
    """
    from graftline.steps.ingest.source_index import last_snapshot_id
    from graftline.storage import open_store

    try:
        store = open_store(settings.store)
        if last_snapshot_id(store, open_settings_source(settings).uri) is not None:
            return
        others = any(info.key.endswith(".json") for info in store.list("sources/"))
    except GraftlineError:  # said by the checks of the store and the source
        return
    if others:
        found.notes.append(
            (
                KEY,
                "The store knows other sources and not this one. If its images were moved here, "
                "`graftline relocate RUN.yaml --source-was FOLDER` keeps their splits, which the "
                "champion was tested by.",
            )
        )


def check_space(settings: RunSettings, entries: list[Any], found: Preflight) -> None:
    """Say that a local store's disk has less room than the images take."""
    import shutil

    from graftline.storage.uri import local_path

    folder = local_path(settings.store)
    if folder is None or not entries:
        return
    there = next((path for path in (folder, *folder.parents) if path.is_dir()), None)
    wanted = sum(entry.size for entry in entries if entry.problem is None)
    free = shutil.disk_usage(there).free if there is not None else wanted
    if free < wanted:
        found.notes.append(
            (
                "store",
                f"The images take {size_of(wanted)}, and the disk of the store has "
                f"{size_of(free)} left. That is enough only if most are in it already.",
            )
        )


def _changed_split(settings: RunSettings, source_uri: str) -> str:
    """Whether the shares or the seed are others than those by which the source was split."""
    from graftline.steps.ingest.checks import changed_split
    from graftline.steps.ingest.source_index import last_split
    from graftline.storage import open_store

    wanted = {**settings.data.split.model_dump(), "seed": settings.seed}
    try:
        store = open_store(settings.store)
        said = changed_split(last_split(store, source_uri), wanted, store, source_uri)
    except (StoreError, ConfigurationError):  # said by the check of the store
        return ""
    return said and f"{said}."


def _check_apart(settings: RunSettings) -> None:
    """Refuse a store among the images: its shards would be read as data by the next run."""
    from graftline.storage.uri import local_path

    source, store = local_path(settings.data.source), local_path(settings.store)
    if source is None or store is None:
        return
    source, store = Path(source).absolute(), Path(store).absolute()
    inside = store.is_relative_to(source) and source.is_dir()
    if inside and not any(part.startswith(".") for part in store.relative_to(source).parts):
        raise ConfigurationError(
            f"The store {store} is inside data.source, {source}.",
            why="The next run would take what it keeps for data.",
            fix="Put the store beside the images, or into a folder whose name begins with a dot.",
        )
