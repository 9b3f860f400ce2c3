"""A first run file, from a check of the images, with what was found as comments."""

import re
import textwrap
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import yaml
from pydantic import ValidationError

from graftline.addresses import split_address
from graftline.errors import ConfigurationError, DataError, GraftlineError
from graftline.storage.uri import absolute, scheme
from graftline_pipelines.preflight.data import open_settings_source
from graftline_pipelines.runfile.settings import RunSettings

WIDTH = 92  # of comments
FEW_IN_A_CLASS = 20  # training images, under which a figure for the class says little
WORTH_ASKING = 50  # test images, from which a first model can be asked for them
LOPSIDED = 10.0  # the largest class is so many times the smallest


@dataclass(frozen=True)
class Starter:
    """A run file that can be written.

    Attributes:
        name: The run file's ``name``.
        text: The YAML.
        found: What was found, in sentences.
        problem: Why a run would stop; None where it would not.
        empty: Whether there is nothing at all, which no key of the run file could correct.
    """

    name: str
    text: str
    found: tuple[str, ...]
    problem: GraftlineError | None
    empty: bool = False


def starter(source: str, name: str | None = None) -> Starter:
    """Look at a source and write a run file for it.

    Args:
        source: A folder, a table, tar shards or an ``s3://`` prefix.
        name: The run file's ``name``; by the source where absent.

    Raises:
        StoreError: There is nothing there, or it cannot be read.
    """
    name = name or name_of(source)
    store = _store_beside(source)
    try:
        settings = RunSettings.model_validate({"name": name, "data": {"source": absolute(source)}})
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in wrong["loc"])
        if key == "name":
            raise ConfigurationError(
                f"{name!r} cannot be the name of a run file.",
                why="It becomes part of names in MLflow and Kubernetes.",
                fix="Give up to 63 small letters, digits and '-' with --name.",
            ) from None
        raise ConfigurationError(f"{key}: {wrong['msg'].removeprefix('Value error, ')}.") from None
    found, problem = _look(settings)
    empty = problem is not None and _is_empty(settings)
    text = "\n".join(_lines(source, name, store, found, problem)) + "\n"
    return Starter(name, text, tuple(found), problem, empty)


def name_of(source: str) -> str:
    """A name for a run file that its rules allow, by the last folder."""
    last = source.rstrip("/").rpartition("/")[2] or split_address(source).netloc
    if not scheme(source) and last in ("", ".", ".."):
        last = str(absolute(source)).rstrip("/").rpartition("/")[2]
    stem = unicodedata.normalize("NFKD", last.rpartition(".")[0] or last)  # é is e and an accent
    letters = "".join(each for each in stem.lower() if not unicodedata.combining(each))
    plain = re.sub(r"[^a-z0-9]+", "-", letters).strip("-")
    return plain[:63].strip("-") or "images"


def _look(settings: RunSettings) -> tuple[list[str], GraftlineError | None]:
    """What a listing says, and what is wrong with it."""
    from graftline.steps.ingest.checks import MIN_IMAGES_PER_CLASS, check_listing

    found: list[str] = []
    try:
        source = open_settings_source(settings)
    except DataError as error:  # a table and folders that contradict each other
        return found, error
    try:
        entries = source.entries()
        found += [*dict.fromkeys(source.notes), *(f"{one}." for one in source.warnings)]
        if source.tree:
            found.append(source.tree)
        found.insert(0, f"{check_listing(source, entries, MIN_IMAGES_PER_CLASS)}.")
    except (DataError, ConfigurationError) as error:
        return found, error
    found += _hints(entries, settings)
    return found, None


def _is_empty(settings: RunSettings) -> bool:
    from graftline.data.sources.base import TABLES
    from graftline.storage import open_store
    from graftline.storage.uri import local_path

    path = local_path(settings.data.source)
    if path is not None and path.suffix.lower() in TABLES and path.is_file():
        return path.stat().st_size == 0
    with suppress(GraftlineError, OSError):  # what is wrong with it has been said
        return not any(True for _ in open_store(settings.data.source).list())
    return False


