"""Step: has anything changed since the champion was trained, and is it worth a training?

The source is listed and compared with the champion's snapshot; no image is read unless something
is new. Then a sample of what is new is seen through the champion's own ONNX file, on a CPU, and
its features are compared with those of the champion's images.
"""

import dataclasses
import itertools
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

import graftline
from graftline.data.changes import Changes, compare
from graftline.data.snapshot import Snapshot, fetch_snapshot, read_images
from graftline.data.sources import open_source
from graftline.data.sources.base import Entry, Source
from graftline.errors import (
    DataError,
    IntegrityError,
    SchemaVersionError,
    StoreError,
    StoreNotFound,
    TrackingError,
)
from graftline.files import write_atomic
from graftline.onnx_model.predict import OnnxClassifier
from graftline.progress import message, progress
from graftline.settings import read_section
from graftline.steps.runtime import StepResult
from graftline.steps.watch.arguments import WatchConfig
from graftline.steps.watch.drift import FEWEST, Drift, Matrix, compare_features
from graftline.steps.watch.page import check_page
from graftline.steps.watch.triggers import Found, Rule, judge
from graftline.storage import open_store
from graftline.storage.base import Store
from graftline.tracking.client import connect
from graftline.tracking.filters import equals
from graftline.tracking.mlflow_run import TAG
from graftline.tracking.registry import RegisteredVersion, Registry, open_registry
from graftline.tracking.server_answers import mlflow_errors

FITTED_NETWORK = ("fine_tune", "scratch")  # strategies whose network has seen its training images
MAX_BYTES = 200_000_000  # of one image in an archive


@dataclasses.dataclass(frozen=True, kw_only=True)
class WatchResult(StepResult):
    """What a check found.

    Attributes:
        start: Whether training starts.
        reasons: Why or why not, a sentence each.
        champion: Version, snapshot and age of the champion; None where there is none.
        changes: Images by kind of change.
        drift: The two-sample test; None where it was not made.
        page: The page.
    """

    start: bool
    reasons: list[str]
    champion: dict[str, Any] | None
    changes: dict[str, int]
    drift: dict[str, Any] | None
    page: str | None

    def metrics(self) -> dict[str, float]:
        """Numbers of images, the decision, and the test's smallest p-value."""
        figures = {name: float(count) for name, count in self.changes.items()}
        if self.drift is not None:
            figures["drift_p"] = min(self.drift["p_values"])
        return {**figures, "start": float(self.start)}

    def params(self) -> dict[str, str]:
        """The reasons and the champion."""
        version = self.champion["version"] if self.champion else "none"
        return {"reasons": " ".join(self.reasons), "champion": version}

    def files(self) -> dict[str, Path]:
        """The page."""
        return {"watch.html": Path(self.page)} if self.page else {}


class _Listed(Source):
    """A source that is listed once, however often it is compared."""

    def __init__(self, source: Source) -> None:
        super().__init__()
        self.uri, self.format, self._source = source.uri, source.format, source
        self._entries: list[Entry] | None = None

    def entries(self) -> list[Entry]:
        if self._entries is None:
            self._entries = self._source.entries()
        return self._entries

    def read(self, entry: Entry) -> bytes:
        return self._source.read(entry)

    def unpack(self, entry: Entry, max_bytes: int) -> Iterator[tuple[Entry, bytes]]:
        return self._source.unpack(entry, max_bytes)


def run(
    *,
    source: str,
    store: str,
    tracking_uri: str,
    registered_model: str,
    page_file: Path | None = None,
    **config: Any,
) -> WatchResult:
    """Look for changes and decide.

    Args:
        source: The images' address.
        store: The store of the runs.
        tracking_uri: Tracking URI of MLflow, whose registry knows the champion.
        registered_model: The model whose champion is asked for.
        page_file: Where the page goes.
        config: See :class:`graftline.steps.watch.arguments.WatchConfig`.

    Raises:
        ConfigurationError: A setting is unknown or out of range.
        StoreError: The source or the store cannot be read.
        TrackingError: The registry cannot be read.
    """
    settings = read_section(WatchConfig, "", config)
    registry = open_registry(tracking_uri)
    champion = registry.champion(registered_model)
    listed = _Listed(open_source(source, settings.format, settings.columns, settings.reading))
    if champion is None:
        check = _Check(Found(0, 0, 0, 0), None, None)
        rules = [Rule("first", True, f"{registered_model} has no champion yet.")]
    else:
        check, rules = _check_and_judge(listed, champion, registry, open_store(store), settings)
    start = any(rule.met for rule in rules)
    reasons = [rule.sentence for rule in rules if rule.met == start]
    if start and all(rule.about_data for rule in rules if rule.met):
        refused = _refused_before(
            listed, champion, registered_model, tracking_uri, open_store(store), settings.backbone
        )
        if refused is not None:
            start, reasons = False, [refused]
    if check.changes is not None and not check.found.anything:
        reasons = ["Nothing changed since the champion was trained.", *(reasons if start else [])]
    for reason in reasons:
        message("%s", reason)
    return _result(start, reasons, rules, check, source, page_file)


