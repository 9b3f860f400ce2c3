"""``submit-predict``: what a pod would find out after minutes is said at once."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from graftline.errors import ConfigurationError
from graftline_pipelines.cli.main import app
from graftline_pipelines.cluster.package import SubmissionError, build, check
from graftline_pipelines.runfile.load import load

RUN = "name: birds\ndata: {source: 's3://b/birds'}\nstore: s3://b/graftline\n"


@pytest.mark.parametrize(
    ("more", "options", "said"),
    [
        ("", [], "predict.source is not set"),
        ("predict: {source: 's3://b/new'}", [], "predict.output is not set"),
        ("", ["--source", "s3://b/new", "--out", "s3://b/a.xls"], "neither .csv nor .parquet"),
        ("", ["--source", "s3://b/new", "--out", "a.csv"], "is a path in a pod"),
        ("predict: {version: best}", [], "predict.version"),
    ],
)
def test_mistakes(tmp_path: Path, more: str, options: list[str], said: str) -> None:
    (tmp_path / "run.yaml").write_text(RUN + more)
    done = CliRunner().invoke(app, ["submit-predict", str(tmp_path / "run.yaml"), *options])
    assert isinstance(done.exception, ConfigurationError)
    assert said in str(done.exception)


@pytest.mark.parametrize("command", ["trigger", "submit"])
def test_other_commands_that_start_the_graph_say_it_too(tmp_path: Path, command: str) -> None:
    """All problems together, before a server is looked for."""
    (tmp_path / "run.yaml").write_text(RUN + "predict: {source: new, output: answers.txt}")
    run_file = str(tmp_path / "run.yaml")
    done = CliRunner().invoke(app, [command, run_file, "--pipeline", "predict"])
    assert isinstance(done.exception, ConfigurationError)
    for said in ("predict.source: 'new' is a path in a pod", "neither .csv nor .parquet"):
        assert said in str(done.exception)


def test_the_package_of_the_graph_is_checked_for_what_it_reads(tmp_path: Path) -> None:
    """Not for the images of the training, which it never opens."""
    images = "\nimages: {registry: r.example.com/ml, tag: 0.1.0}\ntracking: {uri: 'http://m'}\n"
    (tmp_path / "run.yaml").write_text(RUN.replace("s3://b/birds", "birds") + images)
    settings = load(tmp_path / "run.yaml")
    package = build(settings, "predict", tmp_path)
    with pytest.raises(SubmissionError, match=r"predict\.source is not set") as refused:
        check(package, settings, {})
    assert "data.source" not in str(refused.value)
    check(package, settings, {"source": "s3://b/new", "output": "s3://b/out.csv"})


def test_what_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: dict[str, Any] = {}

    class Sent(Exception):
        pass

    def submit(settings: Any, graph: str, server: Any, **more: Any) -> None:
        sent.update(graph=graph, **more)
        raise Sent

    ask = "graftline_pipelines.preflight.prediction.ask_prediction"
    monkeypatch.setattr(ask, lambda *_: ([], ["not asked"]))  # tests/service asks real servers
    monkeypatch.setattr("graftline_pipelines.cluster.submit.submit", submit)
    monkeypatch.setattr("graftline_pipelines.cli.commands.cluster.connect", lambda *_, **__: None)
    (tmp_path / "run.yaml").write_text(RUN + "predict: {output: 's3://b/out.parquet'}")
    arguments = ["submit-predict", str(tmp_path / "run.yaml"), "--source", "s3://b/yes: no"]
    done = CliRunner().invoke(app, arguments)
    assert isinstance(done.exception, Sent), done.output
    assert "Note: not asked" in done.output
    assert sent["graph"] == "predict" and sent["parameters"] == {"source": "s3://b/yes: no"}


def test_the_graph_is_one_task_with_the_run_files_settings(tmp_path: Path) -> None:
    import yaml

    (tmp_path / "run.yaml").write_text(RUN + "predict: {source: 's3://b/new', top: 3}")
    out = tmp_path / "p.yaml"
    arguments = ["compile", str(tmp_path / "run.yaml"), "--pipeline", "predict", "-o", str(out)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    spec = next(yaml.safe_load_all(out.read_text()))
    assert list(spec["root"]["dag"]["tasks"]) == ["predict"]
    assert spec["pipelineInfo"]["name"] == "birds-predict"
    defaults = spec["root"]["inputDefinitions"]["parameters"]
    assert defaults["source"]["defaultValue"] == "s3://b/new"
    assert defaults["version"]["defaultValue"] == "champion"
    given = spec["root"]["dag"]["tasks"]["predict"]["inputs"]["parameters"]["config"]
    assert json.loads(given["runtimeValue"]["constant"])["top"] == 3
