"""Commands on an exported or registered model."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from graftline.champions import Entry

DEFAULT_TRACKING = "sqlite:///.graftline/mlflow.db"

Model = Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="An exported file.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Tracking = Annotated[
    str,
    typer.Option("--tracking", envvar="MLFLOW_TRACKING_URI", help="MLflow's tracking URI."),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("predict")(predict)
    app.command("verify")(verify)
    app.command("serve-manifest")(serve_manifest)
    app.command("rollback")(rollback)
    app.command("history")(history)


def predict(
    model: Model,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.")],
    top: Annotated[int, typer.Option(min=1, help="How many classes to name.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Classify images with an exported file.

    Needs only onnxruntime, numpy and pillow: classes and preprocessing come out of the file.
    """
    from graftline.errors import DataError
    from graftline.predict import OnnxClassifier

    classifier = OnnxClassifier(model)
    answers: list[dict[str, Any]] = []
    failed: list[dict[str, str]] = []
    for path in images:
        try:
            (answer,) = classifier.predict([path], top)
        except DataError as error:
            failed.append({"image": str(path), "error": str(error)})
            continue
        best = [{"label": label, "probability": p} for label, p in answer.top]
        answers.append({"image": str(path), **best[0], "top": best})
    if as_json:
        print(json.dumps({"predictions": answers, "failed": failed}))
    else:
        _show_predictions(answers)
    for problem in failed:
        print(f"Error: {problem['error']}", file=sys.stderr)
    if failed:
        raise typer.Exit(1)


def _show_predictions(answers: list[dict[str, Any]]) -> None:
    width = max((len(answer["image"]) for answer in answers), default=0)
    for answer in answers:
        told = ", ".join(f"{each['label']} {each['probability']:.4f}" for each in answer["top"])
        print(f"{answer['image']:<{width}}  {told}")


def verify(
    model: Model,
    images: Annotated[
        Path, typer.Option("--images", help="The snapshot's folder, or the original test images.")
    ],
    reference: Annotated[
        Path | None, typer.Option(help="PyTorch's answers; reference.npz beside the file.")
    ] = None,
    label_tolerance: Annotated[int, typer.Option(min=0, help="Labels that may differ.")] = 0,
    max_difference: Annotated[float, typer.Option(help="Of a probability.")] = 1e-3,
    as_json: AsJson = False,
) -> None:
    """Prove on this machine that the file answers as PyTorch did when it was exported."""
    import dataclasses

    from graftline.verification import verify as run

    result = run(
        model,
        images,
        reference=reference,
        label_tolerance=label_tolerance,
        max_probability_difference=max_difference,
    )
    if as_json:
        print(json.dumps(dataclasses.asdict(result)))
        return
    parity = result.parity
    print(
        f"{parity.images:,} images: the same label on {parity.label_agreement:.2%}, largest "
        f"probability difference {parity.max_probability_difference:.1e} ({result.precision})."
    )
    if result.missing:
        print(f"{result.missing:,} images of the proof were not given.")
    if result.unknown:
        print(f"{result.unknown:,} images given were not part of the proof.")


def serve_manifest(
    model: Model,
    name: Annotated[str, typer.Option(help="Name of the service and of the Triton model.")],
    storage_uri: Annotated[
        str, typer.Option(help="Where the cluster finds what is written here, such as s3://...")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write to.")] = Path("serving"),
    backend: Annotated[
        str, typer.Option(help="triton, or onnxruntime (KServe's MLServer).")
    ] = "triton",
    namespace: Annotated[str | None, typer.Option(help="Kubernetes namespace.")] = None,
    gpus: Annotated[int, typer.Option(min=0, help="NVIDIA devices of a replica.")] = 0,
    min_replicas: Annotated[int, typer.Option(help="0 lets the service scale to zero.")] = 1,
    max_replicas: Annotated[int, typer.Option(help="Upper end of the scaling.")] = 3,
) -> None:
    """Write a KServe InferenceService for the file, and Triton's model repository."""
    import yaml

    from graftline.serving import inference_service, write_triton_repository

    service = inference_service(
        model,
        name=name,
        storage_uri=storage_uri,
        backend=backend,
        namespace=namespace,
        gpus=gpus,
        min_replicas=min_replicas,
        max_replicas=max_replicas,
    )
    out.mkdir(parents=True, exist_ok=True)
    manifest = out / "inferenceservice.yaml"
    manifest.write_text(yaml.safe_dump(service, sort_keys=False), encoding="utf-8")
    print(manifest)
    if backend == "triton":
        print(write_triton_repository(model, out / "model-repository", name=name, gpus=gpus))
        print(
            f"Copy {out / 'model-repository'} to {storage_uri}, then: kubectl apply -f {manifest}",
            file=sys.stderr,
        )


def rollback(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The registered model.")],
    to: Annotated[
        str | None, typer.Option("--to", help="Version; the champion before when not given.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "",
    tracking: Tracking = DEFAULT_TRACKING,
    as_json: AsJson = False,
) -> None:
    """Make an earlier version champion again."""
    from graftline.registry import open_registry

    entry = open_registry(tracking).rollback(name, to, reason=reason)
    if as_json:
        print(json.dumps(_plain(entry)))
    else:
        print(f"{name}: version {entry.version} is champion, instead of {entry.replaced}.")


def history(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The registered model.")],
    tracking: Tracking = DEFAULT_TRACKING,
    as_json: AsJson = False,
) -> None:
    """Show who replaced whom, when, and with which figures."""
    from graftline.registry import open_registry

    entries = open_registry(tracking).history(name)
    if as_json:
        print(json.dumps({"name": name, "history": [_plain(entry) for entry in entries]}))
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=f"Champions of {escape(name)}", title_justify="left")
    for column in ("#", "when", "what", "version", "instead of", "accuracy", "who", "why"):
        table.add_column(column, overflow="fold")
    for entry in entries:
        cells = (entry.when, entry.kind, entry.version or "none", entry.replaced or "none")
        why = " ".join(entry.reasons)
        table.add_row(str(entry.number), *cells, _accuracy(entry), escape(entry.who), escape(why))
    Console().print(table)


def _accuracy(entry: "Entry") -> str:
    """The accuracy of both, where the verdict measured it."""
    told = []
    for side in ("challenger", "champion"):
        figures = entry.figures.get(side)
        if isinstance(figures, dict) and isinstance(figures.get("accuracy"), float):
            told.append(f"{figures['accuracy']:.4f}")
    return " vs ".join(told)


def _plain(entry: "Entry") -> dict[str, Any]:
    import dataclasses

    return dataclasses.asdict(entry)
