"""A server with the rules of Kubeflow Pipelines, a network that fails, and the command line."""

import importlib.util
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

HERE = Path(__file__).parent


@pytest.fixture
def proxy(s3_bucket: str, s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The way to the S3 server, which a test may spoil; the AWS variables lead over it."""
    name = "fault_proxy"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
        assert spec and spec.loader
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    with sys.modules[name].FaultProxy(s3_server) as between:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", between.url)
        yield between


@dataclass
class Kfp:
    """The test server, and what a test does behind its back."""

    url: str

    def control(self, path: str, **body: Any) -> Any:
        request = urllib.request.Request(
            f"{self.url}/control/{path}", data=json.dumps(body).encode(), method="POST"
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read())

    def table(self, kind: str) -> list[dict[str, Any]]:
        return self.control("tables")[kind]

    def requests(self, start: str = "") -> list[str]:
        return [line for line in self.control("requests") if line.startswith(start)]


@pytest.fixture(scope="session")
def _kfp_process() -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, str(HERE / "kfp_server.py"), "0"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def kfp(_kfp_process: str, monkeypatch: pytest.MonkeyPatch) -> Kfp:
    """A fresh server; the environment names it and holds no login."""
    for name in list(os.environ):
        if name.startswith(("GRAFTLINE_KFP", "KF_PIPELINES", "KUBERNETES_", "KUBECONFIG")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", _kfp_process)
    server = Kfp(_kfp_process)
    server.control("reset")
    return server


RUN_FILE: dict[str, Any] = {
    "name": "flowers",
    "data": {"source": "s3://bucket/flowers"},
    "store": "s3://bucket/graftline",
    "tracking": {"uri": "http://mlflow.graftline.svc:5000"},
    "strategy": "probe",
    "images": {"registry": "registry.example.com/ml", "tag": "0.1.0"},
    "schedule": {"cron": "0 30 2 * * *"},
}


@pytest.fixture
def run_file(tmp_path: Path) -> Callable[..., Path]:
    """Write a run file for a cluster, with some sections replaced."""

    def write(**changes: Any) -> Path:
        path = tmp_path / "flowers.yaml"
        path.write_text(yaml.safe_dump({**RUN_FILE, **changes}))
        return path

    return write


_compiled: dict[tuple[str, str], bytes] = {}


@pytest.fixture
def _compile_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compile each run file once for all tests; what is compiled is the same each time."""
    from graftline_pipelines.cluster import package
    from graftline_pipelines.graphs.compile import compile_to

    def once(settings: Any, graph: Any, output: Path) -> None:
        key = (settings.model_dump_json(), graph)
        if key not in _compiled:
            compile_to(settings, graph, output)
            _compiled[key] = output.read_bytes()
        output.write_bytes(_compiled[key])

    monkeypatch.setattr(package, "compile_to", once)


@dataclass(frozen=True)
class Said:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out.splitlines()[-1])


@pytest.fixture
def graftline(
    _compile_once: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Said]:
    """Run the command line in this process, as `graftline ARGUMENTS`."""
    from graftline_pipelines.cli import main

    def run(*arguments: object) -> Said:
        capsys.readouterr()
        monkeypatch.setenv("COLUMNS", "250")
        monkeypatch.setattr(sys, "argv", ["graftline", *map(str, arguments)])
        try:
            main.main()
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 0
        said = capsys.readouterr()
        return Said(code, said.out, said.err)

    return run