def _hints(entries: Sequence[Any], settings: RunSettings) -> Iterator[str]:
    usable = [entry for entry in entries if entry.problem is None and not entry.archive]
    counts = Counter(str(entry.label) for entry in usable)
    if not counts:
        return
    (_, most), (rarest, least) = counts.most_common(1)[0], counts.most_common()[-1]
    if least * settings.data.split.train < FEW_IN_A_CLASS:
        yield (
            f"Few images: {_shown(rarest)} has {least:,}. Figures for such a class say little; "
            "more images help more than any setting."
        )
    if most > LOPSIDED * least:
        yield (
            f"Imbalanced: the largest class has {most / least:.0f} times as many images as "
            f"{_shown(rarest)}. Look at the recall of each class, not at the accuracy alone."
        )


def _lines(
    source: str, name: str, store: str, found: Sequence[str], problem: GraftlineError | None
) -> Iterator[str]:
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    yield from _comment(f"Written by `graftline init {source}` on {today}. What was found:")
    for text in found:
        yield from _comment(text, "  ")
    if problem is not None:
        yield from _comment("A run would stop, until this is corrected:")
        yield from _comment(str(problem), "  ")
    yield "#"
    yield from _comment("Next: `graftline check` on this file, then `graftline run` on it.")
    yield from _comment("All keys, with their meaning and limits: docs/run-file.md.")
    yield f"name: {name}"
    yield "data:"
    yield f"  source: {_scalar(source)}"
    yield "  # layout: split/class    # what each level of folders is, if it is read wrongly"
    yield "  # exclude: [docs]         # folders and files to leave out"
    yield "  # image_column: path      # of a table: its columns, if they are called otherwise"
    yield "  # label_column: category"
    yield "  # group_column: patient   # images that must share a split"
    yield "# Image shards, features and checkpoints: a folder, or s3://bucket/prefix."
    yield f"store: {_scalar(store)}"
    yield "tracking:"
    yield "  # MLflow: this file, or the address of a server, http://..."
    yield "  uri: sqlite:///.graftline/mlflow.db"
    yield "# A pretrained network; `graftline backbones` lists the others."
    yield f"backbone: {RunSettings.model_fields['backbone'].default}"
    yield "# auto measures, then decides between a linear classifier and fine-tuning."
    yield "strategy: auto"
    yield "gate:"
    yield "  # What a model must show before it is promoted. All rules: docs/gate.md."
    yield "  min_accuracy: 0.0"
    yield f"  min_test_images: 0   # {WORTH_ASKING} and more make a first model's figures worth it"


def _store_beside(source: str) -> str:
    """A store that is not among the images."""
    parts = split_address(source)
    if scheme(source) == "s3" and parts.netloc and parts.path.strip("/"):
        top = parts.path.strip("/").partition("/")[0]
        return f"s3://{parts.netloc}/{'graftline' if top != 'graftline' else 'graftline-store'}"
    return ".graftline/store"


def _comment(text: str, indent: str = "") -> Iterator[str]:
    """Comment lines; whatever a label holds, no line of it is anything else."""
    for line in text.splitlines() or [""]:
        plain = "".join(character if character.isprintable() else " " for character in line)
        lead = indent + " " * (len(plain) - len(plain.lstrip()))
        for part in textwrap.wrap(plain.strip(), WIDTH, break_long_words=False) or [""]:
            yield f"# {lead}{part}".rstrip()


def _scalar(text: str) -> str:
    """A text as YAML, on one line."""
    written: str = yaml.safe_dump(text, width=10**9, allow_unicode=True)
    return written.partition("\n")[0]


def _shown(label: str) -> str:
    from graftline.data.sources.label_text import clip

    return repr(clip(label))
