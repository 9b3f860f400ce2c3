"""What has not changed is not computed again.

A step's result follows from its inputs, its settings, its code and the libraries below it. The
digest of all of these is the key under which the store keeps what the step wrote, see
:mod:`graftline.steps.kept_results`. A step with an equal key takes that, and says so, before any
large library is imported. ``GRAFTLINE_FRESH=1`` computes everything again.
"""

import hashlib
import importlib
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePath
from typing import Any

from typing_extensions import override

import graftline
from graftline.errors import StoreError
from graftline.files import sha256_of
from graftline.progress import message
from graftline.steps import kept_results
from graftline.steps.kept_results import Entry
from graftline.steps.runtime import StepResult
from graftline.storage import open_store
from graftline.storage.base import Store

FRESH_VARIABLE = "GRAFTLINE_FRESH"
LIBRARIES = (  # whose versions may change a figure or a file
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "scipy",
    "scikit-learn",
    "cleanlab",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "openvino",
    "pillow",
    "safetensors",
    "jinja2",
)
VOLATILE = {  # what the same data says otherwise in every run
    "snapshot.json": ("created", "seal"),
    "features.json": ("extracted", "reused", "engine", "agreement"),
}
Outputs = Mapping[str, Path]
Adapt = Callable[["KeptResult", Outputs], "KeptResult | None"]
_OUTPUT = "\0output:"  # marks a path below an output in a kept result


@dataclass(frozen=True, kw_only=True)
class KeptResult(StepResult):
    """A result that was kept: it has the attributes of the step's own.

    Attributes:
        values: The fields of the step's result.
        run: The run that computed it.
        tracked: Its metrics, params and files.
    """

    values: Mapping[str, Any]
    run: str
    tracked: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    @override
    def reused_from(self) -> str:
        return self.run

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["values"][name]
        except KeyError:
            raise AttributeError(name) from None

    @override
    def as_dict(self) -> dict[str, Any]:
        return {**self.values, "reused_from": self.run}

    @override
    def metrics(self) -> dict[str, float]:
        return dict(self.tracked["metrics"])

    @override
    def params(self) -> dict[str, str]:
        return dict(self.tracked["params"])

    @override
    def files(self) -> dict[str, Path]:
        return {name: Path(path) for name, path in self.tracked["files"].items()}


def reuse_or_run(
    step: str,
    store: str,
    pipeline_run: str,
    *,
    inputs: Mapping[str, Path],
    outputs: Outputs,
    settings: Mapping[str, Any],
    given: Mapping[str, Any] | None = None,
    state: Mapping[str, Any] | None = None,
    adapt: Adapt | None = None,
) -> Any:
    """The result of ``graftline.steps.<step>.step.run``, kept or computed now.

    Args:
        step: The step's name.
        store: URI of the store that keeps results.
        pipeline_run: The pipeline run, for whoever reuses its results.
        inputs: Artifacts that the step reads, by keyword of its ``run``.
        outputs: Files and folders that it writes, by keyword.
        settings: Keywords that decide the result.
        given: Keywords that do not: where things are, who listens.
        state: What else decides the result and stands outside of the run.
        adapt: Makes what was kept under another state hold for this one, or returns None.

    Returns:
        The step's own result, or a :class:`KeptResult` with the same attributes.
    """
    opened = open_store(store)
    key, compared = result_key(step, inputs, settings), _digest(state or {})[:16]
    if not computes_again():
        try:
            kept = _reuse(opened, step, key, compared, outputs, adapt)
        except StoreError as error:  # this costs only the reuse
            message("Kept results cannot be read, so %s computes its own: %s", step, error)
            kept = None
        if kept is not None:
            message("%s: reused from run %s", step, kept.run)
            return kept
    started = time.monotonic()
    run = importlib.import_module(f"graftline.steps.{step}.step").run
    result = run(**inputs, **outputs, **settings, **(given or {}))
    seconds = time.monotonic() - started
    try:
        entry = Entry(pipeline_run, seconds, {}, _content(result, outputs))
        kept_results.keep(opened, step, key, compared, entry, outputs)
    except (StoreError, TypeError, ValueError) as error:  # this costs only the reuse
        message("The results of %s were not kept for the next run: %s", step, error)
    return result


def computes_again() -> bool:
    """Whether the user wants everything computed again."""
    return os.environ.get(FRESH_VARIABLE, "") not in ("", "0")


