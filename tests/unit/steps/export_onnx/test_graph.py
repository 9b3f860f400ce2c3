"""The exported graph against PyTorch: networks, sizes, modes, colours, metadata, refusals."""

import dataclasses
import io
import itertools
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

from graftline.errors import ConfigurationError, IntegrityError, ParityError
from graftline.images.preprocessing import Preprocessing, resize_crop_normalise
from graftline.onnx_model.parity import check
from graftline.onnx_model.predict import ModelMetadata, OnnxClassifier
from graftline.steps.export_onnx import parity as proof
from graftline.steps.export_onnx.graph import (
    compose_graph,
    content_digest,
    save_model,
)
from graftline.steps.export_onnx.network_graph import export_network
from graftline.steps.export_onnx.preprocessing_graph import preprocessing_graph

CLASSES = ["cat", "dog", "eel"]
SIZES = [(1, 1), (2, 500), (1, 7), (700, 1), (8, 8), (33, 31), (255, 257), (160, 160), (613, 421)]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def metadata_of(classifier, opset: int = 20) -> ModelMetadata:
    return ModelMetadata(
        classes=classifier.classes,
        preprocessing=classifier.preprocessing.to_dict(),
        temperature=classifier.temperature,
        thresholds={"distance": 3.5},
        snapshot_id="snap",
        run_id="run",
        opset=opset,
        graftline_version="0",
    )


@pytest.fixture(scope="session")
def networks(make_classifier) -> dict:
    """Each exported once: the classifier, its network as ONNX."""
    made = {}
    for name in ("timm/test_resnet", "timm/test_vit"):
        classifier = make_classifier(name, CLASSES)
        made[name] = classifier, export_network(classifier, 20)
    probe = make_probe(made["timm/test_resnet"][0])
    made["probe"] = probe, export_network(probe, 20)
    return made


