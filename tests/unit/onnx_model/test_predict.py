"""Answers where nothing but onnxruntime, numpy and Pillow is installed; and every mistake named."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from graftline.errors import StoreAccessDenied
from graftline.onnx_model.predict import OnnxClassifier
from graftline_pipelines.cli.main import app

NEEDED = ("numpy", "onnxruntime", "PIL", "graftline", "flatbuffers", "google", "packaging")
# What the command's own library needs; nothing of it is about models.
COMMAND = (
    *("graftline_pipelines", "typer", "click", "rich", "markdown_it", "mdurl", "pygments"),
    *("shellingham", "annotated_doc", "annotated_types", "typing_extensions", "typing_inspection"),
    *("pydantic", "pydantic_core"),
)

# Imports of anything that is neither in the standard library nor allowed fail, as where it is
# not installed.
BLOCKED = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in ALLOWED or top in sys.stdlib_module_names or top.startswith("_"):
            return None
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
"""


def alone(code: str, *allowed: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process that can import nothing but what is allowed."""
    script = f"ALLOWED = {(*NEEDED, *allowed)!r}\n{BLOCKED}\n{code}"
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)


@pytest.fixture
def picture(tmp_path) -> Path:
    pixels = np.random.default_rng(5).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    path = tmp_path / "picture.png"
    Image.fromarray(pixels).save(path)
    return path


def test_predict_needs_only_onnxruntime_numpy_and_pillow(exported_model, picture):
    path = exported_model[2].onnx
    done = alone(
        "import json\n"
        "from graftline.onnx_model.predict import OnnxClassifier\n"
        f"model = OnnxClassifier({str(path)!r})\n"
        f"(answer,) = model.predict([{str(picture)!r}], top=3)\n"
        "heavy = [m for m in ('torch', 'timm', 'mlflow', 'onnx', 'yaml') if m in sys.modules]\n"
        "print(json.dumps([answer.label, answer.probability, heavy]))\n"
    )
    assert done.returncode == 0, done.stderr
    label, probability, heavy = json.loads(done.stdout)
    (expected,) = OnnxClassifier(path).predict([picture])
    assert (label, heavy) == (expected.label, [])
    assert abs(probability - expected.probability) < 1e-6


def test_the_blocked_process_does_lack_the_rest():
    done = alone("import torch")
    assert "ModuleNotFoundError: No module named 'torch'" in done.stderr


@pytest.mark.parametrize("command", ["predict", "verify"])
def test_commands_run_without_pytorch_and_mlflow(exported_model, picture, command):
    folder, _, result = exported_model
    rest = ["--images", str(picture.parent)] if command == "verify" else [str(picture), "--json"]
    arguments = ["graftline", command, result.onnx, *rest]
    code = f"sys.argv = {arguments!r}\nfrom graftline_pipelines.cli.main import main\nmain()\n"
    done = alone(code, *COMMAND)
    assert "Traceback" not in done.stderr, done.stderr
    if command == "predict":
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["predictions"][0]["label"] in ("cat", "dog", "eel")
    else:  # it came as far as comparing: this picture was not part of the proof
        assert "None of the 1 images" in done.stderr
    assert folder.is_dir()


def test_predict_names_each_bad_file_and_answers_the_others(exported_model, picture):
    broken, missing = picture.with_name("broken.jpg"), picture.with_name("missing.png")
    broken.write_bytes(picture.read_bytes()[:200])
    arguments = ["predict", exported_model[2].onnx, str(broken), str(picture), str(missing)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 1
    assert f"{broken}: the file is" in done.stderr
    assert f"{missing} cannot be read" in done.stderr
    assert str(picture) in done.stdout
    answer = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert [each["image"] for each in answer["predictions"]] == [str(picture)]
    assert [each["image"] for each in answer["failed"]] == [str(broken), str(missing)]


def test_top_names_no_more_classes_than_there_are(exported_model, picture):
    arguments = ["predict", exported_model[2].onnx, str(picture), "--top", "9", "--json"]
    answer = json.loads(CliRunner().invoke(app, arguments).stdout)
    best = [each["probability"] for each in answer["predictions"][0]["top"]]
    assert len(best) == 3
    assert best == sorted(best, reverse=True)
    assert abs(sum(best) - 1) < 1e-5


def test_rows_keep_their_order_among_sizes(exported_model):
    random = np.random.default_rng(0)
    sizes = [(30, 40), (1, 9), (30, 40), (64, 64), (1, 9), (30, 40)] * 20
    images = [random.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    model = OnnxClassifier(exported_model[2].onnx)
    together, embeddings = model.outputs(iter(images))
    for row in (0, 1, 2, 3, 57, 119):
        probabilities, embedding = model.run(images[row][None])
        assert np.allclose(together[row], probabilities[0], atol=1e-5)
        assert np.allclose(embeddings[row], embedding[0], atol=1e-4)


def test_no_images_is_no_rows(exported_model):
    assert OnnxClassifier(exported_model[2].onnx).probabilities([]).shape == (0, 3)


def test_a_file_without_permission_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"onnx")

    def refused(self: Path, *_: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(StoreAccessDenied, match=r"Cannot read .*model\.onnx") as said:
        OnnxClassifier(path)
    assert "Permission denied" in str(said.value) and "permission" in str(said.value.fix)
