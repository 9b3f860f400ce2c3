"""Fit classifiers on frozen features, choose one, and say whether fine-tuning is worth a GPU."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from graftline.classifier.bundle import save_classifier
from graftline.data.snapshot import Snapshot, read_snapshot
from graftline.errors import ConfigurationError
from graftline.features.matrix import Features, read_features
from graftline.models.backbone import Backbone, build
from graftline.progress import explain, message
from graftline.records.decision import Decision, write_decision
from graftline.settings import read_section
from graftline.steps.fit_head.block_candidate import Start, decision_on, try_all_blocks
from graftline.steps.fit_head.config import FitHeadConfig
from graftline.steps.fit_head.decision.cost import Cost, forecast_cost
from graftline.steps.fit_head.decision.strategy import decide
from graftline.steps.fit_head.fitted import accuracy, fit_layers, fit_probe
from graftline.steps.fit_head.page import FILE, write_page
from graftline.steps.fit_head.probe import Measured, check, measure
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
        page: The decision page's file; None where it could not be written.
    """

    strategy: str
    fine_tune: bool
    cv_accuracy: float
    val_accuracy: float
    knn_accuracy: float
    decision: dict[str, Any]
    decision_file: Path
    page: Path | None = None

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
        """The decision record and its page."""
        page = {} if self.page is None else {f"fit_head/{FILE}": self.page}
        return {"fit_head/decision.json": self.decision_file, **page}


def run(
    *,
    snapshot_folder: Path,
    features_folder: Path,
    store: str,
    classifier_folder: Path,
    decision_file: Path,
    page_file: Path | None = None,
    **config: Any,
) -> FitHeadResult:
    """Fit the probe, and the head where asked; write the classifier and the decision record.

    Args:
        snapshot_folder: The dataset snapshot.
        features_folder: Its features, extracted with this backbone.
        store: URI of the store, for mirrored weights.
        classifier_folder: Where the bundle is written.
        decision_file: Where the decision record is written.
        page_file: Where the decision page goes; without it, beside the record.
        config: See :class:`graftline.steps.fit_head.config.FitHeadConfig`.

    Raises:
        DataError: The data cannot be fitted: see :func:`graftline.steps.fit_head.probe.check`.
        ConfigurationError: The features came from another network or other weights.
    """
    settings = read_section(FitHeadConfig, "", config)
    snapshot, features = read_snapshot(snapshot_folder), read_features(features_folder)
    check(snapshot, features, settings.backbone)
    network = _network(settings, snapshot, features, store)

    start, decision = _decided(settings, snapshot, features, network, store)
    fitted = fit_probe(
        snapshot, start.features, start.network, start.measured, settings.probe, start.partner
    )
    decision.figures["probe"]["val_accuracy"] = round(accuracy(snapshot, fitted.held_out), 6)
    if settings.strategy == "head" or _head_leads(decision):
        fitted, decision = fit_layers(snapshot, start.features, fitted, decision, settings)
    save_classifier(classifier_folder, fitted.classifier, held_out=fitted.held_out)
    write_decision(decision_file, decision)
    path = page_file or decision_file.parent / FILE
    page = write_page(decision, snapshot, features.matrix, open_store(store), path, settings.seed)
    _say(decision)
    return FitHeadResult(
        strategy=decision.choice,
        fine_tune=decision.fine_tune,
        cv_accuracy=decision.figures["probe"]["accuracy"],
        val_accuracy=accuracy(snapshot, fitted.held_out),
        knn_accuracy=start.measured.figures["knn"]["accuracy"],
        decision=decision.to_dict(),
        decision_file=decision_file,
        page=page,
    )


def _decided(
    settings: FitHeadConfig,
    snapshot: Snapshot,
    features: Features,
    network: Backbone,
    store: str,
) -> tuple[Start, Decision]:
    """The features that a classifier is fitted on, and the decision.

    With ``auto`` the features of all blocks compete.
    """
    head = settings.head if settings.strategy == "auto" else None
    measured = measure(snapshot, features.matrix, settings.probe, settings.seed, head)
    start = Start(network, features, measured)
    decision = _decide(settings, measured, snapshot, network, store)
    if settings.strategy != "auto" or not settings.auto.all_blocks:
        return start, decision
    blocks = try_all_blocks(snapshot, start, settings, open_store(store))
    if blocks is None:
        return start, decision
    decision = decision_on(blocks, decision, settings.auto)
    used = decision.backbone == blocks.start.network.spec.name
    return blocks.start if used else start, decision


def _head_leads(decision: Decision) -> bool:
    """Whether ``auto`` stays with the features and its head leads the probe there."""
    found = decision.figures.get("head_candidate")
    if decision.choice != "probe" or not found or not found["leads"]:
        return False
    decision.reasons.append(
        f"In cross-validation a head of fully connected layers leads the probe: "
        f"{found['accuracy']:.1%} against {found['probe_accuracy']:.1%} of {found['images']:,} "
        "images."
    )
    return True


def _say(decision: Decision) -> None:
    for sentence in decision.notes:
        message("%s", sentence)
    for sentence in decision.reasons:
        explain("%s", sentence)


def _network(
    settings: FitHeadConfig, snapshot: Snapshot, features: Features, store: str
) -> Backbone:
    """The backbone that the features came from, with the preprocessing of the extraction."""
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


def _decide(
    settings: FitHeadConfig, measured: Measured, snapshot: Snapshot, network: Backbone, store: str
) -> Decision:
    return decide(
        settings.strategy,
        measured.figures,
        settings.auto,
        notes=measured.notes,
        snapshot_id=snapshot.id,
        backbone=network.spec.name,
        validation_images=len(snapshot.rows("val")),
        epochs=settings.training.epochs,
        cost=_cost(settings, snapshot, network, store),
    )


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
