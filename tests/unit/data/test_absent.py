"""A source that is not there: said by a name that a person reads, with the one that was meant."""

import subprocess
import sys
from pathlib import Path

import pytest

from graftline.data.absent import refuse_absent
from graftline.errors import StoreNotFound


def test_the_folder_beside_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "flowers of spring").mkdir()
    with pytest.raises(StoreNotFound) as refused:
        refuse_absent(str(tmp_path / "flower of spring"))
    assert f"{tmp_path}/flower of spring does not exist" in str(refused.value)
    assert f"Did you mean {tmp_path}/flowers of spring?" in str(refused.value)


def test_the_part_of_a_path_that_is_wrong_is_found(tmp_path: Path) -> None:
    (tmp_path / "pictures" / "train").mkdir(parents=True)
    with pytest.raises(StoreNotFound, match=r"Did you mean .*/pictures[?]"):
        refuse_absent(str(tmp_path / "picture" / "train"))


def test_what_is_there_or_elsewhere_passes(tmp_path: Path) -> None:
    for uri in (str(tmp_path), tmp_path.as_uri(), "s3://bucket/none"):
        refuse_absent(uri)


def test_check_answers_it_without_what_reads_images(tmp_path: Path) -> None:
    """Their import is what made a wrong folder take seconds to be told."""
    (tmp_path / "run.yaml").write_text("name: a\ndata: {source: nowhere}\n")
    code = (
        "import sys\n"
        "from graftline_pipelines.cli.main import app\n"
        "app(['check', 'run.yaml'], standalone_mode=False)\n"
        "print([name for name in ('numpy', 'pyarrow', 'torch', 'mlflow', 'kfp') "
        "if name in sys.modules])\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "nowhere does not exist" in done.stdout, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
