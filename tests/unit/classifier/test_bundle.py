"""The classifier bundle: exact round trip, and refusal of everything that is not one."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from graftline.classifier.bundle import (
    Classifier,
    HeldOut,
    bundle_digest,
    load_classifier,
    read_held_out,
    save_classifier,
)
from graftline.classifier.heads import MLPHead
from graftline.errors import (
    DataError,
    IntegrityError,
    SchemaVersionError,
    StoreNotFound,
    StoreReadOnly,
    WeightsError,
)
from graftline.models.backbone import build
from graftline.models.weights import load as weights_module

NAME = "timm/test_resnet"
CLASSES = ("cat", "dog", "Übergröße")


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    backbone = build(NAME, weights="random", image_size=64)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():  # not what a fresh network would have: weights must come from the file
        for tensor in backbone.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.rand(tensor.shape, generator=generator) * 0.1)
    head = nn.Linear(backbone.spec.feature_dim, 3)
    return Classifier(
        backbone,
        head,
        CLASSES,
        preprocessing=backbone.spec.preprocessing,
        strategy="probe",
        snapshot_id="abc",
        temperature=1.7,
        metadata={"note": "é", "figures": [1, 2.5]},
    ).eval()


@pytest.fixture
def bundle(classifier: Classifier, tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    held_out = HeldOut(
        rows=np.array([1, 4]),
        logits=np.array([[1, 2, 3], [4, 5, 6.5]], np.float32),
        head={"weight": torch.ones(3, 4), "bias": torch.zeros(3)},
    )
    save_classifier(folder, classifier, held_out=held_out)
    return folder


def test_round_trip_is_exact(classifier: Classifier, bundle: Path) -> None:
    back = load_classifier(bundle)
    x = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(back(x), classifier(x))
        assert torch.equal(back.embed(x), classifier.embed(x))
        expected = torch.softmax(classifier(x) / 1.7, dim=1)
        assert torch.equal(back.probabilities(x), expected)
    for name, tensor in classifier.state_dict().items():
        assert torch.equal(back.state_dict()[name], tensor), name
    for name in ("classes", "temperature", "strategy", "snapshot_id", "metadata", "preprocessing"):
        assert getattr(back, name) == getattr(classifier, name), name
    assert back.backbone_fingerprint == classifier.backbone_fingerprint
    assert back.backbone.fingerprint() == classifier.backbone.fingerprint()
    assert not back.training


def test_held_out_logits_come_back_with_their_head(bundle: Path) -> None:
    held_out = read_held_out(bundle)
    assert held_out is not None
    assert held_out.rows.tolist() == [1, 4]
    assert held_out.logits[1].tolist() == [4, 5, 6.5]
    assert held_out.head is not None
    assert torch.equal(held_out.head["weight"], torch.ones(3, 4))


def test_saving_over_a_bundle_leaves_nothing_of_the_old_one(
    classifier: Classifier, bundle: Path
) -> None:
    save_classifier(bundle, classifier.with_temperature(2.0))
    assert read_held_out(bundle) is None
    assert load_classifier(bundle).temperature == 2.0
    assert sorted(path.name for path in bundle.iterdir()) == [
        "classifier.json",
        "weights.safetensors",
    ]


def test_an_mlp_head_comes_back(classifier: Classifier, tmp_path: Path) -> None:
    head = MLPHead(classifier.backbone.spec.feature_dim, (16, 8), 3, dropout=0.3).eval()
    save_classifier(tmp_path, classifier.with_head(head))
    back = load_classifier(tmp_path)
    assert isinstance(back.head, MLPHead)
    assert (back.head.hidden, back.head.dropout) == ((16, 8), 0.3)
    features = np.random.default_rng(0).normal(size=(5, head.in_features)).astype(np.float32)
    with torch.inference_mode():
        expected = head(torch.tensor(features)).numpy()
    assert np.array_equal(back.logits_of_features(features), expected)


def test_logits_do_not_depend_on_where_the_features_lie_in_memory(classifier: Classifier) -> None:
    torch.manual_seed(0)
    wide = classifier.with_head(nn.Linear(1024, 3))
    features = np.random.default_rng(0).standard_normal((9, 1024), dtype=np.float32)
    found = set()
    for offset in range(0, 64, 4):
        memory = np.empty(features.nbytes + 128, dtype=np.uint8)
        start = -memory.ctypes.data % 64 + offset
        moved = memory[start : start + features.nbytes].view(np.float32).reshape(features.shape)
        moved[:] = features
        found.add(wide.logits_of_features(moved).tobytes())
    assert len(found) == 1


def test_a_vision_transformer_at_another_size_comes_back(tmp_path: Path) -> None:
    backbone = build("timm/test_vit", weights="random", image_size=96)
    made = Classifier(
        backbone,
        nn.Linear(backbone.spec.feature_dim, 2),
        ("a", "b"),
        preprocessing=backbone.spec.preprocessing,
        strategy="probe",
        snapshot_id="s",
    ).eval()
    save_classifier(tmp_path, made)
    x = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(load_classifier(tmp_path)(x), made(x))


def test_loading_asks_nobody_for_weights(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a download was attempted")

    for name in ("_published_state", "_mirrored_state", "_embedded_state", "locate", "load"):
        assert hasattr(weights_module, name)
        monkeypatch.setattr(weights_module, name, refuse)
    load_classifier(bundle)


def test_equal_bundles_have_equal_digests(classifier: Classifier, tmp_path: Path) -> None:
    for name in "ab":
        save_classifier(tmp_path / name, classifier)
    save_classifier(tmp_path / "c", classifier.with_temperature(3.0))
    first, second, other = (bundle_digest(tmp_path / name) for name in "abc")
    assert first == second != other


@pytest.mark.parametrize("version", [0, 2, None, "1"])
def test_another_schema_version_is_refused(bundle: Path, version: object) -> None:
    _edit(bundle, schema_version=version)
    with pytest.raises(SchemaVersionError, match=f"schema version {version}") as caught:
        load_classifier(bundle)
    assert caught.value.fix


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreNotFound, match="holds no classifier"):
        load_classifier(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"kind": "another", "schema_version": 1}'])
def test_a_foreign_description_is_refused(bundle: Path, text: str) -> None:
    (bundle / "classifier.json").write_text(text)
    with pytest.raises(IntegrityError, match=r"classifier\.json cannot be used"):
        load_classifier(bundle)


@pytest.mark.parametrize("key", ["backbone", "head", "classes", "temperature"])
def test_a_description_without_a_field_is_refused(bundle: Path, key: str) -> None:
    _edit(bundle, **{key: None})
    with pytest.raises(IntegrityError, match="missing or invalid"):
        load_classifier(bundle)


@pytest.mark.parametrize("file", ["weights.safetensors", "held_out.safetensors"])
def test_one_flipped_bit_is_found(bundle: Path, file: str) -> None:
    path = bundle / file
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(bytes(raw))
    with pytest.raises(IntegrityError, match=file):
        read_held_out(bundle)
        load_classifier(bundle)


def test_missing_weights_are_found(bundle: Path) -> None:
    (bundle / "weights.safetensors").unlink()
    with pytest.raises(IntegrityError, match="not there"):
        load_classifier(bundle)


def test_tensors_that_do_not_fit_are_named(classifier: Classifier, bundle: Path) -> None:
    weights = load_file(str(bundle / "weights.safetensors"))
    weights["head.weight"] = torch.zeros(4, 7)
    weights["surplus"] = torch.zeros(1)
    del weights["head.bias"]
    save_file(weights, str(bundle / "weights.safetensors"))
    _edit(bundle, weights_sha256=_sha256(bundle / "weights.safetensors"))
    with pytest.raises(WeightsError) as caught:
        load_classifier(bundle)
    message = str(caught.value)
    assert "head.bias is missing" in message
    assert "surplus is not a tensor of this network" in message
    assert "head.weight is (4, 7), expected (3," in message


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_a_senseless_temperature_is_refused(classifier: Classifier, temperature: float) -> None:
    with pytest.raises(DataError, match="temperature"):
        classifier.with_temperature(temperature)


def test_a_failed_save_leaves_no_half_bundle(classifier: Classifier, tmp_path: Path) -> None:
    folder = tmp_path / "file"
    folder.write_text("in the way")
    with pytest.raises(Exception, match="file") as caught:
        save_classifier(folder / "bundle", classifier)
    assert not isinstance(caught.value, AssertionError)
    assert folder.read_text() == "in the way"


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")
def test_a_read_only_place_is_named(classifier: Classifier) -> None:
    with pytest.raises(StoreReadOnly):
        save_classifier(Path("/sys/graftline"), classifier)


def _edit(bundle: Path, **fields: object) -> None:
    path = bundle / "classifier.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def _sha256(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_copied_bundle_is_as_good(bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / "copy")
    assert bundle_digest(tmp_path / "copy") == bundle_digest(bundle)
    load_classifier(tmp_path / "copy")
