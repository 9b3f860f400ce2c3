"""What fine-tuning would gain over the probe, from what it gained on data sets that were measured.

The usual guide is where it starts: more images a class, more to gain. ``decision_calibration.json``
holds the measurements of ``benchmarks/decision.py``: for each data set and size the figures that
``fit_head`` knows, the gain on test images and the gain of a pilot on validation images. They
correct the guide: fitted on the data sets of one half, judged by the benchmark on the other.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftline.schema import check_schema_version

TABLE = Path(__file__).with_name("decision_calibration.json")
SCHEMA_VERSION = 2  # 1 had no training by epochs
RIDGE = 1.0  # of standardised figures: there are fewer than twenty measurements
# What the guide says in figures, before anything is measured: with 100 images a class as many
# errors are made as corrected, with ten times as many a seventh is corrected; give or take a
# fifth. The whole training corrects a tenth more than a pilot shows, give or take as much.
GUIDE_SLOPE, GUIDE_DEVIATION, GUIDE_BEYOND_PILOT = 0.15, 0.2, 0.1
# Probe and fine-tuned network, of which each is wrong on a share e of the images, would be told
# apart by 2 e (1 - e) of them if their errors had nothing to do with each other; say, by half.
GUIDE_APART = 1.0
DOUBT_IMAGES = 1000.0  # training images for which the guide's deviation holds
EDGE = 2.0  # deviations of a figure from its mean, beyond which nothing was measured
FEWEST_SETS = 4  # under which measurements do not correct the guide
GUIDE_SETS = 4  # that the guide's figures count for: a few sets may agree by chance
# The same of its doubt about the gain: of more sets' weight, it would hide what was measured.
DOUBT_SETS = 1
LEAST_RIGHT = 0.02  # share of the images that a probe gets right, for the same
PILOT_TRAIN_IMAGES = 250  # of a measurement: with fewer, validation was too small to show a pilot
# Not fewer: after three epochs on 80 of 320 images, which are three steps of the optimiser, the
# networks of three data sets of four were 6 to 22 points below where the whole training ended.
# Trainings of their own on 1,000 of 1,542 to 1,800 images ended 2 to 4 points below the probe
# wherever the whole one gained 0 to 8; its own first epochs tell these apart.
PILOT_EPOCHS, PILOT_IMAGES = 3, 2000

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Row:
    """One measurement, of a data set cut to a size.

    Attributes:
        set: The data set.
        half: ``fit`` or ``measure``.
        figures: As :func:`graftline.steps.fit_head.probe.measure` gives them.
        gain: Of fine-tuning over the probe, on test images.
        pilot_gain: Of the pilot over the probe, on validation images; None where the training
            was not recorded by epochs.
        validation_images: How many those were.
        apart: Share of them that told probe and trained network apart; None where not recorded.
        test_images: That the gain was measured on.
    """

    set: str
    half: str
    figures: dict[str, Any]
    gain: float
    pilot_gain: float | None
    validation_images: int = 100
    apart: float | None = None
    test_images: int = 500


@dataclass(frozen=True)
class Gain:
    """Expected difference to the probe, as a share of the images.

    Attributes:
        mean: Expected.
        interval: Where it lies with probability ``confidence``.
        confidence: Of the interval.
        deviation: Standard deviation of the expectation.
        basis: What it rests on.
    """

    mean: float
    interval: tuple[float, float]
    confidence: float
    deviation: float
    basis: str


@dataclass(frozen=True)
class Calibration:
    """The fitted forecast. Gains are shares of the probe's errors here: 0.2 corrects a fifth.

    Attributes:
        centre: Mean of each figure, shape (F,).
        spread: Deviation of each figure, shape (F,).
        weights: Of each standardised figure, shape (F,).
        slope: Of the guide's relative gain over tenfold images per class.
        level: Mean relative gain beyond the guide's.
        deviation: Of a data set that was not fitted, by leaving out one at a time; in units of
            :func:`_doubt`.
        pilot_bias: How much more the whole training gains than the pilot shows.
        pilot_deviation: How far the two lie apart.
        largest: Images per class up to which there are measurements.
        basis: In words.
        most: Training images up to which there are measurements.
        apart: Share of the images that tell probe and trained network apart, in units of
            ``e * (1 - e)`` where the probe is wrong on ``e``.
    """

    centre: Floats
    spread: Floats
    weights: Floats
    slope: float
    level: float
    deviation: float
    pilot_bias: float
    pilot_deviation: float
    largest: float
    basis: str
    most: float = DOUBT_IMAGES
    apart: float = GUIDE_APART

    def apart_on(self, figures: dict[str, Any]) -> float:
        """Share of the images that one of the two models gets right and the other one wrong."""
        return self.apart * _variance(figures)

    def gain(self, figures: dict[str, Any], confidence: float) -> Gain:
        """The expected gain on new data."""
        errors = 1 - figures["probe"]["accuracy"]
        known = self._known(figures)
        mean = _guided(figures, self.slope) + known * self._correction(figures)
        own = self.deviation * _doubt(figures, self.most)
        deviation = known * own + (1 - known) * max(own, GUIDE_DEVIATION)
        z = NormalDist().inv_cdf(0.5 + confidence / 2)
        low, high = (min(1.0, mean + sign * z * deviation) * errors for sign in (-1, 1))
        return Gain(
            min(1.0, mean) * errors, (low, high), confidence, deviation * errors, self.basis
        )

    def _known(self, figures: dict[str, Any]) -> float:
        """How far the measurements hold: 1 among them, 0 for tenfold the images per class."""
        return max(0.0, 1 - float(np.log10(max(1.0, _per_class(figures) / self.largest))))

    def _correction(self, figures: dict[str, Any]) -> float:
        """Relative gain beyond the guide's; what was never measured counts as the edge of it."""
        standardised = (_measures(figures) - self.centre) / self.spread
        return self.level + float(self.weights @ np.clip(standardised, -EDGE, EDGE))

    def after_pilot(
        self, figures: dict[str, Any], gain: Gain, validation_images: int
    ) -> tuple[float, float]:
        """Offset and slope of the expected gain after the pilot's: both weighted by precision.

        Each validation image that tells the two models apart counts for or against the pilot by
        chance.
        """
        errors = 1 - figures["probe"]["accuracy"]
        chance = self.apart_on(figures) / max(1, validation_images)
        prior, noise = gain.deviation**2, (self.pilot_deviation * errors) ** 2 + chance
        slope = prior / max(prior + noise, 1e-12)
        return (1 - slope) * gain.mean + slope * self.pilot_bias * errors, slope


