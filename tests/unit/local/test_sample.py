"""The image that the end of a run suggests is one that the run has read, and not trained on."""

import hashlib
from pathlib import Path

import numpy as np

from graftline.onnx_model.reference import write_reference
from graftline_pipelines.local.sample import test_image as suggested


def test_only_a_tested_image_is_suggested(tmp_path: Path) -> None:
    source = tmp_path / "pictures"
    for name in (".hidden/a.png", "cat/0-broken.png", "cat/1-trained.png", "cat/2-tested.png"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(name.encode())
    onnx = str(tmp_path / "model.onnx")
    assert suggested(str(source), onnx) is None  # there is no record
    tested = [
        hashlib.sha256(name.encode()).hexdigest() for name in (".hidden/a.png", "cat/2-tested.png")
    ]
    write_reference(tmp_path, "0", tested, np.ones((2, 1)))
    assert suggested(str(source), onnx) == source / "cat/2-tested.png"
    assert suggested(f"file://{source}", onnx) == source / "cat/2-tested.png"
    (source / "cat/2-tested.png").unlink()
    assert suggested(str(source), onnx) is None
    assert suggested("s3://bucket/pictures", onnx) is None
    assert suggested(str(source), None) is None
