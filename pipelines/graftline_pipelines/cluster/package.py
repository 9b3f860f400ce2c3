"""A compiled pipeline, named by its content, and all that can be wrong with it before it is sent.

Kubeflow's client sends nearly anything, and its server refuses one mistake at a time, some of them
only when the pods start. Here they are found together, on the machine of the person who made them.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from graftline.errors import ConfigurationError
from graftline.redaction import holds_secret
from graftline_pipelines.graphs.compile import GraphName, compile_to
from graftline_pipelines.runfile import placeholders
from graftline_pipelines.runfile.quantities import is_name, is_object_name
from graftline_pipelines.runfile.settings import RunSettings

SCHEMA_VERSION = "2.1.0"  # the only one that the server reads
MAX_BYTES = 32 << 20  # of an upload
MAX_WORKFLOW_BYTES = 700_000  # beyond it, the workflow does not fit into etcd
MAX_ARGUMENT_BYTES = 128 << 10  # Linux's limit of one argument of a command, its last 0 included
MAX_PIPELINE_NAME = 128
MAX_EXPERIMENT_NAME = 128
MUTABLE_TAGS = {"latest", "main", "master", "dev", "develop", "nightly", "edge", "snapshot"}
_PIPELINE_NAME = re.compile(r"^[a-z0-9][a-z0-9-]*$")
_DIGEST = re.compile(r"^sha256:[0-9a-f]{64}$")
_TYPES: dict[str, type | tuple[type, ...]] = {
    "NUMBER_DOUBLE": (int, float),
    "NUMBER_INTEGER": int,
    "STRING": str,
    "BOOLEAN": bool,
    "LIST": list,
    "STRUCT": dict,
}


class SubmissionError(ConfigurationError):
    """All that would make the server refuse it, or its pods never start."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = tuple(problems)
        count = f"{len(problems)} problems stop" if len(problems) > 1 else "A problem stops"
        listed = "\n".join(f"  {problem}" for problem in problems)
        super().__init__(f"{count} this before anything is sent:\n{listed}")


@dataclass(frozen=True)
class Package:
    """A compiled graph.

    Attributes:
        pipeline: Name of the pipeline on the server.
        version: Name of the version: a digest of the content.
        path: The compiled file.
        spec: The pipeline spec in it.
        images: Every container image that a step may run in.
        platform: What of it is Kubernetes' own: nodes, disks, secrets.
        graph: Which graph of the run file it is.
    """

    pipeline: str
    version: str
    path: Path
    spec: Mapping[str, Any]
    images: tuple[str, ...]
    platform: Mapping[str, Any] = field(default_factory=dict)
    graph: GraphName = "train"


def pipeline_name(settings: RunSettings, graph: GraphName) -> str:
    """The name of a graph's pipeline on the server."""
    return settings.name if graph == "train" else f"{settings.name}-{graph}"


def build(settings: RunSettings, graph: GraphName, folder: Path) -> Package:
    """Compile a graph into a folder and name it by its content."""
    path = folder / f"{pipeline_name(settings, graph)}.yaml"
    compile_to(settings, graph, path)
    documents = list(yaml.load_all(path.read_text(encoding="utf-8"), Loader=_Loader))
    spec = documents[0]
    executors = spec.get("deploymentSpec", {}).get("executors", {}).values()
    images = sorted({e["container"]["image"] for e in executors if "container" in e})
    return Package(
        pipeline_name(settings, graph),
        content_digest(documents),
        path,
        spec,
        tuple(images),
        documents[1] if len(documents) > 1 else {},
        graph,
    )


