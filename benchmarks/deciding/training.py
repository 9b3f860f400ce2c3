"""Fine-tuning on stored outputs of the frozen lower half: the recipe of the step, one process.

Loss, optimiser, schedule, crops, moving average and patience are the step's own and its defaults;
``views: 4`` is its setting for stored outputs. Left out are the steps around it (stores, files,
checkpoints), so that a laptop can measure dozens of trainings.
"""

import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from graftline.classifier.bundle import Classifier, HeldOut
from graftline.models.backbone import Backbone
from graftline.steps.fine_tune.ema import Average
from graftline.steps.fine_tune.freezing import (
    Division,
    freeze,
    optimizer_for,
    training_mode,
)
from graftline.steps.fine_tune.images import network_input, random_crop
from graftline.steps.fine_tune.loop import CLIP_NORM
from graftline.steps.fine_tune.recipe import Settings
from graftline.steps.fine_tune.sampler import Sampler
from graftline.steps.fine_tune.schedule import rate_factor
from graftline.steps.fine_tune.split import Split, split
from graftline.steps.fine_tune.start_and_outcome import from_probe
from graftline.steps.fine_tune.state import tensors_of
from graftline.steps.fit_head.probe import Rows

VIEWS = 4
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
BATCH = 100

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Data:
    """Labels and splits of the images, and the outputs of the frozen half for each.

    Attributes:
        labels: Class indices, shape (N,).
        rows: Of each split.
        classes: Names.
        lower: For the whole image, shape (N, ...).
        views: For random crops of the training images, shape (VIEWS, train, ...).
        place: Where a training image is in ``views``, shape (N,).
    """

    labels: Rows
    rows: dict[str, Rows]
    classes: tuple[str, ...]
    lower: Tensor
    views: Tensor
    place: Rows


@dataclass(frozen=True)
class Trained:
    """What a training came to.

    Attributes:
        passes: Images that went forwards and backwards, each as often as it did.
        history: Accuracy and mean loss after each epoch, on the images that choose it.
        best_epoch: Whose weights were kept, counted from 1.
        logits: Of those weights, by name of the rows that were asked for.
    """

    passes: int
    history: list[tuple[float, float]]
    best_epoch: int
    logits: dict[str, Floats]


def crops(images: list[NDArray[np.uint8]], backbone: Backbone, halves: Split) -> Tensor:
    """The lower half's outputs for random crops of the images, shape (VIEWS, N, ...)."""
    preprocessing, found = backbone.spec.preprocessing, []
    for view in range(VIEWS):
        parts = [
            random_crop(image, seed=0, epoch=view, image_id=str(number), flip=False)
            for number, image in enumerate(images)
        ]
        x = network_input(parts, preprocessing, torch.device("cpu"), cropped=True)
        found.append(in_parts(halves.lower, x.to(DEVICE)))
    return torch.stack(found)


def pixels(path: Path) -> NDArray[np.uint8]:
    """A picture, (H, W, 3)."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def train(
    backbone: Backbone,
    division: Division,
    data: Data,
    head: nn.Module,
    rows: Rows,
    options: Settings,
    wanted: dict[str, Rows],
) -> Trained:
    """Train from the probe and keep the epoch that is best on ``wanted["val"]``.

    Args:
        backbone: As it was before; it is copied.
        division: Which blocks are trained.
        data: The images.
        head: The linear classifier to start from.
        rows: To train on.
        options: The recipe.
        wanted: Rows whose logits are returned.
    """
    classifier, halves = _start(backbone, division, data, head, wanted["val"])
    optimizer = optimizer_for(classifier, division, options)
    sampler = Sampler(rows, options.batch_size, options.epochs, options.seed)
    average = Average(tensors_of(classifier, division), options.ema)
    history = list[tuple[float, float]]()
    best: dict[str, Tensor] = {}
    reached, best_epoch, done = (-1.0, 0.0), 0, 0
    for epoch in range(options.epochs):
        training_mode(classifier, division, adapt_batch_norm=False)
        for step in range(done, sampler.end_of(epoch)):
            batch, passes = sampler.batch(step)
            factor = rate_factor(step, sampler.steps, options.warmup_fraction)
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * factor
            at = torch.from_numpy(np.stack([passes % VIEWS, data.place[batch]])).to(DEVICE)
            x = data.views[at[0], at[1]].contiguous(memory_format=torch.channels_last)
            wanted_labels = torch.from_numpy(data.labels[batch])
            logits = classifier.head(halves.upper(x))
            loss = nn.functional.cross_entropy(logits, wanted_labels.to(DEVICE))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            _clip(optimizer)
            optimizer.step()
            average.update(step + 1)
        done = sampler.end_of(epoch)
        with average.applied():
            logits_val = _logits(classifier, halves, data.lower[wanted["val"]])
            history.append(_measured(logits_val, data.labels[wanted["val"]]))
            if (history[-1][0], -history[-1][1]) > reached:
                reached, best_epoch = (history[-1][0], -history[-1][1]), epoch + 1
                best = {name: value.clone() for name, value in classifier.state_dict().items()}
        if epoch + 1 - best_epoch >= options.patience:
            break
    classifier.load_state_dict(best)
    found = {name: _logits(classifier, halves, data.lower[rows]) for name, rows in wanted.items()}
    return Trained(done * sampler.batch_size, history, best_epoch, found)


def _start(
    backbone: Backbone, division: Division, data: Data, head: nn.Module, val: Rows
) -> tuple[Classifier, Split]:
    network, head = copy.deepcopy(backbone), copy.deepcopy(head).to(DEVICE)
    start = Classifier(
        network,
        head,
        data.classes,
        preprocessing=network.spec.preprocessing,
        strategy="probe",
        snapshot_id="",
        backbone_fingerprint="none",
    )
    whole = split(network, division)
    assert whole is not None
    logits = _logits(start, whole, data.lower[val])
    state = {name: tensor.detach().cpu() for name, tensor in head.state_dict().items()}
    held_out = HeldOut(rows=val, logits=logits, head=state)
    classifier = from_probe(start, held_out, data.labels[val])
    classifier.to(DEVICE, memory_format=torch.channels_last)  # type: ignore[call-overload]
    freeze(classifier.backbone, division)
    halves = split(classifier.backbone, division)
    assert halves is not None
    return classifier, halves


def _clip(optimizer: torch.optim.Optimizer) -> None:
    weights = [p for group in optimizer.param_groups for p in group["params"]]
    torch.nn.utils.clip_grad_norm_(weights, CLIP_NORM)


def _logits(classifier: Classifier, halves: Split, lower: Tensor) -> Floats:
    classifier.eval()
    with torch.no_grad():
        laid = lower.contiguous(memory_format=torch.channels_last)
        found = in_parts(lambda x: classifier.head(halves.upper(x)), laid)
    logits: Floats = found.cpu().numpy()
    return logits


def _measured(logits: Floats, truth: Rows) -> tuple[float, float]:
    """Accuracy and mean loss."""
    loss = nn.functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(truth))
    return round(float((logits.argmax(axis=1) == truth).mean()), 5), round(float(loss), 5)


def in_parts(function: object, x: Tensor) -> Tensor:
    """The function over the batch, a hundred images at once."""
    assert callable(function)
    return torch.cat([function(part) for part in torch.split(x, BATCH)])
