"""The manifests in k8s/, rendered as `kubectl apply -k` would, checked without a cluster."""

import copy
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from graftline_pipelines.cluster import retry_policy

REPOSITORY = Path(__file__).parents[2]
K8S = REPOSITORY / "k8s"
CRDS = REPOSITORY.parent / "shared" / "crds"
OVERLAYS = ("base", "overlays/dev", "overlays/aws", "overlays/gke")
VERSIONS = ("1.30.0", "1.31.0", "1.32.0", "1.33.0", "1.34.0")
# Kinds that are not Kubernetes' own, and the file of their schema.
CUSTOM = {
    ("kueue.x-k8s.io", "ClusterQueue"): "kueue.x-k8s.io_clusterqueues.yaml",
    ("kueue.x-k8s.io", "LocalQueue"): "kueue.x-k8s.io_localqueues.yaml",
    ("kueue.x-k8s.io", "ResourceFlavor"): "kueue.x-k8s.io_resourceflavors.yaml",
    ("karpenter.sh", "NodePool"): "karpenter.sh_nodepools.yaml",
    ("karpenter.k8s.aws", "EC2NodeClass"): "karpenter.k8s.aws_ec2nodeclasses.yaml",
    ("external-secrets.io", "ExternalSecret"): "external-secrets.io_externalsecrets.yaml",
    ("external-secrets.io", "SecretStore"): "external-secrets.io_secretstores.yaml",
    # The runtime of a namespace has the schema of the cluster's.
    (
        "trainer.kubeflow.org",
        "TrainingRuntime",
    ): "trainer.kubeflow.org_clustertrainingruntimes.yaml",
}
CHECKOV = REPOSITORY / "build" / "checkov" / "bin" / "checkov"
# What the policy scanner asks for and we do not do, each with the reason.
ACCEPTED = {
    "CKV_K8S_15": "pull policy Always: images are pinned, so a pull brings nothing new",
    "CKV_K8S_35": "secrets as files: libpq and the AWS chain read variables",
    "CKV_K8S_43": "digests: the registry is the administrator's, who sets them in the overlay",
}
Document = dict[str, Any]


@cache
def _kubectl() -> str | None:
    """A kubectl whose kustomize knows components and labels, as 1.27 and later do."""
    command = shutil.which("kubectl")
    if command is None:
        return None
    asked = [command, "version", "--client", "-o", "json"]
    said = subprocess.run(asked, capture_output=True, text=True).stdout
    version = json.loads(said or "{}").get("kustomizeVersion", "v0")
    return command if int(version.lstrip("v").split(".")[0]) >= 5 else None


@cache
def _kustomize(folder: str) -> str:
    command = _kubectl()
    if command is None:
        pytest.skip("kubectl 1.27 or later is not here: the manifests were not rendered")
    result = subprocess.run([command, "kustomize", folder], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "deprecated" not in result.stderr, result.stderr
    return result.stdout


def _documents(folder: Path) -> list[Document]:
    return [item for item in yaml.safe_load_all(_kustomize(str(folder))) if item]


@pytest.fixture(params=OVERLAYS)
def manifests(request: pytest.FixtureRequest) -> list[Document]:
    """Each overlay's documents."""
    return _documents(K8S / request.param)


def _of(manifests: list[Document], kind: str, name: str | None = None) -> list[Document]:
    return [m for m in manifests if m["kind"] == kind and name in (None, m["metadata"]["name"])]


def _one(manifests: list[Document], kind: str, name: str) -> Document:
    (found,) = _of(manifests, kind, name)
    return found


def _group(manifest: Document) -> str:
    return str(manifest["apiVersion"]).rpartition("/")[0]


def _pods(manifests: list[Document]) -> Iterator[tuple[str, Document]]:
    for manifest in manifests:
        if manifest["kind"] in ("Deployment", "StatefulSet", "Job", "DaemonSet", "ReplicaSet"):
            template = manifest["spec"]["template"]
            yield f"{manifest['kind']}/{manifest['metadata']['name']}", template
        elif manifest["kind"] in ("CronJob", "Pod"):
            raise AssertionError("teach _pods about this kind")


# --- schemas ---------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_every_document_is_strictly_valid(manifests: list[Document], version: str) -> None:
    known = [each for each in manifests if (_group(each), each["kind"]) not in CUSTOM]
    assert known
    for manifest in known:
        # An unknown kind raises SchemaNotFoundError; a misspelt field raises ValidationError.
        kubernetes_validate.validate(manifest, version, strict=True)


def test_an_unknown_kind_and_a_misspelt_field_are_noticed() -> None:
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {}}
    kubernetes_validate.validate(service, "1.32.0", strict=True)
    with pytest.raises(kubernetes_validate.SchemaNotFoundError):
        kubernetes_validate.validate({**service, "kind": "Servise"}, "1.32.0", strict=True)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(
            {**service, "spec": {"selektor": {"a": "b"}}}, "1.32.0", strict=True
        )


