"""The folders at the root of a store: what each holds, who writes it, and when it may go.

A test compares the writers here with the modules that write: a new folder cannot be forgotten.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Folder:
    """One folder.

    Attributes:
        name: Of the folder, without a slash.
        holds: What is in it.
        removed: When garbage collection removes something: ``never``; ``unused``, where nothing
            names it any more; or ``idle``, an entry that nobody has written to for a long time.
        writers: Modules that write to it.
    """

    name: str
    holds: str
    removed: Literal["never", "unused", "idle"]
    writers: tuple[str, ...]


FINE_TUNE = "graftline.steps.fine_tune"
FOLDERS = (
    Folder("shards", "images", "never", ("graftline.data.shards",)),
    Folder("snapshots", "data sets", "never", ("graftline.data.snapshot",)),
    Folder(
        "sources",
        "what is remembered of a source",
        "never",  # a run removes what it replaces
        ("graftline.steps.ingest.source_index", "graftline.steps.ingest.moved_source"),
    ),
    Folder(
        "features",
        "features",
        "unused",
        (
            "graftline.features.store",
            "graftline.features.engine_record",
            "graftline.features.part_reader",
            "graftline.steps.extract_features.request",
            "graftline.steps.extract_features.reduction",
        ),
    ),
    Folder("results", "results of steps", "unused", ("graftline.steps.kept_results",)),
    Folder("checkpoints", "states of trainings", "idle", (f"{FINE_TUNE}.checkpoints.resume",)),
    Folder(
        "fine-tune-searches",
        "trials of fine_tune.search",
        "idle",
        (f"{FINE_TUNE}.search",),
    ),
    Folder(
        "frozen-outputs",
        "outputs of frozen blocks in trainings",
        "idle",
        (f"{FINE_TUNE}.inputs.kept_outputs",),
    ),
    Folder("train-jobs", "inputs of trainings on several nodes", "idle", (f"{FINE_TUNE}.nodes",)),
    Folder("training-rates", "measured speeds", "never", ("graftline.records.training_forecast",)),
    Folder("weights", "mirrored weights", "never", ("graftline.models.weights.load",)),
    Folder(
        "races",
        "which backbone a race chose",
        "never",
        ("graftline_pipelines.local.race_memory",),
    ),
    Folder("champions", "logs of champions", "never", ("graftline.tracking.champion_log",)),
    Folder("news", "what watch found", "never", ("graftline.records.retrain_notice",)),
    Folder("pipeline-runs", "how steps ended", "never", ("graftline.records.run_records",)),
    Folder("doctor", "probes of the store", "idle", ("graftline.steps.doctor.store_probes",)),
)


def names(removed: Literal["never", "unused", "idle"]) -> tuple[str, ...]:
    """The folders of which garbage collection removes this."""
    return tuple(folder.name for folder in FOLDERS if folder.removed == removed)
