"""The network in two halves, and what is kept of the lower one."""

from pathlib import Path

import pytest
import torch

from graftline.models.backbone import build
from graftline.steps.fine_tune.inputs.array_file import ArrayFile
from graftline.steps.fine_tune.network.freezing import divide_by, freeze
from graftline.steps.fine_tune.network.split import split

NETWORKS = ["timm/test_resnet", "timm/test_vit", "timm/test_efficientnet", "timm/test_convnext"]


@pytest.mark.parametrize("unfreeze", [0, 1, 0.5])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_halves_compute_what_the_whole_computes(name: str, unfreeze: float) -> None:
    backbone = build(name, weights="random")
    size = backbone.spec.preprocessing.input_size
    division = divide_by(backbone, unfreeze)
    freeze(backbone, division)
    halves = split(backbone, division)
    assert halves is not None
    images = torch.randn(3, 3, size, size)
    whole = backbone(images)
    lower = halves.lower(images)
    assert not lower.requires_grad
    features = halves.upper(lower)
    assert torch.allclose(features, whole, atol=1e-5)
    if unfreeze:
        trained = [p for p in backbone.parameters() if p.requires_grad]
        wanted = torch.autograd.grad(whole.square().sum(), trained)
        found = torch.autograd.grad(features.square().sum(), trained)
        for a, b in zip(wanted, found, strict=True):
            assert torch.allclose(a, b, rtol=1e-3, atol=1e-5)
    assert torch.equal(backbone(images), whole)  # no stub or hook is left behind


def test_nothing_frozen_is_not_cut() -> None:
    backbone = build("timm/test_resnet", weights="random", image_size=32)
    assert split(backbone, divide_by(backbone, "all")) is None


def test_a_network_whose_frozen_blocks_give_features_is_not_cut() -> None:
    backbone = build("timm/test_resnet+blocks", weights="random")
    division = divide_by(backbone, 0.5)
    freeze(backbone, division)
    assert division.frozen
    assert split(backbone, division) is None


def test_arrays_come_back_and_the_file_stays_bounded() -> None:
    arrays = ArrayFile(most=4 * 10 * 3 + 8)
    made = [torch.randn(10) for _ in range(4)]
    for number, tensor in enumerate(made):
        arrays.put(number, tensor)
    arrays.put("small", torch.tensor([1, 2], dtype=torch.bfloat16))
    for number in range(3):
        found = arrays.get(number)
        assert found is not None
        assert torch.equal(found, made[number])
    assert arrays.get(3) is None
    small = arrays.get("small")
    assert small is not None
    assert small.dtype == torch.bfloat16
    assert small.tolist() == [1, 2]
    arrays.close()


def test_a_full_disk_costs_speed_alone() -> None:
    arrays = ArrayFile(most=1 << 20)
    arrays._file.close()
    with Path("/dev/full").open("wb+", buffering=0) as full:
        arrays._file = full  # type: ignore[assignment]
        arrays.put("key", torch.ones(100))
        assert arrays.get("key") is None
