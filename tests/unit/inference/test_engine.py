"""Engines against PyTorch in fp32, and byte against byte."""

import errno
import io
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from graftline import machine
from graftline.errors import ConfigurationError, DataError
from graftline.images.decode import decode
from graftline.images.preprocessing import Preprocessing
from graftline.inference import autotune
from graftline.inference import engine as engine_module
from graftline.inference.autotune import sample_batch
from graftline.inference.decode_workers import network_input
from graftline.inference.engine import Engine, forward_images, open_engine, resolve_precision
from graftline.inference.onnx_cache import export
from graftline.inference.runners import Array, Runner, TorchRunner
from graftline.machine import is_out_of_memory
from graftline.models.backbone import Backbone, build

FP32_ENGINES = ("onnxruntime", "openvino", "torch")
NETWORKS = ("timm/test_resnet", "timm/test_vit")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is remembered of this machine is neither read nor changed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(autouse=True)
def no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines of a processor, also on a machine with a device: that one is for tests/gpu."""
    monkeypatch.setattr(machine, "has_cuda", lambda: False)


@pytest.fixture(scope="module")
def photos() -> list[bytes]:
    """37 JPEG files of several sizes: crops of scikit-learn's two photographs."""
    from sklearn.datasets import load_sample_images

    generator = np.random.default_rng(0)
    files = []
    for number in range(37):
        photo = load_sample_images().images[number % 2]
        top, left = generator.integers(0, 200, 2)
        height, width = generator.integers(90, 220, 2)
        stream = io.BytesIO()
        part = photo[top : top + height, left : left + width]
        Image.fromarray(part).save(stream, "JPEG", quality=90)
        files.append(stream.getvalue())
    return files


@pytest.fixture(scope="module")
def network() -> Callable[[str], Backbone]:
    made: dict[str, Backbone] = {}

    def get(name: str) -> Backbone:
        if name not in made:
            made[name] = build(name, weights="random", image_size=96).eval()
        return made[name]

    return get


def eager(backbone: Backbone, images: list[bytes]) -> np.ndarray:
    """The reference: one image after the other, PyTorch, fp32."""
    prepare = backbone.spec.preprocessing
    with torch.inference_mode():
        rows = [backbone(prepare.apply(decode(data))[None])[0] for data in images]
    return torch.stack(rows).numpy()


def features(engine: Engine, images: list[bytes]) -> np.ndarray:
    return np.concatenate(list(engine.run(images)))


def opened(backbone: nn.Module, prepare: Preprocessing | None = None, **options: object) -> Engine:
    if prepare is None:
        assert isinstance(backbone, Backbone)
        prepare = backbone.spec.preprocessing
    return open_engine(backbone, prepare, **{"engine": "torch", **options})  # type: ignore[arg-type]


def prepared(data: bytes, prepare: Preprocessing) -> np.ndarray:
    out = np.empty((3, prepare.input_size, prepare.input_size), np.float32)
    network_input(data, prepare, out)
    return out


