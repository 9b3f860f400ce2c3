"""The model card: data, figures, limits and intended use, for whoever meets the model later."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from graftline.data.snapshot import SPLITS, Snapshot
from graftline.onnx_model.predict import ModelMetadata
from graftline.records.export import agreement
from graftline.records.verdict import Verdict

COUNTS = ("images", "top_k")  # records hold figures as floats
INTERVAL = "_ci"
FEW_TEST_IMAGES = 20  # below it, a class's recall is a guess

INTENDED_USE = (
    "Telling the classes below apart in images like those of the data below: same kind of camera, "
    "subject and framing. It is not meant for decisions about people, nor for images of another "
    "kind, without an evaluation of its own."
)


def model_card(
    *,
    name: str,
    snapshot: Snapshot,
    metadata: ModelMetadata,
    export: Mapping[str, Any],
    verdict: Verdict,
    intended_use: str | None = None,
) -> str:
    """Write the card.

    Args:
        name: The registered model.
        snapshot: The data.
        metadata: Of the exported file.
        export: The record of the export.
        verdict: Of the evaluation.
        intended_use: In the user's words; a careful default when not given.

    Returns:
        Markdown.
    """
    sections = (
        _summary(name, metadata),
        ("## Intended use", intended_use or INTENDED_USE),
        ("## Data", *_data(snapshot)),
        ("## Figures", *_figures(verdict)),
        ("## Verdict", *_verdict(verdict)),
        ("## The file", *_file(export, metadata)),
        ("## Limits", *_limits(snapshot, metadata)),
    )
    return "\n\n".join("\n\n".join(section) for section in sections) + "\n"


def _summary(name: str, metadata: ModelMetadata) -> tuple[str, ...]:
    return (
        f"# {_cell(name)}",
        f"An image classifier over {len(metadata.classes)} classes, made by transfer learning "
        f"with Graftline {metadata.graftline_version}: backbone `{metadata.backbone}`, strategy "
        f"`{metadata.strategy}`, tracking run `{metadata.run_id}`.",
    )


def _data(snapshot: Snapshot) -> Iterator[str]:
    splits = snapshot.column("split")
    labels = snapshot.column("label")
    yield (
        f"Snapshot `{snapshot.id}` of {_cell(snapshot.source)}, taken "
        f"{snapshot.created.replace('T', ' ').replace('+00:00', ' UTC')}; "
        f"{len(snapshot):,} images, {snapshot.set_aside.num_rows:,} rejected."
    )
    counts = {split: Counter(labels[splits == split]) for split in SPLITS}
    rows = [
        (_cell(label), *(f"{counts[split][label]:,}" for split in SPLITS))
        for label in snapshot.classes
    ]
    totals = ("all", *(f"{sum(counts[split].values()):,}" for split in SPLITS))
    yield _table(("class", *SPLITS), [*rows, totals])
    reasons = Counter(snapshot.set_aside.column("reason").to_pylist())
    if reasons:
        listed = ", ".join(f"{count:,} {_cell(reason)}" for reason, count in reasons.most_common())
        yield f"Rejected: {listed}."


def _figures(verdict: Verdict) -> Iterator[str]:
    yield "On the test split, which the model never saw."
    sides = {
        side: values
        for side, values in verdict.figures.items()
        if isinstance(values, Mapping) and any(_is_figure(v) for v in values.values())
    }
    if sides:
        names = dict.fromkeys(
            name for values in sides.values() for name, v in values.items() if _is_figure(v)
        )
        rows = [
            (name.replace("_", " "), *(_figure(values, name) for values in sides.values()))
            for name in names
            if not (name.endswith(INTERVAL) and name.removesuffix(INTERVAL) in names)
        ]
        yield _table(("figure", *sides), rows)
    flat = [(name, _number(v)) for name, v in verdict.figures.items() if _is_figure(v)]
    if flat:
        yield _table(("figure", "value"), flat)


def _verdict(verdict: Verdict) -> Iterator[str]:
    against = (
        f"against version {verdict.champion_version} on {verdict.compared_images:,} images"
        if verdict.champion_version
        else "as the first model under its name"
    )
    yield f"{'Passed' if verdict.promote else 'Not passed'}, {against}."
    lines = [f"- {'passed' if test.passed else 'FAILED'}: {test.reason}" for test in verdict.tests]
    yield "\n".join(lines or [f"- {reason}" for reason in verdict.reasons])


def _file(export: Mapping[str, Any], metadata: ModelMetadata) -> Iterator[str]:
    parity = export["parity"]
    yield (
        f"`model.onnx`, {export['bytes'] / 1e6:.1f} MB, opset {export['opset']}, sha256 "
        f"`{export['sha256']}`. In: `images`, uint8 (N, H, W, 3), RGB, any size. Out: "
        f"`probabilities` (N, {len(metadata.classes)}), calibrated (temperature "
        f"{metadata.temperature:.3f}), `embedding`"
        + (", and `distance` to the nearest class." if metadata.thresholds else ".")
    )
    yield (
        f"Compared with PyTorch: the same label on "
        f"{agreement(parity['images'], parity['label_agreement'])}, largest probability difference "
        f"{parity['max_probability_difference']:.1e}."
    )
    for precision, each in export.get("smaller", {}).items():
        yield (
            f"`{precision}`: "
            + (
                f"refused. {each['refused']}"
                if each["refused"]
                else f"{each['bytes'] / 1e6:.1f} MB"
            )
            + f" Accuracy {each['accuracy']:.4f}, same label on "
            f"{agreement(parity['images'], each['label_agreement'])}."
        )


def _limits(snapshot: Snapshot, metadata: ModelMetadata) -> Iterator[str]:
    test = Counter(snapshot.column("label")[snapshot.rows("test")])
    few = [label for label in snapshot.classes if test[label] < FEW_TEST_IMAGES]
    lines = [
        "- It knows the classes above and nothing else: an image of anything else gets one of "
        "them"
        + (
            ", unless `distance` is held against the threshold in the file."
            if metadata.thresholds
            else "."
        ),
        "- Its probabilities are calibrated for data like the validation split's; where the "
        "shares of the classes differ, they are off.",
        "- The figures hold for this source at that time; watch the `embedding` for drift.",
    ]
    if few:
        named = ", ".join(_cell(label) for label in few[:20]) + (" ..." if len(few) > 20 else "")
        lines.append(
            f"- Fewer than {FEW_TEST_IMAGES} test images, so that little is known of: {named}."
        )
    yield "\n".join(lines)


def _is_figure(value: Any) -> bool:
    return (isinstance(value, int | float) and not isinstance(value, bool)) or (
        isinstance(value, list | tuple) and len(value) == 2 and all(map(_is_figure, value))
    )


def _figure(values: Mapping[str, Any], name: str) -> str:
    """A figure with its interval."""
    value, interval = values.get(name), values.get(f"{name}{INTERVAL}")
    if name in COUNTS and value is not None:
        value = round(value)
    return _number(value) + (f" (95% {_number(interval)})" if interval is not None else "")


def _number(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list | tuple):
        return " to ".join(_number(each) for each in value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(text: str) -> str:
    """Text of a user's, without what Markdown would take as its own."""
    return "".join("\\" + c if c in "\\`*_[]<>|#" else c for c in str(text)).replace("\n", " ")