def _strict(schema: Any) -> Any:
    """A CRD's schema as JSON schema that refuses unknown fields."""
    if isinstance(schema, list):
        return [_strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    result = {key: _strict(value) for key, value in schema.items()}
    open_to_all = schema.get("x-kubernetes-preserve-unknown-fields")
    if isinstance(schema.get("properties"), dict) and not open_to_all:
        result.setdefault("additionalProperties", False)
    return result


@cache
def _crd(name: str) -> Any:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load((CRDS / name).read_text(), Loader=loader)


def _crd_schema(manifest: Document) -> Any:
    crd = _crd(CUSTOM[_group(manifest), manifest["kind"]])
    wanted = manifest["apiVersion"].rpartition("/")[2]
    for version in crd["spec"]["versions"]:
        if version["name"] == wanted:
            assert version["served"], f"{manifest['apiVersion']} is no longer served"
            schema = _strict(version["schema"]["openAPIV3Schema"])
            schema["properties"]["metadata"] = {"type": "object"}
            return schema
    raise AssertionError(f"{manifest['kind']} has no version {wanted}")


def test_custom_resources_keep_to_their_schemas(manifests: list[Document]) -> None:
    if not CRDS.is_dir():
        pytest.skip(f"the CRD schemas are not at {CRDS.name}/: custom resources were not checked")
    custom = [m for m in manifests if (_group(m), m["kind"]) in CUSTOM]
    assert custom
    for manifest in custom:
        jsonschema.Draft202012Validator(_crd_schema(manifest)).validate(manifest)
        broken = copy.deepcopy(manifest)
        broken["spec"] = {**broken.get("spec", {}), "nonsense": 1}
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.Draft202012Validator(_crd_schema(manifest)).validate(broken)


# --- Pod Security Standard "restricted" --------------------------------------------------------

RESTRICTED_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}


def _restricted_problems(spec: Document) -> list[str]:
    """What the standard (Kubernetes documentation, "Pod Security Standards") forbids in a pod."""
    problems = [f"{key} is set" for key in ("hostNetwork", "hostPID", "hostIPC") if spec.get(key)]
    for volume in spec.get("volumes", []):
        problems += [
            f"volume of type {kind}"
            for kind in set(volume) - {"name"}
            if kind not in RESTRICTED_VOLUMES
        ]
    pod = spec.get("securityContext", {})
    if pod.get("sysctls"):
        problems.append("sysctls")
    for container in [*spec["containers"], *spec.get("initContainers", [])]:
        problems += [f"{container['name']}: {p}" for p in _container_problems(container, pod)]
    if pod.get("runAsUser") == 0:
        problems.append("runAsUser 0")
    return problems


def _container_problems(container: Document, pod: Document) -> Iterator[str]:
    own = container.get("securityContext", {})
    if own.get("privileged"):
        yield "privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation is not false"
    if own.get("runAsNonRoot", pod.get("runAsNonRoot")) is not True:
        yield "runAsNonRoot is not true"
    if own.get("runAsUser") == 0:
        yield "runAsUser 0"
    capabilities = own.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", []):
        yield "not all capabilities are dropped"
    if set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
        yield "capabilities are added"
    seccomp = own.get("seccompProfile", pod.get("seccompProfile", {})).get("type")
    if seccomp not in ("RuntimeDefault", "Localhost"):
        yield "no seccomp profile"
    if own.get("procMount", "Default") != "Default":
        yield "procMount"
    if any(port.get("hostPort") for port in container.get("ports", [])):
        yield "hostPort"


