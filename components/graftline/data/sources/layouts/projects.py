"""Repositories that hold their data in one folder, and pictures of other things beside it."""

from graftline.data.sources.layouts.folder_names import (
    PLAIN,
    Counts,
    Folders,
    by_top,
    contains,
    identifiers,
    subfolders,
)
from graftline.data.sources.layouts.layout import AmbiguousLayout, exclude_line, some_names
from graftline.data.sources.split_names import splits_of

MAIN = 0.9  # of the images are in one folder: what is beside it may be no data
TOO_FEW = 2  # images for a class


def beside_data(dirs: Counts, path: Folders, where: str) -> set[str]:
    """Folders of one or two images beside the one that holds nearly all of them: no data.

    Args:
        dirs: Images by folder, from one level down.
        path: The folders above.
        where: The source.

    Raises:
        AmbiguousLayout: There are more images beside it: these may be classes, or no data.
    """
    top = main_folder(dirs)
    if top is None or len(set(splits_of(by_top(dirs)).values())) > 1:
        return set()
    chain, inside = _branches(dirs, top)
    tops, subs = by_top(dirs), subfolders(dirs)
    others = tops.keys() - {top}
    named = any(map(contains, chain))
    again = inside & set(tops).union(*(subs[t] for t in others))
    if again or not (named or len(inside) > 1):
        return set()
    if all(tops[other] <= TOO_FEW for other in others):
        return others
    if not named and (identifiers(inside) or inside <= PLAIN):
        return set()
    here, said = "/".join([*("*" for _ in path), "class"]), some_names(sorted(others))
    deeper = f", in the folders {some_names(sorted(inside))}: these may be the classes" * bool(
        inside
    )
    raise AmbiguousLayout(
        f"The folders of {where} can be read in two ways",
        why=f"{top} holds nearly all images{deeper}, or {top} may be one class and {said} beside "
        "it others",
        fix=f"Let `data.source` be `{'/'.join([where, *path, *chain])}`, or leave the others out: "
        f"`{exclude_line(sorted(others))}`. If {top} is a class like them, set `data.layout: "
        f'"{here}"`.',
    )


def main_folder(dirs: Counts) -> str | None:
    """The folder that holds nearly all images, in folders below it; None where there is none."""
    tops = by_top(dirs)
    if len(tops) < 2:
        return None
    top, most = tops.most_common(1)[0]
    total = sum(tops.values())
    return top if most >= MAIN * total and dirs.get((top,), 0) < (1 - MAIN) * most else None


def _branches(dirs: Counts, top: str) -> tuple[Folders, set[str]]:
    """The folders from this one down to where there are several, and the names of those."""
    chain: tuple[str, ...] = (top,)
    while True:
        level = len(chain)
        names = {f[level] for f in dirs if len(f) > level and f[:level] == chain}
        if len(names) != 1 or chain in dirs:
            return chain, names
        chain = (*chain, *names)
