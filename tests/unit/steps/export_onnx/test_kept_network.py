"""The kept network against a fresh export: another head, another backbone, a damaged file."""

from pathlib import Path
from typing import ClassVar

import onnx
import pytest
import torch

from graftline.classifier.heads import MLPHead
from graftline.steps.export_onnx import kept_network
from graftline.steps.export_onnx.kept_network import network_of
from graftline.steps.export_onnx.network_graph import export_network

CLASSES = ["cat", "dog", "eel"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "graftline/networks"


class Exports(list[object]):
    """The classifiers that were really exported; the first of a name once for all tests."""

    known: ClassVar[dict[tuple[str, str], onnx.ModelProto]] = {}
    instead: onnx.ModelProto | None = None

    def __call__(self, classifier, opset: int) -> onnx.ModelProto:
        self.append(classifier)
        if self.instead is not None:
            return self.instead
        key = (classifier.backbone.spec.name, classifier.strategy)
        if key not in self.known:
            self.known[key] = export_network(classifier, opset)
        copy = onnx.ModelProto()
        copy.CopyFrom(self.known[key])
        return copy


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> Exports:
    found = Exports()
    monkeypatch.setattr(kept_network, "export_network", found)
    return found


def another(classifier, temperature: float = 0.3):
    """The same backbone under a head of other numbers."""
    torch.manual_seed(1)
    head = torch.nn.Linear(classifier.head.in_features, len(CLASSES))
    return classifier.with_head(head).with_temperature(temperature).eval()


def content(network) -> bytes:
    return network.SerializeToString(deterministic=True)


@pytest.mark.parametrize("name", ["timm/test_resnet", "timm/test_vit"])
def test_a_kept_network_with_another_head_is_what_an_export_gives(
    make_classifier, exports: Exports, name: str
) -> None:
    first = make_classifier(name, CLASSES)
    network_of(first, 20)
    second = another(first)
    kept = network_of(second, 20)
    assert exports == [first]
    assert content(kept) == content(export_network(second, 20))


def test_a_head_of_several_layers_is_put_in_too(make_classifier, exports: Exports) -> None:
    plain = make_classifier("timm/test_resnet", CLASSES, strategy="head")
    heads = [MLPHead(plain.head.in_features, [8], len(CLASSES), 0.1) for _ in range(2)]
    first, second = (plain.with_head(head).eval() for head in heads)
    network_of(first, 20)
    kept = network_of(second, 20)
    assert exports == [first]
    assert content(kept) == content(export_network(second, 20))


def test_what_changes_the_graph_is_exported_again(make_classifier, exports: Exports) -> None:
    first = make_classifier("timm/test_resnet", CLASSES)
    network_of(first, 20)
    exports.instead = onnx.ModelProto()
    network_of(first, 21)  # another operator set
    network_of(make_classifier("timm/test_resnet", [*CLASSES, "fox"]), 20)
    network_of(first.with_temperature(1.0).eval(), 20)  # the exporter writes no division by it
    with torch.no_grad():
        next(first.backbone.parameters()).mul_(1.5)
    network_of(first, 20)
    assert len(exports) == 5


def test_a_trained_network_is_not_kept(make_classifier, cache: Path) -> None:
    network_of(make_classifier("timm/test_resnet", CLASSES, strategy="fine_tune"), 20)
    assert not cache.exists()


def test_a_damaged_file_is_made_again(make_classifier, exports: Exports, cache: Path) -> None:
    classifier = make_classifier("timm/test_resnet", CLASSES)
    whole = content(network_of(classifier, 20))
    (file,) = cache.iterdir()
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1  # in the middle of a weight: the graph can still be read
    file.write_bytes(data)
    assert content(network_of(classifier, 20)) == whole
    assert content(network_of(classifier, 20)) == whole
    assert exports == [classifier, classifier]


def test_a_tensor_that_stands_for_another_one_too_is_nobodys_own(make_classifier) -> None:
    """An exporter keeps one tensor for two that are equal; the next head must not change both."""
    classifier = make_classifier("timm/test_resnet", CLASSES)
    network = export_network(classifier, 20)
    values = kept_network._values(classifier)
    assert kept_network._holds(network, values)
    network.graph.node.add(op_type="Identity", input=[f"{kept_network.HEAD}bias"], output=["more"])
    assert not kept_network._holds(network, values) and not kept_network._put(network, values)
