"""What each process of a TrainJob runs; torchrun says which of how many it is."""

import os
import signal
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from graftline.errors import ConfigurationError
from graftline.steps.fine_tune.processes import PATIENCE
from graftline.steps.fine_tune.ranks import Ranks
from graftline.steps.fine_tune.training import Order, help_training
from graftline.storage import commit, open_store


def main(arguments: dict[str, Any]) -> None:
    """Fetch the inputs, meet the other processes, and train with them.

    The first one writes checkpoints and listens to SIGTERM; the others end when it does.

    Args:
        arguments: An :class:`~graftline.steps.fine_tune.training.Order`, with ``inputs``, the
            folder of its files in the store, and ``files``, their names and digests.
    """
    rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if rank:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    gpus = torch.cuda.is_available()
    if gpus:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    given = dict(arguments)
    store, inputs, files = open_store(given["store"]), given.pop("inputs"), given.pop("files")
    with tempfile.TemporaryDirectory(prefix="graftline-node-") as name:
        folder = Path(name)
        for key, digest in files:
            commit.fetch_file(store, f"{inputs}/objects/{digest}", digest, folder / key)
        local = {k: str(folder / k) for k in ("snapshot_folder", "probe_folder", "decision_file")}
        order = {**given, **local}
        if given["strategy"] == "scratch" and not gpus:
            raise ConfigurationError(
                "training from random weights needs GPUs on several nodes",
                why="BatchNorm's statistics cannot be shared between CPUs",
                fix="set scratch.nodes to 1",
            )
        distributed.init_process_group("nccl" if gpus else "gloo", timeout=PATIENCE)
        try:
            help_training(Ranks(rank, count), **Order(**order).__dict__)
        finally:
            distributed.destroy_process_group()
