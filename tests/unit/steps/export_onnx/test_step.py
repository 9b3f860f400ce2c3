"""The step: smaller files measured or refused, and a wrong file never leaves it."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from graftline.classifier.bundle import load_classifier, save_classifier
from graftline.errors import ConfigurationError, ParityError
from graftline.onnx_model.predict import OnnxClassifier
from graftline.onnx_model.verify import verify
from graftline.steps.export_onnx import low_precision as smaller_module
from graftline.steps.export_onnx import step
from graftline.steps.export_onnx.config import ExportConfig

CLASSES = ["cat", "dog", "eel"]


@pytest.fixture(scope="session")
def learnt(tmp_path_factory, snapshot_of_files, make_classifier) -> Path:
    """A snapshot whose labels are what the classifier says: it is right about every image."""
    folder = tmp_path_factory.mktemp("learnt")
    classifier = make_classifier("timm/test_resnet", CLASSES)
    images = []
    for number in range(60):
        random = np.random.default_rng(number)
        noise = random.integers(-40, 40, (24 + number, 30, 3))
        images.append(np.clip(random.integers(0, 256, 3) + noise, 0, 255).astype(np.uint8))
    ready = torch.stack([classifier.preprocessing.apply(pixels) for pixels in images])
    with torch.inference_mode():
        logits = classifier(ready)
    # Each class is the answer for some, and no answer is a matter of the last digit.
    classifier.head.weight.data /= logits.std(0)[:, None]
    classifier.head.bias.data = (classifier.head.bias.data - logits.mean(0)) / logits.std(0)
    with torch.inference_mode():
        answers = classifier(ready).argmax(1).tolist()
    files = []
    for number, (pixels, answer) in enumerate(zip(images, answers, strict=True)):
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "PNG")
        files.append((CLASSES[answer], ("train", "test")[number % 2], stream.getvalue()))
    for split in ("train", "test"):
        assert {label for label, where, _ in files if where == split} == set(CLASSES)
    snapshot_of_files(folder, files)
    save_classifier(folder / "classifier", classifier)
    return folder


@pytest.fixture(scope="session")
def network(learnt: Path) -> onnx.ModelProto:
    """The classifier's network, exported once: that takes most of the time of a step."""
    return step.network_of(load_classifier(learnt / "classifier").eval(), ExportConfig().opset)


@pytest.fixture
def export_by(
    network: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[[onnx.ModelProto], onnx.ModelProto]], None]:
    """The step exports what the function makes of the network."""

    def change(edit: Callable[[onnx.ModelProto], onnx.ModelProto]) -> None:
        monkeypatch.setattr(step, "network_of", lambda *_: edit(copy_of(network)))

    return change


def copy_of(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def export(folder: Path, out: Path, **options) -> step.ExportResult:
    return step.run(
        classifier_folder=folder / "classifier",
        snapshot_folder=folder / "snapshot",
        store=str(folder / "store"),
        onnx_folder=out,
        run_id="run",
        **options,
    )


def test_smaller_files_are_written_beside_with_what_they_cost_and_gain(learnt, tmp_path):
    result = export(learnt, tmp_path, int8=True, fp16=True, max_drop=1.0)
    assert set(result.smaller) == {"fp16", "int8"}
    for precision, each in result.smaller.items():
        path = tmp_path / f"model.{precision}.onnx"
        assert each["path"] == str(path)
        assert each["bytes"] == path.stat().st_size < 0.7 * result.bytes
        assert each["accuracy"] == pytest.approx(1.0 - each["accuracy_drop"])
        assert each["label_agreement"] == pytest.approx(each["accuracy"])  # PyTorch is right
        assert each["latency_1_ms"] > 0 and each["latency_32_ms"] > 0 and each["speedup"] > 0
        assert each["refused"] is None
        metadata = OnnxClassifier(path).metadata
        assert (metadata.precision, metadata.classes) == (precision, tuple(CLASSES))
        assert result.metrics()[f"{precision}_accuracy_drop"] == each["accuracy_drop"]
        found = verify(path, learnt / "snapshot")  # measured, not refused: it is no fp32 file
        assert found.precision == precision
        assert found.parity.label_agreement == pytest.approx(each["label_agreement"])
    record = json.loads((tmp_path / "export.json").read_text())
    assert record["smaller"]["int8"]["bytes"] == result.smaller["int8"]["bytes"]


def spoiled(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network with its last layer turned: the likeliest class is the unlikeliest."""
    copy = copy_of(model)
    last = next(node for node in reversed(copy.graph.node) if node.op_type in ("Gemm", "MatMul"))
    weight = next(t for t in copy.graph.initializer if t.name in last.input)
    values = -onnx.numpy_helper.to_array(weight)
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    return copy


def test_a_smaller_file_that_loses_too_much_is_refused_and_removed(
    learnt, tmp_path, monkeypatch, export_by
):
    export_by(copy_of)
    tried = []

    def to_bad_int8(network, calibration, *, spared):
        tried.append(spared)
        return spoiled(network)

    monkeypatch.setattr(smaller_module, "to_int8", to_bad_int8)
    result = export(learnt, tmp_path, int8=True, max_drop=0.05)
    refused = result.smaller["int8"]
    assert tried == [0, 2, 8]  # the careful ways were tried too
    assert refused["path"] is None
    assert refused["accuracy_drop"] > 0.3
    assert "of 1.0000 test accuracy; export.max_drop allows 0.05" in refused["refused"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "export.json",
        "model.onnx",
        "reference.npz",
    ]


def test_a_faulty_exporter_fails_the_step_and_the_images_are_named(learnt, tmp_path, export_by):
    export_by(spoiled)
    with pytest.raises(ParityError, match=r"\w+/\d+\.png: \w+ in PyTorch, \w+ in the file"):
        export(learnt, tmp_path)
    assert not (tmp_path / "export.json").exists()  # so that nothing can be registered


def test_a_small_fault_fails_too(learnt, tmp_path, export_by):
    """Labels that still agree are not enough: the probabilities are what callers act on."""

    def slightly_wrong(network):
        last = next(n for n in reversed(network.graph.node) if n.op_type in ("Gemm", "MatMul"))
        weight = next(t for t in network.graph.initializer if t.name in last.input)
        values = onnx.numpy_helper.to_array(weight) * np.float32(1.02)
        weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
        return network

    export_by(slightly_wrong)
    with pytest.raises(ParityError, match="probabilities differ by"):
        export(learnt, tmp_path / "strict", label_tolerance=20)
    result = export(learnt, tmp_path / "loose", max_probability_difference=0.5, label_tolerance=20)
    assert result.parity["max_probability_difference"] > 1e-3


def test_classes_that_are_not_the_snapshot_s_are_refused(learnt, tmp_path, make_classifier):
    other = make_classifier("timm/test_resnet", ["cat", "dog", "fox"])
    save_classifier(tmp_path / "classifier", other)
    with pytest.raises(ConfigurationError, match="the same classes") as caught:
        step.run(
            classifier_folder=tmp_path / "classifier",
            snapshot_folder=learnt / "snapshot",
            store=str(learnt / "store"),
            onnx_folder=tmp_path / "onnx",
        )
    assert "eel, fox" in str(caught.value)
