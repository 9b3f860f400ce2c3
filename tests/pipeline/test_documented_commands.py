"""The tutorial and the README, typed as they stand, command by command, in an own folder."""

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TUTORIAL = ROOT / "docs" / "tutorial.md"
README = ROOT / "README.md"
INSTALLING = ("make install", "source .venv", "make demo", "make test")  # what we run in already
SERVERS = ("graftline try", "mlflow ui")  # they end with Ctrl-C
COMMANDS = ("graftline", "python", "mlflow", "make", "source", "export")


def blocks(path: Path) -> Iterator[list[str]]:
    """The indented blocks of a document, each as its lines."""
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    for match in re.finditer(r"(?:^    .*\n|^\n(?=    ))+", text, re.MULTILINE):
        yield [line[4:] for line in match.group().splitlines() if line.strip()]


def commands(path: Path) -> list[str]:
    """Lines that begin with a command; what a command prints begins otherwise."""
    return [
        line
        for block in blocks(path)
        if block and block[0].split()[0] in COMMANDS
        for line in block
        if line.split()[0] in COMMANDS
    ]


def test_the_commands_are_found() -> None:
    found = commands(TUTORIAL)
    for command in ("graftline init digits", "graftline check digits.yaml", "graftline try latest"):
        assert command in found
    assert len(found) >= 12
    assert any("graftline run flowers.yaml" in line for line in commands(README))


def test_pictures_and_pages_that_documents_name_are_there() -> None:
    for path in (README, *sorted((ROOT / "docs").glob("*.md"))):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


@pytest.fixture
def shell(tmp_path: Path) -> dict[str, str]:
    """The environment of somebody who has installed Graftline and set nothing."""
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    for name in ("graftline", "mlflow", "python"):
        module = {"mlflow": "-m mlflow", "python": ""}.get(
            name, "-c 'from graftline_pipelines.cli.main import main; main()'"
        )
        text = f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {module} "$@"\n'
        (bin_folder / name).write_text(text)
        (bin_folder / name).chmod(0o755)
    kept = ("HOME", "LANG", "PYTHONPATH", "TMPDIR", "OMP_NUM_THREADS")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    return {**environment, "PATH": f"{bin_folder}:/usr/bin:/bin", "BROWSER": "true"}


def serve(line: str, folder: Path, environment: dict[str, str]) -> None:
    """Start what ends with Ctrl-C, ask for its page, and end it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    line = re.sub(r"--port \d+", "", line) + f" --port {port}"
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            ["/bin/sh", "-c", f"exec {line}"],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 180
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
                    assert answer.status == 200
                return
            except OSError:
                said = (folder / "server.log").read_text()
                assert process.poll() is None and time.monotonic() < deadline, said
                time.sleep(0.5)
    finally:
        os.killpg(process.pid, 15)
        process.wait(60)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_tutorial_runs_as_it_is_written(tmp_path: Path, shell: dict[str, str]) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    for line in commands(TUTORIAL):
        if line.startswith(INSTALLING):
            continue
        if line.startswith(SERVERS):
            serve(line, tmp_path, shell)
            continue
        done = subprocess.run(
            ["/bin/sh", "-c", line], cwd=tmp_path, env=shell, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
    left = TUTORIAL.read_text(encoding="utf-8").partition("## What a run leaves on the disk")[2]
    rows = re.findall(r"^\| (`.+?) \|", left, re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"`([^`]+)`", row)]
    assert len(named) >= 10
    for name in named:
        at_the_top = name.startswith(("runs/", "store/", "mlflow.db", "mlartifacts/"))
        there = name if at_the_top else f"runs/<run>/{name}"  # as the first name of its row
        pattern = f".graftline/{there.replace('<run>', '*')}"
        assert list(tmp_path.glob(pattern)), f"{name} is not there"
    assert (tmp_path / "answers.csv").read_text().count("\n") == 184  # 183 threes and the header


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_readmes_local_commands_run_as_they_are_written(
    tmp_path: Path, shell: dict[str, str]
) -> None:
    """On a small folder of data; placeholders become what they stand for."""
    sys.path.insert(0, str(ROOT / "examples"))
    from write_digits import write_digits

    write_digits(tmp_path / "flowers")
    for folder in (tmp_path / "flowers").iterdir():
        for picture in sorted(folder.iterdir())[30:]:
            picture.unlink()
    shutil.copy(next((tmp_path / "flowers" / "3").iterdir()), tmp_path / "photo.jpg")
    (tmp_path / "flowers.yaml").write_text(
        "name: flowers\ndata: {source: flowers}\ntracking: {uri: 'sqlite:///.graftline/mlflow.db'}\n"
    )
    rows = re.findall(r"^\| (`graftline .+?) \| ", README.read_text(encoding="utf-8"), re.MULTILINE)
    wanted = [line for line in commands(README) if line.startswith("graftline")]
    wanted += [words for row in rows for words in re.findall(r"`(graftline [^`]+)`", row)]
    away = ("submit", "submit-predict", "schedule", "trigger", "follow", "logs", "stop", "cluster")
    served = ("try", "doctor", "mirror-weights", "race", "decisions")
    ran = 0
    for line in wanted:
        words = line.split()
        if words[1] in (*away, *served) or "http://" in line:
            continue
        (run,) = sorted((tmp_path / ".graftline" / "runs").glob("flowers-*"))[:1] or [None]
        line = line.replace("RUN.yaml", "flowers.yaml").replace("FOLDER", "flowers -o new.yaml")
        if run is not None:
            line = line.replace("<run>", run.name)
            line = re.sub(r"\bMODEL(\.onnx)?\b", str(run / "model.onnx"), line)
        for name, stands_for in {
            "compare A B": "compare previous latest",
            # Not `latest`: that is a check by then, which trained nothing.
            "RUN --csv [FILE]": f"{run.name if run else 'latest'} --csv suspects.csv",
            "IMAGES": "'flowers/3/*.png'",
            "DIR": "flowers",
            "--name NAME": "--name flowers",
            "s3://BUCKET/PREFIX": "s3://bucket/models",
            "NAME": "flowers",
            "[FILTER]": "resnet18",
        }.items():
            line = line.replace(name, stands_for)
        done = subprocess.run(
            ["/bin/sh", "-c", line], cwd=tmp_path, env=shell, capture_output=True, text=True
        )
        nothing_to_go_back_to = "rollback" in line and "no earlier champion" in done.stderr
        assert done.returncode == 0 or nothing_to_go_back_to, f"{line}\n{done.stdout}{done.stderr}"
        ran += 1
        if words[1] == "init":
            (tmp_path / "new.yaml").unlink()
    assert ran >= 15
