"""Each image meets the network once: what is stored is reused by every later run and snapshot."""

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from graftline.data.snapshot import read_snapshot
from graftline.errors import ConfigurationError
from graftline.features.matrix import Features, read_features
from graftline.features.store import FeatureStore
from graftline.steps.extract_features.step import run
from graftline.storage import open_store


def picture(seed: int) -> bytes:
    decode = np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype="uint8")
    stream = io.BytesIO()
    Image.fromarray(decode).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def snapshot(tmp_path, snapshot_of_files):
    """`snapshot(name, seeds)`: pictures in one store; the snapshot's folder."""

    def make(name: str, seeds):
        images = [("ab"[seed % 2], "train", picture(seed)) for seed in seeds]
        snapshot_of_files(tmp_path / name, images, store=str(tmp_path / "store"))
        return tmp_path / name / "snapshot"

    return make


@pytest.fixture
def extract(tmp_path):
    def call(folder, name: str = "features", backbone: str = "timm/test_resnet", **arguments):
        result = run(
            snapshot_folder=folder,
            store=str(tmp_path / "store"),
            backbone=backbone,
            weights="random",
            features_folder=tmp_path / name,
            engine="torch",
            batch_size=4,
            **{"image_size": 64, **arguments},
        )
        return result, read_features(tmp_path / name)

    return call


def by_image(folder: Path, features: Features) -> dict[str, np.ndarray]:
    """Vectors by the image that the same row of the manifest names."""
    manifest = read_snapshot(folder / "snapshot").manifest
    return dict(zip(manifest["image_id"].to_pylist(), features.matrix, strict=True))


def test_only_images_that_no_part_holds_meet_the_network(snapshot, extract, tmp_path):
    first, one = extract(snapshot("one", range(10)))
    assert (first.extracted, first.reused) == (10, 0)
    second, two = extract(snapshot("two", [12, *range(5, 10), 11]), "second")
    assert (second.extracted, second.reused) == (2, 5)
    third, three = extract(snapshot("three", [11, 3, 12]), "third")
    assert (third.extracted, third.reused, third.engine) == (0, 3, "stored")
    rows = by_image(tmp_path / "one", one) | by_image(tmp_path / "two", two)
    for name, found in (("one", one), ("two", two), ("three", three)):
        for image, vector in by_image(tmp_path / name, found).items():
            assert np.array_equal(vector, rows[image])
    assert len(np.unique(np.stack(list(rows.values())), axis=0)) == 12


def test_rows_are_those_of_the_network_in_manifest_order(snapshot, extract, tmp_path):
    import torch

    from graftline.images import decode
    from graftline.models.backbone import build

    _, found = extract(snapshot("one", range(6)))
    backbone = build("timm/test_resnet", weights="random", image_size=64)
    decoded = [decode.decode(picture(seed)) for seed in range(6)]
    batch = torch.stack([backbone.spec.preprocessing.apply(image) for image in decoded])
    with torch.inference_mode():
        expected = backbone(batch).numpy()
    rows = by_image(tmp_path / "one", found)
    for seed, vector in enumerate(expected):
        image = hashlib.sha256(picture(seed)).hexdigest()
        assert np.allclose(rows[image], vector, atol=1e-5)


@pytest.mark.parametrize("damage", ["bit", "cut", "text"])
def test_a_damaged_part_is_computed_anew_and_comes_to_the_same(snapshot, extract, tmp_path, damage):
    folder = snapshot("one", range(10))
    result, before = extract(folder)
    matrix = before.matrix.copy()
    features = FeatureStore(open_store(str(tmp_path / "store")), result.fingerprint)
    (part,) = features.parts()
    data = features.store.read(part.key)
    broken = {"bit": data[:99] + bytes([data[99] ^ 8]) + data[100:], "cut": data[:99], "text": b"?"}
    features.store.write(part.key, broken[damage])
    again, after = extract(folder, "again")
    assert (again.extracted, again.reused) == (10, 0)
    assert np.array_equal(after.matrix, matrix)
    assert [p.rows for p in features.parts()] == [10]
    assert features.store.exists(f"damaged/{part.key.rpartition('/')[2]}")
    third, _ = extract(folder, "third")
    assert (third.extracted, third.reused) == (0, 10)


def test_size_weights_and_backbone_each_have_a_fingerprint_of_their_own(
    snapshot, extract, tmp_path
):
    folder = snapshot("one", range(3))
    prints = {
        extract(folder, image_size=64)[0].fingerprint,
        extract(folder, image_size=96)[0].fingerprint,
        extract(folder, backbone="timm/test_resnet", precision="bf16")[0].fingerprint,
        extract(folder, backbone="timm/test_efficientnet")[0].fingerprint,
    }
    assert len(prints) == 4
    described = json.loads(
        open_store(str(tmp_path / "store")).read(f"features/{min(prints)}/backbone.json")
    )
    assert described["schema_version"] == 1


def test_shares_of_several_workers_fill_one_store(snapshot, extract, tmp_path):
    folder = snapshot("one", range(12))
    done = [
        run(
            snapshot_folder=folder,
            store=str(tmp_path / "store"),
            backbone="timm/test_resnet",
            weights="random",
            image_size=64,
            features_folder=None,
            engine="torch",
            batch_size=4,
            worker=worker,
            workers=3,
        ).extracted
        for worker in range(3)
    ]
    assert sum(done) == 12
    result, _ = extract(folder)
    assert (result.extracted, result.reused) == (0, 12)


def test_an_unusable_size_is_refused_before_images_are_read(snapshot, extract):
    with pytest.raises(ConfigurationError, match="image_size"):
        extract(snapshot("one", range(2)), image_size=0)
