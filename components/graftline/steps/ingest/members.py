"""Labels of what was looked at: class folders packed into archives, and labels that look alike."""

import dataclasses
import re
from collections import Counter

from graftline.data.sources.base import NO_IMAGE, Source, masks_named
from graftline.data.sources.layout_checks import (
    check_classes,
    groups_of_views,
    said_of_views,
)
from graftline.data.sources.layouts.decision import decide
from graftline.data.sources.layouts.folder_names import MASK
from graftline.data.sources.layouts.layout import (
    AmbiguousLayout,
    FolderMeaning,
    Layout,
    fixed,
    parse,
)
from graftline.data.sources.layouts.variant_names import said_of_variants, variants
from graftline.data.sources.layouts.view_names import FileNames
from graftline.data.sources.samples import FROM_FOLDER, NO_LABEL
from graftline.data.sources.similar_labels import unified
from graftline.data.sources.table_advice import ignored_files
from graftline.steps.ingest.known import Seen


def read_packed_folders(found: list[Seen], source: Source) -> list[Seen]:
    """Read the folders inside archives as those of any source, from all of them at once.

    Raises:
        AmbiguousLayout: Two readings of the folders fit.
    """
    found = _without_mixed(found)
    packed = [one for one in found if one.detail == FROM_FOLDER]
    if not packed:
        return found
    masks = masks_named([one.path for one in packed])
    counts = Counter(_folders(one.path) for one in packed)
    pattern = parse(source.choices.layout)
    if pattern:
        layout = fixed(counts, pattern)
    else:
        keys = [one.path.partition("#")[2] for one in packed]
        layout = _decided(counts, keys, source)
    source.layout, source.tree = layout, layout.tree(counts)
    others = [one.path.partition("#")[2] for one in found if one.reason == NO_IMAGE]
    labels = {str(layout.meaning(folders).label) for folders in counts}
    source.notes += [note for note in (layout.sentence, ignored_files(others, labels)) if note]
    meanings = {folders: layout.meaning(folders) for folders in counts}
    read = [
        _read_by_folders(
            one, meanings[_folders(one.path)], "split" in layout.pattern, one.path in masks
        )
        if one.detail == FROM_FOLDER
        else one
        for one in found
    ]
    return _with_groups(read, {one.path for one in packed}, layout, source)


def _decided(counts: Counter[tuple[str, ...]], keys: list[str], source: Source) -> Layout:
    """The layout that fits; `data.source` cannot name a folder inside an archive."""
    try:
        layout = decide(counts, source.uri, FileNames(keys))
        check_classes(layout, counts, keys, source.uri)
        return layout
    except AmbiguousLayout as error:
        error.fix = re.sub(r"Let `data\.source` be .*?, or leave", "Leave", str(error.fix))
        raise


def _with_groups(found: list[Seen], packed: set[str], layout: Layout, source: Source) -> list[Seen]:
    """Images of packed folders in the groups that their folders and names give them."""
    taken = [one for one in found if one.path in packed and one.image_id and not one.group]
    keys = {one.path: one.path.partition("#")[2] for one in taken}
    counts = Counter(_folders(path) for path in keys)
    views = groups_of_views(layout, counts, [*keys.values()])
    groups = {path: views[key] for path, key in keys.items() if key in views}
    source.notes += [said_of_views(groups)] if groups else []
    others = variants([one for one in taken if one.path not in groups])
    source.notes += [said_of_variants(others)] if others else []
    groups |= others
    return [
        dataclasses.replace(one, group=groups[one.path]) if one.path in groups else one
        for one in found
    ]


def _folders(path: str) -> tuple[str, ...]:
    return tuple(path.partition("#")[2].split("/")[:-1])


def _without_mixed(found: list[Seen]) -> list[Seen]:
    """Where labels stand beside the images of an archive, an image without one has none.

    Its folder, which says nothing of the others, does not become a class.
    """
    labelled = {
        one.path.partition("#")[0]
        for one in found
        if "#" in one.path and one.image_id and one.label and one.detail != FROM_FOLDER
    }
    return [
        dataclasses.replace(one, image_id=None, reason=NO_LABEL, label=None, detail=None)
        if one.detail == FROM_FOLDER and one.path.partition("#")[0] in labelled
        else one
        for one in found
    ]


def _read_by_folders(one: Seen, meaning: FolderMeaning, has_split: bool, mask: bool) -> Seen:
    problem = one.reason or meaning.problem or (MASK if mask else None)
    return dataclasses.replace(
        one,
        image_id=None if problem else one.image_id,
        reason=problem,
        detail=None,
        label=meaning.label,
        split=meaning.split if has_split else one.split,
        group=one.group or meaning.group,
    )


def merge_labels(found: list[Seen], source: Source) -> list[Seen]:
    """One label for labels that look the same; the source's notes say which.

    Raises:
        DataError: They are refused by ``data.similar_labels``.
    """
    labels = {one.label for one in found if one.label is not None and one.image_id is not None}
    names, notes = unified(labels, source.choices.similar_labels)
    source.notes += [note for note in notes if note not in source.notes]
    if all(names[label] == label for label in labels):
        return found
    return [
        dataclasses.replace(one, label=names.get(one.label, one.label)) if one.label else one
        for one in found
    ]
