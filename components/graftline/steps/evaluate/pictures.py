"""The pictures on the page: worst mistakes, cells of the confusion matrix, gains and losses."""

import dataclasses
from collections import defaultdict
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from graftline.progress import progress
from graftline.reports.html import thumbnail
from graftline.steps.evaluate.inference import Inference
from graftline.steps.evaluate.results import Findings, Picture
from graftline.steps.evaluate.robustness import sample
from graftline.steps.evaluate.saliency import activation_maps, overlay

Ints = NDArray[np.int64]
Pixels = NDArray[np.uint8]

PER_CELL = 12  # pictures of one cell of the confusion matrix
MOST_PICTURES = 400  # on a page: about 2 MB
CHANGED = 24  # pictures of what the champion got right and the challenger not, and the reverse
SMALL, LARGE = 96, 224


def brightness(inference: Inference, rows: Ints, most: int) -> dict[int, float]:
    """Mean of the pixels, 0 to 255, of up to ``most`` rows."""
    chosen = rows
    if len(rows) > most:
        chosen = rows[sample(inference.snapshot.labels()[rows], most, seed=0)]
    reading = progress(inference.encoded(chosen), "how bright the test images are", len(chosen))
    prepare = inference.classifier.preprocessing
    return {row: float(prepare.decode(data).mean()) for row, data in reading}


def with_pictures(findings: Findings, inference: Inference) -> Findings:
    """The findings with the pictures that its page shows."""
    worst = worst_mistakes(findings, findings.settings.evaluation.worst_mistakes)
    chosen = wanted(findings, worst)
    position_of = {int(findings.test.rows[position]): position for position in chosen}
    large: dict[int, Pixels] = {}
    pictures: dict[int, Picture] = {}
    sources = findings.test.snapshot.column("source")
    for row, data in inference.encoded(np.array(sorted(position_of), dtype=np.int64)):
        position = position_of[row]
        image = inference.classifier.preprocessing.decode(data)
        if position in worst:
            large[position] = image
        uri = thumbnail(image, LARGE if position in worst else SMALL)
        pictures[position] = Picture(row=row, source=str(sources[row]), uri=uri)
    pictures.update(_mapped(findings, worst, large, pictures))
    return dataclasses.replace(findings, pictures=pictures, worst=worst)


def worst_mistakes(findings: Findings, most: int) -> list[int]:
    """Positions of the wrong answers that the model was surest of."""
    wrong = np.flatnonzero(findings.test.predicted != findings.test.labels)
    sure = findings.test.probabilities[wrong].max(axis=1)
    return [int(p) for p in wrong[np.argsort(-sure, kind="stable")][:most]]


def changed(findings: Findings) -> tuple[list[int], list[int]]:
    """Positions of compared images that only the challenger, and only the champion, gets right."""
    if findings.test.champion is None:
        return [], []
    both = findings.test.champion.comparable
    new = findings.test.predicted == findings.test.labels
    old = findings.test.champion.predicted == findings.test.labels
    gained, lost = np.flatnonzero(both & new & ~old), np.flatnonzero(both & old & ~new)
    return [int(p) for p in gained[:CHANGED]], [int(p) for p in lost[:CHANGED]]


def wanted(findings: Findings, worst: Iterable[int]) -> list[int]:
    """Positions to be shown, the most telling first, within the page's limit."""
    gained, lost = changed(findings)
    chosen: dict[int, None] = dict.fromkeys([*worst, *lost, *gained])
    cells: dict[tuple[int, int], int] = defaultdict(int)
    predicted = findings.test.predicted
    wrong = predicted != findings.test.labels
    sure = findings.test.probabilities.max(axis=1)
    # Mistakes before hits; of hits the least sure, which lie nearest to the border.
    order = np.lexsort((np.where(wrong, -sure, sure), ~wrong))
    for position in order:
        if len(chosen) >= MOST_PICTURES:
            break
        cell = (int(findings.test.labels[position]), int(predicted[position]))
        cells[cell] += 1
        if cells[cell] <= PER_CELL:
            chosen[int(position)] = None
    return list(chosen)


def _mapped(
    findings: Findings,
    worst: list[int],
    images: dict[int, Pixels],
    pictures: dict[int, Picture],
) -> dict[int, Picture]:
    targets = [int(findings.test.predicted[position]) for position in worst]
    found = activation_maps(findings.classifier, [images[p] for p in worst], targets)
    if found is None:
        return {}
    return {
        position: dataclasses.replace(
            pictures[position], map_uri=thumbnail(overlay(seen, strength), LARGE)
        )
        for position, seen, strength in zip(worst, *found, strict=True)
    }
