"""Two runs side by side: settings, data and figures that differ, and a paired comparison."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from graftline_pipelines.local.runs import RunRecord

CONFIDENCE = 0.95
FIGURES = {  # of the evaluation, with the words for a person
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "log_loss": "log loss",
    "ece": "calibration error",
}


@dataclass(frozen=True, kw_only=True)
class Paired:
    """Both models on the test images that they have in common.

    Attributes:
        images: How many there are.
        relabelled: Common test images that have another label in the second run; they are left
            out.
        accuracy: Of each on them.
        only_first: Images that only the first gets right.
        only_second: Images that only the second gets right.
        difference: Accuracy of the second minus that of the first.
        interval: Its 95% interval; images of one group count as what they are worth together.
    """

    images: int
    relabelled: int
    accuracy: tuple[float, float]
    only_first: int
    only_second: int
    difference: float
    interval: tuple[float, float]

    def sentence(self) -> str:
        """What it comes to."""
        low, high = self.interval
        span = f"{100 * low:+z.1f} to {100 * high:+z.1f} points".replace("-", "−")
        if low > 0:
            return f"The second is better by {100 * self.difference:.1f} points (95%: {span})."
        if high < 0:
            return f"The first is better by {-100 * self.difference:.1f} points (95%: {span})."
        return (
            f"No difference is shown: {100 * self.difference:+z.1f} points".replace("-", "−")
            + f", and with 95% confidence {span}."
        )


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What differs between two runs.

    Attributes:
        settings: Key of the run file to both values; None where one of the runs kept no settings.
        data: What is said of the data to both values.
        images: Images that only one has, that were relabelled or changed their split; None where
            a manifest is missing.
        figures: Name to value and interval of both.
        paired: The comparison on common test images; None where there are none.
    """

    settings: dict[str, tuple[Any, Any]] | None
    data: dict[str, tuple[Any, Any]]
    images: dict[str, int] | None
    figures: dict[str, tuple[Any, Any]]
    paired: Paired | None

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self)


def compare(first: RunRecord, second: RunRecord) -> Comparison:
    """Compare two runs by what they recorded; no model is run."""
    rows = [_manifest(run) for run in (first, second)]
    known = rows[0] is not None and rows[1] is not None
    return Comparison(
        settings=_settings(first, second),
        data=_differing(_data(first), _data(second)),
        images=_images(rows[0] or {}, rows[1] or {}) if known else None,
        figures=_figures(first, second),
        paired=_paired(first, second, rows[0] or {}, rows[1] or {}) if known else None,
    )


def _settings(first: RunRecord, second: RunRecord) -> dict[str, tuple[Any, Any]] | None:
    if not first.settings or not second.settings:
        return None
    return _differing(_flat(first.settings), _flat(second.settings))


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            found.update(_flat(value, f"{prefix}{key}."))
        else:
            found[prefix + key] = value
    return found


def _differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    keys = [*first, *(key for key in second if key not in first)]
    pairs = {key: (first.get(key), second.get(key)) for key in keys}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def _data(run: RunRecord) -> dict[str, Any]:
    ingested = run.result("ingest")
    images = ingested.get("images") or {}
    per_class = ingested.get("per_class") or {}
    found: dict[str, Any] = {"snapshot": ingested.get("snapshot_id")}
    found.update({f"{split} images": count for split, count in images.items()})
    found.update({f"images of {label}": count for label, count in per_class.items()})
    found["rejected"] = sum((ingested.get("set_aside") or {}).values()) if ingested else None
    return found


def _manifest(run: RunRecord) -> dict[str, dict[str, Any]] | None:
    """Label, split and group of each image, by its id."""
    path = run.artifact("ingest", "snapshot/manifest.parquet")
    if path is None:
        return None
    import pyarrow.parquet as pq

    table = pq.read_table(path, columns=["image_id", "label", "split", "group"])
    return {row["image_id"]: row for row in table.to_pylist()}


def _images(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, int]:
    both = first.keys() & second.keys()
    changed = Counter(
        key
        for image in both
        for key in ("label", "split")
        if first[image][key] != second[image][key]
    )
    found = {
        "only in the first": len(first.keys() - both),
        "only in the second": len(second.keys() - both),
        "with another label": changed["label"],
        "in another split": changed["split"],
    }
    return {name: count for name, count in found.items() if count}


def _figures(first: RunRecord, second: RunRecord) -> dict[str, tuple[Any, Any]]:
    def row(run: RunRecord) -> dict[str, Any]:
        found: dict[str, Any] = {"strategy": run.strategy}
        for key, name in FIGURES.items():
            if key in run.test:
                found[name] = {"value": run.test[key], "interval": run.test.get(f"{key}_ci")}
        found["verdict"] = run.outcome()
        found["seconds"] = round(sum(run.seconds.values()), 1)
        return found

    one, other = row(first), row(second)
    return {
        key: (one.get(key), other.get(key)) for key in [*one, *(k for k in other if k not in one)]
    }


def _paired(
    first: RunRecord, second: RunRecord, rows: Mapping[str, Any], others: Mapping[str, Any]
) -> Paired | None:
    """By the answers that each export kept as its proof."""
    import numpy as np

    from graftline.stats.intervals import difference_interval
    from graftline.stats.paired_tests import effective_images

    answers = [found for run in (first, second) if (found := _answers(run)) is not None]
    if len(answers) < 2:
        return None
    common = sorted(answers[0].keys() & answers[1].keys() & rows.keys() & others.keys())
    same = [image for image in common if rows[image]["label"] == others[image]["label"]]
    if not same:
        return None
    right = np.array([[a[i] == rows[i]["label"] for i in same] for a in answers], dtype=np.int64)
    differences = right[1] - right[0]
    n, worth = len(same), effective_images(differences, _groups(same, rows, others))
    gained, lost = int((differences > 0).sum()), int((differences < 0).sum())
    scale = worth / n
    return Paired(
        images=n,
        relabelled=len(common) - n,
        accuracy=(float(right[0].mean()), float(right[1].mean())),
        only_first=lost,
        only_second=gained,
        difference=float(differences.mean()),
        interval=difference_interval(gained * scale, lost * scale, worth, CONFIDENCE),
    )


def _groups(images: list[str], rows: Mapping[str, Any], others: Mapping[str, Any]) -> Any:
    """Integer group of each image by either run's grouping; None where each is its own."""
    import numpy as np

    found: dict[str, int] = {}
    groups = [str(rows[i]["group"] or others[i]["group"] or i) for i in images]
    numbers = np.array([found.setdefault(group, len(found)) for group in groups], dtype=np.int64)
    return numbers if len(found) < len(images) else None


def _answers(run: RunRecord) -> dict[str, str] | None:
    """The label that a run's model gives to each of its test images."""
    from graftline.onnx_model.reference import REFERENCE_FILE, read_reference

    path = run.folder / REFERENCE_FILE
    classes = run.result("ingest").get("classes")
    if not path.is_file() or not classes:
        return None
    reference = read_reference(path)
    best = reference.probabilities.argmax(axis=1)
    return {image: classes[k] for image, k in zip(reference.image_ids, best, strict=True)}