def fit(rows: Sequence[Row]) -> Calibration:
    """Fit the forecast.

    Args:
        rows: The measurements; of under four data sets they are not used.
    """
    sets = np.array([row.set for row in rows])
    names = sorted(set(sets))
    if len(names) < FEWEST_SETS:
        return _guide_alone()
    x = np.stack([_measures(row.figures) for row in rows])
    y = np.array([_of_errors(row, row.gain) for row in rows])
    apart = _apart(rows)
    pilots, piloted = _beyond_pilots(rows, apart)
    y -= np.array([_guided(row.figures, GUIDE_SLOPE) for row in rows])
    sizes = [row.figures["train_images"] for row in rows]
    doubt = np.array([_doubt(row.figures, max(sizes)) for row in rows])
    chance = np.array([_chance(row, apart, row.test_images) for row in rows])
    exact = 1 / ((GUIDE_DEVIATION * doubt) ** 2 + chance)
    missed = np.zeros(len(rows))
    for name in names:
        new = sets == name
        missed[new] = y[new] - _predict(x, y, exact, ~new, x[new])
    fitted = _regression(x, y, exact)
    return Calibration(
        fitted.centre,
        fitted.spread,
        fitted.weights,
        GUIDE_SLOPE,
        fitted.level,
        _deviation(missed**2 - chance, doubt, exact, len(names)),
        _shrunken(pilots),
        _pooled(pilots - _shrunken(pilots), len(pilots), piloted),
        max(_per_class(row.figures) for row in rows),
        f"{len(rows)} trainings on {len(names)} data sets of {min(sizes)} to {max(sizes)} images",
        max(sizes),
        apart,
    )


