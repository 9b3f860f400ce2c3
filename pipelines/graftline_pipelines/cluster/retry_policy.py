"""What the workflow controller tries again: a rule, merged into what KFP's config map has.

KFP's `set_retry` carries a limit and a backoff, no policy. Which failures are tried again is
decided by the controller's `workflowDefaults`, for every team on the cluster. That key is one
string, so a `kubectl patch` of it removes what else stands there, such as KFP's own time to live of
finished workflows. Here only the rule and the `fsGroup` are changed.
"""

import copy
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import yaml

from graftline.errors import ClusterError, ConfigurationError
from graftline_pipelines.cluster.kube import NotInCluster, ask
from graftline_pipelines.runfile.pools import IMAGE_USER

CONFIG_MAP = "workflow-controller-configmap"
DEPLOYMENT = "workflow-controller"
NAMESPACE = "kubeflow"
KEY = "workflowDefaults"

# What Argo says of a pod that was lost. `main: OOMKilled (exit code 137)` and `exit code 1` are
# the step's own failures: they would fail again, and be paid for twice.
LOST = (
    "pod deleted",
    "node shutdown",
    "shutting down",
    "preempt",
    "evict",
    "low on resource",
    "node is draining",
    "node lost",
    "unexpectedadmissionerror",
    "exit code 143",  # SIGTERM
    "Error .exit code 137",  # SIGKILL, not for lack of memory
    "wait: Error",  # a log that could not be saved
    "init: Error",  # a pod that could not start
)
RULE: Mapping[str, Any] = {
    "retryPolicy": "Always",
    "expression": f'lastRetry.message matches "(?i){"|".join(LOST)}"',
}
# For templates without their own, such as drivers; where KFP sets some, they stay. Short: each
# level of the graph waits its own.
UNLESS_SET: Mapping[str, Any] = {"limit": "2", "backoff": {"duration": "10s", "factor": "2"}}
SECURITY: Mapping[str, Any] = {"fsGroup": IMAGE_USER, "fsGroupChangePolicy": "OnRootMismatch"}


@dataclass(frozen=True)
class Change:
    """What applying the rule changes in a config map.

    Attributes:
        data: The keys of `data` that change, with their new text; empty where nothing does.
        difference: The change, for a person: a unified diff.
    """

    data: Mapping[str, str]
    difference: str


