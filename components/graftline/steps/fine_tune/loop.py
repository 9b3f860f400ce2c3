"""The training loop.

Every random choice is drawn from the seed, the epoch, the step and the image, never from what
came before. So a checkpoint holds tensors and counters only, and a run that was killed at any
moment and started again ends with the same weights as one that was not.
"""

import hashlib
import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from graftline.classifier.bundle import Classifier
from graftline.data.snapshot import Snapshot
from graftline.errors import TrainingError
from graftline.progress import Progress, message
from graftline.steps.fine_tune.freezing import (
    Division,
    parameter_groups,
    trained_tensors,
    training_mode,
)
from graftline.steps.fine_tune.images import Image, LocalImages, ahead, network_input, random_crop
from graftline.steps.fine_tune.resume import Checkpoint, Checkpoints

CLIP_NORM = 1.0  # a single odd batch must not throw the pretrained weights off
CHECKPOINT_SECONDS = 300.0  # what a preempted node loses at most, within an epoch
EVALUATION_BATCH = 64


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to train; the run file's section ``fine_tune`` or ``scratch``.

    ``adapt_batch_norm`` lets BatchNorm use and gather statistics of the new data in the trained
    blocks. From random weights there is no other way. From a probe it destroys the start: the
    head was fitted on features under the pretrained statistics (EfficientNet-Lite0 on digits,
    4 epochs: 43% with, 95% without, probe 94%).
    """

    epochs: int = 10
    batch_size: int = 64
    learning_rate: float = 3e-4
    weight_decay: float = 0.05
    warmup_fraction: float = 0.1
    label_smoothing: float = 0.0
    augment: bool = True
    flip: bool = False
    patience: int = 5
    class_weight: str = "none"
    layer_decay: float = 0.75
    frozen_fraction: float = 0.5
    adapt_batch_norm: bool = False
    seed: int = 0


@dataclass
class Progressed:
    """Where training stands: all that a checkpoint holds besides tensors."""

    epoch: int = 0  # epochs finished
    step: int = 0  # steps done in the epoch under way
    steps_done: int = 0  # steps done altogether
    loss_sum: float = 0.0  # over the steps of the epoch under way
    micro_batch: int = 0
    best_epoch: int = 0
    best_accuracy: float = -1.0
    best_loss: float = math.inf
    finished: bool = False
    history: list[dict[str, float]] = field(default_factory=list)


class Trainer:
    """Trains a classifier's upper blocks and head, and keeps the best epoch on val.

    Args:
        classifier: Its head is the start; frozen blocks are already out of the gradient.
        division: Which blocks are frozen.
        snapshot: The data.
        images: Its train and val images.
        checkpoints: Where the state is kept.
        settings: How to train.
        device: Where.
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
    ) -> None:
        self.classifier = classifier.to(device)
        self.division = division
        self.images = images
        self.checkpoints = checkpoints
        self.settings = settings
        self.device = device
        self.labels = snapshot.labels()
        self.ids = snapshot.image_ids()
        self.train_rows, self.val_rows = snapshot.rows("train"), snapshot.rows("val")
        self.batch_size = min(settings.batch_size, len(self.train_rows))
        # The last, incomplete batch is left out: a single image in it would break BatchNorm. The
        # order changes with the epoch, so every image has its turn.
        self.steps_per_epoch = len(self.train_rows) // self.batch_size
        self.steps = self.steps_per_epoch * settings.epochs
        self.class_weights = self._class_weights(len(snapshot.classes))
        groups = parameter_groups(
            classifier,
            division,
            learning_rate=settings.learning_rate,
            layer_decay=settings.layer_decay,
            weight_decay=settings.weight_decay,
        )
        self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.999))
        self.at = Progressed(micro_batch=self.batch_size)
        self.best: dict[str, Tensor] = {}

    def train(self) -> Progressed:
        """Train, or go on where a killed run stood, and load the best epoch's weights.

        Raises:
            TrainingError: The loss is not finite, or one image does not fit into memory.
        """
        self._resume()
        with _terminated() as stop, Progress("training", self.steps, "steps") as bar:
            bar.advance(self.at.steps_done)
            saved = time.monotonic()
            while not self.at.finished:
                for batch in self._rest_of_epoch():
                    self._step(*batch)
                    bar.advance()
                    if stop.is_set() or time.monotonic() - saved > CHECKPOINT_SECONDS:
                        self._save()
                        saved = time.monotonic()
                    if stop.is_set():
                        raise SystemExit(143)
                self._end_epoch()
                self._save()
                saved = time.monotonic()
        self._load(self.best)
        return self.at

    def logits(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Uncalibrated float32 logits (rows, classes), with the evaluation's preprocessing."""
        self.classifier.eval()
        parts = []
        decoded = ahead(self.images.decoded, [int(row) for row in rows])
        for batch in _chunks(decoded, EVALUATION_BATCH):
            x = network_input(batch, self.classifier.preprocessing, self.device, cropped=False)
            with torch.inference_mode():
                parts.append(self.classifier(x).float().cpu().numpy())
        return np.concatenate(parts)

    def _rest_of_epoch(self) -> Iterator[tuple[list[Image], NDArray[np.int64]]]:
        """The batches of the epoch under way that are not done: images and their rows."""
        settings, epoch = self.settings, self.at.epoch
        order = np.random.default_rng([settings.seed, epoch]).permutation(self.train_rows)
        order = order[self.at.step * self.batch_size : self.steps_per_epoch * self.batch_size]

        def load(row: int) -> Image:
            image = self.images.decoded(row)
            if not settings.augment:
                return image
            name = self.ids[row]
            return random_crop(
                image,
                seed=settings.seed,
                epoch=epoch,
                image_id=name,
                flip=settings.flip,
                whole=self.classifier.preprocessing.fit != "crop",
            )

        loaded = ahead(load, [int(row) for row in order])
        for number, batch in enumerate(_chunks(loaded, self.batch_size)):
            start = number * self.batch_size
            yield batch, order[start : start + len(batch)]

    def _step(self, images: list[Image], rows: NDArray[np.int64]) -> None:
        """One optimiser step; in smaller passes where memory is short."""
        self._set_rates()
        while True:
            try:
                loss = self._gradient(images, rows)
                break
            except torch.OutOfMemoryError as error:
                self._halve(error)
        if not math.isfinite(loss):
            self._diverged(loss)
        torch.nn.utils.clip_grad_norm_(
            [p for group in self.optimizer.param_groups for p in group["params"]], CLIP_NORM
        )
        self.optimizer.step()
        self.at.step += 1
        self.at.steps_done += 1
        self.at.loss_sum += loss

    def _gradient(self, images: list[Image], rows: NDArray[np.int64]) -> float:
        """Gradients of the batch's mean loss, added up over micro-batches; the loss."""
        self.optimizer.zero_grad(set_to_none=True)
        training_mode(
            self.classifier, self.division, adapt_batch_norm=self.settings.adapt_batch_norm
        )
        targets = torch.from_numpy(self.labels[rows]).to(self.device)
        total_weight = self.class_weights[targets].sum()
        total = 0.0
        with _seeded(self.settings.seed, self.at.steps_done, self.device):
            for start in range(0, len(images), self.at.micro_batch):
                part = slice(start, start + self.at.micro_batch)
                x = network_input(
                    images[part],
                    self.classifier.preprocessing,
                    self.device,
                    cropped=self.settings.augment,
                )
                with self._precision():
                    logits = self.classifier(x)
                loss = F.cross_entropy(
                    logits.float(),
                    targets[part],
                    weight=self.class_weights,
                    label_smoothing=self.settings.label_smoothing,
                    reduction="sum",
                )
                loss = loss / total_weight
                loss.backward()  # type: ignore[no-untyped-call]
                total += float(loss.detach())
        return total

    def _set_rates(self) -> None:
        """Linear warm-up, then half a cosine down to zero."""
        done, warm = self.at.steps_done, max(1, round(self.steps * self.settings.warmup_fraction))
        if done < warm:
            factor = (done + 1) / warm
        else:
            factor = 0.5 * (1 + math.cos(math.pi * (done - warm) / max(1, self.steps - warm)))
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * factor

    def _end_epoch(self) -> None:
        """Measure on val, keep the best weights, and see whether to go on."""
        at = self.at
        logits = torch.from_numpy(self.logits(self.val_rows)).double()
        targets = torch.from_numpy(self.labels[self.val_rows])
        accuracy = float((logits.argmax(dim=1) == targets).double().mean())
        loss = float(F.cross_entropy(logits, targets))
        at.epoch += 1
        train_loss = at.loss_sum / max(1, at.step)
        at.history.append(
            {
                "epoch": at.epoch,
                "train_loss": train_loss,
                "val_loss": loss,
                "val_accuracy": accuracy,
            }
        )
        at.step, at.loss_sum = 0, 0.0
        message(
            "epoch %d of %d: train loss %.4f, val loss %.4f, val accuracy %.4f",
            at.epoch,
            self.settings.epochs,
            train_loss,
            loss,
            accuracy,
        )
        if not math.isfinite(loss):
            self._diverged(loss)
        if (accuracy, -loss) > (at.best_accuracy, -at.best_loss):
            at.best_epoch, at.best_accuracy, at.best_loss = at.epoch, accuracy, loss
            self.best = {name: t.detach().cpu().clone() for name, t in self._state().items()}
        stale = at.epoch - at.best_epoch >= self.settings.patience
        at.finished = at.epoch >= self.settings.epochs or stale

    def _state(self) -> dict[str, Tensor]:
        """Every tensor that training changes, by name."""
        upper = trained_tensors(self.classifier.backbone, self.division)
        state = {f"backbone.{name}": tensor for name, tensor in upper.items()}
        head = self.classifier.head.state_dict(keep_vars=True)
        return {**state, **{f"head.{name}": tensor for name, tensor in head.items()}}

    def _save(self) -> None:
        state = dict(self._state()) if not self.at.finished else {}
        if state:
            for number, entry in self.optimizer.state_dict()["state"].items():
                for name, value in entry.items():
                    state[f"optimizer.{number}.{name}"] = torch.as_tensor(value)
        scalars = {**asdict(self.at), "best_loss": _json_float(self.at.best_loss)}
        self.checkpoints.save(Checkpoint(scalars, {"state": state, "best": self.best}))

    def _resume(self) -> None:
        found = self.checkpoints.latest()
        if found is None:
            return
        scalars = dict(found.scalars)
        scalars["best_loss"] = math.inf if scalars["best_loss"] is None else scalars["best_loss"]
        self.at, self.best = Progressed(**scalars), found.tensors.get("best", {})
        if not self.at.finished:
            self._load(found.tensors["state"])
            self._load_optimizer(found.tensors["state"])
        message(
            "Going on from a checkpoint: epoch %d, step %d of %d.",
            self.at.epoch + 1,
            self.at.step,
            self.steps_per_epoch,
        )

    def _load(self, tensors: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, tensor in self._state().items():
                tensor.copy_(tensors[name])

    def _load_optimizer(self, tensors: dict[str, Tensor]) -> None:
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("optimizer."):
                _, number, field_name = name.split(".")
                state.setdefault(int(number), {})[field_name] = tensor
        whole: dict[str, Any] = self.optimizer.state_dict()
        self.optimizer.load_state_dict({**whole, "state": state})

    def _precision(self) -> AbstractContextManager[Any]:
        if self.device.type == "cuda" and torch.cuda.is_bf16_supported():
            return torch.autocast("cuda", torch.bfloat16)
        return nullcontext()

    def _class_weights(self, classes: int) -> Tensor:
        weights = torch.ones(classes)
        if self.settings.class_weight == "balanced":
            counts = np.bincount(self.labels[self.train_rows], minlength=classes)
            shares = counts.sum() / ((counts > 0).sum() * np.maximum(counts, 1))
            weights = torch.from_numpy(shares).float()
        return weights.to(self.device)

    def _halve(self, error: Exception) -> None:
        """Half the images at once; the gradient stays that of the whole batch."""
        if self.at.micro_batch == 1:
            raise TrainingError(
                "one image does not fit into the device's memory",
                why=str(error).splitlines()[0],
                fix="freeze more blocks (fine_tune.frozen_fraction), set a smaller image_size "
                "or backbone, or take a device with more memory",
            ) from error
        self.optimizer.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()
        self.at.micro_batch = math.ceil(self.at.micro_batch / 2)
        message("Out of memory: going on with %d images at once.", self.at.micro_batch)

    def _diverged(self, loss: float) -> None:
        rate = self.settings.learning_rate
        raise TrainingError(
            f"the loss is {loss} in epoch {self.at.epoch + 1}, step {self.at.step + 1}",
            why=f"training diverged: learning_rate {rate:g} is too large for this network, or its "
            "weights are damaged",
            fix=f"set fine_tune.learning_rate (or scratch.learning_rate) to {rate / 10:g}",
        )


@contextmanager
def _seeded(seed: int, step: int, device: torch.device) -> Iterator[None]:
    """Dropout and its like draw from the seed and the step alone."""
    digest = hashlib.sha256(f"{seed}:{step}".encode()).digest()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int.from_bytes(digest[:7], "little"))
        yield


@contextmanager
def _terminated() -> Iterator[threading.Event]:
    """An event that a preempted node's SIGTERM sets, so that the state is saved first."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = signal.signal(signal.SIGTERM, lambda *_: event.set())
    try:
        yield event
    finally:
        signal.signal(signal.SIGTERM, before)


def _chunks(items: Iterator[Image], size: int) -> Iterator[list[Image]]:
    chunk: list[Image] = []
    for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _json_float(value: float) -> float | None:
    return value if math.isfinite(value) else None
