"""The blocks of a network from input to output, for freezing and for rates that fall with depth.

A block is what the network repeats: a residual unit of a ResNet, a layer of a transformer. So a
third of the blocks is about a third of the depth in every architecture, where a third of the stages
would be a few percent of some (two of a ResNet's sixteen units are in its first stage, six in its
third).

Where one block ends is read off the module tree: containers that only hold stages are opened, so
are stages that hold several units, and what carries no block of its own (a norm, a class token)
goes with its neighbour. In which order they stand is read off a forward pass: libraries register
some parts in another order than they call them. Every tensor of the network is in exactly one
block, that of its first use.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

# A container by one of these names, or with nearly all of the parameters, holds the stages.
CONTAINERS = re.compile(
    r"^(features|blocks\d*|stages|layers|levels|encoder|trunk|trunk_output|body|cells|transformers|"
    r"transformer|serial_blocks\d*|parallel_blocks|patch_embed_blocks|backbone|visual|model|net)$"
)
# Children of a stage that is a class of its own: RegNet's b1, DenseNet's denselayer1, DLA's tree1.
UNIT = re.compile(r"^(b|block|layer|denselayer|unit|tree)_?\d+$")
NO_STAGE = re.compile(r"embed|norm|head|stem|pos|downsample")  # may repeat one class side by side
NEARLY_ALL = 0.9
DEEPEST = 8

Part = nn.Module | nn.Parameter
Named = list[tuple[str, Part]]


@dataclass(frozen=True)
class _Placed:
    """A piece of the network: when it is first used, and what stands in for it, by name."""

    at: int
    name: str
    pieces: Named
    used: bool


def division_of(
    network: nn.Module, first_use: Mapping[str, int]
) -> list[tuple[str, tuple[str, ...]]]:
    """Blocks in order from input to output, the stem first: each one's name and its parts' names.

    Args:
        network: Without its classification head.
        first_use: Of its tensors by name, as of :func:`graftline.models.first_use.first_uses`.
    """
    blocks: list[tuple[str, Named]] = []
    for placed in _in_order(list(_parts(network, "", _size(network), 0)), network, first_use):
        if not blocks:
            blocks.append(("stem", placed.pieces))
        elif _joins(placed, blocks[-1][1]):
            blocks[-1][1].extend(placed.pieces)
        else:
            blocks.append((placed.name, placed.pieces))
    return [
        (name, tuple(piece for piece, _ in pieces))
        for name, pieces in blocks
        if any(_has_tensors(part) for _, part in pieces)
    ]


def block_of(network: nn.Module, names: Sequence[str]) -> nn.Module:
    """The block of these parts.

    One of several parts is a holder made for it: freezing it, or setting its mode, reaches the
    network's own modules and parameters.
    """
    modules: list[nn.Module] = []
    loose: list[nn.Parameter] = []
    for name in names:
        owner, _, last = name.rpartition(".")
        part = getattr(network.get_submodule(owner), last)
        (modules if isinstance(part, nn.Module) else loose).append(part)
    if len(modules) == 1 and not loose:
        return modules[0]
    holder = nn.Module()
    holder.add_module("modules_", nn.ModuleList(modules))
    holder.add_module("loose", nn.ParameterList(loose))
    return holder


def _parts(module: nn.Module, prefix: str, total: int, depth: int) -> Iterator[tuple[str, Part]]:
    """The network cut into units, loose parameters and single layers, as they are registered."""
    for name, parameter in module.named_parameters(recurse=False):
        yield prefix + name, parameter
    for name, child in module.named_children():
        inner = f"{prefix}{name}."
        if depth < DEEPEST and (
            _holds_stages(name, child, total)
            or (not NO_STAGE.search(inner) and _is_stage(child))
            or isinstance(child, nn.ModuleList)  # never called itself: what it holds is
        ):
            yield from _parts(child, inner, total, depth + 1)
        else:
            yield prefix + name, child


def _holds_stages(name: str, module: nn.Module, total: int) -> bool:
    inside = [child for child in module.children() if _has_tensors(child)]
    if not inside or _has_buffers(module):
        return False
    if len(inside) > 1 and isinstance(module, nn.Sequential | nn.ModuleList):
        return CONTAINERS.match(name) is not None
    return CONTAINERS.match(name) is not None or _size(module) > NEARLY_ALL * total


def _is_stage(module: nn.Module) -> bool:
    """Whether a module holds several units, or lists of them, and little else."""
    if _has_buffers(module):
        return False
    if _repeats(module) or (isinstance(module, nn.Sequential) and _several_units(module)):
        return True
    named = list(module.named_children())
    units = [child for name, child in named if UNIT.match(name) and _is_unit(child)]
    lists = [
        child
        for name, child in named
        if (isinstance(child, nn.Sequential) and _several_units(child))
        or (CONTAINERS.match(name) and (_repeats(child) or _several_units(child)))
    ]
    inside = lists + (units if len(units) > 1 else [])
    return 2 * sum(map(_size, inside)) > _size(module)


def _repeats(module: nn.Module) -> bool:
    """Whether it holds the same kind of thing several times, and nothing else."""
    inside = [(name, child) for name, child in module.named_children() if _has_tensors(child)]
    kinds = {type(child) for _, child in inside}
    if len(inside) < 2 or len(kinds) > 1 or any(True for _ in module.parameters(recurse=False)):
        return False
    if not all(any(map(_has_tensors, child.children())) for _, child in inside):
        return False  # single layers, such as the convolutions of one unit
    listed = isinstance(module, nn.Sequential | nn.ModuleList)
    return listed or all(UNIT.match(name) for name, _ in inside)


def _several_units(module: nn.Module) -> bool:
    """Whether it is a list with two children or more of several layers each."""
    if not isinstance(module, nn.Sequential | nn.ModuleList):
        return False
    return sum(map(_is_unit, module.children())) > 1


def _is_unit(module: nn.Module) -> bool:
    """Whether it has several layers; a depthwise convolution is one with the layer behind it."""
    weights = [
        p for p in module.parameters() if p.ndim > 1 and not (p.ndim == 4 and p.shape[1] == 1)
    ]
    return len(weights) > 1 and any(map(_has_tensors, module.children()))


def _in_order(parts: Named, network: nn.Module, first_use: Mapping[str, int]) -> list[_Placed]:
    """The parts by their first use, each tensor in the first that has it."""
    tensors = [*network.named_parameters(), *network.named_buffers()]
    uses = {id(tensor): first_use[name] for name, tensor in tensors if name in first_use}
    inside = {
        id(module)
        for _, part in parts
        if isinstance(part, nn.Module)
        for module in part.modules()
        if module is not part
    }
    # What is registered twice is found where it is used.
    parts = [(name, part) for name, part in parts if id(part) not in inside]
    holders = Counter(id(tensor) for _, part in parts for tensor in _tensors(part))
    placed: list[_Placed] = []
    at = -1
    for name, part in parts:
        used = [id(tensor) for tensor in _tensors(part) if id(tensor) in uses]
        own = [key for key in used if holders[key] == 1] or used  # others may have used the rest
        at = min((uses[key] for key in own), default=at)  # what is unused stays with its neighbour
        placed.append(_Placed(at, name, [(name, part)], bool(used)))
    placed.sort(key=lambda each: each.at)
    taken: set[int] = set()
    for number, each in enumerate(placed):
        pieces = [piece for name, part in each.pieces for piece in _rest(name, part, taken)]
        placed[number] = _Placed(each.at, each.name, pieces, each.used)
        taken |= {id(tensor) for _, part in pieces for tensor in _tensors(part)}
    return [each for each in placed if each.pieces]


def _rest(name: str, part: Part, taken: set[int]) -> Iterator[tuple[str, Part]]:
    """A part without what an earlier one shares with it, as CoaT's position encodings."""
    own = {id(tensor) for tensor in _tensors(part)}
    if not own & taken:
        yield name, part
    elif isinstance(part, nn.Module) and own - taken:
        for inner, parameter in part.named_parameters(recurse=False):
            yield from _rest(f"{name}.{inner}", parameter, taken)
        for inner, child in part.named_children():
            yield from _rest(f"{name}.{inner}", child, taken)


def _joins(placed: _Placed, block: Named) -> bool:
    """Whether a part belongs to the block before it."""
    if not placed.used:
        return True
    if all(isinstance(part, nn.Parameter) or not _has_tensors(part) for _, part in block):
        return True  # so far only loose parameters: they go with the first layer
    parts = [part for _, part in placed.pieces]
    return all(isinstance(part, nn.Parameter) or _only_norms(part) for part in parts)


def _only_norms(module: nn.Module) -> bool:
    """Whether normalisation layers are all it has, as a transformer's last norm."""
    own = [inner for inner in module.modules() if any(True for _ in inner.parameters(False))]
    return all("norm" in type(inner).__name__.lower() for inner in own)


def _tensors(part: Part) -> Iterator[nn.Parameter | Tensor]:
    if isinstance(part, nn.Parameter):
        yield part
    else:
        yield from part.parameters()
        yield from part.buffers()


def _has_tensors(part: Part) -> bool:
    return any(True for _ in _tensors(part))


def _has_buffers(module: nn.Module) -> bool:
    """Whether it has statistics of its own, which must stay with it."""
    return any(True for _ in module.buffers(recurse=False))


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
