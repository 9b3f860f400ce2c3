"""The three calls for Python, judged by the command line, by scikit-learn and by a type checker."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

import graftline
from graftline.errors import ConfigurationError, DataError, StoreNotFound
from graftline_pipelines import api

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def model(exported_model: tuple) -> Any:
    return graftline.load(exported_model[2].onnx)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, model: Any) -> Path:
    """Class folders, one of a class that the model does not know, and a broken image."""
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(7)
    for number, label in enumerate([*model.classes, "unknown"] * 8):
        path = folder / label / f"{number:02}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
    (folder / model.classes[0] / "broken.png").write_bytes(b"\x89PNG")
    return folder


def test_importing_the_package_loads_nothing() -> None:
    code = (
        "import sys, graftline; heavy = {'graftline_pipelines', 'torch', 'numpy'} & "
        "set(sys.modules); print(sorted(heavy), graftline.CALLS); graftline.load"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] ('evaluate', 'load', 'run')"
    with pytest.raises(AttributeError, match="no attribute 'fit'"):
        graftline.fit  # noqa: B018


def test_one_picture_in_every_form_gives_one_answer(model: Any, photos: Path) -> None:
    path = photos / model.classes[1] / "01.png"
    pixels = np.asarray(Image.open(path))
    forms = [str(path), path, path.read_bytes(), pixels, Image.open(path)]
    answers = model.predict(forms, top=2)
    assert len(answers) == 5 and {answer.label for answer in answers} == {answers[0].label}
    for form, answer in zip(forms, answers, strict=True):
        (alone,) = model.predict(form)
        assert alone.probability == pytest.approx(answer.probability, abs=1e-6)
        assert answer.probabilities == pytest.approx(answers[0].probabilities, abs=1e-6)
    assert len(model.predict(str(photos))) == 33 and len(model.predict([photos, path])) == 34


def test_mistakes_are_errors_or_answers_with_a_reason(model: Any, tmp_path: Path) -> None:
    (answer,) = model.predict(tmp_path / "none.png")
    assert answer.label is None and answer.probability is None and "cannot be read" in answer.error
    assert model.predict(b"no picture")[0].error
    assert model.predict([]) == []
    for wrong in (np.zeros((3, 4)), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(DataError, match="array of"):
            model.predict(wrong)
    for odd in (7, None, [[1, 2]]):
        with pytest.raises(DataError, match="Image 0 is of the type"):
            model.predict(odd)
    with pytest.raises(ConfigurationError, match="is empty"):
        model.predict("")  # as a path, all images below the working folder
    with pytest.raises(ConfigurationError, match="top is 0"):
        model.predict(b"no picture", top=0)
    with pytest.raises(ConfigurationError):
        graftline.load(tmp_path / "none.onnx")
    with pytest.raises(ConfigurationError, match="is a folder, not a model"):
        graftline.load(tmp_path)
    with pytest.raises(StoreNotFound, match="Give the folder"):
        graftline.evaluate(model, tmp_path / "none")
    with pytest.raises(ConfigurationError, match="names no registered version"):
        graftline.load("models:/birds")


def test_evaluate_is_what_scikit_learn_says(model: Any, photos: Path) -> None:
    found = graftline.evaluate(model, photos)
    truth, given = [], []
    for path in sorted(photos.rglob("*.png")):
        if path.parent.name != "unknown" and path.stem != "broken":
            truth.append(path.parent.name)
            given.append(model.predict(path)[0].label)
    assert found.images == len(truth) == 24
    assert found.accuracy == pytest.approx(accuracy_score(truth, given))
    assert found.macro_f1 == pytest.approx(
        f1_score(truth, given, average="macro", zero_division=0.0)
    )
    expected = confusion_matrix(truth, given, labels=list(model.classes))
    assert np.array_equal(found.confusion, expected)
    assert found.left_out["a label that the model does not know"] == 8
    assert sum(found.left_out.values()) == 9
    assert found.interval[0] < found.accuracy < found.interval[1]
    assert set(found.recall) == set(model.classes)
    assert [label for _, label in found.answers] == truth


def test_evaluate_by_split_and_by_table(model: Any, photos: Path, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    rows = [(path, path.parent.name) for path in sorted(photos.rglob("??.png"))]
    table.write_text(
        "image,kind,split\n"
        + "".join(f"{p},{kind},{('test', 'train')[n % 2]}\n" for n, (p, kind) in enumerate(rows))
    )
    found = graftline.evaluate(model, table, split="test", data={"label_column": "kind"})
    assert found.images == 12 and found.left_out["not in the split test"] == 16
    with pytest.raises(ConfigurationError, match="label_colum"):
        graftline.evaluate(model, table, data={"label_colum": "kind"})
    with pytest.raises(DataError, match="can be measured"):
        graftline.evaluate(model, table, split="val", data={"label_column": "kind"})


def test_run_takes_a_dictionary_and_raises_all_mistakes(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        graftline.run({"name": "Bad Name", "data": {"source": "x"}, "sed": 1})
    assert "`seed`" in str(caught.value) and "name" in str(caught.value)
    given = {"name": "a", "data": {"source": str(tmp_path / "none")}, "store": str(tmp_path / "s")}
    before = repr(given)
    with pytest.raises(ConfigurationError, match="has a mistake"):  # one, not one a letter
        graftline.run(given, overrides="strategy=none")
    with pytest.raises(ConfigurationError, match="before it starts"):
        graftline.run(given, overrides=["seed=3"], progress=False)
    assert repr(given) == before


@pytest.mark.slow
def test_the_calls_are_typed(tmp_path: Path) -> None:
    (tmp_path / "use.py").write_text(
        "import graftline\n"
        "reveal_type(graftline.run('a.yaml').promoted)\n"
        "reveal_type(graftline.load('m.onnx').predict('a.png')[0].label)\n"
        "reveal_type(graftline.evaluate('m.onnx', 'photos').accuracy)\n"
        "graftline.run(3)\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", ROOT / "pyproject.toml", "use.py"],
        cwd=tmp_path,
        env={"MYPYPATH": f"{ROOT}/components:{ROOT}/pipelines", "PATH": ""},
        capture_output=True,
        text=True,
    )
    shown = done.stdout
    assert 'Revealed type is "bool"' in shown.replace("builtins.", ""), shown + done.stderr
    assert "str | None" in shown or "Union[builtins.str, None]" in shown, shown
    assert "float" in shown and 'incompatible type "int"' in shown, shown


def test_what_is_documented_is_there() -> None:
    for name in graftline.CALLS:
        call = getattr(api, name)
        assert call.__doc__ and "Args:" in call.__doc__ and getattr(graftline, name) is call
