"""AWS Lambda: new images in a bucket start the retraining pipeline, one run at a time.

S3 event notification -> SQS queue -> this function. Only the standard library: paste it as it is
(Python 3.11 or later, handler ``s3_lambda.handler``, timeout 60 s). The pipeline must be on the
server already: ``graftline submit RUN.yaml --pipeline retrain`` or ``graftline schedule apply``
puts it there, and this function starts its newest version.

Environment:
    KF_PIPELINES_ENDPOINT    address of Kubeflow Pipelines, https://kubeflow.example.com/pipeline
    GRAFTLINE_PIPELINE       name of the pipeline: `name` of the run file with -retrain behind it
    GRAFTLINE_EXPERIMENT     experiment of its runs; the run file's name where absent
    GRAFTLINE_NAMESPACE      your profile's namespace, where Kubeflow has several users
    GRAFTLINE_SERVICE_ACCOUNT    `cluster.service_account` of the run file, where it is set
    GRAFTLINE_PREFIX         keys that count, such as flowers/; all where absent
    GRAFTLINE_KFP_TOKEN      bearer token; or:
    GRAFTLINE_KFP_TOKEN_SECRET   name of the secret in AWS Secrets Manager that holds it

The queue: batch window 300 s (many uploads, one call), visibility timeout 15 minutes or more,
"report batch item failures" on. Messages that come while a run is active are given back and come
again, so that images which arrive after its look are not forgotten.
"""

import json
import os
import urllib.parse
import urllib.request
import uuid
from datetime import UTC, datetime
from typing import Any

ENDED = ("SUCCEEDED", "FAILED", "SKIPPED", "CANCELED")
SECONDS = 20


def handler(event: dict[str, Any], context: object = None) -> dict[str, Any]:
    """Start a run for a batch of messages, or give them back while one is active."""
    records = event.get("Records", [])
    keys = [key for record in records for key in _keys(record)]
    wanted = [key for key in keys if key.startswith(os.environ.get("GRAFTLINE_PREFIX", ""))]
    if not wanted:
        return _answer("no image of ours", [])
    kfp = Kfp(os.environ["KF_PIPELINES_ENDPOINT"], _token())
    pipeline = os.environ["GRAFTLINE_PIPELINE"]
    name = os.environ.get("GRAFTLINE_EXPERIMENT", pipeline.removesuffix("-retrain"))
    pipeline_id = kfp.named("pipelines", pipeline)["pipeline_id"]
    experiment_id = kfp.named("experiments", name)["experiment_id"]
    active = kfp.active(pipeline_id, experiment_id)
    if active is not None:
        return _answer(f"{active} is running", [record["messageId"] for record in records])
    reason = f"{len(wanted)} objects in S3, the first {wanted[0]}"
    run = kfp.start(pipeline, pipeline_id, experiment_id, f"Triggered by: {reason}")
    return _answer(f"started {run}", [])


class Kfp:
    """The four requests to Kubeflow Pipelines that this takes."""

    def __init__(self, host: str, token: str) -> None:
        self._url = f"{host.rstrip('/')}/apis/v2beta1"
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._namespace = os.environ.get("GRAFTLINE_NAMESPACE", "")

    def named(self, kind: str, name: str) -> dict[str, Any]:
        """The pipeline or experiment with that name."""
        test = {"operation": "EQUALS", "key": "display_name", "stringValue": name}
        only = json.dumps({"predicates": [test]})
        found = self._get(kind, namespace=self._namespace, filter=only).get(kind)
        if not found:
            raise LookupError(f"{kind}: {name!r} is not on the server; submit the run file once")
        first: dict[str, Any] = found[0]
        return first

    def active(self, pipeline_id: str, experiment_id: str) -> str | None:
        """The name of a run of the pipeline that has not ended."""
        runs = self._get(
            "runs", experiment_id=experiment_id, page_size="100", sort_by="created_at desc"
        ).get("runs", [])
        for run in runs:
            of = run.get("pipeline_version_reference", {}).get("pipeline_id")
            if of == pipeline_id and run.get("state") not in ENDED:
                return str(run["display_name"])
        return None

    def start(self, name: str, pipeline_id: str, experiment_id: str, description: str) -> str:
        """Start a run of the pipeline's newest version; the run's name."""
        versions = self._get(
            f"pipelines/{pipeline_id}/versions", page_size="1", sort_by="created_at desc"
        )["pipeline_versions"]
        run = {
            "display_name": f"{name}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{uuid.uuid4().hex[:4]}",
            "description": description,
            "experiment_id": experiment_id,
            "pipeline_version_reference": {
                "pipeline_id": pipeline_id,
                "pipeline_version_id": versions[0]["pipeline_version_id"],
            },
            "runtime_config": {},
            "service_account": os.environ.get("GRAFTLINE_SERVICE_ACCOUNT", ""),
        }
        return str(self._ask("runs", json.dumps(run).encode())["display_name"])

    def _get(self, path: str, **query: str) -> dict[str, Any]:
        return self._ask(f"{path}?{urllib.parse.urlencode({k: v for k, v in query.items() if v})}")

    def _ask(self, path: str, body: bytes | None = None) -> dict[str, Any]:
        headers = {**self._headers, "Content-Type": "application/json"}
        url = f"{self._url}/{path}"
        request = urllib.request.Request(url, data=body, headers=headers)  # noqa: S310 -- our host
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:  # noqa: S310
            found: dict[str, Any] = json.loads(answer.read())
        return found


def _keys(record: dict[str, Any]) -> list[str]:
    """The objects that an SQS message speaks of; none in S3's own test message."""
    told = json.loads(record["body"])
    return [
        urllib.parse.unquote_plus(entry["s3"]["object"]["key"])
        for entry in told.get("Records", [])
        if "s3" in entry
    ]


def _token() -> str:
    secret = os.environ.get("GRAFTLINE_KFP_TOKEN_SECRET")
    if not secret:
        return os.environ.get("GRAFTLINE_KFP_TOKEN", "")
    import boto3  # part of Lambda's own Python

    value = boto3.client("secretsmanager").get_secret_value(SecretId=secret)
    return str(value["SecretString"]).strip()


def _answer(said: str, again: list[str]) -> dict[str, Any]:
    print(said)
    return {"said": said, "batchItemFailures": [{"itemIdentifier": name} for name in again]}
