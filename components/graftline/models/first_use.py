"""In which order a network uses its tensors, seen in one forward pass over shapes alone."""

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

BATCH = 2  # of one image some networks make other shapes


def first_uses(network: nn.Module, image_size: int) -> dict[str, int]:
    """The number of the operation that first uses each parameter and buffer, by name.

    What the forward pass never uses is left out. The pass runs on the meta device, which computes
    shapes alone; where a network cannot run there, it runs on its own device.

    Args:
        network: In any mode; it is left as it is.
        image_size: Side of its input in pixels.
    """
    tensors = [*network.named_parameters(), *network.named_buffers()]
    blank: dict[int, Any] = {id(tensor): _on_meta(tensor) for _, tensor in tensors}
    names = {id(blank[id(tensor)]): name for name, tensor in tensors}
    # Copied around the tensors: no weight is read, and nothing that a forward pass leaves behind
    # (position embeddings, masks) reaches the network itself. The memo would keep them alive.
    shapes = copy.deepcopy(network, dict(blank)).eval()
    try:
        images = torch.zeros(BATCH, 3, image_size, image_size, device="meta")
        return _recorded(shapes, names, images)
    except (RuntimeError, NotImplementedError, TypeError, ValueError, AttributeError):
        pass  # it holds tensors that are neither parameters nor buffers, or looks at values
    device = next(network.parameters()).device
    whole = copy.deepcopy(network).eval()
    copied = [*whole.named_parameters(), *whole.named_buffers()]
    names = {id(tensor): name for name, tensor in copied}
    images = torch.zeros(BATCH, 3, image_size, image_size, device=device)
    return _recorded(whole, names, images)


def _on_meta(tensor: Tensor) -> Tensor:
    shape = torch.empty_like(tensor, device="meta")
    return nn.Parameter(shape, requires_grad=False) if isinstance(tensor, nn.Parameter) else shape


def _recorded(network: nn.Module, names: Mapping[int, str], images: Tensor) -> dict[str, int]:
    recorder = _Recorder(names)
    with torch.no_grad(), recorder:
        network(images)
    return recorder.first


class _Recorder(TorchFunctionMode):
    """Counts operations, and notes which tensors each is given."""

    def __init__(self, names: Mapping[int, str]) -> None:
        super().__init__()
        self._names, self._count = names, 0
        self.first: dict[str, int] = {}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        self._count += 1
        for value in tree_leaves((args, kwargs)):
            name = self._names.get(id(value)) if isinstance(value, Tensor) else None
            if name is not None and getattr(func, "__name__", "") != "__get__":  # asks its shape
                self.first.setdefault(name, self._count)
        return func(*args, **(kwargs or {}))
