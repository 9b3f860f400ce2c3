"""A head of fully connected layers, trained on stored features."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from graftline.classifier.heads import MLPHead
from graftline.errors import TrainingError
from graftline.progress import progress
from graftline.steps.fit_head.probes.scaling import Matrix, Standardisation, standardisation

BATCH = 256


@dataclass(frozen=True)
class TrainedHead:
    """A trained head that takes raw features.

    Attributes:
        head: Standardisation folded into its first layer; in eval mode, on the CPU.
        epochs: How many were trained.
        best_epoch: The one whose weights were kept, counted from 1.
        val_accuracy: Of the kept weights, on the images that chose the epoch.
    """

    head: MLPHead
    epochs: int
    best_epoch: int
    val_accuracy: float


def train_mlp(
    train: tuple[Matrix, NDArray[np.int64]],
    val: tuple[Matrix, NDArray[np.int64]] | None,
    classes: int,
    *,
    hidden: Sequence[int] = (256,),
    dropout: float = 0.2,
    epochs: int = 100,
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-2,
    patience: int = 10,
    seed: int = 0,
) -> TrainedHead:
    """Train the head with AdamW and keep the epoch with the lowest loss on other images.

    Args:
        train: Features (N, feature_dim) and class indices (N,).
        val: The same of images that choose the epoch; None to train for exactly ``epochs``.
        classes: Number of classes.
        hidden: Widths of the hidden layers.
        dropout: Probability of dropping a hidden unit while training.
        epochs: Most epochs.
        learning_rate: Of AdamW.
        weight_decay: Of AdamW.
        patience: Epochs without a lower loss before it stops.
        seed: Of the initial weights, the order and the dropout.

    Raises:
        TrainingError: The loss is not finite.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    scaling = standardisation(train[0])
    x, y = _tensors(scaling.apply(train[0]), train[1], device)
    others = None if val is None else _tensors(scaling.apply(val[0]), val[1], device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        head = MLPHead(train[0].shape[1], hidden, classes, dropout).to(device)
        optimizer = torch.optim.AdamW(
            head.parameters(), lr=learning_rate, weight_decay=weight_decay
        )
        best: dict[str, Tensor] = {}
        best_loss, best_epoch, best_accuracy, epoch = float("inf"), 0, 0.0, 0
        for epoch in progress(range(1, epochs + 1), "training the head", unit="epochs"):
            _train_epoch(head, optimizer, x, y)
            val_loss, accuracy = _measure(head.eval(), *(others or (x, y)))
            if not np.isfinite(val_loss):
                raise _diverged(val_loss, epoch, learning_rate)
            if others is None or val_loss < best_loss:
                best_loss, best_epoch, best_accuracy = val_loss, epoch, accuracy
                best = {name: tensor.clone() for name, tensor in head.state_dict().items()}
            elif epoch - best_epoch >= patience:
                break
    head.load_state_dict(best)
    return TrainedHead(_fold_in(head.cpu(), scaling), epoch, best_epoch, best_accuracy)


def _train_epoch(head: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> None:
    head.train()
    order = torch.randperm(len(x)).to(x.device)
    for batch in torch.split(order, BATCH):
        loss = F.cross_entropy(head(x[batch]), y[batch])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def _diverged(loss: float, epoch: int, learning_rate: float) -> TrainingError:
    return TrainingError(
        f"the head's loss is {loss} after epoch {epoch}",
        why=f"head.learning_rate {learning_rate} is too large for these features",
        fix=f"set head.learning_rate to {learning_rate / 10:g}",
    )


def _tensors(
    features: Matrix, labels: NDArray[np.int64], device: torch.device
) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(features).to(device), torch.from_numpy(labels).to(device)


def _measure(head: nn.Module, x: Tensor, y: Tensor) -> tuple[float, float]:
    """Mean loss and accuracy."""
    with torch.inference_mode():
        logits = head(x)
        accuracy = (logits.argmax(dim=1) == y).float().mean()
        return float(F.cross_entropy(logits, y)), float(accuracy)


def _fold_in(head: MLPHead, scaling: Standardisation) -> MLPHead:
    """Let the first layer take raw features: ``W/s x + (b - W/s m)``, in float64."""
    first = head[0]
    assert isinstance(first, nn.Linear)
    weight = first.weight.detach().double() / torch.from_numpy(scaling.scale)
    bias = first.bias.detach().double() - weight @ torch.from_numpy(scaling.mean)
    with torch.no_grad():
        first.weight.copy_(weight.float())
        first.bias.copy_(bias.float())
    return head.eval()
