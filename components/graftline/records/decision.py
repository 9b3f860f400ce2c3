"""The decision record: what was measured, what was chosen, and whether it was right.

``fit_head`` writes it, ``fine_tune`` adds the outcome, ``evaluate`` and the report show it.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graftline.errors import IntegrityError, SchemaVersionError, StoreNotFound
from graftline.schema import read_json, write_json

SCHEMA_VERSION = 1
KIND = "graftline.decision"


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
    schema_version: int = SCHEMA_VERSION

    @property
    def fine_tune(self) -> bool:
        """Whether the fine-tuning step has to run."""
        return self.choice in ("fine_tune", "scratch")

    def with_outcome(self, outcome: Outcome) -> "Decision":
        """The same decision with what came of it."""
        return dataclasses.replace(self, outcome=outcome)

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
    content = read_json(
        path,
        kind=KIND,
        version=SCHEMA_VERSION,
        missing=StoreNotFound(
            f"there is no decision record at {path}",
            fix="pass the file that fit_head or fine_tune wrote",
        ),
        damaged=lambda why: _damaged(path, why),
        outdated=lambda version: SchemaVersionError(
            f"the decision record {path} has schema version {version}; "
            f"this Graftline reads {SCHEMA_VERSION}",
            why="it was written by another version of Graftline",
            fix="run fit_head again with this version",
        ),
    )
    return _from_dict(path, content)


def _from_dict(path: Path, content: Mapping[str, Any]) -> Decision:
    fields = {name: content[name] for name in content if name not in ("kind", "fine_tune")}
    try:
        if fields["outcome"] is not None:
            outcome = dict(fields["outcome"])
            low, high = outcome.pop("gain_interval")
            fields["outcome"] = Outcome(**outcome, gain_interval=(low, high))
        return Decision(**fields)
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, f"a field is missing or invalid: {error}") from error


def _damaged(path: Path, why: str) -> IntegrityError:
    return IntegrityError(
        f"{path} is not a decision record",
        why=why,
        fix="pass the file that fit_head or fine_tune wrote, unchanged",
    )
