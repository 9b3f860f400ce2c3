"""Graftline from Python: ``run``, ``load`` and ``evaluate``.

``import graftline`` gives the three, loaded when they are first used::

    import graftline

    run = graftline.run("flowers.yaml")
    model = graftline.load(run)
    print(model.predict("photo.jpg")[0].label)
    print(graftline.evaluate(model, "new-photos/").accuracy)

They raise :mod:`graftline.errors`, never print a mistake and never end the process.
"""

import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from graftline.data.absent import refuse_absent
from graftline.errors import ConfigurationError, DataError
from graftline_pipelines.runfile.settings import RunSettings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

    from graftline.data.sources.base import Entry, Source
    from graftline.onnx_model.bulk import Answer
    from graftline.onnx_model.predict import ModelMetadata

    Picture = str | os.PathLike[str] | bytes | NDArray[np.uint8] | Image

LARGEST_FILE = 2**28  # bytes of an image in an archive
DEFAULT_RUNS_DIR = Path(".graftline/runs")
DEFAULT_TRACKING = "sqlite:///.graftline/mlflow.db"


@dataclass(frozen=True)
class Run:
    """A run that has ended well.

    Attributes:
        run_id: Its id.
        folder: Its folder: the report, the exported file, the logs.
        promoted: Whether its model is the champion now.
        version: The registered version that it came to.
        reasons: The verdict, in sentences.
        test: Figures on the test split: ``accuracy``, ``accuracy_ci``, ``macro_f1``, ``ece``, ...
        model: The exported file.
        report: The page of the evaluation.
        summary: All that ``graftline run --json`` prints.
    """

    run_id: str
    folder: Path
    promoted: bool
    version: str | None
    reasons: tuple[str, ...]
    test: Mapping[str, Any]
    model: Path
    report: Path
    summary: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True)
class Evaluation:
    """A model on labelled images.

    Attributes:
        images: How many were measured.
        accuracy: Share that got their label.
        interval: Its exact interval; images count as independent.
        macro_f1: Mean of the classes' F1.
        ece: Expected calibration error.
        recall: Of each class, with its exact interval; classes without images are left out.
        confusion: Counts, shape (classes, classes): rows are true classes, columns given ones.
        classes: Of the model, in the order of ``confusion``.
        unlike: How many images are unlike the training images.
        left_out: Reason to number of images that were not measured.
        answers: What the model said to each image that was measured, and its true label.
    """

    images: int
    accuracy: float
    interval: tuple[float, float]
    macro_f1: float
    ece: float
    recall: Mapping[str, tuple[float, tuple[float, float]]]
    confusion: "NDArray[np.int64]" = field(repr=False)
    classes: tuple[str, ...]
    unlike: int
    left_out: Mapping[str, int]
    answers: "tuple[tuple[Answer, str], ...]" = field(repr=False)


def run(
    run_file: "str | os.PathLike[str] | Mapping[str, Any] | RunSettings",
    *,
    overrides: Sequence[str] = (),
    runs_dir: str | os.PathLike[str] = ".graftline/runs",
    runner: Literal["subprocess", "docker"] = "subprocess",
    progress: bool = True,
) -> Run:
    """Run the training graph on this machine, as ``graftline run`` does.

    Runs of several threads wait for each other.

    Args:
        run_file: A YAML file, or its content as a dictionary.
        overrides: ``path.to.key=value``, as ``--set`` takes them.
        runs_dir: Parent folder of the runs' folders.
        runner: ``docker`` for one hardened container for each step.
        progress: Whether the steps are shown while they run.

    Raises:
        ConfigurationError: A mistake in the run file, or anything else that would stop the run.
        StepFailed: A step failed; the message is the step's own.
    """
    from rich.console import Console

    from graftline_pipelines.graphs.training import training_pipeline
    from graftline_pipelines.local import run as local
    from graftline_pipelines.local.race_memory import raced
    from graftline_pipelines.local.summary import summarise
    from graftline_pipelines.preflight.examine import require

    settings = raced(_settings(run_file, overrides), lambda _: None)
    with local.OneAtATime():  # what is said meanwhile, too
        console = Console(quiet=not progress)
        require(local.with_absolute_paths(settings), console)

    def build(resolved: RunSettings, run_id: str) -> Callable[[], Any]:
        pipeline: Callable[[], Any] = training_pipeline(resolved, run_id, on_cluster=False)
        return pipeline

    finished = local.run(settings, build, runs_dir=Path(runs_dir), console=console, runner=runner)
    summary = summarise(finished, settings)
    verdict = summary["verdict"] or {}
    return Run(
        run_id=finished.run_id,
        folder=finished.run_dir,
        promoted=bool(summary["registered"]["alias"]),
        version=summary["registered"]["version"],
        reasons=tuple(verdict.get("reasons", ())),
        test=summary["test"],
        model=Path(summary["onnx"]),
        report=Path(summary["report"]),
        summary=summary,
    )


