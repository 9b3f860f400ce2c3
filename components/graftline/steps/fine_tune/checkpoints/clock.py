"""When a checkpoint is due, and a thread that writes it beside the training.

A step on Kubeflow gets no time to act on SIGTERM: its launcher and then the container die within
a second. So what a preempted node loses is bounded by a clock, not by a signal.
"""

import threading
import time
from collections.abc import Callable

from graftline.errors import StoreError
from graftline.progress import message
from graftline.steps.fine_tune.checkpoints.resume import Checkpoint, Checkpoints

SHARE = 0.02  # of the time that checkpoints may cost
LEAST_SECONDS = 5.0  # between two within an epoch: less saves nobody's work
FREE_SECONDS = 2.0  # that checkpoints may cost beyond the share, so that the first come early


class CheckpointClock:
    """Says when the next checkpoint is due: as often as costs under 2% of the time.

    Args:
        most: Seconds between two checkpoints at most, whatever they cost.
        now: A clock in seconds.
    """

    def __init__(self, most: float, now: Callable[[], float] = time.monotonic) -> None:
        self._most, self._now = most, now
        self._started = self._last = now()
        self._last_cost = self._total_cost = 0.0

    @property
    def interval(self) -> float:
        """Seconds from one checkpoint to the next within an epoch."""
        return min(self._most, max(LEAST_SECONDS, self._last_cost / SHARE))

    def due(self) -> bool:
        """Whether the interval is over."""
        return self._now() - self._last >= self.interval

    def due_after_epoch(self) -> bool:
        """Whether the end of an epoch, a good moment, is worth one before the interval is over."""
        allowed = FREE_SECONDS + SHARE * (self._now() - self._started)
        return self.due() or self._total_cost + self._last_cost <= allowed

    def taken(self) -> None:
        """A checkpoint of the present moment is being written."""
        self._last = self._now()

    def cost(self, seconds: float) -> None:
        """What the last checkpoint cost in all."""
        self._last_cost = seconds
        self._total_cost += seconds


class BackgroundWriter:
    """Writes one checkpoint at a time in a thread of its own.

    A store that is away does not stop the training: the failure is reported, and the next
    checkpoint tries again.

    Args:
        checkpoints: Where they are written.
        clock: Is given the cost of each.
    """

    def __init__(self, checkpoints: Checkpoints, clock: CheckpointClock) -> None:
        self._checkpoints, self._clock = checkpoints, clock
        self._thread: threading.Thread | None = None

    @property
    def busy(self) -> bool:
        """Whether one is being written."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, checkpoint: Checkpoint, seconds: float) -> None:
        """Write a checkpoint whose tensors nobody changes any more; waits for the one before.

        Args:
            checkpoint: What to write.
            seconds: What copying its tensors took from the training.
        """
        self.wait()
        self._thread = threading.Thread(
            target=self._write, args=(checkpoint, seconds), name="checkpoint", daemon=True
        )
        self._thread.start()

    def wait(self, seconds: float | None = None) -> None:
        """Return when nothing is being written, or after some seconds."""
        if self._thread is not None:
            self._thread.join(seconds)

    def _write(self, checkpoint: Checkpoint, seconds: float) -> None:
        began = time.thread_time()  # waiting for the store costs the training nothing
        try:
            self._checkpoints.save(checkpoint)
        except (StoreError, OSError) as error:
            message("WARNING: the checkpoint was not written; training goes on. %s", error)
        finally:
            self._clock.cost(seconds + time.thread_time() - began)
