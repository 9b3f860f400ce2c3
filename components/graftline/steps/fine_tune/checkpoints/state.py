"""What a checkpoint holds, and how it comes back: weights, optimiser, average, counters.

The learning rate, the sampler's position and every random number follow from the counters and the
seed, so there is no further state that could be forgotten.
"""

import copy
import math
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from graftline.classifier.bundle import Classifier
from graftline.steps.fine_tune.checkpoints.resume import BEST, Checkpoint
from graftline.steps.fine_tune.network.freezing import Division, trained_tensors
from graftline.steps.fine_tune.optimizer.ema import Average


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
    start_accuracy: float | None = None  # on val, before the first step
    below: int = 0  # epochs in a row under the probe
    rate: float = 1.0  # factor on every learning rate: the guard cuts it
    guarded_epoch: int = 0  # at whose end the guard cut it, from 1; 0 for never
    pilot_epoch: int = 0  # at whose end the pilot was compared with the probe; 0 for not yet
    pilot_gain: float = 0.0  # what that measured
    seconds: float = 0.0  # trained, by all processes
    history: list[dict[str, float]] = field(default_factory=list)
    numerics: dict[str, str] = field(default_factory=dict)  # what it was last computed with


def tensors_of(classifier: Classifier, division: Division) -> dict[str, Tensor]:
    """Every tensor that training changes, by name."""
    upper = trained_tensors(classifier.backbone, division)
    state = {f"backbone.{name}": tensor for name, tensor in upper.items()}
    head = classifier.head.state_dict(keep_vars=True)
    return {**state, **{f"head.{name}": tensor for name, tensor in head.items()}}


def copied(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same values on the CPU, which nobody changes any more."""
    return {name: t.detach().to("cpu", copy=True) for name, t in tensors.items()}


def put(tensors: dict[str, Tensor], values: dict[str, Tensor]) -> None:
    """Write values into a network's tensors, by name."""
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(values[name])


def gather(
    at: Progressed,
    tensors: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    average: Average,
    best: dict[str, Tensor],
) -> Checkpoint:
    """A checkpoint of the present moment; a finished training only needs its best weights."""
    state: dict[str, Tensor] = {}
    if not at.finished:
        state = copied(tensors)
        for number, entry in optimizer.state_dict()["state"].items():
            for name, value in entry.items():
                if value is not None:  # SGD has no momentum before its first step
                    state[f"optimizer.{number}.{name}"] = (
                        torch.as_tensor(value).detach().cpu().clone()
                    )
        state |= {f"average.{name}": t for name, t in copied(average.average).items()}
    scalars = {**asdict(at), "best_loss": at.best_loss if math.isfinite(at.best_loss) else None}
    return Checkpoint(scalars, {"state": state, BEST: best})


def restore(
    checkpoint: Checkpoint,
    tensors: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    average: Average,
) -> tuple[Progressed, dict[str, Tensor]]:
    """Put a checkpoint into the network and its optimiser; its counters and best weights."""
    scalars = copy.deepcopy(checkpoint.scalars)  # the history grows; what the store has does not
    scalars["best_loss"] = math.inf if scalars["best_loss"] is None else scalars["best_loss"]
    at, state = Progressed(**scalars), checkpoint.tensors.get("state", {})
    if not at.finished:
        put(tensors, state)
        _load_optimizer(optimizer, state)
        prefix = "average."
        average.load({n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)})
    return at, checkpoint.tensors.get(BEST, {})


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, number, field_name = name.split(".")
            like = parameters[int(number)]
            if tensor.shape == like.shape:  # in the parameter's own order of memory, as it was
                tensor = torch.empty_like(like, requires_grad=False).copy_(tensor)
            state.setdefault(int(number), {})[field_name] = tensor
    whole: dict[str, Any] = optimizer.state_dict()
    optimizer.load_state_dict({**whole, "state": state})
