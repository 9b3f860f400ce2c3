"""Figures in sentences: no powers of ten where a number can be read."""

import pytest

from graftline.stats.wording import counted, significant


@pytest.mark.parametrize(
    ("value", "digits", "said"),
    [
        (12.3, 1, "10"),
        (54.9, 1, "50"),
        (0.0551, 2, "0.055"),
        (123.4, 2, "120"),
        (1234.0, 3, "1,230"),
        (0.0, 2, "0"),
        (85.66, 3, "85.7"),
    ],
)
def test_no_powers_of_ten(value: float, digits: int, said: str) -> None:
    assert significant(value, digits) == said


def test_a_number_agrees_with_its_noun() -> None:
    assert counted(1, "image") == "1 image" and counted(1200, "image") == "1,200 images"
    assert counted(2, "class", "classes") == "2 classes" and counted(0, "file") == "0 files"
