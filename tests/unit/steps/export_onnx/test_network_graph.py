"""Which exporter made a network's graph, and that a wrong trace is found out."""

import numpy as np
import onnxruntime
import pytest
import torch
from timm.layers import Conv2dSame

from graftline.errors import ParityError
from graftline.steps.export_onnx import network_graph
from graftline.steps.export_onnx.network_graph import export_network

CLASSES = ["cat", "dog", "eel"]


def operators(model) -> set[str]:
    return {node.op_type for node in model.graph.node}


def assert_equal(model, classifier, count: int) -> None:
    """ONNX Runtime and PyTorch, on a batch of a size that was not exported."""
    size = classifier.preprocessing.input_size
    pixels = torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(3))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    with torch.inference_mode():
        expected = torch.softmax(classifier(pixels) / classifier.temperature, dim=1)
    found = session.run(["probabilities"], {session.get_inputs()[0].name: pixels.numpy()})[0]
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


def test_padding_that_depends_on_the_size_is_a_number_in_the_graph(make_classifier, monkeypatch):
    monkeypatch.setattr(network_graph, "_by_either", by_the_trace)
    classifier = make_classifier("timm/tf_mobilenetv3_small_minimal_100", CLASSES)
    assert any(isinstance(each, Conv2dSame) for each in classifier.modules())
    model = export_network(classifier, 20)
    assert not operators(model) & {"Shape", "Ceil", "Cast"}
    assert_equal(model, classifier, 5)


def by_the_trace(network, example, opset):
    """In place of the choice between the two exporters, which would take the other one."""
    traced = network_graph._traced(network, example, opset)
    assert traced is not None and not network_graph.computes_shapes(traced)
    return traced


class Wrapped(torch.nn.Module):
    """A network, and what is done with its output."""

    def __init__(self, network: torch.nn.Module, then) -> None:
        super().__init__()
        self.network, self.then = network, then

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.then(self.network(pixels))


def with_last(classifier, then):
    """The classifier with something done after its network."""
    backbone = classifier.backbone
    backbone.network = Wrapped(backbone.network, then).eval()
    return classifier


def test_a_trace_that_holds_for_one_batch_size_alone_is_not_used(make_classifier):
    def baked(features: torch.Tensor) -> torch.Tensor:
        return features * (2.0 if int(features.shape[0]) == 2 else 1.0)

    with pytest.raises(ParityError, match="test_resnet cannot be written as ONNX"):
        export_network(with_last(make_classifier("timm/test_resnet", CLASSES), baked), 20)


def test_a_wrong_trace_leaves_the_network_to_the_symbolic_exporter(make_classifier):
    def of_the_batch(features: torch.Tensor) -> torch.Tensor:
        return features.reshape(-1, 1, features.shape[1]).sum(1) + features.new_tensor(
            np.zeros(tuple(features.shape)) if torch.jit.is_tracing() else 0.0
        )

    classifier = with_last(make_classifier("timm/test_resnet", CLASSES), of_the_batch)
    assert_equal(export_network(classifier, 20), classifier, 5)


def test_what_the_symbolic_exporter_cannot_take_apart_is_traced(make_classifier):
    class Scaled(torch.autograd.Function):
        @staticmethod
        def forward(_, features: torch.Tensor) -> torch.Tensor:
            return features * float(torch.tensor([1.5]).numpy()[0])

        @staticmethod
        def symbolic(graph, features):
            return graph.op("Mul", features, graph.op("Constant", value_t=torch.tensor(1.5)))

    classifier = with_last(make_classifier("timm/test_vit", CLASSES), Scaled.apply)
    assert_equal(export_network(classifier, 20), classifier, 5)


@pytest.mark.parametrize("scale", [1e4, float("nan")])
def test_a_sharp_head_and_a_broken_network_are_written(make_classifier, scale: float):
    """What noise makes of them is no reason; the proof on images refuses what is wrong."""
    classifier = make_classifier("timm/test_resnet", CLASSES)
    with torch.no_grad():
        classifier.head.weight.mul_(scale)
    assert export_network(classifier, 20).graph.node


def test_an_opset_that_the_tracing_exporter_does_not_know_is_written(make_classifier):
    classifier = make_classifier("timm/test_resnet", CLASSES)
    model = export_network(classifier, 23)
    assert [opset.version for opset in model.opset_import if not opset.domain] == [23]
    assert_equal(model, classifier, 5)