def _apart(rows: Sequence[Row]) -> float:
    """See :attr:`Calibration.apart`; drawn towards the guide's figure."""
    found = [row.apart / _variance(row.figures) for row in rows if row.apart is not None]
    return (sum(found) + GUIDE_SETS * GUIDE_APART) / (len(found) + GUIDE_SETS)


def _beyond_pilots(rows: Sequence[Row], apart: float) -> tuple[Floats, float]:
    """How much more trainings gained than their pilots showed, and the variance by chance of it."""
    found = [
        (_of_errors(row, row.gain - row.pilot_gain), row)
        for row in rows
        if row.pilot_gain is not None and row.figures["train_images"] >= PILOT_TRAIN_IMAGES
    ]
    chance = [_chance(row, apart, row.validation_images) for _, row in found]
    return np.array([beyond for beyond, _ in found]), float(np.mean(chance)) if chance else 0.0


def _chance(row: Row, apart: float, images: int) -> float:
    """Variance by chance of a gain that was measured on so many images, as a share of errors."""
    return apart * _of_errors(row, _of_errors(row, _variance(row.figures))) / images


def _deviation(squares: Floats, doubt: Floats, exact: Floats, sets: int) -> float:
    """Of a data set that was not fitted, in units of its doubt; together with the guide's own.

    Args:
        squares: Of what was missed, less what was chance.
        doubt: See :func:`_doubt`.
        exact: One over the variance of each row.
        sets: How many data sets they are of.
    """
    own = max(0.0, float(np.average(squares / doubt**2, weights=(doubt**2 * exact) ** 2)))
    return float(np.sqrt((sets * own + DOUBT_SETS * GUIDE_DEVIATION**2) / (sets + DOUBT_SETS)))


def _pooled(missed: Floats, sets: int, chance: float = 0.0) -> float:
    """Deviation of what was missed, together with the guide's own.

    Args:
        missed: Differences.
        sets: How many measurements they stand for.
        chance: Variance that the measurements themselves brought.
    """
    own = max(0.0, float(np.mean(missed**2)) - chance) if len(missed) else 0.0
    squares = sets * own + GUIDE_SETS * GUIDE_DEVIATION**2
    return float(np.sqrt(squares / (sets + GUIDE_SETS)))


def _shrunken(pilots: Floats) -> float:
    """How much more a training gains than its pilot shows, drawn towards the guide's figure."""
    total = float(pilots.sum()) + GUIDE_SETS * GUIDE_BEYOND_PILOT
    return total / (len(pilots) + GUIDE_SETS)


def _guide_alone() -> Calibration:
    nothing = np.zeros(len(FIGURES))
    return Calibration(
        nothing,
        nothing + 1,
        nothing,
        GUIDE_SLOPE,
        0.0,
        GUIDE_DEVIATION,
        GUIDE_BEYOND_PILOT,
        GUIDE_DEVIATION,
        1000.0,
        "the usual guide alone",
    )


def read_rows(path: Path = TABLE) -> list[Row]:
    """The measurements in a table that the benchmark wrote: the first draw of each.

    Only few images were drawn several times; they would count for more than they know.
    """
    if not path.exists():
        return []
    content = json.loads(path.read_text(encoding="utf-8"))
    check_schema_version(content, SCHEMA_VERSION, path.name)
    return [
        Row(
            row["set"],
            row["half"],
            row["figures"],
            row["accuracy"]["training"] - row["accuracy"]["probe"],
            pilot_gain(row),
            row.get("validation_images", 100),
            row["training"]["apart"] if "training" in row else None,
            row["test_images"],
        )
        for row in content["rows"]
        if row.get("draw", 0) == 0
    ]


