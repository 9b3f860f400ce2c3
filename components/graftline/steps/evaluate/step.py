"""Measures a classifier on the test split, compares it with the champion, and gives the verdict."""

from pathlib import Path
from typing import Any

from graftline.classifier.bundle import Classifier, load_classifier, read_held_out, save_classifier
from graftline.classifier.class_means import ClassMeans
from graftline.data.snapshot import Snapshot, read_snapshot
from graftline.errors import DataError
from graftline.features.matrix import read_features
from graftline.files import write_atomic
from graftline.records.decision import read_decision
from graftline.records.verdict import write_verdict
from graftline.settings import read_section
from graftline.steps.evaluate import out_of_distribution as ood
from graftline.steps.evaluate import page, pictures, robustness
from graftline.steps.evaluate.answers import CalibratedAnswers, answer_test_split
from graftline.steps.evaluate.config import EvaluateConfig
from graftline.steps.evaluate.inference import Inference
from graftline.steps.evaluate.judge import judge
from graftline.steps.evaluate.results import Findings, Measured
from graftline.steps.evaluate.step_result import EvaluateResult, step_result
from graftline.storage import open_store

Unlike = tuple[ClassMeans, ood.OutOfDistribution] | None


def run(
    *,
    snapshot_folder: Path,
    classifier_folder: Path,
    store: str,
    calibrated_folder: Path,
    verdict_file: Path,
    report_file: Path,
    features_folder: Path | None = None,
    decision_file: Path | None = None,
    tracking_uri: str = "",
    registered_model: str = "",
    **config: Any,
) -> EvaluateResult:
    """Evaluate a classifier and decide whether it may replace the champion.

    Args:
        snapshot_folder: The data that it was trained on.
        classifier_folder: The classifier, uncalibrated.
        store: Holds the images.
        calibrated_folder: Gets the classifier with its temperature and thresholds.
        verdict_file: Gets the verdict.
        report_file: Gets the page.
        features_folder: Stored features; used where they are of the classifier's own backbone.
        decision_file: Why this strategy was chosen, for the page.
        tracking_uri: Where the champion is registered; empty for no comparison.
        registered_model: Its name.
        config: See :class:`graftline.steps.evaluate.config.EvaluateConfig`.

    Raises:
        ConfigurationError: A setting is unknown or out of range.
        DataError: There are no test images, or the classifier is of other classes.
        TrackingError: The registry cannot say who is champion.
    """
    settings = read_section(EvaluateConfig, "", config)
    inference = _inference(snapshot_folder, classifier_folder, store, features_folder)
    test = answer_test_split(inference, classifier_folder, tracking_uri, registered_model)
    measured, verdict, notes = judge(test, settings)
    write_verdict(verdict_file, verdict)
    unlike = ood.measure(test, settings.evaluation.reject_quantile)
    calibrated = _calibrated(test, measured, unlike)
    _save(calibrated, unlike, classifier_folder, calibrated_folder)
    findings = Findings(
        name=registered_model or calibrated.backbone.spec.architecture,
        classifier=calibrated,
        decision=read_decision(decision_file) if decision_file else None,
        settings=settings,
        test=test,
        measured=measured,
        verdict=verdict,
        ood=unlike[1] if unlike else None,
        robustness=_robustness(test, settings),
        notes=notes,
    )
    findings = pictures.with_pictures(findings, inference)
    write_atomic(report_file, page.render(findings).encode())
    return step_result(findings, report_file, verdict_file)


def _inference(
    snapshot_folder: Path, classifier_folder: Path, store: str, features_folder: Path | None
) -> Inference:
    snapshot, classifier = read_snapshot(snapshot_folder), load_classifier(classifier_folder)
    _check(snapshot, classifier)
    features = read_features(features_folder) if features_folder else None
    return Inference(classifier, snapshot, open_store(store), features)


def _check(snapshot: Snapshot, classifier: Classifier) -> None:
    if len(snapshot.rows("test")) == 0:
        raise DataError(
            "the snapshot has no test images, so nothing can be measured",
            fix="Give data.split.test a share above 0, or label more images.",
        )
    if classifier.classes != snapshot.classes:
        raise DataError(
            "the classifier's classes are not the snapshot's",
            why=f"classifier: {', '.join(classifier.classes[:8])}; "
            f"snapshot: {', '.join(snapshot.classes[:8])}",
            fix="Evaluate a classifier on the snapshot that it was trained on.",
        )


def _calibrated(test: CalibratedAnswers, measured: Measured, unlike: Unlike) -> Classifier:
    return test.inference.classifier.with_temperature(test.temperature).with_metadata(
        thresholds={"none_of_these": unlike[1].to_dict()} if unlike else {},
        test={"accuracy": measured.figures["accuracy"], "images": len(test.labels)},
    )


def _save(calibrated: Classifier, unlike: Unlike, source: Path, folder: Path) -> None:
    save_classifier(folder, calibrated, held_out=read_held_out(source))
    if unlike:
        unlike[0].save(folder)


def _robustness(test: CalibratedAnswers, settings: EvaluateConfig) -> robustness.Robustness | None:
    return robustness.measure(
        test.inference,
        test.rows,
        test.labels,
        test.right,
        images=settings.evaluation.robustness_images,
        confidence=settings.evaluation.confidence,
        seed=settings.seed,
    )
