"""A short training, where the forecast leaves doubt whether the whole one pays.

With few images the pilot is the first epochs of the training itself, which goes on from there or
ends (:mod:`graftline.steps.fine_tune.pilot_end`): nothing is computed twice. With many it is a
training of its own on a subset, since an epoch on all of them would cost more than it.
"""

import dataclasses
from dataclasses import dataclass

import pyarrow as pa

from graftline.data.sampling import stratified_sample
from graftline.data.snapshot import Snapshot
from graftline.progress import message
from graftline.records.decision import Decision, Outcome
from graftline.steps.fine_tune.start_and_outcome import compare
from graftline.steps.fine_tune.training import ALONE, Order, Start, Trained, train


@dataclass(frozen=True)
class PilotRun:
    """What a pilot came to.

    Attributes:
        decision: With what the pilot measured, and the probe where training does not go on.
        outcome: The pilot's network against the probe on val; the probe is used.
        trained: The pilot's training.
    """

    decision: Decision
    outcome: Outcome
    trained: Trained


def begins_with_pilot(order: Order, start: Start, search: float | None) -> bool:
    """Whether the training's own first epochs are the pilot.

    Not before a search: it would try other settings for a training that may not be worth it.

    Args:
        order: Of the training.
        start: What it would start from.
        search: Minutes of a search before it; None for none.
    """
    pilot = start.decision.pilot
    if order.strategy != "fine_tune" or pilot is None or search is not None:
        return False
    few = len(start.snapshot.rows("train")) <= pilot.images
    return few and start.options.epochs > pilot.epochs


def run_pilot(order: Order, start: Start) -> PilotRun:
    """Train for a few epochs on a few images, and see whether the whole training is worth it.

    Args:
        order: Of the whole training.
        start: What that one would start from. Its network is changed in place.
    """
    pilot = start.decision.pilot
    assert pilot is not None
    given = start.options.max_minutes
    minutes = pilot.minutes if given is None else min(pilot.minutes, given)
    snapshot = subset(start.snapshot, pilot.images, start.options.seed)
    message(
        "pilot: at most %d epochs on %d of %d training images",
        pilot.epochs,
        len(snapshot.rows("train")),
        len(start.snapshot.rows("train")),
    )
    options = dataclasses.replace(start.options, epochs=pilot.epochs, max_minutes=minutes)
    begun = dataclasses.replace(start, snapshot=snapshot, options=options)
    shorter = dataclasses.replace(order, checkpoint_key=None)
    trained = train(shorter, begun, workers=ALONE)
    outcome = compare("fine_tune", trained.val_logits, start.held_out.logits, start.truth)
    outcome = dataclasses.replace(outcome, used="probe", hours=trained.progressed.seconds / 3600)
    decision = start.decision.with_pilot(pilot.measured(outcome.gain))
    message("%s", decision.reasons[-1])
    return PilotRun(decision, outcome, trained)


def subset(snapshot: Snapshot, images: int, seed: int) -> Snapshot:
    """The snapshot with at most so many training images, each class in its share."""
    train = snapshot.rows("train")
    if len(train) <= images:
        kept = train
    else:
        kept = train[stratified_sample(snapshot.labels()[train], images, seed)]
    splits = snapshot.column("split").copy()
    splits[train] = "unused"
    splits[kept] = "train"
    at = snapshot.manifest.column_names.index("split")
    manifest = snapshot.manifest.set_column(at, "split", pa.array(splits, pa.string()))
    # Another id, so that the pilot's checkpoints are not those of the whole training.
    return dataclasses.replace(snapshot, id=f"{snapshot.id}-pilot-{images}", manifest=manifest)
