"""The expected gain: fitted as a second implementation fits it, with intervals that hold."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from graftline.errors import SchemaVersionError
from graftline.stats.posterior_gain import OPTIMISM
from graftline.steps.fit_head.decision import forecast
from graftline.steps.fit_head.decision.forecast import Row, calibration, fit, pilot_gain, read_rows


def figures(median: float, train: int, accuracy: float, knn: float) -> dict[str, Any]:
    return {
        "images_per_class": {"median": median},
        "train_images": train,
        "probe": {"accuracy": accuracy},
        "knn": {"accuracy": knn},
    }


def made(
    random: np.random.Generator, name: str, noise: float = 0.1, test_images: int = 10**9
) -> Row:
    """Data on which fine-tuning mends 30% of the errors for each tenfold of images a class."""
    median, accuracy = 10 ** random.uniform(0.5, 2.5), random.uniform(0.5, 0.95)
    corrected = 0.3 * (np.log10(median) - 1) + random.normal() * noise
    data = figures(median, int(10 * median), accuracy, accuracy - random.uniform(0, 0.3))
    gain = corrected * (1 - accuracy)
    return Row(name, "fit", data, gain, gain - 0.1 * (1 - accuracy), test_images=test_images)


def rows(seed: int, sets: int = 7, sizes: int = 3) -> list[Row]:
    random = np.random.default_rng(seed)
    return [made(random, f"set{i}") for i in range(sets) for _ in range(sizes)]


def guide(data: dict[str, Any]) -> float:
    """Share of the errors that the guide says are corrected: 0.15 more for tenfold the images."""
    return 0.15 * float(np.log10(data["images_per_class"]["median"] / 100))


def largest(data: list[Row]) -> int:
    return max(row.figures["train_images"] for row in data)


def doubt_of(data: dict[str, Any], most: int) -> float:
    """The deviation is that of 1,000 images by the fourth root of their number, and right."""
    images = min(most, data["train_images"])
    return float((images / 1000) ** 0.25 * data["probe"]["accuracy"])


def test_the_guide_is_corrected_by_a_ridge_regression() -> None:
    """The same as scikit-learn's on standardised figures, each row weighted by how exact it is."""
    data = [replace(row, test_images=500) for row in rows(0)]
    x = np.stack([forecast._measures(row.figures) for row in data])
    y = np.array(
        [row.gain / (1 - row.figures["probe"]["accuracy"]) - guide(row.figures) for row in data]
    )
    # Each by its own doubt, of a fifth, and by chance on 500 test images.
    variance = np.array([(0.2 * doubt_of(row.figures, largest(data))) ** 2 for row in data])
    accuracy = np.array([row.figures["probe"]["accuracy"] for row in data])
    variance += accuracy / (1 - accuracy) / 500
    reference = Ridge(alpha=forecast.RIDGE).fit(
        (x - x.mean(0)) / (x.std(0) + 1e-9), y, sample_weight=1 / variance / np.mean(1 / variance)
    )
    new = figures(30, 290, 0.72, 0.6)
    at = (forecast._measures(new) - x.mean(0)) / (x.std(0) + 1e-9)
    errors = 1 - new["probe"]["accuracy"]
    expected = (guide(new) + float(reference.predict(at[None])[0])) * errors
    assert fit(data).gain(new, 0.8).mean == pytest.approx(expected, abs=1e-9)


def test_intervals_hold_what_they_promise_on_new_data() -> None:
    random = np.random.default_rng(1)
    inside = []
    for seed in range(40):
        fitted = fit(rows(seed, sets=40))
        for _ in range(10):
            row = made(random, "new")
            low, high = fitted.gain(row.figures, 0.8).interval
            inside.append(low <= row.gain <= high)
    assert 0.75 < np.mean(inside) < 0.92


def test_no_gain_is_larger_than_the_errors() -> None:
    fitted = fit(rows(2))
    gain = fitted.gain(figures(1e6, 10**7, 0.9, 0.5), 0.95)
    assert gain.mean <= 0.1 + 1e-12 and gain.interval[1] <= 0.1 + 1e-12
    assert fitted.gain(figures(100, 1000, 1.0, 1.0), 0.8).interval == (0.0, 0.0)


def test_beyond_the_measurements_the_guide_holds() -> None:
    given = rows(3)
    fitted = fit(given)
    data = figures(fitted.largest * 10, 10**5, 0.7, 0.6)
    gain = fitted.gain(data, 0.8)
    assert gain.mean == pytest.approx(guide(data) * 0.3)
    own = fitted.deviation * doubt_of(data, largest(given))
    assert gain.deviation == pytest.approx(max(own, 0.2) * 0.3)
    halfway = figures(fitted.largest * 10**0.5, 10**5, 0.7, 0.6)
    near, far = fitted.gain(halfway, 0.8).deviation / 0.3, gain.deviation / 0.3
    assert min(own, 0.2) <= near <= far


def test_the_more_images_the_wider_the_interval() -> None:
    """A long training moves the network further, to the better or not."""
    fitted = fit(rows(4))
    few, many = (fitted.gain(figures(30, n, 0.7, 0.6), 0.8).deviation for n in (450, 1800))
    assert many == pytest.approx(2**0.5 * few)


