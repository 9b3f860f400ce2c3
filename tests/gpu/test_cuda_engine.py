"""The engine on a CUDA device; skipped visibly where there is none."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from graftline.backbones import Backbone, build
from graftline.decoding import DecodingWorkers
from graftline.engine import Engine, open_engine, resolve_precision
from graftline.errors import DataError
from graftline.pixels import decode

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
    from graftline.cuda import CudaRunner

    size = backbone.spec.preprocessing.input_size
    runner = CudaRunner(backbone, (4, 3, size, size), precision="bf16", device="cuda")
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
    from graftline import cuda

    prepare = build("timm/test_resnet", weights="random").spec.preprocessing
    with DecodingWorkers(prepare, batch_size=4, workers=1) as workers:
        ring = torch.from_numpy(workers.ring)
        assert cuda._pin(ring)
        cuda._cudart().cudaHostUnregister(ring.data_ptr())


def test_auto_precision_is_what_the_device_computes_in() -> None:
    able = torch.cuda.is_bf16_supported(including_emulation=False)
    assert resolve_precision("auto") == ("bf16" if able else "fp32")
