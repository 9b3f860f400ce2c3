"""Ends a training whose first epochs, the pilot, show that the rest is not worth it."""

from collections.abc import Callable

from graftline.progress import message
from graftline.records.decision import Decision, Pilot
from graftline.steps.fine_tune.checkpoints.state import Progressed


def look(
    at: Progressed, pilot: Pilot | None, floor: float | None, over: Callable[[float], bool]
) -> bool:
    """Compare with the probe once, at the end of the pilot's last epoch.

    Args:
        at: After an epoch; notes when the look was taken.
        pilot: What decides; None where nothing does.
        floor: The probe's accuracy on val.
        over: Whether so many minutes of training are.

    Returns:
        Whether the training ends here.
    """
    if pilot is None or floor is None or at.pilot_epoch:
        return False
    if at.epoch < pilot.epochs and not over(pilot.minutes):
        return False
    at.pilot_epoch, at.pilot_gain = at.epoch, at.best_accuracy - floor
    return not pilot.measured(at.pilot_gain).goes_on


def decided(decision: Decision, at: Progressed) -> Decision:
    """The decision after the look; as it was where the training ended before it."""
    if decision.pilot is None or not at.pilot_epoch:
        return decision
    after = decision.with_pilot(decision.pilot.measured(at.pilot_gain))
    message("%s", after.reasons[-1])
    return after
