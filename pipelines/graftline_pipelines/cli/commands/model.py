"""Commands on an exported or registered model: ``verify``, ``rollback`` and the like."""

import json
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from graftline_pipelines.cli.commands.predict import LocalModel, local_model
from graftline_pipelines.cli.options import (
    DEFAULT_TRACKING,
    AsJson,
    ModelName,
    Tracking,
    waiting,
)

if TYPE_CHECKING:
    from graftline.tracking.champion_log import Entry


ASKING = "Asking MLflow"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("verify")(verify)
    app.command("serve-manifest")(serve_manifest)
    app.command("rollback")(rollback)
    app.command("history")(history)


def verify(
    model: LocalModel,
    images: Annotated[
        Path | None,
        typer.Option("--images", help="The snapshot's folder, or the original test images."),
    ] = None,
    signature: Annotated[
        Path | None,
        typer.Option(help="Public key (PEM): check the signature of the model's folder."),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(help="PyTorch's answers. Default: reference.npz beside the model."),
    ] = None,
    label_tolerance: Annotated[int, typer.Option(min=0, help="How many labels may differ.")] = 0,
    max_difference: Annotated[float, typer.Option(help="Of a probability.")] = 1e-3,
    min_share: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the proof's images that must be given.")
    ] = 0.9,
    as_json: AsJson = False,
) -> None:
    """Prove that the file answers as PyTorch did when it was exported, and is what was signed."""
    import dataclasses

    from graftline_pipelines.local.screen import counted

    file = Path(model) if Path(model).is_dir() and signature else local_model(model)
    if signature is not None:
        from graftline.steps.promote.signature import check_signature

        folder = file if file.is_dir() else file.parent
        count = check_signature(folder, signature)
        print(f"{counted(count, 'file')} checked: as signed.", file=sys.stderr if as_json else None)
        if images is None:
            return
    if images is None:
        raise typer.BadParameter(
            "give --images with the test images, --signature with a public key, or both"
        )

    with waiting("Comparing the file's answers"):
        from graftline.onnx_model.verify import verify as run

        result = run(
            file,
            images,
            reference=reference,
            label_tolerance=label_tolerance,
            max_probability_difference=max_difference,
            min_share=min_share,
        )
    if as_json:
        print(json.dumps(dataclasses.asdict(result)))
        return
    _show_verified(result)


def _show_verified(result: Any) -> None:
    from graftline.records.export import agreement
    from graftline_pipelines.local.screen import Screen, counted

    parity, console = result.parity, Screen(highlight=False, markup=False)
    console.print(
        f"The same label on {agreement(parity.images, parity.label_agreement, 'image')}, "
        f"largest probability difference {parity.max_probability_difference:.1e} "
        f"({result.precision})."
    )
    if result.missing:
        console.print(f"Of the proof, not given: {counted(result.missing, 'image')}.")
    if result.unknown:
        console.print(f"Given, not part of the proof: {counted(result.unknown, 'image')}.")


def serve_manifest(
    model: LocalModel,
    name: Annotated[str, typer.Option(help="Name of the service and of the Triton model.")],
    storage_uri: Annotated[
        str,
        typer.Option(help="Where the cluster reads the repository written here, such as s3://..."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write to.")] = Path("serving"),
    backend: Annotated[
        str, typer.Option(help="triton, or onnxruntime (KServe's MLServer).")
    ] = "triton",
    namespace: Annotated[str | None, typer.Option(help="Kubernetes namespace.")] = None,
    gpus: Annotated[int, typer.Option(min=0, help="NVIDIA GPUs for each replica.")] = 0,
    min_replicas: Annotated[
        int, typer.Option(help="Fewest replicas; 0 lets the service scale to zero.")
    ] = 1,
    max_replicas: Annotated[int, typer.Option(help="Most replicas.")] = 3,
) -> None:
    """Write a KServe InferenceService for the file, and Triton's model repository."""
    import yaml

    from graftline.onnx_model.serving import inference_service, write_triton_repository
    from graftline_pipelines.local.screen import say

    file = local_model(model)
    service = inference_service(
        file,
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
        print(write_triton_repository(file, out / "model-repository", name=name, gpus=gpus))
        say(f"Copy {out / 'model-repository'} to {storage_uri}, then:", stderr=True)
        print(f"  kubectl apply -f {shlex.quote(str(manifest))}", file=sys.stderr)


def rollback(
    name: ModelName,
    to: Annotated[
        str | None, typer.Option("--to", help="Version. Default: the previous champion.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "",
    tracking: Tracking = DEFAULT_TRACKING,
    as_json: AsJson = False,
) -> None:
    """Make an earlier version champion again."""
    from graftline_pipelines.local.screen import say

    with waiting(ASKING):
        from graftline.tracking.registry import existing_registry

        registry = existing_registry(tracking, changing=True)
        entry = registry.rollback(name, to, reason=reason)
        tags = registry.version(name, str(entry.version)).tags
    if as_json:
        print(json.dumps(_plain(entry)))
        return
    say(f"{name}: version {entry.version} is champion, instead of {entry.replaced or 'none'}.")
    if tags.get("graftline.verdict") == "not passed":
        say(f"Note: version {entry.version} did not pass its evaluation.", stderr=True)


def history(
    name: ModelName,
    tracking: Tracking = DEFAULT_TRACKING,
    as_json: AsJson = False,
) -> None:
    """Show who replaced whom, when, and with which figures."""
    with waiting(ASKING):
        from graftline.tracking.registry import existing_registry

        entries = existing_registry(tracking).history(name)
    if as_json:
        print(json.dumps({"name": name, "history": [_plain(entry) for entry in entries]}))
        return
    if not entries:
        print(f"No version of {name} was champion yet.")
    from rich.text import Text

    from graftline_pipelines.local.screen import Screen

    console = Screen(highlight=False)
    for entry in entries:
        console.print(Text(f"{entry.number:>3}  {_headline(entry)}", "bold"))
        for line in (*_figures(entry), *entry.reasons):
            console.print(Text(f"     {line}"))


def _headline(entry: "Entry") -> str:
    """What happened, when and by whom."""
    version = f"version {entry.version}" if entry.version else "no version"
    replaced = f"version {entry.replaced}" if entry.replaced else "none"
    when = entry.when[:16].replace("T", " ")
    return f"{when} UTC  {entry.kind}: {version}, instead of {replaced}  ({entry.who})"


def _figures(entry: "Entry") -> Iterator[str]:
    """Accuracy of both, where the verdict measured it; of the first model, its own."""
    for side in ("challenger", "champion", "test"):
        figures = entry.figures.get(side)
        if side == "test" and entry.figures.get("challenger"):
            continue
        if isinstance(figures, dict) and isinstance(figures.get("accuracy"), float):
            between = figures.get("accuracy_ci")
            interval = f" (95% {between[0]:.4f} to {between[1]:.4f})" if between else ""
            yield f"{side} accuracy {figures['accuracy']:.4f}{interval}"


def _plain(entry: "Entry") -> dict[str, Any]:
    import dataclasses

    return dataclasses.asdict(entry)
