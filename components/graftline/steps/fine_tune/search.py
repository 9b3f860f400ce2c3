"""A bounded search over the learning rate and the blocks that are trained, in short trainings.

A trial is a whole training with its own schedule, of few epochs on a part of the training images,
and is judged on validation. Trials follow a fixed order, from the settings given outwards. Those
that are done are in the store: a search that is started again continues where it was, and from the
same trials it always draws the same conclusion.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from graftline.errors import IntegrityError, StoreNotFound, TrainingError
from graftline.progress import message
from graftline.steps.fine_tune.pilot import subset
from graftline.steps.fine_tune.recipe import Settings, Unfreeze
from graftline.steps.fine_tune.training import ALONE, Order, Start, identity_of, read, train
from graftline.steps.fine_tune.trial import Trial
from graftline.storage import commit, open_store
from graftline.storage.base import Store

PREFIX = "fine-tune-searches"
SHARE = 4  # a trial's epochs are this part of the training's
LEAST_EPOCHS = 2
MOST_IMAGES = 2000  # training images of a trial
RATES = (1.0, 3.0, 1 / 3)  # of the learning rate that was given
LESS, MORE = 0.5, 1.5  # of the blocks that were given


def search(order: Order, start: Start, minutes: float) -> tuple[Order, list[Trial]]:
    """The order with the best learning rate and blocks that were found in the time given.

    Args:
        order: Of the whole training.
        start: What it would start from; only its settings and data are used.
        minutes: Of training, those of an earlier try included. The first trial, with the settings
            as they are, is made in any case; a trial that would pass the limit is not begun.

    Returns:
        The order, and all trials in the order in which they were made.
    """
    store = open_store(order.store).child(PREFIX)
    key = f"{identity_of(order, start)}.json"
    trials = _read(store, key)
    for number, (rate, unfreeze) in enumerate(candidates(start.options)):
        if number < len(trials):
            continue
        spent = sum(trial.seconds for trial in trials)
        dearest = max((trial.seconds for trial in trials), default=0.0)
        if trials and spent + dearest > 60 * minutes:
            break
        trials.append(_run(order, start, rate, unfreeze))
        commit.overwrite(store, key, {"trials": [asdict(trial) for trial in trials]})
    best = choose(trials)
    message(
        "search: learning_rate %g and unfreeze %s were best of %d trials (val accuracy %.4f)",
        best.learning_rate,
        best.unfreeze,
        len(trials),
        best.val_accuracy,
    )
    chosen = {"learning_rate": best.learning_rate, "unfreeze": best.unfreeze}
    settings = {k: v for k, v in order.settings.items() if k != "frozen_fraction"}
    return dataclasses.replace(order, settings={**settings, **chosen}), trials


def candidates(options: Settings) -> Iterator[tuple[float, Unfreeze]]:
    """Learning rates and blocks, from those given outwards.

    Args:
        options: Without ``auto``.
    """
    given = _share(options)
    yield options.learning_rate, given
    for factor in RATES[1:]:
        yield options.learning_rate * factor, given
    for share in _others(given):
        for factor in RATES:
            yield options.learning_rate * factor, share


def choose(trials: Sequence[Trial]) -> Trial:
    """The highest accuracy; of equal ones the lowest loss, then the earliest."""
    return min(trials, key=lambda trial: (-trial.val_accuracy, trial.val_loss))


def _share(options: Settings) -> Unfreeze:
    if options.frozen_fraction is not None:
        return 1.0 - options.frozen_fraction
    return options.unfreeze


def _others(given: Unfreeze) -> list[Unfreeze]:
    """More blocks, then fewer."""
    if given == "all" or not isinstance(given, int | float):
        return [0.5]
    if isinstance(given, int):
        more, less = max(given + 1, round(MORE * given)), round(LESS * given)
        return [more, *([less] if less < given else [])]
    return [share for share in (min(1.0, MORE * given), LESS * given) if 0 < share != given]


def _run(order: Order, start: Start, rate: float, unfreeze: Unfreeze) -> Trial:
    """One trial. It changes a network, so it reads its own."""
    epochs = max(LEAST_EPOCHS, start.options.epochs // SHARE)
    chosen: dict[str, Any] = {"learning_rate": rate, "unfreeze": unfreeze, "epochs": epochs}
    settings = {k: v for k, v in order.settings.items() if k != "frozen_fraction"}
    trial = dataclasses.replace(order, settings={**settings, **chosen}, checkpoint_key=None)
    own = read(trial)
    own = dataclasses.replace(own, snapshot=subset(own.snapshot, MOST_IMAGES, start.options.seed))
    message("search: %d epochs with learning_rate %g, unfreeze %s", epochs, rate, unfreeze)
    try:
        at = train(trial, own, workers=ALONE).progressed
    except TrainingError as error:
        message("search: this trial failed: %s", error)
        return Trial(**chosen, val_accuracy=-1.0, val_loss=0.0, seconds=0.0)
    return Trial(**chosen, val_accuracy=at.best_accuracy, val_loss=at.best_loss, seconds=at.seconds)


def _read(store: Store, key: str) -> list[Trial]:
    try:
        return [Trial(**each) for each in commit.read(store, key).content["trials"]]
    except (
        StoreNotFound,
        IntegrityError,
        KeyError,
        TypeError,
    ):  # none, damaged, or an earlier form
        return []
