"""Would a head gain from stored augmented views? On the data sets of benchmarks/decision.py.

    python benchmarks/head_views.py --pictures FOLDER [--sets glyphs terrain] [--size 320] [--json]

FOLDER is that of ``decision.py --pictures``; by default its half ``fit`` is used. The head of
`strategy: head` and the best probe are fitted on the features of the images, and on those of the
images and of ``--views`` random crops each, as fine_tune makes them. A fifth of the training
images, uncropped, chooses the number of epochs; both are then fitted on train and val. The figures
are accuracies on the test images.
"""

import argparse
import csv
import json
import statistics
from pathlib import Path

import numpy as np
import torch
from deciding.sets import SETS, cut
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table

from graftline.models.backbone import Backbone, build
from graftline.steps.fine_tune.inputs.images import network_input, random_crop
from graftline.steps.fit_head.mlp import train_mlp
from graftline.steps.fit_head.probes.folds import make_folds
from graftline.steps.fit_head.probes.search import fit_candidate, search

BACKBONE, IMAGE_SIZE, BATCH = "tf_efficientnet_lite0", 64, 100
GRID = (0.001, 0.01, 0.1, 1.0)

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
Given = tuple[Floats, Rows]


def main() -> None:
    """Measure each set and print the table."""
    options = arguments()
    backbone = build(BACKBONE, image_size=IMAGE_SIZE)
    console = Console(stderr=True)
    found = {name: measured(name, backbone, options) for name in options.sets}
    table = Table("data set", "probe", "probe, views", "head", "head, views")
    for name, accuracy in found.items():
        table.add_row(name, *(f"{100 * value:.1f}" for value in accuracy.values()))
    console.print(table)
    gains = [100 * (one["head with views"] - one["head"]) for one in found.values()]
    against = [100 * (one["head with views"] - one["probe"]) for one in found.values()]
    result = {
        "head_gains_points": round(statistics.mean(gains), 2),
        "head_with_views_over_probe_points": round(statistics.mean(against), 2),
        "datasets": len(found),
        "accuracy": found,
    }
    print(json.dumps(result) if options.json else result)


def measured(name: str, backbone: Backbone, options: argparse.Namespace) -> dict[str, float]:
    """Accuracy on test images of probe and head, without and with views."""
    images, labels, split = read(cut(name, options.pictures / name, options.size, 0).table)
    train = np.flatnonzero(split == "train")
    both = np.flatnonzero(split != "test")
    test = np.flatnonzero(split == "test")
    preprocessing = backbone.spec.preprocessing
    whole = features(backbone, images)
    views = [whole]
    for view in range(options.views):
        crops = [
            random_crop(images[row], seed=0, epoch=view, image_id=str(row), flip=False)
            for row in both
        ]
        inputs = network_input(crops, preprocessing, torch.device("cpu"), cropped=True)
        cropped = np.zeros_like(whole)
        cropped[both] = outputs(backbone, inputs)
        views.append(cropped)
    classes = int(labels.max()) + 1
    folds = make_folds(labels[train], np.arange(len(train)), tuple(map(str, range(classes))), 5, 0)
    inside, outside = next(iter(folds))

    def given(rows: Rows, some: list[Floats]) -> Given:
        return np.concatenate([x[rows] for x in some]), np.tile(labels[rows], len(some))

    found = dict[str, float]()
    best = search(whole[train], labels[train], folds, classes, grid=GRID, balanced=False)[0]
    for suffix, some in (("", [whole]), (" with views", views)):
        x, y = given(both, some)
        fit, scaling = fit_candidate(x, y, classes, best, balanced=False)
        said = fit.decide(scaling.apply(whole[test])).argmax(axis=1)
        found[f"probe{suffix}"] = float((said == labels[test]).mean())
    for suffix, some in (("", [whole]), (" with views", views)):
        stopped = train_mlp(given(train[inside], some), given(train[outside], [whole]), classes)
        head = train_mlp(given(both, some), None, classes, epochs=stopped.best_epoch).head
        with torch.inference_mode():
            said = head(torch.from_numpy(whole[test])).argmax(dim=1).numpy()
        found[f"head{suffix}"] = float((said == labels[test]).mean())
    return {key: round(value, 5) for key, value in found.items()}


def read(table: Path) -> tuple[list[NDArray[np.uint8]], Rows, NDArray[np.str_]]:
    """Images, class indices and splits."""
    with table.open(newline="") as file:
        lines = list(csv.DictReader(file))
    images = []
    for line in lines:
        with Image.open(table.parent / line["image"]) as image:
            images.append(np.asarray(image.convert("RGB")))
    _, labels = np.unique([line["label"] for line in lines], return_inverse=True)
    return images, labels.astype(np.int64), np.array([line.get("split", "") for line in lines])


def features(backbone: Backbone, images: list[NDArray[np.uint8]]) -> Floats:
    """Of images as the network sees them in evaluation."""
    apply = backbone.spec.preprocessing.apply
    return outputs(backbone, torch.stack([apply(image) for image in images]))


def outputs(backbone: Backbone, x: torch.Tensor) -> Floats:
    """Of a batch of network inputs."""
    with torch.inference_mode():
        found: Floats = torch.cat([backbone(part) for part in torch.split(x, BATCH)]).numpy()
    return found


def arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    fit = [name for name, data in SETS.items() if data.half == "fit"]
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=fit)
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    return parser.parse_args()


if __name__ == "__main__":
    main()
