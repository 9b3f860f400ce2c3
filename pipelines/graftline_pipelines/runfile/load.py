"""Reads a run file: YAML to settings, all its problems at once, each with its line and remedy."""

import codecs
import copy
import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from graftline.errors import ConfigurationError
from graftline.settings import descriptions
from graftline.steps.evaluate.config import SLICE_COLUMNS
from graftline_pipelines.runfile import placeholders
from graftline_pipelines.runfile.placeholders import KeyPath
from graftline_pipelines.runfile.pools import assignment_problems, pool_name
from graftline_pipelines.runfile.settings import RunSettings
from graftline_pipelines.runfile.wording import what_is_wrong

WRITES_ONE = "`graftline init FOLDER` writes one for your images."
DEEPEST = 50  # levels of nesting
USUAL = {  # what a key is called elsewhere, and here
    "arch": "backbone",
    "dataset": "data",
    "folder": "source",
    "lr": "learning_rate",
    "mlflow": "tracking",
    "model": "backbone",
    "network": "backbone",
    "path": "source",
    "random_state": "seed",
    "wd": "weight_decay",
}


@dataclass(frozen=True)
class Problem:
    """One mistake in a run file."""

    key: str
    line: int | None
    what: str
    fix: str | None

    def __str__(self) -> str:
        where = f" (line {self.line})" if self.line is not None else ""
        return f"{self.key}{where}: {self.what}" + (f" {self.fix}" if self.fix else "")


class RunFileError(ConfigurationError):
    """The run file has mistakes; ``problems`` holds all of them."""

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        count = f"{len(problems)} mistakes" if len(problems) > 1 else "a mistake"
        lines = "\n".join(f"  {problem}" for problem in problems)
        super().__init__(f"{source} has {count}:\n{lines}")


