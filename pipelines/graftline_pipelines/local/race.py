"""Which backbone suits this data: features and a probe of each on growing samples of it.

All backbones see the same images. After each sample, those that cannot become the most accurate
any more are left out of the next, larger one. Features go into the store as in a run, under the
backbone's fingerprint, so the run that follows does not compute them again.
"""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from graftline.data.sampling import stratified_sample
from graftline.data.snapshot import Snapshot, read_snapshot, write_snapshot
from graftline.errors import ConfigurationError
from graftline.features.matrix import read_features
from graftline.models.backbone import Backbone, build
from graftline.progress import message
from graftline.stats.intervals import difference_interval, wilson
from graftline.steps.extract_features.step import run as extract_features
from graftline.steps.fit_head.probe import group_numbers
from graftline.steps.fit_head.probes.held_out import best_probe
from graftline.steps.ingest.step import run as ingest
from graftline.storage import open_store
from graftline_pipelines.local.latency import milliseconds
from graftline_pipelines.runfile.settings import RunSettings, arguments

FIRST_SAMPLE = 250
CONFIDENCE = 0.95  # that no backbone is stopped which is the most accurate
BYTES = 4  # of a parameter, in fp32

Right = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Entrant:
    """One backbone's result.

    Attributes:
        name: As the run file takes it.
        accuracy: Of its probe by cross-validation; on the largest sample, or projected to it.
        interval: 95% interval of it.
        images: Of the largest sample that it was measured on.
        latency_ms: Of one image on one core, by ONNX Runtime in fp32.
        megabytes: Of its weights in fp32.
        image_size: In pixels.
        stopped: Why it was not measured on the largest sample; empty where it was.
        pareto: Whether no other is at least as accurate and as fast, and better in one.
    """

    name: str
    accuracy: float
    interval: tuple[float, float]
    images: int
    latency_ms: float
    megabytes: float
    image_size: int
    stopped: str = ""
    pareto: bool = False


@dataclass(frozen=True, kw_only=True)
class Race:
    """What a race came to.

    Attributes:
        entrants: The most accurate first.
        chosen: The fastest of those that cannot be told from the most accurate one.
        why: Of the choice, in a sentence.
        images: Of the largest sample.
        snapshot_id: Of the data.
        source: Of the data.
        unmeasured: Backbones that the budget left no time for.
        seconds: It took.
    """

    entrants: tuple[Entrant, ...]
    chosen: str
    why: str
    images: int
    snapshot_id: str
    source: str
    unmeasured: tuple[str, ...]
    seconds: float


@dataclass
class _Runner:
    """A backbone while the race is on."""

    name: str
    network: Backbone
    right: Right | None = None
    images: int = 0
    seconds_an_image: float = 0.0
    behind: tuple[float, tuple[float, float]] | None = None
    stopped: str = ""


def race(
    settings: RunSettings, names: Sequence[str], *, images: int, minutes: float | None = None
) -> Race:
    """Let backbones compete on a stratified sample of the training images.

    Args:
        settings: The run file, local paths absolute.
        names: Of the backbones.
        images: Of the largest sample.
        minutes: No further measurement is begun that would likely end later than this.

    Raises:
        ConfigurationError: Under two backbones, or weights are given that fit only one.
        GraftlineError: The data or a backbone's weights cannot be had.
    """
    names = list(dict.fromkeys(names))
    if len(names) < 2:
        raise ConfigurationError(
            f"A race needs at least two backbones, not {', '.join(names) or 'none'}",
            fix="Name several, such as --backbones tf_efficientnet_lite0,resnet50.",
        )
    if settings.weights not in (None, "random"):
        raise ConfigurationError(
            "`weights` in the run file fits one backbone, not several",
            fix="Remove it for the race, or mirror each backbone's weights into the store.",
        )
    began = time.monotonic()
    runners = [_Runner(name, _network(settings, name)) for name in names]
    with tempfile.TemporaryDirectory(prefix="race-") as folder:
        ingest(
            snapshot_folder=Path(folder) / "snapshot",
            store=settings.store,
            seed=settings.seed,
            **arguments(settings.data),
        )
        snapshot = read_snapshot(Path(folder) / "snapshot")
        sizes = _sizes(len(snapshot.rows("train")), images)
        limit = None if minutes is None else began + 60 * minutes
        _run_rounds(settings, runners, snapshot, sizes, Path(folder), limit)
    measured = [runner for runner in runners if runner.right is not None]
    entrants = _ranked(measured)
    chosen, why = _choice(entrants, measured)
    return Race(
        entrants=entrants,
        chosen=chosen,
        why=why,
        images=max(runner.images for runner in measured),
        snapshot_id=snapshot.id,
        source=settings.data.source,
        unmeasured=tuple(runner.name for runner in runners if runner.right is None),
        seconds=round(time.monotonic() - began, 1),
    )


