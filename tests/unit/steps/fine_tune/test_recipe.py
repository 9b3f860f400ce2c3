"""What is trained and how: blocks, rates, batches, mixing, averages."""

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from graftline.errors import ConfigurationError, TrainingError
from graftline.models.backbone import build
from graftline.records.decision import Decision
from graftline.steps.fine_tune.checkpoints.state import Progressed
from graftline.steps.fine_tune.failures import halved
from graftline.steps.fine_tune.guard import cut_rate
from graftline.steps.fine_tune.inputs.augment import mixed
from graftline.steps.fine_tune.inputs.sampler import Sampler
from graftline.steps.fine_tune.network.freezing import divide_by, joined
from graftline.steps.fine_tune.optimizer.ema import Average
from graftline.steps.fine_tune.optimizer.losses import class_weights, summed_loss, total_weight
from graftline.steps.fine_tune.optimizer.schedule import joined_blocks, rate_factor
from graftline.steps.fine_tune.recipe import Settings, resolve, without_effect

CELL = Decision(
    strategy="auto",
    choice="fine_tune",
    size="small",
    similarity="different",
    cell="small and different",
    advice="",
    figures={},
    thresholds={},
    reasons=[],
)


@pytest.mark.parametrize(
    ("unfreeze", "trained"),
    [("all", 5), (0, 0), (2, 2), (99, 5), (0.5, 2), (0.39, 1), (0.01, 1), (1.0, 5), (0.0, 0)],
)
def test_unfreeze_counts_blocks_from_the_top(unfreeze: Any, trained: int) -> None:
    backbone = build("timm/test_resnet", weights="random", image_size=32)
    division = divide_by(backbone, unfreeze)
    assert list(division.frozen + division.trained) == [name for name, _ in backbone.blocks()]
    assert len(division.trained) == trained


def test_auto_follows_the_cell_and_the_size_of_the_data() -> None:
    large = replace(CELL, size="large")
    assert resolve(Settings(), CELL, [60, 60]).unfreeze != "auto"
    assert resolve(Settings(), large, [900, 900]).unfreeze == 1.0
    assert resolve(Settings(unfreeze=3), large, [900]).unfreeze == 3
    assert resolve(Settings(frozen_fraction=0.2), large, [900]).unfreeze is None
    few, many = resolve(Settings(), CELL, [5, 5, 0]), resolve(Settings(), large, [900, 900])
    assert (few.policy, few.mix) == ("none", "none")
    assert (many.policy, many.mix) == ("rand", "mixup")
    plain = resolve(Settings(augment=False), large, [900, 900])
    assert (plain.policy, plain.mix) == ("none", "none")


def test_all_that_is_wrong_is_reported_together() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings(optimizer="adam", mix="both", unfreeze=-1, batch_size=0)
    for word in ("optimizer", "mix", "unfreeze", "batch_size"):
        assert word in str(caught.value)
    with pytest.raises(ConfigurationError, match="both say which blocks"):
        Settings(unfreeze=0.5, frozen_fraction=0.5)


def test_a_setting_without_effect_is_named() -> None:
    plain = Settings(unfreeze=2, policy="none", mix="none", batch_size=8)
    assert without_effect(plain, 100, 5) == []
    found = without_effect(replace(plain, unfreeze=99, batch_size=1000), 100, 5)
    assert found == [
        "batch_size is 1,000: each step takes all 100 images",
        "unfreeze is 99: all 5 blocks are trained",
    ]
    unvaried = replace(plain, augment=False, policy="rand", flip=True, views=2)
    assert [text.partition(" ")[0] for text in without_effect(unvaried, 100, 5)] == [
        "policy",
        "flip",
        "views",
    ]
    assert len(without_effect(replace(plain, mix="mixup", batch_size=1), 100, 5)) == 1
    assert without_effect(replace(plain, unfreeze=1.0), 100, 5) == []
    cut = replace(plain, mix="cutmix")
    assert without_effect(cut, 100, 5) == []
    assert "mixup" in without_effect(replace(cut, views=2), 100, 5)[0]
    assert without_effect(replace(cut, views=2, unfreeze="all"), 100, 5) == []


def test_memory_that_ran_out_is_told_from_other_errors() -> None:
    for error in (
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate"),
        MemoryError(),
    ):
        assert halved(9, error) == 5
        with pytest.raises(TrainingError, match="one image does not fit"):
            halved(1, error)
    other = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    with pytest.raises(RuntimeError) as caught:
        halved(9, other)
    assert caught.value is other


