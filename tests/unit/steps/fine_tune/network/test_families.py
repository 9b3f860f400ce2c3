"""One step of fine-tuning in every family of timm and torchvision, by its smallest member.

A family is a module of the library: what it holds is written by the same hand, and divides alike.
"""

from typing import NamedTuple

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from graftline.classifier.bundle import Classifier
from graftline.models.architectures import names
from graftline.models.backbone import Backbone, construct
from graftline.steps.fine_tune.network.freezing import (
    check_unmoved,
    divide_by,
    freeze,
    frozen_digests,
    optimizer_for,
    trained_tensors,
    training_mode,
)
from graftline.steps.fine_tune.network.split import split
from graftline.steps.fine_tune.recipe import Settings

CLASSES = ("a", "b", "c")
# Their smallest member has more than 300 million parameters. The order of their blocks is checked
# without memory, see tests/unit/models/test_blocks.py.
TOO_LARGE = {"timm/deepseek_vit", "timm/gemma4_vit", "timm/qwen3_vit"}


class Family(NamedTuple):
    """The smallest member of a family.

    Attributes:
        member: Its name.
        blocks: How many it has.
        cut: Whether its frozen half can be run by itself, so that its outputs can be kept; else
            it is run as a whole.
    """

    member: str
    blocks: int
    cut: bool


