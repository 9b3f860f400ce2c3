"""Random data sets: each image is taken as a person reads it, counted with a reason, or refused.

What was meant is known from how a data set was made (`data_sets`). The quick fuzz asks what a
listing says, with no pixels; the slow one runs the step `ingest` whole.
"""

import io
import re
import shutil
import sys
import tarfile
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from PIL import Image

from graftline.data.snapshot import read_snapshot
from graftline.data.sources import open_source
from graftline.data.sources.base import Entry, Reading, Source
from graftline.errors import GraftlineError
from graftline.steps.ingest.known import Seen
from graftline.steps.ingest.members import merge_labels, read_packed_folders
from graftline.steps.ingest.step import run

sys.path.insert(0, str(Path(__file__).parent))

from data_sets import PICTURE, Made, listed, noted, shards, tables, trees, twins, views

KINDS = {"trees": trees, "twins": twins, "tables": tables, "shards": shards, "listed": listed}
KINDS |= {"noted": noted, "views": views}


@contextmanager
def written(made: Made, change: Callable[[bytes], bytes] = bytes) -> Iterator[Path]:
    """The data set in a folder."""
    folder = Path(tempfile.mkdtemp(prefix="graftline-fuzz-"))
    try:
        for name, data in made.files.items():
            path = folder / "x" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(change(data))
        yield folder
    finally:
        shutil.rmtree(folder)


def what_was_read(source: Source) -> list[Seen]:
    """Each image with what a listing says of it; the archives' are opened."""
    found = []
    for entry in source.entries():
        members = source.unpack(entry, 2**20) if entry.archive and not entry.problem else ()
        found += [_seen(one) for one, _ in members] or [_seen(entry)]
    return merge_labels(read_packed_folders(found, source), source)


def _seen(entry: Entry) -> Seen:
    if entry.fault is not None:
        raise GraftlineError("not understood", why=entry.fault, fix="as the run says")
    image_id = None if entry.problem else entry.path
    return Seen(
        entry.path,
        "1",
        image_id,
        entry.problem,
        entry.detail,
        entry.label,
        entry.split,
        entry.group,
    )


def judge_listing(made: Made) -> str:
    """Compare what the listing says with what was meant; says how it ended."""
    options = {k: v for k, v in made.options.items() if k != "count"}
    with written(made) as folder:
        try:
            source = open_source(str(folder / "x"), reading=Reading(**options))
            seen = what_was_read(source)
        except GraftlineError as error:
            assert error.fix and len(error.what) < 700, error
            assert not made.clear, f"refused, and a person reads it: {error}"
            return "refused"
        compare(made, seen, source.notes)
    return "taken"


def compare(made: Made, seen: list[Seen], notes: list[str]) -> None:
    """Label, split, group and count of each picture."""
    taken = {one.path: one for one in seen if one.image_id is not None}
    for name, one in taken.items():
        assert name in made.meant, (name, "was no picture of anything", one.label, notes)
        label, split = made.meant[name]
        assert one.label == label, (name, one.label, label, notes)
        assert one.split == split, (name, one.split, split, notes)
    assert made.meant.keys() <= taken.keys(), (made.meant.keys() - taken.keys(), notes)
    counted = {re.sub(r" \(.*line \d+\)$", "", one.path) for one in seen if one.image_id is None}
    assert made.dropped <= counted, (made.dropped - counted, notes)
    both: dict[str, set[str | None]] = defaultdict(set)
    for name, group in made.groups.items():
        if made.meant[name][1] is None:  # a stated split is obeyed whatever the group
            both[group].add(taken[name].group)
    assert all(len(found) == 1 and None not in found for found in both.values()), (both, notes)
    assert len({str(found) for found in both.values()}) == len(both), (both, notes)


