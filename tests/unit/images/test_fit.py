"""`image.fit`: wide and tall pictures whole, in features, training and the file alike."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from torch.nn import functional

from graftline.errors import ConfigurationError
from graftline.features.matrix import read_features
from graftline.images.preprocessing import Preprocessing
from graftline.models.backbone import build, resolve
from graftline.steps.evaluate import slices
from graftline.steps.export_onnx.preprocessing_graph import preprocessing_graph
from graftline.steps.extract_features.step import run as extract
from graftline.steps.fine_tune.inputs.images import network_input, random_crop

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
CROP = Preprocessing(64, 73, "bicubic", "center", MEAN, STD)
SIZES = [(90, 160), (160, 90), (100, 100), (40, 300), (7, 5)]


def edges(height: int, width: int) -> np.ndarray:
    """Grey, but for colours along each edge, which a crop would lose."""
    image = np.random.default_rng(width).integers(90, 120, (height, width, 3), dtype=np.uint8)
    side = max(1, height // 10), max(1, width // 10)
    image[:, : side[1]] = (255, 0, 0)
    image[:, -side[1] :] = (0, 255, 0)
    image[: side[0]] = (0, 0, 255)
    image[-side[0] :] = (255, 255, 0)
    return image


def wanted(image: np.ndarray, fit: str) -> np.ndarray:
    """The network's input by PyTorch's resize, and padding by hand: (3, 64, 64)."""
    height, width = image.shape[:2]
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    options = {"mode": "bicubic", "align_corners": False, "antialias": True}
    if fit == "squash":
        return functional.interpolate(pixels, (64, 64), **options)[0].numpy()  # type: ignore[arg-type]
    longer = max(height, width)
    high, wide = (max(1, int(side * 64 / longer + 0.5)) for side in (height, width))
    seen = functional.interpolate(pixels, (high, wide), **options)[0].numpy()  # type: ignore[arg-type]
    out = np.empty((3, 64, 64), np.float32)
    out[:] = np.round(255 * np.array(MEAN))[:, None, None]
    top, left = (64 - high) // 2, (64 - wide) // 2
    out[:, top : top + high, left : left + wide] = seen
    return out


@pytest.mark.parametrize("fit", ["squash", "pad"])
@pytest.mark.parametrize("size", SIZES)
def test_the_whole_picture_is_seen_and_the_file_sees_the_same(
    fit: str, size: tuple[int, int]
) -> None:
    prepare = CROP.with_fit(fit)  # type: ignore[arg-type]
    image = edges(*size)
    expected = wanted(image, fit)
    assert np.abs(prepare.resize_and_crop(image).numpy() - expected).max() < 0.01
    graph = preprocessing_graph(prepare, source="images", opset=20, ir_version=10)
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    (found,) = session.run(None, {"images": image[None]})
    scale = np.array(STD, np.float32)[:, None, None] * 255
    shift = np.array(MEAN, np.float32)[:, None, None] * 255
    assert np.abs(found[0] * scale + shift - expected).max() < 0.05
    assert prepare.share_seen(*size) == pytest.approx(1)


def test_crop_is_the_backbones_own_and_changes_nothing() -> None:
    assert CROP.with_fit("crop") is CROP
    assert CROP.share_seen(100, 100) == pytest.approx((64 / 73) ** 2)
    assert CROP.share_seen([90], [160])[0] == pytest.approx((64 / 73) ** 2 * 9 / 16)
    plain = resolve("timm/test_resnet", weights="random")
    assert plain == resolve("timm/test_resnet", weights="random", fit="crop")
    with pytest.raises(ConfigurationError, match=r"image\.fit: stretch"):
        CROP.with_fit("stretch")  # type: ignore[arg-type]
    padded = CROP.with_fit("pad")
    assert Preprocessing.from_dict(padded.to_dict()) == padded
    assert padded.with_input_size(96) == CROP.with_input_size(96).with_fit("pad")


def test_every_fit_has_a_fingerprint_of_its_own() -> None:
    prints = {
        fit: build("timm/test_resnet", weights="random", image_size=64, fit=fit).fingerprint()  # type: ignore[arg-type]
        for fit in ("crop", "squash", "pad")
    }
    assert len(set(prints.values())) == 3
    before = build("timm/test_resnet", weights="random", image_size=64)
    assert prints["crop"] == before.fingerprint()


@pytest.mark.parametrize("fit", ["squash", "pad"])
def test_features_are_of_the_whole_picture(
    fit: str, tmp_path: Path, snapshot_of_files: Callable
) -> None:
    files = []
    for number in range(6):
        stream = io.BytesIO()
        Image.fromarray(edges(60 + number, 160)).save(stream, "PNG")
        files.append(("ab"[number % 2], ("train", "val", "test")[number // 2], stream.getvalue()))
    snapshot = snapshot_of_files(tmp_path, files)
    extract(
        snapshot_folder=tmp_path / "snapshot",
        store=str(tmp_path / "store"),
        features_folder=tmp_path / "features",
        backbone="timm/test_resnet",
        weights="random",
        image_size=64,
        engine="torch",
        fit=fit,  # type: ignore[arg-type]
    )
    network = build("timm/test_resnet", weights="random", image_size=64)
    own = network.spec.preprocessing
    prepare = Preprocessing(
        64, 64, own.interpolation, "squash" if fit == "squash" else "border", own.mean, own.std
    )
    by_id = {hashed(data): data for _, _, data in files}
    found = read_features(tmp_path / "features").matrix
    for row, image_id in enumerate(snapshot.image_ids()):
        pixels = np.asarray(Image.open(io.BytesIO(by_id[image_id])).convert("RGB"))
        with torch.inference_mode():
            expected = network(prepare.apply(pixels)[None])[0].numpy()
        assert np.allclose(found[row], expected, atol=1e-5)


def hashed(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()


def test_training_crops_have_the_pictures_shape() -> None:
    image = edges(100, 400)
    shapes = []
    for epoch in range(40):
        part = random_crop(image, seed=0, epoch=epoch, image_id="a", flip=False, whole=True)
        shapes.append(part.shape[1] / part.shape[0])
    assert min(shapes) >= 3.0 and max(shapes) <= 5.4 and np.ptp(shapes) > 1

    part = image[10:60]
    padded = network_input([part], CROP.with_fit("pad"), torch.device("cpu"), cropped=True)
    assert torch.equal(padded[0], CROP.with_fit("pad").apply(part))
    pressed = network_input([part], CROP.with_fit("squash"), torch.device("cpu"), cropped=True)
    assert (pressed[0] - CROP.with_fit("squash").apply(part)).abs().max() < 1e-3


def test_shapes_that_are_recognised_less_often_are_warned_of() -> None:
    shapes = np.array(["wide"] * 40 + ["square"] * 60, dtype=object)
    right = np.array([True] * 20 + [False] * 20 + [True] * 57 + [False] * 3)
    seen = np.where(shapes == "wide", 0.43, 0.77)
    (told,) = slices.shape_warnings(shapes, right, seen, "crop", 0.95)
    assert "50.0% of 40" in told and "95.0% of the 60" in told
    assert "43% of their area" in told and "`squash` or `pad`" in told
    (told,) = slices.shape_warnings(shapes, right, np.ones(100), "pad", 0.95)
    assert "`squash` may suit" in told
    assert not slices.shape_warnings(shapes, np.ones(100, bool), seen, "crop", 0.95)
    few = np.array(["wide"] * 3 + ["square"] * 97, dtype=object)
    assert not slices.shape_warnings(few, right, seen, "crop", 0.95)