def _network(settings: RunSettings, name: str) -> Backbone:
    return build(
        name,
        weights=settings.weights,
        image_size=settings.image_size,
        store=open_store(settings.store),
        fit=settings.image.fit,
    )


def _sizes(there: int, most: int) -> list[int]:
    """Sizes of the samples: doubled from the first to the largest."""
    largest = min(there, most)
    sizes = [largest]
    while sizes[0] // 2 >= FIRST_SAMPLE:
        sizes.insert(0, sizes[0] // 2)
    return sizes


def _run_rounds(
    settings: RunSettings,
    runners: list[_Runner],
    snapshot: Snapshot,
    sizes: list[int],
    folder: Path,
    limit: float | None,
) -> None:
    """Measure on each sample in turn; the runners hold what comes of it."""
    train, labels = snapshot.rows("train"), snapshot.labels()
    comparisons = len(sizes) * max(1, len(runners) - 1)
    for number, size in enumerate(sizes):
        active = [r for r in runners if not r.stopped and (number == 0 or r.right is not None)]
        if number and len(active) == 1:
            return
        rows = train[stratified_sample(labels[train], size, settings.seed)]
        sample = _sample(snapshot, rows, settings, folder / f"sample-{number}")
        results: dict[str, Right] = {}
        for runner in active:
            new = size - runner.images
            late = limit is not None and time.monotonic() + new * runner.seconds_an_image > limit
            if late and (number or results):  # one at least is measured
                message("The budget leaves no time for %s on %s images.", runner.name, f"{size:,}")
                if number == 0:
                    continue
                return  # the smaller sample, on which all were measured, stands
            started = time.monotonic()
            results[runner.name] = _measured(settings, runner, sample, folder)
            runner.seconds_an_image = (time.monotonic() - started) / max(1, new)
        for runner in active:
            if runner.name in results:
                runner.right, runner.images = results[runner.name], size
        _stop_losers([r for r in active if r.name in results], comparisons)


def _sample(
    snapshot: Snapshot, rows: NDArray[np.int64], settings: RunSettings, folder: Path
) -> Path:
    """A snapshot of some images, in a folder of its own."""
    write_snapshot(
        folder,
        snapshot.manifest.take(rows),
        snapshot.set_aside,
        store=settings.store,
        source=snapshot.source,
        value_range=snapshot.value_range,
    )
    return folder


def _measured(settings: RunSettings, runner: _Runner, sample: Path, folder: Path) -> Right:
    """Which images of the sample its probe gets right, each by folds without it."""
    message("race: %s", runner.name)
    features = folder / "features"
    extract_features(
        snapshot_folder=sample,
        store=settings.store,
        features_folder=features,
        backbone=runner.name,
        weights=settings.weights,
        image_size=settings.image_size,
        fit=settings.image.fit,
        **{key: v for key, v in arguments(settings.extract).items() if key != "workers"},
    )
    snapshot = read_snapshot(sample)
    probe = settings.probe
    _, right = best_probe(
        np.ascontiguousarray(read_features(features).matrix, dtype=np.float32),
        snapshot.labels(),
        group_numbers(snapshot),
        snapshot.classes,
        grid=probe.grid,
        folds=probe.folds,
        balanced=probe.balanced,
        seed=settings.seed,
    )
    return right


def _stop_losers(active: list[_Runner], comparisons: int) -> None:
    """Stop those whose whole interval is below the most accurate one, on the same images."""
    leader = max(active, key=_accuracy)
    confidence = 1 - (1 - CONFIDENCE) / comparisons
    for runner in active:
        runner.behind = _difference(runner, leader, CONFIDENCE)
        high = _difference(runner, leader, confidence)[1][1]
        if runner is not leader and high < 0:
            runner.stopped = (
                f"on {runner.images:,} images {-runner.behind[0]:.1%} behind {leader.name}"
            )


def _difference(
    runner: _Runner, leader: _Runner, confidence: float
) -> tuple[float, tuple[float, float]]:
    """Its accuracy less the leader's on the same images, and the interval."""
    assert runner.right is not None and leader.right is not None
    won, lost = (runner.right & ~leader.right).sum(), (leader.right & ~runner.right).sum()
    count = len(runner.right)
    interval = difference_interval(float(won), float(lost), count, confidence)
    return float(won - lost) / count, interval


def _accuracy(runner: _Runner) -> float:
    assert runner.right is not None
    return float(runner.right.mean())


def _ranked(measured: list[_Runner]) -> tuple[Entrant, ...]:
    """The results, the most accurate first.

    A backbone that was stopped would have gained from more images as the leader did: it gets the
    leader's accuracy less what it was behind on the sample that both were measured on.
    """
    most = max(runner.images for runner in measured)
    leader = max((r for r in measured if r.images == most), key=_accuracy)
    top = _accuracy(leader)
    found = []
    for runner in measured:
        if runner.images == most:
            accuracy, interval = _accuracy(runner), wilson(_accuracy(runner), most)
        else:
            assert runner.behind is not None
            behind, (low, high) = runner.behind
            accuracy, interval = max(0.0, top + behind), (max(0.0, top + low), min(1.0, top + high))
        found.append(
            Entrant(
                name=runner.name,
                accuracy=accuracy,
                interval=interval,
                images=runner.images,
                latency_ms=milliseconds(runner.network),
                megabytes=runner.network.spec.parameters * BYTES / 1e6,
                image_size=runner.network.spec.preprocessing.input_size,
                stopped=runner.stopped,
            )
        )
    marked = [replace(entrant, pareto=on_front(entrant, found)) for entrant in found]
    return tuple(sorted(marked, key=lambda e: (-e.accuracy, e.latency_ms)))


def on_front(entrant: Entrant, others: Sequence[Entrant]) -> bool:
    """Whether no other is at least as accurate and as fast, and better in one of the two."""
    return not any(
        other.accuracy >= entrant.accuracy
        and other.latency_ms <= entrant.latency_ms
        and (other.accuracy, -other.latency_ms) != (entrant.accuracy, -entrant.latency_ms)
        for other in others
    )


def _choice(entrants: tuple[Entrant, ...], measured: list[_Runner]) -> tuple[str, str]:
    """The fastest that cannot be told from the most accurate one, and why."""
    runners = {runner.name: runner for runner in measured}
    alive = [entrant for entrant in entrants if not entrant.stopped]
    best = alive[0]
    tied = [
        entrant
        for entrant in alive
        if entrant.images == best.images
        and _difference(runners[entrant.name], runners[best.name], CONFIDENCE)[1][1] >= 0
    ]
    chosen = min(tied, key=lambda entrant: entrant.latency_ms)
    if chosen is best:
        return best.name, f"{best.name} is the most accurate, with {best.accuracy:.1%}."
    return chosen.name, (
        f"{chosen.name} ({chosen.accuracy:.1%}) cannot be told from the most accurate, "
        f"{best.name} ({best.accuracy:.1%}), and takes {chosen.latency_ms:.1f} ms an image "
        f"instead of {best.latency_ms:.1f}."
    )
