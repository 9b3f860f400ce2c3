"""The retry rule, merged into the workflow controller's settings: all else there stays."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.http_server import Handler
from tests.support.kubernetes import api_server
from typer.testing import CliRunner, Result

from graftline.errors import ConfigurationError
from graftline_pipelines.cli.main import app
from graftline_pipelines.cluster import retry_policy
from graftline_pipelines.cluster.kube import Conflict

# What KFP installs: finished workflows go after a day, errors are tried again twice.
KFP = """\
# KFP's own
spec:
  ttlStrategy: {secondsAfterCompletion: 86400}
  podGC: {strategy: OnPodCompletion}
  templateDefaults:
    metadata: {labels: {team: all}}
    retryStrategy:
      limit: 2
      retryPolicy: OnError
      backoff: {duration: 5s, factor: 2}
"""
OTHERS = {
    "artifactRepository": "archiveLogs: true\n",
    "executor": "imagePullPolicy: IfNotPresent\n",
}


def spec_of(change: retry_policy.Change) -> dict[str, Any]:
    spec: dict[str, Any] = yaml.safe_load(change.data["workflowDefaults"])["spec"]
    return spec


def test_what_kfp_and_others_set_stays() -> None:
    spec = spec_of(retry_policy.change_of({**OTHERS, "workflowDefaults": KFP}))
    before = yaml.safe_load(KFP)["spec"]
    assert spec["ttlStrategy"] == before["ttlStrategy"] and spec["podGC"] == before["podGC"]
    template = spec["templateDefaults"]
    assert template["metadata"] == before["templateDefaults"]["metadata"]
    strategy = template["retryStrategy"]
    assert strategy["retryPolicy"] == "Always"
    assert strategy["limit"] == 2 and strategy["backoff"] == {"duration": "5s", "factor": 2}
    assert template["securityContext"] == {
        "fsGroup": 10001,
        "fsGroupChangePolicy": "OnRootMismatch",
    }


def test_only_the_key_with_the_defaults_changes() -> None:
    change = retry_policy.change_of({**OTHERS, "workflowDefaults": KFP})
    assert set(change.data) == {"workflowDefaults"}
    removed = [line for line in change.difference.splitlines() if re.match(r"-(?!-)", line)]
    assert removed == ["-      retryPolicy: OnError"]


def test_a_second_time_changes_nothing() -> None:
    first = retry_policy.change_of({**OTHERS, "workflowDefaults": KFP})
    again = retry_policy.change_of({**OTHERS, **first.data})
    assert again.data == {} and again.difference == ""


@pytest.mark.parametrize(
    "data", [OTHERS, {}, {"workflowDefaults": ""}, {"workflowDefaults": "spec:"}]
)
def test_where_there_are_no_defaults_they_are_made(data: dict[str, str]) -> None:
    strategy = spec_of(retry_policy.change_of(data))["templateDefaults"]["retryStrategy"]
    assert strategy["limit"] == "2" and "maxDuration" not in strategy["backoff"]


def test_the_form_with_everything_in_one_key() -> None:
    config = yaml.safe_dump({"parallelism": 5, "workflowDefaults": yaml.safe_load(KFP)})
    change = retry_policy.change_of({"config": config})
    assert set(change.data) == {"config"}
    whole = yaml.safe_load(change.data["config"])
    assert whole["parallelism"] == 5
    assert whole["workflowDefaults"] == retry_policy.merged(yaml.safe_load(KFP))
    assert retry_policy.change_of(change.data).data == {}


@pytest.mark.parametrize("text", ["[1", "- a", "spec: 5", "spec: {templateDefaults: []}", "7"])
def test_what_cannot_be_read_is_left_alone(text: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        retry_policy.change_of({"workflowDefaults": text})


# --- in a cluster -------------------------------------------------------------------------------


@pytest.fixture
def kube(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """The part of an API server that knows the config map; as it checks resource versions."""
    state: dict[str, Any] = {
        "version": 7,
        "data": {**OTHERS, "workflowDefaults": KFP},
        "patches": [],
        "refuse": {},
    }

    class ConfigMaps(Handler):
        def do_GET(self) -> None:
            self._answer(200 if self.path.endswith(retry_policy.CONFIG_MAP) else 404)

        def do_PATCH(self) -> None:
            body = self.read_json()
            state["patches"].append((self.path, self.headers["Content-Type"], body))
            refused = next((s for part, s in state["refuse"].items() if part in self.path), None)
            if refused:
                return self._answer(refused)
            if "configmaps" in self.path:
                if body["metadata"]["resourceVersion"] != str(state["version"]):
                    return self._answer(409)
                state["data"].update(body["data"])
                state["version"] += 1
            return self._answer(200)

        def _answer(self, status: int) -> None:
            found = {
                "kind": "ConfigMap",
                "apiVersion": "v1",
                "metadata": {"name": "x", "resourceVersion": str(state["version"])},
                "data": state["data"],
            }
            self.answer(status, found if status == 200 else {"message": "no"})

    with api_server(ConfigMaps, tmp_path):
        yield state


def policy(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["cluster", "retry-policy", *arguments])


def test_without_apply_nothing_is_changed(kube: dict[str, Any]) -> None:
    done = policy()
    assert done.exit_code == 0, done.output
    assert "-      retryPolicy: OnError" in done.output and "Nothing was changed" in done.output
    assert kube["patches"] == []


def test_apply_merges_and_restarts_the_controller(kube: dict[str, Any]) -> None:
    done = policy("--apply", "--kube-context", "mine", "--json")
    assert done.exit_code == 0, done.output
    last = json.loads(done.output.strip().splitlines()[-1])
    assert last["applied"] and last["restarted"]
    assert kube["data"]["executor"] == OTHERS["executor"]
    spec = yaml.safe_load(kube["data"]["workflowDefaults"])["spec"]
    assert spec["ttlStrategy"] and spec["templateDefaults"]["retryStrategy"]["expression"]
    (_, kind, body), (restarted, _, _) = kube["patches"]
    assert set(body["data"]) == {"workflowDefaults"} and "json-patch" not in kind
    assert restarted.endswith("/namespaces/kubeflow/deployments/workflow-controller")
    assert "already has the rule" in policy("--apply").output
    assert len(kube["patches"]) == 2


def test_a_config_map_that_somebody_changes_meanwhile(
    kube: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = retry_policy.Controller.change

    def then_changed(self: Any) -> Any:
        found = read(self)
        kube["version"] += 1
        return found

    monkeypatch.setattr(retry_policy.Controller, "change", then_changed)
    done = policy("--apply")
    assert isinstance(done.exception, Conflict)
    assert kube["data"]["workflowDefaults"] == KFP


def test_without_the_right_to_restart_the_command_for_it_is_named(kube: dict[str, Any]) -> None:
    kube["refuse"] = {"deployments": 403}
    done = policy("--apply")
    assert done.exit_code == 0
    assert "kubectl -n kubeflow rollout restart deployment workflow-controller" in done.output


def test_another_context_and_another_namespace(kube: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="'other' cannot be used"):
        raise policy("--kube-context", "other").exception or AssertionError
    kube["refuse"] = {"configmaps": 403}
    refused = policy("--apply", "--kubeflow-namespace", "kfp")
    assert "config maps" in str(refused.exception) and "in kfp" in str(refused.exception)


def test_from_a_file_for_those_who_keep_the_cluster_in_a_repository(tmp_path: Path) -> None:
    document = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": retry_policy.CONFIG_MAP, "labels": {"a": "b"}},
        "data": {**OTHERS, "workflowDefaults": KFP},
    }
    path = tmp_path / "configmap.yaml"
    path.write_text(yaml.safe_dump(document))
    printed = yaml.safe_load(policy("--file", str(path)).stdout)
    defaults = yaml.safe_load(printed["data"].pop("workflowDefaults"))
    assert defaults == retry_policy.merged(yaml.safe_load(KFP))
    document["data"].pop("workflowDefaults")  # type: ignore[attr-defined]
    assert printed == document
    piped = CliRunner().invoke(
        app, ["cluster", "retry-policy", "--file", "-"], input=yaml.safe_dump({**document})
    )
    assert "  workflowDefaults: |\n    spec:" in piped.stdout, "as people write it"
    assert policy("--file", str(tmp_path / "absent.yaml")).exit_code == 2
    path.write_text("kind: Secret")
    assert "not a ConfigMap" in str(policy("--file", str(path)).exception)
