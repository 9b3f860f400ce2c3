"""Whether a selection can be learned from, said with names and numbers before any training."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from urllib.parse import unquote

from graftline.data.snapshot import MANIFEST, SPLITS
from graftline.data.sources.base import Entry, Source
from graftline.data.sources.label_text import clip
from graftline.data.sources.layouts.layout import NO_CLASS, exclude_line
from graftline.data.sources.table_images import NOT_FOUND
from graftline.errors import ConfigurationError, DataError
from graftline.stats.wording import counted
from graftline.steps.ingest.incomplete import carved, missing_splits, refuse_missing
from graftline.steps.ingest.selection import Selection
from graftline.steps.ingest.source_index import Memory, memory_key
from graftline.storage.base import Store
from graftline.storage.uri import local_path, shown

SHOWN = 5
SHOWN_PAIRS = 3
MIN_IMAGES_PER_CLASS = 3
MANY = 0.2  # of the images in groups of near-duplicates, from which it is said
MOST_COPIES = {"auto": 0.8, "strict": 0.2}  # of the images, or of a class, further copies
FEW_IMAGES = 20  # under which a share means nothing
TOLERANCE = 1e-6


def check_attributes(attributes: Sequence[str]) -> None:
    """Refuse attribute columns that the manifest has already."""
    taken = sorted(set(attributes) & set(MANIFEST.names))
    if taken:
        raise ConfigurationError(
            f"data.attributes names {', '.join(taken)}, which the manifest uses itself",
            fix="Rename the column in the table.",
        )


def check_listing(source: Source, entries: Sequence[Entry], minimum: int) -> str:
    """What a listing tells before any image is read, in a sentence.

    Raises:
        DataError: It tells already that nothing can be learned from this source.
    """
    aside = Counter(str(entry.problem) for entry in entries if entry.problem is not None)
    left = f"; rejected: {_listed(aside)}" if aside else ""
    usable = [entry for entry in entries if entry.problem is None]
    if any(entry.archive for entry in usable):
        size = sum(entry.size for entry in usable) / 2**20
        return f"{len(usable):,} archives, {size:,.0f} MiB{left}"
    counts = Counter(str(entry.label) for entry in usable)
    examples = [entry.path for entry in entries if entry.problem is not None]
    given = bool(usable) and all(entry.split for entry in usable)
    _check_counts(source, counts, aside, examples, 1 if given else minimum)
    return f"{len(usable):,} files listed in {len(counts)} classes ({_listed(counts)}){left}"


def check_given(
    source: Source,
    entries: Sequence[Entry],
    split: Mapping[str, float],
    minimum: int,
    mode: str,
) -> str:
    """What the splits that a listing gives come to, in a sentence; empty where nothing is missing.

    Raises:
        DataError: A split is missing and `data.missing_splits` refuses that, or what a later step
            needs is not there.
    """
    usable = [entry for entry in entries if entry.problem is None]
    missing = missing_splits((entry.split for entry in usable), split)
    refuse_missing(missing, mode)
    if usable and minimum > 1 and all(e.split and not e.archive for e in usable):
        _check_tested(
            {(str(e.label), str(e.split)) for e in usable},
            sorted({str(e.label) for e in usable}),
            given={e.split for e in usable},
            chosen=_how_to_choose(source),
        )
    return carved(missing, split) if missing else ""


def check_selection(selection: Selection, source: Source, minimum: int) -> list[str]:
    """Refuse what cannot be learned from; what is merely poor comes back as warnings.

    Raises:
        DataError: No image, one class, classes with too few images or none to train on.
    """
    aside = Counter(one.reason for one in selection.aside)
    counts = Counter(str(one.label) for one in selection.chosen.values())
    given = all(one.split for one in selection.chosen.values())
    examples = [f"{one.path}: {one.detail}" if one.detail else one.path for one in selection.aside]
    _check_counts(source, counts, aside, examples, 1 if given else minimum)
    return _check_splits(selection, source, sorted(counts), minimum)


def check_near_duplicates(selection: Selection, near: str) -> list[str]:
    """Refuse data that are mostly copies; say what was grouped, contradicts or leaks.

    Raises:
        DataError: Too large a share of the images, or of a class, are further copies.
    """
    alike, chosen = selection.alike, selection.chosen
    if not alike.pairs:
        return []
    examples = _examples(selection, alike.pairs)
    for what, share, size in _shares_of_copies(selection):
        if size >= FEW_IMAGES and share > MOST_COPIES[near]:
            raise DataError(
                f"{share:.0%} of {what} are copies of other images there",
                why=f"data.near_duplicates: {near} allows {MOST_COPIES[near]:.0%}; the same "
                f"picture was found in {examples}",
                fix="Look at these pairs. If they are copies, keep one of each, or name what "
                "belongs together in data.group_column. If they are different pictures, set "
                "data.near_duplicates: off.",
            )
    _refuse_classes_of_the_same(selection)
    warnings = []
    if selection.near > MANY * len(chosen):
        warnings.append(
            f"{selection.near:,} of {len(chosen):,} images show the same picture as another one "
            f"and share its split: {examples}. If these are different pictures, set "
            "data.near_duplicates: off"
        )
    if alike.contradictions:
        found = counted(len(alike.contradictions), "pair shows", "pairs show")
        warnings.append(
            f"Contradicting labels: {found} the same picture under two labels: "
            f"{_examples(selection, alike.contradictions)}. Correct the labels, "
            "or set data.near_duplicates: strict to reject them"
        )
    if alike.not_evaluated:
        warnings.append(
            f"{len(alike.not_evaluated):,} held-out images show the same picture as one of an "
            "earlier split and are left out of the evaluation: "
            f"{_examples(selection, tuple(alike.not_evaluated.items()))}"
        )
    return warnings


def _refuse_classes_of_the_same(selection: Selection) -> None:
    """Refuse classes that mostly show the same pictures as one another: forms, not classes."""
    chosen, pairs = selection.chosen, selection.alike.contradictions
    sizes = Counter(str(one.label) for one in chosen.values())
    twice = Counter(str(chosen[image].label) for image in {i for pair in pairs for i in pair})
    same = sorted(
        label for label, n in twice.items() if sizes[label] >= FEW_IMAGES and n > sizes[label] / 2
    )
    if len(same) < 2:
        return
    raise DataError(
        f"Most images of {_names(same)} show the same pictures",
        why=f"the same picture was found in {_examples(selection, pairs)}: these may be forms of "
        "pictures (large and small, original and changed) rather than classes",
        fix="Leave all but one of these folders out with data.exclude, and give each class its "
        "own folder. If they are classes, set `data.near_duplicates: off`; if single labels are "
        "wrong, correct them, or set `data.near_duplicates: strict` to reject these images.",
    )


def _shares_of_copies(selection: Selection) -> list[tuple[str, float, int]]:
    sizes = Counter(str(one.label) for one in selection.chosen.values())
    copies = Counter(str(selection.chosen[i].label) for i in selection.alike.copies)
    whole = ("the images", copies.total() / sizes.total(), sizes.total())
    return [
        whole,
        *((f"the images of {c!r}", copies[c] / n, n) for c, n in sorted(sizes.items())),
    ]


def _examples(selection: Selection, pairs: Sequence[tuple[str, str]]) -> str:
    def name(image_id: str, label: bool) -> str:
        one = selection.chosen[image_id]
        text = one.path if len(one.path) <= 100 else f"{one.path[:97]}..."
        return f"{text} ({one.label})" if label else text

    shown = []
    for one, other in pairs[:SHOWN_PAIRS]:
        labels = selection.chosen[one].label != selection.chosen[other].label
        shown.append(f"{name(one, labels)} and {name(other, labels)}")
    hidden = len(pairs) - SHOWN_PAIRS
    more = f" and {counted(hidden, 'more pair')}" if hidden > 0 else ""
    return "; ".join(shown) + more


def check_remembered(
    memory: Memory, wanted: Mapping[str, float], store: Store, source_uri: str
) -> list[str]:
    """Say that other shares or another seed do not change the splits that images have had."""
    if not memory.splits or memory.split is None:
        memory.split = dict(wanted)
        return []
    said = changed_split(memory.split, wanted, store, source_uri, len(memory.splits))
    return [said] if said else []


def changed_split(
    earlier: Mapping[str, float] | None,
    wanted: Mapping[str, float],
    store: Store,
    source_uri: str,
    images: int | None = None,
) -> str:
    """What other shares or another seed than in earlier runs mean; empty where nothing changed.

    Args:
        earlier: Those of the last run, None before the first.
        wanted: Those of the run file.
        store: Remembers the splits.
        source_uri: Of the source.
        images: How many have a split, where that is known.
    """
    changed = [
        f"{'seed' if name == 'seed' else f'data.split.{name}'} is {wanted.get(name, 0):g}, "
        f"was {earlier.get(name, 0):g}"
        for name in (*SPLITS, "seed")
        if earlier and abs(wanted.get(name, 0) - earlier.get(name, 0)) > TOLERANCE
    ]
    if not changed:
        return ""
    return (
        f"{'; '.join(changed)}: {'the' if images is None else f'{images:,}'} images of this source "
        "that already have a split keep it, so only new images are split by these values. To split "
        f"all images again, use another `store`, or remove "
        f"{shown(store.uri)}/{memory_key(source_uri)}: models trained before cannot be "
        "compared fairly on the new test images. Otherwise restore the earlier values"
    )


def _check_counts(
    source: Source,
    counts: Mapping[str, int],
    aside: Mapping[str, int],
    examples: Sequence[str],
    minimum: int,
) -> None:
    """Refuse no image, one class, and classes with fewer images than the minimum."""
    understood = "".join(f". {note.rstrip('.')}" for note in source.notes)
    also = (f"; rejected: {_listed(aside)}" if aside else "") + understood
    few = {label: count for label, count in counts.items() if count < minimum}
    if not counts:
        raise DataError(
            f"No usable image in {source.uri}",
            why=f"{_all_files(sum(aside.values()))} rejected: {_listed(aside)}"
            + (f"; for instance {clip(examples[0], 300)}" if examples else "")
            + understood,
            fix=_one_class_given(source, aside)
            or _no_texts(aside)
            or _no_files(source, aside)
            or (
                "Write the label of each image beside it in the archive (001.jpg, 001.cls), or "
                "pack one folder for each class. If each archive is a class, unpack it into a "
                "folder of its name."
                if source.format == "shards"
                else "Correct `data.source` and `data.format`: class folders of images, a CSV "
                "table or tar shards."
            ),
        )
    if len(counts) == 1:
        raise DataError(
            f"{_all_images(sum(counts.values()), source.uri)} the one label "
            f"{clip(next(iter(counts)))!r}",
            why="a classifier needs at least two classes" + also,
            fix=_ONE_LABEL.get(source.format, _ONE_LABEL["table"]),
        )
    if few:
        raise DataError(
            f"Too few images in {_listed(few)}",
            why=f"a class needs {minimum}: one each to train on, to calibrate on and to test on"
            + also,
            fix="Add images to these classes, merge them with others, or leave them out "
            + (f"(`{exclude_line(few)}`)." if source.format == "folders" else "of the table."),
        )


def _all_files(count: int) -> str:
    return "the only file was" if count == 1 else f"all {count:,} files were"


def _all_images(count: int, uri: str) -> str:
    return f"The only image in {uri} has" if count == 1 else f"All {count:,} images in {uri} have"


_ONE_LABEL = {
    "folders": "Put each class in a folder of its own, or let a table name the labels.",
    "table": "Correct `data.label_column`, or put each class in a folder of its own.",
    "shards": "Write the label of each image beside it in the archive (001.jpg, 001.cls), or pack "
    "one folder for each class. If a table names the labels, unpack the archive or pack it as ZIP: "
    "tables are read there.",
}


def _no_texts(aside: Mapping[str, int]) -> str:
    """What to do where a table's cells hold lists or objects."""
    odd = [reason for reason in aside if reason.endswith(", not a text")]
    return f"Write one text or number there in each row: {clip(odd[0])}." if odd else ""


