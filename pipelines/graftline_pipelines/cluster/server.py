"""A Kubeflow Pipelines server: who we are to it, and the few things we ask of it.

Its client checks little, prints what it likes and can wait for ever; here every call is bounded in
time, silent, and fails with a :class:`graftline.errors.ClusterError`.
"""

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graftline.errors import ClusterError, ConfigurationError
from graftline.redaction import redacted
from graftline_pipelines.cluster.auth import (
    CA_VARIABLE,
    CONNECT_SECONDS,
    IN_CLUSTER_HOST,
    READ_SECONDS,
    Login,
    healthz,
    open_client,
    pod_namespace,
    resolve_host,
    silent,
    version_notes,
)
from graftline_pipelines.cluster.errors import (
    AlreadyOnServer,
    ClusterUnreachable,
    NotOnServer,
    kfp_errors,
    unreachable,
)

PAGE = 100
MAX_TEXT = 255  # of a text column of the server's MySQL
ENDED = {"SUCCEEDED", "FAILED", "CANCELED", "SKIPPED"}


def connect(host: str | None, namespace: str | None = None, *, by_id: bool = False) -> "Cluster":
    """Connect to a server, having asked it for its version and whether it knows us.

    Args:
        host: Its address; from the environment where absent.
        namespace: The namespace of the runs, where the server has several users.
        by_id: Whether only a run is asked for, by its id: the server knows its namespace.

    Raises:
        ConfigurationError: The address or the namespace is missing.
        ClusterError: It does not answer, does not let us in, or is of another major version.
    """
    address = resolve_host(host)
    login = Login.from_environment()
    health = healthz(address, login)
    if health.get("multi_user") and not namespace:
        namespace = pod_namespace()
        if namespace is None and not by_id:
            raise ConfigurationError(
                "cluster.namespace is missing",
                why=f"{address} serves several users; runs belong to a namespace.",
                fix="Set `cluster.namespace` in the run file to your profile's namespace, or give "
                "--namespace to a command that takes no run file.",
            )
    if not health.get("multi_user"):
        namespace = None  # all is in the server's own
    version = str(health.get("tag_name") or "unknown")
    return Cluster(
        host=address,
        namespace=namespace,
        version=version,
        notes=tuple(version_notes(address, version)),
        client=open_client(address, login, namespace),
        login=login,
        multi_user=bool(health.get("multi_user")),
    )


@dataclass(frozen=True)
class Version:
    """A pipeline version on the server."""

    pipeline_id: str
    version_id: str
    name: str
    uploaded: bool


