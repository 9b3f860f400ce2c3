"""A user's mistakes, through the command: value, cause and remedy, the right code, no traceback."""

import importlib.util
import io
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from graftline_pipelines.cli.main import main

PROBLEM = 1
MISTAKE = 2


def png(seed: str) -> bytes:
    stream = io.BytesIO()
    Image.frombytes("RGB", (16, 16), random.Random(seed).randbytes(768)).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def images(tmp_path: Path) -> Callable[..., Path]:
    """Class folders with so many images each."""

    def make(**classes: int) -> Path:
        folder = tmp_path / "images"
        folder.mkdir()
        for label, count in classes.items():
            (folder / label).mkdir()
            for number in range(count):
                data = png(f"{label} {number}")
                (folder / label / f"{number}.png").write_bytes(data)
        return folder

    return make


@pytest.fixture
def graftline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Run a command on a run file, expect an exit code, and hand back all that was printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "2000")
    for question in ("_tracking", "_champion", "_backbone", "_pipeline"):  # seconds, and all well
        monkeypatch.setattr(
            f"graftline_pipelines.preflight.examine.{question}", lambda settings, *_: "well"
        )

    def call(code: int, run_file: str | dict[str, Any], *options: str, command: str = "check"):
        if isinstance(run_file, dict):
            defaults = {"name": "bad", "store": "store"}
            run_file = yaml.safe_dump({**defaults, **run_file})
        (tmp_path / "run.yaml").write_text(run_file)
        monkeypatch.setattr("sys.argv", ["graftline", command, "run.yaml", *options])
        capfd.readouterr()
        ended = 0
        try:
            main()
        except SystemExit as end:
            ended = int(end.code or 0)
        shown = "".join(capfd.readouterr())
        assert ended == code, shown
        assert "Traceback" not in shown
        return shown

    return call


def source(place: object, **more: Any) -> dict[str, Any]:
    return {"data": {"source": str(place), **more}}


def says(shown: str, *words: str) -> None:
    assert all(word in shown for word in words), shown
    assert "What to do: " in shown


# -- the source -----------------------------------------------------------------------------------


def test_source_that_does_not_exist(graftline) -> None:
    says(graftline(PROBLEM, source("no/such/folder")), "no/such/folder does not exist")
    says(graftline(MISTAKE, source("no/such/folder"), command="run"), "no/such/folder")
    says(graftline(PROBLEM, source("gs://bucket/x")), "gs://bucket/x", "AWS_ENDPOINT_URL_S3")


def test_empty_source(graftline, images) -> None:
    says(graftline(PROBLEM, source(images(a=0, b=0))), "is empty", "one folder of images per class")


def test_one_class_only(graftline, images) -> None:
    says(graftline(PROBLEM, source(images(cats=5))), "one label 'cats'", "at least two classes")


def test_class_with_one_image(graftline, images) -> None:
    shown = graftline(PROBLEM, source(images(cats=5, dogs=1)))
    says(shown, "Too few images in dogs (1)", "a class needs 3")


def test_files_that_are_no_images_by_name(graftline, images) -> None:
    folder = images(a=0, b=0)
    for name in ("a/1.txt", "b/2.pdf", "b/.hidden.png"):
        (folder / name).write_text("text")
    shown = graftline(PROBLEM, source(folder))
    says(shown, "No usable image", "not an image file (2)", "hidden file (1)")


def test_files_that_are_no_images_in_spite_of_their_names(
    graftline, images, mlflow_sqlite: str
) -> None:
    """Only reading tells: the step says it, and the command shows what the step says."""
    folder = images(a=3, b=3)
    for path in folder.rglob("*.png"):
        path.write_text("text")
    run_file = {**source(folder), "tracking": {"uri": mlflow_sqlite}}
    shown = graftline(PROBLEM, run_file, command="run")
    says(shown, "Step ingest failed", "No usable image", "not an image in a known format (6)")
    assert "ingest.log" in shown
    log = next((folder.parent / ".graftline" / "runs").rglob("ingest.log")).read_text()
    assert "Traceback" not in log


def test_single_file_that_is_no_source(graftline, images) -> None:
    folder = images(a=1)
    says(
        graftline(PROBLEM, source(folder / "a" / "0.png")), "single file", ".csv, a .tar or a .zip"
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "picture,kind\na/0.png,a\n",
            ["columns 'image' and 'label'", "'picture', 'kind'", "image_column"],
        ),
        (b"image,label\na/0.png,K\xe4fer\n", ["not UTF-8", "line 2", "Save it as UTF-8"]),
        ("image,label\n", ["has no rows"]),
        ("image,label\na/0.png,a\na/9.png,b\n", ["one label 'a'", "file not found (1)"]),
        ("image,label,split\na/0.png,a,practice\n", ["'practice'", "train, val and test"]),
        ("image,label\na/0.png,a\na/0.png,b\n", ["No usable image", "conflicting labels (2)"]),
        ('image,label\n"a/0.png,a\n', ["line 2", "quotation"]),
    ],
    ids=["columns", "encoding", "no rows", "missing file", "split", "two labels", "quotation"],
)
def test_table_that_cannot_be_used(graftline, images, text: str | bytes, words: list[str]) -> None:
    table = images(a=3, b=3) / "table.csv"
    table.write_bytes(text if isinstance(text, bytes) else text.encode())
    says(graftline(PROBLEM, source(table)), "table.csv" if "rows" in words[0] else "", *words)