def test_every_pod_is_restricted(manifests: list[Document]) -> None:
    pods = dict(_pods(manifests))
    assert pods
    assert {name: _restricted_problems(pod["spec"]) for name, pod in pods.items()} == {
        name: [] for name in pods
    }


def _at(spec: Document, *path: Any) -> Any:
    for key in path:
        spec = spec[key]
    return spec


@pytest.mark.parametrize(
    ("sabotage", "expected"),
    [
        (lambda s: s.update(hostNetwork=True), "hostNetwork"),
        (lambda s: s["volumes"].append({"name": "x", "hostPath": {"path": "/"}}), "hostPath"),
        (lambda s: s["securityContext"].update(runAsUser=0), "runAsUser 0"),
        (lambda s: s["containers"][0]["securityContext"].update(privileged=True), "privileged"),
        (
            lambda s: s["containers"][0]["securityContext"].pop("allowPrivilegeEscalation"),
            "allowPrivilegeEscalation",
        ),
        (
            lambda s: s["containers"][0]["securityContext"].update(runAsNonRoot=False),
            "runAsNonRoot",
        ),
        (lambda s: s["containers"][0]["securityContext"].pop("capabilities"), "capabilities"),
        (
            lambda s: _at(s, "containers", 0, "securityContext", "capabilities").update(
                add=["NET_ADMIN"]
            ),
            "capabilities are added",
        ),
        (
            lambda s: (
                s["securityContext"].pop("seccompProfile"),
                s["containers"][0]["securityContext"].pop("seccompProfile"),
            ),
            "seccomp",
        ),
        (lambda s: s["containers"][0]["ports"][0].update(hostPort=80), "hostPort"),
        (
            lambda s: s.update(initContainers=[{"name": "init", "image": "a:1"}]),
            "init: allowPrivilegeEscalation",
        ),
    ],
)
def test_a_pod_that_is_not_restricted_is_noticed(
    sabotage: Callable[[Document], object], expected: str
) -> None:
    manifests = _documents(K8S / "base")
    spec = copy.deepcopy(_one(manifests, "Deployment", "mlflow")["spec"]["template"]["spec"])
    sabotage(spec)
    assert any(expected in problem for problem in _restricted_problems(spec))


