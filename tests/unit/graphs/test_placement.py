"""Pools: what a run file may say of nodes, and what of it is in the compiled task."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from graftline.errors import ConfigurationError
from graftline_pipelines.graphs.placement import apply_cluster, apply_pool
from graftline_pipelines.runfile.load import RunFileError, load
from graftline_pipelines.runfile.pools import (
    DEFAULT_POOLS,
    NOT_IN_KFP,
    ClusterSettings,
    PoolSettings,
    pool_name,
    pool_of,
)
from graftline_pipelines.runfile.quantities import to_bytes, to_cores, to_seconds


def compiled(tmp_path: Path, pool: PoolSettings, cluster: ClusterSettings) -> tuple[Any, Any]:
    """The container and the Kubernetes settings of one task in this pool."""
    from kfp import compiler, dsl

    @dsl.component(base_image="example.com/image:1", install_kfp_package=False)
    def work() -> None:
        pass

    @dsl.pipeline(name="one")
    def one() -> None:
        task = work()
        apply_pool(task, pool, "mine", "work")
        apply_cluster(task, cluster)

    path = tmp_path / "one.yaml"
    compiler.Compiler().compile(one, str(path))
    spec, platform = yaml.safe_load_all(path.read_text())
    told = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["exec-work"]
    executor = spec["deploymentSpec"]["executors"]["exec-work"]
    return {"task": spec["root"]["dag"]["tasks"]["work"], **executor["container"]}, told


def in_kubernetes(tmp_path: Path, **pool: Any) -> tuple[Any, Any]:
    return compiled(tmp_path, PoolSettings.model_validate(pool), ClusterSettings())


def test_the_default_asks_for_nothing_special(tmp_path: Path) -> None:
    container, told = in_kubernetes(tmp_path)
    assert "accelerator" not in container["resources"]
    assert not told.get("tolerations") and not told.get("nodeSelector")
    assert container["resources"]["resourceMemoryLimit"] == "4Gi"
    assert told["podMetadata"]["labels"] == {
        "graftline.dev/pool": "mine",
        "graftline.dev/step": "work",
    }
    assert told["securityContext"]["runAsNonRoot"]
    for pool in DEFAULT_POOLS.values():
        assert pool.accelerator is None and not pool.node_selectors and not pool.tolerations


def test_everything_that_a_pool_says_is_in_the_task(tmp_path: Path) -> None:
    container, told = in_kubernetes(
        tmp_path,
        accelerator="nvidia.com/gpu",
        accelerator_count=2,
        node_selectors={"zone": "a", "family": ["g5", "g6"]},
        tolerations=[
            {"key": "gpu", "value": "true", "effect": "NoSchedule"},
            {"key": "old", "operator": "Exists", "effect": "NoExecute", "seconds": 60},
        ],
        cpu="500m",
        cpu_limit="2",
        memory="8Gi",
        memory_limit="12Gi",
        shm="2Gi",
        disk={"size": "50Gi"},
        timeout="90m",
        retries=4,
        queue="gpus",
        labels={"team": "vision"},
        annotations={"note": "a b"},
    )
    resources = container["resources"]
    assert resources["accelerator"]["resourceType"] == "nvidia.com/gpu"
    assert resources["accelerator"]["resourceCount"] == "2"
    assert resources["resourceCpuRequest"] == "500m" and resources["resourceCpuLimit"] == "2"
    assert resources["resourceMemoryRequest"] == "8Gi"
    assert resources["resourceMemoryLimit"] == "12Gi"
    assert container["task"]["retryPolicy"]["maxRetryCount"] == 4
    assert told["nodeSelector"]["labels"] == {"zone": "a"}
    (affinity,) = told["nodeAffinity"]
    assert affinity["matchExpressions"] == [
        {"key": "family", "operator": "In", "values": ["g5", "g6"]}
    ]
    assert told["tolerations"] == [
        {"key": "gpu", "operator": "Equal", "value": "true", "effect": "NoSchedule"},
        {"key": "old", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": "60"},
    ]
    mounts = {one["mountPath"]: one for one in told["emptyDirMounts"]}
    assert mounts["/dev/shm"]["medium"] == "Memory" and mounts["/dev/shm"]["sizeLimit"] == "2Gi"
    assert mounts["/scratch"]["sizeLimit"] == "50Gi"
    assert {"name": "TMPDIR", "value": "/scratch"} in container["env"]
    assert told["activeDeadlineSeconds"] == "5400"
    labels = told["podMetadata"]["labels"]
    assert labels["kueue.x-k8s.io/queue-name"] == "gpus" and labels["team"] == "vision"
    assert told["podMetadata"]["annotations"] == {"note": "a b"}


def test_a_disk_that_is_a_volume(tmp_path: Path) -> None:
    _, told = in_kubernetes(
        tmp_path, disk={"size": "1Ti", "kind": "volume", "storage_class": "fast"}
    )
    (volume,) = told["genericEphemeralVolume"]
    assert volume["size"] == "1Ti" and volume["storageClassName"] == "fast"
    assert volume["mountPath"] == "/scratch" and volume["accessModes"] == ["ReadWriteOnce"]


def test_no_time_limit_no_shared_memory_no_retries(tmp_path: Path) -> None:
    container, told = in_kubernetes(tmp_path, timeout=None, shm=None, retries=0)
    assert "activeDeadlineSeconds" not in told and "emptyDirMounts" not in told
    assert "retryPolicy" not in container["task"]


@pytest.mark.parametrize(
    ("pool", "tries", "pauses", "timeout"),
    [
        ({"timeout": "90m", "retries": 4}, 5, 30 + 60 + 120 + 240, 5400),
        ({"timeout": "6h"}, 2, 30, 6 * 3600),
        ({"timeout": "2d", "spot": True}, 4, 30 + 60 + 120, 2 * 86400),
    ],
)
def test_every_try_may_take_its_whole_timeout(
    tmp_path: Path, pool: dict[str, Any], tries: int, pauses: int, timeout: int
) -> None:
    """Argo reads it as a deadline from the start of the first try, not as the longest pause."""
    container, _ = in_kubernetes(tmp_path, **pool)
    policy = container["task"]["retryPolicy"]
    assert policy["maxRetryCount"] == tries - 1
    deadline = int(policy["backoffMaxDuration"].removesuffix("s"))
    waits = deadline - tries * timeout - pauses
    assert 0 <= waits <= tries * 3600, "and some time to wait for a node"


@pytest.mark.parametrize("pool", [{"timeout": None}, {"timeout": "90000d", "retries": 10}])
def test_without_a_time_limit_a_lost_step_is_tried_again_for_years(
    tmp_path: Path, pool: dict[str, Any]
) -> None:
    container, _ = in_kubernetes(tmp_path, **pool)
    deadline = int(container["task"]["retryPolicy"]["backoffMaxDuration"].removesuffix("s"))
    assert deadline > 2 * 365 * 86400
    assert deadline * 10**9 < 2**63, "Argo counts nanoseconds"


def test_spot_nodes_are_tried_more_often() -> None:
    assert PoolSettings().tries_again == 1
    assert PoolSettings(spot=True).tries_again == 3
    assert PoolSettings(spot=True, retries=0).tries_again == 0


def test_what_all_steps_share(tmp_path: Path) -> None:
    cluster = ClusterSettings.model_validate(
        {
            "variables": {"AWS_REGION": "eu-west-1"},
            "secrets": {"s3": {"access-key": "AWS_ACCESS_KEY_ID"}},
            "config_maps": {"proxy": {"url": "HTTPS_PROXY"}},
            "pull_secrets": ["registry"],
        }
    )
    container, told = compiled(tmp_path, PoolSettings(), cluster)
    assert {"name": "AWS_REGION", "value": "eu-west-1"} in container["env"]
    assert told["secretAsEnv"][0]["secretName"] == "s3"
    assert told["secretAsEnv"][0]["keyToEnv"][0]["envVar"] == "AWS_ACCESS_KEY_ID"
    assert told["configMapAsEnv"][0]["keyToEnv"][0]["envVar"] == "HTTPS_PROXY"
    assert told["imagePullSecret"][0]["secretName"] == "registry"


# --- which pool a step runs in ------------------------------------------------------------------


def test_assignment() -> None:
    pools = {"gpu": PoolSettings(accelerator="nvidia.com/gpu")}
    assert pool_name("fine_tune", {"fine_tune": "gpu"}) == "gpu"
    assert pool_name("promote", {}) == "small" and pool_name("ingest", {}) == "default"
    assert pool_name("extract_share", {"extract_features": "gpu"}) == "gpu"
    assert pool_of("fine_tune", pools, {"fine_tune": "gpu"}).accelerators == 1
    assert pool_of("ingest", pools, {}) == DEFAULT_POOLS["default"]
    with pytest.raises(ConfigurationError, match="there is no pool 'gpus'"):
        pool_of("fine_tune", pools, {"fine_tune": "gpus"})


# --- mistakes -----------------------------------------------------------------------------------


def refusal(tmp_path: Path, **sections: Any) -> str:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump({"name": "x", "data": {"source": "s3://b/x"}, **sections}))
    with pytest.raises(RunFileError) as caught:
        load(path)
    return str(caught.value)


@pytest.mark.parametrize("key", sorted(NOT_IN_KFP))
def test_what_kfp_cannot_express_says_where_it_goes(tmp_path: Path, key: str) -> None:
    said = refusal(tmp_path, pools={"gpu": {key: "x"}})
    assert f"Kubeflow Pipelines cannot set `{key}`: {NOT_IN_KFP[key]}" in said
    assert "pools.gpu" in said and "(line " in said


@pytest.mark.parametrize(
    ("key", "where"),
    [
        ("priorityClassName", "podPriorityClassName"),
        ("topologySpreadConstraints", "admission policy"),
        ("serviceAccountName", "cluster.service_account"),
        ("runtimeClassName", "default runtime"),
        ("affinity", "give a label in `node_selectors` a list"),
        ("ephemeral-storage-limit", "LimitRange"),
    ],
)
def test_kubernetes_own_spelling_is_understood(tmp_path: Path, key: str, where: str) -> None:
    assert where in refusal(tmp_path, pools={"gpu": {key: "x"}})


@pytest.mark.parametrize(
    ("pool", "said"),
    [
        ({"accelerator": "nvidia-l4"}, "pick the model of the GPU by `node_selectors`"),
        ({"accelerator_count": 2}, "`accelerator_count` needs `accelerator`"),
        ({"accelerator": "nvidia.com/gpu", "accelerator_count": 0}, "greater than or equal to 1"),
        ({"memory": "16 GB"}, "is not an amount of memory; write for example 512Mi or 16Gi"),
        ({"memory": "8Gi", "memory_limit": "4Gi"}, "`memory_limit` 4Gi is below `memory` 8Gi"),
        ({"cpu": "4", "cpu_limit": "500m"}, "`cpu_limit` 500m is below `cpu` 4"),
        ({"cpu": "two"}, "is not an amount of CPU"),
        ({"shm": "8Gi"}, "`shm` 8Gi does not fit into the memory limit 4Gi"),
        ({"timeout": "6 hours"}, "is not a duration; write for example 90s, 45m, 6h or 2d"),
        ({"tolerations": [{"operator": "Equal"}]}, "`operator: Equal` needs a `key`"),
        ({"tolerations": [{"operator": "Exists", "value": "x"}]}, "takes no `value`"),
        ({"tolerations": [{"key": "x", "seconds": 5}]}, "`seconds` needs `effect: NoExecute`"),
        ({"node_selectors": {"a b": "c"}}, "is not a Kubernetes label key"),
        ({"node_selectors": {"a": "c d"}}, "is not a Kubernetes label value"),
        ({"queue": "gpu queue"}, "is not a Kubernetes label value"),
        ({"disk": {"size": "5Gi", "storage_class": "x"}}, "`storage_class` needs `kind: volume`"),
        ({"hourly_price": -1}, "greater than or equal to 0"),
        ({"retries": 11}, "less than or equal to 10"),
        ({"acelerator": "nvidia.com/gpu"}, "Did you mean `accelerator`?"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, pool: dict[str, Any], said: str) -> None:
    assert said in refusal(tmp_path, pools={"mine": pool})


def test_names_and_assignments(tmp_path: Path) -> None:
    assert "must be lower-case letters" in refusal(tmp_path, pools={"GPU_1": {}})
    said = refusal(tmp_path, assign={"fine_tune": "gpu", "promote": "gpu"})
    assert said.count("there is no pool 'gpu'") == 2 and "default, small" in said
    assert "assign.fine_tuning" in refusal(tmp_path, assign={"fine_tuning": "default"})


@pytest.mark.parametrize("name", ["AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD", "MY_TOKEN"])
def test_secrets_are_not_variables(tmp_path: Path, name: str) -> None:
    said = refusal(tmp_path, cluster={"variables": {name: "hunter2"}})
    assert "would be readable in the compiled pipeline" in said and "`cluster.secrets`" in said


@pytest.mark.parametrize(
    ("function", "text", "value"),
    [
        (to_bytes, "512Mi", 512 * 2**20),
        (to_bytes, "16G", 16 * 10**9),
        (to_bytes, "100", 100),
        (to_bytes, "30000000Ki", 30000000 * 1024),
        (to_bytes, "1.5Gi", 3 * 2**29),  # this and the next two: as nodes may state them
        (to_bytes, "128974848000m", 128974848),
        (to_bytes, "1e9", 10**9),
        (to_cores, "1500000u", 1.5),
        (to_cores, "500m", 0.5),
        (to_cores, "7910m", 7.91),
        (to_cores, "4", 4.0),
        (to_seconds, "90s", 90),
        (to_seconds, "2d", 172800),
    ],
)
def test_amounts(function: Any, text: str, value: float) -> None:
    assert function(text) == pytest.approx(value)