@dataclasses.dataclass(frozen=True)
class _Check:
    found: Found
    changes: Changes | None
    champion: dict[str, Any] | None


def _check_and_judge(
    listed: _Listed,
    champion: RegisteredVersion,
    registry: Registry,
    store: Store,
    settings: WatchConfig,
) -> tuple[_Check, list[Rule]]:
    """Compare the source with the champion's snapshot, where that can be read."""
    about = _about(champion, registry)
    with tempfile.TemporaryDirectory(prefix="graftline-watch-") as folder:
        missing = "is not in the store"
        try:
            snapshot = _snapshot(champion, store, Path(folder))
        except (DataError, IntegrityError, SchemaVersionError) as error:
            snapshot, missing = None, f"cannot be read ({error.what.rstrip('.')})"
        if snapshot is None:
            why = f"The champion's snapshot {missing}: nothing to compare with."
            return _Check(Found(0, 0, 0, 0), None, about), [Rule("first", True, why)]
        check = _check_source(listed, champion, snapshot, about, settings)
    return check, judge(settings.when.model_dump(exclude_unset=True), check.found)


def _check_source(
    listed: _Listed,
    champion: RegisteredVersion,
    snapshot: Snapshot,
    about: dict[str, Any],
    settings: WatchConfig,
) -> _Check:
    changes = compare(listed, snapshot)
    new = [*changes.new, *changes.changed]
    archives = [entry for entry in new if entry.archive]
    found = Found(
        new=len(new) - len(archives) + _images_in(archives, snapshot),
        relabelled=len(changes.relabelled),
        removed=len(changes.removed),
        known=len(snapshot),
        estimated=bool(archives),
        age_days=about["age_days"],
    )
    message(
        "%s new, %s changed, %s relabelled, %s removed, %s the same",
        *(
            f"{count:,}"
            for count in (
                len(changes.new),
                len(changes.changed),
                found.relabelled,
                found.removed,
                changes.unchanged,
            )
        ),
    )
    when = settings.when.model_dump(exclude_unset=True)
    level = when.get("drift")
    if level is None:
        return _Check(found, changes, about)
    drift, why_not = None, "nothing is new"
    already = any(rule.met for rule in judge({**when, "drift": None}, found))
    if already:
        why_not = "another condition starts training already"
    elif found.new >= FEWEST:
        drift, why_not = _drift(
            listed, new, champion, snapshot, level, settings.sample, settings.seed
        )
    elif found.new:
        why_not = f"{found.new} new images are too few; it takes {FEWEST}"
    found = dataclasses.replace(found, drift=drift, drift_not_made=why_not)
    return _Check(found, changes, about)


def _snapshot(champion: RegisteredVersion, store: Store, folder: Path) -> Snapshot | None:
    """The champion's snapshot, from this run's store or from the one that it was trained with."""
    if champion.snapshot_id is None:
        return None
    places = [store]
    if champion.store is not None and champion.store != store.uri:
        places.append(open_store(champion.store))
    for place in places:
        try:
            return fetch_snapshot(place, champion.snapshot_id, folder)
        except StoreNotFound:
            continue
    return None


def _about(champion: RegisteredVersion, registry: Registry) -> dict[str, Any]:
    """What is said of the champion; its age counts from its promotion."""
    made = [
        entry.when for entry in registry.history(champion.name) if entry.version == champion.version
    ]
    age = None
    if made and made[-1]:
        promoted = datetime.fromisoformat(made[-1])
        promoted = promoted if promoted.tzinfo else promoted.replace(tzinfo=UTC)
        age = (datetime.now(UTC) - promoted).total_seconds() / 86400
    return {
        "name": champion.name,
        "version": champion.version,
        "snapshot_id": champion.snapshot_id,
        "age_days": age,
    }


def _images_in(archives: list[Entry], snapshot: Snapshot) -> int:
    """An estimate: archives are listed, not opened."""
    if not archives:
        return 0
    mean = float(np.mean(snapshot.column("bytes"))) + 1024  # a tar member's head and padding
    return max(len(archives), round(sum(entry.size for entry in archives) / mean))


