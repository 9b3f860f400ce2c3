"""Lines that an error prints for the run file: each is applied, as a person would who copies it."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings

from graftline.data.sources import open_source
from graftline.data.sources.base import Columns, Reading
from graftline.errors import GraftlineError
from graftline.steps.ingest.checks import check_given, check_listing

sys.path.insert(0, str(Path(__file__).parent))

from data_set_files import SHARES, many
from test_no_classes import ABOVE, NO_CLASSES
from test_public_data_sets import REFUSED
from test_reading_cases import ASKED
from test_readings_fuzz import KINDS, QUICK, compare, what_was_read, written
from test_split_lists import REFUSED as LISTS

COLUMNS = {"image_column": "image", "label_column": "label", "split_column": "split"}


def lines_of(error: GraftlineError) -> list[dict[str, Any]]:
    """The settings that the advice names, those joined by `and` together."""
    found: list[dict[str, Any]] = []
    text = str(error.fix)
    for match in re.finditer(r"`data\.([a-z_]+: [^`]+)`", text):
        setting = yaml.safe_load(match[1])
        joined = found and text[: match.start()].endswith("` and ")
        found.append({**found.pop(), **setting} if joined else setting)
    return found


def apply(folder: str, setting: dict[str, Any], **more: Any) -> Any:
    """The source as the run file with this setting has it."""
    columns = {own: setting[key] for key, own in COLUMNS.items() if key in setting}
    reading = {key: setting[key] for key in ("layout", "similar_labels") if key in setting}
    exclude = tuple(setting.get("exclude", ()))
    return open_source(
        str(setting.get("source", folder)),
        setting.get("format", "auto"),
        Columns(**columns),
        Reading(**{**more, **reading}, exclude=exclude),
    )


def follow(folder: Path, error: GraftlineError) -> int:
    """Apply each line; none may lead to the same refusal, or to one that speaks of the line."""
    settings_named = lines_of(error)
    for setting in settings_named:
        try:
            source = apply(str(folder), setting)
            entries = source.entries()
            check_listing(source, entries, 3)
            check_given(source, entries, SHARES, 3, "carve")
        except GraftlineError as other:
            assert (other.what, other.why) != (error.what, error.why), (setting, str(other))
            assert "cannot be used" not in other.what, (setting, str(other))
    return len(settings_named)


DEEPER = ["train/labeled/cat", "train/labeled/dog", "train/unlabeled", "test/cat", "test/dog"]
CASES = {
    **{name: files for name, (files, _) in REFUSED.items()},
    **NO_CLASSES,
    **{f"above: {name}": files for name, (files, _) in ABOVE.items()},
    **{f"lists: {name}": files for name, (files, _) in LISTS.items()},
    **{str(folders): many(folders) for folders, _ in ASKED},
    "deeper in one split": many(DEEPER),
}


@pytest.mark.parametrize("name", CASES)
def test_advice_that_is_followed_does_not_end_in_the_same_refusal(
    name: str, tmp_path: Path
) -> None:
    for key, text in CASES[name].items():
        path = tmp_path / "x" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    try:
        source = open_source(str(tmp_path / "x"))
        entries = source.entries()
        check_listing(source, entries, 3)
        check_given(source, entries, SHARES, 3, "carve")
    except GraftlineError as error:
        follow(tmp_path / "x", error)
    else:
        pytest.fail("it was not refused")


def judge(made: Any) -> bool:
    """Where a random data set is refused, one of the lines gives what was meant, none an error."""
    options = {k: v for k, v in made.options.items() if k != "count"}
    with written(made) as folder:
        try:
            what_was_read(open_source(str(folder / "x"), reading=Reading(**options)))
            return False
        except GraftlineError as error:
            named = lines_of(error)
            said = error
        meant = 0
        for setting in named:
            try:
                source = apply(str(folder / "x"), setting, **options)
                seen = what_was_read(source)
            except GraftlineError as other:
                assert (other.what, other.why) != (said.what, said.why), (setting, str(other))
                continue
            try:
                compare(made, seen, source.notes)
            except AssertionError:
                continue
            meant += 1
        if named and "nobody knows" not in {label for label, _ in made.meant.values()}:
            assert meant, (named, str(said), sorted(made.meant)[:9])
    return bool(named)


@pytest.mark.parametrize("kind", KINDS)
def test_one_of_the_lines_gives_what_was_meant(kind: str) -> None:
    ended: list[bool] = []
    settings(QUICK, max_examples=40)(given(KINDS[kind]())(lambda m: ended.append(judge(m))))()
    assert any(ended) or kind in ("shards", "listed", "noted", "views")
