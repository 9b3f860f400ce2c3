"""Step: register the model with its evidence; move the champion's alias on a passed verdict."""

import dataclasses
import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import graftline
from graftline.classifier.bundle import read_description
from graftline.data.snapshot import Snapshot, read_snapshot
from graftline.errors import ConfigurationError, PromotionConflict
from graftline.files import sha256_of
from graftline.onnx_model.predict import ModelMetadata, OnnxClassifier
from graftline.progress import message
from graftline.records.export import MODEL_FILE, read_export
from graftline.records.verdict import Verdict, read_verdict
from graftline.steps.promote.model_card import model_card
from graftline.steps.promote.package import (
    CARD_FILE,
    MANIFEST_FILE,
    pack,
)
from graftline.steps.runtime import StepResult
from graftline.storage import open_store
from graftline.storage.base import Store
from graftline.tracking.champion_alias import ALIAS
from graftline.tracking.mlflow_run import connect, mlflow_errors, open_tracking
from graftline.tracking.registry import RegisteredVersion, Registry, open_registry


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromoteResult(StepResult):
    """What was registered, and whether it is champion.

    Attributes:
        name: The registered model.
        version: Its version.
        alias: ``champion`` if this verdict made it so and it still is; else None.
        reason: Why it is champion or not, a sentence.
        reused: Whether an equal model was registered before.
        champion_before: Version that it was compared with.
        onnx_sha256: Digest of the registered file.
        run_id: Tracking run.
    """

    name: str
    version: str
    alias: str | None
    reason: str
    reused: bool
    champion_before: str | None
    onnx_sha256: str
    run_id: str

    def metrics(self) -> dict[str, float]:
        """Whether it was promoted."""
        return {"promoted": float(self.alias is not None)}

    def params(self) -> dict[str, str]:
        """Name and version."""
        return {"name": self.name, "version": self.version, "reason": self.reason}


def run(
    *,
    onnx_folder: Path,
    verdict_file: Path,
    report_file: Path | None,
    classifier_folder: Path,
    snapshot_folder: Path,
    store: str | Store,
    tracking_uri: str,
    tracking_run_id: str,
    registered_model: str,
    intended_use: str | None = None,
) -> PromoteResult:
    """Register the model; make it champion if its verdict says so and still holds.

    Interrupted at any moment, a second call finishes what the first began.

    Args:
        onnx_folder: As the step ``export_onnx`` wrote it.
        verdict_file: As the step ``evaluate`` wrote it.
        report_file: The report, to be registered with the model.
        classifier_folder: The classifier that was exported.
        snapshot_folder: The dataset snapshot.
        store: Store of the run.
        tracking_uri: Tracking URI of MLflow.
        tracking_run_id: The run that all steps join.
        registered_model: Name in the registry.
        intended_use: For the model card.

    Raises:
        ConfigurationError: Model, verdict and snapshot do not belong together.
        IntegrityError: The file is not the one that was proven.
        TrackingError: MLflow refuses or is away.
    """
    place = open_store(store) if isinstance(store, str) else store
    verdict, snapshot = read_verdict(verdict_file), read_snapshot(snapshot_folder)
    export = read_export(onnx_folder)
    metadata = OnnxClassifier(onnx_folder / MODEL_FILE).metadata
    _check_together(verdict, snapshot, metadata, registered_model)
    registry = open_registry(tracking_uri)
    version = registry.find(registered_model, export["content_sha256"])
    reused = version is not None
    if version is None:
        tags = _tags(
            export,
            verdict,
            snapshot,
            metadata,
            read_description(classifier_folder),
            place,
            tracking_run_id,
        )
        card = model_card(
            name=registered_model,
            snapshot=snapshot,
            metadata=metadata,
            export=export,
            verdict=verdict,
            intended_use=intended_use,
        )
        evidence = {"verdict.json": verdict_file}
        if report_file is not None and report_file.is_file():
            evidence["report.html"] = report_file
        with tempfile.TemporaryDirectory() as temporary:
            folder = pack(Path(temporary) / "model", onnx_folder, evidence, card)
            version = _register(registry, registered_model, folder, tags, place)
    digest = _verdict_digest(verdict, export["content_sha256"], tracking_run_id)
    alias, reason = _promote(registry, version, verdict, digest, place)
    message("%s version %s: %s", registered_model, version.version, reason)
    return PromoteResult(
        name=registered_model,
        version=version.version,
        alias=alias,
        reason=reason,
        reused=reused,
        champion_before=verdict.champion_version,
        onnx_sha256=version.digest or export["sha256"],
        run_id=tracking_run_id,
    )