def make_probe(classifier):
    """A linear head fitted by scikit-learn, with its standardisation folded in."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    pixels = np.stack([classifier.preprocessing.apply(i).numpy() for i in images([(40, 50)] * 30)])
    with torch.inference_mode():
        features = classifier.embed(torch.from_numpy(pixels)).numpy()
    scaler = StandardScaler().fit(features)
    fitted = LogisticRegression(C=10).fit(scaler.transform(features), np.arange(30) % 3)
    head = torch.nn.Linear(features.shape[1], 3)
    weight = fitted.coef_ / scaler.scale_
    head.weight.data = torch.from_numpy(weight.astype(np.float32))
    bias = fitted.intercept_ - weight @ scaler.mean_
    head.bias.data = torch.from_numpy(bias.astype(np.float32))
    probe = classifier.with_head(head)
    pixels = np.stack([classifier.preprocessing.apply(i).numpy() for i in images()])
    with torch.inference_mode():  # so that its probabilities are not all 0 or 1
        logits = probe(torch.from_numpy(pixels))
    return probe.with_temperature(float(logits.std())).eval()


@pytest.fixture
def exported(networks, tmp_path) -> tuple:
    classifier, network = networks["timm/test_resnet"]
    path = tmp_path / "model.onnx"
    save_model(compose_graph(network, metadata_of(classifier), classifier), path)
    return classifier, path


def images(sizes=SIZES, seed: int = 0) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [random.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in sizes]


def run_preprocessing(preprocessing: Preprocessing, batch: np.ndarray, opset: int = 20, edit=None):
    model = preprocessing_graph(preprocessing, source="images", opset=opset, ir_version=10)
    if edit is not None:
        edit(model)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, {"images": batch})[0]


@pytest.mark.parametrize(
    ("interpolation", "crop_mode"),
    list(itertools.product(["bilinear", "bicubic"], ["center", "squash", "border"])),
)
def test_preprocessing_equals_its_pytorch_twin_on_every_size(interpolation, crop_mode):
    resize = 96 if crop_mode == "border" else 107
    preprocessing = Preprocessing(96, resize, interpolation, crop_mode, MEAN, STD)
    for (height, width), opset in zip(SIZES, itertools.cycle((18, 20, 21))):
        batch = np.stack(images([(height, width)] * 2))
        expected = resize_crop_normalise(torch.from_numpy(batch), preprocessing).numpy()
        found = run_preprocessing(preprocessing, batch, opset)
        assert found.shape == expected.shape == (2, 3, 96, 96)
        greys = np.abs(found - expected).max() * 255 * max(STD)
        assert greys < 0.05, (height, width, greys)


def resize_of(model: onnx.ModelProto) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.op_type == "Resize")


def set_attribute(name: str, value):
    def edit(model: onnx.ModelProto) -> None:
        node = resize_of(model)
        kept = [a for a in node.attribute if a.name != name]
        del node.attribute[:]
        node.attribute.extend([*kept, onnx.helper.make_attribute(name, value)])

    return edit


# pytorch issue 177138: antialiased bicubic exported with the coefficient of the plain one;
# pytorch issue 183546: weights beyond the edge counted in.
FAULTS = {"coefficient": ("cubic_coeff_a", -0.75), "edges": ("exclude_outside", 0)}


@pytest.mark.parametrize("fault", FAULTS)
def test_known_exporter_faults_are_absent_and_would_be_seen(fault):
    preprocessing = Preprocessing(96, 96, "bicubic", "squash", MEAN, STD)  # keeps the edges
    batch = np.stack(images([(301, 250)]))
    expected = resize_crop_normalise(torch.from_numpy(batch), preprocessing).numpy()
    assert np.abs(run_preprocessing(preprocessing, batch) - expected).max() < 1e-3
    wrong = run_preprocessing(preprocessing, batch, edit=set_attribute(*FAULTS[fault]))
    assert np.abs(wrong - expected).max() > 0.05


NETWORKS = ("timm/test_resnet", "timm/test_vit", "probe")


@pytest.mark.parametrize("name", NETWORKS)
def test_file_answers_as_pytorch_on_odd_sizes(networks, tmp_path, name):
    classifier, network = networks[name]
    path = tmp_path / "model.onnx"
    save_model(compose_graph(network, metadata_of(classifier), classifier), path)
    pixels = images() * 2
    parity, expected, found = proof.compare(
        OnnxClassifier(path), classifier, pixels, [str(i) for i in range(len(pixels))]
    )
    assert parity.images == len(pixels)
    assert parity.label_agreement == 1.0
    assert parity.max_probability_difference < 1e-3
    assert parity.max_embedding_difference < 1e-3
    assert np.allclose(found.sum(axis=1), 1, atol=1e-5)
    assert len(np.unique(expected.round(4), axis=0)) > len(SIZES) // 2  # it does tell them apart


def encoded(image: Image.Image, form: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def kinds_of_files() -> dict[str, bytes]:
    """One of each kind that ingest takes; all but the last two hold the same picture."""
    colour = Image.fromarray(images([(90, 140)])[0])
    grey = np.asarray(colour.convert("L"))
    transparent = colour.convert("RGBA")
    clear_or_solid = np.where(grey > np.median(grey), 255, 0).astype(np.uint8)
    transparent.putalpha(Image.fromarray(clear_or_solid))
    files = {
        "colour.png": encoded(colour, "PNG"),
        "photograph.jpg": encoded(colour, "JPEG"),
        "lossy.webp": encoded(colour, "WEBP"),
        "grey.png": encoded(colour.convert("L"), "PNG"),
        "cmyk.jpg": encoded(colour.convert("CMYK"), "JPEG"),
        "alpha.png": encoded(transparent, "PNG"),
        "palette.gif": encoded(colour.convert("P"), "GIF"),
        "black-and-white.png": encoded(colour.convert("1"), "PNG"),
        "sixteen-bit.png": encoded(Image.fromarray(grey.astype(np.uint16) * 257), "PNG"),
        "one-pixel-wide.png": encoded(colour.crop((7, 0, 8, 90)), "PNG"),
        "one-pixel-high.png": encoded(colour.crop((0, 7, 140, 8)), "PNG"),
    }
    for orientation in range(2, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        files[f"turned-{orientation}.jpg"] = encoded(colour, "JPEG", exif=exif.tobytes())
    return files


@pytest.mark.parametrize("name", NETWORKS)
def test_every_kind_of_file_is_answered_as_by_pytorch(networks, tmp_path, name):
    from graftline.images.decode import decode

    classifier, network = networks[name]
    path = tmp_path / "model.onnx"
    save_model(compose_graph(network, metadata_of(classifier), classifier), path)
    files = kinds_of_files()
    for file, data in files.items():
        (tmp_path / file).write_bytes(data)
    answers = OnnxClassifier(path).predict([tmp_path / file for file in files], top=3)
    assert decode(files["turned-6.jpg"]).shape == (140, 90, 3)
    for answer, (file, data) in zip(answers, files.items(), strict=True):
        expected, _ = proof.reference(classifier, decode(data)[None])
        assert answer.label == CLASSES[int(expected[0].argmax())], file
        for label, probability in answer.top:
            assert abs(probability - expected[0, CLASSES.index(label)]) < 1e-3, file


def test_a_sixteen_bit_file_is_answered_as_the_same_picture_in_eight(exported, tmp_path):
    """Pillow's own conversion would cut it off at white."""
    files = kinds_of_files()
    for file in ("sixteen-bit.png", "grey.png", "colour.png"):
        (tmp_path / file).write_bytes(files[file])
    model = OnnxClassifier(exported[1])
    sixteen, eight, colour = (
        model.predict([tmp_path / file])[0].probability
        for file in ("sixteen-bit.png", "grey.png", "colour.png")
    )
    assert abs(sixteen - eight) < 1e-5
    assert abs(colour - eight) > 1e-4  # the network does see the difference


