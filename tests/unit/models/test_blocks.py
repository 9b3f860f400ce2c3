"""Blocks are what a network repeats, so a share of them is that share of its work."""

import pytest

from graftline.models.backbone import build
from graftline.models.forward_cost import forward_cost

SIZE = 64
RESNET50 = [*["layer1"] * 3, *["layer2"] * 4, *["layer3"] * 6, *["layer4"] * 3]


def test_a_resnets_blocks_are_its_residual_units() -> None:
    backbone = build("timm/resnet50", weights="random", image_size=SIZE)
    names = [name for name, _ in backbone.blocks()]
    assert names[0] == "stem"
    assert [name.split(".")[0] for name in names[1:]] == RESNET50
    assert names[1:3] == ["layer1.0", "layer1.1"]


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("timm/resnet18", 9),
        ("torchvision/resnet50", 17),
        ("timm/tf_efficientnet_lite0", 18),
        ("timm/vit_tiny_patch16_224", 13),
        ("timm/test_convnext", 13),
        ("timm/regnety_002", 14),
        ("timm/densenet121", 62),
    ],
)
def test_every_tensor_is_in_one_block(name: str, count: int) -> None:
    backbone = build(name, weights="random")
    blocks = backbone.blocks()
    assert len(blocks) == count
    found = [id(p) for _, block in blocks for p in (*block.parameters(), *block.buffers())]
    assert len(found) == len(set(found))
    assert set(found) == {id(p) for p in (*backbone.parameters(), *backbone.buffers())}


@pytest.mark.parametrize("name", ["timm/resnet50", "timm/tf_efficientnet_lite0"])
def test_the_upper_third_is_about_a_third_of_the_work(name: str) -> None:
    cost = forward_cost(name, SIZE)
    third = len(cost.shares) // 3
    assert 0.25 < cost.trained(third) < 0.42
    assert sum(cost.shares) == pytest.approx(1)


def test_the_work_is_what_the_literature_says() -> None:
    cost = forward_cost("timm/resnet50")
    assert cost.macs == pytest.approx(4.1e9, rel=0.02)  # He et al. 2016
    assert cost.values == pytest.approx(11.1e6, rel=0.02)  # timm's own table
    assert sum(cost.parameters) == pytest.approx(23.5e6, rel=0.01)
    assert cost.trained(0) == 0
    assert cost.trained_parameters(1) == cost.parameters[-1]
