"""One hardened container a step, under KFP's local runner; and a failing one fails the run.

KFP 2.17 lets the engine remove a container as soon as it ends, and takes a container that is gone
for one that ended well (kubeflow/pipelines issue 13332). Here a container is waited for, its exit
code read, and only then removed.
"""

import contextlib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import docker
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.types import Mount
from kfp.local import DockerRunner, docker_task_handler
from kfp.local.status import Status

from graftline.data.sources.base import TABLES
from graftline.errors import ConfigurationError
from graftline.models.weights import location
from graftline.steps.runtime import RUN_DIR_VARIABLE
from graftline.storage.uri import local_path, scheme
from graftline_pipelines.runfile.pools import IMAGE_USER, StepName, pool_of
from graftline_pipelines.runfile.settings import RunSettings

# What a library of numbers is told decides the last bits of results: OMP to KMP.
PASSED_ON = re.compile(
    r"(AWS|MLFLOW|GRAFTLINE|HF|OMP|OPENBLAS|MKL|KMP)_[A-Z0-9_]+|TQDM_DISABLE"
    r"|(?i:(HTTPS?|ALL|NO)_PROXY)"
)
LOCAL_HOSTS = re.compile(r"https?://(localhost|127\.0\.0\.1|\[::1\])([:/]|$)")
AWS_FILES = ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE")  # not in there: keys are resolved
# Files of certificates, such as a company's own authority: mounted where they are.
AUTHORITIES = (
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "AWS_CA_BUNDLE",
    "MLFLOW_TRACKING_SERVER_CERT_PATH",
)
DOCKER_SOCKET = "/var/run/docker.sock"
SHARED_MEMORY = "1g"  # images pass between the processes of a step there
PROCESSES = 4096
REAL_MEMORY_SHARE = 0.9  # of the machine's, for one step


class WaitingTaskHandler(docker_task_handler.DockerTaskHandler):  # type: ignore[misc]
    """KFP's handler of a task in a container, but it asks for the exit code before removing."""

    def run(self) -> Status:
        """Run the container to its end.

        Returns:
            SUCCESS for exit code 0 only.
        """
        client = patient_client()
        arguments = self.runner.container_run_args
        _hand_over([Path(self.pipeline_root)], arguments.get("user", "0:0"))
        try:
            code = run_to_the_end(
                client,
                self.image,
                self.full_command,
                volumes=self.get_volumes_to_mount(client),
                environment=self.env_vars,
                **arguments,
            )
        finally:
            client.close()
        return Status.SUCCESS if code == 0 else Status.FAILURE


def patient_client() -> Any:
    """A client that waits for a step that is silent; the SDK's own gives up after 60 s."""
    return docker.from_env(timeout=None, environment=_engine_variables())


def run_to_the_end(client: Any, image: str, command: list[str], **arguments: Any) -> int:
    """Run a container, print what it prints, and remove it in any case.

    Returns:
        Its exit code; 137 where the system killed it.
    """
    container = client.containers.run(image, command, detach=True, **arguments)
    try:
        for chunk in container.logs(stream=True):
            print(chunk.decode(errors="replace"), end="", flush=True)
        code = int(container.wait()["StatusCode"])
        if code != 0:
            container.reload()
            killed = container.attrs.get("State", {}).get("OOMKilled")
            print(f"The container ended with code {code}{', out of memory' if killed else ''}")
        return code
    finally:
        with contextlib.suppress(NotFound):
            container.remove(force=True)


def require_engine(settings: RunSettings, say: Callable[[str], None]) -> None:
    """See that an engine answers and has, or can get, each image that the run names.

    Args:
        settings: The run file.
        say: Told what takes long.

    Raises:
        ConfigurationError: No engine answers, or an image is not to be had.
    """
    with contextlib.closing(_engine()) as client:
        for target in _targets(settings):
            _find_image(client, settings.images.reference(target), say)


def hardened_runner(run_dir: Path, settings: RunSettings) -> DockerRunner:
    """The runner of a local run in containers, and the corrected handler put in KFP's place.

    Args:
        run_dir: The run's folder; the steps keep their records in it.
        settings: The run file, with local paths made absolute.

    Raises:
        ConfigurationError: No engine answers.
    """
    with contextlib.closing(_engine()) as client:
        owner = _user(client)
    written = [run_dir, *_written(settings)]
    _hand_over(written, owner["user"])
    # KFP picks the handler by the runner's exact class, so that a class of our own is refused.
    docker_task_handler.DockerTaskHandler = WaitingTaskHandler
    return DockerRunner(
        **owner,
        environment=_environment(run_dir, settings),
        mounts=_mounts(written, _read(settings)),
        network_mode=_network(settings),
        read_only=True,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        tmpfs={"/tmp": "rw,nosuid,nodev,size=8g,mode=1777"},  # noqa: S108 -- in the container
        shm_size=SHARED_MEMORY,
        pids_limit=PROCESSES,
        mem_limit=int(_machine_memory() * REAL_MEMORY_SHARE),
    )


