"""Known holes and licences of the dependencies."""

import importlib.util
import json
import subprocess
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent.parent


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "docker" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


HOLE = {"id": "CVE-2099-1", "fix_versions": ["2.0"], "aliases": [], "description": ""}


@pytest.mark.parametrize(
    ("packages", "code", "told"),
    [
        ([{"name": "a", "version": "1", "vulns": []}], 0, "no known hole in 1 packages"),
        ([{"name": "a", "version": "1", "vulns": [HOLE]}], 1, "CVE-2099-1, fixed in 2.0"),
        ([{"name": "a", "skip_reason": "not found"}], 0, "SKIPPED"),
        (None, 0, "SKIPPED"),
    ],
)
def test_the_audit_fails_on_a_hole_and_says_when_it_could_not_look(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    packages: list[dict[str, Any]] | None,
    code: int,
    told: str,
) -> None:
    text = "cannot connect" if packages is None else json.dumps({"dependencies": packages})
    answer = subprocess.CompletedProcess([], 0, text, "")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: answer)
    assert script("audit").main() == code
    assert told in capsys.readouterr().out


def test_every_requirement_is_in_the_list_of_licences() -> None:
    listed = (ROOT / "docs" / "licences.md").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for text in project["dependencies"]:
        assert f"| {Requirement(text).name.lower()} |" in listed, text
    assert "AGPL" not in listed


# The versions from which on there was no known hole that matters here, see docs/security.md.
FLOORS = {"torch": "2.10", "onnx": "1.21", "pillow": "12.2", "mlflow": "3.11"}


def test_no_requirement_allows_a_version_with_a_known_hole() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = {
        Requirement(text).name: Requirement(text).specifier for text in project["dependencies"]
    }
    for name, floor in FLOORS.items():
        major, minor = floor.split(".")
        assert not found[name].contains(f"{major}.{int(minor) - 1}.99"), name
