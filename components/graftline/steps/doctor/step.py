"""Probe what a run relies on, in seconds; used on a person's machine and in a pod."""

from collections.abc import Sequence

from graftline.steps.doctor.findings import Examination, Finding
from graftline.steps.doctor.machine_probes import examine_machine
from graftline.steps.doctor.store_probes import examine_source, examine_store
from graftline.steps.doctor.tracking_probes import examine_tracking

LINE = "GRAFTLINE-DOCTOR "  # begins a finding, as JSON, in a pod's log


def run(
    *,
    store: str,
    source: str,
    tracking_uri: str,
    experiment: str,
    registered_model: str,
    wants_gpu: bool = False,
) -> list[Finding]:
    """Examine store, source, MLflow and this machine.

    Args:
        store: URI of the store.
        source: URI of the images.
        tracking_uri: Tracking URI of MLflow.
        experiment: The run file's experiment.
        registered_model: The run file's registered model.
        wants_gpu: Whether a missing GPU is a failure.
    """
    found = Examination()
    examine_machine(found, wants_gpu=wants_gpu)
    examine_store(found, store)
    examine_source(found, source)
    examine_tracking(found, tracking_uri, experiment, registered_model)
    return found.findings


def lines(findings: Sequence[Finding]) -> list[str]:
    """The findings for a person, one a line, with what to do below."""
    marks = {"ok": "ok", "note": "NOTE", "failed": "FAILED", "skipped": "-"}
    shown = []
    for each in findings:
        shown.append(f"{marks[each.state]:6} {each.area}: {each.tried}: {each.came}")
        if each.fix and each.state in ("failed", "note"):
            shown.append(f"       What to do: {each.fix}")
    return shown
