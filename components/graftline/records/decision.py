"""The decision record: what was measured, what was chosen, and whether it was right.

``fit_head`` writes it, ``fine_tune`` adds the outcome, ``evaluate`` and the report show it.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import NormalDist
from typing import Any

from graftline.schema import Record, write_json

SCHEMA_VERSION = 2
READABLE = (1, 2)
NEW_IN_2 = {"forecast", "pilot"}
KIND = "graftline.decision"
RECORD = Record(
    name="decision record", kind=KIND, versions=READABLE, writer="fit_head or fine_tune"
)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What fine-tuning measured, against what was expected.

    Attributes:
        fine_tuned_accuracy: On the validation images, 0 to 1.
        probe_accuracy: The train-only probe on the same images.
        gain: The first minus the second.
        gain_interval: 95% interval of the gain, paired over images.
        validation_images: How many images both were measured on.
        used: ``fine_tune``/``scratch`` or ``probe``, whichever the run goes on with.
        agreed: Whether the measurement bore out the decision.
        sentence: All of it for a reader.
        history: Losses and validation accuracy by epoch.
        best_epoch: Whose weights were kept, counted from 1; 0 where nothing says.
        search: The trials of ``fine_tune.search``, each with its settings and accuracy.
        hours: Of training, without the time for reading images; None where it is not known.
    """

    fine_tuned_accuracy: float
    probe_accuracy: float
    gain: float
    gain_interval: tuple[float, float]
    validation_images: int
    used: str
    agreed: bool
    sentence: str
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    search: list[dict[str, Any]] = field(default_factory=list)
    hours: float | None = None


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What fine-tuning is expected to gain and to cost.

    Attributes:
        gain: Expected difference to the probe, as a share of the images.
        gain_interval: Where the difference lies with probability ``confidence``.
        confidence: Of both intervals.
        basis: What the expected gain was fitted on.
        hours: Expected hours of training.
        hours_interval: Where they lie.
        device: Where the training would run, in words.
        accelerators: How many GPUs it takes; 0 for none.
        cost: Price of these hours, in the currency of the pool's ``hourly_price``; None without.
        cost_interval: Where it lies.
    """

    gain: float
    gain_interval: tuple[float, float]
    confidence: float
    basis: str
    hours: float | None = None
    hours_interval: tuple[float, float] | None = None
    device: str = ""
    accelerators: int = 0
    cost: float | None = None
    cost_interval: tuple[float, float] | None = None

    @property
    def deviation(self) -> float:
        """Standard deviation of the gain: half of its interval over a normal quantile.

        Of the lower half, since the upper end cannot exceed the probe's errors.
        """
        return (self.gain - self.gain_interval[0]) / NormalDist().inv_cdf(0.5 + self.confidence / 2)


@dataclass(frozen=True, kw_only=True)
class Pilot:
    """A short training that decides where the forecast leaves doubt.

    The expected gain after it is ``offset + slope * measured gain``.

    Attributes:
        epochs: At most.
        minutes: At most.
        images: Training images at most.
        offset: See above.
        slope: See above.
        min_gain: The expected gain from which training goes on: what is needed, not the setting.
        gain: Measured on the validation images; None before.
        expected: The expected gain after it; None before.
    """

    epochs: int
    minutes: float
    images: int
    offset: float
    slope: float
    min_gain: float
    gain: float | None = None
    expected: float | None = None

    @property
    def goes_on(self) -> bool:
        """Whether the whole training is worth it after this pilot."""
        return self.expected is not None and self.expected >= self.min_gain

    def measured(self, gain: float) -> "Pilot":
        """The same pilot with what it measured."""
        return dataclasses.replace(self, gain=gain, expected=self.offset + self.slope * gain)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Why a strategy was chosen.

    Attributes:
        strategy: What the run file asked for: auto, probe, head, fine_tune or scratch.
        choice: What is done: probe, head, fine_tune or scratch.
        size: ``small`` or ``large``, by images per class.
        similarity: ``similar`` or ``different``, by how well the frozen features separate.
        cell: The cell of the usual guide in words, such as "small and similar".
        advice: What the guide says for that cell.
        figures: The measurements, plain JSON numbers, strings, lists and dictionaries.
        thresholds: The limits that the figures were compared with.
        reasons: Sentences.
        notes: Anything else the reader should know, such as classes with very few images.
        snapshot_id: The data.
        backbone: The network's name.
        outcome: Known after fine-tuning; None before and without it.
        forecast: What fine-tuning was expected to gain and to cost; None in older records.
        pilot: The short training that decides; None where the forecast is clear.
    """

    strategy: str
    choice: str
    size: str
    similarity: str
    cell: str
    advice: str
    figures: dict[str, Any]
    thresholds: dict[str, float]
    reasons: list[str]
    notes: list[str] = field(default_factory=list)
    snapshot_id: str = ""
    backbone: str = ""
    outcome: Outcome | None = None
    forecast: Forecast | None = None
    pilot: Pilot | None = None
    schema_version: int = SCHEMA_VERSION

    @property
    def fine_tune(self) -> bool:
        """Whether the fine-tuning step has to run."""
        return self.choice in ("fine_tune", "scratch")

    def with_outcome(self, outcome: Outcome) -> "Decision":
        """The same decision with what came of it."""
        return dataclasses.replace(self, outcome=outcome)

    def with_pilot(self, pilot: Pilot) -> "Decision":
        """The same decision after the pilot; the probe where it does not go on."""
        choice = self.choice if pilot.goes_on else "probe"
        then = "the whole training follows" if pilot.goes_on else "the probe is used"
        said = (
            f"The pilot differs from the probe by {pilot.gain:+z.1%} on validation images. A "
            "training ends above its pilot, as measured on other data; this and the forecast, each "
            f"weighted by how exact it is, let {pilot.expected:+z.1%} be expected. The rest of the "
            f"training pays from {pilot.min_gain:+z.1%} on: {then}."
        )
        reasons = [*self.reasons, said]
        return dataclasses.replace(self, choice=choice, reasons=reasons, pilot=pilot)

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {"kind": KIND, **dataclasses.asdict(self), "fine_tune": self.fine_tune}


