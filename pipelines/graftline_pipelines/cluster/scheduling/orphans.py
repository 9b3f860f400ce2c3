"""Schedules that Kubernetes has and Kubeflow Pipelines does not know.

KFP makes a schedule's ScheduledWorkflow first and its row in the database after it. Where the
database refuses the row, the object stays: it fires at every time, and neither KFP's API nor its
page shows it. Only Kubernetes itself does.
"""

import contextlib
import json
import re
from dataclasses import dataclass
from typing import Any

from graftline.errors import ClusterError
from graftline_pipelines.cluster.kube import NotInCluster, ask
from graftline_pipelines.cluster.server import Cluster

GROUP, API_VERSION, PLURAL = "kubeflow.org", "v1beta1", "scheduledworkflows"
SINGLE_USER_NAMESPACE = "kubeflow"
RANDOM = 5  # characters that Kubernetes adds to a generated name


@dataclass(frozen=True)
class Orphan:
    """A ScheduledWorkflow without a schedule in KFP.

    Attributes:
        object_name: Of the Kubernetes object.
        namespace: Its namespace.
        prefix: What KFP made of the schedule's name, at most 25 characters; None where unknown.
        pipeline: The name of its pipeline; None where that was deleted.
        cron: When it fires.
        enabled: Whether it fires.
    """

    object_name: str
    namespace: str
    prefix: str | None
    pipeline: str | None
    cron: str
    enabled: bool

    @property
    def schedule(self) -> str:
        """The name of the schedule that it was meant to be, as far as that is known."""
        if self.pipeline is None:
            return self.prefix or self.object_name[:-RANDOM]
        shorter = self.pipeline.removesuffix("-retrain")
        return shorter if self.prefix in (None, _as_prefix(shorter)) else self.pipeline

    def belongs_to(self, name: str) -> bool:
        """Whether it was meant to be the schedule of this name."""
        if self.pipeline is None:
            return (self.prefix or self.object_name[:-RANDOM]) == _as_prefix(name)
        if self.pipeline not in (name, f"{name}-retrain"):
            return False
        return self.prefix in (None, _as_prefix(name))


class Orphans:
    """Finds and deletes orphans.

    Args:
        cluster: The KFP server.
        client: Kubernetes, from :func:`graftline_pipelines.cluster.kube.open_api`.
    """

    def __init__(self, cluster: Cluster, client: Any) -> None:
        import kubernetes

        self._cluster = cluster
        self._objects = kubernetes.client.CustomObjectsApi(client)
        self.namespace = cluster.namespace or SINGLE_USER_NAMESPACE

    def find(self, name: str | None = None) -> list[Orphan]:
        """The orphans that graftline made, of all schedules or of one name."""
        listed = ask(
            f"The scheduled workflows in {self.namespace} cannot be listed",
            "list scheduledworkflows.kubeflow.org there",
            self._objects.list_namespaced_custom_object,
            GROUP,
            API_VERSION,
            self.namespace,
            PLURAL,
        )
        items = listed.get("items", [])
        if not items:
            return []
        known = self._known()  # after the objects: a schedule that is just being made is in it
        found = [
            orphan
            for item in items
            if item["metadata"].get("uid") not in known and (orphan := self._orphan(item))
        ]
        return [one for one in found if name is None or one.belongs_to(name)]

    def delete(self, orphan: Orphan) -> None:
        """Delete one; a run that it has started goes on."""
        import kubernetes

        with contextlib.suppress(NotInCluster):
            ask(
                f"The scheduled workflow {orphan.object_name} cannot be deleted",
                "delete scheduledworkflows.kubeflow.org there",
                self._objects.delete_namespaced_custom_object,
                GROUP,
                API_VERSION,
                orphan.namespace,
                PLURAL,
                orphan.object_name,
                body=kubernetes.client.V1DeleteOptions(propagation_policy="Orphan"),
            )

    def _known(self) -> set[str]:
        listed = self._cluster.every(
            "listing schedules",
            self._cluster.client.list_recurring_runs,
            "recurring_runs",
            namespace=self._cluster.namespace,
        )
        return {str(one.recurring_run_id) for one in listed}  # KFP takes the object's uid as id

    def _orphan(self, item: dict[str, Any]) -> Orphan | None:
        """An object that no schedule belongs to; None where somebody else made it."""
        metadata, spec = item["metadata"], item.get("spec") or {}
        made_by_us, pipeline = self._version(spec)
        if not made_by_us and "graftline" not in json.dumps(spec.get("workflow") or {}):
            return None
        cron = ((spec.get("trigger") or {}).get("cronSchedule") or {}).get("cron", "")
        return Orphan(
            str(metadata["name"]),
            str(metadata.get("namespace", self.namespace)),
            metadata.get("generateName"),
            pipeline,
            str(cron),
            bool(spec.get("enabled", False)),
        )

    def _version(self, spec: dict[str, Any]) -> tuple[bool, str | None]:
        """Whether graftline uploaded the version, and the pipeline's name."""
        pipeline_id, version_id = spec.get("pipelineId"), spec.get("pipelineVersionId")
        ours, name = False, None
        if not pipeline_id:
            return ours, name
        call, client = self._cluster.call, self._cluster.client
        doing = "looking for a schedule's pipeline"
        with contextlib.suppress(ClusterError):
            name = str(call(doing, client.get_pipeline, pipeline_id=pipeline_id).display_name)
        if version_id:
            with contextlib.suppress(ClusterError):
                version = call(
                    doing,
                    client.get_pipeline_version,
                    pipeline_id=pipeline_id,
                    pipeline_version_id=version_id,
                )
                ours = str(version.description or "").startswith("graftline ")
        return ours, name


def _as_prefix(name: str) -> str:
    """What KFP makes of a schedule's name, to which Kubernetes adds random characters."""
    return re.sub(r"[^a-z0-9-]+", "", name.lower())[:25]
