"""`graftline data` shows groups, contradicting labels and what is not evaluated."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from graftline.steps.ingest.step import run
from graftline_pipelines.cli.main import main


def test_groups_contradictions_and_what_is_not_evaluated_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    rows = ["image,label,split"]
    for number in range(12):
        coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
        image = coarse.resize((120, 100), Image.Resampling.BICUBIC)
        image.save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,{'ab'[number % 2]},{'train' if number < 6 else 'test'}")
        if number == 0:
            image.save(tmp_path / "copy.jpg", quality=80)
    (tmp_path / "t.csv").write_text("\n".join([*rows, "copy.jpg,b,"]))
    (tmp_path / "run.yaml").write_text("name: a\ndata: {source: t.csv}\nstore: store\n")
    monkeypatch.chdir(tmp_path)
    run(
        source=str(tmp_path / "t.csv"),
        store=str(tmp_path / "store"),
        snapshot_folder=tmp_path / "snapshot",
    )
    monkeypatch.setattr(sys, "argv", ["graftline", "data", "run.yaml", "--json"])
    with pytest.raises(SystemExit):
        main()
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert sorted(told["groups"].values()) == [["0.png", "copy.jpg"]]
    ((one, other),) = told["contradictions"]
    assert {one["source"], other["source"]} == {"0.png", "copy.jpg"}
    assert {one["label"], other["label"]} == {"a", "b"}
    assert "Contradicting labels: 1 pair\n" in err and "share 1 group;" in err
    assert told["not_evaluated"] == []
