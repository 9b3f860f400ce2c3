"""Folders that would become the classes and are none: parts of a set, forms of a picture."""

import dataclasses
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import NoReturn

from graftline.data.sources.base import Entry
from graftline.data.sources.label_text import clean_text, clip
from graftline.data.sources.layouts.folder_names import Counts, Folders, parts
from graftline.data.sources.layouts.layout import AmbiguousLayout, Layout, exclude_line, some_names
from graftline.data.sources.layouts.variant_names import said_of_variants, twins, variants
from graftline.data.sources.layouts.view_names import (
    FileNames,
    containers,
    forms,
    forms_of_others,
    without_ends,
)


def check_classes(layout: Layout, counts: Counts, keys: Sequence[str], where: str) -> None:
    """Refuse to take folders for classes that say something else of the pictures.

    Args:
        layout: As it was found, not as the run file says.
        counts: Images by folder.
        keys: Of the images.
        where: The source.

    Raises:
        AmbiguousLayout: They may be classes or not.
    """
    level = layout.pattern.index("class")
    taken = {f for f in counts if layout.meaning(f).problem is None}
    names = sorted({f[level] for f in taken})
    if len(names) < 2:
        return
    if parts(names):
        _refuse(layout, where, names, "number the parts of a set rather than name classes")
    if forms(names):
        _refuse(layout, where, names, "say in what form pictures are rather than what they show")
    again = forms_of_others(names)
    if again:
        why = "are called like other folders beside them, with a form of pictures"
        rest = set(names) - set(again)
        _refuse(layout, where, again, why, rest=rest, out=again)
    odd = containers(names)
    if odd:
        why = "say that images are in them rather than what these show"
        rest = set(names) - set(odd)
        _refuse(layout, where, odd, why, rest=rest, out=odd if len(rest) > 1 else ())
    _check_twins(layout, where, [k for k in keys if tuple(k.split("/")[:-1]) in taken])
    files = FileNames(keys, taken)
    perhaps = forms(names, perhaps=True)
    same = files.views(level, names, numbers=perhaps)
    if same and (not perhaps or len(same) == len(names)):
        why = "hold files of the same names, so they may be the same pictures in other forms"
        _refuse(layout, where, same, why, rest=set(names) - set(same))


def _check_twins(layout: Layout, where: str, keys: Sequence[str]) -> None:
    """Refuse images of two suffixes that are called alike: 1.jpg and its mask 1.png."""
    suffix = twins(keys)
    if suffix is None:
        return
    path = next(key for key in keys if key.lower().endswith(f".{suffix}"))
    spelled = sorted({k.rpartition(".")[2] for k in keys if k.lower().endswith(f".{suffix}")})
    patterns = ", ".join(f'"*.{one}"' for one in spelled)
    raise AmbiguousLayout(
        f"The .{suffix} files in {where} may be no pictures of their own",
        why=f"most of them, as {clip(path)}, stand beside an image of the same name: they may be "
        "masks, or the same pictures again",
        fix=f"Leave them out: `data.exclude: [{patterns}]`. If both are "
        f'pictures of the class, set `data.layout: "{layout.text}"`: those of one name are then a '
        "group.",
    )


def _refuse(
    layout: Layout,
    where: str,
    names: list[str],
    why: str,
    rest: Collection[str] = (),
    out: Sequence[str] = (),
) -> NoReturn:
    said = some_names(names)
    more = "Otherwise put the images of each class into one folder, or let a table name the labels"
    if out:
        more = f"If they are no classes, or hold the same pictures again: `{exclude_line(out)}`"
    elif len(rest) > 1:
        more = f"If {clip(names[-1])} is none, leave it out: `{exclude_line(names[-1:])}`"
    raise AmbiguousLayout(
        f"The folders {said} in {where} may be no classes",
        why=f"they {why}",
        fix=f'If they are the classes, set `data.layout: "{layout.text}"`. {more}.',
    )


def groups_of_views(layout: Layout, counts: Counts, keys: Sequence[str]) -> dict[str, str]:
    """Groups of images that are the same pictures in several forms: cat/HR and cat/LR.

    Returns:
        The group of each such image; the same names in folders side by side are one.
    """
    ends = layout.pattern.index("class") + 1
    levels = [level for level, role in enumerate(layout.pattern) if role == "*"]
    levels += [ends] if len(layout.pattern) == ends else []
    for level in levels:
        groups = _views_of_level(layout, level, counts, keys)
        if groups:
            return groups
    return {}


def _views_of_level(
    layout: Layout, level: int, counts: Counts, keys: Sequence[str]
) -> dict[str, str]:
    taken = {f for f in counts if len(f) > level and layout.meaning(f).problem is None}
    names = {f[level] for f in taken}
    if len(names) < 2:
        return {}
    inside = [key for key in keys if tuple(key.split("/")[:-1]) in taken]
    same = FileNames(inside).views(level, names, numbers=forms(names, perhaps=True))
    held: dict[Folders, list[str]] = defaultdict(list)
    for key in inside:
        *above, name = key.split("/")
        if above[level] in same:
            held[tuple(above)].append(name)
    groups = {}
    for folders, files in held.items():
        place = "/".join((*folders[:level], *folders[level + 1 :]))
        stems = [name.rpartition(".")[0] or name for name in files]
        for name, stem in zip(files, without_ends(stems), strict=True):
            groups["/".join((*folders, name))] = f"{place}/{stem}"
    return groups


def said_of_views(groups: Mapping[str, str]) -> str:
    """The note on images that are one picture in several forms."""
    one = next(iter(groups))
    return (
        f"{len(groups):,} images, as {clip(one)}, have a name that returns in a "
        "folder beside theirs: those of one name are a group, which stays in one split."
    )


def with_group(entry: Entry, group: str | None) -> Entry:
    """The entry in this group, where it has none."""
    if group is None or entry.group is not None or entry.problem is not None:
        return entry
    return dataclasses.replace(entry, group=clean_text(group))


def with_variants(entries: list[Entry]) -> tuple[list[Entry], list[str]]:
    """The entries, those that are one picture by their names in one group, and the note on it."""
    groups = variants([one for one in entries if not one.problem and not one.group])
    if not groups:
        return entries, []
    return [with_group(one, groups.get(one.path)) for one in entries], [said_of_variants(groups)]
