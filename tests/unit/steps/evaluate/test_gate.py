"""The gate on made-up answers whose right decision is known."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from scipy import stats

from graftline.errors import ConfigurationError
from graftline.records.verdict import GateTest
from graftline.settings import read_section
from graftline.stats.paired_tests import mcnemar, score_bound
from graftline.steps.evaluate.config import GateSettings
from graftline.steps.evaluate.gate import Champion, Evidence, decide


def paired(
    *, gained: int, lost: int, both: int, neither: int = 0, classes: int = 1, **champion: Any
) -> Evidence:
    """Answers by how often one, the other, both or none of the models is right."""
    new = np.repeat([True, False, True, False], [gained, lost, both, neither])
    old = np.repeat([False, True, True, False], [gained, lost, both, neither])
    n = len(new)
    return Evidence(
        labels=np.arange(n) % classes,
        right=new,
        classes=tuple(f"class {c}" for c in range(classes)),
        majority=0,
        champion=Champion(
            version="4", right=old, **{"comparable": np.ones(n, dtype=bool)} | champion
        ),
    )


def outcome(evidence: Evidence, **rules: Any) -> dict[str, GateTest]:
    return {test.name: test for test in decide(evidence, GateSettings(**rules))}


def failed(evidence: Evidence, **rules: Any) -> set[str]:
    return {name for name, test in outcome(evidence, **rules).items() if not test.passed}


def test_a_clear_gain_is_promoted_and_the_sentence_has_its_figures() -> None:
    tests = outcome(paired(gained=80, lost=20, both=1700, neither=200))
    assert all(test.passed for test in tests.values())
    test = tests["not_worse"]
    assert "89.0% against the champion's 86.0% (version 4) on the same 2,000 test images" in (
        test.reason
    )
    assert "+3.0 points" in test.reason and "within the margin of −1.0" in test.reason
    assert test.figures["mcnemar_p"] == mcnemar(80, 20)
    assert test.figures["only_challenger_right"] == 80
    bound = score_bound(80, 20, 2000, 0.95, "lower")
    assert test.figures["lower_bound"] == pytest.approx(min(bound, test.figures["bootstrap_bound"]))
    assert bound == pytest.approx(test.figures["bootstrap_bound"], abs=3e-3)


def test_a_clear_loss_is_not_promoted() -> None:
    evidence = paired(gained=20, lost=100, both=1700, neither=180)
    assert "not_worse" in failed(evidence)
    assert "beyond the margin of −1.0" in outcome(evidence)["not_worse"].reason


def test_the_margin_is_met_by_the_bound_not_by_the_estimate() -> None:
    # The same answers to all images: the loss that can be ruled out is z^2 / (n + z^2).
    assert failed(paired(gained=0, lost=0, both=268)) == set()
    assert failed(paired(gained=0, lost=0, both=267)) == {"not_worse"}
    reason = outcome(paired(gained=0, lost=0, both=267))["not_worse"].reason
    assert "so few images cannot rule out a loss beyond the margin" in reason
    assert failed(paired(gained=0, lost=0, both=267), margin=0.02) == set()
    assert failed(paired(gained=0, lost=0, both=268), confidence=0.99) == {"not_worse"}


def test_the_number_of_images_that_would_do_is_about_right() -> None:
    evidence = paired(gained=10, lost=10, both=160, neither=20)
    reason = outcome(evidence)["not_worse"].reason
    number = int(reason.split("about ")[1].split(" could")[0].replace(",", ""))
    share = number / 200
    assert score_bound(10 * share, 10 * share, number, 0.95, "lower") == pytest.approx(
        -0.01, abs=5e-4
    )


def test_min_gain_wants_the_gain_and_that_it_is_no_chance() -> None:
    clear = paired(gained=80, lost=20, both=1700, neither=200)  # 3 points
    assert failed(clear, min_gain=0.03) == set()
    assert failed(clear, min_gain=0.0301) == {"gain"}
    assert "gate.min_gain asks for +3.0" in outcome(clear, min_gain=0.0301)["gain"].reason
    chance = paired(gained=12, lost=8, both=60, neither=20)  # 4 points, p = 0.5
    assert "gain" in failed(chance, min_gain=0.03, margin=0.2)
    assert "may be chance" in outcome(chance, min_gain=0.03, margin=0.2)["gain"].reason


def test_the_same_data_asks_for_a_real_gain() -> None:
    even = {"gained": 30, "lost": 30, "both": 8000, "neither": 100}
    assert failed(paired(**even)) == set()
    assert failed(paired(**even, same_snapshot=True)) == {"newer"}
    assert failed(paired(**even | {"gained": 90}, same_snapshot=True)) == set()
    same = outcome(paired(gained=0, lost=0, both=500, same_snapshot=True, same_answers=True))
    assert "the same label to all 500 test images" in same["newer"].reason


def test_a_class_that_falls_is_found_though_the_mean_rises() -> None:
    # Ten classes of 200 images; class 3 loses 60 of them, the others gain.
    labels = np.repeat(np.arange(10), 200)
    new, old = np.ones(2000, dtype=bool), np.ones(2000, dtype=bool)
    new[600:660] = False
    old[np.r_[0:40, 400:440, 1000:1040]] = False
    evidence = Evidence(
        labels=labels,
        right=new,
        classes=tuple("abcdefghij"),
        majority=0,
        champion=Champion(version="1", right=old, comparable=np.ones(2000, dtype=bool)),
    )
    assert failed(evidence) == {"class_recall"}
    reason = outcome(evidence)["class_recall"].reason
    assert "falls by more than 5.0 points for 'd' (−30.0 points on 200 images)" in reason
    assert failed(evidence, max_class_drop=0.3) == set()


def test_a_class_of_few_images_may_fall_by_chance() -> None:
    labels = np.repeat([0, 1], [2000, 5])
    new, old = np.ones(2005, dtype=bool), np.ones(2005, dtype=bool)
    new[-1] = False  # one of five: 20 points, but one image
    evidence = Evidence(
        labels=labels,
        right=new,
        classes=("a", "b"),
        majority=0,
        champion=Champion(version="1", right=old, comparable=np.ones(2005, dtype=bool)),
    )
    assert failed(evidence) == set()
    assert "largest fall is −20.0 points on the 5 images of 'b'" in (
        outcome(evidence)["class_recall"].reason
    )


def test_grouped_images_count_for_less() -> None:
    alone = paired(gained=60, lost=30, both=1700, neither=210)
    assert failed(alone) == set()
    # Copies of ten: the same shares, but 200 independent answers in place of 2,000.
    few = paired(gained=6, lost=3, both=170, neither=21)
    copies = dataclasses.replace(
        few,
        labels=np.repeat(few.labels, 10),
        right=np.repeat(few.right, 10),
        groups=np.arange(2000) // 10,
        champion=Champion(
            version="1",
            right=np.repeat(few.champion.right, 10),
            comparable=np.ones(2000, dtype=bool),
        ),
    )
    assert failed(copies) == {"not_worse"}
    figures = outcome(copies)["not_worse"].figures
    assert figures["effective_images"] == pytest.approx(200, rel=0.02)
    bound = score_bound(6, 3, 200, 0.95, "lower")
    assert figures["lower_bound"] == pytest.approx(bound, abs=4e-3)


def test_images_of_the_champions_training_do_not_count() -> None:
    evidence = paired(gained=0, lost=200, both=1000)
    fair = np.ones(1200, dtype=bool)
    fair[:200] = False  # all that it lost was in the champion's training
    assert "not_worse" in failed(evidence)
    evidence = dataclasses.replace(
        evidence, champion=dataclasses.replace(evidence.champion, comparable=fair)
    )
    assert failed(evidence) == set()
    assert outcome(evidence)["not_worse"].figures["images"] == 1000


def test_nothing_to_compare_on_is_not_promoted() -> None:
    evidence = paired(gained=5, lost=0, both=95, comparable=np.zeros(100, dtype=bool))
    assert failed(evidence) == {"not_worse"}
    assert "No test image is left to compare" in outcome(evidence)["not_worse"].reason


def test_floors_bind_at_their_value() -> None:
    evidence = paired(gained=0, lost=0, both=900, neither=100)
    assert failed(evidence, min_accuracy=0.9) == set()
    assert failed(evidence, min_accuracy=0.9001) == {"min_accuracy"}
    assert "90.0% on 1,000 images is below the floor of 90.0%" in (
        outcome(evidence, min_accuracy=0.9001)["min_accuracy"].reason
    )


def test_calibration_is_judged_beyond_what_chance_explains() -> None:
    evidence = paired(gained=0, lost=0, both=900, neither=100)
    at = dataclasses.replace(evidence, ece=0.125, ece_noise=0.025)
    assert failed(at, max_ece=0.1) == set()
    over = dataclasses.replace(evidence, ece=0.126, ece_noise=0.025)
    assert failed(over, max_ece=0.1) == {"calibration"}
    assert "12.6% exceeds the limit of 10.0% beyond the 2.5%" in (
        outcome(over, max_ece=0.1)["calibration"].reason
    )


def test_guarded_slices_have_a_floor_and_may_not_fall() -> None:
    evidence = paired(gained=150, lost=100, both=1600, neither=150)
    night = np.zeros(2000, dtype=bool)
    night[150:350] = True  # the hundred that were lost, and a hundred that both get right
    evidence = dataclasses.replace(evidence, slices={"light=night": night})
    assert failed(evidence) == {"slices"}
    assert "'light=night' (−50.0 points on 200 images)" in outcome(evidence)["slices"].reason
    assert failed(evidence, max_slice_drop=0.5) == set()
    assert failed(evidence, max_slice_drop=0.5, min_slice_accuracy=0.5) == set()
    low = failed(evidence, max_slice_drop=0.5, min_slice_accuracy=0.51)
    assert low == {"slice_floor"}


def test_classes_that_are_gone_need_a_word() -> None:
    evidence = paired(gained=0, lost=0, both=500, removed_classes=("cat",), new_classes=("dog",))
    assert failed(evidence) == {"classes_kept"}
    assert "no longer knows 'cat'" in outcome(evidence)["classes_kept"].reason
    assert failed(evidence, allow_removed_classes=True) == set()


def first(right: np.ndarray, labels: np.ndarray, **more: Any) -> Evidence:
    return Evidence(labels=labels, right=right, classes=("a", "b"), majority=0, **more)


def test_a_first_model_must_beat_the_majority_class() -> None:
    labels = np.repeat([0, 1], [60, 40])
    majority = labels == 0
    assert failed(first(majority, labels)) == {"better_than_majority"}
    # k of the forty others right: exact one-sided p is 2^-k; five are the fewest below 0.05.
    four, five = majority.copy(), majority.copy()
    four[60:64] = five[60:65] = True
    assert failed(first(four, labels)) == {"better_than_majority"}
    assert failed(first(five, labels)) == set()
    test = outcome(first(five, labels))["better_than_majority"]
    assert test.figures["p"] == pytest.approx(2**-5)
    assert "always answering 'a': 65.0% against 60.0% (p = 0.031, 100 test images)" in test.reason
    assert failed(first(five, labels), min_accuracy=0.7) == {"min_accuracy"}
    # Five images of one group are one observation.
    groups = np.r_[np.arange(60), np.full(5, 60), np.arange(61, 96)]
    assert failed(first(five, labels, groups=groups)) == {"better_than_majority"}


def test_a_first_model_is_compared_with_the_best_constant_answer_to_the_test_images() -> None:
    # "a" is the majority of training, but most test images are "b": always "b" is no achievement.
    labels = np.repeat([0, 1], [20, 80])
    always_b = labels == 1
    found = outcome(first(always_b, labels))
    assert not found["better_than_majority"].passed
    assert found["better_than_majority"].figures["majority"] == pytest.approx(0.8)
    better = always_b.copy()
    better[:5] = True
    test = outcome(first(better, labels))["better_than_majority"]
    assert test.passed and "always answering 'b': 85.0% against 80.0%" in test.reason


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("answer", [0, 1, 2])
def test_a_model_that_always_says_the_same_is_never_promoted(beside: bool, answer: int) -> None:
    labels = np.repeat([0, 1, 2], [500, 400, 300])
    right = labels == answer
    champion = Champion(
        version="1", right=np.zeros(1200, dtype=bool), comparable=np.ones(1200, dtype=bool)
    )
    evidence = Evidence(
        labels=labels,
        right=right,
        classes=("a", "b", "c"),
        majority=2,
        champion=champion if beside else None,
    )
    assert failed(evidence) >= {"answers_differ" if beside else "better_than_majority"}
    said = dataclasses.replace(evidence, given=np.full(1200, answer))
    assert f"the same answer, {'abc'[answer]!r}, to all 1,200" in (
        outcome(said)["answers_differ"].reason
    )
    other = said.given.copy()
    other[0] = (answer + 1) % 3
    assert "answers_differ" not in outcome(dataclasses.replace(said, given=other))


@pytest.mark.parametrize("beside", [False, True])
def test_a_test_split_of_one_class_promotes_nothing(beside: bool) -> None:
    labels = np.ones(400, dtype=int)
    champion = Champion(version="1", right=np.zeros(400, dtype=bool), comparable=labels == 1)
    evidence = first(np.ones(400, dtype=bool), labels, champion=champion if beside else None)
    assert "test_classes" in failed(evidence)
    assert "All 400 test images are of the class 'b'" in outcome(evidence)["test_classes"].reason


def test_few_test_images_are_warned_of_and_refused_where_that_is_asked_for() -> None:
    labels = np.arange(10) % 2
    evidence = first(np.ones(10, dtype=bool), labels)
    assert failed(evidence) == set()
    test = outcome(evidence)["min_test_images"]
    exact = stats.binomtest(10, 10).proportion_ci(0.95, "exact")
    assert "Warning: there are only 10 test images" in test.reason
    assert f"from {100 * exact.low:.0f}% to 100%" in test.reason
    assert failed(evidence, min_test_images=11) == {"min_test_images"}
    assert failed(evidence, min_test_images=10) == set()
    assert "min_test_images" not in outcome(paired(gained=0, lost=0, both=500))


def test_a_passed_calibration_is_said_without_contradiction() -> None:
    evidence = dataclasses.replace(
        paired(gained=0, lost=0, both=900, neither=100), ece=0.126, ece_noise=0.05
    )
    reason = outcome(evidence)["calibration"].reason
    assert "7.6% above the 5.0% that chance explains" in reason and "within" not in reason
    noise = outcome(dataclasses.replace(evidence, ece=0.04))["calibration"].reason
    assert "chance alone explains up to 5.0%" in noise


def test_equal_seeds_give_equal_verdicts() -> None:
    evidence = paired(gained=50, lost=40, both=900, neither=10, classes=4)
    assert decide(evidence, GateSettings(), 3) == decide(evidence, GateSettings(), 3)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"margn": 0.1}, r"gate\.margn is not a setting.*gate\.margin"),
        ({"margin": -0.1}, r"gate\.margin is -0\.1"),
        ({"margin": True}, r"gate\.margin is True"),
        ({"confidence": 0.5}, r"gate\.confidence is 0\.5"),
        ({"slices": 3}, r"gate\.slices is 3"),
    ],
)
def test_wrong_rules_are_told(values: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=f"(?s){told}"):
        read_section(GateSettings, "gate", values)