def test_table_as_a_spreadsheet_writes_it_is_no_problem(graftline, images) -> None:
    table = images(a=3, b=3) / "table.csv"
    rows = [f"{c}/{n}.png;{c}" for c in "ab" for n in range(3)]
    table.write_text("\r\n".join(["image;label", *rows, "a/0.png;a", ""]), encoding="utf-8-sig")
    shown = graftline(0, source(table))
    assert "6 files listed in 2 classes" in shown and "duplicate row (1)" in shown


def test_columns_that_the_table_lacks(graftline, images) -> None:
    table = images(a=3) / "table.csv"
    table.write_text("image,label\na/0.png,a\n")
    shown = graftline(PROBLEM, source(table, group_column="patient", attributes=["age", "sex"]))
    says(shown, "columns 'age', 'sex' and 'patient'", "data.group_column")


# -- the store ------------------------------------------------------------------------------------


def test_store_that_may_not_be_written_to(graftline, images) -> None:
    run_file = source(images(a=3, b=3))
    for store in ("/proc/store", "/sys/store"):
        shown = graftline(PROBLEM, {**run_file, "store": store})
        says(shown, f"Cannot write {store}", "choose another path")
    says(graftline(MISTAKE, {**run_file, "store": "/proc/store"}, command="run"), "/proc/store")


def test_store_below_a_file(graftline, images, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    says(graftline(PROBLEM, {**source(images(a=3, b=3)), "store": "file/store"}), "file/store")


# -- S3 -------------------------------------------------------------------------------------------


def test_s3_without_credentials(graftline, s3_bucket: str, monkeypatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    shown = graftline(PROBLEM, {**source(f"{s3_bucket}/images"), "store": f"{s3_bucket}/store"})
    assert shown.count("No AWS credentials were found") == 1  # one reason, of both
    says(shown, "AWS_ACCESS_KEY_ID", "data.source", "Why: as store.", "2 problems would stop a run")


def test_s3_bucket_and_prefix_that_are_not_there(graftline, s3_bucket: str) -> None:
    shown = graftline(PROBLEM, {**source(f"{s3_bucket}/images"), "store": f"{s3_bucket}-not/store"})
    says(shown, f"{s3_bucket}/images is empty", "there is no such bucket at http://")
    says(graftline(PROBLEM, source(f"{s3_bucket}-not")), "no such bucket")
    says(graftline(PROBLEM, source(f"{s3_bucket}/t.csv")), "t.csv does not exist")


def test_s3_endpoint_that_nobody_answers_at(graftline, s3_bucket: str, monkeypatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setattr("graftline.storage._s3_client.FIRST_CONTACT", 0.2)
    shown = graftline(PROBLEM, {**source(f"{s3_bucket}/images"), "store": f"{s3_bucket}/store"})
    says(shown, "http://127.0.0.1:9", "AWS_ENDPOINT_URL_S3")


def test_s3_credentials_that_may_not(
    graftline, s3_bucket: str, s3_server: str, monkeypatch
) -> None:
    path = Path(__file__).parents[1] / "service" / "fault_proxy.py"
    spec = importlib.util.spec_from_file_location("fault_proxy_of_bad_input", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with module.FaultProxy(s3_server) as proxy:
        proxy.faults = [("403", 10_000)]
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
        shown = graftline(PROBLEM, {**source(f"{s3_bucket}/i"), "store": f"{s3_bucket}/store"})
    says(shown, f"Cannot list {s3_bucket}/i", f"Cannot write {s3_bucket}/store", "s3:ListBucket")


# -- the run file ---------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["run", "check"])
def test_three_mistakes_at_once(graftline, command: str) -> None:
    text = "name: a\ndata:\n  source: x\n  formt: table\nseed: many\nstrategy: best\n"
    shown = graftline(MISTAKE, text, command=command)
    assert "data.formt" in shown and "`format`" in shown
    assert "seed" in shown and "'many'" in shown
    assert "strategy" in shown and "'best'" in shown and "fine_tune" in shown


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["no keys"]),
        ("name: a\n\tdata: x\n", ["not valid YAML", "line"]),
        ("- name\n", ["not a mapping"]),
        ("name: a\n? [x, y]\n: z\n", ["run.yaml"]),
        ("name: a\ndata: {? {b: c} : d}\n", ["run.yaml"]),
        ("name: a\ndata: {source: x, split: {train: 0.5, val: 0.1, test: 0.1}}\n", ["data.split"]),
    ],
    ids=["empty", "tab", "list", "list as key", "mapping as key", "fractions"],
)
def test_run_file_that_cannot_be_read(graftline, text: str, words: list[str]) -> None:
    shown = graftline(MISTAKE, text)
    assert all(word in shown for word in words), shown


def test_run_file_that_is_not_there(graftline, monkeypatch, capfd) -> None:
    monkeypatch.setattr("sys.argv", ["graftline", "run", "nowhere.yaml"])
    with pytest.raises(SystemExit) as ended:
        main()
    shown = "".join(capfd.readouterr())
    assert ended.value.code == MISTAKE and "nowhere.yaml" in shown and "Traceback" not in shown