def _targets(settings: RunSettings) -> list[Literal["cpu", "gpu"]]:
    """Which images the graph's tasks name: the gpu one where a step's pool has accelerators."""
    steps = get_args(StepName)
    pools = [pool_of(step, settings.pools, settings.assign) for step in steps]
    gpu = any(pool.accelerator is not None for pool in pools)
    return ["cpu", "gpu"] if gpu else ["cpu"]


def _engine() -> Any:
    variables = _engine_variables()
    try:
        client = docker.from_env(environment=variables)
        client.ping()
    except DockerException as error:
        raise ConfigurationError(
            "--runner docker: no container engine answers",
            why=f"{variables.get('DOCKER_HOST') or f'unix://{DOCKER_SOCKET}'}: {_reason(error)}.",
            fix="Start Docker, or podman's service: `podman system service --time=0 "
            "unix:///tmp/podman.sock &` and `export DOCKER_HOST=unix:///tmp/podman.sock`. Or leave "
            "`--runner docker` out: the steps then run as processes.",
        ) from None
    return client


def _engine_variables() -> dict[str, str]:
    """The environment that names the engine; without ``DOCKER_HOST``, the first socket found."""
    variables = dict(os.environ)
    runtime = variables.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    rootless = [f"{runtime}/docker.sock", f"{runtime}/podman/podman.sock"]
    if not variables.get("DOCKER_HOST"):
        for path in (DOCKER_SOCKET, *rootless, "/run/podman/podman.sock"):
            if os.access(path, os.W_OK):
                return {**variables, "DOCKER_HOST": f"unix://{path}"}
    return variables


def _reason(error: BaseException) -> str:
    """What the system said, from below the layers of the HTTP client."""
    below: BaseException | None = error
    while below is not None:
        if isinstance(below, OSError) and below.strerror:
            return below.strerror
        below = below.__cause__ or below.__context__
    return str(error)


def _find_image(client: Any, image: str, say: Callable[[str], None]) -> None:
    try:
        client.images.get(image)
    except ImageNotFound:
        pass
    else:
        return
    why = "`images.registry` is not set, so that it can only be one that was built here."
    if "/" in image:  # a bare name would be looked for at a public registry: anybody's image
        say(f"Pulling {image}: it is not on this machine, and some gigabytes")
        try:
            client.images.pull(image)
        except APIError as error:
            why = str(error.explanation or error)
        else:
            return
    raise ConfigurationError(
        f"images: {image} is not on this machine{' and cannot be pulled' if '/' in image else ''}",
        why=why,
        fix="Build it with `make images`, or set `images.registry` and `images.tag` to one "
        f"that exists. On this machine: {_images_here(client) or 'none'}.",
    )


def _images_here(client: Any) -> str:
    names = sorted(name for image in client.images.list() for name in image.tags)
    return ", ".join(name for name in names if "graftline-" in name)


def _user(client: Any) -> dict[str, Any]:
    """Who the steps run as: whoever started the run, but never root."""
    rootless = "name=rootless" in (client.info().get("SecurityOptions") or [])
    if rootless and "Podman" not in str(client.version().get("Components")):
        raise ConfigurationError(
            "--runner docker: rootless Docker cannot give the run's folder to the step's user",
            fix="Use rootless podman, or Docker with its ordinary daemon.",
        )
    if os.getuid() == 0:
        return {"user": f"{IMAGE_USER}:{IMAGE_USER}"}
    user: dict[str, Any] = {"user": f"{os.getuid()}:{os.getgid()}"}
    return {**user, "userns_mode": "keep-id"} if rootless else user


def _hand_over(folders: Iterable[Path], user: str) -> None:
    """Root's folders go to the image's user, who could not write them otherwise."""
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    if os.getuid() != 0:
        return
    uid, gid = (int(part) for part in user.split(":"))
    for folder in folders:
        for path in (folder, *folder.rglob("*")):
            if not path.is_symlink() and path.stat().st_uid != uid:
                os.chown(path, uid, gid)


