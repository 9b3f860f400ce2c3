"""How well two sets of answers agree, and when that is not good enough.

Needs numpy only: ``graftline verify`` uses it where there is no PyTorch.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from graftline.errors import ParityError

MAX_DIFFERENCE = 1e-3
NAMED = 10  # images that an error names


@dataclasses.dataclass(frozen=True, kw_only=True)
class Disagreement:
    """An image on which file and PyTorch differ."""

    image: str
    pytorch: str
    onnx: str
    difference: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parity:
    """How well the file agrees with PyTorch.

    Attributes:
        images: Images compared.
        label_agreement: Fraction with the same likeliest class.
        max_probability_difference: Over all images and classes.
        max_embedding_difference: Largest over the length of the longest embedding.
        odd_sizes_difference: Largest probability difference on made-up images of odd sizes.
        differing: Images with another label, or beyond the limit.
    """

    images: int
    label_agreement: float
    max_probability_difference: float
    max_embedding_difference: float = 0.0
    odd_sizes_difference: float = 0.0
    differing: tuple[Disagreement, ...] = ()


def summarise(
    expected: np.ndarray,
    found: np.ndarray,
    names: Sequence[str],
    classes: Sequence[str],
    limit: float = MAX_DIFFERENCE,
) -> Parity:
    """Figures of two sets of probabilities (N, classes) for the same images."""
    if len(names) == 0:
        return Parity(images=0, label_agreement=1.0, max_probability_difference=0.0)
    differences = np.abs(expected - found).max(axis=1)
    differences = np.where(np.isfinite(differences), differences, 1.0)  # NaN never agrees
    labels, answers = expected.argmax(axis=1), found.argmax(axis=1)
    wrong = np.flatnonzero((labels != answers) | (differences > limit))
    worst_first = wrong[np.argsort(-differences[wrong], kind="stable")]
    return Parity(
        images=len(names),
        label_agreement=float((labels == answers).mean()),
        max_probability_difference=float(differences.max()),
        differing=tuple(
            Disagreement(
                image=names[row],
                pytorch=classes[labels[row]],
                onnx=classes[answers[row]],
                difference=float(differences[row]),
            )
            for row in worst_first
        ),
    )


def check(parity: Parity, *, label_tolerance: int = 0, limit: float = MAX_DIFFERENCE) -> None:
    """Refuse a file that answers differently.

    Args:
        parity: As :func:`compare` gave it.
        label_tolerance: Images whose label may differ.
        limit: Probability difference that no image may exceed.

    Raises:
        ParityError: It does, beyond the tolerance; the message names the images.
    """
    other_label = sum(item.pytorch != item.onnx for item in parity.differing)
    worst = max(parity.max_probability_difference, parity.odd_sizes_difference)
    if other_label <= label_tolerance and worst <= limit:
        return
    named = "\n".join(
        f"  {item.image}: {item.pytorch} in PyTorch, {item.onnx} in the file, "
        f"probabilities differ by {item.difference:.2g}"
        for item in parity.differing[:NAMED]
    )
    more = len(parity.differing) - NAMED
    raise ParityError(
        f"The ONNX file does not agree with the evaluated model: of {parity.images:,} images "
        f"{other_label} get a different label (allowed: {label_tolerance}), the largest "
        f"probability difference is {parity.max_probability_difference:.2g} on them and "
        f"{parity.odd_sizes_difference:.2g} on odd sizes (allowed: {limit:.2g})."
        + (f"\n{named}" if named else "")
        + (f"\n  and {more:,} more" if more > 0 else ""),
        why="An exporter or a runtime treats an operator differently from PyTorch.",
        fix="Try another export.opset; if only near-ties differ, state how many may in "
        "export.label_tolerance. Please report which backbone it was.",
    )
