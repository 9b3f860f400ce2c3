"""The verdict: may this model replace the champion, by which tests, and why.

``evaluate`` writes it, ``promote`` obeys it, the report and the model card show it.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graftline.schema import Record, write_json

SCHEMA_VERSION = 1
KIND = "graftline.verdict"
RECORD = Record(name="verdict", kind=KIND, versions=(SCHEMA_VERSION,), writer="evaluate")


@dataclass(frozen=True, kw_only=True)
class GateTest:
    """One test of the gate.

    Attributes:
        name: Stable identifier, such as ``not_worse``.
        passed: Whether it lets the model through.
        reason: One sentence with the figures.
        figures: What was measured and the limit, as JSON holds it.
    """

    name: str
    passed: bool
    reason: str
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the gate decided.

    Attributes:
        promote: True only if every test passed.
        reasons: Sentences: of the failed tests where there are any, else of all.
        tests: Every test that was made.
        snapshot_id: Dataset snapshot that the challenger was trained and tested on.
        champion_name: Registered model whose champion was compared with.
        champion_version: Its version; None where there was no champion.
        champion_digest: sha256 of the champion's ONNX file; None where there was no champion.
        champion_snapshot_id: Dataset snapshot that the champion was trained on.
        compared_images: Test images on which the two were compared; all of them without a champion.
        left_out: Why and how many test images were left out of the comparison.
        notes: What else a reader must know about the comparison.
        figures: Metrics of the challenger and, on the compared images, of both.
    """

    promote: bool
    reasons: list[str]
    tests: list[GateTest]
    snapshot_id: str
    champion_name: str | None = None
    champion_version: str | None = None
    champion_digest: str | None = None
    champion_snapshot_id: str | None = None
    compared_images: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    @property
    def first_model(self) -> bool:
        """Whether there was no champion to compare with."""
        return self.champion_version is None

    def test(self, name: str) -> GateTest | None:
        """The test by that name, or None where it was not made."""
        return next((test for test in self.tests if test.name == name), None)

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {"kind": KIND, **dataclasses.asdict(self)}


def write_verdict(path: Path, verdict: Verdict) -> None:
    """Write the verdict to a file, whole or not at all."""
    write_json(path, verdict.to_dict())


def read_verdict(path: Path) -> Verdict:
    """Read a verdict.

    Raises:
        StoreNotFound: There is no such file.
        IntegrityError: It is not a verdict, or contradicts itself.
        SchemaVersionError: Another version of Graftline wrote it.
    """
    return _from_dict(path, RECORD.read(path))


def _from_dict(path: Path, content: Mapping[str, Any]) -> Verdict:
    fields = {name: value for name, value in content.items() if name != "kind"}
    try:
        fields["tests"] = [GateTest(**test) for test in fields["tests"]]
        verdict = Verdict(**fields)
    except (KeyError, TypeError) as error:
        raise RECORD.damaged(path, f"a field is missing or invalid: {error}") from error
    all_passed = bool(verdict.tests) and all(test.passed is True for test in verdict.tests)
    if verdict.promote is not all_passed:
        raise RECORD.damaged(path, "its `promote` contradicts its tests")
    return verdict