def load(model: "str | os.PathLike[str] | Run", *, tracking: str = DEFAULT_TRACKING) -> "Model":
    """Open a model for predictions. Needs neither PyTorch nor a server, but for the registry's.

    Args:
        model: An exported ``.onnx`` file, what :func:`run` returned, ``latest`` or the name of a
            run in ``.graftline/runs``, or in MLflow's registry ``models:/NAME@champion`` or
            ``models:/NAME/VERSION``.
        tracking: MLflow's tracking URI, for a registered model.

    Raises:
        ConfigurationError: There is no such file, or it is no model of ours.
        TrackingError: There is no such registered model or version.
    """
    if isinstance(model, Run):
        return Model(model.model)
    text = os.fspath(model)
    if not text.startswith("models:/"):
        from graftline_pipelines.local.runs import exported_file

        return Model(exported_file(text, DEFAULT_RUNS_DIR))
    from graftline.steps.predict.step import fetch_registered, registered

    name, version = registered(text)
    folder = tempfile.TemporaryDirectory(prefix="graftline-model-", ignore_cleanup_errors=True)
    return Model(fetch_registered(tracking, name, version, Path(folder.name)), folder)


def evaluate(
    model: "Model | str | os.PathLike[str] | Run",
    source: str | os.PathLike[str],
    *,
    split: str | None = None,
    data: Mapping[str, Any] | None = None,
    confidence: float = 0.95,
) -> Evaluation:
    """Measure a model on labelled images, such as those that came in since it was trained.

    Nothing is compared with the images that it was trained on: give it others.

    Args:
        model: What :func:`load` takes or returned.
        source: Labelled images: a folder, a table, tar shards or an ``s3://`` prefix.
        split: Measure only images that the source itself gives this split, such as ``test``.
        data: Further keys of the run file's ``data``, such as ``label_column``.
        confidence: Of the intervals.

    Raises:
        ConfigurationError: A key of ``data`` that does not exist.
        StoreNotFound: There is no such source.
        DataError: No image has a label that the model knows.
    """
    refuse_absent(os.fspath(source), "Give the folder, table or prefix of the labelled images.")
    opened = model if isinstance(model, Model) else load(model)
    values = {"name": "evaluation", "data": {**(data or {}), "source": os.fspath(source)}}
    left_out: dict[str, int] = {}
    labels: deque[str] = deque()  # of the images that were read ahead

    def images() -> Iterator[tuple[str, Callable[[], Any]]]:
        labelled = _labelled(_settings(values, ()), opened.classes, split, left_out)
        for label, name, read in labelled:
            labels.append(label)
            yield name, read

    answers: list[tuple[Answer, str]] = []
    for answer in opened._answers(images()):
        label = labels.popleft()
        if answer.error is None:
            answers.append((answer, label))
        else:
            reason = answer.error.partition(": ")[0]
            left_out[reason] = left_out.get(reason, 0) + 1
    if not answers:
        from graftline.data.sources.table_rows import some

        reasons = ", ".join(f"{reason} ({count:,})" for reason, count in left_out.items())
        raise DataError(
            f"No image in {os.fspath(source)} can be measured.",
            why=reasons or None,
            fix=f"Give images in folders of classes that the model knows, {some(opened.classes)}, "
            "or a table with such labels.",
        )
    return _measured(opened.classes, answers, left_out, confidence)


