"""Every strategy through the whole graph under KFP's local runner: which branch runs, and why."""

import html
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graftline.steps.fit_head.config import AutoSettings
from graftline.steps.fit_head.decision.strategy import decide


@pytest.fixture
def run_strategy(
    run_graftline: Callable[..., Any], make_digits_folder: Callable[..., Path]
) -> Callable[..., dict[str, Any]]:
    """`graftline run` with a strategy, on a few digits; its JSON."""
    run_file = {
        "data": {"source": str(make_digits_folder(per_class=24, classes=3))},
        "backbone": "timm/test_resnet",
        "weights": "random",
        "image_size": 32,
        "probe": {"c_grid": [0.01]},
    }

    def run(**changes: Any) -> dict[str, Any]:
        result: dict[str, Any] = run_graftline({**run_file, **changes}, "--json")[0]
        result["bundle"] = json.loads(_bundle(Path(result["run_dir"])).read_text())
        return result

    return run


def _bundle(run_dir: Path) -> Path:
    """What `evaluate` passed on: the classifier that is exported and promoted."""
    (found,) = run_dir.glob("artifacts/*/evaluate*/calibrated/classifier.json")
    return found


TRAINING = {"epochs": 2, "batch_size": 16, "learning_rate": 1e-3}


def test_auto_decides_for_fine_tuning_and_takes_that_branch(
    run_strategy: Callable[..., dict[str, Any]],
) -> None:
    """Settings under which 16 images a class are many, and any gain is worth its cost."""
    auto = {"large_images_per_class": 5, "min_gain": -1.0, "similar_accuracy": 1.0}
    result = run_strategy(strategy="auto", auto=auto, fine_tune=TRAINING)
    decision = result["decision"]
    assert decision["cell"] == "large and different"
    assert decision["choice"] == "fine_tune" and decision["strategy"] == "auto"
    steps = [step for step in result["seconds"] if step != "total"]
    assert steps[steps.index("fit_head") :] == [
        "fit_head",
        "fine_tune",
        "evaluate",
        "export_onnx",
        "promote",
    ]
    outcome = decision["outcome"]
    better = outcome["sentence"].endswith("the fine-tuned model is used.")
    assert outcome["used"] == ("fine_tune" if better else "probe")
    assert outcome["agreed"] == better and (outcome["gain"] > 0 or not better)
    assert result["strategy"] == result["bundle"]["strategy"] == outcome["used"]
    assert result["parity"]["label_agreement"] == 1.0


@pytest.mark.slow
def test_auto_decides_for_the_probe_and_starts_no_training(
    run_strategy: Callable[..., dict[str, Any]],
) -> None:
    result = run_strategy(strategy="auto", auto={"similar_accuracy": 0.0, "min_gain": 1.0})
    assert result["decision"]["cell"] == "small and similar"
    assert result["strategy"] == result["bundle"]["strategy"] == "probe"
    assert "fine_tune" not in result["seconds"]


# After TRAINING a network from random weights still says a third for each class, and which of two
# equal probabilities is larger differs between PyTorch and the file.
LONG_ENOUGH = {
    "head": {"hidden": [32], "epochs": 40},
    "scratch": {"epochs": 8, "batch_size": 16, "learning_rate": 1e-2, "ema": 0.0},
}


@pytest.mark.slow
@pytest.mark.parametrize("strategy", list(LONG_ENOUGH))
def test_head_and_scratch_end_in_a_model(
    run_strategy: Callable[..., dict[str, Any]], strategy: str
) -> None:
    result = run_strategy(strategy=strategy, **{strategy: LONG_ENOUGH[strategy]})
    decision = result["decision"]
    assert ("fine_tune" in result["seconds"]) == (strategy == "scratch")
    assert result["parity"]["label_agreement"] == 1.0
    assert result["registered"]["version"] == "1"
    if strategy == "scratch":  # is kept, so that it can be compared with what the transfer gave
        assert result["strategy"] == result["bundle"]["strategy"] == "scratch"
        assert "random weights" in decision["outcome"]["sentence"]
    else:
        figures = decision["figures"]
        better = figures["head"]["val_accuracy"] >= figures["probe"]["val_accuracy"]
        assert result["strategy"] == result["bundle"]["strategy"] == ("head" if better else "probe")
        assert "The head is" in decision["reasons"][-1]


@pytest.mark.slow
def test_a_pilot_decides_in_the_graph_and_the_page_says_what_it_found(
    run_graftline: Callable[..., Any], make_digits_folder: Callable[..., Path], tmp_path: Path
) -> None:
    """Labels that nothing can learn; what is asked for is what a pilot may show."""
    hard = tmp_path / "hard"
    for number, image in enumerate(sorted(make_digits_folder(per_class=60).rglob("*.png"))):
        (hard / f"class{number % 3}").mkdir(parents=True, exist_ok=True)
        image.rename(hard / f"class{number % 3}" / image.name)
    run_file = {
        "data": {"source": str(hard)},
        "backbone": "timm/test_resnet",
        "weights": "random",
        "image_size": 32,
        "probe": {"c_grid": [0.01]},
        "fine_tune": {"epochs": 30, "batch_size": 32, "learning_rate": 1e-3},
    }
    expected = run_graftline({**run_file, "strategy": "probe"}, "--json")[0]
    assert expected["decision"]["pilot"] is None
    gain = _price_in_doubt(expected["decision"]["figures"], expected["images"]["val"], 30)
    auto = {"min_gain": gain, "all_blocks": False}  # their features would need no pilot
    result = run_graftline({**run_file, "strategy": "auto", "auto": auto}, "--json")[0]
    decision = result["decision"]
    pilot = decision["pilot"]
    assert pilot["gain"] is not None and "fine_tune" in result["seconds"]
    goes_on = pilot["offset"] + pilot["slope"] * pilot["gain"] >= pilot["min_gain"]
    assert decision["choice"] == ("fine_tune" if goes_on else "probe")
    assert (decision["outcome"] is not None) == goes_on
    page = html.unescape(Path(result["decision_page"]).read_text("utf-8"))
    assert page.count("gain of the pilot in points") == 1
    said = [reason for reason in decision["reasons"] if reason.startswith("The pilot differs")]
    assert len(said) == 1 and said[0] in page


def _price_in_doubt(figures: dict[str, Any], validation_images: int, epochs: int) -> float:
    """The lowest `auto.min_gain` at which a pilot pays."""
    for price in np.geomspace(1e-4, 0.1, 60):
        asked = decide(
            "auto",
            figures,
            AutoSettings(min_gain=float(price)),
            notes=[],
            snapshot_id="",
            backbone="",
            validation_images=validation_images,
            epochs=epochs,
        )
        if asked.pilot is not None:
            return float(price)
    raise AssertionError("no pilot pays at any price")


@pytest.mark.slow
def test_backbone_auto_races_once_and_all_runs_take_the_winner(
    run_graftline: Callable[..., Any], make_digits_folder: Callable[..., Path]
) -> None:
    names = ["timm/test_resnet", "timm/test_vit"]
    run_file = {
        "data": {"source": str(make_digits_folder(per_class=24, classes=3))},
        "backbone": "auto",
        "race": {"backbones": names, "images": 40},
        "image_size": 64,
        "weights": "random",
        "strategy": "probe",
        "probe": {"c_grid": [0.01]},
    }
    first, said = run_graftline(run_file, "--json")
    assert first["backbone"] in names and all(name in said for name in names)
    second, said = run_graftline(run_file, "--json")
    assert second["backbone"] == first["backbone"]
    assert not any(name in said for name in names if name != first["backbone"])
    assert second["extracted"] == 0