def load(path: Path, overrides: Sequence[str] = ()) -> RunSettings:
    """Read and validate a run file.

    Args:
        path: The YAML file.
        overrides: ``path.to.key=value`` settings that replace those of the file.

    Raises:
        RunFileError: with every mistake found.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    values, lines, found = _parse(text, path)
    return _validated(values, overrides, str(path), lines, found)


def _unreadable(path: Path, error: Exception) -> "RunFileError":
    """Why there is no text in a file, and what to give instead."""
    fix = WRITES_ONE
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        beside = [] if not path.parent.is_dir() else [*path.parent.glob("*.y*ml")]
        near = difflib.get_close_matches(path.name, [one.name for one in beside], 1)
        fix = f"Did you mean {path.with_name(near[0])}?" if near else fix
        what = "there is no such file."
    elif isinstance(error, IsADirectoryError):
        what = "is a folder, not a run file."
    elif isinstance(error, UnicodeDecodeError):
        what, fix = "cannot be read: it is not UTF-8 text.", "Save it as UTF-8."
        if error.object.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            what = "cannot be read: it is UTF-16 text."
        elif b"\0" in error.object:
            what, fix = "is no text, so it is not a run file.", WRITES_ONE
    else:
        why = getattr(error, "strerror", None) or str(error)
        what, fix = f"cannot be read: {why}.", "Check the file's rights."
    return RunFileError("The run file", [Problem(str(path), None, what, fix)])


def load_values(values: Mapping[str, Any], overrides: Sequence[str] = ()) -> RunSettings:
    """Validate the content of a run file that a program made.

    Raises:
        RunFileError: with every mistake found.
    """
    return _validated(copy.deepcopy(dict(values)), overrides, "The run file", {}, [])


def _validated(
    values: dict[str, Any],
    overrides: Sequence[str],
    source: str,
    lines: dict[KeyPath, int],
    found: list[Problem],
) -> RunSettings:
    found += _override(values, overrides)
    replaced = {tuple(one.partition("=")[0].split(".")) for one in overrides}

    def overridden(location: KeyPath) -> bool:
        return any(location[:n] in replaced for n in range(1, len(location) + 1))

    try:
        settings = RunSettings.model_validate(values)
    except ValidationError as error:
        details = _one_each(error.errors(include_url=False))
        found += [_problem(detail, lines, overridden) for detail in details]
        raise RunFileError(source, _by_line(found)) from None
    found += _contradictions(settings, lines)
    if found:
        raise RunFileError(source, _by_line(found))
    return settings


def _by_line(problems: Sequence[Problem]) -> list[Problem]:
    """From the top of the file down; what is in no line comes last."""
    return sorted(problems, key=lambda one: (one.line is None, one.line or 0))


def _parse(text: str, path: Path) -> tuple[dict[str, Any], dict[KeyPath, int], list[Problem]]:
    """The values, the line of each key, and keys that stand twice."""
    try:
        _refuse_bombs(text)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        duplicates = list(_duplicates(node, ())) if node is not None else []
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else None
        what = f"not valid YAML: {getattr(error, 'problem', None) or error}."
        fix = "Check indentation, colons and quotes there."
        if "'\\t'" in what:
            what, fix = "not valid YAML: a tab in place of spaces.", "Indent with spaces."
        raise RunFileError(str(path), [Problem("the file", line, what, fix)]) from None
    except (ValueError, RecursionError) as error:  # a date of no calendar, 5,000 brackets
        deep = isinstance(error, RecursionError)
        what = f"holds a value that cannot be read: {'nested too deep' if deep else error}."
        raise RunFileError(str(path), [Problem("the file", None, what[:300], None)]) from None
    if not isinstance(values, dict):
        what = "holds no keys." if values is None else "is not a mapping of keys to values."
        if isinstance(values, list):
            what = "is a list, not a mapping of keys to values: write `name: flowers` without '-'."
        raise RunFileError(str(path), [Problem("the file", None, what, WRITES_ONE)])
    return values, dict(_lines(node, ())), duplicates


def _refuse_bombs(text: str) -> None:
    """Refuse what a short text makes endless: `*name` repeated, and thousands of brackets."""
    brackets = "[" * DEEPEST, "{" * DEEPEST, "{x: " * DEEPEST
    if any(run in text for run in brackets):  # which alone takes the parser seconds
        raise yaml.MarkedYAMLError(problem="nested too deep")
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        what = "nested too deep" if depth > DEEPEST else None
        if isinstance(event, yaml.AliasEvent):
            what = f"*{event.anchor} repeats a value, which a run file may not; write it out"
        if what is not None:
            raise yaml.MarkedYAMLError(problem=what, problem_mark=event.start_mark)  # type: ignore[arg-type]


def _lines(node: yaml.Node | None, path: KeyPath) -> Iterator[tuple[KeyPath, int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield (*path, key.value), key.start_mark.line + 1
            yield from _lines(value, (*path, key.value))
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield (*path, index), value.start_mark.line + 1
            yield from _lines(value, (*path, index))


def _duplicates(node: yaml.Node, path: KeyPath) -> Iterator[Problem]:
    """YAML keeps the last of two equal keys without a word; a run file may not hold two."""
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue  # a list as a key: no key of a run file
            line = key.start_mark.line + 1
            if key.value in seen:
                what = f"appears twice, first in line {seen[key.value]}."
                name = ".".join(str(part) for part in (*path, key.value))
                yield Problem(name, line, what, "Remove one of the two.")
            seen[key.value] = line
            yield from _duplicates(value, (*path, key.value))
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from _duplicates(value, (*path, index))


def _override(values: dict[str, Any], overrides: Sequence[str]) -> list[Problem]:
    problems = []
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not all(key.split(".")):
            what = "is not of the form path.to.key=value."
            problems.append(Problem(f"--set {override}", None, what, "Example: --set seed=1"))
            continue
        *parents, last = key.split(".")
        try:
            value = _override_value(text, (*parents, last))
        except yaml.YAMLError:
            what = f"{text!r} is not a YAML value."
            problems.append(Problem(f"--set {key}", None, what, "Check brackets and quotes."))
            continue
        section = values
        for parent in parents:
            if not isinstance(section.get(parent), dict):
                section[parent] = {}
            section = section[parent]
        section[last] = value
    return problems


def _override_value(text: str, location: KeyPath) -> Any:
    """An option's value: what takes a text takes it as it was typed, for the shell eats quotes.

    Raises:
        YAMLError: It is neither.
    """
    model = _model_at(location[:-1])
    field = model.model_fields.get(str(location[-1])) if model is not None else None
    takes_text = field is not None and _plain(field.annotation) is str
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        if takes_text:  # such as @nightly
            return text
        raise
    odd = isinstance(value, (bool, int, float, date))  # 3, on, 2026-01-02
    return text if takes_text and odd else value


ANY_OF = "it has to be "


def _one_each(details: list[ErrorDetails]) -> Iterator[ErrorDetails]:
    """One error a key: a key of several types has one for each, under pydantic's name for it."""
    grouped: dict[KeyPath, list[ErrorDetails]] = {}
    for detail in details:
        location = _of_field(detail["loc"])
        if location == detail["loc"]:
            yield detail
        else:
            grouped.setdefault(location, []).append(detail)
    for location, several in grouped.items():
        sentences = [what_is_wrong(each).partition(ANY_OF)[2] for each in several]
        parts = [sentence.partition(". ") for sentence in sentences if sentence]
        wanted = ", or ".join(dict.fromkeys(part.rstrip(".") for part, _, _ in parts))
        hints = "".join(f". {hint.rstrip('.')}" for _, _, hint in parts if hint)
        merged = {**several[0], "loc": location}
        if wanted:
            merged |= {"type": "several", "msg": f"{ANY_OF}{wanted}{hints}"}
        yield merged  # type: ignore[misc]


def _of_field(location: KeyPath) -> KeyPath:
    """Without the parts behind a key of several types."""
    for end in range(1, len(location)):
        model = _model_at(location[: end - 1])
        field = model.model_fields.get(str(location[end - 1])) if model is not None else None
        if field is not None and get_origin(_plain(field.annotation)) in (Union, UnionType):
            return location[:end]
    return location


