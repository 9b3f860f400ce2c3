"""A short training on a subset, where the forecast leaves doubt whether the whole one pays."""

import dataclasses

import pyarrow as pa

from graftline.data.sampling import stratified_sample
from graftline.data.snapshot import Snapshot
from graftline.progress import message
from graftline.records.decision import Decision, Outcome, Pilot
from graftline.steps.fine_tune.start_and_outcome import compare
from graftline.steps.fine_tune.training import Order, Start, read, train


def run_pilot(order: Order, start: Start) -> tuple[Decision, Outcome]:
    """Train shortly; the decision with what came of it, and the pilot against the probe on val.

    Args:
        order: Of the whole training.
        start: What that one would start from. It is used up: training changes it in place.
    """
    pilot = start.decision.pilot
    assert pilot is not None
    settings = {**order.settings, "epochs": pilot.epochs, "max_minutes": pilot.minutes}
    short = dataclasses.replace(order, settings=settings, checkpoint_key=None)
    options = dataclasses.replace(start.options, epochs=pilot.epochs, max_minutes=pilot.minutes)
    snapshot = subset(start.snapshot, pilot.images, options.seed)
    images = len(snapshot.rows("train"))
    message("pilot: at most %d epochs on %d training images", pilot.epochs, images)
    begun = dataclasses.replace(start, snapshot=snapshot, options=options)
    trained = train(short, begun, processes=1, on_epoch=None)
    outcome = compare("fine_tune", trained.val_logits, start.held_out.logits, start.truth)
    outcome = dataclasses.replace(outcome, hours=trained.progressed.seconds / 3600)
    return start.decision.with_pilot(pilot.measured(outcome.gain)), outcome


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
