"""What is known of a network before it is built."""

import pytest

import graftline.models.backbone as backbone_module
from graftline.models.backbone import construct, resolve


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "torchvision/resnet18", "test_vit4"])
def test_a_network_of_the_table_is_built_without_a_look_at_it_first(name, monkeypatch):
    looked = resolve(name, weights="random")
    monkeypatch.setattr(backbone_module, "_measure", None)  # would look
    spec = construct(name).spec
    assert (spec.parameters, spec.feature_dim) == (looked.parameters, looked.feature_dim)
    assert spec.preprocessing == looked.preprocessing


def test_at_another_size_or_with_other_libraries_the_network_is_looked_at(monkeypatch):
    def look(*_):
        raise LookupError

    monkeypatch.setattr(backbone_module, "_measure", look)
    with pytest.raises(LookupError):
        construct("tf_efficientnet_lite0", 192)
    monkeypatch.setattr(backbone_module.catalogue, "made_with", lambda: ["0", "0"])
    with pytest.raises(LookupError):
        construct("tf_efficientnet_lite0")