FAMILIES = {
    "timm/beit": Family("beit_base_patch16_224", 13, cut=True),
    "timm/byoanet": Family("halonet_h1", 20, cut=True),
    "timm/byobnet": Family("test_byobnet", 5, cut=True),
    "timm/cait": Family("cait_xxs24_224", 27, cut=False),
    "timm/coat": Family("coat_tiny", 19, cut=False),
    "timm/convit": Family("convit_tiny", 13, cut=False),
    "timm/convmixer": Family("convmixer_768_32", 33, cut=True),
    "timm/convnext": Family("test_convnext", 13, cut=True),
    "timm/cpubone": Family("cpubone_nano", 15, cut=True),
    "timm/crossvit": Family("crossvit_tiny_240", 35, cut=False),
    "timm/csatv2": Family("csatv2", 22, cut=True),
    "timm/cspnet": Family("cs3darknet_focus_s", 16, cut=True),
    "timm/cspnext": Family("cspnext_tiny", 7, cut=True),
    "timm/davit": Family("davit_tiny", 11, cut=True),
    "timm/deit": Family("deit_tiny_patch16_224", 13, cut=True),
    "timm/densenet": Family("densenet121", 62, cut=False),
    "timm/dla": Family("dla46x_c", 24, cut=False),
    "timm/dpn": Family("dpn48b", 17, cut=True),
    "timm/edgenext": Family("edgenext_xx_small", 16, cut=True),
    "timm/efficientformer": Family("efficientformer_l1", 19, cut=True),
    "timm/efficientformer_v2": Family("efficientformerv2_s0", 18, cut=True),
    "timm/efficientnet": Family("test_efficientnet", 7, cut=True),
    "timm/efficientvim": Family("efficientvim_m1", 5, cut=False),
    "timm/efficientvit_mit": Family("efficientvit_b0", 12, cut=True),
    "timm/efficientvit_msra": Family("efficientvit_m0", 9, cut=True),
    "timm/eva": Family("vit_tiny_patch16_dinov3_qkvb", 13, cut=True),
    "timm/fasternet": Family("fasternet_t0", 18, cut=True),
    "timm/fastvit": Family("fastvit_t8", 15, cut=True),
    "timm/focalnet": Family("focalnet_tiny_srf", 16, cut=True),
    "timm/gcvit": Family("gcvit_xxtiny", 23, cut=False),
    "timm/ghostnet": Family("ghostnet_050", 19, cut=True),
    "timm/hardcorenas": Family("hardcorenas_b", 21, cut=True),
    "timm/hgnet": Family("hgnetv2_b0", 8, cut=True),
    "timm/hiera": Family("hiera_tiny_224", 13, cut=True),
    "timm/hieradet_sam2": Family("sam2_hiera_tiny", 13, cut=True),
    "timm/hrnet": Family("hrnet_w18_small", 18, cut=False),
    "timm/iformer": Family("iformer_t", 30, cut=True),
    "timm/inception_next": Family("inception_next_atto", 17, cut=True),
    "timm/inception_resnet_v2": Family("inception_resnet_v2", 49, cut=True),
    "timm/inception_v3": Family("inception_v3", 16, cut=True),
    "timm/inception_v4": Family("inception_v4", 22, cut=True),
    "timm/lcnetv2": Family("lcnetv2_small", 12, cut=True),
    "timm/levit": Family("levit_128s", 12, cut=True),
    "timm/lowformer": Family("lowformer_b0", 14, cut=True),
    "timm/mambaout": Family("test_mambaout", 9, cut=True),
    "timm/maxxvit": Family("test_coatnet", 6, cut=True),
    "timm/metaformer": Family("poolformerv2_s12", 16, cut=True),
    "timm/mlp_mixer": Family("gmlp_ti16_224", 31, cut=True),
    "timm/mobilenetv3": Family("lcnet_035", 15, cut=True),
    "timm/mobilenetv5": Family("mobilenetv5_base", 41, cut=True),
    "timm/mobilevit": Family("mobilevit_xxs", 25, cut=False),
    "timm/mvitv2": Family("mvitv2_tiny", 11, cut=False),
    "timm/naflexvit": Family("naflexvit_base_patch16_parfac_gap", 13, cut=False),
    "timm/nasnet": Family("nasnetalarge", 23, cut=False),
    "timm/nest": Family("nest_tiny", 14, cut=True),
    "timm/nextvit": Family("nextvit_small", 21, cut=True),
    "timm/nfnet": Family("test_nfnet", 6, cut=True),
    "timm/pit": Family("pit_ti_224", 15, cut=False),
    "timm/pnasnet": Family("pnasnet5large", 15, cut=False),
    "timm/pvt_v2": Family("pvt_v2_b0", 12, cut=True),
    "timm/rdnet": Family("rdnet_tiny", 28, cut=False),
    "timm/regnet": Family("regnetx_002", 14, cut=True),
    "timm/repghost": Family("repghostnet_050", 19, cut=True),
    "timm/repvit": Family("repvit_m1", 24, cut=True),
    "timm/res2net": Family("res2next50", 17, cut=True),
    "timm/resnest": Family("resnest14d", 5, cut=True),
    "timm/resnet": Family("test_resnet", 5, cut=True),
    "timm/resnetv2": Family("resnetv2_18", 9, cut=True),
    "timm/rexnet": Family("rexnet_100", 18, cut=True),
    "timm/selecsls": Family("selecsls42", 8, cut=False),
    "timm/senet": Family("legacy_seresnet18", 9, cut=True),
    "timm/sequencer": Family("sequencer2d_s", 22, cut=True),
    "timm/shvit": Family("shvit_s1", 14, cut=True),
    "timm/sknet": Family("skresnet18", 9, cut=True),
    "timm/starnet": Family("starnet_s050", 8, cut=True),
    "timm/swiftformer": Family("swiftformer_xs", 20, cut=True),
    "timm/swin_transformer": Family("swin_tiny_patch4_window7_224", 16, cut=True),
    "timm/swin_transformer_v2": Family("swinv2_tiny_window8_256", 16, cut=True),
    "timm/swin_transformer_v2_cr": Family("swinv2_cr_tiny_224", 16, cut=True),
    "timm/tiny_vit": Family("tiny_vit_5m_224", 16, cut=True),
    "timm/tnt": Family("tnt_s_legacy_patch16_224", 14, cut=False),
    "timm/tresnet": Family("tresnet_m", 22, cut=True),
    "timm/twins": Family("twins_svt_small", 26, cut=False),
    "timm/vgg": Family("vgg11", 10, cut=True),
    "timm/visformer": Family("visformer_tiny", 19, cut=False),
    "timm/vision_transformer": Family("test_vit", 7, cut=True),
    "timm/vision_transformer_hybrid": Family("vit_tiny_r_s16_p8_224", 13, cut=True),
    "timm/vision_transformer_relpos": Family("test_vit_relpos", 10, cut=True),
    "timm/vision_transformer_sam": Family("samvit_base_patch16_224", 13, cut=True),
    "timm/vitamin": Family("vitamin_small_224", 15, cut=True),
    "timm/volo": Family("volo_d1_224", 22, cut=False),
    "timm/vovnet": Family("ese_vovnet19b_slim_dw", 5, cut=True),
    "timm/xception": Family("legacy_xception", 16, cut=True),
    "timm/xception_aligned": Family("xception41p", 14, cut=True),
    "timm/xcit": Family("xcit_nano_12_p8_224", 16, cut=False),
    "torchvision/alexnet": Family("alexnet", 6, cut=True),
    "torchvision/convnext": Family("convnext_tiny", 22, cut=True),
    "torchvision/densenet": Family("densenet121", 62, cut=False),
    "torchvision/efficientnet": Family("efficientnet_b0", 18, cut=True),
    "torchvision/googlenet": Family("googlenet", 12, cut=True),
    "torchvision/inception": Family("inception_v3", 16, cut=True),
    "torchvision/maxvit": Family("maxvit_t", 35, cut=True),
    "torchvision/mnasnet": Family("mnasnet0_5", 20, cut=True),
    "torchvision/mobilenetv2": Family("mobilenet_v2", 19, cut=True),
    "torchvision/mobilenetv3": Family("mobilenet_v3_small", 14, cut=True),
    "torchvision/regnet": Family("regnet_y_400mf", 17, cut=True),
    "torchvision/resnet": Family("resnet18", 9, cut=True),
    "torchvision/shufflenetv2": Family("shufflenet_v2_x0_5", 18, cut=True),
    "torchvision/squeezenet": Family("squeezenet1_1", 9, cut=True),
    "torchvision/swin_transformer": Family("swin_t", 16, cut=True),
    "torchvision/vgg": Family("vgg11", 9, cut=True),
    "torchvision/vision_transformer": Family("vit_b_16", 13, cut=True),
}


