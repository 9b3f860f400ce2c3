"""Blocks are what a network repeats, in the order in which it uses them.

A share of them is then that share of its work. The judge of the order is a second record of the
forward pass: hooks of modules, where the division itself counts operations on tensors.
"""

import gc

import pytest
import torch
from torch import nn

from graftline.errors import BackboneError
from graftline.models.architectures import names
from graftline.models.backbone import Backbone, build, construct
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
        ("torchvision/regnet_y_400mf", 17),  # 1, 3, 6 and 6 units, and the stem
        ("timm/nest_tiny", 14),  # 2, 2 and 8 layers; its first level and two poolings
    ],
)
def test_every_tensor_is_in_one_block(name: str, count: int) -> None:
    backbone = build(name, weights="random")
    blocks = backbone.blocks()
    assert len(blocks) == count
    found = [id(p) for _, block in blocks for p in (*block.parameters(), *block.buffers())]
    assert len(found) == len(set(found))
    assert set(found) == {id(p) for p in (*backbone.parameters(), *backbone.buffers())}


# The parts of each are registered in another order than they are used: position encodings that
# several blocks share, downsampling behind the blocks, branches, class tokens used at the end.
ODD_ORDER = ("timm/coat_tiny", "timm/fasternet_t0", "timm/hrnet_w18_small", "timm/volo_d1_224")


@pytest.mark.parametrize("name", ODD_ORDER)
def test_blocks_stand_in_the_order_of_their_use(name: str) -> None:
    check_order(construct(name))


@pytest.mark.slow
@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_the_blocks_of_every_architecture_stand_in_the_order_of_their_use(library: str) -> None:
    """On the meta device, so that even the largest takes a second; about half an hour in all."""
    wrong = {}
    for name in names(library):
        try:
            check_order(without_memory(f"{library}/{name}"))
        except BackboneError:
            continue  # no pooled features
        except AssertionError as error:
            wrong[name] = str(error).splitlines()[0]
        gc.collect()
    assert not wrong


def without_memory(name: str) -> Backbone:
    """A backbone on the meta device; the few that cannot be built there, with their memory."""
    try:
        with torch.device("meta"):
            return construct(name)
    except (NotImplementedError, RuntimeError):
        return construct(name)


def check_order(backbone: Backbone) -> None:
    """Each tensor is in one block, and the blocks are first called one after another."""
    blocks = backbone.blocks()
    found = [id(p) for _, block in blocks for p in (*block.parameters(), *block.buffers())]
    assert len(found) == len(set(found))
    assert set(found) == {id(p) for p in (*backbone.parameters(), *backbone.buffers())}
    first: dict[nn.Module, int] = {}

    def called(module: nn.Module, _: object) -> None:
        first.setdefault(module, len(first))

    hooks = [
        module.register_forward_pre_hook(called)
        for module in backbone.modules()
        if any(True for _ in module.parameters(recurse=False))
    ]
    size = backbone.spec.preprocessing.input_size
    with torch.no_grad():
        backbone(torch.zeros(2, 3, size, size, device=next(backbone.parameters()).device))
    for hook in hooks:
        hook.remove()
    own = [[first[m] for m in block.modules() if m in first] for _, block in blocks]
    begins = [(min(calls), name) for calls, (name, _) in zip(own, blocks, strict=True) if calls]
    assert begins == sorted(begins)


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
