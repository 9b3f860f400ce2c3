"""The engine on a CUDA device; skipped visibly where there is none."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from graftline import machine
from graftline.errors import DataError
from graftline.images.decode import decode
from graftline.inference import cuda
from graftline.inference.decode_workers import DecodingWorkers
from graftline.inference.engine import Engine, open_engine, resolve_precision
from graftline.models.backbone import Backbone, build

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]
NETWORKS = ("timm/resnet18", "timm/vit_tiny_patch16_224", "timm/convnext_atto")
BATCH = 16


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="module")
def photos() -> list[bytes]:
    from sklearn.datasets import load_sample_images

    files = []
    for number in range(5 * BATCH + 3):
        photo = load_sample_images().images[number % 2]
        stream = io.BytesIO()
        Image.fromarray(photo[number : number + 200, number : number + 260]).save(stream, "JPEG")
        files.append(stream.getvalue())
    return files


@pytest.fixture(params=NETWORKS)
def backbone(request: pytest.FixtureRequest) -> Backbone:
    return build(request.param, weights="random").eval()


def opened(backbone: Backbone, **options: object) -> Engine:
    options = {"batch_size": BATCH, **options}
    return open_engine(backbone, backbone.spec.preprocessing, **options)  # type: ignore[arg-type]


def features(engine: Engine, images: list[bytes]) -> np.ndarray:
    return np.concatenate(list(engine.run(images)))


def eager(backbone: Backbone, images: list[bytes]) -> np.ndarray:
    apply = backbone.spec.preprocessing.apply
    with torch.inference_mode():
        inputs = torch.stack([apply(decode(data)) for data in images])
        return torch.cat([backbone(part) for part in inputs.split(16)]).numpy()


def cosines(found: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(wanted, axis=1)
    return (found * wanted).sum(1) / lengths


@pytest.mark.parametrize(("precision", "least"), [("fp32", 0.99999), ("bf16", 0.99)])
def test_features_are_those_of_eager_fp32_on_the_cpu(
    backbone: Backbone, photos: list[bytes], precision: str, least: float
) -> None:
    engine = opened(backbone, precision=precision)
    found, wanted = features(engine, photos), eager(backbone, photos)
    assert (engine.kind, engine.precision) == ("cuda", precision)
    assert cosines(found, wanted).min() > least
    assert engine.agreement.cosine > least
    assert not any(p.is_cuda for p in backbone.parameters()), "the caller's network was moved"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_equal_bytes_in_every_run_by_workers_and_by_threads(
    backbone: Backbone, photos: list[bytes], precision: str
) -> None:
    engine = opened(backbone, precision=precision)
    first = features(engine, photos)
    assert features(engine, photos).tobytes() == first.tobytes()
    assert features(opened(backbone, precision=precision), photos).tobytes() == first.tobytes()
    few = photos[: BATCH + 3]  # decoded by threads: workers are not worth their start
    assert features(engine, few).tobytes() == first[: len(few)].tobytes()


def test_the_network_is_one_launch(backbone: Backbone) -> None:
    size = backbone.spec.preprocessing.input_size
    runner = cuda.CudaRunner(backbone, (4, 3, size, size), precision="bf16", device="cuda")
    assert runner._graph is not None


def test_out_of_memory_halves_the_batch_and_goes_on(photos: list[bytes]) -> None:
    class Hungry(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            if len(images) > 4 and images.is_cuda:
                torch.empty(2**45, device=images.device)
            return images.mean((2, 3))

    prepare = build("timm/test_resnet", weights="random").spec.preprocessing
    engine = open_engine(Hungry(), prepare, batch_size=BATCH)
    found = features(engine, photos)
    assert (engine.kind, engine.batch_size) == ("cuda", 4)
    wanted = [prepare.apply(decode(data)).mean((1, 2)).numpy() for data in photos]
    np.testing.assert_allclose(found, np.stack(wanted), atol=1e-5)


def test_a_broken_image_is_named_by_its_position(photos: list[bytes]) -> None:
    backbone = build("timm/test_resnet", weights="random")
    with pytest.raises(DataError, match="Image 40 cannot be decoded"):
        features(opened(backbone), [*photos[:40], b"no image", *photos[41:]])


def test_workers_write_into_memory_that_the_device_reads(photos: list[bytes]) -> None:
    prepare = build("timm/test_resnet", weights="random").spec.preprocessing
    with DecodingWorkers(prepare, batch_size=4, workers=1) as workers:
        ring = torch.from_numpy(workers.ring)
        assert cuda._pin(ring, torch.device("cuda"))
        cuda._cudart().cudaHostUnregister(ring.data_ptr())


def test_auto_precision_is_what_the_device_computes_in() -> None:
    able = torch.cuda.is_bf16_supported(including_emulation=False)
    assert resolve_precision("auto") == ("bf16" if able else "fp32")


class Means(torch.nn.Module):
    """With 64 MiB of weights, so that its memory is seen."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = torch.nn.Parameter(torch.zeros(2**24))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean((2, 3)) + self.weights[0]