def _problem(
    detail: ErrorDetails, lines: dict[KeyPath, int], overridden: Callable[[KeyPath], bool]
) -> Problem:
    location = tuple(part for part in detail["loc"] if part != "[key]")
    key = ".".join(str(part) for part in location) or "the file"
    line = next(
        (lines[location[:n]] for n in range(len(location), 0, -1) if location[:n] in lines), None
    )
    if overridden(location):
        key, line = f"--set {key}", None
    kind = detail["type"]
    if kind == "extra_forbidden":
        return Problem(key, line, "there is no such key.", _nearest(location))
    if kind == "missing":
        return Problem(key, line, "is missing.", _description(location))
    meaning = None if kind == "value_error" else _description(location)
    return Problem(key, line, what_is_wrong(detail), meaning)


def _nearest(location: KeyPath) -> str:
    model = _model_at(location[:-1])
    names = sorted(model.model_fields) if model is not None else []
    given = str(location[-1])
    meant = USUAL.get(given.lower())
    if meant in names:
        return f"Did you mean `{meant}`?"
    elsewhere = [f"`{path}`" for path in _paths_to(given)]
    if elsewhere:
        return f"Did you mean {' or '.join(elsewhere)}?"
    near = difflib.get_close_matches(given, names, n=1, cutoff=0.6)
    if near:
        return f"Did you mean `{near[0]}`?"
    return f"Known here: {', '.join(names)}." if names else "Remove it."


def _paths_to(key: str) -> Iterator[str]:
    """Where a key of this name, or of the usual name for it, is: at the top or in a section."""
    wanted = {key, USUAL.get(key.lower(), key)}
    for top, field in RunSettings.model_fields.items():
        section = _plain(field.annotation)
        inner = section.model_fields if hasattr(section, "model_fields") else ()
        yield from (top for _ in wanted & {top})
        yield from (f"{top}.{name}" for name in inner if name in wanted)


def _description(location: KeyPath) -> str | None:
    model = _model_at(location[:-1])
    description = descriptions(model).get(str(location[-1])) if model is not None else None
    if description is None:
        return None
    first, dot, _ = " ".join(description.split()).partition(". ")
    return f"It means: {first}{'.' if dot else ''}"


def _model_at(location: KeyPath) -> type[BaseModel] | None:
    model: type[BaseModel] | None = RunSettings
    annotation: Any = RunSettings
    for part in location:
        field = model.model_fields.get(str(part)) if model is not None else None
        if field is not None:
            annotation = field.annotation
        elif get_origin(annotation) is dict:
            annotation = get_args(annotation)[1]
        elif get_origin(annotation) in (list, tuple):
            annotation = get_args(annotation)[0]
        else:
            return None
        annotation = _plain(annotation)
        is_model = isinstance(annotation, type) and issubclass(annotation, BaseModel)
        model = annotation if is_model else None
    return model


def _plain(annotation: Any) -> Any:
    """The type itself, without ``Annotated`` and ``| None``."""
    if get_origin(annotation) is Annotated:
        return _plain(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        rest = [part for part in get_args(annotation) if part is not NoneType]
        return _plain(rest[0]) if len(rest) == 1 else annotation
    return annotation


def _contradictions(settings: RunSettings, lines: dict[KeyPath, int]) -> Iterator[Problem]:
    """What no single key shows."""
    for path in placeholders.placeholders(settings.model_dump(mode="json")):
        line = next((lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in lines), None)
        yield Problem(placeholders.shown(path), line, placeholders.WHAT, placeholders.FIX)
    for text in assignment_problems(settings.pools, settings.assign):
        key, _, what = text.partition(": ")
        yield Problem(key, lines.get(tuple(key.split("."))), what + ".", None)
    yield from _unknown_slices(settings, lines)
    yield from _unpriced(settings, lines)
    if "group_column" in settings.data.model_fields_set and settings.data.format == "folders":
        yield Problem(
            "data.group_column",
            lines.get(("data", "group_column")),
            "class folders have no columns.",
            "Use a table (`data.format: table`), or remove it.",
        )


def _unpriced(settings: RunSettings, lines: dict[KeyPath, int]) -> Iterator[Problem]:
    """A limit in money where nothing has a price."""
    if settings.auto.max_cost is None:
        return
    name = pool_name("fine_tune", settings.assign)
    pool = settings.pools.get(name)
    if pool is None or pool.hourly_price is None:
        yield Problem(
            "auto.max_cost",
            lines.get(("auto", "max_cost")),
            f"fine_tune runs in the pool {name!r}, which has no price.",
            f"Set `pools.{name}.hourly_price`, or limit the time with `auto.max_hours`.",
        )


def _unknown_slices(settings: RunSettings, lines: dict[KeyPath, int]) -> Iterator[Problem]:
    """Slices of columns that no image will have; the evaluation would find out last."""
    known = [*settings.data.attributes, *SLICE_COLUMNS]
    for text in settings.gate.slices:
        column = text.partition("=")[0]
        if column in known:
            continue
        near = difflib.get_close_matches(column, known, 1)
        yield Problem(
            "gate.slices",
            lines.get(("gate", "slices")),
            f"{column!r} is not a column that images can be sliced by.",
            (f"Did you mean `{near[0]}`? " if near else "")
            + f"Known here: {', '.join(known)}; name your own columns in data.attributes.",
        )
