"""The questions before a run, asked in a process that has imported the libraries for the steps."""

from collections.abc import Mapping
from typing import Any

from graftline import errors
from graftline.errors import GraftlineError
from graftline_pipelines.local.light_kfp import import_light
from graftline_pipelines.local.warm import WarmServer
from graftline_pipelines.preflight.examine import Elsewhere, ask_everything, ask_mlflow
from graftline_pipelines.preflight.report import Preflight
from graftline_pipelines.runfile.settings import RunSettings


def in_warm_process(server: WarmServer | None) -> Elsewhere:
    """Asks about MLflow in a fork of the warm process; where there is none, nobody is asked."""
    return _asking(server, "answer")


def all_in_warm_process(server: WarmServer | None) -> Elsewhere:
    """Asks everything in a fork of a warm process that waited here, else nobody.

    One that has just begun imports what the questions need no sooner than this process does.
    """
    return _asking(server if server is not None and server.waited else None, "answer_all")


def _asking(server: WarmServer | None, function: str) -> Elsewhere:
    def ask(settings: RunSettings) -> Preflight | None:
        if server is None:
            return None
        server.open_tracking(settings.tracking.uri)  # for this question and for every step
        with server.calling(f"{__name__}:{function}", settings.model_dump(mode="json")) as call:
            # Meanwhile here, what the run needs next, and for its end.
            import_light()
            import kfp.local  # noqa: F401

            import graftline_pipelines.graphs.training
            import graftline_pipelines.local.summary  # noqa: F401
            from graftline.reports.html import compile_templates

            compile_templates("graftline_pipelines.local")  # for the page of all runs
            answer = call.answer()
        return None if answer is None else _found(answer)

    return ask


def answer(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What is found of MLflow, as JSON; runs in the fork."""
    found = Preflight()
    ask_mlflow(RunSettings.model_validate(settings), found)
    return _told(found)


def answer_all(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The same of everything."""
    found, _ = ask_everything(RunSettings.model_validate(settings))
    return _told(found)


def _told(found: Preflight) -> dict[str, Any]:
    return {
        "facts": found.facts,
        "notes": found.notes,
        "unasked": found.unasked,
        "problems": [
            (key, type(error).__name__, error.what, error.why, error.fix)
            for key, error in found.problems
        ],
    }


def _found(answer: Mapping[str, Any]) -> Preflight:
    found = Preflight(dict(answer["facts"]), [(key, text) for key, text in answer["notes"]])
    found.unasked = list(answer["unasked"])
    for key, kind, what, why, fix in answer["problems"]:
        made = getattr(errors, kind, GraftlineError)
        found.problems.append((key, made(what, why=why, fix=fix)))
    return found