class Model:
    """An exported model. Made by :func:`load`."""

    def __init__(self, path: Path, folder: "tempfile.TemporaryDirectory[str] | None" = None):
        from graftline.onnx_model.predict import OnnxClassifier

        self._model = OnnxClassifier(path)
        self._folder = folder  # goes when the model does

    @property
    def path(self) -> Path:
        """The file."""
        return self._model.path

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes, in the order of ``probabilities``."""
        return self._model.classes

    @property
    def metadata(self) -> "ModelMetadata":
        """What the file says about itself: backbone, preprocessing, thresholds, ..."""
        return self._model.metadata

    def predict(self, images: "Picture | Iterable[Picture]", *, top: int = 1) -> "list[Answer]":
        """Classify images.

        Args:
            images: One or many of: a path, folder, pattern, table or ``s3://`` URI; the bytes of
                an image file; a uint8 array (height, width, 3); a Pillow image.
            top: How many classes to name for each.

        Returns:
            One answer for each image, in order; one that cannot be read has an ``error``.

        Raises:
            ConfigurationError: A folder, pattern or prefix holds no images, or ``top`` is none.
            DataError: An array that is no picture.
        """
        if top < 1:
            raise ConfigurationError(f"top is {top}.", fix="Ask for one class or more.")
        given = [images] if _is_one(images) else list(images)  # type: ignore[arg-type]
        return list(self._answers(_named(given), top))

    def _answers(
        self, images: "Iterable[tuple[str, Callable[[], Any]]]", top: int = 1
    ) -> "Iterator[Answer]":
        from graftline.onnx_model.bulk import predict_many

        for answers in predict_many(self._model, images, top):
            yield from answers

    def __repr__(self) -> str:
        return f"Model({str(self.path)!r}, {len(self.classes)} classes)"


def _settings(
    run_file: "str | os.PathLike[str] | Mapping[str, Any] | RunSettings", overrides: Sequence[str]
) -> RunSettings:
    from graftline_pipelines.runfile.load import load as load_file
    from graftline_pipelines.runfile.load import load_values

    if isinstance(overrides, str):  # a sequence of its letters, to Python
        overrides = [overrides]
    if isinstance(run_file, RunSettings):
        run_file = run_file.model_dump(mode="json", exclude_unset=True)
    if isinstance(run_file, Mapping):
        return load_values(run_file, overrides)
    return load_file(Path(run_file), overrides)


def _is_one(images: Any) -> bool:
    return (
        isinstance(images, (str, bytes, os.PathLike))
        or not isinstance(images, Iterable)  # refused as a picture
        or hasattr(images, "shape")
        or (hasattr(images, "convert") and hasattr(images, "size"))
    )


def _named(images: Sequence[Any]) -> Iterator[tuple[str, Callable[[], Any]]]:
    """A name and what gives the picture, of each image of whatever kind."""
    from graftline.steps.predict.inputs import find_images

    for number, image in enumerate(images):
        if isinstance(image, (str, os.PathLike)):
            for item in find_images([os.fspath(image)]).items:
                yield item.name, item.read
        elif isinstance(image, bytes):
            yield f"image {number}", partial(_given, image)
        else:
            yield f"image {number}", partial(_given, _pixels(image, number))


def _given(picture: Any) -> Any:
    return picture


def _pixels(image: Any, number: int) -> Any:
    """A Pillow image or an array as uint8 (height, width, 3)."""
    import numpy as np

    if hasattr(image, "convert"):
        return np.asarray(image.convert("RGB"))
    if not hasattr(image, "__array__"):
        raise DataError(
            f"Image {number} is of the type {type(image).__name__}.",
            fix="Give a path, the bytes of a file, a uint8 array or a Pillow image.",
        )
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
        raise DataError(
            f"Image {number} is an array of {array.dtype} and shape {array.shape}.",
            fix="Give uint8 of shape (height, width, 3), RGB.",
        )
    return array


def _labelled(
    settings: RunSettings,
    classes: Sequence[str],
    split: str | None,
    left_out: dict[str, int],
) -> Iterator[tuple[str, str, Callable[[], bytes]]]:
    """Label, name and reader of each image that can be measured; others are counted."""
    from graftline_pipelines.preflight.data import open_settings_source

    source = open_settings_source(settings)
    known = set(classes)
    for entry in source.entries():
        for one, read in _members(source, entry):
            reason = one.problem
            if reason is None and split is not None and one.split != split:
                reason = f"not in the split {split}"
            if reason is None and one.label not in known:
                reason = "a label that the model does not know"
            if reason is not None:
                left_out[reason] = left_out.get(reason, 0) + 1
                continue
            yield str(one.label), one.path, read


def _members(source: "Source", entry: "Entry") -> "Iterator[tuple[Entry, Callable[[], bytes]]]":
    """An image by itself, or those in an archive."""
    if entry.archive and entry.problem is None:
        for one, data in source.unpack(entry, LARGEST_FILE):
            yield one, partial(_given, data)
        return
    yield entry, lambda: source.read(entry)


def _measured(
    classes: tuple[str, ...],
    answers: "list[tuple[Answer, str]]",
    left_out: Mapping[str, int],
    confidence: float,
) -> Evaluation:
    import numpy as np

    from graftline.stats.intervals import share_interval
    from graftline.steps.evaluate.metrics import areas_by_class, by_class, overall

    index = {name: number for number, name in enumerate(classes)}
    labels = np.array([index[label] for _, label in answers], dtype=np.int64)
    probabilities = np.array([one.probabilities for one, _ in answers], dtype=np.float64)
    figures = overall(probabilities, labels)
    rows = by_class(
        probabilities, labels, classes, confidence, areas_by_class(probabilities, labels)
    )
    given = probabilities.argmax(axis=1)
    confusion = np.zeros((len(classes), len(classes)), dtype=np.int64)
    np.add.at(confusion, (labels, given), 1)
    hits = int((given == labels).sum())
    return Evaluation(
        images=len(answers),
        accuracy=figures["accuracy"],
        interval=share_interval(hits, len(answers), confidence),
        macro_f1=figures["macro_f1"],
        ece=figures["ece"],
        recall={row.name: (row.recall, row.recall_interval) for row in rows if row.support},
        confusion=confusion,
        classes=classes,
        unlike=sum(one.known is False for one, _ in answers),
        left_out=dict(left_out),
        answers=tuple(answers),
    )
