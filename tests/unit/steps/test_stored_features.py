"""Features kept in the store: equal to those that PyTorch computes, and computed once."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from graftline.data.snapshot import read_images, read_snapshot
from graftline.models.backbone import build
from graftline.steps import stored_features as module
from graftline.steps.evaluate import inference
from graftline.steps.evaluate.inference import Inference
from graftline.steps.stored_features import features_of, stored_features
from graftline.storage import open_store


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each call of the network took."""
    counts: list[int] = []
    computed = module.forward_images

    def noted(*given, total: int, **named):
        counts.append(total)
        return computed(*given, total=total, **named)

    monkeypatch.setattr(module, "forward_images", noted)
    monkeypatch.setattr(inference, "forward_images", noted)
    return counts


def eager(snapshot, rows, backbone, store) -> np.ndarray:
    """By PyTorch itself, image by image."""
    prepare, found = backbone.spec.preprocessing, dict(read_images(snapshot, rows, store=store))
    with torch.inference_mode():
        each = [backbone(prepare.apply(prepare.decode(found[int(row)]))[None]) for row in rows]
    return torch.cat(each).numpy()


def test_what_the_store_lacks_is_computed_and_kept(make_snapshot: Callable, counted) -> None:
    folder, uri = make_snapshot()
    snapshot, store = read_snapshot(folder), open_store(uri)
    backbone = build("timm/test_resnet", weights="random", image_size=32).eval()
    rows = np.random.default_rng(0).permutation(len(snapshot))[:40].astype(np.int64)
    found, computed = features_of(snapshot, rows[:25], backbone, store, "features")
    assert computed == 25
    np.testing.assert_allclose(found, eager(snapshot, rows[:25], backbone, store), atol=1e-4)
    again, computed = features_of(snapshot, rows, backbone, store, "features")
    assert computed == 15 and counted == [25, 15]
    np.testing.assert_array_equal(again[:25], found)
    np.testing.assert_allclose(again, eager(snapshot, rows, backbone, store), atol=1e-4)
    whole, filled = stored_features(
        snapshot, np.arange(len(snapshot)), backbone.fingerprint(), found.shape[1], store
    )
    assert set(np.flatnonzero(filled)) == set(rows.tolist())
    np.testing.assert_array_equal(whole[rows], again)
    assert not whole[~filled].any()


def test_evaluation_computes_only_what_the_store_lacks(
    make_snapshot: Callable, make_classifier: Callable, counted
) -> None:
    folder, uri = make_snapshot()
    snapshot, store = read_snapshot(folder), open_store(uri)
    classifier = make_classifier("timm/test_resnet", list(snapshot.classes))
    rows = np.random.default_rng(1).permutation(len(snapshot))[:30].astype(np.int64)
    features_of(snapshot, rows[::2], classifier.backbone, store, "features")
    found = Inference(classifier, snapshot, store, None).embedding(rows, "images")
    assert counted == [15, 15]
    np.testing.assert_allclose(found, eager(snapshot, rows, classifier.backbone, store), atol=1e-4)


def test_a_trained_network_takes_no_stored_features(
    make_snapshot: Callable, make_classifier: Callable, counted
) -> None:
    folder, uri = make_snapshot()
    snapshot, store = read_snapshot(folder), open_store(uri)
    classifier = make_classifier("timm/test_resnet", list(snapshot.classes), strategy="fine_tune")
    rows = np.arange(10)
    features_of(snapshot, rows, classifier.backbone, store, "features")
    Inference(classifier, snapshot, store, None).embedding(rows, "images")
    assert counted == [10, 10]
