"""What a backbone computes for one image, and what share of it each block takes."""

from dataclasses import asdict, dataclass

from graftline import machine
from graftline.models import catalogue

BATCH = 2
# Operations that a device could do while it moves one value that a layer gives. Time follows the
# values that layers give better than the arithmetic (Radosavovic et al. 2020, "Designing Network
# Design Spaces"): EfficientNet-B0 has a tenth of ResNet-50's arithmetic and trains at its speed.
PER_VALUE = 900.0


@dataclass(frozen=True)
class ForwardCost:
    """The work of one image forwards.

    Attributes:
        macs: Multiply-adds.
        values: That its convolutions and linear layers give.
        shares: Of the blocks, from input to output; they sum to 1.
        parameters: Of the blocks.
        image_size: In pixels.
    """

    macs: float
    values: int
    shares: tuple[float, ...]
    parameters: tuple[int, ...]
    image_size: int

    @property
    def operations(self) -> float:
        """Arithmetic, or the arithmetic that moving the values takes as long as."""
        return max(2 * self.macs, PER_VALUE * self.values)

    def trained(self, blocks: int) -> float:
        """Share of the work in this many upper blocks."""
        return sum(self.shares[-blocks:]) if blocks else 0.0

    def trained_parameters(self, blocks: int) -> int:
        """Parameters of this many upper blocks."""
        return sum(self.parameters[-blocks:]) if blocks else 0


def forward_cost(name: str, image_size: int | None = None) -> ForwardCost:
    """Count the work of a backbone in one pass over blank images.

    The result is remembered on this machine; the first time takes some seconds.

    Raises:
        BackboneError: There is no such backbone.
    """
    key = {"name": name, "image_size": image_size, "versions": catalogue.versions(), "format": 2}
    known = machine.remembered("forward-cost", key)
    if known is not None:
        known |= {name: tuple(known[name]) for name in ("shares", "parameters")}
        return ForwardCost(**known)
    cost = _count(name, image_size)
    machine.remember("forward-cost", key, asdict(cost))
    return cost


def _count(name: str, image_size: int | None) -> ForwardCost:
    import torch
    from torch import nn
    from torch.utils.flop_counter import FlopCounterMode

    from graftline.models.backbone import build

    backbone = build(name, weights="random", image_size=image_size).eval()
    size = backbone.spec.preprocessing.input_size
    blocks = backbone.blocks()
    owner: dict[nn.Module, int] = {}
    for number, (_, block) in enumerate(blocks):
        owner |= dict.fromkeys(block.modules(), number)
    found = [0.0] * len(blocks)
    counter = FlopCounterMode(display=False)
    entered: list[tuple[int, float]] = []
    values = 0

    def enter(module: nn.Module, _: object) -> None:
        entered.append((owner[module], counter.get_total_flops()))

    def leave(module: nn.Module, _: object, output: object) -> None:
        nonlocal values
        if isinstance(module, nn.Conv2d | nn.Linear) and isinstance(output, torch.Tensor):
            values += output.numel()
        number, before = entered.pop()
        if not any(outer == number for outer, _ in entered):
            found[number] += counter.get_total_flops() - before

    handles = [module.register_forward_pre_hook(enter) for module in owner]
    handles += [module.register_forward_hook(leave) for module in owner]
    try:
        with torch.no_grad(), counter:
            backbone(torch.zeros(BATCH, 3, size, size))
    finally:
        for handle in handles:
            handle.remove()
    total = counter.get_total_flops()
    inside = sum(found) or 1.0
    return ForwardCost(
        macs=total / BATCH / 2,  # a multiply-add is two operations
        values=values // BATCH,
        shares=tuple(flops / inside for flops in found),
        parameters=tuple(sum(p.numel() for p in block.parameters()) for _, block in blocks),
        image_size=size,
    )
