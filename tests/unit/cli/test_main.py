"""The command: light to start, clear when something is wrong."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from graftline.tracking.mlflow_run import start_run
from graftline_pipelines.cli.main import app

HEAVY = ("torch", "torchvision", "timm", "mlflow", "onnxruntime", "pyarrow", "openvino", "kfp")


def graftline(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from graftline_pipelines.cli.main import main; main()"]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, cwd=cwd)


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys, contextlib, io\n"
        "sys.argv = ['graftline', '--help']\n"
        "from graftline_pipelines.cli.main import app\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        "    app()\n"
        f"print([name for name in {HEAVY} if name in sys.modules])\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "words",
    [("mirror-weights", "nope", "--store", "x"), ("race", "run.yaml", "--backbones", "nope")],
)
def test_an_unknown_backbone_is_refused_before_pytorch_is_imported(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "run.yaml").write_text("name: a\ndata: {source: x}\nstore: store\n")
    code = (
        f"import sys, contextlib\nsys.argv = ['graftline', *{words!r}]\n"
        "from graftline_pipelines.cli.main import main\n"
        "with contextlib.suppress(SystemExit):\n"
        "    main()\n"
        "print([name for name in ('torch', 'timm', 'mlflow') if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert "No backbone is called 'nope'" in done.stderr and done.stdout.strip() == "[]"


def test_every_command_is_listed_with_its_help() -> None:
    text = CliRunner().invoke(app, ["--help"]).output
    for command in ("run", "check", "compile", "predict", "backbones", "verify", "rollback"):
        assert f" {command} " in text


def pages(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, one in getattr(command, "commands", {}).items():
        yield from pages(one, (*path, name))


def test_no_help_speaks_python() -> None:
    for path in pages(typer.main.get_command(app)):
        text = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": "200"}).output
        assert f"Usage: graftline {' '.join(path)}".strip() in text.replace("root", "graftline")
        assert not re.search(r"<(bool|path|str|int|float|list)|[{}]|\.{4}|\[\[", text), text
    text = CliRunner().invoke(app, ["predict", "--help"], env={"COLUMNS": "200"}).output
    assert "predict [OPTIONS] MODEL IMAGE...\n" in re.sub(" +\n", "\n", text)
    assert re.search(r"--out +-o +TEXT", text) and re.search(r"--json +Print", text)


def test_mistake_in_the_run_file_exits_with_2_and_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("name: a\nsed: 1\n")
    done = graftline("run", "run.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert "`seed`" in done.stderr and "data: is missing" in done.stderr
    assert "Traceback" not in done.stderr


def test_everything_missing_is_said_before_anything_runs(tmp_path: Path) -> None:
    text = (
        "name: a\ndata: {source: nowhere}\nbackbone: tf_eficientnet_lite0\n"
        "tracking: {uri: 'http://127.0.0.1:9'}\nstore: store\n"
    )
    (tmp_path / "run.yaml").write_text(text)
    done = graftline("run", "run.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert "nowhere" in done.stderr
    assert "tf_efficientnet_lite0" in done.stderr
    assert "127.0.0.1:9" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / ".graftline" / "runs").exists()


def test_check_says_what_a_run_would_do(make_digits_folder, tmp_path: Path) -> None:
    folder = make_digits_folder(per_class=4, classes=3)
    text = f"name: a\ndata: {{source: {folder}}}\nstore: {tmp_path}/store\n"
    (tmp_path / "run.yaml").write_text(text)
    done = graftline("check", "run.yaml", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["ok"]
    assert "12 files listed in 3 classes" in report["facts"]["data.source"]
    assert "extract_features" in report["facts"]["a run would"]


@pytest.mark.parametrize(
    ("weights", "said"),
    [("none.safetensors", "There are no weights at"), ("w.pth#md5=00", "'#md5=00'")],
)
def test_check_names_weights_that_cannot_be_had(
    make_digits_folder, tmp_path: Path, weights: str, said: str
) -> None:
    folder = make_digits_folder(per_class=4, classes=3)
    (tmp_path / "run.yaml").write_text(
        f"name: a\ndata: {{source: {folder}}}\nstore: {tmp_path}/store\n"
        f"backbone: timm/test_resnet\nweights: {tmp_path}/{weights}\n"
    )
    done = graftline("check", "run.yaml", "--json", cwd=tmp_path)
    assert done.returncode == 1
    (problem,) = json.loads(done.stdout.splitlines()[-1])["problems"]
    assert said in json.dumps(problem)


@pytest.mark.parametrize("command", ["run", "retrain"])
def test_unknown_runner_is_refused(command: str, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("name: a\ndata: {source: x}\n")
    done = graftline(command, "run.yaml", "--runner", "cloud", cwd=tmp_path)
    assert done.returncode == 2
    assert "'cloud'" in done.stderr


def test_a_moved_project_is_said_by_check_and_mended_by_one_command(
    make_digits_folder, tmp_path: Path
) -> None:
    folder = make_digits_folder(per_class=4, classes=3)
    (tmp_path / "old" / ".graftline").mkdir(parents=True)
    uri = f"sqlite:///{tmp_path}/old/.graftline/mlflow.db"
    start_run(uri, "a", "first")
    (tmp_path / "old/.graftline/mlartifacts").mkdir()
    (tmp_path / "old" / "run.yaml").write_text(f"name: a\ndata: {{source: {folder}}}\n")
    new = (tmp_path / "old").rename(tmp_path / "new")
    done = graftline("check", "run.yaml", "--json", cwd=new)
    assert done.returncode == 0, done.stderr
    notes = json.loads(done.stdout.splitlines()[-1])["notes"]
    assert any("was moved" in note["what"] for note in notes)
    done = graftline("relocate", "--json", cwd=new)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["before"] == [f"{tmp_path}/old/.graftline"]
    assert "Nothing to do" in graftline("relocate", "run.yaml", cwd=new).stdout
    assert not (tmp_path / "old").exists()


def test_relocate_of_no_database(tmp_path: Path) -> None:
    for arguments, said in (((), "There is no database"), (("--tracking", "http://h"), "local")):
        done = graftline("relocate", *arguments, cwd=tmp_path)
        assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr


def test_weights_that_no_host_hands_out_are_said_before_anything_runs(
    make_digits_folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_digits_folder(per_class=4, classes=3)
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nothing listens there
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    (tmp_path / "run.yaml").write_text(
        f"name: a\ndata: {{source: {folder}}}\nbackbone: timm/resnet18\n"
        "gate: {min_test_images: 1000}\n"
    )
    done = graftline("run", "run.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert "could not be downloaded" in done.stderr and "mirror-weights" in done.stderr
    assert "Why: Connection refused." in done.stderr  # and not what libraries wrap around it
    assert "asks for 1,000 test images" in done.stderr
    assert not (tmp_path / ".graftline/runs").exists()


def test_a_terminal_of_other_letters_gets_what_it_can_show(tmp_path: Path) -> None:
    for name in ("Käse", "猫"):
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True)
        for number in range(12):
            (folder / f"{number}.png").write_bytes(b"\x89PNG")
    code = "from graftline_pipelines.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "init", "data"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
        capture_output=True,
    )
    assert done.returncode == 0 and done.stderr == b""
    assert "Käse/  class, 12 images".encode("latin-1") in done.stdout
    assert b"\\u732b/  class, 12 images" in done.stdout