def _written(settings: RunSettings) -> list[Path]:
    """Local folders that steps write: the store's and the tracking database's."""
    folders = [path for path in [local_path(settings.store)] if path is not None]
    if settings.tracking.uri.startswith("sqlite:///"):
        folders.append(Path(settings.tracking.uri.removeprefix("sqlite:///")).parent)
    return folders


def _read(settings: RunSettings) -> list[Path]:
    """What steps read here: the images (beside their table), weights, certificates."""
    found = []
    source = local_path(settings.data.source)
    if source is not None:
        found.append(source.parent if source.is_file() else source)
    if settings.weights not in (None, "random"):
        weights = location.parse(str(settings.weights))  # the digest may follow the path
        found += [] if weights.is_in_store else [weights.path]
    found += [Path(path) for path in _authorities().values()]
    return [path for path in found if path.exists()]


def _authorities() -> dict[str, str]:
    named = {name: os.environ.get(name, "") for name in AUTHORITIES}
    return {name: str(Path(path).absolute()) for name, path in named.items() if path}


def _mounts(written: Iterable[Path], read: Iterable[Path]) -> list[Mount]:
    """Each folder at its own path; one that lies in a written one is there already."""
    writable: list[Path] = []
    for folder in sorted(set(written)):
        if not any(folder.is_relative_to(other) for other in writable):
            writable.append(folder)
    mounts = [Mount(str(folder), str(folder), type="bind") for folder in writable]
    for path in sorted(set(read)):
        if not any(path.is_relative_to(folder) for folder in writable):
            mounts.append(Mount(str(path), str(path), type="bind", read_only=True))
    return mounts


def _addresses(settings: RunSettings) -> list[str]:
    return [settings.store, settings.data.source, settings.tracking.uri, str(settings.weights)]


def _network(settings: RunSettings) -> str:
    """No network where all is on this machine's disk; this machine's where a server is on it."""
    addresses = _addresses(settings)
    remote = [uri for uri in addresses if scheme(uri) not in ("", "file") and not _on_disk(uri)]
    ways = re.compile(r"AWS_ENDPOINT_URL.*|(?i:(HTTPS?|ALL)_PROXY)")
    endpoints = [value for key, value in os.environ.items() if ways.fullmatch(key)]
    if any(LOCAL_HOSTS.match(uri) for uri in remote):
        return "host"
    webhook = "GRAFTLINE_WEBHOOK_URL" in os.environ
    if remote or _names_images(settings) or webhook:
        return "host" if any(LOCAL_HOSTS.match(uri) for uri in endpoints) else "bridge"
    return "none"


def _names_images(settings: RunSettings) -> bool:
    """Whether the source is a local table: it may name images anywhere, those in S3 too."""
    source, format_ = local_path(settings.data.source), settings.data.format
    if source is None or format_ not in ("auto", "table"):
        return False
    names = [path.name for path in source.iterdir()] if source.is_dir() else [source.name]
    return any(name.lower().endswith(TABLES) for name in names)


def _on_disk(uri: str) -> bool:
    """Whether a tracking URI is a database of this machine."""
    return uri.startswith("sqlite")


def _environment(run_dir: Path, settings: RunSettings) -> dict[str, str]:
    passed = {key: value for key, value in os.environ.items() if PASSED_ON.fullmatch(key)}
    if _names_images(settings) or any(scheme(uri) == "s3" for uri in _addresses(settings)):
        passed = {**_aws_credentials(passed), **passed}
    for name in ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", *AWS_FILES):
        passed.pop(name, None)
    passed = {**passed, **_authorities()}
    return {**passed, RUN_DIR_VARIABLE: str(run_dir), "USER": "graftline"}


def _aws_credentials(given: Mapping[str, str]) -> dict[str, str]:
    """Keys of a profile or a login, which the container has no files for."""
    if "AWS_ACCESS_KEY_ID" in given:
        return {}
    import boto3

    session = boto3.Session()
    credentials = session.get_credentials()
    if credentials is None:
        return {}
    frozen = credentials.get_frozen_credentials()
    found = {
        "AWS_ACCESS_KEY_ID": frozen.access_key,
        "AWS_SECRET_ACCESS_KEY": frozen.secret_key,
        "AWS_SESSION_TOKEN": frozen.token,
        "AWS_DEFAULT_REGION": session.region_name,
    }
    return {key: value for key, value in found.items() if value}


def _machine_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
