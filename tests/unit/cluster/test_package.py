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
    ],
)
def test_parameters(changed: Callable[..., Package], given: dict[str, Any], said: str) -> None:
    root = {"inputDefinitions": {"parameters": PARAMETERS}}
    assert said in problems(changed(root=root), given)


def test_parameters_that_fit(changed: Callable[..., Package]) -> None:
    root = {"inputDefinitions": {"parameters": PARAMETERS}}
    check(
        changed(root=root), settings(), {"source": "s3://b/x", "count": 4, "on": True, "more": {}}
    )


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
