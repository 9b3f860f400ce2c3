"""The search over learning rate and blocks: its order, its limit, and that it goes on."""

from collections.abc import Callable
from typing import Any

import pytest

from graftline.errors import TrainingError
from graftline.steps.fine_tune import search as module
from graftline.steps.fine_tune import step
from graftline.steps.fine_tune.recipe import Settings
from graftline.steps.fine_tune.search import candidates, choose
from graftline.steps.fine_tune.training import train
from graftline.steps.fine_tune.trial import Trial


def trial(accuracy: float, loss: float = 1.0, rate: float = 1e-3) -> Trial:
    return Trial(
        learning_rate=rate,
        unfreeze=0.5,
        epochs=2,
        val_accuracy=accuracy,
        val_loss=loss,
        seconds=1.0,
    )


@pytest.mark.parametrize("unfreeze", [0.5, 1.0, 3, 0, 1, "all"])
def test_candidates_begin_with_the_settings_given_and_never_repeat(unfreeze: Any) -> None:
    found = list(candidates(Settings(unfreeze=unfreeze, learning_rate=1e-3)))
    assert found[0] == (1e-3, unfreeze)
    assert len(found) == len(set(found)) >= 6
    assert {rate for rate, _ in found} == {1e-3, 3e-3, 1e-3 / 3}
    assert all(isinstance(u, str) or u >= 0 for _, u in found)
    assert found == list(candidates(Settings(unfreeze=unfreeze, learning_rate=1e-3)))


def test_the_best_is_the_most_accurate_then_the_least_lossy_then_the_first() -> None:
    first, second = trial(0.9, rate=1), trial(0.9, rate=2)
    assert choose([trial(0.8), first, second]) is first
    assert choose([first, trial(0.9, 0.5)]).val_loss == 0.5
    assert choose([trial(-1.0, 0.0), trial(0.1, 9.0)]).val_accuracy == 0.1  # one that failed


def test_a_search_is_recorded_bounded_and_goes_on_where_it_was(
    fitted: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[tuple[float, Any]] = []
    real = module._run

    def counted(order: Any, start: Any, rate: float, unfreeze: Any) -> Trial:
        ran.append((rate, unfreeze))
        if len(ran) == 2:
            raise KeyboardInterrupt  # the pod is lost in the second trial
        return real(order, start, rate, unfreeze)

    monkeypatch.setattr(module, "_run", counted)
    monkeypatch.setattr(module, "RATES", (1.0, 0.0001))
    monkeypatch.setattr(module, "_others", lambda _: [])
    trained: list[Any] = []
    monkeypatch.setattr(
        step, "train", lambda order, *a, **k: trained.append(order) or train(order, *a, **k)
    )
    options = {"epochs": 2, "learning_rate": 1e-2, "search": 60.0}
    with pytest.raises(KeyboardInterrupt):
        fitted("one", **options)
    result = fitted("two", **options)
    assert [rate for rate, _ in ran] == pytest.approx([1e-2, 1e-6, 1e-6])
    trials = result.decision["outcome"]["search"]
    assert [t["learning_rate"] for t in trials] == pytest.approx([1e-2, 1e-6])
    best = max(trials, key=lambda t: (t["val_accuracy"], -t["val_loss"]))
    again = fitted("three", **options)  # from the same trials the same conclusion
    assert len(ran) == 3
    assert again.val_accuracy == result.val_accuracy
    assert again.decision["outcome"]["search"] == trials
    assert [order.settings["learning_rate"] for order in trained] == [best["learning_rate"]] * 2


def test_the_first_trial_is_made_however_little_time_there_is(
    fitted: Callable[..., Any],
) -> None:
    result = fitted(search=1e-9, epochs=2)
    assert len(result.decision["outcome"]["search"]) == 1


def test_a_trial_that_diverges_is_the_worst_one(
    monkeypatch: pytest.MonkeyPatch, fitted: Callable[..., Any]
) -> None:
    real = module.train
    calls: list[int] = []

    def diverges_first(*args: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise TrainingError("the loss is NaN")
        return real(*args, **options)

    monkeypatch.setattr(module, "train", diverges_first)
    monkeypatch.setattr(module, "RATES", (1.0, 0.1))
    monkeypatch.setattr(module, "_others", lambda _: [])
    result = fitted(search=60.0, epochs=2, learning_rate=1e-2)
    trials = result.decision["outcome"]["search"]
    assert trials[0]["val_accuracy"] == -1.0
    assert trials[1]["val_accuracy"] >= 0
