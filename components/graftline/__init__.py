"""Labelled images to a promoted ONNX classifier: the steps, and the calls for Python.

    import graftline

    run = graftline.run("flowers.yaml")
    graftline.load(run).predict("photo.jpg")
    graftline.evaluate(run, "new-photos/")

The three calls are those of :mod:`graftline_pipelines.api`, loaded when they are first used: the
steps in this package know nothing of the pipelines that are made of them.
"""

import os
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

# Libraries report on their use to their makers unless these are set before they are imported; ONNX
# Runtime also keeps an identifier of the machine in the user's cache. A user's own setting is kept.
for _name in ("ORT_DISABLE_TELEMETRY", "MLFLOW_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY"):
    os.environ.setdefault(_name, "1")

CALLS = ("evaluate", "load", "run")  # __init__.pyi tells type checkers of them

try:
    __version__ = version("graftline")
except PackageNotFoundError:  # a source tree on sys.path that was never installed
    __version__ = "0+unknown"


def __getattr__(name: str) -> Any:
    if name in CALLS:
        return getattr(import_module("graftline_pipelines.api"), name)
    raise AttributeError(f"module 'graftline' has no attribute {name!r}")