_Loader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def content_digest(documents: list[Any]) -> str:
    """A name for compiled documents that does not depend on the order of their keys."""
    text = json.dumps(documents, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def check(package: Package, settings: RunSettings, parameters: Mapping[str, Any]) -> None:
    """Check a package against the server's rules and against what a pod can reach.

    Raises:
        SubmissionError: with every problem found.
    """
    problems = [
        *_server_rules(package),
        *_argument_problems(package, parameters),
        *_placeholder_problems(settings, parameters),
        *_name_problems(settings),
        *_parameter_problems(package.spec, parameters),
        *_secret_problems(parameters),
        *_place_problems(settings, package.graph, parameters.get("source")),
        *(prediction_problems(settings, parameters) if package.graph == "predict" else ()),
        *image_problems(package.images, require_digest=settings.images.require_digest),
    ]
    if problems:
        raise SubmissionError(problems)


def _server_rules(package: Package) -> list[str]:
    problems = []
    name = package.spec.get("pipelineInfo", {}).get("name", "")
    if not _PIPELINE_NAME.match(name) or len(name) > MAX_PIPELINE_NAME:
        problems.append(
            f"name: {name!r} cannot name a pipeline: lower-case letters, digits and '-', at most "
            f"{MAX_PIPELINE_NAME}, starting with a letter or digit."
        )
    schema = package.spec.get("schemaVersion")
    if schema != SCHEMA_VERSION:
        problems.append(f"The compiled pipeline has schema {schema}, the server reads 2.1.0.")
    size = package.path.stat().st_size
    if size > MAX_BYTES:
        problems.append(f"The compiled pipeline has {size:,} bytes; the server takes 32 MiB.")
    elif size > MAX_WORKFLOW_BYTES:
        problems.append(
            f"The compiled pipeline has {size:,} bytes; a workflow over {MAX_WORKFLOW_BYTES:,} "
            "does not fit into the cluster's store. Shorten long lists in the run file."
        )
    return problems


def _argument_problems(package: Package, parameters: Mapping[str, Any]) -> list[str]:
    """Parts that KFP hands to its driver as one argument of a command, each with its own limit."""
    spec = package.spec
    deployment = spec.get("deploymentSpec", {})
    kubernetes = package.platform.get("platforms", {}).get("kubernetes", {})
    parts = {
        "the graph": spec.get("root", {}),
        **{f"the component {name}": part for name, part in spec.get("components", {}).items()},
        **{f"the container {name}": part for name, part in deployment.get("executors", {}).items()},
        **{
            f"the pod of {name}": part
            for name, part in kubernetes.get("deploymentSpec", {}).get("executors", {}).items()
        },
        "--param": parameters,
    }
    problems = []
    for what, part in parts.items():
        # As protojson writes it at most: with a space after each comma and colon.
        size = len(json.dumps(part, ensure_ascii=False).encode()) + 1
        if size > MAX_ARGUMENT_BYTES:
            longest, where = max((len(text), path) for path, text in _texts(part, ()))
            problems.append(
                f"{what} has {size:,} bytes when compiled; KFP hands it over as one argument, "
                f"which takes {MAX_ARGUMENT_BYTES:,}. The longest text in it is {'.'.join(where)} "
                f"with {longest:,} characters. Shorten what the run file gives it."
            )
    return problems


def _texts(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _texts(inner, (*path, str(key)))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _texts(inner, (*path, str(index)))
    else:
        yield path, str(value)


def _placeholder_problems(settings: RunSettings, parameters: Mapping[str, Any]) -> list[str]:
    found = [
        placeholders.shown(path)
        for path in placeholders.placeholders(settings.model_dump(mode="json"))
    ]
    found += [
        f"--param {placeholders.shown(path)}" for path in placeholders.placeholders(parameters)
    ]
    return [f"{key} {placeholders.WHAT} {placeholders.FIX}" for key in found]


def _name_problems(settings: RunSettings) -> list[str]:
    """Names that the server answers with an internal error, or that no pod could be made with."""
    problems = []
    if not 1 <= len(settings.experiment) <= MAX_EXPERIMENT_NAME:
        problems.append(
            f"tracking.experiment: {settings.experiment[:40]!r}... has {len(settings.experiment)} "
            f"characters; the server takes {MAX_EXPERIMENT_NAME}."
        )
    namespace = settings.cluster.namespace
    if namespace is not None and not is_name(namespace):
        problems.append(
            f"cluster.namespace: {namespace!r} cannot be the name of such an object: at most 63 "
            "lower-case letters, digits and '-'."
        )
    names = {
        "cluster.service_account": settings.cluster.service_account,
        **{f"cluster.secrets: {name}": name for name in settings.cluster.secrets},
        **{f"cluster.config_maps: {name}": name for name in settings.cluster.config_maps},
        "cluster.pull_secrets": next(
            (name for name in settings.cluster.pull_secrets if not is_object_name(name)), None
        ),
        "retrain.webhook_secret": settings.retrain.webhook_secret,
    }
    problems += [
        f"{key}: {name!r} cannot be the name of such an object: lower-case letters, digits, '-' "
        "and '.'."
        for key, name in names.items()
        if name is not None and not is_object_name(name)
    ]
    return problems


def _parameter_problems(spec: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    known = spec.get("root", {}).get("inputDefinitions", {}).get("parameters", {})
    problems = [
        f"--param {name}: the pipeline has no such parameter; it has {', '.join(known) or 'none'}."
        for name in given
        if name not in known
    ]
    for name, parameter in known.items():
        if name in given:
            kind = parameter["parameterType"]
            fits = isinstance(given[name], _TYPES[kind])
            if not fits or (kind.startswith("NUMBER") and isinstance(given[name], bool)):
                problems.append(f"--param {name}: {given[name]!r} is not a {kind.lower()}.")
        elif not parameter.get("isOptional") and "defaultValue" not in parameter:
            problems.append(f"--param {name} is missing, and has no default.")
    return problems


def _secret_problems(given: Mapping[str, Any]) -> list[str]:
    return [
        f"--param {name}: the value holds a password or a token, or one that this shell's "
        "environment keeps secret; everyone who sees the run would read it. On a cluster, "
        "credentials come from Kubernetes secrets."
        for name, value in given.items()
        if any(holds_secret(text) for _, text in _texts(value, ()))
    ]


def prediction_problems(settings: RunSettings, parameters: Mapping[str, Any]) -> list[str]:
    """What a pod that classifies a bucket would find out after minutes.

    Args:
        settings: The run file.
        parameters: Values that replace those of its section ``predict``.
    """
    source = parameters.get("source") or settings.predict.source
    output = parameters.get("output") or settings.predict.output
    problems = []
    for key, value, option in (
        ("predict.source", source, "--source"),
        ("predict.output", output, "--out"),
    ):
        if not value:
            problems.append(
                f"{key} is not set. Set it in the run file, or give "
                f"`graftline submit-predict` {option} s3://..."
            )
        elif not str(value).startswith("s3://"):
            problems.append(
                f"{key}: {value!r} is a path in a pod, which no one else sees. Give an s3:// URI."
            )
    if output and not str(output).lower().endswith((".csv", ".parquet")):
        problems.append(
            f"predict.output: {output!r} ends in neither .csv nor .parquet. Name a file such as "
            "answers.csv."
        )
    return problems


def _place_problems(settings: RunSettings, graph: GraphName, source: object = None) -> list[str]:
    """Addresses that only this machine knows; ``source`` replaces the run file's."""
    problems = []
    places = {
        "data.source": source if isinstance(source, str) else settings.data.source,
        "store": settings.store,
        "weights": settings.weights if settings.weights != "random" else None,
    }
    if graph == "predict":  # which reads other images, with a model that is registered
        del places["data.source"], places["weights"]
    for key, value in places.items():
        if value is not None and not value.startswith("s3://"):
            problems.append(
                f"{key}: {value!r} is on this machine, where no pod can see it; use s3://."
            )
    if not settings.tracking.uri.startswith(("http://", "https://", "postgresql", "mysql")):
        problems.append(
            f"tracking.uri: {settings.tracking.uri!r} is on this machine, where no pod can see "
            "it; use the address of an MLflow server in the cluster, such as "
            "http://mlflow.graftline.svc:5000."
        )
    if not settings.images.registry:
        problems.append(
            "images.registry is missing: a cluster pulls images from a registry. `make images` "
            "builds them; push them and name the registry."
        )
    return problems


def image_problems(images: tuple[str, ...], *, require_digest: bool) -> list[str]:
    """What is wrong with image names: a tag that can move gives runs that cannot be repeated."""
    problems = []
    for image in images:
        _, tag, digest = split_image(image)
        if digest is not None:
            if not _DIGEST.match(digest):
                problems.append(f"image {image}: {digest!r} is not a sha256 digest.")
        elif tag is None:
            problems.append(
                f"image {image} has no tag, which means `latest`. Set `images.tag` to a release "
                "or, better, a digest (sha256:...)."
            )
        elif re.split(r"[-._]", tag.lower())[-1] in MUTABLE_TAGS:  # 0.1.0-dev as well
            problems.append(
                f"image {image}: the tag {tag!r} moves, so that a run cannot be repeated, and "
                "nodes keep old copies of it. Set `images.tag` to a release or a digest."
            )
        elif require_digest:
            problems.append(
                f"image {image} is named by a tag, and `images.require_digest` is set. Set "
                "`images.tag`, or for graftline-gpu `images.gpu_tag`, to its digest: `make images` "
                "with PUSH=1 prints both."
            )
    return problems


def split_image(image: str) -> tuple[str, str | None, str | None]:
    """The parts of an image's name: repository, tag, digest."""
    name, _, digest = image.partition("@")
    head, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:  # the colon belongs to a port
        return name, None, digest or None
    return head, tag, digest or None
