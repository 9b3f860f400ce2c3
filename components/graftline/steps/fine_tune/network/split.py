"""A network cut where training begins: the frozen lower part gives what the upper part takes.

The lower part's outputs can then be computed without gradient, and kept where they never change.
Nothing is known of how a library writes its forward pass: the cut is the first call of a trained
module. Above it the network runs as it is, with its frozen modules replaced by stubs. Whether
both halves together compute what the whole computes, gradients included, is measured.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from graftline.models.backbone import Backbone
from graftline.steps.fine_tune.network.freezing import Division

TOLERANCE = 1e-3  # relative to the largest value; kernels differ in their last bits
EXAMPLES = 2


class _Reached(Exception):  # noqa: N818 -- not an error: the way out of the forward pass
    def __init__(self, value: Tensor) -> None:
        self.value = value


class Split:
    """The two halves of a backbone. Made by :func:`split`.

    Args:
        backbone: Shared, not copied.
        boundary: The first trained module of the forward pass; None where all is frozen.
        frozen: Frozen modules, each with the shape of its output without the batch.
    """

    def __init__(
        self,
        backbone: Backbone,
        boundary: nn.Module | None,
        frozen: dict[nn.Module, torch.Size],
    ) -> None:
        self.backbone, self._boundary, self._frozen = backbone, boundary, frozen
        self._size = backbone.spec.preprocessing.input_size

    def lower(self, images: Tensor) -> Tensor:
        """What reaches the first trained module, without gradient; batch first."""
        with torch.no_grad():
            if self._boundary is None:
                return self.backbone(images)  # type: ignore[no-any-return]

            def leave(_: nn.Module, args: tuple[Any, ...]) -> None:
                raise _Reached(args[0])

            handle = self._boundary.register_forward_pre_hook(leave)
            try:
                self.backbone(images)
            except _Reached as reached:
                return reached.value
            finally:
                handle.remove()
        raise AssertionError("the boundary was not reached")

    def upper(self, lower: Tensor) -> Tensor:
        """Pooled features from what :meth:`lower` gave."""
        if self._boundary is None:
            return lower
        count = len(lower)

        def replaced(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            return (lower, *args[1:])

        handle = self._boundary.register_forward_pre_hook(replaced)
        try:
            with self._stubs(count, lower.device):
                blank = torch.zeros(1, device=lower.device)
                images = blank.expand(count, 3, self._size, self._size)
                return self.backbone(images)  # type: ignore[no-any-return]
        finally:
            handle.remove()

    @contextmanager
    def _stubs(self, count: int, device: torch.device) -> Iterator[None]:
        """Frozen modules give zeros of the right shape, at no cost."""
        zero = torch.zeros(1, device=device)

        def stub(shape: torch.Size) -> Callable[..., Tensor]:
            return lambda *_, **__: zero.expand(count, *shape)

        for module, shape in self._frozen.items():
            module.forward = stub(shape)
        try:
            yield
        finally:
            for module in self._frozen:
                del module.forward


def split(backbone: Backbone, division: Division) -> Split | None:
    """Cut a backbone below its trained blocks.

    Returns:
        None where nothing is frozen, where this network cannot be cut, and where its features are
        those of all blocks.
    """
    if not division.frozen:
        return None
    if backbone.spec.of_all_blocks:
        return None  # what the frozen blocks give are features, too
    if not division.trained:
        return Split(backbone, None, {})
    mode = backbone.training
    backbone.eval()
    try:
        found = _cut(backbone, division)
        return found if found is not None and _computes_the_same(backbone, found) else None
    finally:
        backbone.train(mode)


def _cut(backbone: Backbone, division: Division) -> Split | None:
    """Run a forward pass and see which module of a trained block comes first."""
    blocks = dict(backbone.blocks())
    frozen = [part for name in division.frozen for part in _parts(blocks[name])]
    trained = [part for name in division.trained for part in _parts(blocks[name])]
    if any(isinstance(part, nn.ParameterList) and len(part) for part in trained):
        return None  # used outside of modules, perhaps below the boundary
    calls: list[tuple[nn.Module, Any]] = []
    handles = [m.register_forward_hook(lambda m, _, out: calls.append((m, out))) for m in frozen]
    handles += [
        m.register_forward_pre_hook(lambda m, args: calls.append((m, args))) for m in trained
    ]
    try:
        with torch.no_grad():
            backbone(_examples(backbone))
    finally:
        for handle in handles:
            handle.remove()
    order = [module for module, _ in calls]
    first = next((number for number, module in enumerate(order) if module in trained), None)
    if first is None or any(module in frozen for module in order[first:]):
        return None
    args = calls[first][1]
    if not args or not _is_batch(args[0]) or any(isinstance(a, Tensor) for a in args[1:]):
        return None
    outputs = dict(calls[:first])
    if len(outputs) != first or not all(map(_is_batch, outputs.values())):
        return None
    return Split(backbone, order[first], {m: out.shape[1:] for m, out in outputs.items()})


def _parts(block: nn.Module) -> list[nn.Module]:
    """The modules of a block that the network calls."""
    if isinstance(block, nn.ModuleList) or type(block) is nn.Module:
        return [part for child in block.children() for part in _parts(child)]
    return [block]


def _is_batch(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() > 1 and len(value) == EXAMPLES


def _examples(backbone: Backbone) -> Tensor:
    size = backbone.spec.preprocessing.input_size
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        images = torch.randn(EXAMPLES, 3, size, size)
    return images.to(next(backbone.parameters()).device)


def _computes_the_same(backbone: Backbone, halves: Split) -> bool:
    """Outputs and gradients of the two halves against the whole network's."""
    images = _examples(backbone)
    parameters = [p for p in backbone.parameters() if p.requires_grad]

    def results(run: Callable[[Tensor], Tensor]) -> list[Tensor]:
        features = run(images)
        weights = torch.linspace(-1, 1, features.shape[1], device=features.device)
        gradients = torch.autograd.grad((features * weights).sum(), parameters, allow_unused=True)
        return [features.detach(), *(torch.zeros(1) if g is None else g for g in gradients)]

    try:
        whole = results(backbone)
        parts = results(lambda x: halves.upper(halves.lower(x)))
    except (RuntimeError, TypeError, ValueError, AttributeError, AssertionError):
        return False
    return all(
        a.shape == b.shape and float((a - b).abs().max()) <= TOLERANCE * float(a.abs().max()) + 1e-7
        for a, b in zip(whole, parts, strict=True)
    )
