"""The frozen part in OpenVINO beside PyTorch, and bf16 without slow kernels."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from graftline.classifier.bundle import load_classifier
from graftline.inference import onnx_cache
from graftline.models.backbone import Backbone, build
from graftline.steps.fine_tune import loop
from graftline.steps.fine_tune.inputs.images import in_step
from graftline.steps.fine_tune.network import frozen_engine as module
from graftline.steps.fine_tune.network import precision
from graftline.steps.fine_tune.network.freezing import divide_by, freeze
from graftline.steps.fine_tune.network.frozen_engine import FrozenEngine, frozen_engine
from graftline.steps.fine_tune.network.precision import autocast
from graftline.steps.fine_tune.network.split import Split, split
from graftline.steps.fine_tune.recipe import Settings
from graftline.steps.fine_tune.step import FineTuneResult

SIZE = 32
CPU = torch.device("cpu")
FP32 = Settings(precision="fp32")


@pytest.fixture
def backbone() -> Backbone:
    return build("timm/test_resnet", weights="random", image_size=SIZE)


@pytest.fixture
def halves(backbone: Backbone) -> Split:
    division = divide_by(backbone, 0.5)
    freeze(backbone, division)
    found = split(backbone, division)
    assert found is not None
    return found


def opened(halves: Split, settings: Settings = FP32, processes: int = 1) -> FrozenEngine:
    engine = frozen_engine(halves, settings, CPU, 1000, processes)
    assert engine is not None
    return engine


def images(count: int) -> torch.Tensor:
    made = torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(count))
    return made.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("count", [1, 16, 37])
def test_the_engine_gives_what_pytorch_gives(halves: Split, count: int) -> None:
    x = images(count)
    halves.backbone.eval()
    with closing(opened(halves)) as engine:
        found, wanted = engine(x), halves.lower(x)
        assert found.shape == wanted.shape and not found.requires_grad
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
        assert torch.equal(engine(x[:1]), found[:1])  # whatever lies beside it in the batch


def test_the_bits_do_not_depend_on_the_number_of_threads(
    halves: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, found = images(40), []
    for cores in (1, 3):
        monkeypatch.setattr(module.machine, "cores", lambda cores=cores: cores)
        with closing(opened(halves, Settings(precision="bf16"))) as engine:
            found.append(engine(x))
    assert torch.equal(*found)


def test_the_mode_of_the_network_is_as_before(halves: Split) -> None:
    halves.backbone.train()
    opened(halves).close()
    assert halves.backbone.training


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        (Settings(), module.LEAST_PASSES // 10 - 1),
        (Settings(views=2), module.LEAST_PASSES // 2 - 1),
        (Settings(augment=False), module.LEAST_PASSES - 1),
    ],
)
def test_little_work_does_not_pay_for_opening_it(
    halves: Split, settings: Settings, count: int
) -> None:
    assert frozen_engine(halves, settings, CPU, count, 1) is None
    engine = frozen_engine(halves, settings, CPU, count + 1, 1)
    assert engine is not None
    engine.close()


def test_what_cannot_be_exported_or_differs_runs_in_pytorch(
    halves: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    def another(_: object, shape: tuple[int, ...]) -> bytes:
        return onnx_cache.export(_Another(halves).eval(), shape)

    def refuse(*_: object) -> bytes:
        raise RuntimeError("this operator has no symbolic function")

    for export in (another, refuse):
        with monkeypatch.context() as patched:
            patched.setattr(module, "onnx_cache", type("Cache", (), {"export": export}))
            assert frozen_engine(halves, FP32, CPU, 1000, 1) is None


class _Another(torch.nn.Module):
    """The same with its picture upside down."""

    def __init__(self, halves: Split) -> None:
        super().__init__()
        self.backbone, self._halves = halves.backbone, halves

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self._halves.lower(pixels.flip(1).permute(0, 3, 1, 2))


@pytest.mark.parametrize("options", [{}, {"mix": "mixup"}, {"views": 2}], ids=str)
def test_training_with_the_engine_is_training_without(
    fitted: Callable[..., FineTuneResult],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    options: dict[str, object],
) -> None:
    how = {"unfreeze": 0.5, "precision": "fp32", "learning_rate": 3e-4, **options}
    calls: list[int] = []
    call = FrozenEngine.__call__

    def counted(self: FrozenEngine, x: torch.Tensor) -> torch.Tensor:
        calls.append(len(x))
        return call(self, x)

    monkeypatch.setattr(FrozenEngine, "__call__", counted)
    without = fitted("without", checkpoint_key="without", **how)
    assert not calls
    monkeypatch.setattr(module, "LEAST_PASSES", 0)
    first = fitted("first", checkpoint_key="first", **how)
    assert calls
    again = fitted("again", checkpoint_key="again", **how)
    for one, other in zip(without.history, first.history, strict=True):
        assert one == pytest.approx(other, rel=1e-3)
    assert first.history == again.history
    one, other = (load_classifier(tmp_path / out).state_dict() for out in ("first", "again"))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_a_training_with_the_engine_that_was_killed_goes_on_to_the_same_bits(
    fitted: Callable[..., FineTuneResult], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "LEAST_PASSES", 0)
    how = {"unfreeze": 0.5, "epochs": 3, "learning_rate": 3e-3}
    whole = fitted("whole", checkpoint_key="whole", **how)
    step, steps = loop.Trainer._step, []

    def killed(self: loop.Trainer, *batch: Any) -> None:
        step(self, *batch)
        steps.append(self.at.steps_done)
        if len(steps) == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop.Trainer, "_step", killed)
    with pytest.raises(KeyboardInterrupt):
        fitted("killed", checkpoint_key="killed", **how)
    again = fitted("killed", checkpoint_key="killed", **how)
    assert 1 < steps[5] <= 5  # it went on, and did not begin at the beginning
    assert again.history == whole.history
    one, other = (load_classifier(tmp_path / out).state_dict() for out in ("whole", "killed"))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_grouped_convolutions_keep_fp32_where_all_else_is_bf16(groups: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 8, 9, 9, generator=generator)
    w = torch.randn(8, 8 // groups, 3, 3, generator=generator, requires_grad=True)
    with autocast(CPU, "bf16"):
        found = F.conv2d(x, w, None, 1, 1, 1, groups)
        assert torch.equal(found, F.conv2d(x, w, padding=1, groups=groups))
    assert found.dtype == torch.bfloat16
    exact = F.conv2d(x, w, padding=1, groups=groups)
    assert torch.equal(found, exact.bfloat16()) == (groups > 1)
    gradient = torch.randn(found.shape, generator=generator)
    (mixed,) = torch.autograd.grad(found, w, gradient.bfloat16())
    (wanted,) = torch.autograd.grad(exact, w, gradient.bfloat16().float())
    assert torch.equal(mixed, wanted) == (groups > 1)
    torch.testing.assert_close(mixed, wanted, rtol=0.05, atol=0.5)


def test_precision_follows_the_setting_and_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    x, w = torch.ones(1, 1, 3, 3), torch.ones(1, 1, 1, 1)
    for has in (False, True):
        monkeypatch.setattr(precision.machine, "has_bf16", lambda has=has: has)
        for name, low in (("fp32", False), ("bf16", True), ("auto", has)):
            with autocast(CPU, name):
                assert (F.conv2d(x, w).dtype == torch.bfloat16) == low


def test_images_of_a_step_are_made_in_order_and_only_when_asked_for() -> None:
    made: list[int] = []

    def work(number: int) -> tuple[int, int]:
        made.append(number)
        return number, torch.get_num_threads()

    threads = torch.get_num_threads()
    steps: Iterator[list[tuple[int, int]]] = in_step(work, [[3, 1, 2], [5, 4]])
    assert not made
    assert next(steps) == [(3, 1), (1, 1), (2, 1)]
    assert sorted(made) == [1, 2, 3]
    assert torch.get_num_threads() == threads
    assert next(steps) == [(5, 1), (4, 1)]
    steps.close()  # type: ignore[attr-defined]
