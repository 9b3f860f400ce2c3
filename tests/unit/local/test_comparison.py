"""Two runs side by side; the paired counts by hand, the interval by Newcombe's bound on it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from graftline_pipelines.cli.main import app
from graftline_pipelines.local.comparison import compare
from graftline_pipelines.local.runs import read_run


def images(first: int, wrong: int, *, total: int = 100, group: int = 1) -> dict[str, tuple]:
    """Images ``i0``...; of them, ``wrong`` from ``first`` on get the other answer."""
    found = {}
    for n in range(total):
        label = ("cat", "dog")[n % 2]
        other = ("dog", "cat")[n % 2]
        answer = other if first <= n < first + wrong else label
        found[f"i{n}"] = (label, answer, f"g{n // group}")
    return found


def test_paired_counts_and_interval(make_run: Callable[..., Path]) -> None:
    one = read_run(make_run("a-1", test=images(0, 20)))
    other = read_run(make_run("a-2", test=images(15, 6)))
    found = compare(one, other).paired
    assert found is not None
    assert (found.images, found.only_first, found.only_second) == (100, 1, 15)
    assert found.accuracy == (0.80, 0.94) and found.difference == pytest.approx(0.14)
    low, high = found.interval
    # Newcombe (1998), method 10, for 79 both right, 1 only the first, 15 only the second, 5 none.
    assert low == pytest.approx(0.065, abs=0.01) and high == pytest.approx(0.222, abs=0.015)
    assert "The second is better by 14.0 points" in found.sentence()
    turned = compare(other, one).paired
    assert turned is not None
    assert turned.interval == pytest.approx((-high, -low))
    assert "The first is better" in turned.sentence()


def test_images_of_one_group_count_as_what_they_are_worth(make_run: Callable[..., Path]) -> None:
    alone = compare(
        read_run(make_run("a-1", test=images(0, 20))), read_run(make_run("a-2", test=images(0, 0)))
    ).paired
    grouped = compare(
        read_run(make_run("b-1", test=images(0, 20, group=10))),
        read_run(make_run("b-2", test=images(0, 0, group=10))),
    ).paired
    assert alone is not None and grouped is not None
    assert grouped.difference == alone.difference
    assert grouped.interval[0] < alone.interval[0] and grouped.interval[1] > alone.interval[1]


def test_no_difference_is_not_called_one(make_run: Callable[..., Path]) -> None:
    one = read_run(make_run("a-1", test=images(0, 5)))
    other = read_run(make_run("a-2", test=images(0, 4)))
    found = compare(one, other).paired
    assert found is not None and "No difference is shown" in found.sentence()


def test_what_differs_is_said_and_nothing_else(make_run: Callable[..., Path]) -> None:
    first = {"state": "done", "settings": {"seed": 0, "gate": {"margin": 0.01, "min_gain": 0.0}}}
    second = {"state": "done", "settings": {"seed": 0, "gate": {"margin": 0.02, "min_gain": 0.0}}}
    test = images(0, 1, total=4)
    later = {**test, "i3": ("cat", "cat", "g3"), "i9": ("dog", "dog", "g9")}
    one = read_run(make_run("a-1", test=test, train={"t1": "cat", "t2": "dog"}, written=first))
    other = read_run(make_run("a-2", test=later, train={"t1": "cat"}, written=second))
    found = compare(one, other)
    assert found.settings == {"gate.margin": (0.01, 0.02)}
    assert found.data["train images"] == (2, 1) and found.data["test images"] == (4, 5)
    assert "rejected" not in found.data
    assert found.images == {
        "only in the first": 1,
        "only in the second": 1,
        "with another label": 1,
    }
    assert found.paired is not None
    assert (found.paired.images, found.paired.relabelled) == (3, 1)


def test_runs_without_common_images_or_settings(
    make_run: Callable[..., Path], tmp_path: Path
) -> None:
    make_run("a-1", test={"x": ("cat", "cat", "x")})
    make_run("a-2", test={"y": ("cat", "cat", "y")})
    make_run("a-3", failed=True)
    runs = ["--runs-dir", str(tmp_path / "runs")]
    done = CliRunner().invoke(app, ["compare", "a-1", "a-2", *runs])
    assert done.exit_code == 0, done.output
    assert "no test images in common" in done.output and "kept none" in done.output
    done = CliRunner().invoke(app, ["compare", "a-1", "a-3", "--json", *runs])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["paired"] is None and told["figures"]["verdict"][1] == "failed in fit_head"
