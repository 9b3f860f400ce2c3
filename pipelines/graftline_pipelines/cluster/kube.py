"""Kubernetes itself, where Kubeflow Pipelines does not say enough: through a kubeconfig's context.

Nothing here is needed to submit, schedule or follow a run.
"""

from collections.abc import Callable
from typing import Any

from graftline.errors import ClusterError, ConfigurationError
from graftline.redaction import excerpt

SECONDS = (10, 30)  # to connect, to answer


class Conflict(ClusterError):  # noqa: N818 -- reads better where it is caught
    """The object was changed by somebody else meanwhile."""


class NotInCluster(ClusterError):  # noqa: N818
    """There is no such object."""


def open_api(context: str | None) -> Any:
    """A client of the API server.

    Args:
        context: A context of the kubeconfig; where absent the current one, or the cluster that
            we run in.

    Raises:
        ConfigurationError: There is no such context, or no way to any cluster.
    """
    import kubernetes

    try:
        return kubernetes.config.new_client_from_config(context=context)
    except kubernetes.config.ConfigException as error:
        if context is not None:
            raise ConfigurationError(
                f"--kube-context: {context!r} cannot be used",
                why=str(error),
                fix="`kubectl config get-contexts` lists them.",
            ) from None
    try:
        kubernetes.config.load_incluster_config()
    except kubernetes.config.ConfigException as error:
        raise ConfigurationError(
            "There is no kubeconfig, and this does not run in a cluster",
            why=str(error),
            fix="Set KUBECONFIG to the file that `kubectl` uses.",
        ) from None
    return kubernetes.client.ApiClient()


def ask(doing: str, right: str, method: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Ask the API server for something.

    Args:
        doing: What is asked, for an error's message: "The nodes cannot be listed".
        right: The right that it takes, for an error's fix.
        method: A method of the client.
        arguments: What it is called with.
        named: What it is called with.

    Raises:
        NotInCluster: There is no such object.
        Conflict: It was changed meanwhile.
        ClusterError: Anything else.
    """
    import kubernetes
    import urllib3

    try:
        return method(*arguments, _request_timeout=SECONDS, **named)
    except (kubernetes.client.ApiException, urllib3.exceptions.HTTPError) as error:
        status = getattr(error, "status", None)
        why = excerpt(str(getattr(error, "reason", None) or error), 300)
        if status == 404:
            raise NotInCluster(f"{doing}.", why=why) from None
        if status == 409:
            raise Conflict(
                f"{doing}.",
                why="Somebody else changed it at the same moment.",
                fix="Run the command again.",
            ) from None
        fix = f"This needs the permission to {right}." if status in (401, 403) else None
        raise ClusterError(f"{doing}.", why=why, fix=fix) from None
