"""The register of a store's folders against the modules that write, and the documentation."""

import ast
import os
import re
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest

from graftline.storage import open_store
from graftline.storage.folders import FOLDERS, Folder
from graftline.storage.idle import collect_idle

ROOT = Path(__file__).parents[3]
SOURCES = {"graftline": ROOT / "components", "graftline_pipelines": ROOT / "pipelines"}
# How a module writes to a store: its methods, and the functions of graftline.storage.commit.
METHODS = {"write", "write_if_absent", "write_if_match", "upload"}
COMMIT = {"put_file", "put_bytes", "create", "replace", "overwrite"}
STORE = re.compile(r"store|child|self\.target", re.IGNORECASE)
ELSEWHERE = {
    "graftline.steps.predict.output": "writes where the user says, which is no store of Graftline",
}


@lru_cache
def writers() -> dict[str, ast.Module]:
    """Every module that writes to a store, read off the sources."""
    found = {}
    for package, root in SOURCES.items():
        for path in sorted((root / package).rglob("*.py")):
            module = ".".join(path.relative_to(root).with_suffix("").parts)
            tree = ast.parse(path.read_text())
            if not module.startswith("graftline.storage.") and any(_writes(tree)):
                found[module] = tree
    return found


def _writes(tree: ast.Module) -> Iterator[bool]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            receiver = ast.unparse(node.func.value)
            yield node.func.attr in METHODS and STORE.search(receiver) is not None
            yield node.func.attr in COMMIT and receiver == "commit"


def _texts(tree: ast.Module) -> set[str]:
    return {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and type(n.value) is str}


def test_every_module_that_writes_to_a_store_is_registered_with_its_folder() -> None:
    found = writers()
    registered = {module for folder in FOLDERS for module in folder.writers}
    assert found.keys() - ELSEWHERE.keys() == registered


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_folders_name_is_in_the_source_of_its_writers(folder: Folder) -> None:
    trees = writers()
    texts = {text for module in folder.writers for text in _texts(trees[module])}
    assert any(text.partition("/")[0] == folder.name for text in texts), folder


def test_the_documentation_names_every_folder() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    documented = set(re.findall(r"^    ([a-z-]+)/\S* ", text.partition("A store is")[2], re.M))
    assert {folder.name for folder in FOLDERS} - {"doctor"} == documented


def test_what_is_idle_goes_as_a_whole_and_nothing_else(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    old, new = time.time() - 40 * 86400, time.time() - 20 * 86400
    for folder in FOLDERS:
        for entry, ages in {"old": (old, old), "used": (old, new)}.items():
            for number, age in enumerate(ages):
                store.write(f"{folder.name}/{entry}/{number}", b"1234")
                os.utime(tmp_path / folder.name / entry / str(number), (age, age))
    before = {info.key for info in store.list()}
    looked = list(collect_idle(store, remove=False))
    assert {info.key for info in store.list()} == before
    assert list(collect_idle(store, remove=True)) == looked
    assert [(each.entries, each.files, each.bytes) for each in looked] == [(1, 2, 8)] * 5
    gone = before - {info.key for info in store.list()}
    idle = ("checkpoints", "fine-tune-searches", "frozen-outputs", "train-jobs", "doctor")
    assert gone == {f"{folder}/old/{number}" for folder in idle for number in (0, 1)}
    assert list(collect_idle(store, remove=True)) == []
    assert [each.folder for each in collect_idle(store, days=10, remove=False)] == list(idle)
