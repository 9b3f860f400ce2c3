"""Secrets planted in the environment reach no log, record, page, tag, pipeline or image layer."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from graftline.errors import ConfigurationError

ROOT = Path(__file__).parent.parent.parent
SECRET = "planted+s3cret/value=="
VARIABLES = {
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "MLFLOW_TRACKING_TOKEN": SECRET,
    "GRAFTLINE_KFP_TOKEN": SECRET,
}

STEP = """
import dataclasses, logging, sys, urllib.parse
from graftline.errors import StoreError
from graftline.progress import message
from graftline.steps.runtime import StepResult, step
secret = sys.argv[1]

@dataclasses.dataclass(frozen=True, kw_only=True)
class Result(StepResult):
    told: str

with step("ingest", sys.argv[2], "run-1") as recorder:
    message("url http://h/?t=%s", urllib.parse.quote(secret, safe=""))
    logging.getLogger("urllib3").warning("headers %r", {"Authorization": f"Bearer {secret}"})
    recorder.record(Result(told=secret))
    if sys.argv[3] == "known":
        raise StoreError(f"no {secret}", why=repr(secret.encode()), fix=secret)
    raise RuntimeError(f"no {secret}")
"""


def pieces(text: str) -> bool:
    return "planted" in text or "s3cret" in text


@pytest.mark.parametrize("how", ["known", "unknown"])
def test_logs_events_results_records_and_tracebacks(tmp_path: Path, how: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", STEP, SECRET, str(tmp_path / "store"), how],
        capture_output=True,
        text=True,
        env={**os.environ, **VARIABLES, "GRAFTLINE_RUN_DIR": str(tmp_path / "run")},
    )
    assert done.returncode == 1
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) >= 4, files
    for path in files:
        assert not pieces(path.read_text()), path
    assert not pieces(done.stdout + done.stderr)
    assert any("***" in path.read_text() for path in files)


def test_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    from graftline.reports.html import render_page

    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", SECRET)
    page = render_page("base.html", f"A model of {SECRET}")
    assert not pieces(page) and "A model of ***" in page


def test_tags_and_parameters(mlflow_sqlite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from graftline.tracking.client import connect
    from graftline.tracking.mlflow_run import open_tracking, start_run

    monkeypatch.setenv("GRAFTLINE_KFP_TOKEN", SECRET)
    run_id = start_run(mlflow_sqlite, "secrets", "run")
    tracker = open_tracking(mlflow_sqlite, run_id)
    tracker.params({"uri": f"https://h/{SECRET}"})
    tracker.tags({"why": f"Bearer {SECRET}"})
    assert not pieces(str(connect(mlflow_sqlite).get_run(run_id).to_dictionary()))


def test_a_compiled_pipeline_with_a_secret_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from graftline_pipelines.graphs.compile import compile_to
    from graftline_pipelines.runfile.load import load

    path = tmp_path / "run.yaml"
    content = {"name": "a", "data": {"source": f"s3://bucket/{SECRET}"}, "store": "s3://b/store"}
    path.write_text(yaml.safe_dump(content))
    settings = load(path, ())
    compile_to(settings, "doctor", tmp_path / "before.yaml")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    with pytest.raises(ConfigurationError, match="password or a token") as caught:
        compile_to(settings, "doctor", tmp_path / "pipeline.yaml")
    assert not (tmp_path / "pipeline.yaml").exists() and not pieces(str(caught.value))


def test_no_layer_of_an_image_takes_a_secret() -> None:
    """Build arguments and variables stay in an image's history; mounted secrets do not."""
    secret = re.compile(r"^(ARG|ENV)\b.*(PASSWORD|TOKEN|SECRET|CREDENTIAL|API_KEY|NETRC)", re.I)
    for path in (ROOT / "docker").glob("Dockerfile*"):
        lines = path.read_text().splitlines()
        assert not [line for line in lines if secret.search(line)]
        copied = [line for line in lines if line.startswith(("COPY", "ADD"))]
        assert not [line for line in copied if re.search(r"\.netrc|pip\.conf|\.aws|\.env\b", line)]
