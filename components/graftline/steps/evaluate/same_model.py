"""An evaluation that is reused where the champion is the very model that was evaluated.

After a first run its model is the champion, so that an unchanged second run would compare the
model with itself. That comparison is known beforehand: both give the same label to every image.
Nothing here imports PyTorch or scipy.
"""

import dataclasses
import html
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from graftline.files import write_atomic
from graftline.progress import explain
from graftline.records.verdict import GateTest, Verdict, read_verdict, write_verdict
from graftline.steps.reuse import KeptResult, artifact_digest
from graftline.tracking.registry import RegisteredVersion, open_registry

WITHOUT_CHAMPION = ("better_than_majority",)  # the gate's tests of a first model only
AGAINST_CHAMPION = ("classes_kept", "not_worse", "gain", "newer", "class_recall", "slices")
CLASSIFIER_TAG = "graftline.classifier_digest"  # of the calibrated classifier that was exported
PAGE_START = "<body>"


def current_champion(tracking_uri: str, registered_model: str) -> RegisteredVersion | None:
    """The champion of a registered model; None without a registry, a name or a champion."""
    if not tracking_uri or not registered_model:
        return None
    return open_registry(tracking_uri).champion(registered_model)


def champion_state(champion: RegisteredVersion | None) -> dict[str, str]:
    """What an evaluation depends on besides its inputs: whom the model is compared with."""
    if champion is None:
        return {}
    return {"version": champion.version, "digest": champion.digest or ""}


def as_champion(
    champion: RegisteredVersion | None,
) -> Callable[[KeptResult, Mapping[str, Path]], KeptResult | None]:
    """What makes the evaluation of another state hold for this champion, where it is its own.

    The function is given a kept result, and the outputs with its files, which it changes.
    """

    def adapt(kept: KeptResult, outputs: Mapping[str, Path]) -> KeptResult | None:
        if champion is None:
            return None
        digest = artifact_digest(outputs["calibrated_folder"])
        if champion.tags.get(CLASSIFIER_TAG) != digest:
            return None
        verdict = _against_itself(read_verdict(outputs["verdict_file"]), champion)
        write_verdict(outputs["verdict_file"], verdict)
        note = f"The champion, version {champion.version}, is this very model. {verdict.reasons[0]}"
        _add_note(outputs["report_file"], note, kept.run)
        explain("do not promote: %s", verdict.reasons[0])
        return dataclasses.replace(
            kept, values={**kept.values, **_fields(verdict)}, tracked=_tracked(kept)
        )

    return adapt


def _against_itself(verdict: Verdict, champion: RegisteredVersion) -> Verdict:
    images = verdict.figures["test"]["images"]
    left_out = (*WITHOUT_CHAMPION, *AGAINST_CHAMPION)
    tests = [test for test in verdict.tests if test.name not in left_out]
    reason = (
        "It is not better than the champion: both were trained on the same snapshot and give the "
        f"same label to all {int(images):,} test images."
    )
    figures = {"difference": 0.0, "same_snapshot": True}
    tests.append(GateTest(name="newer", passed=False, reason=reason, figures=figures))
    test = {key: value for key, value in verdict.figures["test"].items() if "_ci" not in key}
    return dataclasses.replace(
        verdict,
        promote=False,
        reasons=[each.reason for each in tests if not each.passed],
        tests=tests,
        champion_name=champion.name,
        champion_version=champion.version,
        champion_digest=champion.digest or "",
        champion_snapshot_id=champion.snapshot_id or "",
        compared_images=int(images),
        left_out={},
        figures={
            **verdict.figures,
            "challenger": test,
            "champion": test,
            "difference_intervals": {},
        },
    )


def _fields(verdict: Verdict) -> dict[str, Any]:
    """Fields of the step's result that say something of the champion."""
    return {
        "verdict": {
            "promote": verdict.promote,
            "reasons": verdict.reasons,
            "tests": [dataclasses.asdict(test) for test in verdict.tests],
            "champion": verdict.champion_version,
        },
        "compared": {
            "challenger": verdict.figures["challenger"],
            "champion": verdict.figures["champion"],
            "images": verdict.compared_images,
            "left_out": {},
        },
    }


def _tracked(kept: KeptResult) -> dict[str, Mapping[str, Any]]:
    metrics = kept.metrics()
    changed = {"promote": 0.0, "champion_accuracy": metrics["accuracy"]}
    return {**kept.tracked, "metrics": {**metrics, **changed}}


def _add_note(page: Path, note: str, run: str) -> None:
    """Say at the top of a kept page which run it is of."""
    text = page.read_text(encoding="utf-8")
    said = f"Evaluated by run {run}, with its verdict below. {note}"
    banner = f'\n<p class="wrap" role="note"><strong>Reused.</strong> {html.escape(said)}</p>'
    write_atomic(page, text.replace(PAGE_START, PAGE_START + banner, 1).encode())
