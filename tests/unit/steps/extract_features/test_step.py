"""extract_features: what meets the network, and that it is the same whoever computes it."""

import hashlib
import io
import json
import multiprocessing
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from graftline import machine
from graftline.data.snapshot import read_images, read_snapshot
from graftline.errors import ConfigurationError, IntegrityError
from graftline.features.engine_record import EngineRecord
from graftline.features.matrix import read_features
from graftline.features.store import FeatureStore
from graftline.images.decode import decode
from graftline.models.backbone import build
from graftline.steps.extract_features import request, step
from graftline.steps.extract_features.step import ExtractResult, plan, run
from graftline.storage import commit, open_store

NETWORK = {"backbone": "timm/test_resnet", "weights": "random", "image_size": 64}
IMAGES = 83  # not a multiple of the batch


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="module")
def photos() -> list[tuple[str, str, bytes]]:
    """Label, split and file of parts of scikit-learn's two photographs."""
    from sklearn.datasets import load_sample_images

    generator = np.random.default_rng(0)
    files = []
    for number in range(IMAGES):
        photo = load_sample_images().images[number % 2]
        top, left = generator.integers(0, 300, 2)
        stream = io.BytesIO()
        part = photo[top : top + 100, left : left + 90 + number]
        Image.fromarray(part).save(stream, "JPEG", quality=90)
        split = ("train", "train", "val", "test")[number % 4]
        files.append((("china", "flower")[number % 2], split, stream.getvalue()))
    return files


@pytest.fixture
def data(tmp_path: Path, photos: list, snapshot_of_files: Callable) -> tuple[Path, str]:
    """The snapshot's folder and the store."""
    snapshot_of_files(tmp_path / "data", photos)
    return tmp_path / "data" / "snapshot", str(tmp_path / "data" / "store")


def extract(data: tuple[Path, str], features: Path | None, **options: object) -> ExtractResult:
    return run(
        snapshot_folder=data[0],
        store=str(options.pop("store", data[1])),
        features_folder=features,
        **{**NETWORK, "engine": "onnxruntime", **options},  # type: ignore[arg-type]
    )


def content(folder: Path) -> bytes:
    return (folder / "features.npy").read_bytes()


def reference(snapshot_folder: Path) -> np.ndarray:
    """One image after the other through PyTorch in fp32, in manifest order."""
    backbone = build(NETWORK["backbone"], weights="random", image_size=64).eval()
    snapshot = read_snapshot(snapshot_folder)
    apply = backbone.spec.preprocessing.apply
    with torch.inference_mode():
        rows = [
            backbone(apply(decode(found))[None])[0]
            for _, found in read_images(snapshot, snapshot.rows())
        ]
    return torch.stack(rows).numpy()


def test_rows_are_those_of_eager_fp32_in_manifest_order(data: tuple[Path, str], tmp_path: Path):
    result = extract(data, tmp_path / "features")
    assert (result.extracted, result.reused) == (IMAGES, 0)
    assert result.engine == "onnxruntime" and result.agreement["cosine"] > 0.99999
    features = read_features(tmp_path / "features")
    np.testing.assert_allclose(features.matrix, reference(data[0]), rtol=1e-3, atol=1e-4)
    assert features.snapshot_id == read_snapshot(data[0]).id
    described = FeatureStore(open_store(data[1]), result.fingerprint).description()
    assert described["name"] == "timm/test_resnet" and described["precision"] == "fp32"


