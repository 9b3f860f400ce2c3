"""One small member of every family of timm and torchvision: it loads, resolves and extracts.

A few families run in the fast tier, every family in the slow one. Networks are built with random
weights; that weights are fitted correctly, at another size too, is compared with timm's own loader.
"""

import gc
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from timm.models._registry import _model_to_module

from graftline.errors import WeightsError
from graftline.models.architectures import create, find, names
from graftline.models.backbone import build, resolve
from graftline.models.input_size import fitting_sizes
from graftline.models.lookup import entries
from graftline.models.weights.load import load

# CNN, mobile CNN, plain and windowed transformer, MLP mixer, and torchvision's own of two kinds.
FAST = (
    "timm/test_resnet",
    "timm/test_efficientnet",
    "timm/test_convnext",
    "timm/test_vit",
    "timm/test_nfnet",
    "timm/vit_tiny_patch16_224",
    "torchvision/squeezenet1_1",
    "torchvision/shufflenet_v2_x0_5",
)

# Families whose published weights are for one image size only, and what does not fit at another.
# Their networks can be built at other sizes, for weights that were trained there.
WEIGHTS_OF_ONE_SIZE = {
    "timm/efficientformerv2_s0": "attention_biases is",
    "timm/levit_128s": "attention_biases is",
}
# Families that timm's own loader does not take to another size, and Graftline does.
RESIZED_HERE = {
    "timm/cait_xxs24_224": "pos_embed",
    "timm/convit_tiny": "pos_embed",
    "timm/crossvit_tiny_240": "pos_embed_0",
    "timm/gcvit_xxtiny": "stages.0.blocks.0.attn.rel_pos.relative_position_bias_table",
    "timm/hiera_tiny_224": "pos_embed",
    "timm/pit_ti_224": "pos_embed",
    "timm/visformer_tiny": "pos_embed1",
    "timm/volo_d1_224": "pos_embed",
}

TORCHVISION_FAMILIES = {
    "alexnet": "alexnet",
    "convnext": "convnext_tiny",
    "densenet": "densenet121",
    "efficientnet": "efficientnet_b0",
    "efficientnet_v2": "efficientnet_v2_s",
    "googlenet": "googlenet",
    "inception": "inception_v3",
    "maxvit": "maxvit_t",
    "mnasnet": "mnasnet0_5",
    "mobilenet_v2": "mobilenet_v2",
    "mobilenet_v3": "mobilenet_v3_small",
    "regnet": "regnet_y_400mf",
    "resnet": "resnet18",
    "resnext": "resnext50_32x4d",
    "shufflenet": "shufflenet_v2_x0_5",
    "squeezenet": "squeezenet1_1",
    "swin": "swin_t",
    "swin_v2": "swin_v2_t",
    "vgg": "vgg11",
    "vit": "vit_b_32",
    "wide_resnet": "wide_resnet50_2",
}


@lru_cache
def timm_families() -> dict[str, str]:
    """The member with the fewest parameters of each of timm's modules that has pooled features."""
    sizes = {entry.name: entry.parameters for entry in entries()}
    smallest: dict[str, str] = {}
    for name in names("timm"):
        family = _model_to_module[name]
        size = sizes.get(f"timm/{name}")
        if size is not None and size < sizes.get(f"timm/{smallest.get(family)}", 10**12):
            smallest[family] = name
    return smallest


def every_family() -> list[str]:
    ours = [f"timm/{name}" for name in timm_families().values()]
    return ours + [f"torchvision/{name}" for name in TORCHVISION_FAMILIES.values()]


def parameters() -> list:
    every = dict.fromkeys([*every_family(), *FAST])
    return [
        pytest.param(name, id=name, marks=() if name in FAST else (pytest.mark.slow,))
        for name in every
    ]


def image(seed: int) -> np.ndarray:
    """A picture with shapes in it, 300 x 400."""
    generator = np.random.default_rng(seed)
    small = generator.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return small.repeat(50, 0).repeat(50, 1)


