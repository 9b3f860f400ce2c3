"""Figures in sentences: no powers of ten where a number can be read."""

import pytest

from graftline.stats.wording import significant


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
