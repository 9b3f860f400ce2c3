"""What a step's container sees: folders, network and variables. tests/containers runs it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from docker.errors import APIError, ImageNotFound
from rich.console import Console

from graftline.errors import ConfigurationError
from graftline.storage import open_store
from graftline_pipelines.local import docker, run
from graftline_pipelines.runfile.settings import RunSettings


@pytest.fixture(autouse=True)
def _no_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "GRAFTLINE_WEBHOOK_URL")
    for name in (*addresses, *docker.AUTHORITIES):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def settings(tmp_path: Path) -> Any:
    """A run file with all on this machine's disk, changed by keywords."""
    (tmp_path / "images").mkdir()

    def make(**changes: Any) -> RunSettings:
        values = {
            "name": "x",
            "data": {"source": str(tmp_path / "images")},
            "store": str(tmp_path / "store"),
            "tracking": {"uri": f"sqlite:///{tmp_path}/tracking/mlflow.db"},
        }
        return RunSettings.model_validate({**values, **changes})

    return make


def _mounts(settings: RunSettings, run_dir: Path) -> dict[str, bool]:
    """Where something is mounted, and whether it is read-only."""
    written = [run_dir, *docker._written(settings)]
    found = docker._mounts(written, docker._read(settings))
    assert all(mount["Target"] == mount["Source"] for mount in found)
    return {mount["Target"]: bool(mount["ReadOnly"]) for mount in found}


def test_images_are_mounted_read_only_and_the_rest_to_write(settings: Any, tmp_path: Path) -> None:
    assert _mounts(settings(), tmp_path / "run") == {
        str(tmp_path / "run"): False,
        str(tmp_path / "store"): False,
        str(tmp_path / "tracking"): False,
        str(tmp_path / "images"): True,
    }


def test_a_table_is_mounted_with_the_images_beside_it(settings: Any, tmp_path: Path) -> None:
    table = tmp_path / "images" / "table.csv"
    table.write_text("image,label\n")
    mounts = _mounts(settings(data={"source": str(table)}), tmp_path / "run")
    assert mounts[str(tmp_path / "images")] is True


def test_what_is_mounted_is_what_the_steps_open(settings: Any, tmp_path: Path) -> None:
    for name in ("my images", "a store"):
        (tmp_path / name).mkdir()
    weights = tmp_path / "w 1.safetensors"
    weights.write_bytes(b"")
    changed = settings(
        data={"source": (tmp_path / "my images").as_uri()},
        store=(tmp_path / "a store").as_uri(),
        weights=f"{weights.as_uri()}#sha256=01234567",
    )
    mounts = _mounts(changed, tmp_path / "run")
    opened = (open_store(changed.store), open_store(changed.data.source))
    assert [mounts.get(str(store.root)) for store in opened] == [False, True]
    assert mounts[str(weights)] is True


def test_a_folder_in_a_mounted_one_is_not_mounted_again(settings: Any, tmp_path: Path) -> None:
    store = tmp_path / "images" / "store"
    changed = settings(store=str(tmp_path), weights=str(store))
    assert _mounts(changed, tmp_path / "run") == {str(tmp_path): False}


def test_remote_places_are_not_mounted(settings: Any, tmp_path: Path) -> None:
    changed = settings(
        data={"source": "s3://b/images"},
        store="s3://b/store",
        tracking={"uri": "http://mlflow:5000"},
    )
    assert _mounts(changed, tmp_path / "run") == {str(tmp_path / "run"): False}


