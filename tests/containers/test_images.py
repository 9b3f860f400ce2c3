"""What the built images hold, and that they work with nothing but /tmp to write to."""

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.containers, pytest.mark.timeout(3600)]

REPOSITORY = Path(__file__).parents[2]
HARDENED = (
    "--rm",
    "--read-only",
    "--read-only-tmpfs=false",
    "--tmpfs",
    "/tmp:rw,nosuid,nodev,mode=1777",
    "--cap-drop",
    "ALL",
    "--security-opt",
    "no-new-privileges",
    "--user",
    "10001:10001",
    "--network",
    "none",
    "--memory",
    "4g",
)
Podman = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session", params=["cpu", "mlflow", "gpu"])
def image(request: pytest.FixtureRequest) -> str:
    """Each image that this machine builds."""
    name: str = request.getfixturevalue(f"{request.param}_image")
    return name


@pytest.fixture(scope="session")
def inside(podman: Podman) -> Callable[..., str]:
    """Runs a command in a hardened container and gives what it printed."""

    def run(image: str, *command: str) -> str:
        return podman("run", *HARDENED, image, *command).stdout

    return run


def test_the_configuration_is_that_of_the_dockerfile(podman: Podman, image: str) -> None:
    (found,) = json.loads(podman("image", "inspect", image).stdout)
    config = found["Config"]
    assert config["User"] == "10001:10001"
    assert config["WorkingDir"] == "/tmp"
    labels = config["Labels"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", labels["org.opencontainers.image.version"])
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", labels["org.opencontainers.image.revision"])
    assert labels["org.opencontainers.image.base.name"].startswith("docker.io/library/python:")
    assert not config.get("Entrypoint"), "KFP and the manifests give the whole command"


def test_no_build_tools_no_history_no_caches(inside: Callable[..., str], image: str) -> None:
    tools = "gcc g++ cc clang make cmake ld as pip pip3 git curl wget"
    assert inside(image, "sh", "-c", f"command -v {tools} || true").split() == []
    left = inside(
        image,
        "sh",
        "-c",
        "find / -xdev \\( -name '*_history' -o -path '*/.cache/*' -o -path '/var/lib/apt/lists/*'"
        " -o -path '/var/cache/apt/*' -o -name '*.whl' -o -name '.git' -o -name '.netrc'"
        " -o -name 'pip.conf' -size +0 -o -path '*-packages/pip' \\) 2>/dev/null || true",
    )
    assert left.split() == []


def test_nothing_can_be_written_but_tmp(podman: Podman, image: str) -> None:
    code = (
        "import os, pathlib\n"
        "assert os.getuid() == 10001 and os.getgroups() in ([], [10001])\n"
        "for folder in ('/', '/opt/graftline', '/etc', '/usr/local', '/var/tmp', '/home'):\n"
        "    try:\n"
        "        pathlib.Path(folder, 'x').write_text('x')\n"
        "    except OSError:\n"
        "        continue\n"
        "    raise SystemExit(f'{folder} can be written')\n"
        "pathlib.Path('/tmp/x').write_text('x')\n"
        "print(open('/proc/self/status').read())"
    )
    status = podman("run", *HARDENED, image, "python3", "-c", code).stdout
    assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)
    assert re.search(r"^CapBnd:\s+0+$", status, re.MULTILINE)
    assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)


def test_without_hardening_the_user_still_owns_nothing(podman: Podman, image: str) -> None:
    find = "find / -xdev -writable -not -type l -not -path '/tmp*' -not -path '/proc*' 2>/dev/null"
    ours = podman("run", "--rm", "--network", "none", image, "sh", "-c", f"{find} || true").stdout
    usual = re.compile(
        r"/(dev|run|var/(tmp|lock|run|log|mail))(/.*)?|/etc/(hosts|hostname|resolv.*)"
    )
    assert [line for line in ours.split() if not usual.fullmatch(line)] == []


def test_the_command_and_every_library_work(inside: Callable[..., str], cpu_image: str) -> None:
    assert re.search(r"\d+\.\d+\.\d+", inside(cpu_image, "graftline", "--version"))
    code = (
        "import warnings; warnings.simplefilter('error', UserWarning)\n"
        "import kfp, torch, torchvision, timm, mlflow, onnxruntime, openvino, sklearn, pyarrow\n"
        "import graftline_pipelines.graphs.training, graftline_pipelines.graphs.retraining\n"
        "import getpass\n"
        "print(getpass.getuser(), torch.ones(2, 2).sum().item())"
    )
    assert inside(cpu_image, "python3", "-c", code).split()[-2:] == ["graftline", "4.0"]


