"""Which layout fits the folders of a source: a pure function over the listing, all of it at once.

Where two readings fit, it raises, and shows both with the line of the run file that selects each.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from statistics import median

from graftline.data.sources.label_text import clip
from graftline.data.sources.layouts.folder_names import (
    DOCUMENTS,
    MASK,
    MASKS,
    PLAIN,
    Counts,
    Folders,
    by_top,
    identifiers,
    instances,
    level_of_kinds,
    masks_of_images,
    names_masks,
    one_level_down,
    persons,
    subfolders,
    system_folders,
    unlabelled,
)
from graftline.data.sources.layouts.layout import (
    NO_CLASS,
    NO_DATA,
    NO_LABELS,
    NO_SPLIT,
    SHOWN,
    AmbiguousLayout,
    Layout,
    build,
)
from graftline.data.sources.layouts.projects import TOO_FEW, beside_data, main_folder
from graftline.data.sources.layouts.refusals import Refusals, stop_container
from graftline.data.sources.layouts.view_names import FileNames, forms
from graftline.data.sources.split_names import clear_splits, split_words, splits_of

FEW = 0.1  # a share of images that says nothing about how the others are laid out
GROUPS_FOR_SPLITS = 3  # in each class, so that it can be in train, val and test
FOLD = re.compile(r"(?i)(?:k?fold|split|cv|run|seed|trial)s?[ _.-]?\d+")
SHARED = 0.5  # of the folders below must return below others, to be the same thing there


def _no_class(folders: Folders) -> bool:
    """Whether the folders below the first say as little of the class: train/images, x/x."""
    return all(name.lower() in PLAIN or name == folders[0] for name in folders[1:])


def decide(counts: Counts, where: str, files: FileNames | None = None) -> Layout:
    """The one reading of the folders that fits.

    Args:
        counts: Images in each folder, by its names from the source down.
        where: The source, for the error.
        files: The names of the images, where they may say more.

    Raises:
        AmbiguousLayout: Two readings fit; both are shown.
    """
    return _Decision(counts, where, files).layout()


class _Decision:
    """Reads the levels from the source down; what it has understood so far is in its fields."""

    def __init__(self, counts: Counts, where: str, files: FileNames | None) -> None:
        self.all = counts
        self.files = files
        self.refuse = Refusals(counts, where)
        self.left_out = system_folders(counts)
        self.splits: dict[str, str] = {}
        self.has_split = False

    def layout(self) -> Layout:
        out = self.left_out
        dirs = {
            f: n
            for f, n in self.all.items()
            if f and not any(f[:level] in out for level in range(1, len(f) + 1))
        }
        pattern = self._levels(dirs, (), ())
        return build(pattern, self.splits, self.left_out, self.all, "")

    def _levels(
        self, dirs: Counts, above: tuple[str, ...], path: Folders | None = None
    ) -> tuple[str, ...]:
        """The roles of the levels of these folders.

        Args:
            dirs: Images by folder, from this level down.
            above: Roles of the levels above.
            path: The folders above, where each of those levels has one only.
        """
        if not dirs:
            return (*above, "class")
        if path is not None or above[-1:] == ("split",):  # train/images, train/masks
            out = self._leave_out_documents(dirs, above, path)
            dirs = {f: n for f, n in dirs.items() if f[0] not in out}
        if path is not None:
            out = beside_data(dirs, path, self.refuse.where)
            self.left_out.update({(*path, other): NO_DATA for other in out})
            dirs = {f: n for f, n in dirs.items() if f[0] not in out}
        tops = {f[0] for f in dirs}
        deep = {f: n for f, n in dirs.items() if len(f) > 1}
        below = {f[1:]: n for f, n in deep.items()}
        most = sum(deep.values()) > (1 - FEW) * sum(dirs.values())
        if len(tops) == 1 and (most or (deep and min(tops).lower() in PLAIN)):
            (top,) = tops
            word = split_words(top)
            if word is not None and not word[1] and not self.has_split:
                self._take_splits(tops)
                return self._levels(below, (*above, "split"))
            return self._levels(below, (*above, "*"), None if path is None else (*path, top))
        inner = self._split_level(dirs, above, path)
        if inner is not None:
            return inner
        below_classes = self._split_below(dirs, above)
        if below_classes is None:
            stop_container(self.refuse.where, dirs, subfolders(dirs), path)
        return below_classes or self._class_level(dirs, above)

    # -- folders that are no data -----------------------------------------------------------------

    def _leave_out_documents(
        self, dirs: Counts, above: tuple[str, ...], path: Folders | None
    ) -> set[str]:
        """Leave out folders of this level that are no classes; their names come back."""
        tops = by_top(dirs)
        found = {top: NO_LABELS for top in tops if unlabelled(top)}
        rest = {t: n for t, n in tops.items() if t not in found}
        odd = {t for t in rest if t.lower() in DOCUMENTS | MASKS}
        if any(t.lower() in PLAIN for t in rest):  # JPEGImages beside SegmentationClass
            odd |= set(filter(names_masks, rest))
        odd |= masks_of_images(rest)
        rest = {t: n for t, n in rest.items() if t not in odd}
        if not rest and (top := main_folder({f: n for f, n in dirs.items() if f[0] in odd})):
            rest, odd = {top: tops[top]}, odd - {top}  # src/data/images beside doc
        if rest:
            found.update(self._no_data(dirs, odd, rest, above))
        for top, reason in found.items():
            level = len(above)
            places = {f[: level + 1] for f in self.all if len(f) > level and f[level] == top}
            places = places if path is None else {(*path, top)}
            self.left_out.update(dict.fromkeys(places, reason))
        return set(found)

    def _no_data(
        self, dirs: Counts, odd: set[str], rest: Mapping[str, int], above: tuple[str, ...]
    ) -> dict[str, str]:
        """Which of the odd folders hold no images of a class, beside the others."""
        tops, subs = by_top(dirs), subfolders(dirs)
        usual = median(rest.values())
        rest_subs = set().union(*(subs[t] for t in rest))
        images_beside = any(t.lower() in PLAIN for t in rest)
        images_beside = images_beside or len(splits_of(rest)) > 1
        images_beside = images_beside or bool(masks_of_images([*odd, *rest]))
        found = {}
        for top in sorted(odd):
            mirrors = bool(subs[top]) and subs[top] <= rest.keys()  # masks/cat beside cat
            if names_masks(top) and (mirrors or images_beside):
                found[top] = MASK
            elif (
                tops[top] <= max(TOO_FEW, FEW * usual)
                or images_beside
                or (subs[top] == set() and rest_subs)
            ):
                found[top] = NO_DATA
            elif top.lower() in DOCUMENTS:
                roles = (*above, "class")
                raise self.refuse.ambiguous(
                    [
                        (roles, f"the folder {top!r} is a class like the others", ()),
                        (roles, f"the folder {top!r} is no class", [top]),
                    ]
                )
        return found

    # -- splits -----------------------------------------------------------------------------------

    def _take_splits(self, names: Iterable[str]) -> None:
        self.splits = splits_of(names)
        self.has_split = True

    def _split_level(
        self, dirs: Counts, above: tuple[str, ...], path: Folders | None
    ) -> tuple[str, ...] | None:
        tops, subs = by_top(dirs), subfolders(dirs)
        named = splits_of(tops)
        certain = clear_splits(tops)
        loose = named.keys() - certain.keys()
        if all(map(_no_class, dirs)) and set(named) == set(tops) and len(set(named.values())) > 1:
            self.refuse.stop_flat(named, above)
        if self.has_split:
            # seg_train/seg_train/street: the split named twice
            same = named and set(named) == set(tops)
            return self._levels(one_level_down(dirs), (*above, "*")) if same else None
        if len(set(certain.values())) < 2 or not any(subs[name] for name in certain):
            if not self.has_split:
                self.refuse.stop_other_copy(subs, path)
            if len(set(certain.values())) > 1 and "train" in certain.values():
                self.refuse.stop_flat(certain, above)
            if not _mirrored(named, subs):
                if set(named) == set(tops) and {"train"} < set(named.values()):
                    self.refuse.stop_flat(named, above)
                return None
            certain = named
        elif loose and _mirrored(named, subs):
            certain = named
        classes = set().union(*(subs[name] for name in certain))
        others = sorted(set(tops) - set(certain))
        mirrored = [t for t in others if len(subs[t] & classes) >= max(1, SHARED * len(subs[t]))]
        if mirrored:
            names = ", ".join(clip(name) for name in mirrored[:SHOWN])
            left = f"the folders named as splits; {names} is left out"
            both = [((*above, "split", "class"), left, ())]
            both.append(((*above, "*", "class"), "all images; Graftline chooses the splits", ()))
            self.splits = certain
            raise self.refuse.ambiguous(both)
        if path is not None:
            self.left_out.update({(*path, name): NO_SPLIT for name in others})
        without = {t for t in certain if all(_no_class(f) for f in dirs if f[0] == t)}
        if without < certain.keys():  # tiny-imagenet: train/n01443537, val/images
            out = {f for f in dirs if f[0] in without}
            self.left_out.update({(*(path or ()), *f): NO_CLASS for f in out if len(f) > 1})
            dirs = {f: n for f, n in dirs.items() if f not in out}
        inside = {f[1:]: n for f, n in dirs.items() if f[0] in certain and len(f) > 1}
        self._take_splits(certain)
        return self._levels(inside, (*above, "split"))

    def _split_below(self, dirs: Counts, above: tuple[str, ...]) -> tuple[str, ...] | None:
        """Splits below the first level, as in cat/train and cat/test."""
        if self.has_split:
            return None
        for level in (1, 2):
            no_data = {f for f in dirs if len(f) > level and f[level].lower() in DOCUMENTS | MASKS}
            total = sum(count for folders, count in dirs.items() if folders not in no_data)
            names: Counter[str] = Counter()
            for folders, count in dirs.items():
                if len(folders) > level:
                    names[folders[level]] += count
            clear = clear_splits(names)
            share = sum(names[name] for name in clear)
            if len(set(clear.values())) < 2 or share < (1 - FEW) * total:
                continue
            folds = {f[0] for f in dirs}
            if level == 1 and len(folds) > 1 and all(map(FOLD.fullmatch, folds)):
                raise self.refuse.each_with_splits(above, folds, "folds of a cross-validation")
            self._take_splits(clear)
            rest: Counter[Folders] = Counter()
            for folders, count in dirs.items():
                if folders not in no_data:
                    rest[folders[:level] + folders[level + 1 :]] += count
            try:
                inner = [*self._levels(rest, above)[len(above) :]]
            except AmbiguousLayout:
                raise self.refuse.each_with_splits(above, folds, "data sets") from None
            inner += ["*"] * (level - len(inner))
            return (*above, *inner[:level], "split", *inner[level:])
        return None

    # -- classes and groups -----------------------------------------------------------------------

    def _class_level(self, dirs: Counts, above: tuple[str, ...]) -> tuple[str, ...]:
        here = (*above, "class")
        tops, deep = by_top(dirs), {f: n for f, n in dirs.items() if len(f) > 1}
        if not deep or len(tops) < 2:
            return here
        all_subs = subfolders(dirs)
        if all(sub.lower() in PLAIN | MASKS for names in all_subs.values() for sub in names):
            return self.refuse.below_plain(dirs, above)  # cat/images and cat/masks
        subs = {
            top: {s for s in names if s.lower() not in PLAIN} for top, names in all_subs.items()
        }
        below = set().union(*subs.values())
        files = self.files
        if not below or forms(below) or (files and files.are_views(len(above) + 1, below)):
            return here
        self.refuse.stop_repeated(all_subs, above)
        whose = identifiers(tops)
        of_what = identifiers(below) or instances(subs)
        direct = sum(n for f, n in dirs.items() if len(f) == 1)
        if direct >= FEW * sum(dirs.values()) and not whose:
            return here
        if whose and not of_what:
            return self._below_group(dirs, above)
        if _few_each(dirs):  # cat/image_01/1.png: as classes, these could not be learned
            return here
        if of_what and not whose:
            enough = min(len(names) for names in subs.values()) >= GROUPS_FOR_SPLITS
            return (*here, "group") if enough else here
        deeper = any(len(f) > 2 for f in deep)
        if whose and deeper:
            return self._below_group(dirs, above)
        pairs = Counter(sub for names in subs.values() for sub in names)
        again = sum(count for count in pairs.values() if count > 1)
        if not whose and (len(below) < 2 or again < SHARED * sum(pairs.values())):
            level = level_of_kinds(dirs)
            if level:
                raise self.refuse.kinds_or_classes(above, level)
            return here
        if not whose and (forms(tops) or (files and files.alike(len(above), set(tops)))):
            raise self.refuse.forms_of_pictures(above, list(tops), below)
        third = [s for names in subfolders(one_level_down(dirs)).values() for s in names - PLAIN]
        shared = 1 < len(set(third)) < len(third)
        raise self.refuse.groups_or_classes(above, tops, below, set(third) if shared else ())

    def _below_group(self, dirs: Counts, above: tuple[str, ...]) -> tuple[str, ...]:
        """The roles from a level of groups on; what is below a person is no group of its own."""
        inner = self._levels(one_level_down(dirs), (*above, "group"))[len(above) + 1 :]
        if persons(by_top(dirs)):
            inner = tuple("*" if role == "group" else role for role in inner)
        return (*above, "group", *inner)


def _mirrored(named: Mapping[str, str], subs: Mapping[str, set[str]]) -> bool:
    """Whether folders of other names than the usual ones have the same folders below."""
    train = set().union(*(subs[n] for n, split in named.items() if split == "train"), set())
    held = set().union(*(subs[n] for n, split in named.items() if split != "train"), set())
    return bool(train & held) and len(train & held) >= SHARED * min(len(train), len(held))


def _few_each(dirs: Counts) -> bool:
    """Whether the folders of the second level hold too few images to be classes."""
    sizes: Counter[str] = Counter()
    for folders, count in dirs.items():
        sizes.update({folders[1]: count} if len(folders) > 1 else {})
    return median(sizes.values()) <= TOO_FEW
