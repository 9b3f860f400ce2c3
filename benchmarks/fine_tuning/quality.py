"""Test accuracy of Graftline, its probe, fastai and a plain script: same weights, same split."""

import argparse
import copy
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from torch import nn

from fine_tuning.pictures import SETS
from graftline.classifier.bundle import load_classifier
from graftline.data.snapshot import Snapshot, read_images, read_snapshot
from graftline.images import decode
from graftline.models.backbone import Backbone, build
from graftline.steps.extract_features.step import run as extract_features
from graftline.steps.fine_tune.network.precision import autocast
from graftline.steps.fine_tune.step import FineTuneResult
from graftline.steps.fine_tune.step import run as fine_tune
from graftline.steps.fit_head.step import FitHeadResult
from graftline.steps.fit_head.step import run as fit_head
from graftline.steps.ingest.step import run as ingest
from graftline.storage import open_store
from graftline_pipelines.local.screen import show_table

METHODS = ("probe", "graftline", "auto", "fastai", "plain")
BATCH = 64
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

console = Console(stderr=True)
Data = dict[str, tuple[list[np.ndarray], np.ndarray]]


def run(arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Accuracy by data set and method, the mean over seeds."""
    accuracy: dict[str, dict[str, float]] = {}
    for name in arguments.sets:
        with tempfile.TemporaryDirectory(prefix="fine-tune-") as folder:
            accuracy[name] = one_set(name, Path(folder), arguments)
    _show(accuracy)
    return accuracy


def one_set(name: str, folder: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """All methods on one data set."""
    data = prepared(name, folder, arguments)
    found: dict[str, float] = {}
    for method in arguments.methods:
        # The probe has no randomness that a seed would change.
        seeds = 1 if method in ("probe", "auto") else arguments.seeds
        each = [WAYS[method](folder, data, arguments, seed) for seed in range(seeds)]
        found[method] = statistics.fmean(each)
        console.print(f"{name}: {method} {found[method]:.4f} of {each}")
    return found


def prepared(name: str, folder: Path, arguments: argparse.Namespace) -> Data:
    """Everything up to the fitted probe, and the decoded images of each split."""
    SETS[name](folder / "images", arguments.images)
    store = str(folder / "store")
    ingest(
        source=str(folder / "images"),
        store=store,
        snapshot_folder=folder / "snapshot",
        near_duplicates="off",  # glyphs and digits are alike by nature
    )
    extract_features(
        snapshot_folder=folder / "snapshot",
        features_folder=folder / "features",
        store=store,
        backbone=arguments.backbone,
        image_size=arguments.image_size,
    )
    decided(folder, folder / "probe", arguments, "fine_tune")
    snapshot = read_snapshot(folder / "snapshot")
    return {split: _pixels(snapshot, split, store) for split in ("train", "val", "test")}


def decided(
    folder: Path, into: Path, arguments: argparse.Namespace, strategy: str
) -> FitHeadResult:
    """What fit_head makes of a strategy; it writes its classifier into a folder."""
    return fit_head(
        snapshot_folder=folder / "snapshot",
        features_folder=folder / "features",
        classifier_folder=into,
        decision_file=into.with_suffix(".decision.json"),
        store=str(folder / "store"),
        backbone=arguments.backbone,
        image_size=arguments.image_size,
        strategy=strategy,
    )


def _pixels(snapshot: Snapshot, split: str, store: str) -> tuple[list[np.ndarray], np.ndarray]:
    rows = snapshot.rows(split)
    read = dict(read_images(snapshot, rows, store=open_store(store)))
    return [decode.decode(read[row]) for row in rows], snapshot.labels()[rows]


def _probe(folder: Path, data: Data, _: argparse.Namespace, __: int) -> float:
    return bundle_accuracy(folder / "probe", data)


def _graftline(folder: Path, data: Data, arguments: argparse.Namespace, seed: int) -> float:
    options = dict(option.split("=") for option in arguments.set)
    settings = {key: _value(value) for key, value in options.items()}
    trained(folder, folder / "tuned", epochs=arguments.epochs, seed=seed, **settings)
    return bundle_accuracy(folder / "tuned", data)


def _auto(folder: Path, data: Data, arguments: argparse.Namespace, seed: int) -> float:
    """What `strategy: auto` delivers: a probe, one on all blocks, or the trained network."""
    fitted = decided(folder, folder / "auto", arguments, "auto")
    console.print(f"auto chooses {fitted.strategy}: {fitted.decision['reasons'][-1]}")
    if fitted.strategy == "fine_tune":
        return _graftline(folder, data, arguments, seed)
    return bundle_accuracy(folder / "auto", data)


def trained(folder: Path, into: Path, **settings: Any) -> FineTuneResult:
    """What the step makes of these settings; it writes its classifier into a folder."""
    return fine_tune(
        snapshot_folder=folder / "snapshot",
        probe_folder=folder / "probe",
        decision_file=folder / "probe.decision.json",
        store=str(folder / "store"),
        classifier_folder=into,
        decision_out=into.with_suffix(".json"),
        **settings,
    )


def _value(text: str) -> object:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text, text)


def bundle_accuracy(folder: Path, data: Data) -> float:
    """Of a written classifier on the test images."""
    classifier = load_classifier(folder).eval().to(DEVICE)
    images, truth = data["test"]
    inputs = [classifier.preprocessing.apply(image) for image in images]
    return _accuracy(classifier, torch.stack(inputs), truth)


def _accuracy(network: nn.Module, inputs: torch.Tensor, truth: np.ndarray) -> float:
    with torch.inference_mode():
        parts = torch.split(inputs, BATCH)
        labels = torch.cat([network(part.to(DEVICE)).argmax(1).cpu() for part in parts])
    return float((labels.numpy() == truth).mean())


def _plain(folder: Path, data: Data, arguments: argparse.Namespace, seed: int) -> float:
    """The transfer learning tutorial of PyTorch: all layers, SGD, one step in the rate."""
    torch.manual_seed(seed)
    backbone, images, (train, labels) = _fresh(arguments), _Inputs(arguments), data["train"]
    network = _Mixed(backbone, nn.Linear(backbone.spec.feature_dim, labels.max() + 1))
    network.to(DEVICE)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    steps = torch.optim.lr_scheduler.StepLR(optimizer, max(1, 2 * arguments.epochs // 3), 0.1)
    for _ in range(arguments.epochs):
        network.train()
        order = torch.split(torch.randperm(len(train)), BATCH)
        for part in order[: max(1, len(train) // BATCH)]:
            x = torch.stack([images.cropped(train[i]) for i in part]).to(DEVICE)
            y = torch.from_numpy(labels[part.numpy()]).to(DEVICE)
            loss = nn.functional.cross_entropy(network(x), y)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        steps.step()
    test, truth = data["test"]
    return _accuracy(network.eval(), torch.stack([images.whole(i) for i in test]), truth)


def _fastai(folder: Path, data: Data, arguments: argparse.Namespace, seed: int) -> float:
    """``vision_learner`` and ``fine_tune``, as fastai documents them for a network of timm.

    Its head, its pooling, its groups of layers, its rates and its loaders are the defaults of its
    documentation. The weights are the same as everywhere here, put into the body that it made; the
    crops are the plain script's, since its default augmentation mirrors digits and letters.

    Two defaults are not kept. It cuts a border off held-out images, which here is a part of the
    digit; they are seen whole, as by the others. And BatchNorm keeps its pretrained statistics in
    the body, as in Graftline (fastai's own `BnFreeze` does so for layers that do not train): with
    those of each batch the body gives other features, and its rate, a hundredth of the head's, does
    not bring them back in the few hundred steps of small data. Validation of 640 digits of 64
    pixels after 40 steps: 43% with the defaults (at five times the rate), 80% with both. It trains
    in fp32, its default: in bf16 on a CPU it ends at 13% where its own weights give 65% in fp32.
    """
    try:
        from fastai.vision.all import (  # type: ignore[import-not-found, unused-ignore]
            ImageDataLoaders,
            Normalize,
            RandomResizedCrop,
            set_seed,
            vision_learner,
        )
    except ImportError:
        sys.exit("fastai is not installed: pip install fastai, or --methods without it")
    set_seed(seed)
    backbone = _fresh(arguments)
    preprocessing, name = backbone.spec.preprocessing, backbone.spec.name.rpartition("/")[2]
    files = folder / "fastai"
    shutil.rmtree(files, ignore_errors=True)
    paths = {split: _written(files / split, *data[split]) for split in data}
    loaders = ImageDataLoaders.from_folder(
        files,
        train="train",
        valid="val",
        bs=BATCH,
        seed=seed,
        num_workers=0,
        device=DEVICE,
        item_tfms=RandomResizedCrop(preprocessing.input_size, min_scale=0.6, val_xtra=0),
        batch_tfms=Normalize.from_stats(preprocessing.mean, preprocessing.std),
    )

    learner = vision_learner(
        loaders, name, pretrained=False, normalize=False, cbs=_kept_statistics()
    )
    kept = learner.model[0].model.load_state_dict(backbone.network.state_dict(), strict=False)
    if kept.missing_keys:
        raise SystemExit(f"fastai's network has other weights than ours: {kept.missing_keys[:5]}")
    with learner.no_bar(), learner.no_logging():
        learner.fine_tune(arguments.epochs)
        scores, _ = learner.get_preds(dl=loaders.test_dl(paths["test"]))
    labels = np.array([int(loaders.vocab[number]) for number in scores.argmax(1)])
    return float((labels == data["test"][1]).mean())


def _kept_statistics() -> Any:
    """A callback of fastai under which the body's BatchNorm keeps its pretrained statistics."""
    from fastai.vision.all import (  # type: ignore[import-not-found, unused-ignore]
        Callback,
        TrainEvalCallback,
    )

    class KeptStatistics(Callback):  # type: ignore[misc, unused-ignore]
        run_after = TrainEvalCallback

        def before_train(self) -> None:
            for module in self.model[0].modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()

    return KeptStatistics()


def _written(folder: Path, images: list[np.ndarray], labels: np.ndarray) -> list[Path]:
    """The same pixels as PNG files, in a folder for each class."""
    paths = []
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        paths.append(folder / f"{label:03}" / f"{number:05}.png")
        paths[-1].parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(paths[-1], compress_level=1)
    return paths


class _Mixed(nn.Sequential):
    """A network in bf16 where the machine computes in it, as Graftline does it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits in fp32; evaluations compute in fp32 throughout."""
        with autocast(x.device, "auto" if self.training else "fp32"):
            logits: torch.Tensor = super().forward(x)  # type: ignore[no-untyped-call]
        return logits.float()


class _Inputs:
    """Random crops for training and the network's own preprocessing for evaluation."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        from torchvision.transforms import v2

        self._preprocessing = _fresh(arguments).spec.preprocessing
        size = self._preprocessing.input_size
        self._crop = v2.RandomResizedCrop(size, scale=(0.6, 1.0), antialias=True)

    def cropped(self, image: np.ndarray) -> torch.Tensor:
        pixel = torch.from_numpy(image.copy()).permute(2, 0, 1)
        return self._preprocessing.normalise(self._crop(pixel).float())

    def whole(self, image: np.ndarray) -> torch.Tensor:
        return self._preprocessing.apply(image)


def _fresh(arguments: argparse.Namespace) -> Backbone:
    return copy.deepcopy(build(arguments.backbone, image_size=arguments.image_size))


WAYS = {
    "probe": _probe,
    "graftline": _graftline,
    "auto": _auto,
    "fastai": _fastai,
    "plain": _plain,
}


def _show(accuracy: dict[str, dict[str, float]]) -> None:
    """Test accuracy by set and method; no cell is cut, however narrow the terminal."""
    rows = [
        (name, *(f"{found[method]:.1%}" if method in found else "" for method in METHODS))
        for name, found in accuracy.items()
    ]
    console.print("Test accuracy", style="bold")
    show_table(("data set", *METHODS), rows, console, right=METHODS)
