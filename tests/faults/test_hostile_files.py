"""Hostile files: whatever is in them, a documented error or an answer, in bounded memory.

Real files of each kind are mutated: bytes flipped, cut, repeated, numbers in headers made huge.
The seeds are the data: `python tests/faults/hostile.py KIND FIRST COUNT` repeats some of them. They
run in a process of their own with a limit on memory; a canary stands where a file that climbs out
of its folder, or runs a command, would write.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from graftline.data.sources import open_source
from graftline.errors import GraftlineError
from graftline.onnx_model.predict import OnnxClassifier
from graftline.storage.local import FileStore

sys.path.insert(0, str(Path(__file__).parent))

CODE = Path(__file__).with_name("hostile.py")
KINDS = ("images", "tables", "archives", "parquet", "run_files", "onnx", "safetensors")
QUICK = {"images": 150, "tables": 60, "archives": 40, "run_files": 40, "onnx": 80}
MANY, SHARE = 10_000, 5_000  # of each kind; two halves, for two cores


def mutated(kind: str, first: int, count: int, folder: Path) -> None:
    canary = folder / "canary"
    canary.write_text("alive")
    before = {path.name for path in folder.iterdir()}
    done = subprocess.run(
        [sys.executable, str(CODE), kind, str(first), str(count), str(folder)],
        capture_output=True,
        text=True,
        timeout=3000,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert f"{count} cases" in done.stdout
    assert canary.read_text() == "alive"
    assert {path.name for path in folder.iterdir()} - before <= {"work"}


@pytest.mark.parametrize("kind", QUICK)
def test_some_hostile_files(kind: str, tmp_path: Path, record_property: Any) -> None:
    mutated(kind, 0, QUICK[kind], tmp_path)
    record_property("points", QUICK[kind])


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("start", range(0, MANY, SHARE))
@pytest.mark.parametrize("kind", KINDS)
def test_ten_thousand_hostile_files(
    kind: str, start: int, tmp_path: Path, record_property: Any
) -> None:
    mutated(kind, 100_000 + start, SHARE, tmp_path)
    record_property("points", SHARE)


def test_external_data_of_an_onnx_file_stays_in_its_folder(tmp_path: Path) -> None:
    import hostile

    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    (tmp_path / "canary").write_bytes(bytes(64))
    plain, *outside = hostile.onnx_files()
    (folder / "m.onnx").write_bytes(plain)
    assert OnnxClassifier(folder / "m.onnx").classes == ("a", "b")
    assert len(outside) == 2
    for data in outside:
        (folder / "m.onnx").write_bytes(data)
        with pytest.raises(GraftlineError, match="External data"):
            OnnxClassifier(folder / "m.onnx")


def test_a_row_that_climbs_out_lists_no_other_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One row of `../../x` had all files of the machine listed."""
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    (tmp_path / "there.png").write_bytes(b"x")
    rows = ["image,label", "../../there.png,a", f"{'../' * 30}x.png,a", "../not.png,b"]
    (folder / "t.csv").write_text("\n".join(rows))
    listed: list[str] = []
    walk = FileStore.list

    def watched(self: FileStore, prefix: str = ""):
        listed.append(f"{self.root}/{prefix}")
        return walk(self, prefix)

    monkeypatch.setattr(FileStore, "list", watched)
    entries = open_source(str(folder / "t.csv")).entries()
    problems = sorted(entry.problem or "" for entry in entries)
    assert problems == ["", "file not found", "file not found"]
    assert all(place.lstrip("/").startswith(str(folder).lstrip("/")) for place in listed), listed
