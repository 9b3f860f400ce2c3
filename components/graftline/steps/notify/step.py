"""Step: tell people how a retraining ended. It never fails: what it reports on is over.

The message is JSON as Slack's incoming webhooks take it; Mattermost and Rocket.Chat read the same.
The address is a secret: it comes from the environment and is never printed.
"""

import dataclasses
import json
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from graftline.addresses import leads_to_metadata
from graftline.errors import GraftlineError
from graftline.progress import message
from graftline.records.retrain_notice import read_notice
from graftline.records.run_records import StepRecord, kfp_page, read_records
from graftline.steps.notify.outcome import LONGEST, failed_step, failure_reasons, outcome
from graftline.steps.runtime import StepResult
from graftline.storage.uri import scheme
from graftline.tracking.client import connect
from graftline.tracking.dead_runs import End, close_runs
from graftline.tracking.filters import equals
from graftline.tracking.registry import open_registry
from graftline.tracking.server_answers import mlflow_errors

URL_VARIABLE = "GRAFTLINE_WEBHOOK_URL"
TIMEOUT_SECONDS = 5.0  # without a byte
TOTAL_SECONDS = 15.0  # of one try, however it goes
PAUSES = (1.0, 3.0)  # seconds before the second and the third try
MAX_REASONS = 8
GOOD, BAD, PLAIN = "#1a7f37", "#cf222e", "#57606a"
TITLES = {
    "trained": ("trained", GOOD),
    "nothing": ("nothing to train", PLAIN),
    "stopped": ("stopped", PLAIN),
    "failed": ("failed", BAD),
    "unknown": ("ended", PLAIN),
}
UI = "/pipeline"  # where Kubeflow's dashboard has the pages of runs


@dataclasses.dataclass(frozen=True)
class Run:
    """The pipeline run that the message is about.

    Attributes:
        id: Its id; empty where KFP gave none.
        experiment: MLflow's experiment.
        ui: Address of the Kubeflow Pipelines UI; empty for a run on this machine.
    """

    id: str = ""
    experiment: str = ""
    ui: str | None = None

    def pointers(self, step: str | None) -> list[str]:
        """Where to look: the run's page, and the command that prints the step's log."""
        page = kfp_page(UI if self.ui is None else self.ui, self.id)
        if not page:
            return []
        return [f"Page: {page}", f"Log: graftline logs {self.id}{f' {step}' if step else ''}"]


NO_RUN = Run()


@dataclasses.dataclass(frozen=True, kw_only=True)
class NotifyResult(StepResult):
    """Whether the message was delivered.

    Attributes:
        sent: Whether the webhook took it.
        why_not: Else the reason.
        text: What was or would have been said.
    """

    sent: bool
    why_not: str
    text: str


def run(
    *,
    name: str,
    state: str,
    error: str,
    store: str,
    tracking_uri: str,
    registered_model: str,
    quiet: bool = False,
    run: Run = NO_RUN,
    environment: Mapping[str, str] = os.environ,
    sleep: Callable[[float], None] = time.sleep,
) -> NotifyResult:
    """Tell the webhook how a run ended, and end what the run left open in MLflow.

    Args:
        name: The run's name.
        state: KFP's word: ``COMPLETE``, ``RUNNING``, ``FAILED``, ``CANCELED``; ``SUCCEEDED`` of
            the local runner.
        error: KFP's words on a failure, mostly none.
        store: The store, which knows what the check found and how each step ended.
        tracking_uri: Tracking URI of MLflow, which knows the champion.
        registered_model: The model.
        quiet: Say nothing where nothing changed.
        run: The pipeline run.
        environment: Holds the webhook's address.
        sleep: Waits between tries.
    """
    notice = _quietly("what the check found", lambda: read_notice(store, registered_model, run.id))
    records = _quietly("how the steps ended", lambda: read_records(store, run.id)) or []
    promoted = _promoted(records, notice, tracking_uri, registered_model)
    ended = outcome(state, notice, records, promoted=promoted)
    champion = None
    if ended == "trained" and notice is not None:
        champion = _quietly("the champion", lambda: _champion(tracking_uri, registered_model))
    body = compose(name, ended, error, notice, champion, records=records, run=run)
    url = environment.get(URL_VARIABLE, "").strip()
    if not url:
        why_not = f"{URL_VARIABLE} is not set"
    elif quiet and ended == "nothing":
        why_not = "nothing was trained, and `retrain.quiet` is set"
    else:
        why_not = post(url, body, sleep)
    _close(tracking_uri, run, ended)
    return _result(not why_not, why_not, body)


