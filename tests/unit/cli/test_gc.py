"""`graftline gc`: what it says, what it removes, and what it leaves."""

import json
import os
import time
from pathlib import Path

from typer.testing import CliRunner

from graftline_pipelines.cli.main import app


def test_gc_says_what_would_go_and_removes_it_only_when_told(tmp_path: Path) -> None:
    old = tmp_path / "checkpoints" / "a" / "latest.json"
    young = tmp_path / "train-jobs" / "b" / "decision_file"
    rate = tmp_path / "training-rates" / "c.json"
    for path in (old, young, rate):
        path.parent.mkdir(parents=True)
        path.write_text("{}")
        age = time.time() - 40 * 86400
        os.utime(path, None if path == young else (age, age))
    options = ["gc", "--store", str(tmp_path)]
    looked = CliRunner().invoke(app, options)
    assert looked.exit_code == 0, looked.output
    assert "checkpoints: 1 not written to for 30 days (1 file, 2 B) to be removed" in looked.output
    assert "Give --yes" in looked.output and old.exists()
    removed = CliRunner().invoke(app, [*options, "--yes", "--json"])
    idle = json.loads(removed.stdout.splitlines()[-1])["idle"]
    assert idle == [{"folder": "checkpoints", "entries": 1, "files": 1, "bytes": 2}]
    assert (old.exists(), young.exists(), rate.exists()) == (False, True, True)
    assert "nothing to remove" in CliRunner().invoke(app, options).output
