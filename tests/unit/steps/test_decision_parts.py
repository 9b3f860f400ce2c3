"""What a training put right on the decision page: forecast beside outcome, and nothing else."""

import re
from dataclasses import replace

from graftline.records.decision import Decision, Forecast, Outcome, Pilot
from graftline.steps.decision_parts import completed, part

BEFORE = Decision(
    strategy="auto",
    choice="fine_tune",
    size="small",
    similarity="similar",
    cell="small and similar",
    advice="a linear classifier",
    figures={},
    thresholds={},
    reasons=["Because."],
    forecast=Forecast(
        gain=0.02,
        gain_interval=(-0.01, 0.05),
        confidence=0.6,
        basis="a set",
        hours=0.5,
        device="a pool",
    ),
    pilot=Pilot(epochs=3, minutes=5, images=20, offset=0.01, slope=0.5, min_gain=0.01),
)
OUTCOME = Outcome(
    fine_tuned_accuracy=0.88,
    probe_accuracy=0.8,
    gain=0.08,
    gain_interval=(0.02, 0.14),
    validation_images=100,
    used="fine_tune",
    agreed=True,
    sentence="It beat <the probe>.",
    hours=0.25,
)


def page(decision: Decision) -> str:
    return f"<h1>x</h1>{part('choice', decision)}<p>between</p>{part('outcome', decision)}<p>y</p>"


def text(html: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", html).split())


def test_forecast_and_outcome_stand_side_by_side_afterwards() -> None:
    after = replace(BEFORE.with_pilot(BEFORE.pilot.measured(0.04)), outcome=OUTCOME)  # type: ignore[union-attr]
    shown = completed(page(BEFORE), after)
    assert shown == page(after)
    rows = [text(row) for row in re.findall(r"<tr>(.*?)</tr>", shown, re.DOTALL)]
    assert rows[0] == "forecast outcome"
    assert "gain in points +2.0 (−1.0 to +5.0) +8.0, outside the interval" in rows
    assert "gain of the pilot in points +4.0" in rows
    assert "gain expected after the pilot +3.0" in rows
    assert "training time 0.5 h on a pool 0.25 h" in rows
    assert "It beat &lt;the probe&gt;." in shown
    assert "not fine-tuned" not in shown and "the whole training follows" in shown
    assert shown.startswith("<h1>x</h1>") and shown.endswith("<p>y</p>")
    assert shown.count("<p>between</p>") == 1


def test_a_strategy_that_lost_to_the_probe_is_said_above() -> None:
    lost = replace(BEFORE, outcome=replace(OUTCOME, used="probe"))
    assert "Strategy: fine-tune; in the end the probe is used" in completed(page(BEFORE), lost)
    won = replace(BEFORE, outcome=OUTCOME)
    assert "in the end" not in completed(page(BEFORE), won)


def test_a_pilot_that_ended_it_leaves_no_outcome() -> None:
    after = BEFORE.with_pilot(BEFORE.pilot.measured(-0.5))  # type: ignore[union-attr]
    shown = completed(page(BEFORE), after)
    assert "Strategy: probe" in shown and "outcome: not fine-tuned" in shown
    assert "−50.0" in shown


def test_a_page_without_marks_stays_as_it_is() -> None:
    assert completed("<h1>an older page</h1>", BEFORE) == "<h1>an older page</h1>"
