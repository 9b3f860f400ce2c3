"""The training loop.

Every random choice is drawn from the seed, the step and the image, never from what came before.
So a checkpoint holds tensors and counters only, and a run that was killed at any moment and
started again ends with the same weights as one that was not.
"""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graftline.classifier.bundle import Classifier
from graftline.data.snapshot import Snapshot
from graftline.progress import Progress, message
from graftline.records.decision import Pilot
from graftline.steps.fine_tune.checkpoints import state
from graftline.steps.fine_tune.checkpoints.resume import Checkpoints
from graftline.steps.fine_tune.checkpoints.saving import Saving
from graftline.steps.fine_tune.checkpoints.state import Progressed
from graftline.steps.fine_tune.evaluation import Evaluation
from graftline.steps.fine_tune.failures import diverged, halved, no_memory_left
from graftline.steps.fine_tune.guard import cut_rate
from graftline.steps.fine_tune.inputs.array_file import ArrayFile
from graftline.steps.fine_tune.inputs.augment import seed_of
from graftline.steps.fine_tune.inputs.batches import Batches, Item
from graftline.steps.fine_tune.inputs.device_batches import Ready
from graftline.steps.fine_tune.inputs.images import LocalImages
from graftline.steps.fine_tune.inputs.kept_outputs import KeptOutputs
from graftline.steps.fine_tune.inputs.sampler import Sampler
from graftline.steps.fine_tune.network.forward import Forward
from graftline.steps.fine_tune.network.freezing import (
    Division,
    joined,
    optimizer_for,
    training_mode,
)
from graftline.steps.fine_tune.network.frozen_engine import frozen_engine
from graftline.steps.fine_tune.network.numerics import as_begun, began_in_pytorch, numerics
from graftline.steps.fine_tune.network.precision import autocast
from graftline.steps.fine_tune.network.split import split
from graftline.steps.fine_tune.optimizer.ema import Average
from graftline.steps.fine_tune.optimizer.losses import class_weights, summed_loss, total_weight
from graftline.steps.fine_tune.optimizer.schedule import clip, joined_blocks, rate_factor, set_rates
from graftline.steps.fine_tune.pilot_end import look
from graftline.steps.fine_tune.ranks import Ranks
from graftline.steps.fine_tune.recipe import Settings
from graftline.steps.fine_tune.reports import say_early_end, say_epoch

CLIP_NORM = 1.0  # a single odd batch must not throw the pretrained weights off
CHECKPOINT_SECONDS = 300.0  # between two checkpoints at most, within an epoch

EpochListener = Callable[[dict[str, float]], None]


