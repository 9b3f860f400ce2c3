"""What may become champion: the exported model with the records of the steps before."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import graftline
from graftline.classifier.description import read_description
from graftline.data.snapshot import Snapshot, read_snapshot
from graftline.errors import ConfigurationError
from graftline.onnx_model.predict import ModelMetadata
from graftline.records.export import EXPORT_FILE, read_export
from graftline.records.verdict import Verdict, read_verdict
from graftline.steps.promote.model_card import model_card
from graftline.steps.reuse import artifact_digest

LONGEST_TAG = 5000  # characters that MLflow keeps of a tag's value


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidate:
    """A model with what is known of it.

    Attributes:
        onnx_folder: As the step ``export_onnx`` wrote it.
        export: The record of the export.
        metadata: What the ONNX file says of itself.
        description: What the classifier bundle says of itself.
        classifier_digest: Of the bundle's content: an evaluation knows its own model by it.
        snapshot: The data.
        verdict: Of the evaluation.
        evidence: Files to be registered with it, by name.
    """

    onnx_folder: Path
    export: dict[str, Any]
    metadata: ModelMetadata
    description: dict[str, Any]
    classifier_digest: str
    snapshot: Snapshot
    verdict: Verdict
    evidence: dict[str, Path]

    def check_together(self, registered_model: str) -> None:
        """Refuse a verdict on other data, another model or another champion.

        Raises:
            ConfigurationError: With what differs.
        """
        ids = {
            "verdict": self.verdict.snapshot_id,
            "snapshot": self.snapshot.id,
            "model": self.metadata.snapshot_id,
        }
        if len(set(ids.values())) > 1:
            listed = ", ".join(f"{name} {value}" for name, value in ids.items())
            raise ConfigurationError(
                "Model, verdict and snapshot do not belong together.",
                why=f"Their snapshot ids differ: {listed}.",
                fix="Give the artifacts of one run.",
            )
        other = self.verdict.champion_name
        if self.verdict.champion_version and other not in (None, registered_model):
            raise ConfigurationError(
                f"The verdict is about the champion of {other!r}, not of {registered_model!r}.",
                fix="Evaluate against tracking.registered_model, or register under that name.",
            )

    def card(self, registered_model: str, intended_use: str | None) -> str:
        """The model card, Markdown."""
        return model_card(
            name=registered_model,
            snapshot=self.snapshot,
            metadata=self.metadata,
            export=self.export,
            verdict=self.verdict,
            intended_use=intended_use,
        )

    def tags(self, store: str, run_id: str) -> dict[str, str]:
        """Tags of the registered version.

        Args:
            store: URI of the store.
            run_id: The tracking run.
        """
        export, parity = self.export, self.export["parity"]
        return {
            "snapshot_id": self.snapshot.id,
            "store": store,
            "source": self.snapshot.source,
            "code_version": graftline.__version__,
            "onnx_sha256": export["sha256"],
            "content_sha256": export["content_sha256"],
            "verdict": "passed" if self.verdict.promote else "not passed",
            "verdict_reasons": json.dumps(self.verdict.reasons)[:LONGEST_TAG],
            "parity_images": str(parity["images"]),
            "parity_label_agreement": f"{parity['label_agreement']:.6f}",
            "parity_max_probability_difference": f"{parity['max_probability_difference']:.3g}",
            "champion_before": self.verdict.champion_version or "none",
            "backbone": self.metadata.backbone,
            "strategy": self.metadata.strategy,
            "feature_fingerprint": str(self.description["backbone"].get("fingerprint", "")),
            "classifier_digest": self.classifier_digest,
            "run_id": run_id,
        }

    def verdict_digest(self, run_id: str) -> str:
        """Names one application of the verdict to this model."""
        content = [self.verdict.to_dict(), self.export["content_sha256"], run_id]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_candidate(
    onnx_folder: Path,
    verdict_file: Path,
    report_file: Path | None,
    classifier_folder: Path,
    snapshot_folder: Path,
) -> Candidate:
    """Read what the steps before wrote."""
    evidence = {"verdict.json": verdict_file}
    if report_file is not None and report_file.is_file():
        evidence["report.html"] = report_file
    export = read_export(onnx_folder)  # with the digest of the file, whose metadata it repeats
    return Candidate(
        onnx_folder=onnx_folder,
        export=export,
        metadata=ModelMetadata.from_properties(export["metadata"], str(onnx_folder / EXPORT_FILE)),
        description=read_description(classifier_folder),
        classifier_digest=artifact_digest(classifier_folder),
        snapshot=read_snapshot(snapshot_folder),
        verdict=read_verdict(verdict_file),
        evidence=evidence,
    )