QUICK = settings(
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
EXAMPLES = {"trees": 120, "twins": 25, "tables": 120, "shards": 60, "listed": 60}
EXAMPLES |= {"noted": 60, "views": 40}


@pytest.mark.parametrize("kind", KINDS)
def test_each_image_is_read_as_meant_or_counted_or_refused(kind: str) -> None:
    ended: Counter[str] = Counter()

    def check(made: Made) -> None:
        ended[judge_listing(made)] += 1

    settings(QUICK, max_examples=EXAMPLES[kind])(given(KINDS[kind]())(check))()
    assert ended["taken"] > ended["refused"] / 4 and ended["taken"] > 5, ended


# -- the step as a whole --------------------------------------------------------------------------


def with_pixels(data: bytes) -> bytes:
    """The file with a real image in the place of each stand-in."""
    if data.startswith(PICTURE):
        return _image(int(data.removeprefix(PICTURE)))
    if b"ustar" not in data[:512]:
        return data
    stream = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(data)) as old,
        tarfile.open(fileobj=stream, mode="w") as new,
    ):
        for member in old:
            body = old.extractfile(member)
            held = body.read() if body is not None else b""
            held = _image(int(held.removeprefix(PICTURE))) if held.startswith(PICTURE) else held
            info = tarfile.TarInfo(member.name)
            info.size = len(held)
            new.addfile(info, io.BytesIO(held))
    return stream.getvalue()


def _image(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (6, 5, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def judge_step(made: Made) -> str:
    """Ingest it whole, and compare the snapshot with what was meant."""
    options = {k: v for k, v in made.options.items() if k != "count"}
    with written(made, with_pixels) as folder:
        try:
            result = run(
                source=str(folder / "x"),
                store=str(folder / "store"),
                snapshot_folder=folder / "snapshot",
                near_duplicates="off",
                min_images_per_class=1,
                **options,
            )
        except GraftlineError as error:
            assert error.fix and len(error.what) < 700, error
            return "refused"
        snapshot = read_snapshot(folder / "snapshot")
        rows = snapshot.manifest.to_pylist()
        aside = {row["source"] for row in snapshot.set_aside.to_pylist()}
    sides: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        name = row["source"]
        assert name in made.meant, (name, "was no picture of anything", result.reading)
        label, split = made.meant[name]
        allowed = {"train", *result.reading["carved"]} if split == "train" else {split}
        assert row["label"] == label, (name, row["label"], result.reading)
        assert split is None or row["split"] in allowed, (name, row["split"], result.reading)
        if split is None and name in made.groups:
            sides[made.groups[name]].add(row["split"])
    assert all(len(side) == 1 for side in sides.values()), (sides, result.reading)
    assert made.meant.keys() == {row["source"] for row in rows}, result.reading
    counted = {re.sub(r" \(.*line \d+\)$", "", name) for name in aside}
    assert made.dropped <= counted, (made.dropped - counted, result.reading)
    return "taken"


@pytest.mark.parametrize("kind", KINDS)
def test_a_few_whole_runs_end_as_meant(kind: str) -> None:
    settings(QUICK, max_examples=3)(given(KINDS[kind]())(lambda made: judge_step(made) and None))()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many_whole_runs_end_as_meant(kind: str) -> None:
    long = settings(QUICK, max_examples=500, derandomize=False)
    long(given(KINDS[kind]())(lambda made: judge_step(made) and None))()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_very_many_listings_are_read_as_meant(kind: str) -> None:
    long = settings(QUICK, max_examples=4000, derandomize=False)
    long(given(KINDS[kind]())(lambda made: judge_listing(made) and None))()


def test_the_judge_sees_a_wrong_label(tmp_path: Path) -> None:
    made = Made()
    for label in ("cat", "dog"):
        for number in range(4):
            made.add(f"{label}/{number}.png", label, None)
    assert judge_listing(made) == "taken" and judge_step(made) == "taken"
    made.meant["cat/0.png"] = ("dog", None)
    with pytest.raises(AssertionError):
        judge_listing(made)
    with pytest.raises(AssertionError):
        judge_step(made)


def test_usual_data_sets_are_not_refused() -> None:
    for names in (["cat", "dog"], ["train/cat", "train/dog", "val/cat", "val/dog"]):
        made = Made()
        for folder in names:
            *above, label = folder.split("/")
            for number in range(5):
                made.add(f"{folder}/{number}.png", label, above[0] if above else None)
        assert judge_step(made) == "taken"