def _no_files(source: Source, aside: Mapping[str, int]) -> str:
    """What to do where a table names files that are not there."""
    if source.format != "table" or set(aside) != {NOT_FOUND}:
        return ""
    return (
        "Correct the paths in the table: they begin at its folder, or are absolute, or s3:// URIs. "
        "`data.image_column` names the column that holds them."
    )


def _one_class_given(source: Source, aside: Mapping[str, int]) -> str:
    """What to give in place of a folder of one class, whose images are in no folder of it."""
    if set(aside) != {NO_CLASS} or any("form that is not read" in one for one in source.notes):
        return ""
    folder, _, name = source.uri.rstrip("/").rpartition("/")
    path = local_path(folder)
    return (
        f"Give the folder that holds a folder for each class. If {unquote(name)!r} is one of the "
        f"classes, that is {path or folder}."
    )


def _check_tested(
    have: Collection[tuple[str, str]],
    labels: Sequence[str],
    *,
    given: Collection[str | None],
    chosen: str,
) -> None:
    """Refuse splits that the steps after this one cannot work with.

    Args:
        have: Labels and splits that occur together.
        labels: All of them.
        given: The splits that the source itself gives.
        chosen: The line of the run file that has them chosen.
    """
    trained = {label for label, split in have if split == "train"}
    untrained = [label for label in labels if label not in trained]
    if untrained:
        raise DataError(
            f"No image to train on in {_names(untrained)}",
            why="the splits that the source gives, or groups that must stay together, put all of "
            "them into val or test",
            fix="Add images of other groups, or put some into train. To have the splits chosen "
            f"from all images, set {chosen}.",
        )
    for split in ("val", "test"):
        tested = {label for label, one in have if one == split}
        if len(tested) != 1:
            continue
        others = _names([label for label in labels if label not in tested])
        raise DataError(
            f"All {split} images are of the one class {_names(sorted(tested))}",
            why="a model that always says this class would look perfect",
            fix=f"Put images of other classes into {split}, or have the splits chosen: {chosen}."
            if split in given
            else f"Add images of {others}, of other groups than those that are there: whole groups "
            "and near-duplicates go to one split.",
        )


