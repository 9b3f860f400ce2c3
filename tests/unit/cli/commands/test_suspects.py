"""`graftline suspects`: the table, the CSV, and runs that have none."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from graftline.errors import ConfigurationError
from graftline.records.decision import Decision
from graftline_pipelines.cli.main import app

DECISION = Decision(
    strategy="auto",
    choice="probe",
    size="small",
    similarity="similar",
    cell="small and similar",
    advice="probe",
    figures={},
    thresholds={},
    reasons=[],
)


def image(number: int, source: str = "") -> dict[str, Any]:
    return {
        "image_id": f"{number:064x}",
        "source": source or f"cat/{number}.png",
        "given": "cat",
        "likely": "dog, or wolf",
        "confidence": 0.97,
    }


def write(folder: Path, figures: dict[str, Any], run: str = "one") -> None:
    steps = folder / run / "steps"
    steps.mkdir(parents=True)
    decision = replace(DECISION, figures=figures).to_dict()
    (steps / "fit_head.json").write_text(json.dumps({"decision": decision}))


def ask(runs: Path, *words: str) -> Any:
    return CliRunner().invoke(app, ["suspects", *words, "--runs-dir", str(runs)])


def test_the_table_names_files_and_both_labels(tmp_path: Path) -> None:
    suspects = {"count": 3, "of": 100, "images": [image(k) for k in range(3)]}
    write(tmp_path, {"suspects": suspects})
    answer = ask(tmp_path, "one", "--limit", "2")
    assert answer.exit_code == 0, answer.output
    assert "cat/0.png" in answer.output
    assert "dog, or wolf" in answer.output
    assert "cat/2.png" not in answer.output
    assert "3 of 100 training images of one are suspect. `--limit 3` shows all." in answer.output
    found = ask(tmp_path, "one", "--json")
    assert json.loads(found.stdout.splitlines()[-1]) == {"run": "one", **suspects}


def test_the_csv_is_read_back_and_no_cell_is_a_formula(tmp_path: Path) -> None:
    images = [image(1, "=HYPERLINK(1).png"), image(2, 'a "quoted", name.png')]
    write(tmp_path, {"suspects": {"count": 2, "of": 9, "images": images}})
    printed = ask(tmp_path, "one", "--csv")
    rows = list(csv.DictReader(io.StringIO(printed.stdout)))
    assert [row["source"] for row in rows] == ["'=HYPERLINK(1).png", 'a "quoted", name.png']
    assert rows[1] == {
        "image": images[1]["image_id"],
        "source": images[1]["source"],
        "given": "cat",
        "likely": "dog, or wolf",
        "confidence": "0.97",
    }
    written = ask(tmp_path, "one", "--csv", str(tmp_path / "found.csv"))
    assert written.exit_code == 0, written.output
    assert (tmp_path / "found.csv").read_text() == printed.stdout
    of_latest = ask(tmp_path, "--csv", str(tmp_path / "latest.csv"))
    assert of_latest.exit_code == 0, of_latest.output
    assert (tmp_path / "latest.csv").read_text() == printed.stdout


@pytest.mark.parametrize(
    ("figures", "said"),
    [({}, "did not look for label errors"), (None, "no decision record")],
)
def test_a_run_without_suspects_says_why(
    tmp_path: Path, figures: dict[str, Any] | None, said: str
) -> None:
    if figures is None:
        (tmp_path / "one" / "steps").mkdir(parents=True)
    else:
        write(tmp_path, figures)
    answer = ask(tmp_path, "one")
    assert isinstance(answer.exception, ConfigurationError)
    assert said in str(answer.exception)


def test_no_suspect_is_said(tmp_path: Path) -> None:
    write(tmp_path, {"suspects": {"count": 0, "of": 50, "images": []}})
    answer = ask(tmp_path, "one")
    assert "No label of the 50 training images of one looks wrong." in answer.output


def test_a_file_without_csv_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"suspects": {"count": 0, "of": 50, "images": []}})
    assert ask(tmp_path, "one", "here.csv").exit_code == 2