@dataclass(frozen=True)
class Cluster:
    """A server that knows us. Made by :func:`connect`.

    Attributes:
        namespace: Of the runs; None where the server has one user.
        notes: What a person should know of the connection.
        multi_user: Whether the server has several users, each with a namespace.
    """

    host: str
    namespace: str | None
    version: str
    notes: tuple[str, ...]
    client: Any
    login: Login
    multi_user: bool = False

    def link(self, run_id: str) -> str:
        """Where a person sees a run."""
        base = os.environ.get("KF_PIPELINES_UI_ENDPOINT") or self.host
        if base == IN_CLUSTER_HOST:
            base = "/pipeline"
        return f"{base.rstrip('/')}/#/runs/details/{run_id}"

    def call(self, doing: str, method: Callable[..., Any], **arguments: Any) -> Any:
        """Ask the server for something.

        Args:
            doing: What is asked, for an error's message.
            method: A method of the client or of one of its services.
            arguments: What it is called with.
        """
        with kfp_errors(self.host, doing), silent():
            return method(**arguments)

    def every(
        self, doing: str, method: Callable[..., Any], field: str, **arguments: Any
    ) -> list[Any]:
        """Everything that a listing holds, over all its pages."""
        found: list[Any] = []
        token = ""
        while True:
            page = self.call(doing, method, page_token=token, page_size=PAGE, **arguments)
            found += getattr(page, field) or []
            before, token = token, page.next_page_token or ""
            if token and token == before:
                raise ClusterError(
                    f"{self.host} lists without end on {doing}", fix="See the server's log."
                )
            if not token:
                return found

    def experiment(self, name: str) -> str:
        """The id of an experiment, which is made where it is missing."""
        asked = {"name": name, "namespace": self.namespace}
        doing = f"making the experiment {name!r}"
        try:
            made = self.call(doing, self.client.create_experiment, **asked)
        except AlreadyOnServer:  # somebody was quicker: now it is found
            made = self.call(doing, self.client.create_experiment, **asked)
        return str(made.experiment_id)

    def pipeline(self, name: str) -> str | None:
        """The id of the pipeline with that name, or None."""
        found = self.call(
            f"looking for the pipeline {name!r}",
            self.client.list_pipelines,
            namespace=self.namespace,
            filter=equals("display_name", name),
        )
        return str(found.pipelines[0].pipeline_id) if found.pipelines else None

    def version_named(self, pipeline_id: str, name: str) -> str | None:
        """The id of a pipeline's version with that name, or None."""
        found = self.call(
            f"looking for the version {name!r}",
            self.client.list_pipeline_versions,
            pipeline_id=pipeline_id,
            filter=equals("display_name", name),
        )
        versions = found.pipeline_versions
        return str(versions[0].pipeline_version_id) if versions else None

    def ensure_version(self, package: Path, pipeline: str, name: str, description: str) -> Version:
        """The version of a pipeline with that name; uploaded where the server lacks it.

        Two that submit the same at once end with one version: the later one gets the error that the
        name is taken, and finds it.
        """
        pipeline_id = self.pipeline(pipeline) or self._make_pipeline(pipeline)
        found = self.version_named(pipeline_id, name)
        if found is not None:
            return Version(pipeline_id, found, name, uploaded=False)
        try:
            made = self.call(
                f"the pipeline version {name!r}",
                self.client.upload_pipeline_version,
                pipeline_package_path=str(package),
                pipeline_version_name=name,
                pipeline_id=pipeline_id,
                description=column_text(description),
            )
            return Version(pipeline_id, str(made.pipeline_version_id), name, uploaded=True)
        except AlreadyOnServer:
            found = self.version_named(pipeline_id, name)
            if found is None:
                raise
            return Version(pipeline_id, found, name, uploaded=False)

    def _make_pipeline(self, name: str) -> str:
        """Make a pipeline without a version: `upload_pipeline` names the first one after it."""
        from kfp_server_api import V2beta1Pipeline

        body = V2beta1Pipeline(name=name, display_name=name, namespace=self.namespace)
        service = self.client._pipelines_api.pipeline_service_create_pipeline
        try:
            made = self.call(f"making the pipeline {name!r}", service, pipeline=body)
            return str(made.pipeline_id)
        except AlreadyOnServer:
            found = self.pipeline(name)
            if found is None:
                raise
            return found

    def start(
        self,
        version: Version,
        *,
        run_name: str,
        experiment_id: str,
        parameters: Mapping[str, Any],
        service_account: str | None,
        description: str = "",
    ) -> str:
        """Start a run of a version. Returns the run's id."""
        from kfp_server_api import V2beta1PipelineVersionReference, V2beta1Run, V2beta1RuntimeConfig

        body = V2beta1Run(
            experiment_id=experiment_id,
            display_name=run_name,
            description=column_text(redacted(description)),
            pipeline_version_reference=V2beta1PipelineVersionReference(
                pipeline_id=version.pipeline_id, pipeline_version_id=version.version_id
            ),
            runtime_config=V2beta1RuntimeConfig(parameters=dict(parameters)),
            service_account=service_account,
        )
        service = self.client._run_api.run_service_create_run
        try:
            return str(self.call(f"the run {run_name!r}", service, run=body).run_id)
        except ClusterUnreachable:  # it may have started all the same: its answer was lost
            with contextlib.suppress(ClusterError):
                for run in self.runs(limit=PAGE):
                    if run.display_name == run_name:
                        return str(run.run_id)
            raise

    def run(self, run_id: str) -> Any:
        """A run as the server has it.

        Raises:
            NotOnServer: There is none with that id.
        """
        return self.call(f"looking at the run {run_id}", self.client.get_run, run_id=run_id)

    def find_run(self, name: str) -> Any:
        """A run by its id, or by its name or a beginning of its id, the newest first."""
        with contextlib.suppress(NotOnServer):
            return self.run(name)
        if self.multi_user and self.namespace is None:
            raise NotOnServer(
                f"{self.host} has no run with the id {name!r}.",
                why="It serves several users: a name, or the start of an id, is looked for in one "
                "namespace.",
                fix="Give the whole id, or --namespace.",
            )
        for run in self.runs(limit=PAGE):
            if run.display_name == name or (len(name) >= 4 and run.run_id.startswith(name)):
                return run
        raise NotOnServer(
            f"{self.host} has no run {name!r} among the newest {PAGE}.",
            fix="`graftline runs` lists them.",
        )

    def runs(self, *, limit: int, experiment: str | None = None) -> list[Any]:
        """The newest runs, of one experiment or of all."""
        arguments: dict[str, Any] = {"namespace": self.namespace}
        if experiment is not None:
            found = self.call(
                f"looking for the experiment {experiment!r}",
                self.client.list_experiments,
                namespace=self.namespace,
                filter=equals("display_name", experiment),
            )
            if not found.experiments:
                return []
            arguments = {"experiment_id": found.experiments[0].experiment_id}
        page = self.call(
            "listing runs",
            self.client.list_runs,
            page_size=min(limit, 200),
            sort_by="created_at desc",
            **arguments,
        )
        return list(page.runs or [])

    def active_runs(self, schedule_id: str) -> list[Any]:
        """The runs among the newest that a schedule started and that have not ended."""
        return [
            run
            for run in self.runs(limit=PAGE)
            if run.recurring_run_id == schedule_id and run.state not in ENDED
        ]

    def stop(self, run_id: str) -> None:
        """Ask the server to end a run."""
        self.call(f"stopping the run {run_id}", self.client.terminate_run, run_id=run_id)

    def log(self, run_id: str, pod: str) -> str | None:
        """The log of a pod, its secrets masked, or None where the server no longer has it."""
        answer = self._get(f"/apis/v1alpha1/runs/{run_id}/nodes/{pod}/log")
        # A log that is in neither the pod nor the archive is a status 500. Older servers send 200
        # before they know, and then an error object where the log should be. The answer names no
        # character set.
        text = answer.content.decode("utf-8", errors="replace")
        missing = text.startswith('{"error_message"')
        return None if missing or not answer.ok else redacted(text)

    def workflow(self, run_id: str) -> Mapping[str, Any] | None:
        """A run's Argo workflow, or None where the server does not hand it out.

        Only the v1beta1 API does, for runs of the v2 API as well; the client has no call for it.
        """
        answer = self._get(f"/apis/v1beta1/runs/{run_id}")
        if not answer.ok:
            return None
        try:
            found = json.loads(answer.json()["pipeline_runtime"]["workflow_manifest"])
        except (ValueError, KeyError, TypeError):
            return None
        return found if isinstance(found, dict) else None

    def _get(self, path: str) -> Any:
        return _get(self.host, self.login, path)


def _get(host: str, login: Login, path: str) -> Any:
    import requests  # type: ignore[import-untyped]  # ships no types

    try:
        return requests.get(
            f"{host}{path}",
            headers=login.headers(),
            timeout=(CONNECT_SECONDS, READ_SECONDS),
            allow_redirects=False,
            verify=os.environ.get(CA_VARIABLE) or True,
        )
    except requests.RequestException as error:
        raise unreachable(host, error) from None


def column_text(text: str, most: int = MAX_TEXT) -> str:
    """A text cut to what a column of the server's database takes.

    MySQL refuses a longer one, after KFP has started what it describes. It may also refuse
    characters of four bytes, such as emoji: KFP's connection is not always `utf8mb4`.
    """
    plain = "".join(char if ord(char) <= 0xFFFF else "\ufffd" for char in text)
    return plain if len(plain) <= most else f"{plain[: most - 1]}…"


def equals(key: str, value: str) -> str:
    """A listing's filter for one value of one field."""
    predicate = {"operation": "EQUALS", "key": key, "stringValue": value}
    return json.dumps({"predicates": [predicate]})
