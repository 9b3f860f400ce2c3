"""Measures a classifier on the test split, compares it with the champion, and gives the verdict."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftline.classifier.bundle import Classifier, load_classifier, read_held_out, save_classifier
from graftline.classifier.class_means import ClassMeans, class_means
from graftline.data.snapshot import Snapshot, read_snapshot
from graftline.errors import DataError
from graftline.features.matrix import read_features
from graftline.progress import message
from graftline.records.decision import read_decision
from graftline.records.verdict import GateTest, Verdict, write_verdict
from graftline.settings import read_section
from graftline.stats.calibration import fit_temperature, softmax
from graftline.steps.evaluate import gate as gate_module
from graftline.steps.evaluate import out_of_distribution as ood
from graftline.steps.evaluate import page, pictures, robustness, slices
from graftline.steps.evaluate.champion import ChampionAnswers, find_champion
from graftline.steps.evaluate.config import EvaluateConfig, EvaluationSettings
from graftline.steps.evaluate.figures import evidence_of, group_numbers, measured, plain
from graftline.steps.evaluate.inference import Answers, Inference
from graftline.steps.evaluate.metrics import roc_with_thresholds
from graftline.steps.evaluate.results import Findings, Measured
from graftline.steps.runtime import StepResult
from graftline.storage import open_store

Ints = NDArray[np.int64]

REFERENCE_IMAGES = 1000  # training images for the class means of a fine-tuned network
BRIGHTNESS_IMAGES = 2000  # test images that are decoded to know how bright they are
KFP_CLASSES = 50  # the most that KFP's confusion matrix is given


@dataclass(frozen=True, kw_only=True)
class EvaluateResult(StepResult):
    """What the evaluation found.

    Attributes:
        test: Figures on the test split, each with its interval where it has one.
        verdict: Whether to promote, and why.
        temperature: What the logits are divided by.
        compared: Challenger and champion on the same images; empty without a champion.
        class_figures: Precision, recall, F1 and number of test images by class; null where one is
            not defined.
        robustness: Mean accuracy on corrupted images; None where it was not measured.
        confusion: Classes and counts for KFP's page; empty beyond :data:`KFP_CLASSES` classes.
        roc: False positive rate, true positive rate and threshold, of all classes together.
        report_file: The page.
        verdict_file: The verdict.
    """

    test: dict[str, Any]
    verdict: dict[str, Any]
    temperature: float
    compared: dict[str, Any]
    class_figures: dict[str, dict[str, float | None]]
    robustness: float | None
    confusion: dict[str, Any]
    roc: list[tuple[float, float, float]]
    report_file: Path
    verdict_file: Path

    def metrics(self) -> dict[str, float]:
        """Figures for the tracking run."""
        single = {k: float(v) for k, v in self.test.items() if isinstance(v, int | float)}
        single["temperature"] = self.temperature
        single["promote"] = float(self.verdict["promote"])
        if self.robustness is not None:
            single["robustness"] = self.robustness
        if self.compared:
            single["champion_accuracy"] = float(self.compared["champion"]["accuracy"])
        return single

    def files(self) -> dict[str, Path]:
        """The page and the verdict."""
        return {
            "evaluation/report.html": self.report_file,
            "evaluation/verdict.json": self.verdict_file,
        }


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
    answers = inference.answers(inference.snapshot.rows("test"), "test images")
    temperature, val = _calibrate(inference, classifier_folder)
    opponent = find_champion(
        inference.snapshot,
        answers.rows,
        tracking_uri=tracking_uri,
        registered_model=registered_model,
        store=inference.store,
        encoded=inference.encoded,
    )
    test = _Test(inference, answers, softmax(answers.logits, temperature), opponent)
    figures, verdict, notes = _judge(test, settings)
    write_verdict(verdict_file, verdict)

    distances = _out_of_distribution(inference, val, answers, test.labels, settings.evaluation)
    calibrated = _calibrated(test, temperature, figures, distances)
    save_classifier(calibrated_folder, calibrated, held_out=read_held_out(classifier_folder))
    if distances:
        distances[0].save(calibrated_folder)

    findings = Findings(
        name=registered_model or calibrated.backbone.spec.architecture,
        snapshot=inference.snapshot,
        classifier=calibrated,
        decision=read_decision(decision_file) if decision_file else None,
        rules=settings.evaluation,
        gate=settings.gate,
        rows=answers.rows,
        labels=test.labels,
        probabilities=test.probabilities,
        measured=figures,
        opponent=opponent,
        verdict=verdict,
        ood=distances[1] if distances else None,
        robustness=_robustness(test, settings),
        notes=notes,
    )
    findings = pictures.with_pictures(findings, inference)
    report_file.parent.mkdir(parents=True, exist_ok=True)
    report_file.write_text(page.render(findings), encoding="utf-8")
    return _result(findings, temperature, report_file, verdict_file)


@dataclass(frozen=True)
class _Test:
    """The test split, and what the classifier and the champion say of it.

    Attributes:
        inference: Of the classifier.
        answers: Its answers, uncalibrated.
        probabilities: Calibrated, shape (n, classes).
        opponent: The champion's answers; None without a champion.
    """

    inference: Inference
    answers: Answers
    probabilities: NDArray[np.float64]
    opponent: ChampionAnswers | None

    @property
    def snapshot(self) -> Snapshot:
        return self.inference.snapshot

    @property
    def rows(self) -> Ints:
        """Rows of the manifest, shape (n,)."""
        return self.answers.rows

    @property
    def labels(self) -> Ints:
        """Class index of each image, shape (n,)."""
        return self.snapshot.labels()[self.rows]

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether the classifier gives an image its label, shape (n,)."""
        return np.asarray(self.probabilities.argmax(axis=1) == self.labels)