@pytest.mark.parametrize(
    ("changes", "variables", "network"),
    [
        ({}, {}, "none"),
        ({}, {"AWS_ENDPOINT_URL_S3": "http://localhost:9000"}, "none"),
        ({}, {"GRAFTLINE_WEBHOOK_URL": "https://hooks.example.com/x"}, "bridge"),
        ({"store": "s3://b/p"}, {}, "bridge"),
        ({"store": "s3://b/p"}, {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9000"}, "host"),
        ({"store": "s3://b/p"}, {"AWS_ENDPOINT_URL_S3": "https://s3.example.com"}, "bridge"),
        ({"store": "s3://b/p"}, {"https_proxy": "http://localhost:3128"}, "host"),
        ({"tracking": {"uri": "http://localhost:5000"}}, {}, "host"),
        ({"tracking": {"uri": "http://localhost.example.com:5000"}}, {}, "bridge"),
        ({"data": {"source": "table.csv"}}, {}, "bridge"),
        ({"data": {"source": "table.tsv"}}, {}, "bridge"),
        ({"data": {"source": "file:///data/table.CSV"}}, {}, "bridge"),
        ({"data": {"source": "table.tsv"}}, {"AWS_ENDPOINT_URL": "http://localhost:9"}, "host"),
        ({"store": "file:/store"}, {}, "none"),
    ],
)
def test_a_network_only_where_one_is_needed(
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    variables: dict[str, str],
    network: str,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert docker._network(settings(**changes)) == network


@pytest.mark.parametrize("format_", ["auto", "table"])
def test_a_folder_with_a_table_gets_a_network_and_the_keys_of_s3(
    settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format_: str
) -> None:
    (tmp_path / "images" / "list.TSV").write_text("image\tlabel\ns3://bucket/1.png\ta\n")
    changed = settings(data={"source": str(tmp_path / "images"), "format": format_})
    assert docker._network(changed) == "bridge"
    monkeypatch.setattr(docker, "_aws_credentials", lambda _: {"AWS_ACCESS_KEY_ID": "of a profile"})
    passed = docker._environment(tmp_path / "run", changed)
    assert passed["AWS_ACCESS_KEY_ID"] == "of a profile"
    folders = settings(data={"source": str(tmp_path / "images"), "format": "folders"})
    assert docker._network(folders) == "none"


def test_variables_that_steps_need_are_passed_on_and_no_others(
    settings: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_TOKEN"):
        monkeypatch.setenv(name, f"value of {name}")
    monkeypatch.setenv("GITHUB_TOKEN", "not theirs")
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")  # another kernel computes other last bits
    passed = docker._environment(tmp_path, settings(store="s3://b/p"))
    assert passed["AWS_SECRET_ACCESS_KEY"] == "value of AWS_SECRET_ACCESS_KEY"
    assert passed["MLFLOW_TRACKING_TOKEN"] == "value of MLFLOW_TRACKING_TOKEN"
    assert passed["OPENBLAS_CORETYPE"] == "Haswell"
    assert passed["GRAFTLINE_RUN_DIR"] == str(tmp_path)
    assert not {"GITHUB_TOKEN", "PATH", "HOME", "PYTHONPATH"} & set(passed)


def test_proxies_and_certificates_reach_the_container(
    settings: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    authority = tmp_path / "company.pem"
    authority.write_text("-----BEGIN CERTIFICATE-----\n")
    monkeypatch.setenv("https_proxy", "http://proxy.example.com:3128")
    monkeypatch.setenv("NO_PROXY", "mlflow.example.com")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority))
    passed = docker._environment(tmp_path, settings())
    assert passed["https_proxy"] == "http://proxy.example.com:3128"
    assert passed["NO_PROXY"] == "mlflow.example.com"
    assert passed["REQUESTS_CA_BUNDLE"] == str(authority)
    assert _mounts(settings(), tmp_path / "run")[str(authority)] is True


def test_the_keys_of_a_profile_reach_the_container(
    settings: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "credentials").write_text(
        "[team]\naws_access_key_id = AKIATEAM\naws_secret_access_key = hush\n"
    )
    (tmp_path / "config").write_text("[profile team]\nregion = eu-west-1\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "team")
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    passed = docker._environment(tmp_path, settings(store="s3://b/p"))
    assert passed["AWS_ACCESS_KEY_ID"] == "AKIATEAM"
    assert passed["AWS_DEFAULT_REGION"] == "eu-west-1"
    assert not {"AWS_PROFILE", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"} & set(passed)
    assert "AWS_ACCESS_KEY_ID" not in docker._environment(tmp_path, settings())


def test_without_an_engine_the_remedy_is_named_before_a_folder_is_made(
    settings: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    with pytest.raises(ConfigurationError) as caught:
        run.run(
            settings(),
            lambda _settings, _run_id: pytest.fail("the graph was built"),
            runs_dir=tmp_path / "runs",
            console=Console(),
            runner="docker",
        )
    assert f"unix://{tmp_path}/no.sock: No such file or directory." in str(caught.value)
    assert "podman system service" in str(caught.value)
    assert not (tmp_path / "runs").exists()
    with pytest.raises(ConfigurationError, match="no container engine answers"):
        docker.hardened_runner(tmp_path / "run", settings())


def test_podman_s_socket_is_found_where_docker_has_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setattr(docker, "DOCKER_SOCKET", str(tmp_path / "docker.sock"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "podman").mkdir()
    podman = tmp_path / "podman" / "podman.sock"
    podman.touch()
    assert docker._engine_variables()["DOCKER_HOST"] == f"unix://{podman}"
    (tmp_path / "docker.sock").touch()
    assert docker._engine_variables()["DOCKER_HOST"] == f"unix://{tmp_path}/docker.sock"
    monkeypatch.setenv("DOCKER_HOST", "tcp://elsewhere:2375")
    assert docker._engine_variables()["DOCKER_HOST"] == "tcp://elsewhere:2375"


class _Engine:
    """An engine with one image of ours, which pulls nothing."""

    def __init__(self) -> None:
        self.images = self
        self.pulled: list[str] = []
        self.tags = ["localhost/graftline-cpu:0.1.0-dev", "docker.io/library/python:3.11"]

    def get(self, _image: str) -> None:
        raise ImageNotFound("no such image")

    def pull(self, image: str) -> None:
        self.pulled.append(image)
        raise APIError("manifest unknown")

    def list(self) -> "list[_Engine]":
        return [self]


@pytest.mark.parametrize(
    ("image", "pulled", "why"),
    [
        ("graftline-cpu:0.1.0", [], "`images.registry` is not set"),
        ("r.example.com/graftline-cpu:1", ["r.example.com/graftline-cpu:1"], "manifest unknown"),
    ],
)
def test_an_image_is_pulled_from_a_registry_of_ours_only(
    image: str, pulled: list[str], why: str
) -> None:
    engine, said = _Engine(), []
    with pytest.raises(ConfigurationError) as caught:
        docker._find_image(engine, image, said.append)
    assert engine.pulled == pulled
    assert len(said) == len(pulled)
    assert why in str(caught.value)
    assert "On this machine: localhost/graftline-cpu:0.1.0-dev." in str(caught.value)


def test_each_image_has_a_digest_of_its_own(settings: Any) -> None:
    cpu, gpu = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"
    pinned = settings(images={"registry": "r.example.com/ml/", "tag": cpu, "gpu_tag": gpu}).images
    assert pinned.reference("cpu") == f"r.example.com/ml/graftline-cpu@{cpu}"
    assert pinned.reference("gpu") == f"r.example.com/ml/graftline-gpu@{gpu}"
    assert settings(images={"tag": "7"}).images.reference("gpu") == "graftline-gpu:7"
    with pytest.raises(ConfigurationError, match="gpu_tag"):
        settings(images={"tag": cpu}).images.reference("gpu")


def test_a_container_is_removed_when_the_run_is_stopped() -> None:
    """Ctrl-C comes while its output is waited for; nothing else would end it."""
    ended: list[bool] = []

    class Container:
        def logs(self, *, stream: bool) -> Any:
            assert stream
            yield b"a line\n"
            raise KeyboardInterrupt

        def remove(self, *, force: bool) -> None:
            ended.append(force)

    container = Container()
    client = SimpleNamespace(containers=SimpleNamespace(run=lambda *_, **__: container))
    with pytest.raises(KeyboardInterrupt):
        docker.run_to_the_end(client, "image", ["step"])
    assert ended == [True]
