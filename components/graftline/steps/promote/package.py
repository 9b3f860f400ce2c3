"""The folder that is registered: the model in MLflow's form, its evidence, and a manifest."""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from graftline.files import sha256_of
from graftline.onnx_model.predict import DISTANCE, EMBEDDING, INPUT, PROBABILITIES, OnnxClassifier
from graftline.records.export import MODEL_FILE

MANIFEST_FILE = "manifest.json"
CARD_FILE = "MODEL_CARD.md"
MANIFEST_SCHEMA_VERSION = 1
REQUIREMENTS = ("numpy", "onnxruntime")
EXAMPLE_SIDE = 32  # pixels of the input example; any size is right


def pack(folder: Path, onnx_folder: Path, evidence: Mapping[str, Path], card: str) -> Path:
    """Lay out what is registered.

    Args:
        folder: Where to write; recreated.
        onnx_folder: As the step ``export_onnx`` wrote it.
        evidence: Further files by name, such as the report.
        card: The model card, Markdown.

    Returns:
        The folder, with ``MLmodel``, ``model.onnx`` (byte for byte the file that was proven) and
        ``manifest.json`` over all files.
    """
    _save_mlflow(onnx_folder / MODEL_FILE, folder)
    for source in sorted(onnx_folder.iterdir()):
        if source.is_file():
            shutil.copyfile(source, folder / source.name)  # over what MLflow wrote again
    for name, source in evidence.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, folder / name)
    (folder / CARD_FILE).write_text(card, encoding="utf-8")
    write_manifest(folder)
    return folder


def _save_mlflow(path: Path, folder: Path) -> None:
    """MLflow's ONNX flavour, with signature and input example."""
    import mlflow.onnx
    import onnx
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    model = OnnxClassifier(path)
    example = np.full((1, EXAMPLE_SIDE, EXAMPLE_SIDE, 3), 128, np.uint8)
    probabilities, embeddings = model.run(example)
    inputs = [TensorSpec(np.dtype(np.uint8), (-1, -1, -1, 3), INPUT)]
    outputs = [
        TensorSpec(np.dtype(np.float32), (-1, probabilities.shape[1]), PROBABILITIES),
        TensorSpec(np.dtype(np.float32), (-1, embeddings.shape[1]), EMBEDDING),
    ]
    if model.has_distance:
        outputs.append(TensorSpec(np.dtype(np.float32), (-1, 1), DISTANCE))
    shutil.rmtree(folder, ignore_errors=True)
    with _without_package_search():
        mlflow.onnx.save_model(
            onnx.load(path),
            str(folder),
            signature=ModelSignature(Schema(inputs), Schema(outputs)),
            input_example={INPUT: example},
            pip_requirements=[*REQUIREMENTS],
            onnx_execution_providers=["CPUExecutionProvider"],
            save_as_external_data=False,
        )


@contextmanager
def _without_package_search() -> Iterator[None]:
    """Let MLflow not look up which package each installed module is of.

    That takes a second or more where PyTorch is installed, and is for requirements that are
    inferred; ours are given. Private: where it is gone, MLflow searches.
    """
    from mlflow.utils import requirements_utils

    name = "_MODULES_TO_PACKAGES"
    before = getattr(requirements_utils, name, ...)
    if before is not None:
        yield
        return
    setattr(requirements_utils, name, {})
    try:
        yield
    finally:
        setattr(requirements_utils, name, before)


def write_manifest(folder: Path) -> Path:
    """State the sha256 and size of every file; sign this one file and all are signed."""
    files = sorted(
        path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST_FILE
    )
    content = {
        "schema_version": MANIFEST_SCHEMA_VERSION,
        "files": [
            {
                "path": path.relative_to(folder).as_posix(),
                "sha256": sha256_of(path),
                "bytes": path.stat().st_size,
            }
            for path in files
        ],
    }
    target = folder / MANIFEST_FILE
    target.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return target
