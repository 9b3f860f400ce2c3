"""Batches made for a device: the arithmetic of the resize, and the thread that makes them."""

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from torchvision.transforms import v2

from graftline.models.backbone import build
from graftline.steps.fine_tune.inputs.array_file import ArrayFile
from graftline.steps.fine_tune.inputs.augment import FILL, Policy
from graftline.steps.fine_tune.inputs.batches import Batches
from graftline.steps.fine_tune.inputs.device_batches import (
    Crop,
    DeviceBatches,
    Ready,
    in_a_thread,
    padded_batch,
    resized,
)
from graftline.steps.fine_tune.recipe import Settings

CPU = torch.device("cpu")
SIZES = ((200, 250), (256, 180), (8, 9), (64, 64), (300, 97), (1, 5))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_every_crop_is_resized_as_pytorch_and_pillow_do(interpolation: str) -> None:
    generator = torch.Generator().manual_seed(0)
    crops = [torch.randint(0, 256, (*s, 3), dtype=torch.uint8, generator=generator) for s in SIZES]
    whole = [Crop(crop, (slice(0, crop.shape[0]), slice(0, crop.shape[1]))) for crop in crops]
    found = resized(*padded_batch(whole, CPU), 64, interpolation)
    kind = Image.Resampling[interpolation.upper()]
    for one, crop in zip(found, crops, strict=True):
        exact = F.interpolate(
            crop.permute(2, 0, 1)[None].double(),
            size=(64, 64),
            mode=interpolation,
            align_corners=False,
            antialias=True,
        )[0]
        assert (one - exact.clamp(0, 255)).abs().max() <= 0.51
        assert bool((one == one.round()).all())
        pillow = np.asarray(Image.fromarray(crop.numpy()).resize((64, 64), kind), np.float32)
        far = np.abs(one.permute(1, 2, 0).numpy() - pillow)
        # Pillow rounds and clamps after each direction.
        assert far.mean() < 0.5 and (interpolation == "bicubic" or far.max() <= 1)


class Pictures:
    """In place of the encoded images."""

    def __init__(self) -> None:
        generator = np.random.default_rng(0)
        self.arrays = [generator.integers(0, 256, (*s, 3), np.uint8) for s in SIZES]
        self.reads = 0

    def decoded(self, row: int) -> np.ndarray:
        self.reads += 1
        return self.arrays[row]


@pytest.mark.parametrize(
    ("room", "policy"), [(10**9, "none"), (300_000, "rand"), (0, "trivial"), (0, "none")]
)
def test_batches_of_the_device_are_those_of_the_cpu(room: int, policy: str) -> None:
    prepare = build("timm/test_resnet", weights="random", image_size=64).spec.preprocessing
    pictures, ids = Pictures(), [f"image {row}" for row in range(len(SIZES))]
    settings = Settings(policy=policy, mix="none", flip=True)

    def batches() -> Batches:
        images: Any = pictures
        return Batches(images, ids, prepare, settings, None, CPU, ArrayFile())

    cpu, device = batches(), batches()
    device._on_device = DeviceBatches(prepare, CPU, device._policy, room=room)
    rows = np.arange(len(SIZES))
    for epoch in range(3):
        steps = [(part, np.full(3, epoch)) for part in (rows[:3], rows[3:])]
        pictures.reads = 0
        both = zip(cpu.ahead(steps), device.ahead(steps), strict=True)
        for (wanted, same), (found, also) in both:
            assert isinstance(found, Ready) and not isinstance(wanted, Ready)
            assert same.tolist() == also.tolist()
            far = cpu.stacked(wanted, training=True) - device.stacked(found, training=True)
            grey = 1 / 255 / min(prepare.std)
            if policy == "none":
                assert far.abs().mean() < 0.5 * grey
            # A grey level more or less may be much after Equalize or Posterize.
            assert (far.abs() < 2.5 * grey).float().mean() > 0.7
        assert (pictures.reads == 0) == (epoch > 0), "an image was decoded again"


@pytest.mark.parametrize("name", ["rand", "trivial"])
def test_a_policy_gives_each_image_what_torchvision_gives_it(name: str) -> None:
    kind = {"rand": v2.RandAugment, "trivial": v2.TrivialAugmentWide}[name]
    alone = kind(interpolation=v2.InterpolationMode.BILINEAR, fill=[FILL] * 3)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (48, 3, 24, 20), dtype=torch.uint8, generator=generator)
    state = torch.random.get_rng_state()
    found = Policy(name)(images, range(48))
    assert torch.equal(state, torch.random.get_rng_state()), "the common generator was used"
    for seed, image in enumerate(images):
        torch.manual_seed(seed)
        assert torch.equal(found[seed], alone(image)), seed


def test_values_come_in_order_from_another_thread() -> None:
    threads = set()

    def values() -> Iterator[int]:
        for number in range(50):
            threads.add(threading.current_thread())
            yield number

    assert list(in_a_thread(values())) == list(range(50))
    assert threads.isdisjoint({threading.current_thread()})


def test_an_error_in_the_thread_is_raised_where_the_value_was_wanted() -> None:
    def values() -> Iterator[int]:
        yield 1
        raise RuntimeError("broken image")

    found = in_a_thread(values())
    assert next(found) == 1
    with pytest.raises(RuntimeError, match="broken image"):
        next(found)


def test_who_leaves_early_leaves_no_thread() -> None:
    made = []

    def values() -> Iterator[int]:
        for number in range(1000):
            made.append(number)
            yield number

    found = in_a_thread(values())
    assert next(found) == 0
    found.close()  # type: ignore[attr-defined]
    assert len(made) < 10
    assert not any(thread.name == "batches" for thread in threading.enumerate())
