"""Step: tell people how a retraining ended. It never fails: what it reports on is over.

The message is JSON as Slack's incoming webhooks take it; Mattermost and Rocket.Chat read the same.
The address is a secret: it comes from the environment and is never printed.
"""

import dataclasses
import json
import os
import threading
import time
import urllib.parse
from collections.abc import Callable, Mapping
from typing import Any

from graftline.errors import GraftlineError
from graftline.progress import message
from graftline.records.retrain_notice import read_notice
from graftline.steps.runtime import StepResult
from graftline.tracking.filters import equals
from graftline.tracking.mlflow_run import connect, mlflow_errors
from graftline.tracking.registry import open_registry

URL_VARIABLE = "GRAFTLINE_WEBHOOK_URL"
TIMEOUT_SECONDS = 5.0  # without a byte
TOTAL_SECONDS = 15.0  # of one try, however it goes
PAUSES = (1.0, 3.0)  # seconds before the second and the third try
MAX_REASONS = 8
GOOD, BAD, PLAIN = "#1a7f37", "#cf222e", "#57606a"


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
    environment: Mapping[str, str] = os.environ,
    sleep: Callable[[float], None] = time.sleep,
) -> NotifyResult:
    """Tell the webhook how a run ended.

    Args:
        name: The run's name.
        state: ``SUCCEEDED``, ``FAILED`` or ``CANCELLED``, as KFP says it.
        error: KFP's words on a failure.
        store: The store, which knows what the look found.
        tracking_uri: Tracking URI of MLflow, which knows the champion.
        registered_model: The model.
        quiet: Say nothing where nothing changed.
        environment: Holds the webhook's address.
        sleep: Waits between tries.
    """
    news = _quietly("what the look found", lambda: read_notice(store, registered_model))
    trained = state == "SUCCEEDED" and news is not None and bool(news["start"])
    champion = (
        _quietly("the champion", lambda: _champion(tracking_uri, registered_model))
        if trained
        else None
    )
    body = compose(name, state, error, news, champion)
    url = environment.get(URL_VARIABLE, "").strip()
    if not url:
        return _told(False, f"{URL_VARIABLE} is not set", body)
    if quiet and state == "SUCCEEDED" and not trained:
        return _told(False, "nothing was trained, and `retrain.quiet` is set", body)
    why_not = post(url, body, sleep)
    return _told(not why_not, why_not, body)


def compose(
    name: str,
    state: str,
    error: str,
    news: Mapping[str, Any] | None,
    champion: str | None,
) -> dict[str, Any]:
    """The message.

    Args:
        name: The run's name.
        state: How it ended.
        error: KFP's words on a failure.
        news: What the look found.
        champion: A sentence on the champion after a training.
    """
    reasons = list(news["reasons"]) if news else []
    if state == "SUCCEEDED" and news is not None and not news["start"]:
        title, colour = f"{name}: nothing to train", PLAIN
    elif state == "SUCCEEDED":
        title, colour = f"{name}: trained", GOOD
    elif state == "CANCELLED":
        title, colour = f"{name}: stopped", PLAIN
    else:
        title, colour = f"{name}: failed", BAD
        reasons = [error.strip() or "KFP gives no reason; see the run's page."]
    if champion:
        reasons.insert(0, champion)
    shown = [_escape(reason)[:600] for reason in reasons[:MAX_REASONS]]
    return {
        "text": _escape(title),
        "attachments": [{"color": colour, "text": "\n".join(f"• {line}" for line in shown)}],
    }


def post(url: str, body: Mapping[str, Any], sleep: Callable[[float], None]) -> str:
    """Send a message; three tries. Returns why it failed, or nothing; never the address."""
    if urllib.parse.urlparse(url).scheme not in ("http", "https"):
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


def _told(sent: bool, why_not: str, body: Mapping[str, Any]) -> NotifyResult:
    text = f"{body['text']}\n{body['attachments'][0]['text']}"
    message("%s", text)
    if why_not:
        message("Nobody was told: %s", why_not)
    return NotifyResult(sent=sent, why_not=why_not, text=text)


def _escape(text: str) -> str:
    """The three characters that Slack reads as its own."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
