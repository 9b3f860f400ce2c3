"""What changed in a source since a snapshot of it."""

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from graftline.data.snapshot import Snapshot
from graftline.data.sources.base import Entry, Source


@dataclasses.dataclass(frozen=True)
class Changes:
    """What a listing of the source says against a snapshot.

    Attributes:
        new: Listed now, unknown to the snapshot.
        changed: Known by name, with other bytes.
        relabelled: The same bytes under another label (where the listing tells labels).
        removed: Names that the snapshot knows and the listing lacks.
        unchanged: How many are the same.
    """

    new: list[Entry]
    changed: list[Entry]
    relabelled: list[Entry]
    removed: list[str]
    unchanged: int

    def __bool__(self) -> bool:
        return bool(self.new or self.changed or self.relabelled or self.removed)


def compare(source: Source, snapshot: "Snapshot") -> Changes:
    """Compare a listing of the source with a snapshot of it; no image is read.

    What the snapshot rejected counts as known: only a new version of it is a change.
    """
    known: dict[str, tuple[str, str | None]] = {}
    for table in (snapshot.set_aside, snapshot.manifest):
        columns = (table.column(name).to_pylist() for name in ("source", "source_version", "label"))
        for path, version, label in zip(*columns, strict=True):
            known[path] = (version, label)
    entries = source.entries()
    archives = {entry.path for entry in entries if entry.archive}
    for path in [path for path in known if archives and path.partition("#")[0] in archives]:
        known[path.partition("#")[0]] = known.pop(path)
    new, changed, relabelled, same = [], [], [], 0
    for entry in entries:
        if entry.problem is not None and entry.path not in known:
            continue  # says by itself that it is no image; nothing to train on
        version, label = known.pop(entry.path, (None, None))
        if version is None:
            new.append(entry)
        elif version != entry.version:
            changed.append(entry)
        elif entry.label is not None and label != entry.label:
            relabelled.append(entry)
        else:
            same += 1
    return Changes(new, changed, relabelled, sorted(known), same)
