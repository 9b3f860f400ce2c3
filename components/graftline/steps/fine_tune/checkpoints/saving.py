"""When a training's state is saved, and how it comes back."""

import time

import torch
from torch import Tensor

from graftline.progress import message
from graftline.steps.fine_tune.checkpoints import state
from graftline.steps.fine_tune.checkpoints.clock import BackgroundWriter, CheckpointClock
from graftline.steps.fine_tune.checkpoints.resume import Checkpoints
from graftline.steps.fine_tune.checkpoints.state import Progressed
from graftline.steps.fine_tune.network.numerics import say_changes
from graftline.steps.fine_tune.optimizer.ema import Average

FIRST_SECONDS = 10.0  # that the training waits for its first checkpoint at most


class Saving:
    """Copies the state of one training on a clock, and has it written beside the training.

    Args:
        checkpoints: Where it is written.
        tensors: What the training changes, by name.
        optimizer: Its state is saved too.
        average: So is the average.
        most: Seconds between two checkpoints at most, within an epoch.
        writes: False where another process writes.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        tensors: dict[str, Tensor],
        optimizer: torch.optim.Optimizer,
        average: Average,
        *,
        most: float,
        writes: bool,
    ) -> None:
        self._checkpoints, self._tensors = checkpoints, tensors
        self._optimizer, self._average, self._writes = optimizer, average, writes
        self._clock = CheckpointClock(most)
        self._writer = BackgroundWriter(checkpoints, self._clock)
        self._saved = False

    def resume(self, here: dict[str, str]) -> tuple[Progressed, dict[str, Tensor]] | None:
        """Put the last checkpoint into the network; its counters and best weights, or None.

        Args:
            here: What this machine computes with, of which the counters take note.
        """
        found = self._checkpoints.latest()
        if found is None:
            return None
        at, best = state.restore(found, self._tensors, self._optimizer, self._average)
        message("Resuming from a checkpoint: epoch %d, step %d.", at.epoch + 1, at.step)
        if not at.finished:
            say_changes(at.numerics, here)
            at.numerics = here
        return at, best

    def within_epoch(self, at: Progressed, best: dict[str, Tensor]) -> None:
        """Save if the clock says so, and the checkpoint before is written."""
        if self._clock.due() and not self._writer.busy:
            self._save(at, best)

    def after_epoch(self, at: Progressed, best: dict[str, Tensor]) -> None:
        """Save the end of an epoch, if that is cheap enough; the end of the training always."""
        if at.finished:
            self.now(at, best)
        elif self._clock.due_after_epoch() and not self._writer.busy:
            self._save(at, best)

    def now(self, at: Progressed, best: dict[str, Tensor]) -> None:
        """Save, and return when it is written."""
        self._save(at, best)
        self._writer.wait()

    def _save(self, at: Progressed, best: dict[str, Tensor]) -> None:
        if not self._writes:
            return
        began = time.monotonic()
        checkpoint = state.gather(at, self._tensors, self._optimizer, self._average, best)
        self._clock.taken()
        self._writer.start(checkpoint, time.monotonic() - began)
        if not self._saved:  # the first one says what they cost, and whether the store takes them
            self._saved = True
            self._writer.wait(FIRST_SECONDS)