def test_the_table_has_every_family() -> None:
    import timm
    import torchvision

    found = {f"timm/{_module(timm.models.model_entrypoint(name))}" for name in names("timm")}
    builder = torchvision.models.get_model_builder
    found |= {f"torchvision/{_module(builder(name))}" for name in names("torchvision")}
    assert found == FAMILIES.keys() | TOO_LARGE


def _module(function: object) -> str:
    return function.__module__.rpartition(".")[2]


# ConViT works out a table in its first forward pass.
QUICK = ("timm/convit", "torchvision/shufflenetv2", "timm/mobilenetv3")


@pytest.mark.parametrize(
    "family", [f if f in QUICK else pytest.param(f, marks=pytest.mark.slow) for f in FAMILIES]
)
def test_one_step_trains_the_upper_half_of_the_blocks_and_nothing_else(family: str) -> None:
    member, blocks, cut = FAMILIES[family]
    backbone = construct(f"{family.partition('/')[0]}/{member}")
    division = divide_by(backbone, 0.5)
    assert len(division.frozen) + len(division.trained) == blocks
    freeze(backbone, division)
    before = frozen_digests(backbone, division)
    trained = {n: t.detach().clone() for n, t in trained_tensors(backbone, division).items()}
    assert not before.keys() & trained.keys()
    assert before.keys() | trained.keys() == backbone.state_dict().keys() - _aliases(backbone)
    halves = split(backbone, division)
    assert (halves is not None) == cut

    classifier = Classifier(
        backbone,
        nn.Linear(backbone.spec.feature_dim, len(CLASSES)),
        CLASSES,
        preprocessing=backbone.spec.preprocessing,
        strategy="fine_tune",
        snapshot_id="none",
    )
    optimizer = optimizer_for(classifier, division, Settings())
    training_mode(classifier, division, adapt_batch_norm=False)
    size = backbone.spec.preprocessing.input_size
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    features = backbone(images) if halves is None else halves.upper(halves.lower(images))
    assert features.shape == (2, backbone.spec.feature_dim)
    F.cross_entropy(classifier.head(features), torch.tensor([0, 1])).backward()  # type: ignore[no-untyped-call]
    assert [n for n, p in backbone.named_parameters() if p.requires_grad and p.grad is None] == []
    optimizer.step()
    check_unmoved(backbone, division, before)
    moved = [n for n, t in trained_tensors(backbone, division).items() if (t != trained[n]).any()]
    assert len(moved) > len(trained) / 4  # not those behind a factor that begins at zero
    assert not [name for name in moved if "running_" in name]


def _aliases(backbone: Backbone) -> set[str]:
    """Further names of tensors that a network registers more than once."""
    own = {n for n, _ in (*backbone.named_parameters(), *backbone.named_buffers())}
    return backbone.state_dict().keys() - own
