"""Compiles a graph to KFP's intermediate representation."""

import tempfile
from pathlib import Path
from typing import Literal

from graftline.errors import ConfigurationError
from graftline.files import os_errors
from graftline.redaction import holds_secret
from graftline_pipelines.runfile.settings import RunSettings

GraphName = Literal["train", "retrain", "predict", "doctor"]


def compile_to(settings: RunSettings, graph: GraphName, output: Path) -> None:
    """Compile a run file's graph; the file appears whole or not at all.

    Args:
        settings: The run file.
        graph: The training graph, the one that looks for changes first, batch prediction, or
            the doctor's.
        output: A file that ends in ``.yaml``.

    Raises:
        ConfigurationError: It would hold a secret.
    """
    from kfp import compiler

    if graph == "retrain":
        from graftline_pipelines.graphs.retraining import retraining_pipeline

        pipeline = retraining_pipeline(settings)
    elif graph == "doctor":
        from graftline_pipelines.graphs.doctor import doctor_pipeline

        pipeline = doctor_pipeline(settings)
    elif graph == "predict":
        from graftline_pipelines.graphs.prediction import prediction_pipeline

        pipeline = prediction_pipeline(settings)
    else:
        from graftline_pipelines.graphs.training import training_pipeline

        pipeline = training_pipeline(settings)
    with os_errors(str(output), "write"):
        output.parent.mkdir(parents=True, exist_ok=True)
        temporary = tempfile.TemporaryDirectory(dir=output.parent)
    with temporary as folder:
        written = Path(folder) / "pipeline.yaml"
        compiler.Compiler().compile(pipeline, str(written))
        if holds_secret(written.read_text(encoding="utf-8")):
            raise ConfigurationError(
                f"The compiled pipeline {output.name} would hold a password or a token",
                why="A value of the run file is one that this shell's environment keeps secret.",
                fix="Take it out of the run file: credentials come from the environment, and on a "
                "cluster from Kubernetes secrets.",
            )
        written.replace(output)