def _register(
    registry: Registry, name: str, folder: Path, tags: dict[str, str], store: Store
) -> RegisteredVersion:
    """Upload a packed model into the run that its tags name, and register it."""
    tags = tags | {
        "manifest_sha256": sha256_of(folder / MANIFEST_FILE),
        "model_card_sha256": sha256_of(folder / CARD_FILE),
    }
    source = _upload(registry.uri, tags["run_id"], folder, tags["onnx_sha256"])
    message("registering %s", name)
    return registry.register(name, run_id=tags["run_id"], source=source, tags=tags, store=store)


def _promote(
    registry: Registry, version: RegisteredVersion, verdict: Verdict, digest: str, store: Store
) -> tuple[str | None, str]:
    """Move the alias where the verdict allows it: the alias held now, and why."""
    if not verdict.promote:
        return None, "Not promoted: " + " ".join(verdict.reasons)
    try:
        promotion = registry.promote(
            version,
            compared_with=verdict.champion_version,
            verdict=digest,
            store=store,
            reasons=tuple(verdict.reasons),
            figures=verdict.figures,
        )
    except PromotionConflict as conflict:
        message("WARNING: %s", conflict)
        return None, f"Not promoted: {conflict.what}"
    entry = promotion.entry
    if not promotion.in_force:
        return None, f"Promoted on {entry.when} by this verdict, and replaced since."
    registry.tag(version, {"promoted": "true", "replaced": entry.replaced or "none"})
    before = f"it replaces version {entry.replaced}" if entry.replaced else "it is the first"
    return ALIAS, f"Promoted: {before}. " + " ".join(verdict.reasons)


def _check_together(
    verdict: Verdict, snapshot: Snapshot, metadata: ModelMetadata, registered_model: str
) -> None:
    """Refuse a verdict on other data, another model or another champion."""
    ids = {
        "verdict": verdict.snapshot_id,
        "snapshot": snapshot.id,
        "model": metadata.snapshot_id,
    }
    if len(set(ids.values())) > 1:
        mlflow_errors = ", ".join(f"{name} {value}" for name, value in ids.items())
        raise ConfigurationError(
            "Model, verdict and snapshot do not belong together.",
            why=f"Their snapshot ids differ: {mlflow_errors}.",
            fix="Give the artifacts of one run.",
        )
    if verdict.champion_version and verdict.champion_name not in (None, registered_model):
        raise ConfigurationError(
            f"The verdict is about the champion of {verdict.champion_name!r}, not of "
            f"{registered_model!r}.",
            fix="Evaluate against tracking.registered_model, or register under that name.",
        )


def _tags(
    export: dict[str, Any],
    verdict: Verdict,
    snapshot: Snapshot,
    metadata: ModelMetadata,
    description: dict[str, Any],
    store: Store,
    run_id: str,
) -> dict[str, str]:
    parity = export["parity"]
    return {
        "snapshot_id": snapshot.id,
        "store": store.uri,
        "source": snapshot.source,
        "code_version": graftline.__version__,
        "onnx_sha256": export["sha256"],
        "content_sha256": export["content_sha256"],
        "verdict": "passed" if verdict.promote else "not passed",
        "verdict_reasons": json.dumps(verdict.reasons)[:5000],
        "parity_images": str(parity["images"]),
        "parity_label_agreement": f"{parity['label_agreement']:.6f}",
        "parity_max_probability_difference": f"{parity['max_probability_difference']:.3g}",
        "champion_before": verdict.champion_version or "none",
        "backbone": metadata.backbone,
        "strategy": metadata.strategy,
        "feature_fingerprint": str(description["backbone"].get("fingerprint", "")),
        "run_id": run_id,
    }


def _upload(uri: str, run_id: str, folder: Path, digest: str) -> str:
    """Put the folder into the run, under a name of its content; where it is then."""
    path = f"model-{digest[:12]}"
    message("uploading the model to MLflow")
    open_tracking(uri, run_id).files({path: folder})
    with mlflow_errors(uri, f"the run {run_id}"):
        return f"{connect(uri).get_run(run_id).info.artifact_uri}/{path}"


def _verdict_digest(verdict: Verdict, content: str, run_id: str) -> str:
    """Names one application of one verdict to one model."""
    text = json.dumps([verdict.to_dict(), content, run_id], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
