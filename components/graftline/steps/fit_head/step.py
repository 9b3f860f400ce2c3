"""Fit classifiers on frozen features, choose one, and say whether fine-tuning is worth a GPU."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from graftline.classifier.bundle import Classifier, HeldOut, save_classifier
from graftline.data.snapshot import Snapshot, read_snapshot
from graftline.errors import ConfigurationError, DataError
from graftline.features.matrix import Features, read_features
from graftline.models.backbone import Backbone, build
from graftline.progress import explain, message
from graftline.records.decision import Decision, write_decision
from graftline.settings import read_section
from graftline.steps.fit_head.config import FitHeadConfig, ProbeSettings
from graftline.steps.fit_head.cost import Cost, forecast_cost
from graftline.steps.fit_head.linear import LinearFit, Standardisation, fold
from graftline.steps.fit_head.mlp import train_mlp
from graftline.steps.fit_head.parallel import side_by_side
from graftline.steps.fit_head.probe import Measured, check, measure
from graftline.steps.fit_head.search import fit_candidate
from graftline.steps.fit_head.strategy import decide
from graftline.steps.runtime import StepResult
from graftline.storage import open_store


@dataclass(frozen=True, kw_only=True)
class FitHeadResult(StepResult):
    """What was fitted and decided.

    Attributes:
        strategy: The choice: probe, head, fine_tune or scratch.
        fine_tune: Whether the fine-tuning step has to run.
        cv_accuracy: Of the probe, cross-validated on train.
        val_accuracy: Of the train-only probe (or head, where that was trained) on val.
        knn_accuracy: Of the best k, cross-validated on train.
        decision: The decision record.
        decision_file: Where it was written.
    """

    strategy: str
    fine_tune: bool
    cv_accuracy: float
    val_accuracy: float
    knn_accuracy: float
    decision: dict[str, Any]
    decision_file: Path

    def metrics(self) -> dict[str, float]:
        """Accuracies for the tracking run."""
        forecast = self.decision["forecast"] or {}
        expected = {"forecast_gain": forecast.get("gain"), "forecast_hours": forecast.get("hours")}
        return {
            "probe_cv_accuracy": self.cv_accuracy,
            "probe_val_accuracy": self.val_accuracy,
            "knn_cv_accuracy": self.knn_accuracy,
            **{name: value for name, value in expected.items() if value is not None},
        }

    def params(self) -> dict[str, str]:
        """Choices for the tracking run."""
        probe = self.decision["figures"]["probe"]
        return {
            "strategy": self.strategy,
            "guide_cell": self.decision["cell"],
            "probe": f"{probe['family']}, C {probe['C']:g}, scaling {probe['scaling']}",
        }

    def files(self) -> dict[str, Path]:
        """The decision record."""
        return {"fit_head/decision.json": self.decision_file}


def run(
    *,
    snapshot_folder: Path,
    features_folder: Path,
    store: str,
    classifier_folder: Path,
    decision_file: Path,
    **config: Any,
) -> FitHeadResult:
    """Fit the probe, and the head where asked; write the classifier and the decision record.

    Args:
        snapshot_folder: The dataset snapshot.
        features_folder: Its features, extracted with this backbone.
        store: URI of the store, for mirrored weights.
        classifier_folder: Where the bundle is written.
        decision_file: Where the decision record is written.
        config: See :class:`graftline.steps.fit_head.config.FitHeadConfig`.

    Raises:
        DataError: The data cannot be fitted: see :func:`graftline.steps.fit_head.probe.check`.
        ConfigurationError: The features came from another network or other weights.
    """
    settings = read_section(FitHeadConfig, "", config)
    snapshot, features = read_snapshot(snapshot_folder), read_features(features_folder)
    check(snapshot, features, settings.backbone)
    network = _network(settings, snapshot, features, store)
    measured = measure(snapshot, features.matrix, settings.probe, settings.seed)
    decision = decide(
        settings.strategy,
        measured.figures,
        settings.auto,
        notes=measured.notes,
        snapshot_id=snapshot.id,
        backbone=network.spec.name,
        validation_images=len(snapshot.rows("val")),
        cost=_cost(settings, snapshot, network, store),
    )
    fitted = _fit_probe(snapshot, features, network, measured, settings.probe)
    decision.figures["probe"]["val_accuracy"] = round(_accuracy(snapshot, fitted.held_out), 6)
    if settings.strategy == "head":
        fitted, decision = _fit_head(snapshot, features, fitted, decision, settings)
    save_classifier(classifier_folder, fitted.classifier, held_out=fitted.held_out)
    write_decision(decision_file, decision)
    for sentence in decision.notes:
        message("%s", sentence)
    for sentence in decision.reasons:
        explain("%s", sentence)
    return FitHeadResult(
        strategy=decision.choice,
        fine_tune=decision.fine_tune,
        cv_accuracy=measured.best.accuracy,
        val_accuracy=_accuracy(snapshot, fitted.held_out),
        knn_accuracy=measured.figures["knn"]["accuracy"],
        decision=decision.to_dict(),
        decision_file=decision_file,
    )


@dataclass(frozen=True)
class _Fitted:
    """A classifier, and what it says of validation images that it has not seen."""

    classifier: Classifier
    held_out: HeldOut


def _network(
    settings: FitHeadConfig, snapshot: Snapshot, features: Features, store: str
) -> Backbone:
    """The network that the features came from."""
    network = build(
        settings.backbone,
        weights=settings.weights,
        image_size=settings.image_size,
        store=open_store(store),
        fit=settings.fit,
        value_range=snapshot.value_range,
    )
    network = _decoding_as(network, features)
    _check_same_network(network, features)
    return network


def _cost(
    settings: FitHeadConfig, snapshot: Snapshot, network: Backbone, store: str
) -> Cost | None:
    """Of the fine-tuning that may follow; None where none can: counting the work takes seconds."""
    if settings.strategy in ("probe", "head"):
        return None
    images = len(snapshot.rows("train"))
    return forecast_cost(settings.training, images, network.spec, open_store(store))


def _decoding_as(network: Backbone, features: Features) -> Backbone:
    """The network with large JPEGs decoded as the extraction found that this data needs it."""
    preprocessing = replace(network.spec.preprocessing, full_decoding=True)
    full = Backbone(replace(network.spec, preprocessing=preprocessing), network.network).eval()
    return full if full.fingerprint(features.precision) == features.fingerprint else network


def _check_same_network(network: Backbone, features: Features) -> None:
    if network.fingerprint(features.precision) != features.fingerprint:
        raise ConfigurationError(
            f"the features (fingerprint {features.fingerprint}) did not come from "
            f"{network.spec.name} with weights from {network.spec.weights} at "
            f"{network.spec.preprocessing.input_size} pixels",
            why="backbone, weights, image_size or image.fit differ between extraction and fitting",
            fix="extract the features again with the same backbone, weights and image_size; where "
            "they are the same, the weights have changed where they are published: keep one set in "
            f"the store with `graftline mirror-weights {network.spec.name} --store URI`",
        )


def _fit_probe(
    snapshot: Snapshot,
    features: Features,
    network: Backbone,
    measured: Measured,
    settings: ProbeSettings,
) -> _Fitted:
    """The probe refitted on train and val; and val logits of the same fitted on train alone."""
    labels, classes = snapshot.labels(), len(snapshot.classes)
    train, val = snapshot.rows("train"), snapshot.rows("val")

    def fit(rows: np.ndarray[Any, np.dtype[np.int64]]) -> tuple[LinearFit, Standardisation]:
        x = np.ascontiguousarray(features.matrix[rows], dtype=np.float32)
        return fit_candidate(x, labels[rows], classes, measured.best, balanced=settings.balanced)

    message("fitting the chosen probe on train, and on train and val together")
    both = np.sort(np.concatenate([train, val]))
    train_only, final = (fold(*fitted) for fitted in side_by_side(fit, [train, both]))
    classifier = Classifier(
        network,
        final,
        snapshot.classes,
        preprocessing=network.spec.preprocessing,
        strategy="probe",
        snapshot_id=snapshot.id,
        backbone_fingerprint=features.fingerprint,
        metadata={"probe": measured.best.to_dict(), "fitted_on": "train and val"},
    )
    logits = _logits(classifier, train_only, features, val)
    state = {name: tensor.detach() for name, tensor in train_only.state_dict().items()}
    return _Fitted(classifier, HeldOut(rows=val, logits=logits, head=state))


def _fit_head(
    snapshot: Snapshot,
    features: Features,
    probe: _Fitted,
    decision: Decision,
    settings: FitHeadConfig,
) -> tuple[_Fitted, Decision]:
    """Train the fully connected head; the probe stays where the head does worse on val."""
    labels = snapshot.labels()
    train, val = snapshot.rows("train"), snapshot.rows("val")
    trained = train_mlp(
        (np.ascontiguousarray(features.matrix[train], dtype=np.float32), labels[train]),
        (np.ascontiguousarray(features.matrix[val], dtype=np.float32), labels[val]),
        len(snapshot.classes),
        seed=settings.seed,
        **settings.head.model_dump(),
    )
    held_out = HeldOut(rows=val, logits=_logits(probe.classifier, trained.head, features, val))
    head_val, probe_val = _accuracy(snapshot, held_out), _accuracy(snapshot, probe.held_out)
    decision.figures["head"] = {
        "val_accuracy": round(head_val, 6),
        "epochs": trained.epochs,
        "best_epoch": trained.best_epoch,
        "hidden": list(trained.head.hidden),
    }
    compared = f"on {len(val):,} validation images: {head_val:.1%} against {probe_val:.1%}"
    if head_val < probe_val:
        decision.reasons.append(f"The head is worse than the probe {compared}; the probe is used.")
        return probe, _choosing(decision, "probe")
    decision.reasons.append(f"The head is at least as good as the probe {compared}; it is used.")
    classifier = Classifier(
        probe.classifier.backbone,
        trained.head,
        snapshot.classes,
        preprocessing=probe.classifier.preprocessing,
        strategy="head",
        snapshot_id=snapshot.id,
        backbone_fingerprint=features.fingerprint,
        metadata={"head": decision.figures["head"], "fitted_on": "train"},
    )
    return _Fitted(classifier, held_out), decision


def _choosing(decision: Decision, choice: str) -> Decision:
    fields = {name: getattr(decision, name) for name in decision.__dataclass_fields__}
    return Decision(**{**fields, "choice": choice})


def _logits(
    classifier: Classifier, head: Any, features: Features, rows: Any
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Logits of stored features under another head than the classifier's own."""
    return classifier.with_head(head).logits_of_features(features.matrix[rows])


def _accuracy(snapshot: Snapshot, held_out: HeldOut) -> float:
    if not len(held_out.rows):
        raise DataError("the validation split is empty", fix="give data.split.val a larger share")
    truth = snapshot.labels()[held_out.rows]
    return float((held_out.logits.argmax(axis=1) == truth).mean())
