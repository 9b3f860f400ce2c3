"""`graftline verify`: the proof of a file repeated, and every way in which it can fail."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image
from typer.testing import CliRunner

from graftline.data.snapshot import read_images, read_snapshot
from graftline.errors import (
    DataError,
    IntegrityError,
    ParityError,
    SchemaVersionError,
    StoreNotFound,
)
from graftline.onnx_model.reference import REFERENCE_FILE, read_reference, write_reference
from graftline.onnx_model.verify import verify
from graftline_pipelines.cli.main import app


@pytest.fixture
def proven(exported_model, tmp_path) -> tuple[Path, Path]:
    """The exported file with its reference, and a folder with the test images as files."""
    folder, _, _ = exported_model
    model = tmp_path / "model" / "model.onnx"
    shutil.copytree(folder / "onnx", model.parent)
    snapshot = read_snapshot(folder / "snapshot")
    images = tmp_path / "images"
    images.mkdir()
    for row, data in read_images(snapshot, snapshot.rows("test")):
        (images / f"{row}.png").write_bytes(data)
    return model, images


def test_folder_and_snapshot_give_the_same_proof(proven, exported_model):
    model, images = proven
    by_folder = verify(model, images)
    by_snapshot = verify(model, exported_model[0] / "snapshot")
    assert by_folder.parity.images == by_snapshot.parity.images == 12
    assert by_folder.parity.label_agreement == 1.0
    assert by_folder.parity.max_probability_difference < 1e-3
    assert (by_folder.unknown, by_folder.missing) == (0, 0)


def test_images_are_told_by_their_bytes_not_their_names(proven):
    model, images = proven
    nested = images / "deep" / "er"
    nested.mkdir(parents=True)
    first = sorted(images.glob("*.png"))[0]
    first.rename(nested / "renamed.PNG")
    stream = io.BytesIO()
    Image.new("RGB", (9, 9)).save(stream, "PNG")
    (images / "stranger.png").write_bytes(stream.getvalue())
    (images / "notes.txt").write_text("not an image")
    sorted(images.glob("*.png"))[0].unlink()
    found = verify(model, images)
    assert (found.parity.images, found.unknown, found.missing) == (11, 1, 1)


def plant(model: Path, factor: float = 1.05) -> None:
    """Change the deviation that pixels are divided by, as a wrong export would."""
    graph = onnx.load(model)
    node = next(n for n in graph.graph.node if n.op_type == "Div" and n.output[0] == "pixels")
    scale = next(t for t in graph.graph.initializer if t.name == node.input[1])
    values = (onnx.numpy_helper.to_array(scale) * factor).astype(np.float32)
    scale.CopyFrom(onnx.numpy_helper.from_array(values, scale.name))
    onnx.save_model(graph, model)


def test_changed_file_is_refused_before_anything_is_compared(proven):
    model, images = proven
    plant(model)
    with pytest.raises(IntegrityError, match="not the file that was proven"):
        verify(model, images)


def test_file_that_answers_differently_is_refused_and_the_images_named(proven):
    model, images = proven
    before = read_reference(model.parent / REFERENCE_FILE)
    plant(model)
    from graftline.files import sha256_of

    write_reference(model.parent, sha256_of(model), before.image_ids, before.probabilities)
    with pytest.raises(ParityError, match=r"\d+\.png: \w+ in PyTorch"):
        verify(model, images)
    done = CliRunner().invoke(app, ["verify", str(model), "--images", str(images)])
    assert isinstance(done.exception, ParityError)
    loose = ["--max-difference", "1", "--label-tolerance", "12", "--json"]
    done = CliRunner().invoke(app, ["verify", str(model), "--images", str(images), *loose])
    assert done.exit_code == 0
    assert json.loads(done.stdout)["parity"]["max_probability_difference"] > 1e-3


def test_command_says_what_was_compared(proven):
    model, images = proven
    sorted(images.glob("*.png"))[0].unlink()
    done = CliRunner().invoke(app, ["verify", str(model), "--images", str(images)])
    assert done.exit_code == 0
    assert "The same label on all 11 images," in done.stdout
    assert "Of the proof, not given: 1 image." in done.stdout


def test_a_few_of_the_images_prove_nothing(proven):
    model, images = proven
    for path in sorted(images.glob("*.png"))[1:]:
        path.unlink()
    with pytest.raises(DataError, match=r"(?s)Only 1 of the 12 images.*--min-share 0\.083"):
        verify(model, images)
    command = ["verify", str(model), "--images", str(images)]
    assert isinstance(CliRunner().invoke(app, command).exception, DataError)
    done = CliRunner().invoke(app, [*command, "--min-share", "0.083"])
    assert done.exit_code == 0 and "Of the proof, not given: 11 images." in done.stdout


def test_mistakes_are_named(proven, tmp_path):
    model, images = proven
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match="holds no image files"):
        verify(model, empty)
    with pytest.raises(DataError, match="There is no folder"):
        verify(model, tmp_path / "nowhere")
    reference = model.parent / REFERENCE_FILE
    content = reference.read_bytes()
    reference.write_bytes(content[: len(content) // 2])
    with pytest.raises(IntegrityError, match="is damaged"):
        verify(model, images)
    np.savez(reference, schema_version=np.array(99))
    with pytest.raises(SchemaVersionError, match="schema version 99"):
        verify(model, images)
    reference.unlink()
    with pytest.raises(StoreNotFound, match="PyTorch's answers"):
        verify(model, images)
