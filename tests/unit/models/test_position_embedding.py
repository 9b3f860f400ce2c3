"""Position embeddings at another size: the same picture of positions, finer or coarser."""

import pytest
import torch
from timm.layers import resample_abs_pos_embed

from graftline.models.position_embedding import resampled


def ramp(side: int) -> torch.Tensor:
    """(side, side, 2): how far down and how far right, 0 to 1 at the middles of the cells."""
    steps = (torch.arange(side) + 0.5) / side
    return torch.stack(torch.meshgrid(steps, steps, indexing="ij"), dim=-1)


@pytest.mark.parametrize("prefix", [0, 1, 2])
@pytest.mark.parametrize(("old", "new"), [(14, 10), (14, 20)])
def test_tokens_are_resampled_as_timm_does_and_those_before_them_are_kept(prefix, old, new):
    tensor = torch.randn(1, prefix + old * old, 8)
    found = resampled("pos_embed", tensor, torch.empty(1, prefix + new * new, 8))
    expected = resample_abs_pos_embed(tensor, (new, new), num_prefix_tokens=prefix)
    assert torch.allclose(found, expected, atol=1e-6)
    assert torch.equal(found[:, :prefix], tensor[:, :prefix])


@pytest.mark.parametrize("form", ["channels first", "channels last", "tokens"])
def test_down_stays_down_and_right_stays_right(form):
    old, new = ramp(14), ramp(9)
    arrange = {
        "channels first": lambda grid: grid.permute(2, 0, 1)[None],
        "channels last": lambda grid: grid[None],
        "tokens": lambda grid: grid.flatten(0, 1)[None],
    }[form]
    found = resampled("stages.0.pos_embed1", arrange(old), arrange(new))
    assert torch.allclose(found, arrange(new), atol=0.03)


def test_a_table_of_biases_keeps_its_middle_and_its_sides():
    old, new = ramp(13).flatten(0, 1), ramp(9).flatten(0, 1)
    found = resampled("attn.rel_pos.relative_position_bias_table", old, new)
    assert torch.allclose(found, new, atol=0.03)
    assert torch.allclose(found[40], old[84], atol=1e-5)  # no distance at all


@pytest.mark.parametrize(
    ("name", "shape", "wanted"),
    [
        ("conv.weight", (1, 196, 8), (1, 100, 8)),
        ("pos_embed", (1, 196, 8), (1, 100, 9)),
        ("pos_embed", (1, 190, 8), (1, 100, 8)),
        ("attn.attention_biases", (4, 196), (4, 100)),
        ("relative_position_bias_table", (170, 2), (81, 2)),
    ],
)
def test_what_is_no_grid_of_positions_is_left_to_an_error(name, shape, wanted):
    assert resampled(name, torch.zeros(shape), torch.zeros(wanted)) is None
