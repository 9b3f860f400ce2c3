"""How a pipeline run ended: by KFP's word where it can be relied on, else by what steps left.

KFP's exit handler is given the state that ML Metadata has of the exit handler's group. Success is
``COMPLETE``, or ``RUNNING`` where an untaken condition was the last word; a run whose pod was lost
before it could say anything reads ``RUNNING`` as well. Its ``error`` is always empty. The local
runner says ``SUCCEEDED``.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from graftline.records.run_records import StepRecord

Outcome = Literal["trained", "nothing", "failed", "stopped", "unknown"]
FAILURES = {"FAILED"}
STOPS = {"CANCELED", "CANCELLED"}
SUCCESSES = {"SUCCEEDED", "COMPLETE", "CACHED"}
LONGEST = 600  # characters of one reason


def outcome(
    state: str,
    notice: Mapping[str, Any] | None,
    records: Sequence[StepRecord] = (),
    *,
    promoted: bool = False,
) -> Outcome:
    """How a retraining ended.

    Args:
        state: KFP's word.
        notice: What the check for changes found; None where that is not known.
        records: What each step of the run did last.
        promoted: Whether the step ``promote`` came to its end.
    """
    if state in FAILURES:
        return "failed"
    if state in STOPS:
        return "stopped"
    if notice is not None and not notice["start"]:
        return "nothing"
    if state in SUCCESSES or promoted:
        return "trained"
    if notice is not None or any(record.state == "failed" for record in records):
        return "failed"  # training was to start, and did not come to its end
    return "unknown"


def failure_reasons(records: Sequence[StepRecord], error: str = "") -> list[str]:
    """What is known of a failure: the step and its error, or the step that ended without one.

    Args:
        records: What each step of the run did last, the oldest first.
        error: KFP's own words, where it has any.
    """
    failed = [record for record in records if record.state == "failed"]
    killed = [record for record in records if record.state == "running"]
    said = [_of_error(record) for record in failed]
    if not failed:
        said += [
            f"Step {record.step} ended without a message: it was killed or its pod was lost, most "
            "often for lack of memory or because its node was taken away."
            for record in killed
        ]
    if error.strip():
        said.append(error.strip())
    if said:
        return said
    if records:
        return [
            f"No step left an error. The last that ended well is {records[-1].step}; what came "
            "after it did not start: see the run's page."
        ]
    return ["No step left an error in the store, and KFP gives no reason: see the run's page."]


def _of_error(record: StepRecord) -> str:
    parts = [f"Step {record.step} failed: {record.what}"]
    parts += [f"Why: {record.why}"] if record.why else []
    parts += [f"What to do: {record.fix}"] if record.fix else []
    return "\n".join(parts)[:LONGEST]


def failed_step(records: Sequence[StepRecord]) -> str | None:
    """The step that a failed run failed in, where its record says so."""
    for state in ("failed", "running"):
        for record in records:
            if record.state == state:
                return record.step
    return None
