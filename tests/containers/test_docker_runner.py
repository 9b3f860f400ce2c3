"""The training graph with one hardened container a step, and what happens when one fails."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

pytestmark = [pytest.mark.containers, pytest.mark.timeout(3600)]

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def graftline(
    cpu_image: str, docker_host: str, podman_environment: dict[str, str], tmp_path: Path
) -> Run:
    """Writes a run file and runs the command on it, with Docker's API available."""

    def run(
        run_file: dict[str, Any], *options: str, home: str, command: str = "run"
    ) -> "subprocess.CompletedProcess[str]":
        folder = tmp_path / home
        folder.mkdir(exist_ok=True)
        defaults = {
            "name": "digits",
            "store": str(folder / "store"),
            "tracking": {"uri": f"sqlite:///{folder}/mlflow/mlflow.db"},
            "images": {"tag": "test"},
            "extract": {"engine": "onnxruntime"},
            "evaluation": {"bootstrap": 100, "robustness_images": 0},
        }
        (folder / "run.yaml").write_text(yaml.safe_dump({**defaults, **run_file}))
        code = "from graftline_pipelines.cli.main import main; main()"
        return subprocess.run(
            [sys.executable, "-c", code, command, str(folder / "run.yaml"), *options],
            cwd=folder,
            env={**podman_environment, **os.environ, **variables},
            capture_output=True,
            text=True,
        )

    variables = {"DOCKER_HOST": docker_host, "OMP_NUM_THREADS": "1"}
    return run


def _result(done: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    assert done.returncode == 0, done.stdout + done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _artifact(result: dict[str, Any], name: str) -> Path:
    (found,) = Path(result["run_dir"], "artifacts").glob(f"*/*/{name}")
    return found


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _digest_of_weights(model: Path) -> str:
    """Of an ONNX file's nodes and weights; the metadata holds the run's id."""
    import onnx

    loaded = onnx.load(model)
    del loaded.metadata_props[:]
    return hashlib.sha256(loaded.SerializeToString(deterministic=True)).hexdigest()


def _checkpoints(home: Path) -> list[str]:
    return [path.name for path in (home / "store" / "checkpoints").rglob("*.safetensors")]


STRATEGIES: dict[str, dict[str, Any]] = {
    "probe": {"strategy": "probe"},
    "fine_tune": {
        "strategy": "fine_tune",
        "backbone": "mobilenetv3_small_050",
        "weights": "random",
        "image_size": 64,
        "fine_tune": {"epochs": 2, "batch_size": 8},
    },
    "fan_out": {
        "strategy": "probe",
        "backbone": "mobilenetv3_small_050",
        "weights": "random",
        "image_size": 64,
        "extract": {"engine": "onnxruntime", "workers": 2},
    },
}


@pytest.mark.parametrize("strategy", list(STRATEGIES))
def test_containers_compute_what_processes_compute(
    graftline: Run, make_digits_folder: Callable[..., Path], strategy: str, tmp_path: Path
) -> None:
    source = make_digits_folder(per_class=30, classes=3)
    run_file = {"data": {"source": str(source)}, **STRATEGIES[strategy]}
    here = _result(graftline(run_file, "--json", home="here"))
    there = _result(graftline(run_file, "--json", "--runner", "docker", home="there"))

    for name in (
        "snapshot/manifest.parquet",
        "features/features.npy",
        "calibrated/weights.safetensors",
        "calibrated/held_out.safetensors",
    ):
        assert _digest(_artifact(there, name)) == _digest(_artifact(here, name)), name
    for key in ("snapshot_id", "images", "classes", "decision", "test", "registered"):
        assert there[key] == here[key], key
    for key in ("promote", "reasons"):
        assert there["verdict"][key] == here["verdict"][key]
    assert _digest_of_weights(Path(there["onnx"])) == _digest_of_weights(Path(here["onnx"]))
    trained = [sorted(_checkpoints(tmp_path / home)) for home in ("here", "there")]
    assert trained[0] == trained[1], "a checkpoint's name is the digest of its tensors"
    assert bool(trained[0]) == (strategy == "fine_tune")
    features = np.load(_artifact(there, "features/features.npy"))
    assert np.isfinite(features).all()


def test_retraining_runs_in_containers_and_starts_nothing_when_nothing_changed(
    graftline: Run, make_digits_folder: Callable[..., Path]
) -> None:
    run_file = {
        "data": {"source": str(make_digits_folder(per_class=30, classes=3))},
        **STRATEGIES["probe"],
    }
    options = ("--json", "--runner", "docker")
    first = _result(graftline(run_file, *options, home="retrain", command="retrain"))
    assert first["trained"] and first["registered"]["alias"] == "champion"
    again = _result(graftline(run_file, *options, home="retrain", command="retrain"))
    assert not again["trained"]
    assert {"watch", "notify"} <= set(again["seconds"])
    assert "promote" not in again["seconds"]


def test_steps_in_containers_reach_an_s3_server_on_this_machine(
    graftline: Run, make_digits_folder: Callable[..., Path], s3_bucket: str
) -> None:
    run_file = {
        "data": {"source": str(make_digits_folder(per_class=15, classes=2))},
        "store": f"{s3_bucket}/store",
        **STRATEGIES["fine_tune"],
        "strategy": "probe",
    }
    environment = {k: v for k, v in os.environ.items() if k.startswith("AWS_")}
    assert environment["AWS_ACCESS_KEY_ID"] == "test-key"
    result = _result(graftline(run_file, "--json", "--runner", "docker", home="s3"))
    assert result["extracted"] == 30
    assert "test-secret" not in Path(result["run_dir"], "logs", "kfp.log").read_text()


def test_a_failing_step_fails_the_run(
    graftline: Run, make_digits_folder: Callable[..., Path]
) -> None:
    source = make_digits_folder(per_class=6, classes=3)
    for path in source.rglob("*.png"):
        path.write_bytes(b"not an image")
    done = graftline({"data": {"source": str(source)}}, "--runner", "docker", home="failing")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Step ingest failed" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_image_that_is_not_there_is_named_before_anything_runs(
    graftline: Run, make_digits_folder: Callable[..., Path], tmp_path: Path
) -> None:
    source = str(make_digits_folder(per_class=6, classes=2))
    run_file = {"data": {"source": source}, "images": {"registry": "localhost:1", "tag": "9.9.9"}}
    done = graftline(run_file, "--runner", "docker", home="absent")
    assert done.returncode in (1, 2)
    assert "localhost:1/graftline-cpu:9.9.9" in done.stderr
    assert "make images" in done.stderr
    assert not list((tmp_path / "absent").rglob("*.events.jsonl"))


