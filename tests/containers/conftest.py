"""Images that are really built, and a socket that KFP's DockerRunner really talks to.

With a Docker engine or a registry available nothing here is special. Without them, podman and
buildah build as root, and the base image is made from Debian's packages.
"""

import configparser
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PYTHON_IMAGE = "docker.io/library/python:3.11-slim-bookworm"
TAG = "test"
# crun fails in some virtual machines, and a soft limit must not be below the hard one.
CONTAINERS_CONF = """\
[containers]
default_ulimits = ["nofile=8192:8192", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
Podman = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def podman_environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment that podman and buildah run in; skips where they are not here."""
    missing = [name for name in ("podman", "buildah", "runc") if shutil.which(name) is None]
    if missing or os.getuid() != 0:
        pytest.skip(
            f"needs root and podman, buildah, runc (missing: {', '.join(missing) or 'root'}): "
            "no image was built"
        )
    settings = tmp_path_factory.mktemp("podman") / "containers.conf"
    settings.write_text(CONTAINERS_CONF)
    return {**os.environ, "CONTAINERS_CONF": str(settings)}


@pytest.fixture(scope="session")
def podman(podman_environment: dict[str, str]) -> Podman:
    """Runs podman."""

    def run(*arguments: str, check: bool = True, **options: object) -> object:
        done = subprocess.run(
            ["podman", *arguments],
            env=podman_environment,
            capture_output=True,
            text=True,
            **options,
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    return run  # type: ignore[return-value]


@pytest.fixture(scope="session")
def python_image(podman: Podman, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The base image: here already, pulled, or made from Debian's packages."""
    if podman("image", "exists", PYTHON_IMAGE, check=False).returncode == 0:
        return PYTHON_IMAGE
    if podman("pull", "--quiet", PYTHON_IMAGE, check=False).returncode == 0:
        return PYTHON_IMAGE
    if shutil.which("debootstrap") is None:
        pytest.skip(f"{PYTHON_IMAGE} cannot be pulled, and debootstrap is not here")
    root = tmp_path_factory.mktemp("base") / "root"
    packages = "python3,python3-pip,python3-venv,ca-certificates"
    subprocess.run(
        ["debootstrap", "--variant=minbase", f"--include={packages}", "bookworm", str(root)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    (root / "usr/bin/python").symlink_to("python3")
    (root / "usr/lib/python3.11/EXTERNALLY-MANAGED").unlink(missing_ok=True)
    path = "ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
    with subprocess.Popen(
        ["tar", "-C", str(root), "--numeric-owner", "-c", "."], stdout=subprocess.PIPE
    ) as tar:
        podman("import", "-c", 'CMD ["python3"]', "-c", path, "-", PYTHON_IMAGE, stdin=tar.stdout)
    shutil.rmtree(root)
    return PYTHON_IMAGE


def build_flags() -> list[str]:
    """This machine's pip settings, indexes on disk and certificates, for the build as well."""
    flags = ["--network=host", "--pull=false"]
    mounts = set()
    for name in ("/etc/pip.conf", "~/.config/pip/pip.conf", "~/.pip/pip.conf"):
        path = Path(name).expanduser()
        if path.is_file():
            mounts.add(str(path))
            parser = configparser.ConfigParser(interpolation=None)
            parser.read(path)
            values = " ".join(v for section in parser.values() for v in section.values())
            for word in values.split():
                folder = Path(word.removeprefix("file://"))
                if folder.is_absolute() and folder.exists():
                    mounts.add(str(folder.parent if folder.name == "simple" else folder))
    for path in sorted(mounts):
        flags += ["-v", f"{path}:{path}:ro"]
    return flags


def _reachable(host: str) -> bool:
    try:
        socket.create_connection((host, 443), timeout=5).close()
    except OSError:
        return False
    return True


def _free_gigabytes() -> float:
    folder = Path("/var/lib/containers")
    return shutil.disk_usage(folder if folder.exists() else "/").free / 1e9


@pytest.fixture(scope="session")
def build_image(podman_environment: dict[str, str], python_image: str) -> Callable[[str], str]:
    """Builds an image by docker/build.sh, with layers kept from one session to the next."""

    def build(target: str, builder: str = "buildah") -> str:
        variables = {"BUILDER": builder, "TAG": TAG, "PYTHON_IMAGE": python_image}
        variables["BUILD_FLAGS"] = " ".join(build_flags())
        if target == "gpu" and not _free_gigabytes() > 25:
            pytest.skip("less than 25 GB of disk are free: the gpu image was not built")
        if target == "cpu" and not _reachable("download.pytorch.org"):
            print("torch without CUDA is out of reach: the cpu image gets the build with it")
            variables["TORCH_INDEX_URL"] = ""
        done = subprocess.run(
            [str(REPOSITORY / "docker" / "build.sh"), target],
            env={**podman_environment, **variables},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return f"localhost/graftline-{target}:{TAG}"

    return build


@pytest.fixture(scope="session")
def cpu_image(build_image: Callable[[str], str]) -> str:
    """The image of the steps."""
    return build_image("cpu")


@pytest.fixture(scope="session")
def gpu_image(build_image: Callable[[str], str]) -> str:
    """The image of the steps with CUDA."""
    return build_image("gpu")


@pytest.fixture(scope="session")
def mlflow_image(build_image: Callable[..., str]) -> str:
    """The image of the tracking server, built by the other builder."""
    return build_image("mlflow", "podman")


@pytest.fixture(scope="session")
def docker_host(
    podman_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The address of an engine that speaks Docker's API."""
    path = tmp_path_factory.mktemp("engine") / "podman.sock"
    address = f"unix://{path}"
    process = subprocess.Popen(
        ["podman", "system", "service", "--time=0", address],
        env=podman_environment,
        cwd=path.parent,  # where a container that runs out of memory leaves a note
    )
    deadline = time.monotonic() + 30
    while not path.exists():
        assert process.poll() is None and time.monotonic() < deadline, "podman's service is not up"
        time.sleep(0.1)
    try:
        yield address
    finally:
        process.terminate()
        process.wait(timeout=20)
