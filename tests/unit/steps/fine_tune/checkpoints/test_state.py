"""What comes back from a checkpoint belongs to the training, and no longer to the checkpoint."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from graftline.steps.fine_tune.checkpoints import state
from graftline.steps.fine_tune.checkpoints.resume import PREVIOUS, Checkpoints
from graftline.steps.fine_tune.checkpoints.state import Progressed
from graftline.steps.fine_tune.optimizer.ema import Average
from graftline.storage import open_store


@pytest.mark.parametrize("resumed", [False, True])
def test_the_checkpoint_before_the_last_one_keeps_its_own_history(
    tmp_path: Path, resumed: bool
) -> None:
    """A training that fell back to it had the epochs in between twice in its record."""
    tensors = {"weight": torch.ones(2)}
    optimizer = torch.optim.SGD([nn.Parameter(tensors["weight"])], lr=0.1)
    average = Average(tensors, 0.0)
    at = Progressed(history=[{"epoch": 1}])
    checkpoints = Checkpoints(open_store(str(tmp_path)), "key")
    checkpoints.save(state.gather(at, tensors, optimizer, average, {}))
    if resumed:
        checkpoints = Checkpoints(open_store(str(tmp_path)), "key")
        found = checkpoints.latest()
        assert found is not None
        at, _ = state.restore(found, tensors, optimizer, average)
    at.history.append({"epoch": 2})
    at.steps_done = 5
    checkpoints.save(state.gather(at, tensors, optimizer, average, {}))
    before = json.loads((tmp_path / "checkpoints" / "key" / PREVIOUS).read_text())
    assert before["scalars"]["history"] == [{"epoch": 1}]