def another_size(name: str, native: int) -> int | None:
    """A size near three quarters or five quarters of the native one."""
    for near in (native * 3 // 4, native * 5 // 4):
        for size in fitting_sizes(find(name), near):
            if size != native:
                return size
    return None


def features(name: str, size: int | None) -> torch.Tensor:
    backbone = build(name, weights="random", image_size=size)
    batch = torch.stack([backbone.spec.preprocessing.apply(image(seed)) for seed in (0, 1)])
    with torch.inference_mode():
        found = backbone(batch)
    assert found.shape == (2, backbone.spec.feature_dim)
    return found


@pytest.fixture(autouse=True)
def little_memory():
    yield
    gc.collect()


def test_every_module_of_timm_and_every_name_of_torchvision_belongs_to_a_family_here():
    with_features = set(timm_families())
    assert set(timm.list_modules()) - with_features == set()
    prefixes = ("".join(c for c in f if c.isalpha()) for f in TORCHVISION_FAMILIES)
    known = tuple({*prefixes, "efficientnetv", "mobilenetv", "shufflenetv", "swinv"})
    strange = [n for n in names("torchvision") if not n.replace("_", "").startswith(known)]
    assert strange == []


@pytest.mark.parametrize("name", parameters())
def test_a_family_loads_resolves_its_preprocessing_and_extracts_at_two_sizes(name):
    spec = resolve(name, weights="random")
    assert spec.preprocessing.input_size == spec.native_size
    native = features(name, None)
    other = another_size(name, spec.native_size)
    assert other is not None
    resized = features(name, other)
    for found in (native, resized):
        assert torch.isfinite(found).all()
        assert not torch.equal(found[0], found[1]), "two images have the same features"
    assert resolve(name, weights="random", image_size=other).feature_dim == native.shape[1]


@pytest.mark.parametrize("name", parameters())
def test_published_weights_at_another_size_are_what_the_library_itself_makes_of_them(
    name, tmp_path, monkeypatch
):
    architecture = find(name)
    if not architecture.source:
        pytest.skip("no weights are published for it")
    native = architecture.preprocessing.input_size
    size = another_size(name, native)
    path = tmp_path / "weights.safetensors"
    saved = save_as_published(architecture, path)
    monkeypatch.setattr("graftline.models.weights.published.cached_file", lambda source: path)
    monkeypatch.setattr(
        "graftline.models.weights.published.expected_digest", lambda source, path: None
    )
    if name in WEIGHTS_OF_ONE_SIZE:
        with pytest.raises(WeightsError, match=WEIGHTS_OF_ONE_SIZE[name]) as caught:
            load(architecture, size)
        assert f"the published ones take {native} pixels" in str(caught.value)
        size = native

    ours = load(architecture, size).state_dict()

    if name in RESIZED_HERE:
        with pytest.raises(RuntimeError, match="size mismatch"):
            by_the_library(architecture, size, path)
        resized = {key for key in ours if key in saved and ours[key].shape != saved[key].shape}
        assert RESIZED_HERE[name] in resized
        for key in resized:  # smooth: neither noise nor the values of another initialisation
            assert abs(ours[key].mean() - saved[key].mean()) < 0.1 * saved[key].std() + 1e-6
        same = ours.keys() & saved.keys() - resized
        assert all(torch.equal(ours[key], saved[key]) for key in same)
        return
    theirs = by_the_library(architecture, size, path)
    for key, tensor in ours.items():
        assert torch.equal(tensor, theirs[key]), key


def save_as_published(architecture, path: Path) -> dict[str, torch.Tensor]:
    """A file like the library's own: with the head that it publishes, at the native size."""
    from safetensors.torch import save_file

    head = architecture.library == "torchvision" or bool(
        timm.get_pretrained_cfg(architecture.name).num_classes
    )
    torch.manual_seed(1)
    network = create(architecture, architecture.preprocessing.input_size, head=head)
    state = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    for key, tensor in state.items():
        if "pos" in key and tensor.is_floating_point():
            tensor.normal_()  # some begin as zeros, which fit everything
    save_file(state, path)
    return state


def by_the_library(architecture, size: int, path: Path) -> dict[str, torch.Tensor]:
    if architecture.library == "torchvision":
        from safetensors.torch import load_file

        network = create(architecture, size, head=True)
        state = load_file(path)
        if architecture.name.startswith("vit_"):
            from torchvision.models.vision_transformer import interpolate_embeddings

            state = interpolate_embeddings(size, network.patch_size, state)
        reference = network.state_dict()
        return {name: state.get(name, reference[name]) for name in reference}
    overlay = {"file": str(path), "custom_load": False}
    arguments = {"pretrained": True, "num_classes": 0, "pretrained_cfg_overlay": overlay}
    try:
        network = timm.create_model(architecture.name, img_size=size, **arguments)
    except TypeError:  # a convolutional network
        network = timm.create_model(architecture.name, **arguments)
    return network.state_dict()