def _inference(
    snapshot_folder: Path, classifier_folder: Path, store: str, features_folder: Path | None
) -> Inference:
    snapshot, classifier = read_snapshot(snapshot_folder), load_classifier(classifier_folder)
    _check(snapshot, classifier)
    features = read_features(features_folder) if features_folder else None
    return Inference(classifier, snapshot, open_store(store), features)


def _judge(test: _Test, settings: EvaluateConfig) -> tuple[Measured, Verdict, list[str]]:
    """The figures, the verdict, and the warnings about wide and upright images."""
    snapshot, labels, rules = test.snapshot, test.labels, settings.evaluation
    groups = group_numbers(snapshot, test.rows)
    brightness = pictures.brightness(test.inference, test.rows, BRIGHTNESS_IMAGES)
    columns = slices.columns_of(snapshot, test.rows, brightness)
    guarded, empty = slices.guarded(settings.gate.slices, columns)
    parts = _slices(test, columns, rules.confidence)
    notes = _shape_warnings(test, columns, rules.confidence)
    figures = measured(
        test.answers,
        test.probabilities,
        labels,
        groups,
        snapshot.classes,
        test.opponent,
        parts,
        rules,
        settings.seed,
    )
    evidence = evidence_of(
        snapshot, test.probabilities, labels, groups, test.opponent, guarded, figures
    )
    tests = _gate_tests(evidence, settings, empty)
    verdict = _verdict(tests, test, figures, notes)
    message("%s: %s", "promote" if verdict.promote else "do not promote", verdict.reasons[0])
    return figures, verdict, notes


def _calibrated(
    test: _Test,
    temperature: float,
    figures: Measured,
    distances: tuple[ClassMeans, ood.OutOfDistribution] | None,
) -> Classifier:
    return test.inference.classifier.with_temperature(temperature).with_metadata(
        thresholds={"none_of_these": distances[1].to_dict()} if distances else {},
        test={"accuracy": figures.figures["accuracy"], "images": len(test.labels)},
    )


def _robustness(test: _Test, settings: EvaluateConfig) -> robustness.Robustness | None:
    return robustness.measure(
        test.inference,
        test.rows,
        test.labels,
        test.right,
        images=settings.evaluation.robustness_images,
        confidence=settings.evaluation.confidence,
        seed=settings.seed,
    )


def _slices(
    test: _Test, columns: Mapping[str, NDArray[Any]], confidence: float
) -> list[slices.SliceFigures]:
    """Accuracy of each slice that says something, the champion's beside it."""
    opponent = test.opponent
    return slices.figures(
        slices.interesting(columns, test.labels),
        test.right,
        confidence,
        None if opponent is None else opponent.predicted == test.labels,
        None if opponent is None else opponent.comparable,
    )


def _shape_warnings(
    test: _Test, columns: Mapping[str, NDArray[Any]], confidence: float
) -> list[str]:
    """What is said of wide and upright images, in the log, the verdict and the page."""
    preprocessing, rows = test.inference.classifier.preprocessing, test.rows
    heights, widths = test.snapshot.column("height")[rows], test.snapshot.column("width")[rows]
    seen = preprocessing.share_seen(heights, widths)
    told = slices.shape_warnings(
        columns[slices.SHAPE], test.right, seen, preprocessing.fit, confidence
    )
    for sentence in told:
        message("Warning: %s", sentence)
    return told


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


