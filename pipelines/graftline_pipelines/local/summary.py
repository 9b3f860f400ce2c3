"""What a local run ends with: one JSON object for programs, one table for people."""

import shlex
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from graftline.errors import GraftlineError
from graftline.records.export import agreement
from graftline.steps.runtime import read_result
from graftline_pipelines.local.index import write_index
from graftline_pipelines.local.run import LocalRun
from graftline_pipelines.local.screen import counted, show_rows
from graftline_pipelines.runfile.settings import RunSettings


def summarise(run: LocalRun, settings: RunSettings) -> dict[str, Any]:
    """The result of a run, from what its steps recorded.

    The report and the exported files are also put into the run's folder under short names.
    """

    def result(step: str) -> Mapping[str, Any]:
        return read_result(run.run_dir, step) or {}

    ingested, fitted, trained = result("ingest"), result("fit_head"), result("fine_tune")
    extracted = result("extract_features")
    evaluated, exported, promoted = result("evaluate"), result("export_onnx"), result("promote")
    test = evaluated.get("test", {})
    onnx = exported.get("onnx")
    for file in Path(onnx).parent.iterdir() if onnx else ():
        placed(str(file), run.run_dir / file.name)
    summary = {
        "run_id": run.run_id,
        "run_dir": str(run.run_dir),
        "snapshot_id": ingested.get("snapshot_id"),
        "images": ingested.get("images"),
        "classes": ingested.get("classes"),
        "set_aside": ingested.get("set_aside", {}),
        "backbone": settings.backbone,
        "strategy": (trained or fitted).get("strategy"),
        "decision": (trained or fitted).get("decision"),
        "extracted": extracted.get("extracted"),
        "reused": extracted.get("reused"),
        "reused_steps": {
            step: run_id for step in run.seconds if (run_id := result(step).get("reused_from"))
        },
        "test": test,
        "verdict": evaluated.get("verdict"),
        "onnx": str(run.run_dir / Path(onnx).name) if onnx else None,
        "parity": exported.get("parity"),
        "registered": {key: promoted.get(key) for key in ("name", "version", "alias")},
        "promotion_reason": promoted.get("reason"),
        "data_page": placed(ingested.get("page"), run.run_dir / "data.html"),
        "decision_page": placed(
            trained.get("page") or fitted.get("page"), run.run_dir / "decision.html"
        ),
        "report": placed(evaluated.get("report_file"), run.run_dir / "report.html"),
        "tracking_run": promoted.get("run_id"),
        "seconds": {**run.seconds, "total": round(run.total_seconds, 2)},
    }
    with suppress(GraftlineError, OSError):  # the pages are there now, and the run is done anyway
        write_index(run.run_dir.parent)
    return summary


def placed(source: str | None, target: Path) -> str | None:
    """A link (or copy) of an artifact under a short name in the run's folder."""
    if source is None or not Path(source).is_file():
        return None
    try:
        target.hardlink_to(source)
    except FileExistsError:
        return str(target)
    except OSError:
        shutil.copyfile(source, target)
    return str(target)


def show(summary: Mapping[str, Any], console: Console, sample: Path | None) -> None:
    """Print the result for a person.

    Args:
        summary: What :func:`summarise` returned.
        console: Where to print.
        sample: An image to suggest for a first prediction.
    """
    console.print()
    show_rows(_rows(summary), console)
    onnx = summary["onnx"]
    if onnx is not None:
        image = relative(str(sample)) if sample is not None else "IMAGE"
        command = shlex.join(("graftline", "predict", relative(onnx), image))
        console.print("\n[bold]Try it:[/]")
        console.print(f"  {escape(command)}", soft_wrap=True, highlight=False)


def _reused(steps: Mapping[str, str]) -> str:
    """Which steps took the results of which run."""
    by_run: dict[str, list[str]] = {}
    for step, run in steps.items():
        by_run.setdefault(run, []).append(step)
    return "\n".join(f"{', '.join(names)} from run {escape(run)}" for run, names in by_run.items())


def _rows(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    images, test, verdict = summary["images"], summary["test"], summary["verdict"] or {}
    counts = ", ".join(f"{count:,} {split}" for split, count in images.items())
    rejected = sum(summary["set_aside"].values())
    classes = counted(len(summary["classes"]), "class", "classes")
    rows = [("Images", f"{sum(images.values()):,} in {classes}: {counts}")]
    if rejected:
        reasons = ", ".join(f"{n:,} {escape(reason)}" for reason, n in summary["set_aside"].items())
        rows.append(("Rejected", reasons))
    rows.append(("Features", f"{summary['extracted']:,} extracted, {summary['reused']:,} reused"))
    if summary.get("reused_steps"):
        rows.append(("Reused", _reused(summary["reused_steps"])))
    why = " ".join((summary["decision"] or {}).get("reasons", []))
    rows.append(("Strategy", f"[bold]{summary['strategy']}[/]. {escape(why)}"))
    if test:
        low, high = test["accuracy_ci"]
        rows.append(
            (
                "Test accuracy",
                f"[bold]{test['accuracy']:.4f}[/] (95% interval {low:.4f} to {high:.4f}), "
                f"macro F1 {test['macro_f1']:.4f}, ECE {test['ece']:.4f}",
            )
        )
    promote = verdict.get("promote")
    said = "[green]promote[/]" if promote else "[yellow]do not promote[/]"
    reasons = "\n".join(escape(reason) for reason in verdict.get("reasons", []))
    rows.append(("Verdict", f"{said}\n{reasons}"))
    parity = summary["parity"] or {}
    if parity:
        rows.append(
            (
                "ONNX parity",
                f"same label on {agreement(parity['images'], parity['label_agreement'])}, "
                f"largest probability difference "
                f"{parity['max_probability_difference']:.1e}",
            )
        )
    registered = summary["registered"]
    alias = _alias(registered, verdict, summary["promotion_reason"] or "")
    rows.append(("Registered", f"{registered['name']} version {registered['version']}, {alias}"))
    rows.append(("ONNX file", short(summary["onnx"])))
    rows.append(("Report", short(summary["report"])))
    seconds = summary["seconds"]
    rows.append(("Seconds", ", ".join(f"{step} {value:.1f}" for step, value in seconds.items())))
    return rows


def _alias(registered: Mapping[str, Any], verdict: Mapping[str, Any], reason: str) -> str:
    """Who is champion now, beside the version that this run came to."""
    if registered["alias"]:
        return f"alias [bold]{registered['alias']}[/]"
    champion = verdict.get("champion")
    if verdict.get("promote"):  # the champion changed while this run was under way
        return f"not promoted. {escape(reason.removeprefix('Not promoted: '))}"
    if champion is None:
        return "not promoted; there is no champion"
    if champion == registered["version"]:
        return "the champion as it was: this run made the same model again"
    return f"not promoted; version {champion} stays champion"


def short(path: str | None) -> str:
    """The path as markup, relative to the working folder where it is below it."""
    return "none" if path is None else escape(relative(path))


def relative(path: str) -> str:
    """The path relative to the working folder where it is below it."""
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except ValueError:
        return path
