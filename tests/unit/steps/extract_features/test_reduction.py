"""Large JPEGs: features are of the pixels that the exported file sees."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from graftline.features.matrix import read_features
from graftline.images.decode import decode
from graftline.inference.decode_workers import smallest_side
from graftline.models.backbone import build
from graftline.steps.extract_features import reduction
from graftline.steps.extract_features.request import FeatureRequest, request_key
from graftline.steps.extract_features.step import run
from graftline.steps.fit_head.step import _decoding_as
from graftline.storage import open_store

NETWORK = {"backbone": "tf_efficientnet_lite0", "image_size": 64}
SIDE = 480  # of 64 pixels' network: read at half its size, as 1,280 is of 224 pixels'


def stripes(number: int) -> np.ndarray:
    """Stripes of 2.2 to 3.1 pixels: far beyond what 64 pixels show, so the picture is grey."""
    rows, columns = np.mgrid[0:SIDE, 0:SIDE]
    wave = np.sin(2 * np.pi * (columns + 0.3 * rows) / (2.2 + 0.15 * number))
    grey = (127.5 + 110 * wave).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def photo(number: int) -> np.ndarray:
    from sklearn.datasets import load_sample_images

    image = Image.fromarray(load_sample_images().images[number % 2])
    part = image.crop((10 * number, 0, 10 * number + 420, 420))
    return np.asarray(part.resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def jpeg(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=92)
    return stream.getvalue()


def features(folder: Path, files: list, make: Callable) -> tuple[np.ndarray, np.ndarray, str]:
    """What is extracted, what PyTorch gives for the pixels in full, and the fingerprint."""
    snapshot = make(folder, files)
    result = run(
        snapshot_folder=folder / "snapshot",
        store=str(folder / "store"),
        features_folder=folder / "features",
        engine="torch",
        **NETWORK,  # type: ignore[arg-type]
    )
    found = read_features(folder / "features").matrix
    network = build("tf_efficientnet_lite0", image_size=64)
    by_id = {request_id(data): data for _, _, data in files}
    with torch.inference_mode():
        expected = [
            network(network.spec.preprocessing.apply(decode(by_id[one]))[None])[0].numpy()
            for one in snapshot.image_ids()
        ]
    return np.array(found), np.stack(expected), result.fingerprint


def request_id(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return np.asarray((one * other).sum(1) / lengths)


def labelled(images: list[bytes]) -> list[tuple[str, str, bytes]]:
    return [("ab"[i % 2], ("train", "val", "test")[i % 3], data) for i, data in enumerate(images)]


def test_fine_patterns_are_decoded_in_full(tmp_path: Path, snapshot_of_files: Callable) -> None:
    images = [jpeg(photo(i)) for i in range(4)] + [jpeg(stripes(i)) for i in range(4)]
    found, expected, fingerprint = features(tmp_path, labelled(images), snapshot_of_files)
    assert cosines(found, expected).min() > 0.9999
    network = build("tf_efficientnet_lite0", image_size=64)
    assert fingerprint != network.fingerprint()
    # What was measured is kept: the next run does not build the network for it.
    snapshot, store = read(tmp_path)
    request = FeatureRequest("tf_efficientnet_lite0", None, 64, "fp32")
    rows = reduction.reduced_rows(snapshot, network.spec.preprocessing)
    assert len(rows) == 8

    def never() -> None:
        raise AssertionError("the network is built again")

    assert not reduction.hides(snapshot, store, request, rows, never)  # type: ignore[arg-type]
    # And fit_head takes the features as those of its network.
    same = _decoding_as(network, read_features(tmp_path / "features"))
    assert same.spec.preprocessing.full_decoding


def read(folder: Path):  # type: ignore[no-untyped-def]
    from graftline.data.snapshot import read_snapshot

    return read_snapshot(folder / "snapshot"), open_store(str(folder / "store"))


def test_usual_photographs_keep_the_speed_and_their_fingerprint(
    tmp_path: Path, snapshot_of_files: Callable
) -> None:
    images = [jpeg(photo(i)) for i in range(6)]
    found, expected, fingerprint = features(tmp_path, labelled(images), snapshot_of_files)
    assert fingerprint == build("tf_efficientnet_lite0", image_size=64).fingerprint()
    assert cosines(found, expected).min() > 0.998


def test_one_fine_pattern_among_photographs_is_met(
    tmp_path: Path, snapshot_of_files: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A set in which a sample drawn at random would hardly ever hold the patterned image."""
    monkeypatch.setattr(reduction, "AT_RANDOM", 2)
    monkeypatch.setattr(reduction, "DENSEST", 4)
    images = [jpeg(photo(i)) for i in range(12)]
    patterned = next(
        data
        for data in map(jpeg, map(stripes, range(6)))
        if sum(request_id(one) < request_id(data) for one in images) >= 2
    )
    found, expected, fingerprint = features(
        tmp_path, labelled([*images, patterned]), snapshot_of_files
    )
    assert cosines(found, expected).min() > 0.9999
    assert fingerprint != build("tf_efficientnet_lite0", image_size=64).fingerprint()


def test_dense_images_of_each_size_are_measured() -> None:
    """Few patterned images among 4,000, from two cameras of which one always writes more bytes."""

    class Table:
        def __init__(self) -> None:
            rng = np.random.default_rng(0)
            self.large = np.arange(4000) % 2 == 0
            side = np.where(self.large, 4000, 1500)
            bits = np.where(self.large, 4.0, 1.2) * rng.uniform(0.7, 1.3, 4000)
            self.patterned = [1001, 2003, 3005]  # of the camera that writes few bytes
            bits[self.patterned] = 3.0
            self.values = {"width": side, "height": side, "bytes": side**2 * bits / 8}

        def column(self, name: str) -> np.ndarray:
            return self.values[name]

    table = Table()
    sample = reduction.sampled(table, np.arange(4000))  # type: ignore[arg-type]
    assert set(table.patterned) <= set(sample.tolist())
    assert len(sample) <= reduction.AT_RANDOM + reduction.DENSEST
    assert set(range(reduction.AT_RANDOM)) <= set(sample.tolist())
    few = reduction.sampled(table, np.arange(5))  # type: ignore[arg-type]
    assert few.tolist() == list(range(5))


@pytest.mark.parametrize("side", [300, 365])
def test_small_images_and_other_formats_are_not_measured(
    side: int, tmp_path: Path, snapshot_of_files: Callable
) -> None:
    prepare = build("tf_efficientnet_lite0", image_size=64).spec.preprocessing
    assert 2 * smallest_side(prepare) > 365
    png = io.BytesIO()
    Image.fromarray(stripes(0)).save(png, "PNG")
    small = stripes(1)[:side, :side]
    snapshot = snapshot_of_files(tmp_path, labelled([jpeg(small), png.getvalue()]))
    assert len(reduction.reduced_rows(snapshot, prepare)) == 0


def test_requests_as_before_keep_their_keys(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    plain = FeatureRequest("timm/test_resnet", "random", 64, "fp32")
    assert set(plain.identity()) == {"backbone", "weights", "image_size", "precision"}
    keys = {
        request_key(store, FeatureRequest("timm/test_resnet", "random", 64, "fp32", **more))  # type: ignore[arg-type]
        for more in ({}, {"fit": "pad"}, {"value_range": (0, 4095)}, {"full_decoding": True})
    }
    assert len(keys) == 4