def test_every_pod_is_hardened_beyond_the_standard(manifests: list[Document]) -> None:
    for name, pod in _pods(manifests):
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["serviceAccountName"].startswith("graftline-"), name
        assert spec["enableServiceLinks"] is False, name
        for container in spec["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True, name
            assert {"cpu", "memory"} <= set(container["resources"]["requests"]), name
            assert {"memory", "ephemeral-storage"} <= set(container["resources"]["limits"]), name
            assert any(mount["mountPath"] == "/tmp" for mount in container["volumeMounts"]), name


def test_the_namespace_enforces_the_standard(manifests: list[Document]) -> None:
    labels = _one(manifests, "Namespace", "graftline")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


# --- secrets, identities, permissions ----------------------------------------------------------


def test_secrets_are_only_referred_to(manifests: list[Document]) -> None:
    assert _of(manifests, "Secret") == []
    named = re.compile(r"PASSWORD|SECRET|TOKEN|ACCESS_KEY", re.IGNORECASE)
    for name, pod in _pods(manifests):
        for container in pod["spec"]["containers"]:
            for variable in container.get("env", []):
                assert "value" not in variable or not named.search(variable["name"]), name
            assert not re.search(r"://[^/\s]*:[^/\s]*@", json.dumps(container)), name


def test_no_role_has_a_wildcard_or_reads_every_secret(manifests: list[Document]) -> None:
    assert _of(manifests, "ClusterRole") == []
    roles = _of(manifests, "Role")
    assert roles
    for rule in (rule for role in roles for rule in role["rules"]):
        assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
        assert not {"pods/exec", "pods/attach", "serviceaccounts/token"} & set(rule["resources"])
        if {"secrets", "configmaps"} & set(rule["resources"]):
            assert rule["resourceNames"]
            assert set(rule["verbs"]) <= {"get", "list", "watch"}


def test_nodes_that_train_together_keep_to_the_standard_and_to_the_schema() -> None:
    folder = K8S / "components" / "training-nodes"
    names = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
    documents = [d for name in names for d in yaml.safe_load_all((folder / name).read_text())]
    test_no_role_has_a_wildcard_or_reads_every_secret(documents)
    runtime = _one(documents, "TrainingRuntime", "torch-distributed")
    (job,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    pod = job["template"]["spec"]["template"]
    assert _restricted_problems(pod["spec"]) == []
    policy = _one(documents, "NetworkPolicy", "training-nodes")["spec"]["podSelector"]
    assert policy["matchLabels"].items() <= pod["metadata"]["labels"].items()
    if not CRDS.is_dir():
        pytest.skip(f"the CRD schemas are not at {CRDS.name}/: the runtime was not checked")
    jsonschema.Draft202012Validator(_crd_schema(runtime)).validate(runtime)


def test_every_account_that_is_named_exists(manifests: list[Document]) -> None:
    accounts = {m["metadata"]["name"] for m in _of(manifests, "ServiceAccount")}
    assert {pod["spec"]["serviceAccountName"] for _, pod in _pods(manifests)} <= accounts
    for binding in _of(manifests, "RoleBinding"):
        assert {subject["name"] for subject in binding["subjects"]} <= accounts
        _one(manifests, "Role", binding["roleRef"]["name"])


@pytest.mark.parametrize(
    ("overlay", "annotation"),
    [("aws", "eks.amazonaws.com/role-arn"), ("gke", "iam.gke.io/gcp-service-account")],
)
def test_each_account_has_a_web_identity_of_its_own(overlay: str, annotation: str) -> None:
    manifests = _documents(K8S / "overlays" / overlay)
    names = ("graftline-pipeline", "graftline-mlflow", "graftline-secrets")
    identities = [
        _one(manifests, "ServiceAccount", name)["metadata"]["annotations"][annotation]
        for name in names
    ]
    assert len(set(identities)) == len(names)


# --- network -----------------------------------------------------------------------------------


def _selects(selector: Document, labels: dict[str, str]) -> bool:
    for key, value in selector.get("matchLabels", {}).items():
        if labels.get(key) != value:
            return False
    for expression in selector.get("matchExpressions", []):
        if expression["operator"] == "Exists" and expression["key"] not in labels:
            return False
        if (
            expression["operator"] == "In"
            and labels.get(expression["key"]) not in expression["values"]
        ):
            return False
    return True


def test_what_is_not_allowed_is_denied(manifests: list[Document]) -> None:
    deny = _one(manifests, "NetworkPolicy", "deny-all")["spec"]
    assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for policy in _of(manifests, "NetworkPolicy"):
        for rule in policy["spec"].get("ingress", []):
            assert rule["from"], "an empty `from` lets everybody in"
            assert rule["ports"]
            assert all(
                "namespaceSelector" not in peer or peer["namespaceSelector"]
                for peer in rule["from"]
            )
        for rule in policy["spec"].get("egress", []):
            assert rule["to"]
            assert rule["ports"]


def _reaches(
    manifests: list[Document], source: dict[str, str], target: dict[str, str], port: int
) -> bool:
    """Whether both ends' policies let one pod of the namespace reach another."""

    def allowed(direction: str, end: dict[str, str], other: dict[str, str], side: str) -> bool:
        return any(
            any(entry["port"] == port for entry in rule["ports"])
            and any(
                "namespaceSelector" not in peer
                and "podSelector" in peer
                and _selects(peer["podSelector"], other)
                for peer in rule[side]
            )
            for policy in _of(manifests, "NetworkPolicy")
            if _selects(policy["spec"]["podSelector"], end)
            for rule in policy["spec"].get(direction, [])
        )

    return allowed("egress", source, target, "to") and allowed("ingress", target, source, "from")


def test_steps_reach_mlflow_and_nobody_else_does(manifests: list[Document]) -> None:
    mlflow = _one(manifests, "Deployment", "mlflow")["spec"]["template"]["metadata"]["labels"]
    step = {"workflows.argoproj.io/workflow": "train-1", "graftline.dev/step": "ingest"}
    assert _reaches(manifests, step, mlflow, 5000)
    assert not _reaches(manifests, {"app": "stranger"}, mlflow, 5000)


@pytest.mark.parametrize("overlay", ["dev", "gke"])
def test_steps_and_mlflow_reach_the_s3_server_inside(overlay: str) -> None:
    manifests = _documents(K8S / "overlays" / overlay)
    server = _one(manifests, "Deployment", "s3")["spec"]["template"]["metadata"]["labels"]
    step = {"workflows.argoproj.io/workflow": "train-1"}
    for kind, name in (("Deployment", "mlflow"), ("Job", "buckets")):
        labels = _one(manifests, kind, name)["spec"]["template"]["metadata"]["labels"]
        assert _reaches(manifests, labels, server, 7070)
    assert _reaches(manifests, step, server, 7070)
    assert not _reaches(manifests, {"app": "stranger"}, server, 7070)


def test_only_mlflow_may_enter_the_database() -> None:
    policy = _one(_documents(K8S / "overlays" / "dev"), "NetworkPolicy", "postgres")["spec"]
    peers = [peer for rule in policy["ingress"] for peer in rule["from"]]
    assert peers == [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "mlflow"}}}]