def _drift(
    listed: _Listed,
    new: list[Entry],
    champion: RegisteredVersion,
    snapshot: Snapshot,
    level: float,
    sample: int,
    seed: int,
) -> tuple[Drift | None, str]:
    """The two-sample test, or why it could not be made."""
    rng = np.random.default_rng(seed)
    split = "val" if champion.tags.get(TAG + "strategy") in FITTED_NETWORK else "train"
    rows = snapshot.rows(split)
    if len(rows) < FEWEST:
        return None, f"the champion's {split} split has {len(rows)} images; it takes {FEWEST}"
    rows = snapshot.storage_order(rng.permutation(rows)[:sample])
    try:
        with tempfile.TemporaryDirectory(prefix="graftline-champion-") as folder:
            model = OnnxClassifier(champion.download_onnx(Path(folder)))
            known = (data for _, data in read_images(snapshot, rows))
            reference = _features(model, known, len(rows), "the champion's images")
            fresh = _features(model, _sample(listed, new, sample, rng), sample, "new images")
    except (StoreError, TrackingError, DataError) as error:
        return None, f"{error.what}"
    if min(len(reference), len(fresh)) < FEWEST:
        return None, f"only {len(fresh)} of the new images can be read; it takes {FEWEST}"
    return compare_features(reference, fresh, level, seed=seed), ""


def _features(model: OnnxClassifier, images: Iterator[bytes], total: int, what: str) -> Matrix:
    """Embeddings of images; those that cannot be decoded are left out."""

    def pixels() -> Iterator[np.ndarray]:
        for data in progress(images, f"checking {what}", total):
            try:
                yield model.decode(data)
            except DataError:
                continue

    found: Matrix = model.embeddings(pixels())
    return found


def _sample(
    listed: _Listed, new: list[Entry], sample: int, rng: np.random.Generator
) -> Iterator[bytes]:
    """The bytes of a random sample of new images; of archives, the first members."""

    def every() -> Iterator[bytes]:
        for index in rng.permutation(len(new)):
            entry = new[int(index)]
            if not entry.archive:
                yield listed.read(entry)
                continue
            for member, data in itertools.islice(listed.unpack(entry, MAX_BYTES), sample // 2):
                if member.problem is None:
                    yield data

    return itertools.islice(every(), sample)


def _refused_before(
    listed: _Listed,
    champion: RegisteredVersion | None,
    name: str,
    tracking_uri: str,
    store: Store,
    backbone: str | None,
) -> str | None:
    """A sentence, where exactly these images were trained on before and did not win.

    Training again, with the same code and backbone, would end in the same verdict.
    """
    client = connect(tracking_uri)
    with mlflow_errors(tracking_uri, f"the versions of {name}"):
        found = client.search_model_versions(equals("name", name))
    newest = max(found, key=lambda version: int(version.version), default=None)
    if newest is None or (champion and int(newest.version) <= int(champion.version)):
        return None
    tags = dict(newest.tags)
    if tags.get(TAG + "code_version") != graftline.__version__:
        return None
    if backbone is not None and tags.get(TAG + "backbone") != backbone:
        return None
    version = RegisteredVersion(name, str(newest.version), newest.run_id or "", tags, tracking_uri)
    with tempfile.TemporaryDirectory(prefix="graftline-watch-") as folder:
        try:
            snapshot = _snapshot(version, store, Path(folder))
        except (DataError, IntegrityError, SchemaVersionError):
            return None
        if snapshot is None or compare(listed, snapshot):
            return None
    return (
        f"Version {version.version} was trained on exactly these images and was not promoted; "
        "training again would give the same. `graftline run` and `submit` train all the same."
    )


def _result(
    start: bool,
    reasons: list[str],
    rules: list[Rule],
    check: _Check,
    source: str,
    page_file: Path | None,
) -> WatchResult:
    if page_file is not None:
        page = check_page(
            start=start,
            reasons=reasons,
            rules=rules,
            found=check.found,
            changes=check.changes,
            champion=check.champion,
            source=source,
            moment=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        write_atomic(page_file, page.encode())
    changes = check.changes
    return WatchResult(
        start=start,
        reasons=reasons,
        champion=check.champion,
        changes={
            "new": len(changes.new) if changes is not None else 0,
            "changed": len(changes.changed) if changes is not None else 0,
            "relabelled": check.found.relabelled,
            "removed": check.found.removed,
            "unchanged": changes.unchanged if changes is not None else 0,
        },
        drift=check.found.drift.as_dict() if check.found.drift else None,
        page=str(page_file) if page_file is not None else None,
    )
