"""The curves of a training, read back from the page's SVG."""

import re

import pytest

from graftline.reports.training_curves import training_curves


def history(*accuracies: float) -> list[dict[str, float]]:
    return [
        {"epoch": i, "train_loss": 1 / i, "val_loss": 2 / i, "val_accuracy": accuracy}
        for i, accuracy in enumerate(accuracies, start=1)
    ]


def test_the_probe_is_a_level_line_that_crosses_the_whole_training() -> None:
    drawn = str(training_curves(history(0.80, 0.90, 0.95), 0.85, best_epoch=3))
    lines = re.findall(r'<(?:path|polyline)[^>]*(?:d|points)="([^"]+)"', drawn)
    numbers = [[float(n) for n in re.findall(r"-?\d+\.?\d*", line)] for line in lines]
    own, probe = (list(zip(n[::2], n[1::2], strict=True)) for n in numbers[:2])
    assert probe[0][1] == probe[-1][1]
    assert probe[0][0] < own[0][0]
    assert probe[-1][0] == own[-1][0]
    # below the probe first, above it then; SVG counts downwards
    assert own[0][1] > probe[0][1] > own[1][1] > own[2][1]
    assert "3 (kept)" in drawn
    assert "85" not in re.findall(r"<td[^>]*>([^<]*)</td>", drawn)


def test_nothing_is_drawn_of_no_training() -> None:
    assert str(training_curves([], 0.9, 0)) == ""


@pytest.mark.parametrize("accuracy", [0.0, 1.0])
def test_one_epoch_can_be_drawn(accuracy: float) -> None:
    assert "<svg" in str(training_curves(history(accuracy), accuracy, 1))
