"""The classifiers that the step hands on: the probe, and the head of fully connected layers."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import nn

from graftline.classifier.bundle import Classifier, HeldOut
from graftline.data.snapshot import Snapshot
from graftline.errors import DataError
from graftline.features.matrix import Features
from graftline.models.backbone import Backbone
from graftline.progress import message
from graftline.records.decision import Decision
from graftline.steps.fit_head.config import FitHeadConfig, ProbeSettings
from graftline.steps.fit_head.mlp import TrainedHead, train_mlp
from graftline.steps.fit_head.partner import Partner, layer_of_both
from graftline.steps.fit_head.probe import Measured, Rows, group_numbers
from graftline.steps.fit_head.probes.folding import fold
from graftline.steps.fit_head.probes.folds import make_folds
from graftline.steps.fit_head.probes.parallel import side_by_side
from graftline.steps.fit_head.probes.scaling import Matrix
from graftline.steps.fit_head.probes.search import Candidate, fit_candidate


@dataclass(frozen=True)
class Fitted:
    """A classifier, and what it says of validation images that it has not seen."""

    classifier: Classifier
    held_out: HeldOut


def fit_probe(
    snapshot: Snapshot,
    features: Features,
    network: Backbone,
    measured: Measured,
    settings: ProbeSettings,
    partner: Partner | None = None,
) -> Fitted:
    """The probe refitted on train and val; and val logits of the same fitted on train alone.

    Args:
        snapshot: The data.
        features: That it is fitted on.
        network: That they come from.
        measured: The best candidate.
        settings: Of the probes.
        partner: The classifier on the last block's features that is added; None for none.
    """
    labels, classes = snapshot.labels(), len(snapshot.classes)
    train, val = snapshot.rows("train"), snapshot.rows("val")

    def layer(x: Matrix, y: Rows, candidate: Candidate) -> nn.Linear:
        return fold(*fit_candidate(x, y, classes, candidate, balanced=settings.balanced))

    def fit(rows: Rows) -> nn.Linear:
        x, y = np.ascontiguousarray(features.matrix[rows], dtype=np.float32), labels[rows]
        found = layer(x, y, measured.best)
        if partner is None:
            return found
        last = layer(np.ascontiguousarray(x[:, -partner.width :]), y, partner.candidate)
        return layer_of_both(last, found, partner.weights)

    message("fitting the chosen probe on train, and on train and val together")
    both = np.sort(np.concatenate([train, val]))
    train_only, final = side_by_side(fit, [train, both])
    classifier = Classifier(
        network,
        final,
        snapshot.classes,
        preprocessing=network.spec.preprocessing,
        strategy="probe",
        snapshot_id=snapshot.id,
        backbone_fingerprint=features.fingerprint,
        metadata={
            "probe": measured.best.to_dict(),
            "fitted_on": "train and val",
            **({} if partner is None else {"partner": partner.to_dict()}),
        },
    )
    logits = _logits(classifier, train_only, features, val)
    state = {name: tensor.detach() for name, tensor in train_only.state_dict().items()}
    return Fitted(classifier, HeldOut(rows=val, logits=logits, head=state))


def fit_layers(
    snapshot: Snapshot,
    features: Features,
    probe: Fitted,
    decision: Decision,
    settings: FitHeadConfig,
) -> tuple[Fitted, Decision]:
    """Train the fully connected head; the probe stays where the head does worse on val.

    As with the probe, validation images choose nothing but the winner: a fifth of the training
    images chooses the number of epochs, and the winner is trained again on train and val.
    """
    labels, classes = snapshot.labels(), len(snapshot.classes)
    train, val = snapshot.rows("train"), snapshot.rows("val")
    options = settings.head.model_dump()

    def fit(rows: Rows, stop: Rows | None = None, **changed: Any) -> TrainedHead:
        def given(some: Rows) -> tuple[Matrix, Rows]:
            return np.ascontiguousarray(features.matrix[some], dtype=np.float32), labels[some]

        stopping = None if stop is None else given(stop)
        asked = {**options, **changed}
        return train_mlp(given(rows), stopping, classes, seed=settings.seed, **asked)

    folds = make_folds(
        labels[train], group_numbers(snapshot)[train], snapshot.classes, 5, settings.seed
    )
    inside, outside = next(iter(folds))
    stopped = fit(train[inside], train[outside])
    trained = fit(train, epochs=stopped.best_epoch)
    held_out = HeldOut(rows=val, logits=_logits(probe.classifier, trained.head, features, val))
    head_val, probe_val = accuracy(snapshot, held_out), accuracy(snapshot, probe.held_out)
    decision.figures["head"] = {
        "val_accuracy": round(head_val, 6),
        "epochs": stopped.epochs,
        "best_epoch": stopped.best_epoch,
        "hidden": list(trained.head.hidden),
    }
    compared = f"on {len(val):,} validation images: {head_val:.1%} against {probe_val:.1%}"
    if head_val < probe_val:
        decision.reasons.append(f"The head is worse than the probe {compared}; the probe is used.")
        return probe, replace(decision, choice="probe")
    decision.reasons.append(f"The head is at least as good as the probe {compared}; it is used.")
    both = np.sort(np.concatenate([train, val]))
    classifier = Classifier(
        probe.classifier.backbone,
        fit(both, epochs=stopped.best_epoch).head,
        snapshot.classes,
        preprocessing=probe.classifier.preprocessing,
        strategy="head",
        snapshot_id=snapshot.id,
        backbone_fingerprint=features.fingerprint,
        metadata={"head": decision.figures["head"], "fitted_on": "train and val"},
    )
    state = {name: tensor.detach() for name, tensor in trained.head.state_dict().items()}
    return Fitted(classifier, replace(held_out, head=state)), replace(decision, choice="head")


def _logits(
    classifier: Classifier, head: Any, features: Features, rows: Any
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Logits of stored features under another head than the classifier's own."""
    return classifier.with_head(head).logits_of_features(features.matrix[rows])


def accuracy(snapshot: Snapshot, held_out: HeldOut) -> float:
    """Share of the validation images that are classified correctly."""
    if not len(held_out.rows):
        raise DataError("the validation split is empty", fix="give data.split.val a larger share")
    truth = snapshot.labels()[held_out.rows]
    return float((held_out.logits.argmax(axis=1) == truth).mean())