def test_file_states_what_it_is(exported):
    _, path = exported
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 20)]
    shapes = {
        v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {
        "images": ["N", "H", "W", 3],
        "probabilities": ["N", 3],
        "embedding": ["N", 256] if shapes["embedding"][1] == 256 else shapes["embedding"],
    }
    stated = OnnxClassifier(path).metadata
    assert stated.classes == ("cat", "dog", "eel")
    assert stated.temperature == 1.7
    assert stated.thresholds == {"distance": 3.5}
    assert (stated.snapshot_id, stated.run_id, stated.opset) == ("snap", "run", 20)
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    assert b"/graftline" not in path.read_bytes()  # no source paths of the machine that exported


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_distance_is_that_of_the_evaluation(networks, smaller, tmp_path, precision):
    from graftline.classifier.class_means import ClassMeans, class_means, read_class_means

    classifier, network = networks["timm/test_resnet"]
    converted = {"fp32": network, **smaller[1]}[precision]
    pixels = images([(40, 50)] * 12)
    path = tmp_path / "plain.onnx"
    save_model(compose_graph(converted, metadata_of(classifier), classifier), path)
    assert not OnnxClassifier(path).has_distance
    embeddings = OnnxClassifier(path).embeddings(pixels)
    found = class_means(embeddings, np.arange(12) % 3, 3)
    found.save(tmp_path)
    means = read_class_means(tmp_path)
    assert isinstance(means, ClassMeans)
    stated = dataclasses.replace(
        metadata_of(classifier), thresholds={"none_of_these": {"distance": 0.7}}
    )
    path = tmp_path / "model.onnx"
    save_model(compose_graph(converted, stated, classifier, means), path)
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    answers = OnnxClassifier(path).predict([tmp_path / f"{n}.png" for n in range(12)])
    expected = found.distances(embeddings).min(axis=1)
    assert expected.min() < 0.7 < expected.max() + 0.3
    assert np.allclose([answer.distance for answer in answers], expected, atol=1e-4)
    assert [answer.known for answer in answers] == [bool(d <= 0.7) for d in expected]


def test_damaged_class_means_are_told(tmp_path):
    from graftline.classifier.class_means import CLASS_MEANS_FILE, read_class_means

    assert read_class_means(tmp_path) is None
    (tmp_path / CLASS_MEANS_FILE).write_bytes(b"none")
    with pytest.raises(IntegrityError, match="class means"):
        read_class_means(tmp_path)


def test_two_exports_are_equal_but_for_the_run(make_classifier):
    digests, other = [], None
    for run_id in ("a", "b"):
        classifier = make_classifier("timm/test_resnet", CLASSES)
        metadata = ModelMetadata(
            classes=classifier.classes,
            preprocessing=classifier.preprocessing.to_dict(),
            run_id=run_id,
            opset=18,
        )
        model = compose_graph(export_network(classifier, 18), metadata, classifier)
        digests.append(content_digest(model, metadata))
        other = model
    assert digests[0] == digests[1]
    assert other is not None
    other.graph.initializer[0].raw_data = b"\1" * len(other.graph.initializer[0].raw_data)
    assert content_digest(other, metadata) != digests[0]


def test_planted_fault_is_caught_and_named(exported, tmp_path):
    classifier, path = exported
    model = onnx.load(path)
    node = next(n for n in model.graph.node if n.op_type == "Div" and n.output[0] == "pixels")
    scale = next(t for t in model.graph.initializer if t.name == node.input[1])
    values = onnx.numpy_helper.to_array(scale) * 1.05
    scale.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), scale.name))
    wrong = tmp_path / "wrong.onnx"
    onnx.save_model(model, wrong)
    names = [f"image-{i}.png" for i in range(len(SIZES))]
    parity, _, _ = proof.compare(OnnxClassifier(wrong), classifier, images(), names)
    with pytest.raises(ParityError, match=r"image-\d\.png") as caught:
        check(parity)
    assert "export.label_tolerance" in str(caught.value)


