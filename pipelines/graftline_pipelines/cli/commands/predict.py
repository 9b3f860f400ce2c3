"""``predict``: images through an exported or registered model, on this machine."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from graftline_pipelines.cli.commands.local_runs import DEFAULT_RUNS_DIR, note
from graftline_pipelines.cli.options import DEFAULT_TRACKING, AsJson, Tracking, waiting

if TYPE_CHECKING:
    from graftline.onnx_model.bulk import Answer

LocalModel = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="An exported .onnx file; `latest` or the name of a local run.",
        show_default=False,
    ),
]
ModelRef = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="An exported .onnx file; `latest` or the name of a local run; or in MLflow "
        "models:/NAME@champion or models:/NAME/VERSION.",
        show_default=False,
    ),
]


def predict(
    model: ModelRef,
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE...",
            help="Image files, folders, patterns in quotes, tables of images (.csv, .parquet), or "
            "s3:// objects and prefixes.",
            show_default=False,
        ),
    ],
    out: Annotated[
        str | None,
        typer.Option("--out", "-o", help="Write a table, .csv or .parquet, here or to s3://."),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many classes to name.")] = 1,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="In the table, a column for each class.")
    ] = False,
    image_column: Annotated[
        str, typer.Option(help="Of a table of images: the column with their paths.")
    ] = "image",
    tracking: Tracking = DEFAULT_TRACKING,
    as_json: AsJson = False,
) -> None:
    """Classify images with an exported file, or with a model from the registry.

    Classes and preprocessing come out of the file. An image that cannot be read is a row with the
    reason.
    """
    with model_file(model, tracking) as path:
        if out is not None:
            _to_table(path, images, out, top, probabilities, image_column, as_json)
        else:
            _to_terminal(path, images, top, image_column, as_json)


@contextmanager
def model_file(text: str, tracking: str) -> Iterator[Path]:
    """The file: as named, or downloaded from the registry for as long as it is used."""
    if not text.startswith("models:/"):
        yield local_model(text)
        return
    import tempfile

    from graftline.steps.predict.step import fetch_registered, registered

    name, version = registered(text)
    with tempfile.TemporaryDirectory(prefix="graftline-model-") as folder:
        with waiting(f"Fetching {text}"):
            file = fetch_registered(tracking, name, version, Path(folder))
        yield file


def local_model(text: str) -> Path:
    """A file, or that of a local run."""
    from graftline_pipelines.local.runs import exported_file

    return exported_file(text, DEFAULT_RUNS_DIR, note)


def _to_table(
    model: Path,
    images: list[str],
    out: str,
    top: int,
    probabilities: bool,
    image_column: str,
    as_json: bool,
) -> None:
    import dataclasses

    from graftline.steps.predict.config import PredictConfig
    from graftline.steps.predict.output import check_output
    from graftline.steps.predict.step import run

    check_output(out)
    config = PredictConfig(image_column=image_column, top=top, probabilities=probabilities)
    with _bar():
        result = run(model=model, sources=images, output=out, config=config)
    if as_json:
        print(json.dumps(dataclasses.asdict(result)))
    else:
        _show_result(result)
    if result.failed == result.images:
        raise typer.Exit(1)


def _show_result(result: Any) -> None:
    from graftline_pipelines.local.screen import counted

    print(f"{result.output}: {counted(result.images, 'row')}")
    for label, count in list(result.classes.items())[:10]:
        print(f"  {label}: {count:,}")
    if len(result.classes) > 10:
        print(f"  and {counted(len(result.classes) - 10, 'more class', 'more classes')}")
    if result.unlike:
        print(f"Unlike the training images: {result.unlike:,}")
    if result.skipped:
        print(f"Not taken for images, by their endings: {result.skipped:,}")
    for reason, count in result.reasons.items():
        print(f"Without an answer: {count:,}: {reason}", file=sys.stderr)


def _to_terminal(
    model: Path, images: list[str], top: int, image_column: str, as_json: bool
) -> None:
    from graftline_pipelines.local.screen import Screen, show_error

    with waiting("Loading the model"):
        from graftline.onnx_model.bulk import predict_many
        from graftline.onnx_model.predict import OnnxClassifier
        from graftline.steps.predict.inputs import find_images

        classifier = OnnxClassifier(model)
        found = find_images(images, image_column)
    width = max(len(_shown(item.name)) for item in found.items)
    # On a terminal a line breaks between words; elsewhere it is whole, and printed faster.
    show = Screen(markup=False, highlight=False).print if sys.stdout.isatty() else print
    predictions: list[dict[str, Any]] = []
    failed: list[dict[str, str]] = []
    named = ((item.name, item.read) for item in found.items)
    for answers in predict_many(classifier, named, top):
        for answer in answers:
            if answer.error is not None:
                colon = "" if answer.error.startswith("cannot be read") else ":"
                said = f"{_shown(answer.image)}{colon} {answer.error}."
                failed.append({"image": answer.image, "error": said})
                continue
            if answer.warning is not None:
                print(f"Warning: {_shown(answer.image)}: {answer.warning}.", file=sys.stderr)
            if as_json:
                predictions.append(_plain(answer))
            else:
                show(_line(answer, width))
    if as_json:
        print(json.dumps({"predictions": predictions, "failed": failed}))
    elif found.skipped:
        print(f"Not taken for images, by their endings: {found.skipped:,}", file=sys.stderr)
    for problem in failed:
        show_error(problem["error"])
    if failed:
        raise typer.Exit(1)


def _plain(answer: "Answer") -> dict[str, Any]:
    best = [{"label": label, "probability": p} for label, p in answer.top]
    found = {"image": answer.image, **best[0], "top": best}
    found.update(distance=answer.distance, known=answer.known)
    return found if answer.warning is None else {**found, "warning": answer.warning}


def _line(answer: "Answer", width: int) -> str:
    classes = ", ".join(f"{label} {probability:.4f}" for label, probability in answer.top)
    doubt = "  (unlike the training images)" if answer.known is False else ""
    return f"{_shown(answer.image):<{width}}  {classes}{doubt}"


def _shown(name: str) -> str:
    """A file's name on one line of a terminal, which its characters cannot steer."""
    return name if name.isprintable() else name.encode("unicode_escape").decode("ascii")


@contextmanager
def _bar() -> Iterator[None]:
    """A bar of how far it has come, where somebody looks."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    from graftline.progress import listening
    from graftline_pipelines.local.screen import Screen

    console = Screen(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns,
        TimeRemainingColumn(),
        console=console,
        transient=True,  # what came of it is said in the end
        disable=not console.is_terminal,
    ) as shown:
        task = shown.add_task("looking for images", total=None)

        def listener(event: str, **fields: Any) -> None:
            if event == "progress":
                shown.update(
                    task,
                    description=fields["description"],
                    completed=fields["done"],
                    total=fields["total"],
                )

        with listening(listener):
            yield


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(predict)