def pilot_gain(row: dict[str, Any]) -> float | None:
    """What the training of a table's row showed after the epochs of a pilot."""
    training = row.get("training")
    if training is None:
        return None
    best = max(accuracy for accuracy, _ in training["history"][:PILOT_EPOCHS])
    return float(best - training["probe_accuracy"])


@lru_cache(maxsize=1)
def calibration() -> Calibration:
    """The forecast of this version, fitted on the first half of the measurements."""
    return fit([row for row in read_rows() if row.half == "fit"])


FIGURES = ("images per class", "training images", "the probe's errors", "probe less k-NN")


def _measures(figures: dict[str, Any]) -> Floats:
    """The figures that the gain depends on, see :data:`FIGURES`."""
    probe = float(figures["probe"]["accuracy"])
    return np.array(
        [
            np.log10(_per_class(figures)),
            np.log10(figures["train_images"]),
            np.log(max(1 - probe, 1e-3)),
            probe - float(figures["knn"]["accuracy"]),
        ]
    )


def _guided(figures: dict[str, Any], slope: float) -> float:
    """The relative gain that the guide promises."""
    return slope * (float(np.log10(_per_class(figures))) - 2)


def _per_class(figures: dict[str, Any]) -> float:
    return max(1.0, float(figures["images_per_class"]["median"]))


def _of_errors(row: Row, gain: float) -> float:
    """A gain as a share of the probe's errors; of few errors a chance difference would be huge."""
    return gain / max(1 - float(row.figures["probe"]["accuracy"]), 0.02)


def _variance(figures: dict[str, Any]) -> float:
    """``e * (1 - e)`` of the probe's errors."""
    errors = max(1 - float(figures["probe"]["accuracy"]), 0.02)
    return errors * max(1 - errors, 0.02)


@dataclass(frozen=True)
class _Regression:
    """A ridge regression on standardised figures; see :class:`Calibration` for its fields."""

    centre: Floats
    spread: Floats
    weights: Floats
    level: float


def _regression(x: Floats, y: Floats, exact: Floats) -> _Regression:
    """Fitted with each row counting by how exact it is, on average once."""
    counts = exact / exact.mean()
    centre, spread = x.mean(0), x.std(0) + 1e-9
    z = (x - centre) / spread
    middle, level = np.average(z, axis=0, weights=counts), float(np.average(y, weights=counts))
    weighted = (z - middle) * counts[:, None]
    ridge = RIDGE * np.eye(x.shape[1])
    weights = np.linalg.solve(weighted.T @ (z - middle) + ridge, weighted.T @ (y - level))
    return _Regression(centre, spread, weights, level - float(middle @ weights))


def _predict(x: Floats, y: Floats, exact: Floats, kept: NDArray[np.bool_], new: Floats) -> Floats:
    fitted = _regression(x[kept], y[kept], exact[kept])
    standardised = np.clip((new - fitted.centre) / fitted.spread, -EDGE, EDGE)
    return np.asarray(fitted.level + standardised @ fitted.weights)


def _doubt(figures: dict[str, Any], most: float) -> float:
    """What the forecast's deviation is proportional to.

    The more steps, the further a training moves the network, to the better or not. Of the powers
    0, 0.1, 0.25, 0.35 and 0.5 of the images, a quarter makes the measured gains most likely,
    leaving out one set at a time. And the gain of a hopeless probe is less uncertain than its
    many errors suggest.
    """
    images = max(min(float(figures["train_images"]), most), 1.0)
    right = max(float(figures["probe"]["accuracy"]), LEAST_RIGHT)
    return right * float((images / DOUBT_IMAGES) ** 0.25)
