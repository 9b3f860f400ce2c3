"""Corruptions, and the accuracy under them."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as F

from graftline.images.decode import decode
from graftline.models.backbone import build
from graftline.steps.evaluate import robustness
from graftline.steps.evaluate.robustness import (
    Corruption,
    as_they_are,
    corruptions,
    measure,
    sample,
)


def picture(side: int = 96) -> torch.Tensor:
    """Smooth waves with an edge: every corruption shows on it."""
    at = torch.linspace(0, 12, side)
    waves = 127 + 100 * torch.sin(at[:, None] + torch.stack([at, at * 2, at * 0.5])[:, None])
    waves[:, :, side // 2 :] *= 0.6
    return waves.clamp(0, 255).to(torch.uint8)


@pytest.mark.parametrize("kind", corruptions(), ids=lambda kind: kind.name)
def test_each_corruption_is_the_stronger_the_higher_its_level(kind: Corruption) -> None:
    clean = picture()
    errors = []
    for level in kind.levels:
        generator = torch.Generator().manual_seed(1)
        corrupted = robustness._noisy(kind, clean, level, generator)
        assert corrupted.dtype == torch.uint8 and corrupted.shape == clean.shape
        errors.append(float((corrupted.float() - clean.float()).abs().mean()))
    assert 0.3 < errors[0] < errors[1] < errors[2]


def test_blurring_axis_by_axis_is_the_same_as_at_once() -> None:
    clean = picture()
    at_once = F.gaussian_blur(clean, [19, 19], [3.0, 3.0])
    difference = (robustness._blur(clean, 3.0).int() - at_once.int()).abs()
    assert int(difference.max()) <= 1


def test_a_picture_of_the_networks_size_passes_through_unchanged() -> None:
    preprocessing = as_they_are(build("resnet18", weights="random").spec.preprocessing)
    pixels = picture(preprocessing.input_size)
    back = decode(robustness._ppm(pixels))
    assert (torch.from_numpy(back.copy()).permute(2, 0, 1) == pixels).all()
    assert (preprocessing.resize_and_crop(back) == pixels).all()


def test_the_sample_holds_every_class_before_any_class_twice() -> None:
    labels = np.array([0] * 50 + [1] * 3 + [2])
    chosen = sample(labels, 6, seed=0)
    assert sorted(labels[chosen].tolist()) == [0, 0, 0, 1, 1, 2] or (
        sorted(labels[chosen].tolist()) == [0, 0, 1, 1, 1, 2]
    )
    assert (np.sort(chosen) == chosen).all()
    assert len(sample(labels, 1000, seed=0)) == 54


class Bright:
    """Stands in for the classifier and its images: class 1 is a bright picture."""

    def __init__(self, values: list[int]) -> None:
        self.values = values
        self.preprocessing = build("resnet18", weights="random").spec.preprocessing
        self.classifier = SimpleNamespace(
            preprocessing=self.preprocessing,
            logits_of_features=lambda means: np.stack([100 - means[:, 0], means[:, 0] - 100], 1),
        )
        self.snapshot = SimpleNamespace(storage_order=lambda rows: np.sort(rows)[::-1])

    def encoded(self, rows: np.ndarray) -> Iterator[tuple[int, bytes]]:
        for row in rows:
            grey = torch.full((3, 40, 30), self.values[int(row)], dtype=torch.uint8)
            yield int(row), robustness._ppm(grey)

    def embed_images(
        self, images: Any, total: int, told: str, preprocessing: Any, precision: str
    ) -> np.ndarray:
        means = [decode(data).mean() for data in images]
        assert len(means) == total
        return np.array(means)[:, None]


def test_accuracy_by_corruption_and_strength(monkeypatch: pytest.MonkeyPatch) -> None:
    world: Any = Bright([10, 20, 240, 30, 150, 230])
    rows, labels = np.arange(6), np.array([0, 0, 1, 0, 0, 1])
    right = np.array([True, True, True, True, False, True])
    kinds = [
        Corruption("nothing", (1, 2, 3), "level", lambda x, level: x),
        Corruption("dark", (0.9, 0.6, 0.1), "brightness times", F.adjust_brightness),
    ]
    monkeypatch.setattr(robustness, "corruptions", lambda: kinds)
    found = measure(world, rows, labels, right, images=10, confidence=0.95, seed=0)
    assert found is not None and found.images == 6
    assert found.clean == 5 / 6
    nothing, dark = found.rows
    assert nothing[2] == [5 / 6, 5 / 6, 5 / 6]  # only the corruption differs from clean images
    # At 0.6 the picture of 150 falls to 90, correctly dark; at 0.1 the bright ones do, wrongly.
    assert dark[2] == [5 / 6, 1.0, 4 / 6]
    assert dark[1] == "brightness times 0.9, 0.6, 0.1"
    assert found.mean == pytest.approx((4 * 5 / 6 + 1.0 + 4 / 6) / 6)
    some = measure(world, rows, labels, right, images=4, confidence=0.95, seed=0)
    assert some is not None and some.images == 4
    assert some.clean == right[sample(labels, 4, seed=0)].mean() != found.clean
    assert some.rows[0][2] == [some.clean] * 3
    assert measure(world, rows, labels, right, images=0, confidence=0.95, seed=0) is None