def _how_to_choose(source: Source) -> str:
    """The line of the run file that has the splits chosen, where the source states them."""
    layout = source.layout
    if source.format != "folders" or layout is None:
        return "`data.split_column: null`"
    if "split" in layout.pattern:
        return f'`data.layout: "{layout.text.replace("split", "*")}"`'
    return "`data.format: folders`"  # lists beside the folders state them


def _check_splits(
    selection: Selection, source: Source, labels: list[str], minimum: int
) -> list[str]:
    splits = selection.assignment.splits
    left_out = selection.alike.not_evaluated
    have = Counter(
        (str(one.label), splits[i]) for i, one in selection.chosen.items() if i not in left_out
    )
    without = {s: [label for label in labels if not have[label, s]] for s in SPLITS}
    pairs = set(have) if minimum > 1 else {pair for pair in have if pair[1] == "train"}
    given = {one.split for one in selection.chosen.values()}
    _check_tested(pairs, labels, given=given, chosen=_how_to_choose(source))
    warnings = []
    for split in ("val", "test"):
        if minimum > 1 and len(without[split]) == len(labels):
            raise DataError(
                f"No image is in {split}",
                why="a model is calibrated on val and tested on test",
                fix=f"Give data.split.{split} a larger share, or add images of other groups: "
                "whole groups go to one split.",
            )
    warnings += [
        f"No {split} image in {_names(without[split])}: too few images or groups"
        for split in ("val", "test")
        if without[split]
    ]
    if selection.across:
        warnings.append(
            f"{counted(selection.across, 'image looks', 'images look')} like one in another split, "
            "since the table, the groups or earlier runs say so: the test may flatter the model"
        )
    if selection.scattered:
        warnings.append(
            f"{counted(selection.scattered, 'group has', 'groups have')} images in more than one "
            "split, since the source says so: the test may flatter the model"
        )
    if selection.moved:
        warnings.append(
            f"{counted(selection.moved, 'image is', 'images are')} in another split than before, "
            "since the table says so: earlier models may have been trained on what is now test"
        )
    return warnings


def _listed(counts: Mapping[str, int]) -> str:
    top = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    text = ", ".join(f"{clip(name)} ({count:,})" for name, count in top[:SHOWN])
    return text + (f" and {len(top) - SHOWN} more" if len(top) > SHOWN else "")


def _names(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - SHOWN} more" if len(labels) > SHOWN else ""
    return ", ".join(repr(clip(label)) for label in labels[:SHOWN]) + more