# --- MLflow ------------------------------------------------------------------------------------


def _mlflow(manifests: list[Document]) -> Document:
    spec = _one(manifests, "Deployment", "mlflow")["spec"]["template"]["spec"]
    container: Document = spec["containers"][0]
    return container


def test_mlflow_answers_to_every_name_of_its_service(manifests: list[Document]) -> None:
    (option,) = [a for a in _mlflow(manifests)["args"] if a.startswith("--allowed-hosts=")]
    allowed = option.partition("=")[2].split(",")
    service = _one(manifests, "Service", "mlflow")
    name, namespace = service["metadata"]["name"], service["metadata"]["namespace"]
    (port,) = [port["port"] for port in service["spec"]["ports"]]
    for host in (name, f"{name}.{namespace}", f"{name}.{namespace}.svc"):
        assert host in allowed
        assert f"{host}:{port}" in allowed
    assert not any("*" in host for host in allowed)
    assert all(host == host.strip() and host for host in allowed)


def test_mlflow_runs_no_jobs_and_hands_out_no_keys(manifests: list[Document]) -> None:
    container = _mlflow(manifests)
    values = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert values["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    assert "--serve-artifacts" in container["args"]
    assert "MLFLOW_ARTIFACTS_DESTINATION" in values
    settings = _one(manifests, "ConfigMap", "graftline-settings")["data"]
    assert settings["artifacts-destination"].startswith("s3://")


def test_every_reference_to_settings_has_its_key(manifests: list[Document]) -> None:
    for name, pod in _pods(manifests):
        for container in pod["spec"]["containers"]:
            for variable in container.get("env", []):
                source = variable.get("valueFrom", {}).get("configMapKeyRef")
                if source is not None:
                    assert source["key"] in _one(manifests, "ConfigMap", source["name"])["data"], (
                        name
                    )


# --- Kubeflow ----------------------------------------------------------------------------------


def test_the_launcher_finds_its_store(manifests: list[Document]) -> None:
    data = _one(manifests, "ConfigMap", "kfp-launcher")["data"]
    assert data["defaultPipelineRoot"].startswith("s3://")
    provider = yaml.safe_load(data["providers"])["s3"]["default"]
    assert set(provider) == {"endpoint", "region", "disableSSL", "forcePathStyle", "credentials"}
    assert "://" not in provider["endpoint"]
    credentials = provider["credentials"]
    if credentials["fromEnv"]:
        assert set(credentials) == {"fromEnv"}
        return
    secret = credentials["secretRef"]
    assert set(secret) == {"secretName", "accessKeyKey", "secretKeyKey"}
    rules = _one(manifests, "Role", "graftline-pipeline")["rules"]
    assert any(secret["secretName"] in rule.get("resourceNames", []) for rule in rules)


def test_the_queue_leads_to_nodes(manifests: list[Document]) -> None:
    local = _one(manifests, "LocalQueue", "graftline-gpu")
    queue = _one(manifests, "ClusterQueue", local["spec"]["clusterQueue"])
    selector = queue["spec"]["namespaceSelector"]["matchLabels"]
    assert selector == {"kubernetes.io/metadata.name": local["metadata"]["namespace"]}
    for group in queue["spec"]["resourceGroups"]:
        for flavor in group["flavors"]:
            _one(manifests, "ResourceFlavor", flavor["name"])
            assert [r["name"] for r in flavor["resources"]] == group["coveredResources"]
        # A pod is admitted only if all that it asks for is covered.
        assert {"cpu", "memory", "nvidia.com/gpu"} <= set(group["coveredResources"])


def test_running_steps_are_not_evicted_by_choice(manifests: list[Document]) -> None:
    budget = _one(manifests, "PodDisruptionBudget", "steps")["spec"]
    assert _selects(budget["selector"], {"graftline.dev/step": "fine_tune"})
    assert budget["minAvailable"] >= 9999
    mlflow = _one(manifests, "Deployment", "mlflow")["spec"]["template"]["metadata"]["labels"]
    other = _one(manifests, "PodDisruptionBudget", "mlflow")["spec"]
    assert _selects(other["selector"], mlflow)
    assert not _selects(budget["selector"], mlflow)


RETRY = K8S / "kubeflow" / "workflow-controller-retry.yaml"


def _retry() -> Document:
    data = yaml.safe_load(RETRY.read_text())["data"]
    strategy: Document = yaml.safe_load(data["workflowDefaults"])["spec"]["templateDefaults"][
        "retryStrategy"
    ]
    return strategy


@pytest.mark.parametrize(
    ("message", "again"),
    [
        ("pod deleted", True),
        ("Pod was terminated in response to imminent node shutdown.", True),
        ("Pod was rejected as the node is shutting down.", True),
        ("The node was low on resource: memory. Threshold quantity: 100Mi", True),
        ("The node had condition: [DiskPressure]. Evicted", True),
        ("Preempted by a pod with higher priority", True),
        # As a real controller says it, see the recordings.
        ("main: Error (exit code 143)", True),
        ("main: Error (exit code 137)", True),
        ("wait: Error (exit code 64): failed to put file: The specified bucket does not", True),
        ("init: Error (exit code 2)", True),
        ("main: Error (exit code 1)", False),
        ("main: OOMKilled (exit code 137)", False),
        ("Step exceeded its deadline", False),
        ("Pod was active on the node longer than the specified deadline", False),
        ('Usage of EmptyDir volume "scratch" exceeds the limit "5Gi".', False),
        ("", False),  # a DAG node: the graph is not run again
    ],
)
def test_only_lost_pods_are_tried_again(message: str, again: bool) -> None:
    strategy = _retry()
    assert strategy["retryPolicy"] == "Always"
    match = re.fullmatch(r'lastRetry\.message matches "([^"]+)"', strategy["expression"])
    assert match is not None
    assert bool(re.search(match[1], message)) is again


def test_the_rule_is_the_one_that_the_command_applies() -> None:
    defaults = yaml.safe_load(yaml.safe_load(RETRY.read_text())["data"]["workflowDefaults"])
    assert defaults == retry_policy.merged({})
    template = defaults["spec"]["templateDefaults"]
    assert template["securityContext"]["fsGroup"] == 10001, "a pool's volume is the steps' to write"
    assert set(defaults["spec"]) == {"templateDefaults"}, "nothing else is everybody's business"


# --- what other parts of Kubeflow expect ----------------------------------------------------------


def test_the_namespace_keeps_the_label_of_its_kubeflow_profile(manifests: list[Document]) -> None:
    """SeaweedFS of KFP 2.17 admits only namespaces with part-of: kubeflow-profile."""
    (namespace,) = _of(manifests, "Namespace")
    assert "app.kubernetes.io/part-of" not in namespace["metadata"]["labels"]
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for manifest in manifests:
        if manifest["kind"] != "Namespace":
            assert manifest["metadata"]["labels"]["app.kubernetes.io/part-of"] == "graftline"


def test_steps_reach_the_pods_of_kubeflows_object_store(manifests: list[Document]) -> None:
    rules = _one(manifests, "NetworkPolicy", "steps")["spec"]["egress"]
    kubeflow = {"matchLabels": {"kubernetes.io/metadata.name": "kubeflow"}}
    (rule,) = [rule for rule in rules if rule["to"] == [{"namespaceSelector": kubeflow}]]
    assert {8333, 9000, 8080, 8887, 8888} == {entry["port"] for entry in rule["ports"]}


def test_roles_name_only_what_kfp_asks_for(manifests: list[Document]) -> None:
    asked = {
        f"{group}/{resource}": set(rule["verbs"])
        for role in _of(manifests, "Role")
        if role["metadata"]["name"].startswith("graftline-")
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    assert asked == {
        "argoproj.io/workflowtaskresults": {"create", "patch"},
        "/pods": {"get", "list", "watch"},
        "/configmaps": {"get", "list", "watch"},
        "/secrets": {"get"},
        "pipelines.kubeflow.org/runs": {"create", "get", "list"},
        "pipelines.kubeflow.org/pipelines": {"get", "list"},
        "pipelines.kubeflow.org/experiments": {"get", "list"},
    }


# --- images and policies -----------------------------------------------------------------------


def test_images_are_pinned(manifests: list[Document]) -> None:
    for name, pod in _pods(manifests):
        for container in pod["spec"]["containers"]:
            image = container["image"]
            tag = image.rpartition("/")[2].partition(":")[2]
            assert "@sha256:" in image or (tag and tag != "latest"), f"{name}: {image}"
            assert "." in image.partition("/")[0], f"{name}: {image} names no registry"


@pytest.mark.slow
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_policy_scanner_finds_nothing(overlay: str, tmp_path: Path) -> None:
    command = CHECKOV if CHECKOV.exists() else shutil.which("checkov")
    if command is None:
        pytest.skip("checkov is not here (make build/checkov): the policies were not scanned")
    rendered = tmp_path / "manifests.yaml"
    rendered.write_text(_kustomize(str(K8S / overlay)))
    arguments = ["--framework", "kubernetes", "--skip-download", "--compact", "-o", "json"]
    result = subprocess.run(
        [str(command), *arguments, "-f", str(rendered), "--skip-check", ",".join(ACCEPTED)],
        capture_output=True,
        text=True,
    )
    report = json.loads(result.stdout)
    failed = [
        f"{check['check_id']} {check['check_name']}: {check['resource']}"
        for check in report["results"]["failed_checks"]
    ]
    assert failed == []
    assert report["summary"]["passed"] > 50


# --- a KFP of one user ----------------------------------------------------------------------------


def _admitted(manifests: list[Document], target: dict[str, str], port: int) -> bool:
    """Whether a step's pod in the namespace `kubeflow` may enter a pod."""
    step = {"workflows.argoproj.io/workflow": "flowers-1"}
    kubeflow = {"kubernetes.io/metadata.name": "kubeflow"}
    return any(
        any(entry["port"] == port for entry in rule["ports"])
        and "namespaceSelector" in peer
        and _selects(peer["namespaceSelector"], kubeflow)
        and _selects(peer.get("podSelector", {}), step)
        for policy in _of(manifests, "NetworkPolicy")
        if _selects(policy["spec"]["podSelector"], target)
        for rule in policy["spec"].get("ingress", [])
        for peer in rule["from"]
    )


def test_steps_in_the_namespace_of_a_single_user_kfp_reach_mlflow_and_s3() -> None:
    manifests = _documents(K8S / "overlays" / "single-user")
    for name, port in (("mlflow", 5000), ("s3", 7070)):
        pod = _one(manifests, "Deployment", name)["spec"]["template"]["metadata"]["labels"]
        assert _admitted(manifests, pod, port)
        assert not _admitted(_documents(K8S / "overlays" / "dev"), pod, 5000)
    for manifest in manifests:
        assert (_group(manifest), manifest["kind"]) not in CUSTOM, "no Kueue is needed"
        kubernetes_validate.validate(manifest, "1.32.0", strict=True)
    arguments = _one(manifests, "Deployment", "mlflow")["spec"]["template"]["spec"]["containers"]
    assert "mlflow.graftline:5000" in str(arguments), "the address in docs/cluster.md is allowed"
