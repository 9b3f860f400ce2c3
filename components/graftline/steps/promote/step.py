"""Step: register the model with its evidence; move the champion's alias on a passed verdict."""

import dataclasses
import tempfile
from pathlib import Path

from graftline.errors import PromotionConflict
from graftline.files import sha256_of
from graftline.progress import explain, message
from graftline.records.verdict import Verdict
from graftline.steps.promote.candidate import Candidate, read_candidate
from graftline.steps.promote.package import CARD_FILE, MANIFEST_FILE, pack
from graftline.steps.promote.signature import sign, signing_key
from graftline.steps.runtime import StepResult
from graftline.storage import open_store
from graftline.storage.base import Store
from graftline.tracking.champion_alias import ALIAS
from graftline.tracking.client import connect
from graftline.tracking.mlflow_run import open_tracking
from graftline.tracking.registry import RegisteredVersion, Registry, open_registry
from graftline.tracking.server_answers import mlflow_errors


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
    opened = open_store(store) if isinstance(store, str) else store
    candidate = read_candidate(
        onnx_folder, verdict_file, report_file, classifier_folder, snapshot_folder
    )
    candidate.check_together(registered_model)
    registry = open_registry(tracking_uri)
    version = registry.find(registered_model, candidate.export["content_sha256"])
    reused = version is not None
    if version is None:
        card = candidate.card(registered_model, intended_use)
        tags = candidate.tags(opened.uri, tracking_run_id)
        version = _register(registry, registered_model, candidate, card, tags, opened)
    digest = candidate.verdict_digest(tracking_run_id)
    alias, reason = _promote(registry, version, candidate.verdict, digest, opened)
    explain("%s version %s: %s", registered_model, version.version, reason)
    return PromoteResult(
        name=registered_model,
        version=version.version,
        alias=alias,
        reason=reason,
        reused=reused,
        champion_before=candidate.verdict.champion_version,
        onnx_sha256=version.digest or candidate.export["sha256"],
        run_id=tracking_run_id,
    )


def _register(
    registry: Registry,
    name: str,
    candidate: Candidate,
    card: str,
    tags: dict[str, str],
    store: Store,
) -> RegisteredVersion:
    """Upload the packed model into the run that its tags name, and register it."""
    key = signing_key()
    with tempfile.TemporaryDirectory() as temporary:
        folder = pack(Path(temporary) / "model", candidate.onnx_folder, candidate.evidence, card)
        tags = tags | {
            "manifest_sha256": sha256_of(folder / MANIFEST_FILE),
            "model_card_sha256": sha256_of(folder / CARD_FILE),
        }
        if key is not None:
            tags["signature_sha256"] = sha256_of(sign(folder, key))
        source = _upload(registry.uri, tags["run_id"], folder, tags["onnx_sha256"])
        message("registering %s", name)
        return registry.register(
            name,
            run_id=tags["run_id"],
            source=source,
            tags=tags,
            store=store,
            description=card,
        )


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
        champion = registry.champion(version.name)
        if champion is not None and champion.version == version.version:
            return ALIAS, "It is the champion already: a run that ended first made the same model."
        message("WARNING: %s", conflict)
        return None, f"Not promoted: {conflict.what}"
    entry = promotion.entry
    if not promotion.in_force:
        return None, f"Promoted on {entry.when} by this verdict, and replaced since."
    registry.tag(version, {"promoted": "true", "replaced": entry.replaced or "none"})
    before = f"it replaces version {entry.replaced}" if entry.replaced else "it is the first"
    return ALIAS, f"Promoted: {before}. " + " ".join(verdict.reasons)


def _upload(uri: str, run_id: str, folder: Path, digest: str) -> str:
    """Put the folder into the run, under a name of its content; where it is then."""
    path = f"model-{digest[:12]}"
    message("uploading the model to MLflow")
    open_tracking(uri, run_id).files({path: folder})
    with mlflow_errors(uri, f"the run {run_id}"):
        return f"{connect(uri).get_run(run_id).info.artifact_uri}/{path}"
