"""Real parts for the tests: digit images, an S3 protocol server, an MLflow server."""

import gc
import hashlib
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from tests.support.http_server import free_port

from graftline import redaction

SUPPORT = Path(__file__).parent / "support"

if "PYTEST_XDIST_WORKER" in os.environ:
    # A worker for each core, hence one thread for each: on two busy cores, two threads on one
    # small matrix spend six times the processor time waiting for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def _wait_for(url: str, process: subprocess.Popen[bytes], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the server behind {url} ended with code {process.returncode}")
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"{url} did not answer within {seconds} s")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.fixture(autouse=True)
def no_secret_of_another_test() -> Iterator[None]:
    """What one test's token was is an ordinary word in the messages of the next."""
    yield
    redaction._learned.clear()


@pytest.fixture(scope="session")
def digits() -> tuple[object, object]:
    """scikit-learn's handwritten digits: images (1797, 8, 8) of 0 to 16, and labels."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return bunch.images, bunch.target


@pytest.fixture
def make_digits_folder(tmp_path: Path, digits: tuple) -> Callable[..., Path]:
    """Write real digits as 8 x 8 PNG files into class folders."""

    def make(per_class: int = 12, classes: int = 10, folder: Path | None = None) -> Path:
        folder = folder or tmp_path / "digits"
        images, labels = digits
        for label in range(classes):
            (folder / str(label)).mkdir(parents=True, exist_ok=True)
            chosen = [i for i in range(len(labels)) if labels[i] == label][:per_class]
            for i in chosen:
                decode = (images[i] * 255 / 16).astype("uint8")
                Image.fromarray(decode).save(folder / str(label) / f"{i:04}.png")
        return folder

    return make


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The endpoint of a moto S3 server, a process of its own.

    ``GRAFTLINE_TEST_S3=http://host:port`` names another server, which knows the keys of
    :func:`s3_bucket`.
    """
    if other := os.environ.get("GRAFTLINE_TEST_S3"):
        yield other
        return
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, str(SUPPORT / "s3_server.py"), "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_for(url + "/moto-api/", process)
        yield url
    finally:
        _stop(process)


@pytest.fixture
def s3_bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A fresh bucket, `s3://...`, with the ordinary AWS variables set for it."""
    for name in list(os.environ):
        if name.startswith("AWS_") and name != "AWS_CA_BUNDLE":
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test-secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    import boto3

    bucket = f"graftline-{uuid.uuid4().hex[:12]}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    return f"s3://{bucket}"


@pytest.fixture(scope="session")
def _mlflow_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database with its schema, made once: migrating takes seconds."""
    path = tmp_path_factory.mktemp("mlflow-template") / "mlflow.db"
    code = "import sys, mlflow; mlflow.MlflowClient(sys.argv[1]).search_experiments()"
    subprocess.run([sys.executable, "-c", code, f"sqlite:///{path}"], check=True, cwd=path.parent)
    return path


@pytest.fixture
def mlflow_sqlite(_mlflow_template: Path, tmp_path: Path) -> str:
    """The URI of a fresh, migrated sqlite database; artifacts go to the working folder's mlruns."""
    path = tmp_path / "mlflow.db"
    shutil.copy(_mlflow_template, path)
    return f"sqlite:///{path}"


