"""What goes wrong between us and a Kubeflow Pipelines server, in words that say what to do."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from graftline.errors import ClusterError
from graftline.redaction import excerpt

LOGIN_FIX = (
    "Get a fresh login. A token goes into GRAFTLINE_KFP_TOKEN, a browser's session cookie into "
    "GRAFTLINE_KFP_COOKIE (as name=value), the path of a service account's token file into "
    "KF_PIPELINES_SA_TOKEN_PATH."
)

ADVICE = {
    "unknown field": "The server is older than this client and does not know the field. Upgrade "
    "the server, or install the version of graftline that was made for it.",
    "Failed to store job": "KFP has made the schedule's Kubernetes object all the same, and it "
    "fires, though KFP does not list it. Delete it: graftline schedule remove NAME --kube-context "
    "CONTEXT",
    "Failed to store run": "KFP has started the run all the same, though it does not list it. "
    "Stop it: kubectl -n NAMESPACE delete workflows.argoproj.io NAME",
    "Data too long for column": "A text is longer than the server's database takes. Kubernetes "
    "had made the object before: it may run unseen. Look for it: kubectl get "
    "workflows,scheduledworkflows -n NAMESPACE. Then shorten what the message names.",
}


class ClusterUnreachable(ClusterError):  # noqa: N818 -- reads better where it is caught
    """No answer, or an answer that is not from Kubeflow Pipelines."""


class LoginRequired(ClusterError):  # noqa: N818
    """The server did not accept who we are: nothing was sent, expired, or not allowed."""


class NotOnServer(ClusterError):  # noqa: N818
    """The server has nothing by that id or name."""


class AlreadyOnServer(ClusterError):  # noqa: N818
    """The name is taken."""


@contextmanager
def kfp_errors(host: str, doing: str) -> Iterator[None]:
    """Turn whatever the client raises into an error that names the host, the cause and the fix.

    Args:
        host: The server's address.
        doing: What was asked of it, for the message.
    """
    import kfp_server_api
    import urllib3

    try:
        yield
    except ClusterError:
        raise
    except kfp_server_api.ApiException as error:
        raise translated(host, doing, int(error.status or 0), _text(error)) from None
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise unreachable(host, error) from None


def translated(host: str, doing: str, status: int, text: str) -> ClusterError:
    """The error for an HTTP status and the server's own words."""
    if status == 0:
        return unreachable(host, text)
    if 300 <= status < 400:
        return login_page(host)
    if status == 407:
        return ClusterUnreachable(
            f"The proxy before {host} wants a login (status 407).",
            fix="Write it into HTTPS_PROXY (user:password before the host), or list the server in "
            "NO_PROXY.",
        )
    if status in (401, 403):
        return _refused(host, doing, status, text)
    if status == 404:
        return NotOnServer(
            f"{host} does not know what was asked for while {doing}.",
            why=text or None,
            fix="`graftline runs` and `graftline schedule list` show what exists. If the server "
            "has several users, check `cluster.namespace`.",
        )
    if status == 409:
        return AlreadyOnServer(f"{host}: the name is taken ({doing}).", why=text or None)
    if status in (502, 503, 504):
        return ClusterUnreachable(
            f"The gateway before {host} has no server behind it at the moment (status {status}).",
            why=text or None,
            fix="Wait for the pod ml-pipeline to be ready: "
            "kubectl -n kubeflow get pods -l app=ml-pipeline",
        )
    fix = _advice(status, text)
    return ClusterError(f"{host} refused {doing} (status {status}).", why=text or None, fix=fix)


def _advice(status: int, text: str) -> str:
    """What to do about a refusal, by the server's own words."""
    if text.startswith("Failed to create a pipeline") and ":" not in text:
        return (
            "The server does not say why. Most often the account may not write pipelines in the "
            "namespace (it needs kubeflow-pipelines-edit there). Its log has the reason: "
            "kubectl -n kubeflow logs deploy/ml-pipeline"
        )
    for words, fix in ADVICE.items():
        if words in text:
            return fix
    if status in (408, 429):
        return "The server is overloaded, or limits how often it is asked: run it again later."
    if status >= 500:
        return "See the server's log: kubectl -n kubeflow logs deploy/ml-pipeline"
    return "Correct what it names and submit again."


def _refused(host: str, doing: str, status: int, text: str) -> ClusterError:
    if status == 401:
        return LoginRequired(
            f"{host} does not accept the login (status 401).",
            why=text or "The token or cookie is missing, wrong or has expired.",
            fix=LOGIN_FIX,
        )
    return LoginRequired(
        f"{host} does not allow {doing} (status 403).",
        why=text or None,
        fix="The login is expired, or the account lacks the role: in the namespace it needs "
        f"kubeflow-pipelines-edit. {LOGIN_FIX}",
    )


def login_page(host: str) -> LoginRequired:
    """The error for a web page where the API should answer."""
    return LoginRequired(
        f"{host} answers with a web page instead of the API.",
        why="It is the login page: the token or cookie is missing or has expired. Or the address "
        "is not that of Kubeflow Pipelines.",
        fix=LOGIN_FIX,
    )


def unreachable(host: str, cause: object) -> ClusterUnreachable:
    """The error for a host that does not answer."""
    text = str(cause)
    reason = re.search(
        r"(Name or service not known|nodename nor servname|Temporary failure in "
        r"name resolution|Connection refused|timed out|CERTIFICATE_VERIFY_FAILED|"
        r"WRONG_VERSION_NUMBER|No route to host|Connection reset|Network is unreachable)",
        text,
    )
    fix = (
        "Check the address and that the server runs. From outside a cluster: "
        "kubectl -n kubeflow port-forward svc/ml-pipeline-ui 8080:80, and "
        "--host http://localhost:8080"
    )
    if reason and reason[1] == "CERTIFICATE_VERIFY_FAILED":
        fix = "Name the file of the certificate authority in GRAFTLINE_KFP_CA."
    if reason and reason[1] == "WRONG_VERSION_NUMBER":
        return ClusterUnreachable(
            f"{host} does not answer.",
            why="The server there speaks no TLS.",
            fix=f"Write {host.replace('https://', 'http://')}, as for a port-forward.",
        )
    return ClusterUnreachable(
        f"{host} does not answer.", why=reason[1] if reason else excerpt(text, 300) or None, fix=fix
    )


def not_kubeflow(host: str) -> ClusterUnreachable:
    """The error for another server in the place of Kubeflow Pipelines."""
    return ClusterUnreachable(
        f"{host} does not answer as Kubeflow Pipelines does.",
        why="Another server answers there, or the path to its API is missing.",
        fix="Check host, port and path: what the browser shows before /#/runs.",
    )


def _text(error: Any) -> str:
    body = error.body
    if isinstance(body, bytes):
        body = body.decode(errors="replace")
    return server_words(body) if body else str(error.reason or "")


def server_words(body: str) -> str:
    """The server's own sentence out of an answer's body."""
    try:
        parsed = json.loads(body)
    except ValueError:
        return excerpt(str(body).strip(), 500)
    if isinstance(parsed, dict):
        details = parsed.get("details") or [{}]
        public = details[0].get("message") if isinstance(details[0], dict) else None
        if public and public != "Internal Server Error":
            return excerpt(str(public), 1000)  # the sentence without its chain of wrappings
        for key in ("message", "error_message", "error"):
            if parsed.get(key):
                return excerpt(str(parsed[key]), 1000)
    return excerpt(str(body), 500)
