"""From pixels to network input, against PyTorch's, torchvision's and timm's own."""

import itertools

import numpy as np
import pytest
import torch
from torch.nn import functional
from torchvision.transforms import v2

from graftline.errors import ConfigurationError
from graftline.images.preprocessing import Preprocessing, resize_and_crop, resize_crop_normalise
from graftline.images.resample import resample

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZES = ((375, 500), (224, 224), (61, 700), (1, 9), (30, 41))


def picture(height: int, width: int) -> np.ndarray:
    generator = np.random.default_rng(height * 10_000 + width)
    coarse = generator.integers(0, 256, (1, 3, max(1, height // 5), max(1, width // 5)))
    smooth = functional.interpolate(torch.from_numpy(coarse).float(), (height, width), mode="area")
    noisy = smooth[0].permute(1, 2, 0).numpy() + generator.normal(0, 6, (height, width, 3))
    return noisy.clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("mode", ["center", "squash", "border"])
def test_the_fast_way_is_the_traceable_way(mode: str, interpolation: str) -> None:
    for (height, width), (size, resize) in itertools.product(SIZES, ((64, 73), (96, 96))):
        prepare = Preprocessing(size, resize, interpolation, mode, MEAN, STD)  # type: ignore[arg-type]
        pixels = picture(height, width)
        fast = prepare.apply(pixels)
        traceable = resize_crop_normalise(torch.from_numpy(pixels)[None], prepare)[0]
        assert fast.shape == (3, size, size)
        grey_levels = (fast - traceable).abs().amax((1, 2)) * torch.tensor(STD) * 255
        assert grey_levels.max() < 0.002, (height, width, size)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_center_is_torchvisions_resize_and_center_crop(interpolation: str) -> None:
    prepare = Preprocessing(64, 73, interpolation, "center", MEAN, STD)  # type: ignore[arg-type]
    reference = v2.Compose(
        [
            v2.Resize(73, interpolation=v2.InterpolationMode(interpolation), antialias=True),
            v2.CenterCrop(64),
        ]
    )
    for height, width in ((375, 500), (500, 375), (130, 127), (74, 80)):
        pixels = picture(height, width)
        wanted = reference(torch.from_numpy(pixels).permute(2, 0, 1).float())
        assert (prepare.resize_and_crop(pixels) - wanted).abs().max() < 0.01, (height, width)


def test_resample_is_interpolate_cut_out() -> None:
    pixels = picture(120, 171)
    whole = functional.interpolate(
        torch.from_numpy(pixels).permute(2, 0, 1)[None].float(),
        (90, 128),
        mode="bicubic",
        antialias=True,
    )[0]
    found = resample(pixels, (90, 128), (11, 40, 50, 60), "bicubic")
    assert found.shape == (3, 50, 60)
    assert np.abs(found - whole[:, 11:61, 40:100].numpy()).max() < 0.001


def test_border_keeps_everything_on_the_mean_colour() -> None:
    prepare = Preprocessing(64, 64, "bilinear", "border", MEAN, STD)
    white = np.full((50, 200, 3), 255, np.uint8)
    found = prepare.resize_and_crop(white)
    colour = torch.tensor([round(255 * value) for value in MEAN]).float()
    assert torch.equal(found[:, 0, 0], colour) and torch.equal(found[:, -1, -1], colour)
    assert (found[:, 26:38] > 254.99).all() and not (found > 254).all(0)[:20].any()


@pytest.mark.parametrize("mode", ["center", "squash", "border"])
def test_the_engines_input_is_the_same_bytes_as_everyones(mode: str) -> None:
    prepare = Preprocessing(64, 73, "bicubic", mode, MEAN, STD)  # type: ignore[arg-type]
    image = picture(100, 90)
    out = np.full((3, 64, 64), np.nan, np.float32)
    prepare.write_input(image, out)
    assert out.tobytes() == prepare.apply(image).numpy().tobytes()
    pixels = prepare.resize_and_crop(image).double()
    wanted = (pixels / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    assert np.abs(out - wanted.numpy()).max() < 1e-5


def test_extreme_aspects_do_not_explode() -> None:
    prepare = Preprocessing(64, 73, "bicubic", "center", MEAN, STD)
    for pixels in (picture(1, 5000), picture(5000, 1)):
        assert torch.isfinite(prepare.apply(pixels)).all()


def test_read_only_pixels_are_neither_changed_nor_warned_about() -> None:
    pixels = picture(80, 90)
    pixels.flags.writeable = False
    prepare = Preprocessing(64, 73, "bicubic", "center", MEAN, STD)
    assert prepare.apply(pixels).shape == (3, 64, 64)


def test_another_size_keeps_the_share_that_is_cropped() -> None:
    prepare = Preprocessing(224, 256, "bicubic", "center", MEAN, STD)
    assert prepare.with_input_size(448).resize_size == 512
    assert prepare.with_input_size(64).resize_size == 73
    uncropped = Preprocessing(224, 224, "bicubic", "center", MEAN, STD)
    assert uncropped.with_input_size(100).resize_size == 100


def test_it_survives_json_and_refuses_nonsense() -> None:
    prepare = Preprocessing(224, 256, "bicubic", "center", MEAN, STD)
    assert Preprocessing.from_dict(prepare.to_dict()) == prepare
    for wrong in (
        {"input_size": 0},
        {"resize_size": 200},
        {"interpolation": "lanczos"},
        {"crop_mode": "random"},
    ):
        with pytest.raises(ConfigurationError):
            Preprocessing.from_dict(prepare.to_dict() | wrong)


def test_a_batch_is_prepared_like_its_images() -> None:
    prepare = Preprocessing(32, 36, "bilinear", "center", MEAN, STD)
    images = np.stack([picture(50, 60), picture(50, 60)[::-1]])
    together = resize_and_crop(torch.from_numpy(images), prepare)
    for row in range(2):
        alone = resize_and_crop(torch.from_numpy(images[row : row + 1]), prepare)[0]
        assert torch.equal(together[row], alone)


@pytest.mark.parametrize("shape", [(1, 1, 1, 3), (2, 5, 7, 3), (3, 16, 16, 3)])
def test_a_batch_is_normalised_like_its_images(shape: tuple[int, ...]) -> None:
    prepare = Preprocessing(16, 16, "bilinear", "center", MEAN, STD)
    pixels = torch.randint(256, shape, dtype=torch.uint8)
    found = prepare.normalise_batch(pixels)
    assert torch.equal(found, prepare.normalise(pixels.permute(0, 3, 1, 2)))
    assert found.is_contiguous(memory_format=torch.channels_last)