def test_wrong_opset_is_refused(make_classifier):
    with pytest.raises(ConfigurationError, match=r"export\.opset: 17"):
        export_network(make_classifier("timm/test_resnet", CLASSES), 17)


def test_metadata_survives_its_own_reader():
    metadata = ModelMetadata(
        classes=('say "hi"', "Ünïcode", "a,b"), preprocessing={"input_size": 8}, temperature=0.5
    )
    properties = metadata.to_properties()
    assert all(isinstance(value, str) for value in properties.values())
    assert ModelMetadata.from_properties(properties, "x") == metadata
    assert json.loads(properties["graftline.classes"]) == list(metadata.classes)


@pytest.fixture(scope="session")
def smaller(networks) -> tuple:
    """fp16 and int8 of the small network, and the pixels that they were calibrated on."""
    from graftline.steps.export_onnx.quantise import to_fp16, to_int8

    classifier, network = networks["timm/test_resnet"]
    pixels = images([(64, 64)] * 24, seed=3)
    ready = np.stack([classifier.preprocessing.apply(p).numpy() for p in pixels])
    return pixels, {"fp16": to_fp16(network), "int8": to_int8(network, ready, spared=0)}


def test_fp16_and_int8_files_answer_alike(networks, smaller, tmp_path):
    classifier, network = networks["timm/test_resnet"]
    pixels, converted = smaller
    expected, _ = proof.reference(classifier, np.stack(pixels))
    for name, model in converted.items():
        path = tmp_path / f"{name}.onnx"
        save_model(compose_graph(model, metadata_of(classifier), classifier), path)
        found = OnnxClassifier(path).probabilities(pixels)
        assert np.abs(found - expected).mean() < (0.01 if name == "fp16" else 0.1)
        assert path.stat().st_size < 0.6 * network.ByteSize()


def test_int8_network_stays_in_integers_between_its_layers(smaller, tmp_path):
    """An activation left in float32 is two conversions of every pixel: half of the speed."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    network = smaller[1]["int8"].SerializeToString()
    onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
    made = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert made.count("QLinearConv") > 5
    assert "Conv" not in made
    assert "Relu" not in made and "Clip" not in made
    assert made.count("QuantizeLinear") == 1  # the pixels, at the door


def test_in_place_activations_are_put_back(networks):
    classifier = networks["timm/test_resnet"][0]
    marks = [each.inplace for each in classifier.modules() if hasattr(each, "inplace")]
    assert any(marks)


def test_a_missing_or_foreign_file_is_told(tmp_path: Path):
    with pytest.raises(ConfigurationError, match="There is no file"):
        OnnxClassifier(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(ConfigurationError, match="cannot be loaded"):
        OnnxClassifier(tmp_path / "text.onnx")