@pytest.fixture
def engine(docker_host: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client of the Docker API."""
    from graftline_pipelines.local.docker import patient_client

    monkeypatch.setenv("DOCKER_HOST", docker_host)
    client = patient_client()
    yield client
    client.close()


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["python3", "-c", "print('done')"], 0),
        (["python3", "-c", "raise SystemExit(3)"], 3),
        (["sh", "-c", "sh -c 'kill -9 $$'; exit $?"], 137),
        (["python3", "-c", "x = bytearray(2_000_000_000)"], 137),
    ],
)
def test_the_exit_code_is_read_before_the_container_goes(
    engine: Any, cpu_image: str, command: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    from graftline_pipelines.local.docker import run_to_the_end

    before = len(engine.containers.list(all=True))
    assert run_to_the_end(engine, cpu_image, command, mem_limit="256m", network_mode="none") == code
    assert len(engine.containers.list(all=True)) == before
    shown = capsys.readouterr().out
    assert ("done" in shown) == (code == 0)
    assert ("ended with code" in shown) == (code != 0)


def test_a_container_that_is_silent_for_over_a_minute_is_waited_for(
    engine: Any, cpu_image: str
) -> None:
    from graftline_pipelines.local.docker import run_to_the_end

    assert run_to_the_end(engine, cpu_image, ["sh", "-c", "sleep 75; exit 4"]) == 4


PIPELINE = """
import os, sys
from pathlib import Path
from kfp import dsl, local

def hardened(code: int) -> str:
    import os, re, socket, sys
    status = open("/proc/self/status").read()
    assert os.getuid() == 10001
    assert re.search(r"^CapEff:\\\\s+0+$", status, re.M), status
    assert re.search(r"^NoNewPrivs:\\\\s+1$", status, re.M)
    for folder in ("/", "/opt/graftline", "/etc"):
        try:
            open(folder + "/x", "w")
        except OSError:
            continue
        raise SystemExit(folder + " can be written")
    assert [name for _, name in socket.if_nameindex()] == ["lo"], "there is a network"
    sys.exit(code) if code else None
    return "ran"

from graftline_pipelines.local.docker import hardened_runner
from graftline_pipelines.runfile.settings import RunSettings
folder = Path(sys.argv[1])
settings = RunSettings.model_validate({
    "name": "x", "data": {"source": str(folder)}, "store": str(folder / "store"),
    "tracking": {"uri": f"sqlite:///{folder}/m.db"}, "images": {"tag": "test"}})
local.init(hardened_runner(folder / "run", settings), pipeline_root=str(folder / "run/artifacts"))
step = dsl.component(func=hardened, base_image="graftline-cpu:test", install_kfp_package=False)

@dsl.pipeline(name="one-step")
def pipeline(code: int):
    step(code=code)

pipeline(code=int(sys.argv[2]))
"""


@pytest.mark.parametrize("code", [0, 5])
def test_a_step_has_no_rights_no_network_and_cannot_hide_a_failure(
    cpu_image: str,
    docker_host: str,
    podman_environment: dict[str, str],
    tmp_path: Path,
    code: int,
) -> None:
    script = tmp_path / "one_step.py"
    script.write_text(PIPELINE.replace("\\\\", "\\"))
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), str(code)],
        env={**podman_environment, "DOCKER_HOST": docker_host},
        capture_output=True,
        text=True,
    )
    shown = done.stdout + done.stderr
    assert (done.returncode == 0) == (code == 0), shown
    assert ("SUCCESS" in shown) == (code == 0)
    assert ("The container ended with code 5" in shown) == (code == 5)