def merged(defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The controller's workflow defaults with the rule; everything else stays."""
    result = copy.deepcopy(dict(defaults))
    spec = _section(result, "spec", KEY)
    templates = _section(spec, "templateDefaults", f"{KEY}.spec")
    where = f"{KEY}.spec.templateDefaults"
    _section(templates, "securityContext", where).update(SECURITY)
    strategy = _section(templates, "retryStrategy", where)
    strategy.update(RULE)
    for key, value in UNLESS_SET.items():
        strategy.setdefault(key, copy.deepcopy(value))
    return result


def change_of(data: Mapping[str, str]) -> Change:
    """What applying the rule changes in the `data` of a config map.

    Raises:
        ConfigurationError: What stands there cannot be read.
    """
    if "config" in data:  # the other form that Argo reads: all settings in one key
        whole = _parsed(data["config"], "config")
        before: Any = whole.get(KEY) or {}
        if not isinstance(before, dict):
            raise _unreadable(KEY, "it is not a mapping")
        after = merged(before)
        text = data["config"] if after == before else _text({**whole, KEY: after})
        return _change("config", data["config"], text)
    old = data.get(KEY, "")
    before = _parsed(old, KEY)
    after = merged(before)
    return _change(KEY, old, old if after == before else _text(after))


def change_of_file(text: str) -> str:
    """A config map's YAML with the rule, for those who keep their cluster in a repository.

    Raises:
        ConfigurationError: It is not this config map.
    """
    document = _parsed(text, "the file")
    if document.get("kind") != "ConfigMap" or not isinstance(document.get("data", {}), dict):
        raise ConfigurationError(
            "--file: this is not a ConfigMap",
            fix=f"kubectl -n {NAMESPACE} get configmap {CONFIG_MAP} -o yaml > FILE",
        )
    data = document.get("data") or {}
    changed = {**document, "data": {**data, **change_of(data).data}}
    return yaml.dump(changed, Dumper=_Readable, sort_keys=False, width=1000, allow_unicode=True)


class _Readable(yaml.SafeDumper):
    """Writes texts of several lines as people do, with `|`."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        """One text."""
        return self.represent_scalar("tag:yaml.org,2002:str", text, "|" if "\n" in text else None)


_Readable.add_representer(str, _Readable.represent_text)


class Controller:
    """The workflow controller's settings in a cluster.

    Args:
        client: From :func:`graftline_pipelines.cluster.kube.open_api`.
        namespace: Where KFP is installed.
    """

    def __init__(self, client: Any, namespace: str = NAMESPACE) -> None:
        import kubernetes

        self._core = kubernetes.client.CoreV1Api(client)
        self._apps = kubernetes.client.AppsV1Api(client)
        self.namespace = namespace

    def change(self) -> tuple[Change, str]:
        """What applying the rule would change, and the version of the config map that was read.

        Raises:
            ConfigurationError: The config map is not there, or cannot be read.
            ClusterError: It cannot be asked for.
        """
        try:
            found = ask(
                f"The config map {CONFIG_MAP} in {self.namespace} cannot be read",
                "get config maps there",
                self._core.read_namespaced_config_map,
                CONFIG_MAP,
                self.namespace,
            )
        except NotInCluster:
            raise ConfigurationError(
                f"There is no config map {CONFIG_MAP} in the namespace {self.namespace}",
                fix="Name the namespace that KFP is installed in with --kubeflow-namespace.",
            ) from None
        return change_of(found.data or {}), str(found.metadata.resource_version)

    def apply(self, change: Change, version: str) -> None:
        """Write a change.

        Args:
            change: From :meth:`change`.
            version: Of the config map; where it is another one by now, nothing is written.

        Raises:
            Conflict: The config map was changed meanwhile.
        """
        ask(
            f"The config map {CONFIG_MAP} in {self.namespace} cannot be changed",
            "patch config maps there",
            self._core.patch_namespaced_config_map,
            CONFIG_MAP,
            self.namespace,
            {"metadata": {"resourceVersion": version}, "data": dict(change.data)},
        )

    def restart(self) -> bool:
        """Restart the controller, which reads the settings when it starts; False if not allowed."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        annotations = {"kubectl.kubernetes.io/restartedAt": now}  # as `kubectl rollout restart`
        try:
            ask(
                f"The deployment {DEPLOYMENT} cannot be restarted",
                "patch deployments there",
                self._apps.patch_namespaced_deployment,
                DEPLOYMENT,
                self.namespace,
                {"spec": {"template": {"metadata": {"annotations": annotations}}}},
            )
        except ClusterError:
            return False
        return True


def _section(parent: dict[str, Any], key: str, where: str) -> dict[str, Any]:
    """A mapping in a mapping, made where it is missing."""
    if parent.get(key) is None:
        parent[key] = {}
    if not isinstance(parent[key], dict):
        raise _unreadable(f"{where}.{key}", "it is not a mapping")
    section: dict[str, Any] = parent[key]
    return section


def _parsed(text: str, where: str) -> dict[str, Any]:
    try:
        found = yaml.safe_load(text or "")
    except yaml.YAMLError as error:
        raise _unreadable(where, f"it is not YAML: {error}") from None
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise _unreadable(where, "it is not a mapping")
    return found


def _unreadable(where: str, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"{where} of {CONFIG_MAP} cannot be read",
        why=why,
        fix="Correct it with `kubectl edit` first; nothing was changed.",
    )


def _text(content: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(content), sort_keys=False, width=1000, allow_unicode=True)


def _change(key: str, old: str, new: str) -> Change:
    if old == new:
        return Change({}, "")
    # Both in one form: comments and quotes are no difference.
    before = _text(_parsed(old, key)).splitlines() if old.strip() else []
    lines = difflib.unified_diff(before, new.splitlines(), f"{key} now", f"{key} then", lineterm="")
    return Change({key: new}, "\n".join(lines))
