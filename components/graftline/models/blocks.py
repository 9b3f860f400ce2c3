"""The blocks of a network from input to output, for freezing and for rates that fall with depth.

A block is what the network repeats: a residual unit of a ResNet, a layer of a transformer. So a
third of the blocks is about a third of the depth in every architecture, where a third of the stages
would be a few percent of some (two of a ResNet's sixteen units are in its first stage, six in its
third).

Libraries name their parts freely, so the order is read off the module tree: children are in the
order of the forward pass, containers that only hold stages are opened, so are stages that repeat
one unit, and what carries no block of its own (a norm, a class token) goes with its neighbour.
Every tensor of the network is in exactly one block.
"""

import re
from collections.abc import Iterator

from torch import nn

# A container by one of these names, or with nearly all of the parameters, holds the stages.
CONTAINERS = re.compile(
    r"^(features|blocks\d*|stages|layers|levels|encoder|trunk|body|cells|transformers|"
    r"transformer|serial_blocks\d*|parallel_blocks|patch_embed_blocks|backbone|visual|model|net)$"
)
# Children of a stage that is a class of its own: RegNet's b1, DenseNet's denselayer1.
UNIT = re.compile(r"^(b|block|layer|denselayer|unit)_?\d+$")
NO_STAGE = re.compile(r"embed|norm|head|stem|pos")  # may repeat one class side by side
NEARLY_ALL = 0.9
DEEPEST = 5

Part = nn.Module | nn.Parameter


def blocks_of(network: nn.Module) -> list[tuple[str, nn.Module]]:
    """Blocks in order from input to output, the stem first.

    A block of several parts is a holder made for it: freezing it, or setting its mode, reaches
    the network's own modules and parameters.
    """
    groups: list[tuple[str, list[Part]]] = []
    for name, part in _parts(network, "", _size(network), 0):
        if not groups or _joins(part, groups[-1][1]):
            if not groups:
                groups.append(("stem", []))
            groups[-1][1].append(part)
        else:
            groups.append((name, [part]))
    return [(name, _hold(parts)) for name, parts in groups if any(map(_has_tensors, parts))]


def _parts(module: nn.Module, prefix: str, total: int, depth: int) -> Iterator[tuple[str, Part]]:
    """The network cut into stages, loose parameters and single layers, in order."""
    for name, parameter in module.named_parameters(recurse=False):
        yield prefix + name, parameter
    for name, child in module.named_children():
        inner = f"{prefix}{name}."
        if _holds_stages(name, child, total, depth):
            yield from _parts(child, inner, total, depth + 1)
        elif not NO_STAGE.search(inner) and _is_stage(child):
            yield from _units(child, inner)
        else:
            yield prefix + name, child


def _holds_stages(name: str, module: nn.Module, total: int, depth: int) -> bool:
    inside = [child for child in module.children() if _has_tensors(child)]
    if not inside or depth >= DEEPEST:
        return False
    if any(True for _ in module.buffers(recurse=False)):
        return False  # its own statistics must stay with it
    if len(inside) > 1 and isinstance(module, nn.Sequential | nn.ModuleList):
        return CONTAINERS.match(name) is not None
    return CONTAINERS.match(name) is not None or _size(module) > NEARLY_ALL * total


def _is_stage(module: nn.Module) -> bool:
    """Whether a module repeats one unit, or has a child that does and little else."""
    if any(True for _ in module.buffers(recurse=False)):
        return False
    return _repeats(module) or _repeating_child(module) is not None


def _repeats(module: nn.Module) -> bool:
    inside = [(name, child) for name, child in module.named_children() if _has_tensors(child)]
    kinds = {type(child) for _, child in inside}
    if len(inside) < 2 or len(kinds) > 1 or any(True for _ in module.parameters(recurse=False)):
        return False
    if not all(any(map(_has_tensors, child.children())) for _, child in inside):
        return False  # single layers, such as the convolutions of one unit
    listed = isinstance(module, nn.Sequential | nn.ModuleList)
    return listed or all(UNIT.match(name) for name, _ in inside)


def _repeating_child(module: nn.Module) -> nn.Module | None:
    """The list of units in a stage that also has its own downsampling, as ConvNeXt's."""
    for name, child in module.named_children():
        if CONTAINERS.match(name) and _repeats(child) and 2 * _size(child) > _size(module):
            return child
    return None


def _units(module: nn.Module, prefix: str) -> Iterator[tuple[str, Part]]:
    """The units of a stage, and what stands beside them, in order."""
    inside = _repeating_child(module)
    for name, parameter in module.named_parameters(recurse=False):
        yield prefix + name, parameter
    for name, child in module.named_children():
        if child is inside:
            yield from _units(child, f"{prefix}{name}.")
        else:
            yield prefix + name, child


def _joins(part: Part, group: list[Part]) -> bool:
    """Whether a part belongs to the block before it."""
    if isinstance(part, nn.Parameter) or not _has_tensors(part):
        return True
    if all(isinstance(member, nn.Parameter) or not _has_tensors(member) for member in group):
        return True  # so far only loose parameters: they go with the first layer
    return _only_norms(part)


def _only_norms(module: nn.Module) -> bool:
    """Whether normalisation layers are all it has, as a transformer's last norm."""
    own = [inner for inner in module.modules() if any(True for _ in inner.parameters(False))]
    return all("norm" in type(inner).__name__.lower() for inner in own)


def _hold(parts: list[Part]) -> nn.Module:
    modules = [part for part in parts if isinstance(part, nn.Module)]
    loose = [part for part in parts if isinstance(part, nn.Parameter)]
    if len(modules) == 1 and not loose:
        return modules[0]
    holder = nn.Module()
    holder.add_module("modules_", nn.ModuleList(modules))
    holder.add_module("loose", nn.ParameterList(loose))
    return holder


def _has_tensors(part: Part) -> bool:
    if isinstance(part, nn.Parameter):
        return True
    return any(True for _ in part.parameters()) or any(True for _ in part.buffers())


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
