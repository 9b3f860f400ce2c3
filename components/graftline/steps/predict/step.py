"""Many images through a registered or exported model, into one table."""

import dataclasses
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from graftline.errors import ConfigurationError, TrackingError
from graftline.onnx_model.bulk import Answer, predict_many
from graftline.onnx_model.predict import OnnxClassifier
from graftline.progress import Progress, message
from graftline.stats.wording import counted
from graftline.steps.predict.config import PredictConfig
from graftline.steps.predict.inputs import find_images
from graftline.steps.predict.output import check_output, open_table
from graftline.steps.runtime import StepResult

if TYPE_CHECKING:
    from graftline.tracking.registry import RegisteredVersion, Registry


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictResult(StepResult):
    """What was predicted.

    Attributes:
        output: Where the table is.
        images: Rows in it.
        failed: Rows without an answer.
        skipped: Files that were not taken for images.
        unlike: Images unlike the training images.
        classes: How many images each class was given to.
        reasons: Why images have no answer, the most frequent first.
    """

    output: str
    images: int
    failed: int
    skipped: int
    unlike: int
    classes: dict[str, int]
    reasons: dict[str, int]


def run(
    *, model: Path, sources: Sequence[str], output: str, config: PredictConfig | None = None
) -> PredictResult:
    """Classify images and write the table.

    Args:
        model: The exported file.
        sources: What :func:`graftline.steps.predict.inputs.find_images` takes.
        output: The table: ``.csv`` or ``.parquet``, a path or an ``s3://`` URI.
        config: What is written for each image.

    Raises:
        ConfigurationError: There are no images, or the model or the table's name is none.
        StoreError: The images cannot be listed, or the table not written.
    """
    config = config or PredictConfig()
    check_output(output)
    classifier = OnnxClassifier(model)
    found = find_images(sources, config.image_column)
    message("%s to classify", counted(len(found.items), "image"))
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    unlike = 0
    table = open_table(output, classifier.classes, config.top, probabilities=config.probabilities)
    images = ((item.name, item.read) for item in found.items)
    with table as rows, Progress("classifying", len(found.items)) as bar:
        for answers in predict_many(classifier, images, config.top):
            rows.write(answers)
            bar.advance(len(answers))
            counts.update(answer.top[0][0] for answer in answers if answer.top)
            reasons.update(_kind(answer) for answer in answers if answer.error)
            unlike += sum(answer.known is False for answer in answers)
    message("%s in %s", counted(len(found.items), "row"), output)
    return PredictResult(
        output=output,
        images=len(found.items),
        failed=reasons.total(),
        skipped=found.skipped,
        unlike=unlike,
        classes=dict(counts.most_common()),
        reasons=dict(reasons.most_common(20)),
    )


def _kind(answer: Answer) -> str:
    """The reason without what differs from image to image."""
    return str(answer.error).partition(": ")[0][:120]


def run_registered(
    *,
    tracking_uri: str,
    registered_model: str,
    version: str,
    source: str,
    output: str,
    config: PredictConfig | None = None,
) -> PredictResult:
    """The same with a version from MLflow's registry.

    Args:
        tracking_uri: Where the registry is.
        registered_model: Its name.
        version: ``champion`` or a number.
        source: The images.
        output: The table.
        config: What is written for each image.

    Raises:
        TrackingError: There is no such model or version, or it has no ONNX file.
    """
    check_output(output)
    with tempfile.TemporaryDirectory(prefix="graftline-predict-") as folder:
        model = fetch_registered(tracking_uri, registered_model, version, Path(folder))
        return run(model=model, sources=[source], output=output, config=config)


def registered(text: str) -> tuple[str, str]:
    """Name and version of ``models:/NAME@champion`` or ``models:/NAME/VERSION``.

    Raises:
        ConfigurationError: It is neither.
    """
    rest = text.removeprefix("models:/")
    name, mark, version = rest.partition("@" if "@" in rest else "/")
    if not name or not mark or not (version.isdigit() or (mark, version) == ("@", "champion")):
        raise ConfigurationError(
            f"{text} names no registered version.",
            fix="Write models:/NAME@champion or models:/NAME/3.",
        )
    return name, version


def fetch_registered(uri: str, name: str, version: str, folder: Path) -> Path:
    """Download a registered version; its ONNX file.

    Raises:
        TrackingError: There is no such model or version, or it has no ONNX file.
        IntegrityError: It is not the file that was registered.
    """
    from graftline.tracking import relocation
    from graftline.tracking.readiness import check_files
    from graftline.tracking.registry import existing_registry

    found = registered_version(existing_registry(uri), name, version)
    message("%s version %s", name, found.version)
    if relocation.database_of(uri) is not None:  # MLflow's own words say nothing of the cause
        check_files(found)
    return found.download_onnx(folder)


def registered_version(registry: "Registry", name: str, version: str) -> "RegisteredVersion":
    """A version, or the champion.

    Raises:
        TrackingError: There is no such model or version.
    """
    from graftline.tracking.registry import unknown_model

    found = registry.champion(name) if version == "champion" else registry.version(name, version)
    if found is not None:
        return found
    if not registry.has(name):
        raise unknown_model(name)
    raise TrackingError(
        f"The registered model {name!r} has no champion.",
        fix="Train one that passes its gate, or name a version.",
    )
