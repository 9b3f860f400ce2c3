"""A compiled package: its name is its content, and the server's rules are checked here first."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from graftline_pipelines.cluster import package
from graftline_pipelines.cluster.package import (
    Package,
    SubmissionError,
    build,
    check,
    content_digest,
    image_problems,
    split_image,
)
from graftline_pipelines.runfile.settings import RunSettings


def settings(**changes: Any) -> RunSettings:
    values = {
        "name": "flowers",
        "data": {"source": "s3://b/flowers"},
        "store": "s3://b/store",
        "tracking": {"uri": "http://mlflow:5000"},
        "strategy": "probe",
        "images": {"registry": "r.example.com/ml", "tag": "0.1.0"},
    }
    return RunSettings.model_validate({**values, **changes})


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return build(settings(), "train", tmp_path_factory.mktemp("package"))


@pytest.fixture
def changed(built: Package) -> Callable[..., Package]:
    """The package with parts of its spec replaced."""

    def change(**parts: Any) -> Package:
        return dataclasses.replace(built, spec={**built.spec, **parts})

    return change


def problems(built: Package, parameters: dict[str, Any] | None = None) -> str:
    with pytest.raises(SubmissionError) as caught:
        check(built, settings(), parameters or {})
    return str(caught.value)


def test_the_version_is_a_digest_of_the_content(built: Package, tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    (tmp_path / "other").mkdir()
    assert build(settings(), "train", tmp_path / "again").version == built.version
    other = build(settings(seed=1), "train", tmp_path / "other")
    assert other.version != built.version and len(built.version) == 16
    assert built.images == ("r.example.com/ml/graftline-cpu:0.1.0",)
    check(built, settings(), {})


def test_the_order_of_keys_is_no_content() -> None:
    assert content_digest([{"a": 1, "b": 2}]) == content_digest([{"b": 2, "a": 1}])
    assert content_digest([{"a": 1}]) != content_digest([{"a": 1}, {"platforms": {}}])


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"schemaVersion": "2.0.0"}, "has schema 2.0.0, the server reads 2.1.0"),
        ({"pipelineInfo": {"name": "Flowers"}}, "'Flowers' cannot name a pipeline"),
        ({"pipelineInfo": {"name": "-flowers"}}, "cannot name a pipeline"),
        ({"pipelineInfo": {"name": "f" * 129}}, "cannot name a pipeline"),
    ],
)
def test_the_servers_rules(changed: Callable[..., Package], parts: Any, said: str) -> None:
    assert said in problems(changed(**parts))


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"tracking": {"uri": "http://m", "experiment": "e" * 129}}, "has 129 characters"),
        ({"cluster": {"namespace": "Team_A"}}, "cluster.namespace: 'Team_A' cannot be the name"),
        ({"cluster": {"namespace": "n" * 64}}, "cluster.namespace: 'nnn"),
        ({"cluster": {"service_account": "my robot"}}, "cluster.service_account: 'my robot'"),
        ({"cluster": {"secrets": {"S3!": {"k": "V"}}}}, "cluster.secrets: S3!: 'S3!' cannot"),
        ({"cluster": {"pull_secrets": ["ok", "Not OK"]}}, "cluster.pull_secrets: 'Not OK'"),
        ({"retrain": {"webhook_secret": "a/b"}}, "retrain.webhook_secret: 'a/b' cannot"),
    ],
)
def test_names_that_the_server_cannot_take(built: Package, sections: Any, said: str) -> None:
    with pytest.raises(SubmissionError) as caught:
        check(built, settings(**sections), {})
    assert said in str(caught.value) and len(caught.value.problems) == 1


def test_a_long_list_of_the_run_file_does_not_fit_into_an_argument(tmp_path: Path) -> None:
    """Linux takes 128 KiB in one argument (MAX_ARG_STRLEN), execve fails with E2BIG beyond it."""
    large = settings(probe={"c_grid": [n + 0.123456789 for n in range(9000)]})
    with pytest.raises(SubmissionError) as caught:
        check(build(large, "train", tmp_path), large, {})
    (problem,) = caught.value.problems
    assert "the graph has" in problem and "takes 131,072" in problem
    assert "dag.tasks.fit-head.inputs.parameters.config" in problem, "what it is that is long"


def test_containers_and_pods_have_the_same_limit(built: Package, changed: Any) -> None:
    long = {"container": {"image": built.images[0], "env": [{"name": "A", "value": "x" * 131_073}]}}
    assert "the container exec-a has" in problems(
        changed(deploymentSpec={"executors": {"exec-a": long}})
    )
    pod = {"executors": {"exec-a": {"secretAsEnv": ["x" * 131_073]}}}
    platform = {"platforms": {"kubernetes": {"deploymentSpec": pod}}}
    assert "the pod of exec-a has" in problems(dataclasses.replace(built, platform=platform))
    assert "platforms" in built.platform, "it is read from the compiled file"


def test_the_limit_is_that_of_the_kernel(changed: Callable[..., Package]) -> None:
    from subprocess import run

    def part(size: int) -> dict[str, Any]:
        text = "x" * (size - len('{"inputDefinitions": {"x": ""}}'))
        return {"inputDefinitions": {"x": text}}

    most = package.MAX_ARGUMENT_BYTES - 1  # bytes of the argument itself
    run(["/bin/true", "x" * most], check=True)
    with pytest.raises(OSError, match="Argument list too long"):
        run(["/bin/true", "x" * (most + 1)], check=True)
    check(changed(components={"comp-a": part(most)}), settings(), {})
    assert "the component comp-a has 131,073 bytes" in problems(
        changed(components={"comp-a": part(most + 1)})
    )


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"data": {"source": "s3://b/{{x}}"}}, "data.source"),
        ({"data": {"source": "s3://b/t.csv", "attributes": ["a", "{{b"]}}, "data.attributes.1"),
        ({"tracking": {"uri": "http://m", "experiment": "{{=1}}"}}, "tracking.experiment"),
        ({"pools": {"default": {"annotations": {"note": "{{a}}"}}}}, "pools.default.annotations"),
        ({"cluster": {"secrets": {"s": {"{{k": "V"}}}}, "cluster.secrets.s.{{k"),
    ],
)
def test_what_argo_would_replace_is_refused(
    built: Package, changes: dict[str, Any], key: str
) -> None:
    with pytest.raises(SubmissionError) as caught:
        check(built, settings(**changes), {})
    assert f"{key}" in str(caught.value) and "holds '{{'" in str(caught.value)
    assert len(caught.value.problems) == 1


def test_what_argo_would_replace_is_refused_in_a_parameter(changed: Callable[..., Package]) -> None:
    assert "--param source holds '{{'" in problems(changed(), {"source": "s3://b/{{item}}"})


def test_a_compiled_file_appears_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kfp import compiler

    from graftline_pipelines.graphs.compile import compile_to

    output = tmp_path / "new" / "pipeline.yaml"
    compile_to(settings(), "train", output)
    before = output.read_bytes()

    def half(self: Any, pipeline: Any, path: str) -> None:
        Path(path).write_text("half a pipel")
        raise OSError("no space left on device")

    monkeypatch.setattr(compiler.Compiler, "compile", half)
    with pytest.raises(OSError, match="no space"):
        compile_to(settings(), "train", output)
    assert output.read_bytes() == before and list(output.parent.iterdir()) == [output]


def test_sizes(built: Package, tmp_path: Path) -> None:
    path = tmp_path / "big.yaml"
    path.write_bytes(b"x" * (package.MAX_WORKFLOW_BYTES + 1))
    assert "does not fit into the cluster's store" in problems(
        dataclasses.replace(built, path=path)
    )
    with path.open("wb") as stream:
        stream.truncate(package.MAX_BYTES + 1)
    assert "the server takes 32 MiB" in problems(dataclasses.replace(built, path=path))


PARAMETERS = {
    "source": {"parameterType": "STRING"},
    "count": {"parameterType": "NUMBER_INTEGER", "defaultValue": 3},
    "on": {"parameterType": "BOOLEAN", "isOptional": True},
    "more": {"parameterType": "STRUCT", "isOptional": True},
}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "--param source is missing, and has no default"),
        ({"source": 3}, "--param source: 3 is not a string"),
        ({"source": "x", "count": "3"}, "--param count: '3' is not a number_integer"),
        ({"source": "x", "count": True}, "--param count: True is not a number_integer"),
        ({"source": "x", "on": 1}, "--param on: 1 is not a boolean"),
        ({"source": "x", "more": []}, "--param more: [] is not a struct"),
        ({"source": "x", "colour": 1}, "--param colour: the pipeline has no such parameter"),
        ({"source": "https://me:hunter2-long@h/x"}, "--param source: the value holds a password"),
        (
            {"source": "x", "more": {"a": ["https://b.example.com/k?X-Amz-Signature=0123456789"]}},
            "--param more: the value holds a password",
        ),
    ],
)
def test_parameters(changed: Callable[..., Package], given: dict[str, Any], said: str) -> None:
    root = {"inputDefinitions": {"parameters": PARAMETERS}}
    assert said in problems(changed(root=root), given)


def test_parameters_that_fit(changed: Callable[..., Package]) -> None:
    root = {"inputDefinitions": {"parameters": PARAMETERS}}
    given = {"source": "s3://b/x", "count": 4, "on": True, "more": {}}
    check(changed(root=root), settings(), given)
    assert "--param count" in problems(changed(root=root), given | {"count": "4"})


@pytest.mark.parametrize(
    ("image", "parts"),
    [
        ("a/b:1", ("a/b", "1", None)),
        ("a/b", ("a/b", None, None)),
        ("host:5000/a/b", ("host:5000/a/b", None, None)),
        ("host:5000/a/b:1@sha256:0", ("host:5000/a/b", "1", "sha256:0")),
    ],
)
def test_parts_of_an_images_name(image: str, parts: tuple[str, str | None, str | None]) -> None:
    assert split_image(image) == parts


@pytest.mark.parametrize("tag", [*sorted(package.MUTABLE_TAGS), "0.1.0-dev", "gpu.Latest"])
def test_tags_that_move(tag: str) -> None:
    (problem,) = image_problems((f"r/graftline-cpu:{tag}",), require_digest=False)
    assert f"the tag {tag!r} moves" in problem


def test_digests() -> None:
    good = f"r/graftline-cpu@sha256:{'0' * 64}"
    fixed = ("r/graftline-gpu:0.1.0", "r/graftline-gpu:main-3f2a1c")
    assert image_problems((good, *fixed), require_digest=False) == []
    assert image_problems((good,), require_digest=True) == []
    assert "has no tag" in image_problems(("r/graftline-cpu",), require_digest=False)[0]
    assert "not a sha256" in image_problems(("r/g@sha256:12",), require_digest=False)[0]
    assert "named by a tag" in image_problems(("r/g:0.1.0",), require_digest=True)[0]