def _calibrate(inference: Inference, folder: Path) -> tuple[float, NDArray[np.float32]]:
    """The temperature, by logits of a model that did not see the images; and val embeddings."""
    snapshot = inference.snapshot
    rows = snapshot.rows("val")
    answers = inference.answers(rows, "validation images")
    logits = answers.logits
    held_out = read_held_out(folder)
    if held_out is not None:
        rows, logits = held_out.rows, held_out.logits
    temperature = fit_temperature(logits, snapshot.labels()[rows])
    message("temperature %.3f, fitted on %s validation images", temperature, f"{len(rows):,}")
    return temperature, answers.embedding


def _gate_tests(
    evidence: gate_module.Evidence, settings: EvaluateConfig, empty: list[str]
) -> list[GateTest]:
    tests = gate_module.decide(evidence, settings.gate, settings.seed)
    if empty:
        named = ", ".join(repr(name) for name in empty[:5])
        reason = f"gate.slices guards {named}, of which there are no test images."
        tests.append(GateTest(name="slices_present", passed=False, reason=reason))
    return tests


def _verdict(tests: list[GateTest], test: _Test, figures: Measured, notes: list[str]) -> Verdict:
    opponent = test.opponent
    failed = [each for each in tests if not each.passed]
    beside = figures.side_by_side
    return Verdict(
        promote=not failed,
        reasons=[each.reason for each in failed or tests],
        tests=tests,
        snapshot_id=test.snapshot.id,
        champion_name=opponent.name if opponent else None,
        champion_version=opponent.version if opponent else None,
        champion_digest=opponent.digest if opponent else None,
        champion_snapshot_id=opponent.snapshot_id if opponent else None,
        compared_images=int(opponent.comparable.sum()) if opponent else len(test.rows),
        left_out=opponent.left_out if opponent else {},
        notes=[*(opponent.notes if opponent else []), *notes],
        figures={
            "test": _test_figures(figures),
            "challenger": plain(beside.challenger) if beside else {},
            "champion": plain(beside.champion) if beside else {},
            "difference_intervals": beside.difference if beside else {},
        },
    )


def _out_of_distribution(
    inference: Inference,
    val: NDArray[np.float32],
    answers: Answers,
    labels: Ints,
    rules: EvaluationSettings,
) -> tuple[ClassMeans, ood.OutOfDistribution] | None:
    snapshot = inference.snapshot
    rows = snapshot.rows("train")
    truth = snapshot.labels()[rows]
    if inference.stored is None and len(rows) > REFERENCE_IMAGES:
        kept = robustness.sample(truth, REFERENCE_IMAGES, seed=0)
        rows, truth = rows[kept], truth[kept]
    embedding = inference.embedding(rows, "training images for the class means")
    means = class_means(embedding, truth, len(snapshot.classes))
    found = ood.out_of_distribution(means, val, answers.embedding, labels, rules.reject_quantile)
    return (means, found) if found else None


def _test_figures(figures: Measured) -> dict[str, Any]:
    found: dict[str, Any] = dict(plain(figures.figures))
    found.update({f"{name}_ci": bounds for name, bounds in figures.intervals.items()})
    found["ece_before"] = figures.uncalibrated_ece
    return found


def _result(
    findings: Findings, temperature: float, report_file: Path, verdict_file: Path
) -> EvaluateResult:
    figures, verdict = findings.measured, findings.verdict
    beside = figures.side_by_side
    small = len(findings.snapshot.classes) <= KFP_CLASSES
    return EvaluateResult(
        test=_test_figures(figures),
        verdict={
            "promote": verdict.promote,
            "reasons": verdict.reasons,
            "tests": [dataclasses.asdict(test) for test in verdict.tests],
            "champion": verdict.champion_version,
        },
        temperature=temperature,
        compared={
            "challenger": plain(beside.challenger),
            "champion": plain(beside.champion),
            "images": verdict.compared_images,
            "left_out": verdict.left_out,
        }
        if beside
        else {},
        class_figures={
            row.name: plain(
                {
                    "precision": row.precision,
                    "recall": row.recall,
                    "f1": row.f1,
                    "images": float(row.support),
                }
            )
            for row in figures.classes
        },
        robustness=findings.robustness.mean if findings.robustness else None,
        confusion={
            "classes": list(findings.snapshot.classes),
            "counts": figures.confusion.tolist(),
        }
        if small
        else {},
        roc=roc_with_thresholds(findings.probabilities, findings.labels),
        report_file=report_file,
        verdict_file=verdict_file,
    )