class Trainer:
    """Trains a classifier's upper blocks and head, and keeps the best epoch on val.

    Args:
        classifier: Its head is the start; frozen blocks are already out of the gradient.
        division: Which blocks are frozen.
        snapshot: The data.
        images: Its train and val images.
        checkpoints: Where the state is kept.
        settings: How to train, without ``auto``.
        device: Where.
        floor: The probe's accuracy on val, under which training should not stay; None for none.
        on_epoch: Is given each epoch's figures.
        ranks: The processes that share each batch.
    """

    def __init__(
        self,
        classifier: Classifier,
        division: Division,
        snapshot: Snapshot,
        images: LocalImages,
        checkpoints: Checkpoints,
        settings: Settings,
        device: torch.device,
        floor: float | None = None,
        on_epoch: EpochListener | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        self.classifier = classifier.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        begun = checkpoints.scalars().get("numerics", {})
        settings = as_begun(settings, begun)
        self.division, self.settings, self.device = division, settings, device
        self.floor, self.on_epoch = floor, on_epoch
        self.ranks = ranks or Ranks()
        self.labels = snapshot.labels()
        self.val_rows = snapshot.rows("val")
        self.sampler = Sampler(
            snapshot.rows("train"), settings.batch_size, settings.epochs, settings.seed
        )
        self.class_weights = class_weights(
            self.labels[self.sampler.rows],
            len(snapshot.classes),
            balanced=settings.class_weight == "balanced",
        ).to(device)
        self.optimizer = optimizer_for(classifier, division, settings)
        self.tensors = state.tensors_of(classifier, division)
        self.average = Average(self.tensors, settings.ema)
        self.halves = split(classifier.backbone, division)
        lower = None if began_in_pytorch(begun) else self.halves
        images_each = len(self.sampler.rows)
        self.engine = frozen_engine(lower, settings, device, images_each, self.ranks.count)
        self.arrays = ArrayFile()
        ids, fitting = snapshot.image_ids(), classifier.preprocessing
        self.batches = Batches(
            images, ids, fitting, settings, self.halves, device, self.arrays, self.engine
        )
        self.saving = Saving(
            checkpoints,
            self.tensors,
            self.optimizer,
            self.average,
            most=CHECKPOINT_SECONDS,
            writes=self.ranks.first,
        )
        here = numerics(device, settings, engine=self.engine is not None)
        self.at = Progressed(micro_batch=self.sampler.batch_size, numerics=here)
        forward = Forward(classifier, self.halves, self.engine)
        evaluated = forward.images if self.halves is None else forward.lower
        self.evaluation = Evaluation(classifier, evaluated, self.batches)
        self.forward = forward.lower if self.batches.keeps_lower else forward.images
        self.outputs: KeptOutputs | None = None
        self.pilot: Pilot | None = None  # the first epochs, after which training may end
        self.start, self.best = state.copied(self.tensors), dict[str, Tensor]()

    def train(self) -> Progressed:
        """Train, or go on where a killed run stopped, and load the best epoch's weights.

        Raises:
            TrainingError: The loss is not finite, or one image does not fit into memory.
        """
        resumed = self.saving.resume(self.at.numerics)
        if resumed is not None:
            self.at, self.best = resumed
        if self.outputs is not None and not self.at.finished:
            self.outputs.load()
        if self.at.steps_done == 0 and self.floor is not None:
            self._measure_start()
        with _terminated() as stop, Progress("training", self.sampler.steps, "steps") as bar:
            bar.advance(self.at.steps_done)
            while not self.at.finished:
                bar.description = f"epoch {self.at.epoch + 1} of {self.settings.epochs}"
                began = time.monotonic()
                for items, rows in self._rest_of_epoch():
                    self._step(items, rows)
                    self.at.seconds, began = _clocked(self.at.seconds, began)
                    bar.advance()
                    if stop.is_set():
                        self.saving.now(self.at, self.best)
                        raise SystemExit(143)
                    self.saving.within_epoch(self.at, self.best)
                    if self._out_of_time():
                        break
                self._end_epoch()
                self.saving.after_epoch(self.at, self.best)
        state.put(self.tensors, self.best)
        return self.at

    def close(self) -> None:
        """Remove what is kept on the disk, and end the threads."""
        self.arrays.close()
        if self.engine is not None:
            self.engine.close()

    def _rest_of_epoch(self) -> Iterator[tuple[list[Item] | Ready, NDArray[np.int64]]]:
        """This process's part of each batch that is left in the epoch: images and their rows."""
        steps = range(self.at.steps_done, self.sampler.end_of(self.at.epoch))
        mine = [self.ranks.part(*self.sampler.batch(step), self.settings.mix) for step in steps]
        return self.batches.ahead(mine)

    def _step(self, images: list[Item] | Ready, rows: NDArray[np.int64]) -> None:
        """One optimiser step."""
        steps, warmup = self.sampler.steps, self.settings.warmup_fraction
        set_rates(self.optimizer, self.at.rate * rate_factor(self.at.steps_done, steps, warmup))
        loss = self._gradient(images, rows)
        if not math.isfinite(loss):
            diverged("loss", loss, self.at, self.settings)
        if not math.isfinite(norm := clip(self.optimizer, CLIP_NORM)):
            diverged("gradient", norm, self.at, self.settings)
        self.optimizer.step()
        self.average.update(self.at.steps_done)
        self.at.step += 1
        self.at.steps_done += 1
        self.at.loss_sum += loss

    def _gradient(self, images: list[Item] | Ready, rows: NDArray[np.int64]) -> float:
        """Gradients of the batch's mean loss; the loss."""
        targets = torch.from_numpy(self.labels[rows]).to(self.device)
        seed, step = self.settings.seed, self.at.steps_done
        with _seeded(seed_of(seed, step), self.device), no_memory_left():
            x = self.batches.stacked(images, training=True)
            x, shares = self.batches.mixed(x, targets, len(self.class_weights))
            x, shares = self.ranks.own(x), self.ranks.own(shares)
        weight = self.ranks.sum(total_weight(shares, self.class_weights))
        total = None
        while total is None:
            try:
                with _seeded(seed_of(seed, step, "passes"), self.device):  # each try alike
                    total = self._passes(x, shares, weight)
            except (RuntimeError, MemoryError) as error:
                self.at.micro_batch = halved(self.at.micro_batch, error)
        self.ranks.add_gradients(self.optimizer)
        return float(self.ranks.sum(total))

    def _passes(self, x: Tensor, shares: Tensor, weight: Tensor) -> Tensor:
        """Add up the gradients of micro-batches, which are as large as memory allows; the loss."""
        self.optimizer.zero_grad(set_to_none=True)
        parts = math.ceil(len(x) / self.at.micro_batch)
        self._set_mode(len(x) // parts)
        total = torch.zeros((), device=self.device)
        for part, wanted in zip(x.tensor_split(parts), shares.tensor_split(parts), strict=True):
            with autocast(self.device, self.settings.precision):
                logits = self.forward(part)
            smoothing = self.settings.label_smoothing
            loss = summed_loss(logits, wanted, self.class_weights, smoothing) / weight
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return total

    def _set_mode(self, images: int) -> None:
        """Training mode above the frozen blocks and those that have not joined yet."""
        progress = self.at.steps_done / max(1, self.sampler.steps)
        trained = len(self.division.trained)
        count = joined_blocks(progress, trained, self.settings.gradual)
        training_mode(
            self.classifier,
            joined(self.classifier.backbone, self.division, count),
            # Of a single image BatchNorm would learn nothing but that image.
            adapt_batch_norm=self.settings.adapt_batch_norm and images > 1,
        )

    def _measure_start(self) -> None:
        """The evaluation before the first step, which is the probe's own."""
        accuracy, _ = self._measure()
        self.at.start_accuracy = accuracy
        message("before the first step: val accuracy %.4f, the probe's %.4f", accuracy, self.floor)

    def _measure(self) -> tuple[float, float]:
        """Accuracy and loss on val, of the averaged weights where there are any."""

        def measure() -> tuple[float, float]:
            with self.average.applied():
                return self.evaluation.measure(self.val_rows, self.labels[self.val_rows])

        accuracy, loss = self.ranks.from_first(measure, 2)
        return accuracy, loss

    def _end_epoch(self) -> None:
        """Measure on val, keep the best weights, and see whether to go on."""
        at = self.at
        accuracy, loss = self._measure()
        at.epoch += 1
        train_loss = at.loss_sum / max(1, at.step)
        figures = {
            "epoch": at.epoch,
            "train_loss": train_loss,
            "val_loss": loss,
            "val_accuracy": accuracy,
        }
        at.history.append(figures)
        self._report(figures)
        if self.outputs is not None:
            self.outputs.keep()
        if not math.isfinite(loss):
            diverged("validation loss", loss, at, self.settings, measured=True)
        at.step, at.loss_sum = 0, 0.0
        if (accuracy, -loss) > (at.best_accuracy, -at.best_loss):
            at.best_epoch, at.best_accuracy, at.best_loss = at.epoch, accuracy, loss
            with self.average.applied():
                self.best = state.copied(self.tensors)
        stale = at.epoch - max(at.best_epoch, at.guarded_epoch) >= self.settings.patience
        over = look(at, self.pilot, self.floor, self._over)
        late = self._out_of_time()
        at.finished = over or at.epoch >= self.settings.epochs or stale or late
        if (stale or late) and not over:
            say_early_end(at, self.settings, self.classifier.strategy, in_time=not late)
        if not at.finished and cut_rate(at, accuracy, self.floor, self.settings):
            self._go_back()

    def _go_back(self) -> None:
        """Restore the best weights so far: the best epoch's, or the start's."""
        at = self.at
        start_was_better = (at.start_accuracy or 0.0) > at.best_accuracy
        state.put(self.tensors, self.start if start_was_better else self.best)
        self.optimizer.state.clear()
        self.average.restart()

    def _report(self, figures: dict[str, float]) -> None:
        rate = say_epoch(figures, self.settings.epochs, self.at, self.sampler)
        if self.on_epoch is not None:
            self.on_epoch({**figures, "images_per_second": rate, "rate_factor": self.at.rate})

    def _out_of_time(self) -> bool:
        limit = self.settings.max_minutes
        return limit is not None and self._over(limit)

    def _over(self, minutes: float) -> bool:
        return self.ranks.from_first(lambda: (self.at.seconds,), 1)[0] >= 60 * minutes


def _clocked(seconds: float, began: float) -> tuple[float, float]:
    """The seconds with those since the beginning, and the present moment."""
    now = time.monotonic()
    return seconds + now - began, now


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Dropout and its like draw from this seed alone."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


@contextmanager
def _terminated() -> Iterator[threading.Event]:
    """An event that SIGTERM sets, so that the state is saved where there is time for it."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = signal.signal(signal.SIGTERM, lambda *_: event.set())
    try:
        yield event
    finally:
        signal.signal(signal.SIGTERM, before)
