"""What model servers are told of a file, against KServe's own schema and Triton's own proto."""

import importlib.util
import json
import shutil
from pathlib import Path

import jsonschema
import onnx
import pytest
import yaml
from typer.testing import CliRunner

from graftline.errors import ConfigurationError
from graftline.onnx_model.serving import inference_service, resources_for, triton_config
from graftline_pipelines.cli.main import app

CRD = Path(__file__).parents[4] / "shared" / "crds" / "serving.kserve.io_inferenceservices.yaml"
NAME = "animals"


@pytest.fixture(scope="module")
def model(exported_model) -> Path:
    return Path(exported_model[2].onnx)


@pytest.fixture(scope="module")
def triton():
    """Triton's messages. The package around them would want grpc, which we need not have."""
    found = importlib.util.find_spec("tritonclient")
    assert found is not None and found.submodule_search_locations
    path = Path(found.submodule_search_locations[0]) / "grpc" / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("model_config_pb2", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def strict(schema):
    """A CRD's schema as JSON schema that refuses unknown fields."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    result = {key: strict(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict):
        closed = not schema.get("x-kubernetes-preserve-unknown-fields")
        result.setdefault("additionalProperties", not closed)
    return result


@pytest.fixture(scope="module")
def kserve():
    if not CRD.is_file():
        pytest.skip("KServe's CRD is not at shared/crds: the InferenceService was not checked")
    crd = yaml.load(CRD.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    (version,) = (v for v in crd["spec"]["versions"] if v["name"] == "v1beta1")
    schema = strict(version["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("backend", ["triton", "onnxruntime"])
@pytest.mark.parametrize("gpus", [0, 1])
def test_inference_service_keeps_to_kserve_s_schema(model, kserve, backend, gpus):
    service = inference_service(
        model, name=NAME, storage_uri="s3://b/models", backend=backend, namespace="ml", gpus=gpus
    )
    kserve.validate(service)
    served = service["spec"]["predictor"]["model"]
    limits, requests = served["resources"]["limits"], served["resources"]["requests"]
    assert limits["memory"] == requests["memory"]
    assert requests["cpu"] == "2"
    assert limits.get("nvidia.com/gpu") == (str(gpus) if gpus else None)
    served["storage"] = "nonsense"
    with pytest.raises(jsonschema.ValidationError):
        kserve.validate(service)


@pytest.mark.parametrize("gpus", [0, 1])
def test_triton_config_is_read_by_triton_s_own_schema(model, triton, gpus):
    from google.protobuf import text_format

    config = text_format.Parse(
        triton_config(model, name=NAME, cpu=4, gpus=gpus), triton.ModelConfig()
    )
    assert (config.name, config.platform, config.max_batch_size) == (NAME, "onnxruntime_onnx", 32)
    tensors = {t.name: (t.data_type, list(t.dims)) for t in (*config.input, *config.output)}
    embedding = onnx.load(model).graph.output[1].type.tensor_type.shape.dim[1].dim_value
    assert tensors == {
        "images": (triton.TYPE_UINT8, [-1, -1, 3]),
        "probabilities": (triton.TYPE_FP32, [3]),
        "embedding": (triton.TYPE_FP32, [embedding]),
    }
    kind = triton.ModelInstanceGroup.KIND_GPU if gpus else triton.ModelInstanceGroup.KIND_CPU
    assert [group.kind for group in config.instance_group] == [kind]
    assert config.parameters["intra_op_thread_count"].string_value == "4"
    assert config.dynamic_batching.max_queue_delay_microseconds > 0


def test_triton_s_batch_dimension_is_the_file_s_dynamic_one(model):
    """Triton adds a dimension to those in config.pbtxt; the file must leave it open."""
    graph = onnx.load(model).graph
    for value in (*graph.input, *graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param == "N"


def test_command_writes_a_repository_that_triton_loads(model, tmp_path, triton):
    from google.protobuf import text_format

    arguments = ["serve-manifest", str(model), "--name", NAME, "--storage-uri", "s3://b/m"]
    done = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "serving")])
    assert done.exit_code == 0, done.output
    root = tmp_path / "serving" / "model-repository" / NAME
    assert (root / "1" / "model.onnx").read_bytes() == model.read_bytes()
    labels = (root / "labels.txt").read_text().splitlines()
    config = text_format.Parse((root / "config.pbtxt").read_text(), triton.ModelConfig())
    (named,) = (t for t in config.output if t.label_filename)
    assert (named.name, named.label_filename, list(named.dims)) == (
        "probabilities",
        "labels.txt",
        [len(labels)],
    )
    service = yaml.safe_load((tmp_path / "serving" / "inferenceservice.yaml").read_text())
    assert service["spec"]["predictor"]["model"]["storageUri"] == "s3://b/m"
    snapshot = service["metadata"]["annotations"]["graftline/snapshot-id"]
    record = json.loads(model.with_name("export.json").read_text())
    assert snapshot == record["metadata"]["graftline.snapshot_id"]


def test_memory_grows_with_the_file(model, tmp_path):
    large = tmp_path / "large.onnx"
    with large.open("wb") as stream:
        stream.truncate(3 * 2**30)  # sparse
    assert resources_for(large).memory > 6 * 2**30
    assert resources_for(model).memory >= 2**30


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"name": "My Model"}, "'My Model' is not a valid service name"),
        ({"name": "-a"}, "'-a' is not a valid service name"),
        ({"backend": "torchserve"}, "'torchserve' is not known"),
        ({"storage_uri": "models"}, "'models' is not an address"),
        ({"min_replicas": 4}, "--min-replicas 4 and --max-replicas 3"),
    ],
)
def test_mistakes_are_named(model, changed, told):
    given = {"name": NAME, "storage_uri": "s3://b/m", "backend": "triton", **changed}
    with pytest.raises(ConfigurationError, match=told):
        inference_service(model, **given)


def test_int8_file_is_served_under_the_same_names(model, tmp_path, triton):
    from google.protobuf import text_format

    copy = tmp_path / "model.int8.onnx"
    shutil.copy(model, copy)
    arguments = ["serve-manifest", str(copy), "--name", "a", "--storage-uri", "s3://b/m"]
    done = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    root = tmp_path / "out" / "model-repository" / "a"
    assert (root / "1" / "model.onnx").is_file()
    text_format.Parse((root / "config.pbtxt").read_text(), triton.ModelConfig())
