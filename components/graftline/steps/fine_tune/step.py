"""Train the upper blocks and the head from the probe, and keep them only if they are better."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graftline.classifier.bundle import HeldOut, load_classifier, save_classifier
from graftline.files import write_atomic
from graftline.progress import message
from graftline.records.decision import Decision, Outcome, write_decision
from graftline.steps.decision_parts import completed
from graftline.steps.fine_tune.loop import EpochListener
from graftline.steps.fine_tune.pilot import begins_with_pilot, run_pilot
from graftline.steps.fine_tune.pilot_end import decided
from graftline.steps.fine_tune.search import search
from graftline.steps.fine_tune.start_and_outcome import compare, with_training
from graftline.steps.fine_tune.training import Order, Start, Trained, Workers, read, train
from graftline.steps.fine_tune.trial import Trial
from graftline.steps.runtime import StepResult

WORKERS = tuple(field.name for field in dataclasses.fields(Workers))


@dataclass(frozen=True, kw_only=True)
class Extras:
    """What is no part of the recipe.

    Attributes:
        search: Minutes for trials beforehand.
        checkpoint_key: Name of the checkpoints; a digest of all that matters where absent.
        probe_page: The decision page that fit_head wrote.
    """

    search: float | None = None
    checkpoint_key: str | None = None
    probe_page: Path | None = None


EXTRAS = tuple(field.name for field in dataclasses.fields(Extras))


@dataclass(frozen=True, kw_only=True)
class FineTuneResult(StepResult):
    """What training came to.

    Attributes:
        strategy: What the written classifier is: fine_tune or scratch, or probe where the
            fine-tuned model did not beat it.
        val_accuracy: Of the best epoch on val.
        probe_val_accuracy: Of the train-only probe on the same images.
        epochs: Trained; early stopping may leave some out.
        best_epoch: Whose weights were kept, counted from 1.
        start_val_accuracy: Before the first step: the probe's. None for scratch.
        guarded_epoch: After which the rate was cut, since validation stayed below the probe's;
            0 for never.
        history: Losses and val accuracy by epoch.
        frozen_blocks: Blocks that stayed.
        trained_blocks: Blocks that were trained.
        device: Where it was trained.
        decision: The decision record with its outcome.
        decision_file: Where it was written.
        page: The decision page with the outcome; None where there was no page.
    """

    strategy: str
    val_accuracy: float
    probe_val_accuracy: float
    epochs: int
    best_epoch: int
    start_val_accuracy: float | None
    guarded_epoch: int
    history: list[dict[str, float]]
    frozen_blocks: list[str]
    trained_blocks: list[str]
    device: str
    decision: dict[str, Any]
    decision_file: Path
    page: Path | None = None

    def metrics(self) -> dict[str, float]:
        """Accuracies for the tracking run."""
        return {
            "val_accuracy": self.val_accuracy,
            "probe_val_accuracy": self.probe_val_accuracy,
            "epochs": self.epochs,
            "best_epoch": self.best_epoch,
        }

    def params(self) -> dict[str, str]:
        """Choices for the tracking run."""
        return {
            "used": self.strategy,
            "frozen_blocks": str(len(self.frozen_blocks)),
            "trained_blocks": str(len(self.trained_blocks)),
            "device": self.device,
        }

    def files(self) -> dict[str, Path]:
        """The decision record and its page, with the outcome."""
        page = {} if self.page is None else {"fine_tune/decision.html": self.page}
        return {"fine_tune/decision.json": self.decision_file, **page}


def run(
    *,
    snapshot_folder: Path,
    probe_folder: Path,
    decision_file: Path,
    store: str,
    classifier_folder: Path,
    decision_out: Path,
    strategy: str = "fine_tune",
    on_epoch: EpochListener | None = None,
    page_file: Path | None = None,
    **settings: Any,
) -> FineTuneResult:
    """Train, compare with the probe on val, and write the better classifier.

    Args:
        snapshot_folder: The dataset snapshot.
        probe_folder: The bundle that fit_head wrote.
        decision_file: The decision record that fit_head wrote.
        store: URI of the store: images, checkpoints.
        classifier_folder: Where the bundle is written.
        decision_out: Where the decision record with its outcome is written.
        strategy: ``fine_tune``, or ``scratch`` for random weights with nothing frozen.
        on_epoch: Is given the figures of each epoch while it trains.
        page_file: Where the decision page is written with the outcome.
        settings: Fields of the recipe's ``Settings``, of ``Workers`` and of :class:`Extras`.

    Raises:
        TrainingError: Training diverged or does not fit into memory.
        FrozenWeightsMoved: A frozen tensor changed.
        DataError: There is nothing to train or measure on.
        ConfigurationError: A setting, the probe or the checkpoint does not fit this run.
    """
    workers = Workers(**{k: settings.pop(k) for k in WORKERS if k in settings})
    extras = Extras(**{k: settings.pop(k) for k in EXTRAS if k in settings})
    pages = (extras.probe_page, page_file)
    order = Order(
        snapshot_folder=str(snapshot_folder),
        probe_folder=str(probe_folder),
        decision_file=str(decision_file),
        store=store,
        strategy=strategy,
        settings=settings,
        checkpoint_key=extras.checkpoint_key,
    )
    start = read(order)
    order = dataclasses.replace(order, looks=begins_with_pilot(order, start, extras.search))
    if strategy == "fine_tune" and start.decision.pilot is not None and not order.looks:
        pilot = run_pilot(order, start)
        start = dataclasses.replace(read(order), decision=pilot.decision)  # it changed the network
        if not pilot.decision.fine_tune:
            _save(classifier_folder, None, probe_folder, start.held_out)
            return _result(pilot.outcome, pilot.trained, pilot.decision, decision_out, pages)
    order, start, trials = _searched(order, start, extras.search)
    trained = train(order, start, workers=workers, on_epoch=on_epoch)
    decision, outcome = _concluded(order, start, trained, trials)
    better = None if outcome.used == "probe" else trained
    _save(classifier_folder, better, probe_folder, start.held_out)
    return _result(outcome, trained, decision, decision_out, pages)


def _concluded(
    order: Order, start: Start, trained: Trained, trials: list[Trial]
) -> tuple[Decision, Outcome]:
    """The decision with what came of it; without, where its first epochs ended the training."""
    compared = compare(
        order.strategy,
        trained.val_logits,
        start.held_out.logits,
        start.truth,
        start.decision.forecast,
    )
    outcome = with_training(compared, trained.progressed, trials)
    if order.looks:
        decision = decided(start.decision, trained.progressed)
        if not decision.fine_tune:
            return decision, dataclasses.replace(outcome, used="probe")
        start = dataclasses.replace(start, decision=decision)
    message("%s", outcome.sentence)
    return start.decision.with_outcome(outcome), outcome


def _searched(
    order: Order, start: Start, minutes: float | None
) -> tuple[Order, Start, list[Trial]]:
    """The order with what a search found, and what it then starts from."""
    if minutes is None or order.strategy != "fine_tune":
        return order, start, []
    order, trials = search(order, start, minutes)
    return order, dataclasses.replace(read(order), decision=start.decision), trials


def _save(folder: Path, trained: Trained | None, probe: Path, held_out: HeldOut) -> None:
    """Write what is used: the trained network, or the probe, read again as it was fitted."""
    if trained is None:
        save_classifier(folder, load_classifier(probe), held_out=held_out)
    else:
        own = HeldOut(rows=held_out.rows, logits=trained.val_logits)
        save_classifier(folder, trained.classifier, held_out=own)


def _result(
    outcome: Outcome,
    trained: Trained,
    decision: Decision,
    decision_file: Path,
    pages: tuple[Path | None, Path | None],
) -> FineTuneResult:
    write_decision(decision_file, decision)
    at = trained.progressed
    return FineTuneResult(
        strategy=outcome.used,
        val_accuracy=outcome.fine_tuned_accuracy,
        probe_val_accuracy=outcome.probe_accuracy,
        start_val_accuracy=at.start_accuracy,
        epochs=at.epoch,
        best_epoch=at.best_epoch,
        guarded_epoch=at.guarded_epoch,
        history=at.history,
        frozen_blocks=list(trained.division.frozen),
        trained_blocks=list(trained.division.trained),
        device=trained.device,
        decision=decision.to_dict(),
        decision_file=decision_file,
        page=_completed(*pages, decision),
    )


def _completed(before: Path | None, after: Path | None, decision: Decision) -> Path | None:
    """Write the decision page with the outcome; None where fit_head could write none."""
    text = before.read_text("utf-8") if before is not None and before.is_file() else ""
    if not text or after is None:
        return None
    write_atomic(after, completed(text, decision).encode())
    return after