@pytest.fixture(scope="session")
def mlflow_uri(_mlflow_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URI of a real MLflow server process on sqlite, artifacts proxied."""
    folder = tmp_path_factory.mktemp("mlflow-server")
    shutil.copy(_mlflow_template, folder / "mlflow.db")
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--workers", "1"]
    # Twenty writers at once: a lock is waited for as long as a real database would.
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db?timeout=60"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        stdout=(folder / "log").open("wb"),
        stderr=subprocess.STDOUT,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_for(url + "/health", process)
        yield url
    finally:
        _stop(process)


@pytest.fixture(scope="session")
def snapshot_of_files() -> Callable[..., object]:
    """Write image files into a store and a snapshot of them: `make(folder, images)`."""

    def make(folder: Path, images: list[tuple[str, str, bytes]], store: str | None = None):
        """Each image is its label, its split and its file's bytes."""
        import hashlib

        import pyarrow as pa

        from graftline.data import snapshot as dataset
        from graftline.data.shards import ShardWriter
        from graftline.images import decode
        from graftline.storage import open_store

        place = open_store(store or str(folder / "store"))
        rows = []
        with ShardWriter(place) as writer:
            for number, (label, split, data) in enumerate(images):
                image_id = hashlib.sha256(data).hexdigest()
                decoded = decode.decode_image(data)
                writer.add(image_id, data, decoded.format, label)
                row = {"image_id": image_id, "source": f"{label}/{number:04}.{decoded.format}"}
                row |= {"source_version": "1", "label": label, "split": split, "group": image_id}
                row |= {"height": decoded.pixels.shape[0], "width": decoded.pixels.shape[1]}
                rows.append(row | {"format": decoded.format, "bytes": len(data), "dhash": 0})
        for row in rows:
            found = writer.byte_ranges[row["image_id"]]
            row |= {"shard": found.shard, "offset": found.offset, "length": found.length}
        manifest = pa.Table.from_pylist(rows, schema=dataset.MANIFEST)
        set_aside = pa.Table.from_pylist([], schema=dataset.SET_ASIDE)
        return dataset.write_snapshot(
            folder / "snapshot", manifest, set_aside, store=place.uri, source="file:///images"
        )

    return make


@pytest.fixture(scope="session")
def make_classifier() -> Callable[..., object]:
    """A classifier with random weights that tells its inputs apart: `make(backbone, classes)`."""

    def make(name: str, classes: list[str], *, snapshot_id: str = "", strategy: str = "probe"):
        import torch

        from graftline.classifier.bundle import Classifier
        from graftline.models.backbone import build

        torch.manual_seed(0)
        backbone = build(name, weights="random", pretrained=False)
        head = torch.nn.Linear(backbone.spec.feature_dim, len(classes))
        torch.nn.init.normal_(head.weight, std=1.0)
        return Classifier(
            backbone,
            head,
            classes,
            preprocessing=backbone.spec.preprocessing,
            strategy=strategy,
            snapshot_id=snapshot_id,
            temperature=1.7,
        ).eval()

    return make


@pytest.fixture
def make_snapshot(tmp_path: Path, digits: tuple) -> Callable[..., tuple[Path, str]]:
    """Pack real digits into a store and write their snapshot; its folder, and the store's URI."""

    def make(
        per_class: int = 20, classes: int = 3, name: str = "data", counts: dict | None = None
    ) -> tuple[Path, str]:
        import io

        import pyarrow as pa

        from graftline.data.shards import ShardWriter
        from graftline.data.snapshot import MANIFEST, SET_ASIDE, write_snapshot
        from graftline.storage import open_store

        store = open_store(str(tmp_path / name / "store"))
        images, labels = digits
        rows = []
        with ShardWriter(store) as writer:
            for label in range(classes):
                count = (counts or {}).get(label, per_class)
                chosen = [i for i in range(len(labels)) if labels[i] == label][:count]
                for place, i in enumerate(chosen):
                    buffer = io.BytesIO()
                    decode = (images[i] * 255 / 16).astype("uint8")
                    Image.fromarray(decode).save(buffer, "PNG")
                    data = buffer.getvalue()
                    image_id = hashlib.sha256(data).hexdigest()
                    writer.add(image_id, data, "png", str(label))
                    split = ("train", "train", "val", "train", "test")[place % 5]
                    rows.append((image_id, f"{label}/{i}.png", str(label), split, len(data)))
        places = writer.byte_ranges
        table = {
            "image_id": [row[0] for row in rows],
            "source": [row[1] for row in rows],
            "source_version": ["1"] * len(rows),
            "label": [row[2] for row in rows],
            "split": [row[3] for row in rows],
            "group": [row[0] for row in rows],
            "width": [8] * len(rows),
            "height": [8] * len(rows),
            "format": ["png"] * len(rows),
            "bytes": [row[4] for row in rows],
            "shard": [places[row[0]].shard for row in rows],
            "offset": [places[row[0]].offset for row in rows],
            "length": [places[row[0]].length for row in rows],
            "dhash": [0] * len(rows),
        }
        folder = tmp_path / name / "snapshot"
        write_snapshot(
            folder,
            pa.table(table, schema=MANIFEST),
            pa.table({field.name: [] for field in SET_ASIDE}, schema=SET_ASIDE),
            store=store.uri,
            source="digits",
        )
        return folder, store.uri

    return make


@pytest.fixture
def make_features(tmp_path: Path) -> Callable[..., Path]:
    """Features of a snapshot by the eager network; the artifact's folder."""

    def make(snapshot_folder: Path, backbone: object, name: str = "features") -> Path:
        import numpy as np
        import torch

        from graftline.data.snapshot import read_images, read_snapshot
        from graftline.features.matrix import Features, write_features
        from graftline.images import decode

        snapshot = read_snapshot(snapshot_folder)
        tensors = [
            backbone.spec.preprocessing.apply(decode.decode(data))
            for _, data in read_images(snapshot, snapshot.rows())
        ]
        with torch.inference_mode():
            matrix = torch.cat([backbone(part) for part in torch.stack(tensors).split(64)])
        features = Features(
            matrix=matrix.numpy().astype(np.float32),
            fingerprint=backbone.fingerprint(),
            snapshot_id=snapshot.id,
            backbone=backbone.spec.name,
            engine="torch",
            precision="fp32",
            extracted=len(matrix),
            reused=0,
            agreement={},
        )
        folder = tmp_path / name
        write_features(folder, features, np.ones(len(matrix), bool))
        return folder

    return make


@pytest.fixture
def make_probe(make_features: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """A probe for fine-tuning to start from, of an untrained network; the folder of both files.

    A small C makes it poor, so that a training has something to gain.
    """

    def make(snapshot_folder: Path, store: str, backbone: str, size: int, c: float = 1e-6) -> Path:
        from graftline.models.backbone import build
        from graftline.steps.fit_head.step import run

        network = build(backbone, weights="random", image_size=size)
        run(
            snapshot_folder=snapshot_folder,
            features_folder=make_features(snapshot_folder, network),
            store=store,
            backbone=backbone,
            weights="random",
            image_size=size,
            strategy="fine_tune",
            classifier_folder=tmp_path / "probe",
            decision_file=tmp_path / "decision.json",
            probe={"c_grid": [c]},
        )
        return tmp_path

    return make


@pytest.fixture(scope="session")
def exported_model(tmp_path_factory, snapshot_of_files, make_classifier) -> tuple:
    """A folder with `store`, `snapshot`, `classifier` and `onnx`, the snapshot, the result."""
    import io

    import numpy as np

    from graftline.classifier.bundle import save_classifier
    from graftline.steps.export_onnx.step import run

    folder = tmp_path_factory.mktemp("exported")
    classes, images = ["cat", "dog", "eel"], []
    for number in range(24):
        decode = np.random.default_rng(number).integers(0, 256, (20 + number, 30, 3), dtype="uint8")
        stream = io.BytesIO()
        Image.fromarray(decode).save(stream, "PNG")
        split = ("train", "val", "test", "test")[number % 4]
        images.append((classes[number % 3], split, stream.getvalue()))
    snapshot = snapshot_of_files(folder, images)
    classifier = make_classifier("timm/test_resnet", classes, snapshot_id=snapshot.id)
    save_classifier(folder / "classifier", classifier)
    result = run(
        classifier_folder=folder / "classifier",
        snapshot_folder=folder / "snapshot",
        store=str(folder / "store"),
        onnx_folder=folder / "onnx",
        run_id="made-by-run",
    )
    return folder, snapshot, result


@pytest.fixture
def older_runners(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """At each making of an engine's runner, whether an older one still stood; by no luck."""
    from graftline.inference import autotune

    made: list[weakref.ref[object]] = []
    found: list[bool] = []
    build = autotune.Candidates._build

    def building(self: autotune.Candidates, kind: str, batch: int) -> object:
        found.append(any(each() is not None for each in made))
        runner = build(self, kind, batch)
        made.append(weakref.ref(runner))
        return runner

    monkeypatch.setattr(autotune.Candidates, "_build", building)
    gc.collect()
    gc.disable()
    yield found
    gc.enable()
