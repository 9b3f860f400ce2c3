"""Figures as a reader expects them."""


def significant(value: float, digits: int) -> str:
    """A figure to so many digits, never as ``1e+01``: 12.3 to one digit is 10, 1234 to three 1,230.

    Args:
        value: The figure.
        digits: How many say something.
    """
    return f"{float(f'{value:.{digits}g}'):,.12g}"


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun: ``1 image``, ``2 images``."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"
