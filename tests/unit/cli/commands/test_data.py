"""`graftline data`: what the last run took and rejected, from the store."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from graftline.steps.ingest.step import run
from graftline_pipelines.cli.main import main


@pytest.fixture
def command(
    make_digits_folder: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., tuple[int, str, str]]:
    folder = make_digits_folder(per_class=8, classes=3)
    (folder / "0" / "[bold].png").write_bytes(b"no image")
    (folder / "README.txt").write_text("text")
    text = f"name: a\ndata: {{source: {folder}}}\nstore: store\n"
    (tmp_path / "run.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)

    def call(*options: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["graftline", "data", "run.yaml", *options])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        return code, *capsys.readouterr()

    return call


def test_what_was_taken_and_set_aside_is_shown(command, tmp_path: Path) -> None:
    code, _, shown = command()
    assert code == 1 and "has no snapshot of" in shown and "graftline run" in shown
    result = run(
        source=str(tmp_path / "digits"),
        store=str(tmp_path / "store"),
        snapshot_folder=tmp_path / "snapshot",
    )
    code, shown, _ = command()
    assert code == 0 and result.snapshot_id in shown and "24 images" in shown
    assert "0/[bold].png" in shown and "not an image in a known format" in shown
    assert "README.txt" in shown and "Rejected: 2" in shown
    _, shown, _ = command("--limit", "1")
    assert "1 more: `--limit 2` shows all" in shown


def test_json_holds_every_row(command, tmp_path: Path) -> None:
    run(
        source=str(tmp_path / "digits"),
        store=str(tmp_path / "store"),
        snapshot_folder=tmp_path / "snapshot",
    )
    code, out, _ = command("--json", "--reason", "not an image file")
    told = json.loads(out.splitlines()[-1])
    assert code == 0 and [row["source"] for row in told["set_aside"]] == ["README.txt"]
    assert sum(told["reasons"].values()) == 2
    assert sum(sum(splits.values()) for splits in told["per_class"].values()) == 24
