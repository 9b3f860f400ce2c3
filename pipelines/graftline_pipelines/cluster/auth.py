"""How we reach a Kubeflow Pipelines server, and who we say we are."""

import contextlib
import io
import json
import os
import urllib.parse
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graftline.addresses import leads_to_metadata, split_address
from graftline.credentials import KFP, tidy
from graftline.errors import ClusterError, ConfigurationError
from graftline.redaction import learn
from graftline_pipelines.cluster.errors import (
    ClusterUnreachable,
    login_page,
    not_kubeflow,
    server_words,
    translated,
    unreachable,
)

HOST_VARIABLE = "KF_PIPELINES_ENDPOINT"  # the client's own
TOKEN_VARIABLE = "GRAFTLINE_KFP_TOKEN"  # noqa: S105 -- the name of a variable
COOKIE_VARIABLE = "GRAFTLINE_KFP_COOKIE"
CA_VARIABLE = "GRAFTLINE_KFP_CA"
TOKEN_FILE_VARIABLE = "KF_PIPELINES_SA_TOKEN_PATH"  # noqa: S105 -- the client's own
TOKEN_FILE = "/var/run/secrets/kubeflow/pipelines/token"  # noqa: S105
IN_CLUSTER_HOST = "http://ml-pipeline.kubeflow.svc.cluster.local:8888"
POD_NAMESPACE_FILE = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"
CONNECT_SECONDS = 10
READ_SECONDS = 60


@dataclass(frozen=True)
class Login:
    """How we say who we are. Read from the environment: never from a run file.

    Attributes:
        kind: ``token``, ``cookie``, ``token file`` or ``none``, for messages.
    """

    kind: str
    token: str | None = None
    cookie: str | None = None
    token_file: Path | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Login":
        """The first of: token, cookie, a mounted service-account token, nothing.

        Raises:
            ConfigurationError: A token file is named and absent, or a value fits no header.
        """
        tidy(KFP)
        if environment.get(TOKEN_VARIABLE):
            return cls("token", token=environment[TOKEN_VARIABLE].strip())
        if environment.get(COOKIE_VARIABLE):
            return cls("cookie", cookie=environment[COOKIE_VARIABLE].strip())
        named = environment.get(TOKEN_FILE_VARIABLE)
        path = Path(named or TOKEN_FILE)
        if path.is_file():
            return cls("token file", token_file=path)
        if named:
            raise ConfigurationError(
                f"{TOKEN_FILE_VARIABLE}: there is no file {named}",
                fix="Mount a service account token with the audience pipelines.kubeflow.org "
                "there, or unset the variable.",
            )
        return cls("none")

    def headers(self) -> dict[str, str]:
        """The headers of one request."""
        if self.cookie:
            return {"Cookie": self.cookie}
        token = self.token
        if self.token_file:
            token = self.token_file.read_text().strip()
            learn(token)
        return {"Authorization": f"Bearer {token}"} if token else {}


def resolve_host(host: str | None, environment: Mapping[str, str] = os.environ) -> str:
    """The server's address: as given, as set, or the one inside a cluster.

    Raises:
        ConfigurationError: None is known, or it is not an HTTP address.
    """
    chosen = host or environment.get(HOST_VARIABLE)
    if not chosen and "KUBERNETES_SERVICE_HOST" in environment:
        chosen = IN_CLUSTER_HOST
    if not chosen:
        raise ConfigurationError(
            "No Kubeflow Pipelines server is named",
            fix=f"Give --host URL, or set {HOST_VARIABLE}. From outside a cluster: "
            "kubectl -n kubeflow port-forward svc/ml-pipeline-ui 8080:80, and "
            "--host http://localhost:8080",
        )
    if not chosen.startswith(("http://", "https://")):
        raise ConfigurationError(
            f"--host: {chosen!r} does not start with http:// or https://",
            fix=f"Write https://{chosen}, or http:// for a port-forward.",
        )
    return chosen.rstrip("/")


def version_notes(host: str, server: str) -> list[str]:
    """What to say of the server's version beside ours.

    Raises:
        ClusterError: The major versions differ: their pipelines do not understand each other.
    """
    from importlib.metadata import version

    ours = version("kfp")
    try:
        theirs = tuple(int(part) for part in server.lstrip("v").split("-")[0].split(".")[:2])
        mine = tuple(int(part) for part in ours.split(".")[:2])
    except ValueError:
        return []  # built from source: it says "unknown" or a branch
    if theirs[0] != mine[0]:
        raise ClusterError(
            f"{host} is Kubeflow Pipelines {server}, and this client is {ours}.",
            why="Pipelines of different major versions do not understand each other.",
            fix="Upgrade the server to 2.x, or use the Graftline version made for it.",
        )
    if theirs < mine:
        return [
            f"The server is Kubeflow Pipelines {server}, older than this client ({ours}). It may "
            "refuse newer fields; it then says which."
        ]
    return []


