"""What `extract_features` makes of this machine: each figure beside its limit or its target.

    python benchmarks/features.py                        everything
    python benchmarks/features.py --backbones resnet50   the speed of one network
    python benchmarks/features.py --only again           second runs

Sections:
    speed    from a snapshot's shards to stored features, on JPEG photographs of 500 x 375: the
             fraction of the limit, and how many times as fast as what a user would write (timm,
             ImageFolder, DataLoader, PyTorch in fp32). On a CPU the limit is the fastest decoding
             and resizing alone and the fastest library's forward pass alone on ready batches, one
             after the other, since both share the cores. On a CUDA device it is the forward pass;
             there the time runs from the first batch of features on, so that the start of the
             processes that decode, about a second once a run, stays out of it, and 60,000
             images keep it going for seconds. Core time counts that start.
    again    the second run among 50,000 images: with 1% of them new, and with nothing new.
    memory   1,000,000 stored vectors assembled into the artifact: memory above the matrix.

Ratios are medians over rounds in which both sides run next to each other: rates alone mean little
on a shared machine. "of core time" is the same fraction in processor time, which neighbours disturb
less: what decoding and the forward pass alone take, of what the extraction takes. "in core time" is
the same for the user's own loop.
With --json the last line is one JSON object.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

import torch
from extraction.photographs import console, make_data
from extraction.second_runs import (
    AGAIN_IMAGES,
    measure_again,
    measure_memory,
    measure_nothing_new,
)
from extraction.speed import BACKBONES, Speed, measure_speed
from rich.console import Console
from rich.table import Table

from graftline import machine
from graftline.inference.engine import resolve_precision

SECTIONS = ("speed", "again", "memory")
IMAGES, DEVICE_IMAGES = 6_000, 60_000
FRACTION_TARGET = 0.9
FASTER_TARGETS = {"tf_efficientnet_lite0": 5.0, "resnet50": 1.8}
AGAIN_TARGET, NOTHING_TARGET, MEMORY_TARGET = 0.03, 2.0, 1024.0


def speed_table(speeds: list[Speed]) -> Table:
    """Medians of all rounds, a row for each network and precision."""
    table = Table(title="From shards to stored features, images a second (medians)")
    for heading in (
        "backbone",
        "precision",
        "engine",
        "cosine",
        "decode",
        "forward",
        "limit",
        "found",
        "of the limit",
        "of core time",
        "eager",
        "times eager",
        "in core time",
    ):
        table.add_column(heading, justify="left" if heading in ("backbone", "engine") else "right")
    for speed in speeds:
        faster = FASTER_TARGETS.get(speed.backbone)
        table.add_row(
            speed.backbone,
            speed.precision,
            speed.engine,
            f"{speed.cosine:.5f}",
            *(
                f"{statistics.median(values):.1f}"
                for values in (speed.decode, speed.forward, speed.limits, speed.end_to_end)
            ),
            judged(speed.fraction, FRACTION_TARGET, f"{speed.fraction:.2f}", "≥"),
            f"{statistics.median(speed.core_fractions):.2f}",
            f"{statistics.median(speed.eager):.1f}",
            judged(speed.times_faster, faster, f"{speed.times_faster:.1f}", "≥"),
            f"{statistics.median(speed.core_times):.1f}",
        )
    return table


def judged(value: float, target: float | None, text: str, sign: str) -> str:
    """A figure with its target, green where it is met."""
    if target is None:
        return text
    met = value >= target if sign == "≥" else value <= target
    return f"[{'green' if met else 'red'}]{text}[/] ({sign} {target:g})"


def device_name() -> str:
    """The device, or the processor."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{machine.processor().partition(';')[0]}, {machine.cores()} cores"


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--images",
        type=int,
        default=DEVICE_IMAGES if torch.cuda.is_available() else IMAGES,
        help=f"of speed (default: {IMAGES:,}; {DEVICE_IMAGES:,} with a CUDA device)",
    )
    parser.add_argument(
        "--again-images", type=int, default=AGAIN_IMAGES, help="of second runs (default: 50,000)"
    )
    parser.add_argument("--backbones", default=",".join(BACKBONES), help="separated by commas")
    parser.add_argument("--only", choices=SECTIONS, action="append", help="one section; repeatable")
    parser.add_argument("--precision", choices=("fp32", "bf16"), help="default: both where it can")
    parser.add_argument("--rounds", type=int, default=3, help="of each measurement (default: 3)")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each rate (default: 8)")
    parser.add_argument("--count", type=int, help="images of an extraction, in place of --seconds")
    parser.add_argument(
        "--folder", type=Path, help="for 12 GB of temporary files, 16 with a CUDA device"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    return parser.parse_args()


def speed_section(
    folder: Path, precisions: list[str], options: argparse.Namespace
) -> tuple[Table, dict[str, object]]:
    """The speed of each network: the table, and its figures for JSON."""
    data = make_data(folder / "photos", options.images)
    speeds = [
        speed
        for backbone in options.backbones.split(",")
        for speed in measure_speed(data, backbone, precisions, options)
    ]
    found: dict[str, object] = {}
    for key, of in (
        ("fraction_of_limit", "fraction"),
        ("times_faster_than_eager", "times_faster"),
    ):
        by = {
            precision: {
                speed.backbone: round(getattr(speed, of), 3)
                for speed in speeds
                if speed.precision == precision
            }
            for precision in precisions
        }
        found[key], found[f"{key}_by_precision"] = by[precisions[-1]], by
    found["in_core_time"] = {
        f"{speed.backbone} {speed.precision}": {
            "fraction_of_limit": round(statistics.median(speed.core_fractions), 3),
            "times_faster_than_eager": round(statistics.median(speed.core_times), 2),
            "cosine": round(speed.cosine, 6),
        }
        for speed in speeds
    }
    return speed_table(speeds), found


def again_section(
    folder: Path, precision: str, options: argparse.Namespace
) -> tuple[list[tuple[str, str, str]], dict[str, object]]:
    """Second runs: rows of the table, and figures for JSON."""
    data = make_data(folder / "more-photos", options.again_images)
    again = measure_again(data, precision, options)
    fraction = again["second"] / again["first"]
    seconds = measure_nothing_new(folder / "nothing", options.rounds)
    rows = [
        (
            f"second run, {again['new']:.0f} new beside {again['images']:,.0f} images, of the "
            f"first ({again['second']:.1f} s of {again['first']:.1f} s, whole processes)",
            f"{fraction:.3f}",
            f"≤ {AGAIN_TARGET}",
        ),
        (
            "nothing new among 50,000 images, whole process",
            f"{seconds:.2f} s",
            f"< {NOTHING_TARGET:g} s",
        ),
    ]
    return rows, {
        "second_run_fraction": round(fraction, 4),
        "nothing_new_seconds_50k": round(seconds, 2),
    }


def memory_section(folder: Path) -> tuple[list[tuple[str, str, str]], dict[str, object]]:
    """Memory of a million vectors: a row of the table, and its figure for JSON."""
    extra = measure_memory(folder / "many")
    row = (
        "1,000,000 vectors of 1,280 assembled, memory besides the matrix",
        f"{extra:.0f} MiB",
        f"< {MEMORY_TARGET:g} MiB",
    )
    return [row], {"million_extra_mib": round(extra)}


def main() -> None:
    """Measure, print tables, print JSON."""
    options = arguments()
    sections = options.only or SECTIONS
    auto = resolve_precision("auto")
    precisions = [options.precision] if options.precision else sorted({"fp32", auto}, reverse=True)
    found: dict[str, object] = {"device": device_name(), "precision": precisions[-1]}
    console.print(f"{found['device']}; PyTorch {torch.__version__}")
    tables, rows = [], []
    with tempfile.TemporaryDirectory(prefix="graftline-", dir=options.folder) as name:
        folder = Path(name)
        if "speed" in sections:
            table, figures = speed_section(folder, precisions, options)
            tables.append(table)
            found |= figures
        if "again" in sections:
            more, figures = again_section(folder, precisions[-1], options)
            rows += more
            found |= figures
        if "memory" in sections:
            more, figures = memory_section(folder)
            rows += more
            found |= figures
    if rows:
        tables.append(other := Table("measured", "found", "target", title="Second runs and memory"))
        for row in rows:
            other.add_row(*row)
    out = Console(width=180)
    for table in tables:
        out.print(table)
    if options.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
