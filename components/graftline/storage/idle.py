"""What trainings left in a store and nobody has written to for a long time."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

from graftline.storage import folders
from graftline.storage.base import Store

DAYS = 30.0  # a training that is under way writes every five minutes
SECONDS_PER_DAY = 86400.0


@dataclass(frozen=True)
class Idle:
    """The idle entries of one folder.

    Attributes:
        folder: Its name.
        entries: How many: trainings, searches or jobs.
        files: That they consist of.
        bytes: Their size.
    """

    folder: str
    entries: int
    files: int
    bytes: int


def collect_idle(store: Store, *, days: float = DAYS, remove: bool) -> Iterator[Idle]:
    """Find, and remove, what nobody has written to for this long. Folders without any are left out.

    An entry is what stands together below the folder, such as the checkpoints of one training. It
    goes as a whole, or, if one of its files is younger or of unknown age, not at all. A training
    that comes back after this time starts from the probe again.

    Args:
        store: The store.
        days: Without a write.
        remove: False only looks.
    """
    before = time.time() - days * SECONDS_PER_DAY
    for folder in folders.names("idle"):
        entries: dict[str, list[tuple[str, int, bool]]] = {}
        for info in store.list(f"{folder}/"):
            entry = info.key.split("/")[1]
            old = info.modified is not None and info.modified < before
            entries.setdefault(entry, []).append((info.key, info.size, old))
        idle = [files for files in entries.values() if all(old for _, _, old in files)]
        keys = [key for files in idle for key, _, _ in files]
        for key in keys if remove else ():
            store.delete(key)
        if keys:
            size = sum(size for files in idle for _, size, _ in files)
            yield Idle(folder, len(idle), len(keys), size)
