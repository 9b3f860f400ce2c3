"""The curves of a training, read back from the page's SVG."""

import re

import pytest

from graftline.reports.training_curves import accuracy_chart, epoch_rows


def history(*accuracies: float) -> list[dict[str, float]]:
    return [
        {"epoch": i, "train_loss": 1 / i, "val_loss": 2 / i, "val_accuracy": accuracy}
        for i, accuracy in enumerate(accuracies, start=1)
    ]


def test_the_probe_is_a_level_line_that_crosses_the_whole_training() -> None:
    drawn = str(accuracy_chart(history(0.80, 0.90, 0.95), 0.85))
    lines = re.findall(r'<polyline[^>]*points="([^"]+)"', drawn)
    own, probe = ([tuple(map(float, p.split(","))) for p in line.split()] for line in lines)
    assert probe[0][1] == probe[-1][1]
    assert probe[0][0] < own[0][0]
    assert probe[-1][0] == own[-1][0]
    # below the probe first, above it then; SVG counts downwards
    assert own[0][1] > probe[0][1] > own[1][1] > own[2][1]


def test_the_kept_epoch_is_named() -> None:
    rows = epoch_rows(history(0.80, 0.90), best_epoch=2)
    assert [row[0] for row in rows] == ["1", "2 (kept)"]
    assert rows[1][1:] == ("0.5000", "1.0000", "90.0%")


@pytest.mark.parametrize("epochs", [1, 2, 3, 10, 30])
def test_the_axis_names_each_epoch_once(epochs: int) -> None:
    drawn = str(accuracy_chart(history(*[0.9] * epochs), 0.8))
    axis = [int(text) for text in re.findall(r">(\d+)</text>", drawn)]
    assert axis[0] == 0 and axis == sorted(set(axis)) and len(axis) > 1


@pytest.mark.parametrize("accuracy", [0.0, 1.0])
def test_one_epoch_can_be_drawn(accuracy: float) -> None:
    assert "<svg" in str(accuracy_chart(history(accuracy), accuracy))