def _reuse(
    store: Store, step: str, key: str, state: str, outputs: Outputs, adapt: Adapt | None
) -> KeptResult | None:
    for entry in kept_results.find(store, step, key, state):
        if kept_results.restore(store, entry, outputs):
            return _kept(entry, outputs)
    for entry in kept_results.find(store, step, key) if adapt else ():
        if kept_results.restore(store, entry, outputs):
            kept = adapt(_kept(entry, outputs), outputs) if adapt else None
            if kept is not None:
                return kept
            kept_results.remove(outputs)
    return None


def paths(**artifacts: Any) -> dict[str, Path]:
    """Where KFP put artifacts on this machine, by keyword of a step's ``run``."""
    return {name: Path(artifact.path) for name, artifact in artifacts.items()}


def result_key(step: str, inputs: Mapping[str, Path], settings: Mapping[str, Any]) -> str:
    """Digest of all that decides a step's result."""
    described = {
        "step": step,
        "inputs": {name: artifact_digest(path) for name, path in sorted(inputs.items())},
        "settings": settings,
        "version": graftline.__version__,
        "code": code_digest(step),
        "libraries": library_versions(),
    }
    return _digest(described)[:32]


def artifact_digest(path: Path) -> str:
    """Digest of a file's or a folder's content, without what every run writes differently.

    Pages in a folder are for people and left out.
    """
    if path.is_file():
        return sha256_of(path)
    files = sorted(
        found for found in path.rglob("*") if found.is_file() and found.suffix != ".html"
    )
    return _digest({found.relative_to(path).as_posix(): _file_digest(found) for found in files})


def _file_digest(path: Path) -> str:
    left_out = VOLATILE.get(path.name)
    if left_out is None:
        return sha256_of(path)
    content = json.loads(path.read_text(encoding="utf-8"))
    return _digest({name: value for name, value in content.items() if name not in left_out})


@cache
def code_digest(step: str) -> str:
    """Digest of Graftline's own code, without that of the other steps."""
    found = hashlib.sha256()
    for name, content in _code():
        in_other_step = name.parts[0] == "steps" and len(name.parts) > 2 and name.parts[1] != step
        if not in_other_step:
            found.update(f"{name.as_posix()}\0".encode() + content)
    return found.hexdigest()


@cache
def _code() -> list[tuple[PurePath, bytes]]:
    """Graftline's own files: their paths in the package, and what is in them."""
    root = Path(graftline.__file__).parent
    kinds = ("*.py", "*.jinja*", "*.html", "*.json", "*.csv")
    paths = sorted(path for kind in kinds for path in root.rglob(kind))
    return [(path.relative_to(root), path.read_bytes()) for path in paths]


def learn_code(steps: Iterable[str]) -> None:
    """Compute beforehand what the keys of these steps' results have in common.

    For a process that forks for each of them.
    """
    library_versions()
    for step in steps:
        code_digest(step)


@cache
def library_versions() -> dict[str, str]:
    """Versions of the libraries that a result may depend on; empty for one that is not here."""
    return {name: _version(name) for name in LIBRARIES}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _kept(entry: Entry, outputs: Outputs) -> KeptResult:
    content = _with_paths(entry.content, outputs)
    return KeptResult(
        values=content["values"], run=entry.run or "unknown", tracked=content["tracked"]
    )


def _content(result: StepResult, outputs: Outputs) -> dict[str, Any]:
    """A result as JSON, its paths relative to the outputs."""
    tracked = {"metrics": result.metrics(), "params": result.params(), "files": result.files()}
    content: dict[str, Any] = _portable({"values": result.as_dict(), "tracked": tracked}, outputs)
    return content


def _portable(value: Any, outputs: Outputs) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _portable(each, outputs) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_portable(each, outputs) for each in value]
    if hasattr(value, "item") and not isinstance(value, str):
        return value.item()  # a number of numpy
    if isinstance(value, str | Path):
        for name, path in outputs.items():
            if str(value) == str(path) or str(value).startswith(f"{path}/"):
                return f"{_OUTPUT}{name}{str(value).removeprefix(str(path))}"
        return str(value)
    return value


def _with_paths(value: Any, outputs: Outputs) -> Any:
    if isinstance(value, dict):
        return {key: _with_paths(each, outputs) for key, each in value.items()}
    if isinstance(value, list):
        return [_with_paths(each, outputs) for each in value]
    if isinstance(value, str) and value.startswith(_OUTPUT):
        name, slash, rest = value.removeprefix(_OUTPUT).partition("/")
        return f"{outputs[name]}{slash}{rest}"
    return value


def _digest(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