def cosines(found: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(wanted, axis=1)
    return (found * wanted).sum(1) / lengths


@pytest.mark.parametrize("kind", FP32_ENGINES)
@pytest.mark.parametrize("name", NETWORKS)
def test_features_and_labels_are_those_of_eager_fp32(
    name: str, kind: str, network: Callable[[str], Backbone], photos: list[bytes]
) -> None:
    backbone = network(name)
    engine = opened(backbone, engine=kind)
    found, wanted = features(engine, photos), eager(backbone, photos)
    assert engine.kind == kind and found.dtype == np.float32
    assert cosines(found, wanted).min() > 0.999999
    assert np.abs(found - wanted).max() < 1e-4 * np.abs(wanted).max()
    head = np.random.default_rng(1).normal(size=(wanted.shape[1], 10))
    assert ((found @ head).argmax(1) == (wanted @ head).argmax(1)).all()
    assert engine.agreement.cosine > 0.999999


@pytest.mark.parametrize("kind", FP32_ENGINES)
def test_equal_bytes_on_one_engine_whatever_the_cores_and_runs(
    kind: str,
    network: Callable[[str], Backbone],
    photos: list[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backbone = network("timm/test_resnet")
    first = features(opened(backbone, engine=kind), photos)
    monkeypatch.setattr(machine, "cores", lambda: 5)
    other = opened(backbone, engine=kind)
    assert features(other, photos).tobytes() == first.tobytes()
    assert features(other, photos).tobytes() == first.tobytes()
    # After a restart an image stands at another place of another batch, the last one padded.
    rest = features(other, photos[19:])
    assert rest.tobytes() == first[19:].tobytes()
    # Another batch size is another computation: equal to float tolerance.
    smaller = features(opened(backbone, engine=kind, batch_size=5), photos)
    np.testing.assert_allclose(smaller, first, rtol=1e-4, atol=1e-5)


def test_bf16_is_close_and_says_how_close_on_the_images_themselves(
    network: Callable[[str], Backbone], photos: list[bytes]
) -> None:
    backbone = network("timm/test_resnet")
    for kind in ("openvino", "torch"):
        engine = opened(backbone, engine=kind, precision="bf16")
        opening = engine.agreement
        found, wanted = features(engine, photos), eager(backbone, photos)
        assert engine.precision == "bf16"
        assert cosines(found, wanted).min() > 0.99
        assert engine.agreement != opening and engine.agreement.images == 4
        assert engine.agreement.cosine == pytest.approx(
            cosines(found[:4], wanted[:4]).min(), abs=1e-6
        )
    assert not np.array_equal(found, wanted), "bf16 was not used"


def test_bf16_is_refused_by_name_on_onnxruntime(network: Callable[[str], Backbone]) -> None:
    with pytest.raises(ConfigurationError, match="fp32 only"):
        opened(network("timm/test_resnet"), engine="onnxruntime", precision="bf16")


@pytest.mark.parametrize(("key", "value"), [("engine", "tensorrt"), ("precision", "int8")])
def test_unknown_choices_are_refused_with_the_known_ones(
    key: str, value: str, network: Callable[[str], Backbone]
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        opened(network("timm/test_resnet"), **{key: value})
    assert f"{key}: {value}" in refused.value.what and "auto" in (refused.value.fix or "")


def test_auto_tries_once_and_remembers_on_this_machine(
    network: Callable[[str], Backbone], monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    backbone = network("timm/test_resnet")
    disturbed, quiet = 1.0, {"OnnxRuntimeRunner": 2.0, "OpenVinoRunner": 2.4}
    tried: list[str] = []

    def rate(self: object, runner: object, sample: np.ndarray) -> float:
        tried.append(type(runner).__name__)
        return quiet[tried[-1]] if tried.count(tried[-1]) == 2 else disturbed

    monkeypatch.setattr("graftline.inference.autotune.Candidates._rate", rate)
    assert opened(backbone, engine="auto").kind == "openvino"
    assert tried == 3 * ["OnnxRuntimeRunner", "OpenVinoRunner"]
    assert opened(backbone, engine="auto").kind == "openvino"
    assert len(tried) == 6
    # Another batch size is another question; a clear answer to it needs no third round.
    tried.clear()
    quiet["OpenVinoRunner"] = 3.0
    assert opened(backbone, engine="auto", batch_size=4).kind == "openvino"
    assert tried == 2 * ["OnnxRuntimeRunner", "OpenVinoRunner"]


def test_few_images_take_no_trial_and_leave_nothing_that_decides_for_many(
    network: Callable[[str], Backbone], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    backbone = network("timm/test_resnet")
    timed: list[str] = []
    measure = autotune.Candidates._rate

    def counted(self: autotune.Candidates, runner: Runner, sample: Array) -> float:
        timed.append(runner.kind)
        return measure(self, runner, sample)

    monkeypatch.setattr(autotune.Candidates, "_rate", counted)
    few = open_engine(backbone, backbone.spec.preprocessing, images=autotune.TRIAL_PAYS - 1)
    assert few.kind == "onnxruntime" and not timed
    many = open_engine(backbone, backbone.spec.preprocessing, images=autotune.TRIAL_PAYS)
    assert {"onnxruntime", "openvino"} == set(timed)
    timed.clear()
    # The trial that was made decides from now on, for few images too.
    again = open_engine(backbone, backbone.spec.preprocessing, images=1)
    assert again.kind == many.kind and not timed


def test_an_engine_that_computes_something_else_is_not_used(
    network: Callable[[str], Backbone], photos: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = network("timm/test_resnet")
    monkeypatch.setattr(
        "graftline.inference.runners.OnnxRuntimeRunner.__call__",
        lambda self, batch: np.ones((len(batch), backbone.spec.feature_dim), np.float32),
    )
    monkeypatch.setattr("graftline.machine.remembered", lambda *_: None)
    engine = opened(backbone, engine="onnxruntime")
    assert engine.kind == "torch"
    assert cosines(features(engine, photos[:4]), eager(backbone, photos[:4])).min() > 0.999999


def test_a_network_that_cannot_be_exported_runs_in_pytorch(photos: list[bytes]) -> None:
    class Refuses(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            if torch.onnx.is_in_onnx_export() or torch.compiler.is_compiling():
                raise NotImplementedError
            return images.mean((2, 3)) * 2

    prepare = Preprocessing(32, 32, "bilinear", "squash", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    engine = opened(Refuses(), prepare, engine="auto")
    assert engine.kind == "torch"
    wanted = np.stack([prepared(data, prepare).mean((1, 2)) * 2 for data in photos])
    np.testing.assert_allclose(features(engine, photos), wanted, atol=1e-6)


class Hungry(nn.Module):
    """Asks the allocator for more than any machine has where a batch is above its limit."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit
        self.batches: list[int] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(images))
        if len(images) > self.limit:
            torch.empty(2**50)
        return images.mean((2, 3))


def test_out_of_memory_halves_the_batch_and_goes_on(photos: list[bytes]) -> None:
    prepare = Preprocessing(32, 32, "bilinear", "squash", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    hungry = Hungry(limit=4)
    engine = opened(hungry, prepare, batch_size=16)
    found = features(engine, photos)
    assert engine.batch_size == 4
    wanted = np.stack([prepared(data, prepare).mean((1, 2)) for data in photos])
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    hungry.batches.clear()
    features(engine, photos)
    assert set(hungry.batches) == {4}, "the smaller batch is kept"


def test_out_of_memory_in_the_middle_loses_and_repeats_nothing(photos: list[bytes]) -> None:
    prepare = Preprocessing(32, 32, "bilinear", "squash", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    hungry, images = Hungry(limit=8), 8 * photos  # more than are on their way at once
    engine = opened(hungry, prepare, batch_size=8)
    read = 0

    def reading():
        nonlocal read
        for data in images:
            read += 1
            yield data

    parts = []
    for part in engine.run(reading()):
        parts.append(part)
        hungry.limit = 2  # from now on, as if another process had taken the memory
    found = np.concatenate(parts)
    wanted = np.stack([prepared(data, prepare).mean((1, 2)) for data in images])
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert read == len(images) and engine.batch_size == 2


def test_out_of_memory_frees_the_old_runner_before_the_new_one_is_made(
    photos: list[bytes], older_runners: list[bool]
) -> None:
    prepare = Preprocessing(32, 32, "bilinear", "squash", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    hungry = Hungry(limit=8)
    engine = opened(hungry, prepare, batch_size=8)
    parts = []
    for part in engine.run(8 * photos):
        parts.append(part)
        hungry.limit = 2
    assert sum(map(len, parts)) == 8 * len(photos)
    assert older_runners == [False, False, False], "batches of 8, of 4, of 2"


def test_out_of_memory_at_opening_frees_what_was_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also what only the error's frames hold."""
    prepare = Preprocessing(32, 32, "bilinear", "squash", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    old: list[weakref.ref[np.ndarray]] = []
    alive: list[bool] = []

    def get(self: autotune.Candidates, kind: str, batch: int) -> Runner:
        alive.append(any(each() is not None for each in old))
        memory = np.zeros(batch)
        old.append(weakref.ref(memory))
        if batch > 4:
            raise MemoryError
        return TorchRunner(self.module(), precision="fp32")

    monkeypatch.setattr(autotune.Candidates, "get", get)
    assert opened(Hungry(limit=8), prepare, batch_size=16).batch_size == 4
    assert alive == [False, False, False]


def test_no_memory_for_one_image_says_what_to_do(photos: list[bytes]) -> None:
    prepare = Preprocessing(32, 32, "bilinear", "squash", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    engine = opened(Hungry(limit=0), prepare, batch_size=4)
    with pytest.raises(ConfigurationError, match="on one image") as refused:
        features(engine, photos)
    assert "memory" in (refused.value.fix or "")


def test_memory_errors_of_each_library_are_known() -> None:
    with pytest.raises(RuntimeError) as of_torch:
        torch.empty(2**50)
    with pytest.raises(MemoryError) as of_numpy:
        np.zeros(2**50)
    assert is_out_of_memory(of_torch.value) and is_out_of_memory(of_numpy.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    assert is_out_of_memory(RuntimeError("std::bad_alloc"))
    assert is_out_of_memory(OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)))
    for library in ("CUBLAS", "CUDNN"):
        error = RuntimeError(f"error: {library}_STATUS_ALLOC_FAILED when calling create(handle)")
        assert is_out_of_memory(error)
    assert not is_out_of_memory(RuntimeError("shape mismatch"))
    assert not is_out_of_memory(DataError("the file says: out of memory"))


def test_a_broken_image_is_named_by_its_position(
    network: Callable[[str], Backbone], photos: list[bytes]
) -> None:
    engine = opened(network("timm/test_resnet"))
    with pytest.raises(DataError, match="Image 21 cannot be decoded: the file is cut short"):
        features(engine, [*photos[:21], photos[21][:500], *photos[22:]])


def test_images_are_taken_as_they_are_needed(
    network: Callable[[str], Backbone], photos: list[bytes]
) -> None:
    engine = opened(network("timm/test_resnet"), batch_size=2)
    read = 0

    def endless():
        nonlocal read
        while True:
            read += 1
            yield photos[read % len(photos)]

    run = engine.run(endless())
    for _ in range(5):
        next(run)
    assert read <= 2 * (5 + 2 * machine.cores() + 1)
    run.close()  # type: ignore[attr-defined]


def test_nothing_to_run_gives_nothing(network: Callable[[str], Backbone]) -> None:
    backbone = network("timm/test_resnet")
    assert list(opened(backbone).run([])) == []
    nothing = forward_images(backbone, backbone.spec.preprocessing, [], total=0, description="none")
    assert nothing.shape == (0, 0)


FIRST_CALLS = """
import sys, threading
from pathlib import Path
import numpy as np
from graftline.inference.runners import OnnxRuntimeRunner, OpenVinoRunner
graph = Path(sys.argv[2]).read_bytes()
runner = (
    OpenVinoRunner(graph, precision="fp32", cores=4)
    if sys.argv[1] == "openvino"
    else OnnxRuntimeRunner(graph)
)
sys.setswitchinterval(1e-5)  # Python's lock goes round at every step
together = threading.Barrier(4)
def call():
    together.wait()
    runner(np.zeros((2, 3, 64, 64), np.float32))
threads = [threading.Thread(target=call) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("done")
"""


@pytest.mark.parametrize("kind", ["onnxruntime", "openvino"])
def test_the_first_calls_may_come_from_all_cores_at_once(kind: str, tmp_path: Path) -> None:
    graph = tmp_path / "graph.onnx"
    backbone = build("timm/test_resnet", weights="random", image_size=64).eval()
    graph.write_bytes(export(backbone, (2, 3, 64, 64)))
    done = subprocess.run(  # a library sets itself up once a process
        [sys.executable, "-c", FIRST_CALLS, kind, str(graph)],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout == "done\n"


def test_threads_of_the_caller_are_given_back(
    network: Callable[[str], Backbone], photos: list[bytes]
) -> None:
    before = torch.get_num_threads()
    features(opened(network("timm/test_resnet")), photos)
    assert torch.get_num_threads() == before


def test_a_large_photograph_is_read_at_a_fraction_within_tolerance(
    network: Callable[[str], Backbone],
) -> None:
    from sklearn.datasets import load_sample_image

    files = []
    for name in ("china.jpg", "flower.jpg"):
        photo = Image.fromarray(load_sample_image(name)).resize(
            (1920, 1281), Image.Resampling.LANCZOS
        )
        stream = io.BytesIO()
        photo.save(stream, "JPEG", quality=90)
        files.append(stream.getvalue())
    backbone = network("timm/test_resnet")
    found = features(opened(backbone), files)
    wanted = eager(backbone, files)
    assert not np.array_equal(found, wanted), "it was decoded in full"
    assert cosines(found, wanted).min() > 0.9995


def test_the_sample_is_always_the_same() -> None:
    assert sample_batch(2, 32).tobytes() == sample_batch(2, 32).tobytes()
    assert engine_module.CPU_BATCH >= 1


class OnDevice:
    """A runner of the kind ``cuda`` that needs no device: means of channels.

    Args:
        batch: The only one that it takes, as a CUDA graph.
    """

    kind = "cuda"

    def __init__(self, batch: int, precision: str = "fp32") -> None:
        self.batch, self.precision = batch, precision

    def __call__(self, batch: Array) -> Array:
        assert len(batch) == self.batch
        return batch.mean((2, 3))


class Means(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean((2, 3))


PLAIN = Preprocessing(32, 32, "bilinear", "squash", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.fixture
def on_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine passes for one with a device."""
    build = autotune.Candidates._build

    def building(self: autotune.Candidates, kind: str, batch: int) -> Runner:
        return OnDevice(batch, self.precision) if kind == "cuda" else build(self, kind, batch)

    monkeypatch.setattr(autotune.Candidates, "_build", building)
    monkeypatch.setattr(autotune.Candidates, "drop", lambda self: self._runners.clear())
    monkeypatch.setattr(autotune, "_device_name", lambda device: "a device")
    monkeypatch.setattr(machine, "has_cuda", lambda: True)


@pytest.mark.parametrize("count", [0, 1, 3, 8, 11, 15])
def test_few_images_for_a_device_are_decoded_by_all_cores(
    count: int, on_device: None, photos: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 4)
    threads: set[int] = set()
    decode_ = engine_module.network_input

    def decoding(*arguments: object) -> None:
        threads.add(threading.get_ident())
        together.wait(timeout=60)  # only where four are at it at once
        decode_(*arguments)  # type: ignore[arg-type]

    together = threading.Barrier(4 if count == 8 else 1)
    monkeypatch.setattr(engine_module, "network_input", decoding)
    engine = opened(Means(), PLAIN, batch_size=8)
    parts = list(engine.run(photos[:count]))
    assert engine.kind == "cuda" and [len(part) for part in parts] == [
        min(8, count - first) for first in range(0, count, 8)
    ]
    if count:
        wanted = np.stack([prepared(data, PLAIN).mean((1, 2)) for data in photos[:count]])
        np.testing.assert_allclose(np.concatenate(parts), wanted, atol=1e-6)


def test_a_broken_image_among_few_for_a_device_is_named(
    on_device: None, photos: list[bytes]
) -> None:
    engine = opened(Means(), PLAIN, batch_size=8)
    images = [*photos[:9], b"no image", photos[10], b"no image"]
    with pytest.raises(DataError, match="Image 9 cannot be decoded"):
        features(engine, images)


def test_few_images_do_not_make_a_device_compute_many(on_device: None, photos: list[bytes]) -> None:
    batches: list[int] = []
    open_ = engine_module.open_engine

    def opening(*arguments: object, **options: object) -> Engine:
        engine = open_(*arguments, **options)  # type: ignore[arg-type]
        batches.append(engine.batch_size)
        return engine

    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(engine_module, "open_engine", opening)
        for total in (3, 37, None):
            forward_images(Means(), PLAIN, photos[:total], total=total, description="means")
    assert batches == [3, 37, engine_module.CUDA_BATCH]


def test_what_a_device_cannot_run_is_run_by_pytorch_in_small_batches(
    on_device: None, photos: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: OnDevice, batch: Array) -> Array:
        raise RuntimeError("no kernel image is available for execution on the device")

    monkeypatch.setattr(OnDevice, "__call__", fails)
    for precision in ("fp32", "bf16"):
        engine = opened(Means(), PLAIN, precision=precision)
        assert (engine.kind, engine.batch_size) == ("torch", engine_module.CPU_BATCH)
        assert max(map(len, engine.run(photos))) == engine_module.CPU_BATCH
    assert opened(Means(), PLAIN, batch_size=5).batch_size == 5


def test_auto_precision_is_that_of_the_engine_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "has_cuda", lambda: True)
    monkeypatch.setattr(machine, "has_bf16", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    found = {engine: resolve_precision("auto", engine) for engine in engine_module.ENGINES}
    assert found == {"auto": "bf16", "onnxruntime": "fp32", "openvino": "fp32", "torch": "bf16"}
    assert resolve_precision("auto") == "bf16"
    monkeypatch.setattr(machine, "has_bf16", lambda: True)
    monkeypatch.setattr(machine, "has_cuda", lambda: False)
    found = {engine: resolve_precision("auto", engine) for engine in engine_module.ENGINES}
    assert found == {"auto": "bf16", "onnxruntime": "fp32", "openvino": "bf16", "torch": "bf16"}
    assert {resolve_precision("fp32", engine) for engine in engine_module.ENGINES} == {"fp32"}


def test_bf16_is_compared_after_the_last_batch_and_not_where_a_run_is_left(
    network: Callable[[str], Backbone], photos: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = opened(network("timm/test_resnet"), precision="bf16", batch_size=8)
    opening = engine.agreement
    monkeypatch.setattr("graftline.machine.remembered", lambda *_: None)
    run: Iterator[Array] = engine.run(photos)
    next(run)
    run.close()  # type: ignore[attr-defined]
    assert engine.agreement is opening
    for _ in engine.run(photos):
        assert engine.agreement is opening
    assert engine.agreement is not opening and engine.agreement.images == 4


def test_no_memory_to_compare_with_does_not_spoil_a_run(
    network: Callable[[str], Backbone], photos: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = opened(network("timm/test_resnet"), precision="bf16", batch_size=8)
    opening = engine.agreement

    def fails(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("graftline.inference.autotune.Candidates.agreement_on", fails)
    assert len(features(engine, photos)) == len(photos)
    assert engine.agreement is opening and engine.batch_size == 8


def test_a_network_that_ran_in_an_engine_can_still_be_differentiated() -> None:
    """ConViT keeps a table of its first forward pass; one of inference mode could not be used."""
    backbone = build("timm/convit_tiny", weights="random", image_size=32)
    images = np.zeros((1, 3, 32, 32), np.float32)
    found = TorchRunner(backbone, precision="fp32")(images)
    assert autotune.compare(backbone, images, found).cosine > 0.9999
    backbone(torch.from_numpy(images)).sum().backward()
    assert all(parameter.grad is not None for parameter in backbone.parameters())


def test_no_librarys_network_runs_in_inference_mode() -> None:
    """Heads of our own making may: they keep nothing."""
    root = Path(machine.__file__).parent
    using = {p.name for p in root.rglob("*.py") if "inference_mode" in p.read_text("utf-8")}
    assert using == {"bundle.py", "head_candidate.py", "mlp.py"}