def test_a_figure_that_hardly_varied_is_not_extrapolated() -> None:
    """All sets were cut to nearly one size; a thousand times that is not a thousandfold effect."""
    made_rows = [
        Row(row.set, row.half, {**row.figures, "train_images": 80 + i}, row.gain, row.pilot_gain)
        for i, row in enumerate(rows(6))
    ]
    fitted = fit(made_rows)
    few, many = (fitted.gain(figures(30, n, 0.7, 0.6), 0.8).mean for n in (90, 10**6))
    assert abs(many - few) < 0.1


def test_after_a_pilot_both_are_weighted_by_how_sure_they_are() -> None:
    """Against the posterior on a grid."""
    fitted = fit(rows(4))
    data = figures(50, 500, 0.7, 0.6)
    gain = fitted.gain(data, 0.8)
    offset, slope = fitted.after_pilot(data, gain, 150)
    measured = 0.08
    grid = np.linspace(-1, 1, 200_001)
    # The pilot shows the whole gain less a bias, give or take its deviation.
    # On 150 images, of which 21% tell the two apart, chance has a variance of 0.21 / 150.
    noise = np.sqrt((fitted.pilot_deviation * 0.3) ** 2 + 0.21 / 150)
    shown = grid - fitted.pilot_bias * 0.3
    density = np.exp(-0.5 * ((grid - gain.mean) / gain.deviation) ** 2)
    density *= np.exp(-0.5 * ((measured - shown) / noise) ** 2)
    posterior = float((grid * density).sum() / density.sum())
    assert offset + slope * measured == pytest.approx(posterior, abs=1e-4)
    assert fitted.pilot_bias == pytest.approx(0.1)  # as the rows were made


def test_what_a_pilot_shows_are_the_best_of_the_first_epochs() -> None:
    history = [[0.4, 2.0], [0.7, 1.0], [0.6, 1.1], [0.9, 0.5]]
    training = {"history": history, "probe_accuracy": 0.65}
    assert pilot_gain({"training": training}) == pytest.approx(0.05)
    assert pilot_gain({}) is None


def test_the_chance_of_few_validation_images_is_not_the_pilots_own_doubt() -> None:
    """Pilots that show the gain exactly, but for the 40 images that they are measured on."""
    random, given = np.random.default_rng(0), rows(7, sets=200)
    measured = []
    for row in given:
        errors = 1 - row.figures["probe"]["accuracy"]
        apart = errors * (1 - errors)
        shown = row.gain - 0.1 * errors + random.normal() * np.sqrt(apart / 40)
        figures = {**row.figures, "train_images": 400}
        measured.append(replace(row, figures=figures, pilot_gain=shown, validation_images=40))
    without = fit([replace(row, validation_images=10**9) for row in measured])
    assert fit(measured).pilot_deviation < 0.1 < 0.2 < without.pilot_deviation


def test_few_images_tell_two_like_models_apart_as_measured() -> None:
    """In every set a tenth of ``2 e (1 - e)``; the guide's half of it counts for four sets more."""
    some = rows(8)
    likely = [
        row.figures["probe"]["accuracy"] * (1 - row.figures["probe"]["accuracy"]) for row in some
    ]
    fitted = fit([replace(row, apart=0.2 * e) for row, e in zip(some, likely, strict=True)])
    assert fitted.apart == pytest.approx((21 * 0.2 + 4 * 1.0) / 25)
    assert fitted.apart_on(figures(50, 500, 0.7, 0.6)) == pytest.approx(fitted.apart * 0.21)
    assert fit(some).apart == 1.0


def test_before_there_are_measurements_the_guide_stands_alone() -> None:
    few = [row for row in rows(5) if row.set in ("set0", "set1", "set2")]
    for given in ([], few):
        alone = fit(given)
        data = figures(1000, 10_000, 0.8, 0.6)
        assert alone.gain(data, 0.8).mean == pytest.approx(0.15 * 0.2)
        assert alone.basis == "the usual guide alone"


def test_this_versions_forecast_is_fitted_on_the_first_half_alone() -> None:
    table = read_rows()
    halves = {half: {row.set for row in table if row.half == half} for half in ("fit", "measure")}
    assert not halves["fit"] & halves["measure"]
    own = fit([row for row in table if row.half == "fit"])
    assert own.basis == calibration().basis
    assert np.array_equal(own.weights, calibration().weights)


def test_leads_flatter_as_much_as_the_rule_takes_off() -> None:
    """Over the trainings that the forecast is fitted on, in deviations of the lead by chance."""
    flattered = []
    for row in json.loads(forecast.TABLE.read_text("utf-8"))["rows"]:
        if row["half"] != "fit" or row["draw"] or "training" not in row:
            continue
        training, accuracy = row["training"], row["accuracy"]
        apart = training["apart"] * training["judges"]
        noise = np.sqrt(apart + 0.5) / training["judges"]
        gain = accuracy["training"] - accuracy["probe"]
        flattered.append((training["gain"] - gain) / noise)
    error = np.std(flattered) / np.sqrt(len(flattered))
    assert len(flattered) >= 10 and abs(np.mean(flattered) - OPTIMISM) < error


def test_a_table_of_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    path.write_text(json.dumps({"schema_version": 99, "rows": []}))
    with pytest.raises(SchemaVersionError, match="99"):
        read_rows(path)
