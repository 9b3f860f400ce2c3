"""Features of all blocks, against hooks and pooling of PyTorch's own."""

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from graftline.errors import UnknownBackbone
from graftline.models.backbone import construct, resolve
from graftline.models.block_outputs import averaged
from graftline.models.known import check_known

PLAIN, ALL = "torchvision/resnet18", "torchvision/resnet18+blocks"


def images(count: int = 3, size: int = 64) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(count))


def expected(x: torch.Tensor) -> torch.Tensor:
    """Of resnet18: its stem, its units but the last, then the pooled features."""
    network = construct(PLAIN, 64).network
    names = ["maxpool", *(f"layer{stage}.{unit}" for stage in (1, 2, 3, 4) for unit in (0, 1))][:-1]
    found: list[torch.Tensor] = []
    for name in names:
        network.get_submodule(name).register_forward_hook(
            lambda *given: found.append(given[2].clone())  # the next layer writes into it
        )
    with torch.no_grad():
        last = network(x)
    parts = {64: 2, 128: 2, 256: 1, 512: 1}  # a side: about 512 features of each block
    pooled = [nn.functional.adaptive_avg_pool2d(o, parts[o.shape[1]]).flatten(1) for o in found]
    return torch.cat([*pooled, last], dim=1)


def test_the_features_are_those_of_every_block() -> None:
    backbone = construct(ALL, 64)
    with torch.no_grad():
        features = backbone(images())
    torch.testing.assert_close(features, expected(images()), rtol=1e-4, atol=1e-5)
    assert backbone.spec.feature_dim == features.shape[1]
    assert resolve(ALL, image_size=64, weights="random").feature_dim == features.shape[1]
    assert backbone.spec.name == ALL


@pytest.mark.parametrize(
    ("shape", "width"), [((2, 80, 7, 5), 320), ((2, 7, 7, 96), 384), ((2, 17, 40), 40), ((2, 9), 9)]
)
def test_maps_tokens_and_vectors_are_averaged(shape: tuple[int, ...], width: int) -> None:
    output = torch.randn(*shape)
    found = averaged(output)
    assert found.shape == (2, width)
    if len(shape) == 4:
        maps = output if shape[1] == 80 else output.permute(0, 3, 1, 2)
        torch.testing.assert_close(found, nn.functional.adaptive_avg_pool2d(maps, 2).flatten(1))


@pytest.mark.parametrize("name", ["test_vit4", "timm/test_efficientnet"])
def test_every_kind_of_network_has_them(name: str) -> None:
    plain, every = construct(name), construct(f"{name}+blocks")
    x = images(2, plain.spec.preprocessing.input_size)
    with torch.no_grad():
        wide, last = every(x), plain(x)
    assert wide.shape[1] == every.spec.feature_dim > plain.spec.feature_dim
    torch.testing.assert_close(wide[:, -last.shape[1] :], last)  # the pooled features come last
    assert plain.fingerprint() != every.fingerprint()
    assert plain.weights_digest == every.weights_digest


def test_copies_and_threads_do_not_disturb_each_other() -> None:
    backbone = construct(ALL, 64)
    wanted = {count: expected(images(count)) for count in (1, 2, 3, 4)}
    copied = copy.deepcopy(backbone)

    def features(count: int) -> torch.Tensor:
        with torch.no_grad():
            backbone.network(images(1))  # a pass that nobody collects
            copied(images(5))
            return backbone(images(count))

    with ThreadPoolExecutor(4) as pool:
        for count, found in zip(wanted, pool.map(features, wanted), strict=True):
            torch.testing.assert_close(found, wanted[count], rtol=1e-4, atol=1e-5)


def test_another_ending_is_no_backbone() -> None:
    check_known(ALL)
    with pytest.raises(UnknownBackbone):
        resolve("resnet18+layers", weights="random")