def test_a_second_run_computes_nothing_and_gives_the_same_bytes(
    data: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    extract(data, tmp_path / "first")
    monkeypatch.setattr(step._Network, "open", lambda self: pytest.fail("the network was opened"))
    monkeypatch.setattr("graftline.models.backbone.build", lambda *_, **__: pytest.fail("built"))
    again = extract(data, tmp_path / "second")
    assert (again.extracted, again.reused, again.engine) == (0, IMAGES, "stored")
    assert content(tmp_path / "second") == content(tmp_path / "first")


def test_only_new_images_meet_the_network(
    data: tuple[Path, str], tmp_path: Path, photos: list, snapshot_of_files: Callable
):
    snapshot_of_files(tmp_path / "part", photos[:70], data[1])
    first = extract((tmp_path / "part" / "snapshot", data[1]), tmp_path / "part-features")
    second = extract(data, tmp_path / "features")
    assert (first.extracted, second.extracted, second.reused) == (70, IMAGES - 70, 70)
    np.testing.assert_allclose(
        read_features(tmp_path / "features").matrix, reference(data[0]), rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_new_images_do_not_build_a_network_whose_graph_is_here(
    data: tuple[Path, str],
    photos: list,
    snapshot_of_files: Callable,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
):
    options = {"engine": "openvino", "precision": precision}
    snapshot_of_files(tmp_path / "part", photos[:60], store=data[1])
    extract((tmp_path / "part" / "snapshot", data[1]), tmp_path / "first", **options)
    snapshot_of_files(tmp_path / "apart", photos)  # a store of its own, for the same features
    apart = (tmp_path / "apart" / "snapshot", str(tmp_path / "apart" / "store"))
    whole = extract(apart, tmp_path / "whole", **options)

    def refused(*_: object, **__: object) -> None:
        raise AssertionError("the network was built")

    with monkeypatch.context() as patch:
        patch.setattr("graftline.models.backbone.build", refused)
        result = extract(data, tmp_path / "second", **options)
    assert (result.extracted, result.reused) == (IMAGES - 60, 60)
    assert result.engine == "openvino" and result.agreement["cosine"] > 0.99
    assert content(tmp_path / "second") == content(tmp_path / "whole")
    assert whole.fingerprint == result.fingerprint


IN_A_NEW_PROCESS = """
import json, sys
from pathlib import Path
from graftline.steps.extract_features.step import run
values = json.loads(sys.argv[1])
result = run(
    snapshot_folder=Path(values.pop("snapshot")), features_folder=Path(values.pop("features")),
    **values,
)
print(json.dumps([result.extracted, sorted({"torch", "timm"} & set(sys.modules))]))
"""


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.skipif(machine.has_cuda(), reason="a device's engine is PyTorch's")
def test_new_images_do_not_wait_for_pytorch_to_be_imported(
    data: tuple[Path, str], photos: list, snapshot_of_files: Callable, tmp_path: Path, engine: str
):
    snapshot_of_files(tmp_path / "part", photos[:60], store=data[1])
    extract((tmp_path / "part" / "snapshot", data[1]), tmp_path / "first", engine=engine)
    values = {"snapshot": str(data[0]), "features": str(tmp_path / "second"), "store": data[1]}
    done = subprocess.run(
        [sys.executable, "-c", IN_A_NEW_PROCESS, json.dumps(values | NETWORK | {"engine": engine})],
        check=True,
        capture_output=True,
        text=True,
    )
    assert json.loads(done.stdout.splitlines()[-1]) == [IMAGES - 60, []]
    np.testing.assert_allclose(
        read_features(tmp_path / "second").matrix, reference(data[0]), rtol=1e-3, atol=1e-4
    )


def test_auto_is_fp32_where_the_engine_knows_no_other(
    data: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(machine, "has_bf16", lambda: True)
    assert extract(data, None, precision="auto", engine="torch").precision == "bf16"
    asked = {"precision": "auto", "engine": "onnxruntime"}
    result = extract(data, None, **asked)
    assert (result.precision, result.extracted) == ("fp32", IMAGES)
    done = {"snapshot_folder": data[0], "store": data[1], **NETWORK, **asked}
    assert plan(**done, workers=4, share_images=20) == ["0/1"], "nothing is left to compute"


@pytest.mark.parametrize("content", [b"{", b"5", b"{}", b'{"schema_version": 1}'])
def test_a_damaged_answer_of_a_request_heals(
    data: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
):
    first = extract(data, tmp_path / "first")
    store = open_store(data[1])
    (answer,) = store.list("features/requests/")
    whole = commit.read(store, answer.key).content
    store.write(answer.key, content)
    assert extract(data, tmp_path / "second").fingerprint == first.fingerprint
    assert commit.read(store, answer.key).content == whole
    monkeypatch.setattr(
        "graftline.models.backbone.build", lambda *_, **__: pytest.fail("built again")
    )
    assert extract(data, tmp_path / "third").fingerprint == first.fingerprint


def test_auto_is_the_same_for_images_with_and_without_a_device(
    data: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    releases = {"torch": "2.14.1+cpu", "torchvision": "0.29.1+cpu", "timm": "1.0.31"}
    monkeypatch.setattr(request, "version", lambda name: releases.get(name, "1"))
    monkeypatch.setattr(machine, "has_bf16", lambda: True)
    assert extract(data, None, precision="auto", engine="torch").precision == "bf16"
    releases |= {"torch": "2.14.1", "torchvision": "0.29.1+cu130"}
    monkeypatch.setattr(machine, "has_bf16", lambda: False)
    later = extract(data, tmp_path / "features", precision="auto", engine="torch")
    assert (later.precision, later.reused) == ("bf16", IMAGES)


@pytest.mark.parametrize("moment", ["before they are read", "after they were read"])
def test_weights_that_are_replaced_meanwhile_leave_no_wrong_answer(
    data: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
):
    path = tmp_path / "weights.safetensors"

    def write(seed: int) -> None:
        torch.manual_seed(seed)
        network = build("timm/test_resnet", weights="random", image_size=64).network
        torch.nn.init.normal_(next(network.parameters()))
        save_file(network.state_dict(), path)

    def replaced(name: str, **options: object):
        if moment == "before they are read":
            write(2)
        network = build(name, **options)
        write(2)
        return network

    write(1)
    with monkeypatch.context() as patch:
        patch.setattr("graftline.models.backbone.build", replaced)
        extract(data, tmp_path / "meanwhile", weights=str(path))
    found = {}
    for seed in (1, 2):
        write(seed)
        found[seed] = extract(data, tmp_path / f"{seed}", weights=str(path)).fingerprint
        network = build("timm/test_resnet", weights=str(path), image_size=64)
        assert found[seed] == network.fingerprint()
    assert found[1] != found[2]


def test_a_digest_is_compared_although_the_weights_are_known(
    data: tuple[Path, str], tmp_path: Path
):
    path = tmp_path / "weights.safetensors"
    save_file(build("timm/test_resnet", weights="random", image_size=64).network.state_dict(), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    first = extract(data, None, weights=str(path))
    assert extract(data, None, weights=f"{path}#sha256={digest}").fingerprint == first.fingerprint
    with pytest.raises(IntegrityError, match="not the requested ones"):
        extract(data, None, weights=f"{path}#sha256={'0' * 64}")
    shutil.copy(path, tmp_path / f"{'a' * 64}.safetensors")
    with pytest.raises(IntegrityError, match="not the requested ones"):
        extract(data, None, weights=str(tmp_path / f"{'a' * 64}.safetensors"))


def test_without_its_graph_a_network_is_built_and_its_weights_compared(
    data: tuple[Path, str],
    photos: list,
    snapshot_of_files: Callable,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    snapshot_of_files(tmp_path / "part", photos[:60], store=data[1])
    extract((tmp_path / "part" / "snapshot", data[1]), tmp_path / "first")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))

    def others(name: str, **options: object):
        network = build(name, **options)
        torch.nn.init.ones_(next(network.parameters()))
        return network

    monkeypatch.setattr("graftline.models.backbone.build", others)
    with pytest.raises(ConfigurationError, match="have changed where they are published"):
        extract(data, tmp_path / "second")


def test_workers_batch_places_and_restarts_do_not_show_in_the_bytes(
    data: tuple[Path, str], tmp_path: Path, photos: list, snapshot_of_files: Callable
):
    extract(data, tmp_path / "one")
    for workers in (2, 5):
        snapshot_of_files(tmp_path / f"{workers}", photos)
        other = (tmp_path / f"{workers}" / "snapshot", str(tmp_path / f"{workers}" / "store"))
        shares = [extract(other, None, worker=worker, workers=workers) for worker in range(workers)]
        assert sum(share.extracted for share in shares) == IMAGES
        assert all(share.extracted > 0 for share in shares)
        folder = tmp_path / f"{workers}" / "features"
        result = extract(other, folder, extracted_by_workers=IMAGES)
        assert (result.extracted, result.reused, result.engine) == (IMAGES, 0, "stored")
        assert result.agreement == shares[0].agreement and result.agreement["cosine"] > 0.99999
        assert read_features(folder).extracted == IMAGES
        assert content(tmp_path / f"{workers}" / "features") == content(tmp_path / "one")


def test_assembly_computes_what_a_worker_left_out(data: tuple[Path, str], tmp_path: Path):
    extract(data, tmp_path / "whole")
    fingerprint = read_features(tmp_path / "whole").fingerprint
    store = open_store(data[1])
    for info in store.list(f"features/{fingerprint}/parts/"):
        store.delete(info.key)
    share = extract(data, None, worker=0, workers=2)
    result = extract(data, tmp_path / "features", extracted_by_workers=IMAGES)
    assert 0 < share.extracted < IMAGES
    assert (result.extracted, result.reused) == (IMAGES, 0), "what was lost is not counted twice"
    assert content(tmp_path / "features") == content(tmp_path / "whole")


def test_plan_gives_as_many_shares_as_there_is_work_for(data: tuple[Path, str]):
    asked = {"snapshot_folder": data[0], "store": data[1], **NETWORK}
    assert plan(**asked, workers=4) == ["0/1"], "83 images are not worth four tasks"
    assert plan(**asked, workers=4, share_images=20) == ["0/4", "1/4", "2/4", "3/4"]
    assert plan(**asked, workers=8, share_images=20) == [f"{share}/5" for share in range(5)]
    extract(data, None)
    assert plan(**asked, workers=4, share_images=1) == ["0/1"], "never an empty list"


@pytest.mark.parametrize(("worker", "workers"), [(2, 2), (-1, 2), (0, 0)])
def test_impossible_shares_are_refused(data: tuple[Path, str], worker: int, workers: int):
    with pytest.raises(ConfigurationError, match="no share"):
        extract(data, None, worker=worker, workers=workers)


def test_a_share_is_not_an_artifact(data: tuple[Path, str], tmp_path: Path):
    with pytest.raises(ConfigurationError, match="not a whole artifact"):
        extract(data, tmp_path / "features", worker=0, workers=2)


def test_bf16_features_are_other_features_and_say_how_close_they_are(
    data: tuple[Path, str], tmp_path: Path
):
    exact = extract(data, tmp_path / "fp32")
    rough = extract(data, tmp_path / "bf16", precision="bf16", engine="openvino")
    assert rough.fingerprint != exact.fingerprint
    assert (rough.extracted, rough.precision) == (IMAGES, "bf16")
    head = json.loads((tmp_path / "bf16" / "features.json").read_text())
    assert 0.99 < head["agreement"]["cosine"] <= 1 and head["agreement"]["images"] == 4
    one, other = read_features(tmp_path / "fp32").matrix, read_features(tmp_path / "bf16").matrix
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    assert ((one * other).sum(1) / lengths).min() > 0.99


def _extract_in_process(snapshot: str, store: str, features: str, start: object) -> None:
    start.wait()  # type: ignore[attr-defined]
    extract((Path(snapshot), store), Path(features))


def test_two_runs_that_fill_the_same_fingerprint_at_once_end_with_one_correct_set(
    data: tuple[Path, str], tmp_path: Path, photos: list, snapshot_of_files: Callable
):
    snapshot_of_files(tmp_path / "alone", photos)
    extract((tmp_path / "alone" / "snapshot", str(tmp_path / "alone" / "store")), tmp_path / "one")
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(2)
    runs = [
        context.Process(
            target=_extract_in_process,
            args=(str(data[0]), data[1], str(tmp_path / name), start),
        )
        for name in ("left", "right")
    ]
    for process in runs:
        process.start()
    for process in runs:
        process.join()
        assert process.exitcode == 0
    assert content(tmp_path / "left") == content(tmp_path / "right") == content(tmp_path / "one")
    fingerprint = read_features(tmp_path / "left").fingerprint
    assert len(FeatureStore(open_store(data[1]), fingerprint).ids()) == IMAGES
    assert extract(data, tmp_path / "third").extracted == 0
    assert content(tmp_path / "third") == content(tmp_path / "one")


# --- one engine under one fingerprint -------------------------------------------------------------


def fastest(monkeypatch: pytest.MonkeyPatch, engine: str) -> None:
    """A machine on which the trial would choose this engine."""
    monkeypatch.setattr("graftline.inference.autotune.Candidates.fastest", lambda *_: engine)


def recorded(data: tuple[Path, str], fingerprint: str) -> dict[str, object]:
    return json.loads((Path(data[1]) / "features" / fingerprint / "engine.json").read_bytes())


def remove_parts(data: tuple[Path, str], fingerprint: str) -> None:
    for part in (Path(data[1]) / "features" / fingerprint / "parts").iterdir():
        part.unlink()


@pytest.mark.parametrize("first", ["onnxruntime", "openvino"])
def test_whoever_computes_first_decides_for_every_machine(
    data: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str
):
    fastest(monkeypatch, first)
    here = extract(data, tmp_path / "here", engine="auto")
    assert here.engine == first
    assert recorded(data, here.fingerprint)["engine"] == first
    remove_parts(data, here.fingerprint)
    fastest(monkeypatch, "openvino" if first == "onnxruntime" else "onnxruntime")
    there = extract(data, tmp_path / "there", engine="auto")
    assert there.engine == first, "the other machine keeps to it"
    assert content(tmp_path / "there") == content(tmp_path / "here")


def test_the_batch_of_whoever_computes_first_is_kept_too(
    data: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    first = extract(data, tmp_path / "first", engine="auto", batch_size=5)
    remove_parts(data, first.fingerprint)
    extract(data, tmp_path / "second", engine="auto")
    assert recorded(data, first.fingerprint)["batch_size"] == 5
    assert content(tmp_path / "second") == content(tmp_path / "first")


def test_a_setting_overrides_the_record_and_leaves_it(
    data: tuple[Path, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO")
    first = extract(data, tmp_path / "first", engine="onnxruntime")
    remove_parts(data, first.fingerprint)
    told = extract(data, tmp_path / "told", engine="openvino")
    assert told.engine == "openvino"
    assert "computed with openvino, the stored ones with onnxruntime" in caplog.text
    assert recorded(data, first.fingerprint)["engine"] == "onnxruntime"


def test_of_two_that_begin_at_once_one_decides(
    data: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The other one has written its record while this one's trial went on."""
    fastest(monkeypatch, "onnxruntime")
    fingerprint = extract(data, tmp_path / "first", engine="auto").fingerprint
    for info in open_store(data[1]).list(f"features/{fingerprint}/"):
        open_store(data[1]).delete(info.key)
    other = FeatureStore(open_store(data[1]), fingerprint)

    def while_others_write(*_: object) -> str:
        other.keep_engine(EngineRecord("openvino", 16))
        return "onnxruntime"

    monkeypatch.setattr("graftline.inference.autotune.Candidates.fastest", while_others_write)
    assert extract(data, tmp_path / "second", engine="auto").engine == "openvino"
    assert recorded(data, fingerprint)["engine"] == "openvino"


def test_an_engine_that_is_not_here_is_named_and_another_one_computes(
    data: tuple[Path, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    caplog.set_level("INFO")
    fastest(monkeypatch, "onnxruntime")
    fingerprint = extract(data, tmp_path / "first", engine="auto").fingerprint
    remove_parts(data, fingerprint)
    path = Path(data[1]) / "features" / fingerprint / "engine.json"
    path.write_text(json.dumps({"schema_version": 1, "engine": "cuda", "batch_size": 256}))
    monkeypatch.setattr(machine, "has_cuda", lambda: False)
    again = extract(data, tmp_path / "second", engine="auto")
    assert again.engine == "onnxruntime"
    assert "with the engine cuda, which this machine does not have" in caplog.text
    assert "extract.engine" in caplog.text
    assert recorded(data, fingerprint)["engine"] == "cuda", "machines with a device keep to it"
    assert content(tmp_path / "second") == content(tmp_path / "first")


@pytest.mark.parametrize(
    "record", [None, b"", b"{", b"[]", b"7", b'{"schema_version": 1, "engine": "abacus"}']
)
def test_a_store_without_a_record_keeps_to_what_computed_there(
    data: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: bytes | None
):
    first = extract(data, tmp_path / "first", engine="openvino")
    remove_parts(data, first.fingerprint)
    path = Path(data[1]) / "features" / first.fingerprint / "engine.json"
    path.unlink() if record is None else path.write_bytes(record)
    fastest(monkeypatch, "onnxruntime")
    assert extract(data, tmp_path / "second", engine="auto").engine == "openvino"
    assert recorded(data, first.fingerprint)["engine"] == "openvino"
    assert content(tmp_path / "second") == content(tmp_path / "first")


def test_features_that_are_no_more_leave_no_record(data: tuple[Path, str], tmp_path: Path):
    result = extract(data, tmp_path / "first")
    features = FeatureStore(open_store(data[1]), result.fingerprint)
    assert features.engine() == EngineRecord("onnxruntime", 16)
    features.forget()
    assert features.engine() is None


@pytest.mark.parametrize("first", ["onnxruntime", "torch"])
def test_a_machine_with_a_device_keeps_to_the_cpu_that_computed_first(
    data: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str
):
    """The device is never asked: there is none here, so that touching it would fail."""
    here = extract(data, tmp_path / "here", engine=first)
    assert recorded(data, here.fingerprint)["engine"] == first
    remove_parts(data, here.fingerprint)
    monkeypatch.setattr(machine, "has_cuda", lambda: True)
    there = extract(data, tmp_path / "there", engine="auto")
    assert there.engine == first
    assert content(tmp_path / "there") == content(tmp_path / "here")
