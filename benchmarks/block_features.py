"""Features of all blocks instead of fine-tuning? On the data sets of benchmarks/decision.py.

    python benchmarks/block_features.py --pictures FOLDER [--sets glyphs terrain] [--sizes 320]

FOLDER is that of ``decision.py --pictures``. On each set and size that decision.py's table has, the
probe is searched and fitted on features of the last block and of all blocks
(`backbone: tf_efficientnet_lite0+blocks`, 64 pixels), with fit_head's own search over three
families, three scalings and four values of C. Accuracies are those on test images; the trained
network's is the table's. Nothing is trained. Rows that ``--out`` has are not measured again.

    regret   accuracy of the best of probe, fine-tuned network and probe on all blocks, less that of
             the probe on all blocks where cross-validation finds it at least as good, else of the
             probe; in points
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from deciding.sets import SETS, cut
from head_views import Floats, Rows, features, read
from rich.console import Console
from rich.table import Table

from graftline.models.backbone import build
from graftline.steps.fit_head.decision.forecast import TABLE
from graftline.steps.fit_head.probes.folds import make_folds
from graftline.steps.fit_head.probes.search import fit_candidate, search

BACKBONE, IMAGE_SIZE = "tf_efficientnet_lite0", 64
KINDS = {"probe": "", "all blocks": "+blocks"}
GRID = (0.001, 0.01, 0.1, 1.0)

Row = dict[str, Any]


def main() -> None:
    """Measure what is missing, and print the table."""
    options = arguments()
    rows = read_rows(options.out)
    known = {(row["set"], row["size"]) for row in rows}
    for given in json.loads(TABLE.read_text("utf-8"))["rows"]:
        pair = given["set"], given["size"]
        wanted = pair[0] in options.sets and (not options.sizes or pair[1] in options.sizes)
        wanted = wanted and given["draw"] == 0
        if wanted and pair not in known:
            rows.append(measured(given, options.pictures))
            if options.out is not None:
                with options.out.open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
    show(rows)
    result = {half: figures([r for r in rows if r["half"] == half]) for half in ("fit", "measure")}
    print(json.dumps(result) if options.json else result)


def read_rows(path: Path | None) -> list[Row]:
    """What was measured before."""
    if path is None or not path.exists():
        return []
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def measured(given: Row, pictures: Path) -> Row:
    """Both probes on one set at one size.

    Args:
        given: Its row in the table of decision.py.
        pictures: Folder with the sets' pictures.
    """
    images, labels, split = read(cut(given["set"], pictures / given["set"], given["size"], 0).table)
    row = {key: given[key] for key in ("set", "half", "size")}
    row |= {"trained": given["accuracy"]["training"], "table": given["accuracy"]["probe"]}
    for kind, ending in KINDS.items():
        began = time.process_time()
        x = features(build(BACKBONE + ending, image_size=IMAGE_SIZE), images)
        row[kind], row[f"{kind}, folds"] = probe(x, labels, split)
        row[f"{kind}, seconds"] = round(time.process_time() - began, 1)
    return row


def probe(x: Floats, labels: Rows, split: np.ndarray[Any, Any]) -> tuple[float, float]:
    """Accuracy of the best probe on test images, and in the cross-validation on train."""
    train, both = np.flatnonzero(split == "train"), np.flatnonzero(split != "test")
    test = np.flatnonzero(split == "test")
    classes = int(labels.max()) + 1
    names = tuple(map(str, range(classes)))
    folds = make_folds(labels[train], np.arange(len(train)), names, 5, 0)
    best = search(x[train], labels[train], folds, classes, grid=GRID, balanced=False)[0]
    fit, scaling = fit_candidate(x[both], labels[both], classes, best, balanced=False)
    said = fit.decide(scaling.apply(x[test])).argmax(axis=1)
    return round(float((said == labels[test]).mean()), 5), round(best.accuracy, 5)


def regret(row: Row) -> float:
    """See the top; in points."""
    chosen = "all blocks" if row["all blocks, folds"] >= row["probe, folds"] else "probe"
    best = max(row["probe"], row["all blocks"], row["trained"])
    return float(100 * (best - row[chosen]))


def figures(rows: list[Row]) -> dict[str, float]:
    """Of one half."""
    if not rows:
        return {}
    regrets = [regret(row) for row in rows]
    over_probe = [100 * (row["all blocks"] - row["probe"]) for row in rows]
    over_trained = [100 * (row["all blocks"] - row["trained"]) for row in rows]
    return {
        "rows": len(rows),
        "over_probe_points": round(statistics.mean(over_probe), 2),
        "over_trained_points": round(statistics.mean(over_trained), 2),
        "least_over_trained_points": round(min(over_trained), 2),
        "mean_regret_points": round(statistics.mean(regrets), 3),
        "worst_regret_points": round(max(regrets), 2),
    }


def show(rows: list[Row]) -> None:
    """A line for each set and size."""
    table = Table("half", "data set", "size", "probe", "trained", "all blocks", "regret", "seconds")
    for row in sorted(rows, key=lambda row: (row["half"], row["set"], row["size"])):
        accuracies = [f"{100 * row[name]:.1f}" for name in ("probe", "trained", "all blocks")]
        seconds = f"{row['probe, seconds']:.0f}, {row['all blocks, seconds']:.0f}"
        table.add_row(
            row["half"], row["set"], str(row["size"]), *accuracies, f"{regret(row):.1f}", seconds
        )
    Console(stderr=True).print(table)


def arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    fit = [name for name, data in SETS.items() if data.half == "fit"]
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=fit)
    parser.add_argument("--sizes", nargs="+", type=int, help="of these alone")
    parser.add_argument("--out", type=Path, help="keep each row there at once")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    return parser.parse_args()


if __name__ == "__main__":
    main()