def write_decision(path: Path, decision: Decision) -> None:
    """Write the record to a file, whole or not at all."""
    write_json(path, decision.to_dict())


def read_decision(path: Path) -> Decision:
    """Read a record.

    Raises:
        StoreNotFound: There is no such file.
        IntegrityError: It is not a decision record.
        SchemaVersionError: Another version of Graftline wrote it.
    """
    return parse_decision(RECORD.read(path), str(path))


def parse_decision(content: Mapping[str, Any], where: str) -> Decision:
    """The record as JSON holds it, as a step's result or a tracking run carries it.

    Args:
        content: What :meth:`Decision.to_dict` gave, in this version or an older one.
        where: Where it was read, for errors.

    Raises:
        IntegrityError: It is not a decision record.
        SchemaVersionError: A newer version of Graftline wrote it.
    """
    if not isinstance(content, Mapping) or content.get("kind") != KIND:
        raise RECORD.damaged(where, f"its kind is not {KIND}")
    if content.get("schema_version") not in READABLE:
        raise RECORD.outdated(where, content.get("schema_version"))
    names = {field.name for field in dataclasses.fields(Decision)}
    unknown = sorted(set(content) - names - {"kind", "fine_tune"})
    if unknown:
        raise RECORD.damaged(where, f"it has unknown fields: {', '.join(unknown)}")
    missing = sorted(names - set(content) - (NEW_IN_2 if content["schema_version"] == 1 else set()))
    if missing:
        raise RECORD.damaged(where, f"fields are missing: {', '.join(missing)}")
    fields = {name: content[name] for name in content if name in names}
    try:
        for name, kind in (("outcome", Outcome), ("forecast", Forecast), ("pilot", Pilot)):
            if fields.get(name) is not None:
                fields[name] = kind(**{key: _typed(key, v) for key, v in fields[name].items()})
        return Decision(**{**fields, "schema_version": SCHEMA_VERSION})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RECORD.damaged(where, f"a field is missing or invalid: {error}") from error


def _typed(key: str, value: Any) -> Any:
    """JSON's lists as the intervals that they were."""
    if value is None or not key.endswith("interval"):
        return value
    low, high = value
    return float(low), float(high)