def healthz(host: str, login: Login) -> dict[str, Any]:
    """The server's version and mode; the first thing asked, so the one that tells of a bad login.

    Raises:
        ClusterError: It does not answer, or wants another login.
    """
    import requests  # type: ignore[import-untyped]  # ships no types

    if leads_to_metadata(host):
        raise unreachable(host, "It is a cloud's metadata service, which hands out keys.")
    url = f"{host}/apis/v2beta1/healthz"
    verify: bool | str = os.environ.get(CA_VARIABLE) or True
    try:
        answer = requests.get(
            url,
            headers=login.headers(),
            timeout=(CONNECT_SECONDS, CONNECT_SECONDS),
            allow_redirects=False,
            verify=verify,
        )
    except requests.RequestException as error:
        raise unreachable(host, error) from None
    kind = answer.headers.get("Content-Type", "")
    if answer.is_redirect or (answer.ok and "html" in kind):
        raise login_page(host)
    if answer.status_code == 404 or (answer.ok and "json" not in kind):
        raise not_kubeflow(host)
    if not answer.ok:
        raise translated(host, "the health check", answer.status_code, server_words(answer.text))
    try:
        found = answer.json()
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise not_kubeflow(host)
    return found


def pod_namespace() -> str | None:
    """The namespace of the pod that we are in."""
    path = Path(POD_NAMESPACE_FILE)
    return path.read_text().strip() if path.is_file() else None


def open_client(host: str, login: Login, namespace: str | None) -> Any:
    """The real client, with every request bounded and every web page recognised."""
    with silent():
        import kfp
        from kfp.client import ServiceAccountTokenVolumeCredentials

        credentials = None
        if login.token_file is not None:
            credentials = ServiceAccountTokenVolumeCredentials(path=str(login.token_file))
        client = kfp.Client(
            host=host,
            namespace="default",  # with an empty one it asks the server, up to five times
            existing_token=login.token,
            cookies=login.cookie,
            credentials=credentials,
            ssl_ca_cert=os.environ.get(CA_VARIABLE),
            proxy=_proxy(host),
        )
    client._context_setting["namespace"] = namespace or ""
    api = client._run_api.api_client  # one for all services
    _own_rules(api.rest_client.pool_manager, host)
    request = api.request

    def bounded(*args: Any, **kwargs: Any) -> Any:
        kwargs["_request_timeout"] = kwargs.get("_request_timeout") or (
            CONNECT_SECONDS,
            READ_SECONDS,
        )
        answer = request(*args, **kwargs)
        if "html" in (answer.getheader("Content-Type") or ""):
            raise login_page(host)
        _require_object(host, answer)
        return answer

    api.request = bounded
    return client


def _require_object(host: str, answer: Any) -> None:
    """Refuse what is no JSON object: the client makes an empty listing of it.

    Raises:
        ClusterError: Something else than the API answered, or half of an answer came.
    """
    data = answer.data
    if not data:
        return
    try:
        found = json.loads(data)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ClusterUnreachable(
            f"What {host} sends is not the answer of Kubeflow Pipelines: it is no JSON object.",
            fix="Try again. If it stays so, compare the server's version with this client's, and "
            "see what stands before the server.",
        )


def _proxy(host: str) -> str | None:
    """The proxy that the environment names for this host, NO_PROXY regarded."""
    from requests.utils import get_environ_proxies, select_proxy  # type: ignore[import-untyped]

    found = select_proxy(host, get_environ_proxies(host, no_proxy=None))
    return str(found) if found else None


def _own_rules(pools: Any, host: str) -> None:
    """What the client leaves to its defaults: the proxy's login, and redirects.

    A redirect leads to a login page; where it is followed, that page is all that is seen.
    """
    import urllib3

    pools.connection_pool_kw["retries"] = urllib3.Retry(3, redirect=0, raise_on_redirect=False)
    proxy = split_address(_proxy(host) or "")
    if proxy.username:
        login = f"{proxy.username}:{proxy.password or ''}"
        header = urllib3.make_headers(proxy_basic_auth=urllib.parse.unquote(login))
        pools.proxy_headers = pools.connection_pool_kw["_proxy_headers"] = header


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """KFP's client prints links and warnings of its own; ours are enough."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
