"""The contracts of `.importlinter` hold, and each one fails when it is broken on purpose."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PLANTED = {
    "Layers of graftline:": ("graftline/storage/uri_.py", "import graftline.models.names"),
    "Components import no pipeline": ("graftline/stats/sums_.py", "import graftline_pipelines"),
    "No step imports another": (
        "graftline/steps/watch/look_.py",
        "def late():\n    from graftline.steps.ingest import step",
    ),
    "Layers of graftline_pipelines": (
        "graftline_pipelines/runfile/early_.py",
        "import graftline_pipelines.cluster.errors",
    ),
    "kfp is imported": ("graftline/steps/ingest/part_.py", "from kfp import dsl"),
    "No circles": (
        "graftline/images/pixels_.py",
        "import graftline.images.decode\nfrom graftline.images import planes_",
    ),
}


def lint(folder: Path) -> dict[str, bool]:
    """Each contract's name, and whether it was kept, for the tree below the folder."""
    paths = os.pathsep.join(str(folder / root) for root in ("components", "pipelines"))
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": paths, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.findall(r"^(.+?) (KEPT|BROKEN)", done.stdout, re.MULTILINE)
    assert found, done.stdout + done.stderr
    assert done.returncode == any(state == "BROKEN" for _, state in found)
    return {name: state == "KEPT" for name, state in found}


def test_every_contract_is_kept_and_notices_a_planted_violation(tmp_path: Path) -> None:
    shutil.copy(ROOT / ".importlinter", tmp_path)
    for root in ("components", "pipelines"):
        shutil.copytree(
            ROOT / root, tmp_path / root, ignore=shutil.ignore_patterns("__pycache__", "*.csv")
        )
    assert all(lint(tmp_path).values())

    (tmp_path / "components/graftline/images/planes_.py").write_text(
        "import graftline.images.pixels_\n"
    )
    for name, text in PLANTED.values():
        root = "pipelines" if name.startswith("graftline_pipelines") else "components"
        (tmp_path / root / name).write_text(text + "\n")
    kept = lint(tmp_path)
    assert len(kept) == len(PLANTED)
    for contract in PLANTED:
        (named,) = [name for name in kept if name.startswith(contract)]
        assert not kept[named], f"{named} did not notice {PLANTED[contract]}"
