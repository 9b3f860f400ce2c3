"""Images are looked for in their registry before anything is submitted: a small real one."""

import base64
import json
import os
import re
import stat
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from graftline_pipelines.cluster.image_registry import address, look_up

USER, PASSWORD, TOKEN = "robot", "s3cret", "a-token"


class Registry:
    """The pull side of the OCI distribution protocol: manifests, and tokens where asked for."""

    def __init__(self) -> None:
        self.images: set[str] = {"ml/graftline-cpu:0.1.0", f"ml/graftline-cpu@sha256:{'a' * 64}"}
        self.auth: str | None = None  # "basic" or "token"
        self.status: int | None = None
        self.accepted: list[str] = []
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                registry.answer(self)

            do_GET = do_HEAD

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def answer(self, request: Any) -> None:
        url = urllib.parse.urlsplit(request.path)
        given = request.headers.get("Authorization") or ""
        basic = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if url.path == "/token":
            scope = urllib.parse.parse_qs(url.query)["scope"][0]
            right = given == basic and scope == "repository:ml/graftline-cpu:pull"
            self.send(request, 200 if right else 401, json.dumps({"token": TOKEN}))
            return
        if self.status is not None:
            self.send(request, self.status)
        elif self.auth == "basic" and given != basic:
            self.send(request, 401, header=("WWW-Authenticate", 'Basic realm="registry"'))
        elif self.auth == "token" and given != f"Bearer {TOKEN}":
            realm = f"http://{self.host}/token"
            scope = "repository:ml/graftline-cpu:pull"
            challenge = f'Bearer realm="{realm}",service="registry",scope="{scope}"'
            self.send(request, 401, header=("WWW-Authenticate", challenge))
        else:
            self.accepted.append(request.headers.get("Accept") or "")
            match = re.fullmatch(r"/v2/(.+)/manifests/(.+)", url.path)
            assert match is not None
            mark = "@" if match[2].startswith("sha256:") else ":"
            found = f"{match[1]}{mark}{match[2]}" in self.images
            self.send(request, 200 if found else 404)

    def send(
        self, request: Any, status: int, body: str = "", header: tuple[str, str] | None = None
    ) -> None:
        request.send_response(status)
        if header is not None:
            request.send_header(*header)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(body.encode())


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    made = Registry()
    yield made
    made.server.shutdown()
    made.server.server_close()


def log_in(folder: Path, host: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    (folder / "config.json").write_text(json.dumps({"auths": {host: {"auth": auth}}}))


def test_found_and_missing(registry: Registry) -> None:
    assert look_up(f"{registry.host}/ml/graftline-cpu:0.1.0").state == "exists"
    assert look_up(f"{registry.host}/ml/graftline-cpu@sha256:{'a' * 64}").state == "exists"
    missing = look_up(f"{registry.host}/ml/graftline-cpu:0.2.0")
    assert missing.state == "missing" and "has no ml/graftline-cpu with '0.2.0'" in missing.why
    assert "oci.image.index" in registry.accepted[0], "lists of platforms are images too"


@pytest.mark.parametrize("kind", ["basic", "token"])
def test_with_a_login_of_docker(registry: Registry, tmp_path: Path, kind: str) -> None:
    registry.auth = kind
    image = f"{registry.host}/ml/graftline-cpu:0.1.0"
    without = look_up(image)
    assert without.state == "unknown" and "without a login" in without.why
    log_in(tmp_path / "docker", registry.host)
    assert look_up(image).state == "exists"
    assert look_up(f"{registry.host}/ml/graftline-cpu:9").state == "missing"


def test_with_a_login_of_podman(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.auth = "basic"
    log_in(tmp_path / "podman", registry.host)
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "podman" / "config.json"))
    assert look_up(f"{registry.host}/ml/graftline-cpu:0.1.0").state == "exists"


def test_with_a_credential_helper(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.auth = "token"
    folder = tmp_path / "docker"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"credHelpers": {registry.host: "vault"}}))
    helper = tmp_path / "docker-credential-vault"
    answer = json.dumps({"Username": USER, "Secret": PASSWORD})
    helper.write_text(f"#!/bin/sh\nread host\n[ $host = {registry.host} ] && echo '{answer}'\n")
    helper.chmod(helper.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert look_up(f"{registry.host}/ml/graftline-cpu:0.1.0").state == "exists"


def test_a_registry_that_does_not_tell(registry: Registry) -> None:
    for status in (403, 429, 500):
        registry.status = status
        found = look_up(f"{registry.host}/ml/graftline-cpu:0.1.0")
        assert found.state == "unknown" and str(status) in found.why


def test_a_registry_that_cannot_be_reached() -> None:
    found = look_up("registry.invalid/ml/graftline-cpu:0.1.0")
    assert found.state == "unknown" and "registry.invalid cannot be asked from here" in found.why


@pytest.mark.parametrize(
    ("image", "parts"),
    [
        ("busybox", ("registry-1.docker.io", "library/busybox", "latest")),
        ("me/tool:1", ("registry-1.docker.io", "me/tool", "1")),
        ("docker.io/me/tool:1", ("registry-1.docker.io", "me/tool", "1")),
        ("localhost/tool:1", ("localhost", "tool", "1")),
        ("r.example.com:5000/a/b@sha256:0", ("r.example.com:5000", "a/b", "sha256:0")),
        ("r.example.com/a/b:1@sha256:0", ("r.example.com", "a/b", "sha256:0")),
    ],
)
def test_addresses(image: str, parts: tuple[str, str, str]) -> None:
    assert address(image) == parts


def test_a_missing_image_stops_a_submission(
    kfp: Any, graftline: Callable[..., Any], run_file: Callable[..., Path], registry: Registry
) -> None:
    images = {"registry": f"{registry.host}/ml", "tag": "0.2.0"}
    said = graftline("submit", run_file(images=images))
    assert said.code == 2 and "graftline-cpu:0.2.0 cannot be pulled" in said.err
    assert not kfp.requests("POST")
    said = graftline("schedule", "apply", run_file(images=images))
    assert said.code == 2 and "graftline-cpu:0.2.0 cannot be pulled" in said.err
    assert graftline("submit", run_file(images={**images, "tag": "0.1.0"})).code == 0


def test_an_image_that_cannot_be_asked_for_is_told_and_submitted(
    kfp: Any, graftline: Callable[..., Any], run_file: Callable[..., Path], registry: Registry
) -> None:
    registry.auth = "basic"
    images = {"registry": f"{registry.host}/ml", "tag": "0.1.0"}
    said = graftline("submit", run_file(images=images))
    assert (
        said.code == 0
        and "can be pulled is not known" in said.out
        and "without a login" in said.out
    )
