"""Clocks that are two hours off: what comes later is later, whatever the clock says."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from graftline.storage import open_store
from graftline.tracking.champion_log import ChampionLog

LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
pytestmark = pytest.mark.skipif(not LIBRARIES, reason="needs libfaketime (apt)")

INGEST = """
import json, sys
from pathlib import Path
from graftline.data.snapshot import read_snapshot
from graftline.steps.ingest.step import run
result = run(source=sys.argv[1], store=sys.argv[2], snapshot_folder=Path(sys.argv[3]))
rows = read_snapshot(Path(sys.argv[3])).manifest.to_pylist()
print(json.dumps([result.snapshot_id, {row["image_id"]: row["split"] for row in rows}]))
"""


def write(folder: Path, first: int, count: int) -> None:
    for number in range(first, first + count):
        path = folder / "abc"[number % 3] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)


def ingest(folder: Path, store: str, name: str, shift: str) -> tuple[str, dict[str, str]]:
    done = subprocess.run(
        [sys.executable, "-c", INGEST, str(folder / "images"), store, str(folder / name)],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "LD_PRELOAD": str(LIBRARIES[0]),
            "FAKETIME": shift,
            "DONT_FAKE_MONOTONIC": "1",
        },
    )
    assert done.returncode == 0, done.stderr
    identity, splits = json.loads(done.stdout.splitlines()[-1])
    return identity, splits


@pytest.mark.parametrize("shifts", [("+2h", "-2h", "+0"), ("-2h", "+2h", "-2h")])
def test_the_latest_snapshot_is_the_one_that_was_made_last(
    tmp_path: Path, shifts: tuple[str, ...], s3_bucket: str, record_property: Any
) -> None:
    for number, store in enumerate((str(tmp_path / "store"), f"{s3_bucket}/store")):
        place = tmp_path / str(number)
        splits: dict[str, str] = {}
        for round_number, shift in enumerate(shifts):
            write(place / "images", round_number * 18, 18)
            identity, found = ingest(place, store, f"snapshot-{round_number}", shift)
            # Every image keeps the split of the snapshot before, whose clock was ahead or behind.
            assert found.items() >= splits.items() and len(found) == 18 * (round_number + 1)
            splits = found
        pointers = [
            json.loads(open_store(store).read(info.key))
            for info in open_store(store).list("sources/")
            if info.key.count("/") == 1
        ]
        assert [pointer["snapshot"] for pointer in pointers] == [identity]
    record_property("points", 2 * len(shifts))


def test_the_champion_is_the_last_entry_not_the_one_with_the_latest_time(
    tmp_path: Path, record_property: Any
) -> None:
    code = """
import sys
from graftline.storage import open_store
from graftline.tracking.champion_log import ChampionLog, Entry
from datetime import UTC, datetime
log = ChampionLog(open_store(sys.argv[1]), "m")
last = log.last()
number, before = (last.number, last.version) if last else (0, None)
entry = Entry(number=number + 1, kind="promotion", version=str(number + 1), replaced=before)
assert log.append(entry)
print(datetime.now(UTC).isoformat())
"""
    seen = []
    for shift in ("+2h", "-2h"):
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)],
            capture_output=True,
            text=True,
            env={**os.environ, "LD_PRELOAD": str(LIBRARIES[0]), "FAKETIME": shift},
        )
        assert done.returncode == 0, done.stderr
        seen.append(done.stdout)
    assert seen[0] > seen[1]  # the clock is moved indeed
    champion = ChampionLog(open_store(str(tmp_path)), "m").last()
    assert champion is not None and (champion.version, champion.replaced) == ("2", "1")
    record_property("points", 1)