@pytest.mark.parametrize(("images", "batch"), [(24, 8), (63, 16), (7, 64), (100, 64), (10, 3)])
def test_every_pass_gives_every_image_once_in_full_batches(images: int, batch: int) -> None:
    rows, epochs = np.arange(1000, 1000 + images), 6
    sampler = Sampler(rows, batch, epochs, seed=0)
    found = [sampler.batch(step) for step in range(sampler.steps)]
    assert all(len(part) == min(batch, images) for part, _ in found)
    seen = Counter(
        (int(number), int(row))
        for part, numbers in found
        for row, number in zip(part, numbers, strict=True)
    )
    assert set(seen.values()) == {1}
    whole = sampler.steps * sampler.batch_size // images
    for number in range(whole):
        assert {row for pass_, row in seen if pass_ == number} == set(rows.tolist())
    assert len({tuple(part) for part, _ in found}) == len(found) or images < 8
    assert sampler.end_of(epochs - 1) == sampler.steps


def test_the_rate_warms_up_and_ends_near_zero() -> None:
    factors = [rate_factor(step, 100, 0.1) for step in range(100)]
    assert factors[:10] == pytest.approx([0.1 * n for n in range(1, 11)])
    cosine = [0.5 * (1 + np.cos(np.pi * n / 90)) for n in range(90)]
    assert factors[10:] == pytest.approx(cosine)


def test_a_short_training_warms_up_for_ten_steps_or_until_it_meets_the_cosine() -> None:
    """A tenth of twelve steps is one, at whose whole rate AdamW undoes what the network knows."""
    factors = [rate_factor(step, 12, 0.1) for step in range(12)]
    peak = int(np.argmax(factors))
    assert factors[:peak] == pytest.approx([0.1 * n for n in range(1, peak + 1)])
    assert 4 <= peak <= 7
    assert factors[peak:] == sorted(factors[peak:], reverse=True)
    assert factors[-1] < 0.1
    assert rate_factor(0, 12, 0.0) == 1  # who asks for no warm-up gets none


def test_gradual_unfreezing_lets_one_block_after_the_other_join() -> None:
    counts = [joined_blocks(step / 40, 4, 0.5) for step in range(40)]
    assert counts[0] == 0
    assert counts == sorted(counts)
    assert set(counts) == {0, 1, 2, 3, 4}
    assert counts[20:] == [4] * 20
    assert joined_blocks(0.0, 4, 0.0) == 4
    backbone = build("timm/test_resnet", weights="random", image_size=32)
    division = divide_by(backbone, 3)
    now = joined(backbone, division, 1)
    blocks = dict(backbone.blocks())
    assert now.trained == division.trained[-1:]
    for name in division.trained:
        wants = {p.requires_grad for p in blocks[name].parameters()}
        assert wants == {name in now.trained}


def test_the_average_follows_the_weights_and_leaves_them_alone() -> None:
    weight = torch.zeros(3)
    average = Average({"w": weight}, 0.9)
    expected = 0.0
    for step in range(50):
        weight += 1.0
        average.update(step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * float(weight[0])
    with average.applied():
        assert weight.tolist() == pytest.approx([expected] * 3, rel=1e-5)
    assert weight.tolist() == [50.0] * 3


def test_mixup_keeps_the_sum_of_a_pair() -> None:
    torch.manual_seed(0)
    x, targets = torch.eye(4), torch.tensor([0, 1, 2, 3])
    both, shares = mixed(x, targets, 4, "mixup")
    assert torch.allclose(both, shares)  # one-hot images: mixed exactly as their labels
    assert torch.allclose(shares.sum(1), torch.ones(4))


def test_cutmix_shares_are_those_of_the_area() -> None:
    torch.manual_seed(1)
    x = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 20, 20).clone()
    cut, shares = mixed(x, torch.arange(4), 4, "cutmix")
    for number in range(4):
        area = (cut[number] == number).float().mean()
        assert float(shares[number, number]) == pytest.approx(float(area), abs=1e-5)


def test_the_balanced_loss_is_torchs_weighted_mean() -> None:
    labels = np.array([0, 0, 0, 1, 2, 2])
    weights = class_weights(labels, 4, balanced=True)
    logits, targets = torch.randn(6, 4), torch.from_numpy(labels)
    ours = summed_loss(logits, targets, weights, 0.0) / total_weight(targets, weights)
    assert float(ours) == pytest.approx(float(F.cross_entropy(logits, targets, weight=weights)))
    assert torch.equal(class_weights(labels, 4, balanced=False), torch.ones(4))
    shares = F.one_hot(targets, 4).float()
    soft = summed_loss(logits, shares, weights, 0.0) / total_weight(shares, weights)
    assert float(soft) == pytest.approx(float(ours), rel=1e-5)


def test_the_guard_cuts_once_after_several_epochs_below_the_probe() -> None:
    at, cuts = Progressed(), []
    for accuracy in (0.95, 0.85, 0.85, 0.95, 0.85, 0.8, 0.85, 0.8, 0.8, 0.8, 0.8):
        at.epoch += 1
        if cut_rate(at, accuracy, 0.9, Settings()):
            cuts.append(at.epoch)
    assert cuts == [7]
    assert at.rate == pytest.approx(0.1)
    other = Progressed()
    assert not any(cut_rate(other, 0.1, None, Settings()) for _ in range(9))
    assert not any(cut_rate(other, 0.1, 0.9, Settings(guard=False)) for _ in range(9))