def compose(
    name: str,
    state: str,
    error: str,
    notice: Mapping[str, Any] | None,
    champion: str | None,
    *,
    records: Sequence[StepRecord] = (),
    run: Run = NO_RUN,
) -> dict[str, Any]:
    """The message.

    Args:
        name: The run's name.
        state: How it ended: an outcome, or KFP's word.
        error: KFP's words on a failure.
        notice: What the check found.
        champion: A sentence on the champion after a training.
        records: What each step did last.
        run: The pipeline run.
    """
    ended = state if state in TITLES else outcome(state, notice, records)
    said, colour = TITLES[ended]
    reasons = list(notice["reasons"]) if notice else []
    if ended == "failed":
        reasons = [*failure_reasons(records, error), *run.pointers(failed_step(records))]
    elif ended == "unknown":
        reasons = ["Whether anything was trained is not known.", *run.pointers(None)]
    if champion:
        reasons.insert(0, champion)
    shown = [_escape(reason)[:LONGEST] for reason in reasons[:MAX_REASONS]]
    return {
        "text": _escape(f"{name}: {said}"),
        "attachments": [{"color": colour, "text": "\n".join(f"• {line}" for line in shown)}],
    }


def _close(tracking_uri: str, run: Run, ended: str) -> None:
    """End what the run left open in MLflow, so that it does not read RUNNING for ever."""
    statuses: dict[str, End] = {"failed": "FAILED", "stopped": "KILLED", "unknown": "KILLED"}
    status = statuses.get(ended, "FINISHED")
    if run.id and run.experiment:
        _quietly(
            "what the run left in MLflow",
            lambda: close_runs(tracking_uri, run.experiment, run.id, status, f"the run {ended}"),
        )


def _promoted(
    records: Sequence[StepRecord], notice: Mapping[str, Any] | None, uri: str, model: str
) -> bool:
    """Whether the step promote came to its end: by its record, else by a version newer than that.

    A store that was away may have no record; the registry has the version all the same.
    """
    if any(record.step == "promote" and record.state == "done" for record in records):
        return True
    if notice is None or not notice["start"] or records:
        return False
    started = datetime.fromisoformat(str(notice["when"])).timestamp() * 1000

    def newer() -> bool:
        with mlflow_errors(uri, f"the versions of {model}"):
            found = connect(uri).search_model_versions(equals("name", model))
        return any(version.creation_timestamp >= started for version in found)

    return bool(_quietly("whether a model was registered", newer))


def post(url: str, body: Mapping[str, Any], sleep: Callable[[float], None]) -> str:
    """Send a message; three tries. Returns why it failed, or nothing; never the address."""
    if scheme(url) not in ("http", "https"):
        return f"{URL_VARIABLE} is not an http address"
    why_not = ""
    for pause in (0.0, *PAUSES):
        if pause:
            sleep(pause)
        status = _status(url, json.dumps(body))
        if isinstance(status, str):
            why_not = status
            continue
        if 200 <= status < 300:
            return ""
        why_not = f"the webhook answers with status {status}"
        if status < 500 and status != 429:
            break  # it will not change its mind
    return why_not


def _status(url: str, body: str) -> int | str:
    """The status of one try, or why there is none.

    A thread, because a timeout counts between two bytes: a server that sends one now and then
    would keep us for ever. The thread ends with the process.
    """
    import requests  # type: ignore[import-untyped]  # ships no types

    if leads_to_metadata(url):
        return "the webhook's address is that of a cloud's metadata service"
    found: list[int | str] = []

    def send() -> None:
        try:
            with requests.post(
                url,
                data=body,
                headers={"Content-Type": "application/json"},
                timeout=TIMEOUT_SECONDS,
                allow_redirects=False,
                stream=True,  # what it says is of no interest, nor how long it says it
            ) as answer:
                found.append(int(answer.status_code))
        except Exception as error:  # its text holds the address
            found.append(f"the webhook does not answer ({type(error).__name__})")

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    thread.join(TOTAL_SECONDS)
    return found[0] if found else f"the webhook takes longer than {TOTAL_SECONDS:g} s"


def _champion(tracking_uri: str, name: str) -> str:
    """Who is champion after the training, and whether the new model became it."""
    champion = open_registry(tracking_uri).champion(name)
    if champion is None:
        return f"{name} has no champion: the new model was not good enough."
    with mlflow_errors(tracking_uri, f"the versions of {name}"):
        found = connect(tracking_uri).search_model_versions(equals("name", name))
    newest = max((int(version.version) for version in found), default=int(champion.version))
    if newest > int(champion.version):
        return (
            f"Version {newest} of {name} is not better: version {champion.version} stays champion."
        )
    return f"The champion of {name} is version {champion.version}."


def _quietly(what: str, ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except GraftlineError as error:
        message("WARNING: %s is not known. %s", what, error)
        return None


def _result(sent: bool, why_not: str, body: Mapping[str, Any]) -> NotifyResult:
    text = f"{body['text']}\n{body['attachments'][0]['text']}"
    message("%s", text)
    if why_not:
        message("No message was sent: %s", why_not)
    return NotifyResult(sent=sent, why_not=why_not, text=text)


def _escape(text: str) -> str:
    """The three characters that Slack reads as its own."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