class Stepwise(Means):
    """Asks the device for a number, which no graph can hold."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images) * (images[0, 0, 0, 0].isfinite().item() + 0.0)


@pytest.fixture
def prepare() -> object:
    return build("timm/test_resnet", weights="random").spec.preprocessing


def means(prepare: object, images: list[bytes]) -> np.ndarray:
    return np.stack([prepare.apply(decode(data)).mean((1, 2)).numpy() for data in images])  # type: ignore[attr-defined]


def test_out_of_memory_in_the_middle_of_a_run(
    prepare: object, photos: list[bytes], older_runners: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_engine(Means(), prepare, batch_size=BATCH)  # type: ignore[arg-type]
    compute, calls = cuda.CudaRunner.compute, 0

    def computing(self: cuda.CudaRunner, images: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if len(images) == BATCH and calls > 2:
            torch.empty(2**45, device="cuda")
        return compute(self, images)

    monkeypatch.setattr(cuda.CudaRunner, "compute", computing)
    calls = 1  # the second one fails
    found = features(engine, photos)
    assert (engine.kind, engine.batch_size) == ("cuda", BATCH // 2)
    assert older_runners == [False, False], "the old runner's memory was not free for the new one"
    np.testing.assert_allclose(found, means(prepare, photos), atol=1e-5)


def test_out_of_memory_before_the_first_batch_of_a_run(
    prepare: object, photos: list[bytes], older_runners: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_engine(Means(), prepare, batch_size=BATCH)  # type: ignore[arg-type]
    empty = torch.empty
    unlocked: list[int] = []
    cudart = cuda._cudart()

    def staging(*sizes: object, **options: object) -> torch.Tensor:
        if sizes and isinstance(sizes[0], torch.Size) and sizes[0][0] == BATCH:
            return empty(2**45, device="cuda")
        return empty(*sizes, **options)  # type: ignore[call-overload,no-any-return]

    class Noting:
        cudaHostRegister = staticmethod(cudart.cudaHostRegister)

        @staticmethod
        def cudaHostUnregister(pointer: int) -> object:
            unlocked.append(pointer)
            return cudart.cudaHostUnregister(pointer)

    monkeypatch.setattr(cuda, "_cudart", Noting)
    with monkeypatch.context() as patches:
        patches.setattr(torch, "empty", staging)
        found = features(engine, photos)
    assert engine.batch_size == BATCH // 2 and len(unlocked) == 2
    assert older_runners == [False, False]
    np.testing.assert_allclose(found, means(prepare, photos), atol=1e-5)


def test_a_refused_page_lock_costs_only_speed(
    backbone: Backbone, photos: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = opened(backbone)
    wanted = features(engine, photos)
    pin, answers = cuda._pin, []

    def refused(ring: torch.Tensor, device: torch.device) -> bool:
        """The device refuses memory that is page-locked already."""
        held = cuda._cudart()
        assert int(held.cudaHostRegister(ring.data_ptr(), ring.nbytes, 0)) == 0
        try:
            answers.append(pin(ring, device))
        finally:
            held.cudaHostUnregister(ring.data_ptr())
        return answers[-1]

    monkeypatch.setattr(cuda, "_pin", refused)
    assert features(engine, photos).tobytes() == wanted.tobytes()
    assert answers == [False]
    torch.ones(1, device="cuda").add_(1.0)  # no error was left for it


def test_a_network_that_no_graph_can_hold(prepare: object, photos: list[bytes]) -> None:
    before = torch.cuda.current_stream()
    engine = open_engine(Stepwise(), prepare, batch_size=BATCH)  # type: ignore[arg-type]
    assert torch.cuda.current_stream() == before
    assert engine.kind == "cuda" and engine._runner._graph is None  # type: ignore[attr-defined]
    found = features(engine, photos)
    assert torch.cuda.current_stream() == before
    np.testing.assert_allclose(found, means(prepare, photos), atol=1e-5)
    plain = open_engine(Means(), prepare, batch_size=BATCH)  # type: ignore[arg-type]
    assert plain._runner._graph is not None, "one that failed spoils the next"  # type: ignore[attr-defined]
    np.testing.assert_allclose(features(plain, photos), found, atol=1e-6)


def test_the_stream_of_who_asks_does_not_matter(backbone: Backbone, photos: list[bytes]) -> None:
    engine = opened(backbone)
    wanted = features(engine, photos)
    run, found = engine.run(photos), []
    for streams in range(100):
        with torch.cuda.stream(torch.cuda.Stream() if streams % 2 else None):
            part = next(run, None)
        if part is None:
            break
        found.append(part)
    assert np.concatenate(found).tobytes() == wanted.tobytes()


def test_a_run_that_is_left_gives_its_memory_back(prepare: object, photos: list[bytes]) -> None:
    engine = open_engine(Means(), prepare, batch_size=BATCH)  # type: ignore[arg-type]
    features(engine, photos)  # libraries keep what they set up at first
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    run = engine.run(photos)
    next(run)
    assert torch.cuda.memory_allocated() > before
    run.close()  # type: ignore[attr-defined]
    assert torch.cuda.memory_allocated() == before
    del run, engine
    assert torch.cuda.memory_allocated() <= before - 2**26


def test_a_worker_that_is_killed_in_the_middle_of_a_run(
    prepare: object, photos: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[DecodingWorkers] = []
    enter = DecodingWorkers.__enter__

    def entering(self: DecodingWorkers) -> DecodingWorkers:
        started.append(self)
        return enter(self)

    monkeypatch.setattr(DecodingWorkers, "__enter__", entering)
    engine = open_engine(Means(), prepare, batch_size=BATCH)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="worker ended unexpectedly"):
        for _ in engine.run(20 * photos):
            started[0]._processes[0].kill()
    assert not any(process.is_alive() for process in started[0]._processes)
    assert len(features(engine, photos)) == len(photos), "the engine goes on"


def test_products_are_exact_whatever_the_caller_allows(photos: list[bytes]) -> None:
    backbone = build("timm/vit_tiny_patch16_224", weights="random").eval()
    wanted = features(opened(backbone), photos)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        assert features(opened(backbone), photos).tobytes() == wanted.tobytes()
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)


def test_precision_auto_of_an_engine_of_the_processor() -> None:
    assert resolve_precision("auto", "onnxruntime") == "fp32"
    assert resolve_precision("auto", "openvino") == ("bf16" if machine.has_bf16() else "fp32")