def test_the_predictor_runs(
    podman: Podman, cpu_image: str, exported_model: tuple[Any, ...], tmp_path: Path
) -> None:
    backbones = podman("run", *HARDENED, cpu_image, "graftline", "backbones", "lite0").stdout
    assert "tf_efficientnet_lite0" in backbones


def test_the_image_carries_its_list_of_parts(inside: Callable[..., str], image: str) -> None:
    bom = json.loads(inside(image, "cat", "/opt/graftline/share/graftline/sbom.cdx.json"))
    assert bom["bomFormat"] == "CycloneDX"
    parts = {_normal(part["name"]): part["version"] for part in bom["components"]}
    installed = json.loads(
        inside(
            image,
            "python3",
            "-c",
            "import importlib.metadata as m, json\n"
            "print(json.dumps({d.name: d.version for d in m.distributions()}))",
        )
    )
    installed = {_normal(name): version for name, version in installed.items()}
    assert parts == installed
    pinned = _pinned()
    assert {
        n: v for n, v in installed.items() if n in pinned and v.split("+")[0] != pinned[n]
    } == {}
    # torch names its own parts of CUDA exactly; the code itself is this commit's.
    free = re.compile(r"(nvidia|cuda)-.*|triton|graftline")
    assert {n for n in installed if n not in pinned and not free.fullmatch(n)} == set()


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _pinned() -> dict[str, str]:
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    pins = [line.split("==") for line in lines if "==" in line]
    return {_normal(name): version for name, version in pins}


def test_the_build_says_whether_torch_brings_cuda(
    inside: Callable[..., str], cpu_image: str
) -> None:
    build = json.loads(inside(cpu_image, "cat", "/opt/graftline/share/graftline/build.json"))
    code = "import torch; print(torch.__version__, torch.version.cuda)"
    assert inside(cpu_image, "python3", "-c", code).split() == [build["torch"], str(build["cuda"])]


DDP = """
import os, torch, torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
dist.init_process_group("gloo")
rank = dist.get_rank()
torch.manual_seed(rank)
model = DistributedDataParallel(torch.nn.Linear(8, 2))
model(torch.ones(4, 8) * rank).sum().backward()
torch.optim.SGD(model.parameters(), lr=0.1).step()
weights = [torch.zeros(2, 8) for _ in range(dist.get_world_size())]
dist.all_gather(weights, model.module.weight.detach())
assert all(torch.equal(weights[0], other) for other in weights), "the processes differ"
if rank == 0:
    print("cuda", torch.version.cuda, "nccl", dist.is_nccl_available(), "processes", len(weights))
dist.destroy_process_group()
"""


def test_the_gpu_image_trains_on_several_processes(podman: Podman, gpu_image: str) -> None:
    torchrun = ("python3", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    write = f"cat > /tmp/ddp.py <<'END'\n{DDP}\nEND\nexec {' '.join(torchrun)} /tmp/ddp.py"
    said = podman("run", *HARDENED, "--shm-size", "512m", gpu_image, "sh", "-c", write).stdout
    assert re.search(r"^cuda \d+\.\d+ nccl True processes 2$", said, re.MULTILINE), said


def test_sbom_is_written_from_the_image(
    podman_environment: dict[str, str], cpu_image: str, tmp_path: Path
) -> None:
    file = tmp_path / "sbom.json"
    environment = {**podman_environment, "PATH": _without_docker(os.environ["PATH"], tmp_path)}
    done = subprocess.run(
        [str(REPOSITORY / "docker" / "sbom.sh"), cpu_image, str(file)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    names = {part["name"].lower() for part in json.loads(file.read_text())["components"]}
    assert {"graftline", "torch", "kfp", "mlflow", "onnxruntime"} <= names


def _without_docker(path: str, folder: Path) -> str:
    """A PATH on which `docker` is a client without an engine."""
    (folder / "docker").write_text("#!/bin/sh\nexit 1\n")
    (folder / "docker").chmod(0o755)
    return f"{folder}:{path}"
