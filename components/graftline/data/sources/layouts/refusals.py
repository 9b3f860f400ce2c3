"""The errors of a layout with two readings: each one, and the line of the run file for it."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NoReturn

from graftline.data.sources.layouts.folder_names import (
    MASKS,
    PLAIN,
    Counts,
    Folders,
    by_top,
    contains,
    identifiers,
    kinds_above_classes,
    shared,
)
from graftline.data.sources.layouts.layout import AmbiguousLayout, exclude_line, fixed, some_names
from graftline.data.sources.layouts.view_names import rank_of_form
from graftline.data.sources.split_names import splits_of

MOST_SPLITS = 4  # folders that may be splits of unknown names


class Refusals:
    """Makes the errors.

    Args:
        counts: Images in each folder, by its names from the source down.
        where: The source.
    """

    def __init__(self, counts: Counts, where: str) -> None:
        self.all = counts
        self.where = where

    def ambiguous(
        self,
        readings: Sequence[tuple[tuple[str, ...], str, Collection[str]]],
        more: str = "",
    ) -> AmbiguousLayout:
        """The error, with each reading's tree and the line that selects it.

        Args:
            readings: Roles, what they mean, and the folders that the line leaves out, if any.
            more: To be added to what to do.
        """
        shown, lines = [], []
        for pattern, words, out in readings:
            left_out = self._patterns(out, pattern.index("class"))
            counts = {
                f: n
                for f, n in self.all.items()
                if not any(f[: len(one)] == one or one == (name,) for one in left_out for name in f)
            }
            layout = fixed(counts, pattern)
            line = (
                exclude_line(sorted(map("/".join, left_out)))
                if out
                else f'data.layout: "{layout.text}"'
            )
            shown.append(f"{layout.text}: {words}\n{layout.tree(counts)}")
            lines.append(f"`{line}`")
        ways, fit = ("two", "Both") if len(shown) <= 2 else ("three", "All")
        return AmbiguousLayout(
            f"The folders of {self.where} can be read in {ways} ways",
            why="\n".join([f"{fit} fit:", *shown]),
            fix=f"Select one in the run file: {' or '.join(lines)}.{more}",
        )

    def _patterns(self, names: Collection[str], level: int) -> set[Folders]:
        """What leaves out folders of a level; by their path where others are called so, too."""
        found: set[Folders] = set()
        for name in names:
            depths = {i for f in self.all for i, one in enumerate(f) if one == name}
            if len(depths) == 1:
                found.add((name,))
            else:
                found |= {f[: level + 1] for f in self.all if f[level : level + 1] == (name,)}
        return found

    def stop_flat(self, named: Mapping[str, str], above: tuple[str, ...]) -> NoReturn:
        """Refuse folders that are named as splits and hold images without class folders."""
        names = ", ".join(sorted(named))
        raise AmbiguousLayout(
            f"The folders {names} in {self.where} hold images without class folders",
            why="Their names are those of splits, so they would be taken for classes by mistake: "
            "nothing says which class an image is of",
            fix="Put the images of each split into one folder per class, or let a table name "
            f"their labels (`data.format: table`). If {names} are the classes, set `data.layout: "
            f'"{"/".join((*above, "class"))}"`.',
        )

    def groups_or_classes(
        self,
        above: tuple[str, ...],
        tops: Iterable[str],
        below: Iterable[str],
        third: Collection[str] = (),
    ) -> AmbiguousLayout:
        """The error where the first level may be groups, or the classes themselves.

        Args:
            above: Roles of the levels above.
            tops: Folders of the first level.
            below: Folders of the second one.
            third: Folders of the third one, where they may be the classes.
        """
        here = (*above, "class")
        first, second = (some_names(sorted(names)) for names in (tops, below))
        readings: list[tuple[tuple[str, ...], str, Collection[str]]] = [
            (here, f"the classes are {first}; the folders below mean nothing", ()),
            (
                (*above, "group", "class"),
                f"the classes are {second}; {first} are groups (a "
                "patient, a site, a day) that stay in one split",
                (),
            ),
        ]
        if third:
            classes = some_names(sorted(third))
            words = f"the classes are {classes}; the folders above are groups of them"
            readings.append(((*above, "group", "group", "class"), words, ()))
        splits = len(set(tops)) <= MOST_SPLITS
        return self.ambiguous(
            readings,
            self._together((*above, "*", "class"), first)
            + f' If {first} are the classes and {second} groups, set `data.layout: "'
            + "/".join((*here, "group"))
            + '"`.'
            + " If these are splits, call them train, val and test." * splits,
        )

    def _together(self, pattern: tuple[str, ...], names: str) -> str:
        text = "/".join(pattern)
        return f' If {names} mean nothing, set `data.layout: "{text}"`.'

    def below_plain(self, dirs: Counts, above: tuple[str, ...]) -> tuple[str, ...]:
        """The roles where `images` stands below the first level, and perhaps more below that.

        Raises:
            AmbiguousLayout: The folders below that may be the classes, too: amazon/images/bike.
        """
        deep = {f: n for f, n in dirs.items() if len(f) > 2 and f[2].lower() not in PLAIN | MASKS}
        names, here = {f[2] for f in deep}, (*above, "class")
        if len(names) < 2 or identifiers(names) or sum(deep.values()) < sum(dirs.values()) / 2:
            return here
        below = (*above, "group", "*", "class")
        if identifiers(by_top(dirs)):  # patient_07/images/benign
            return below
        subs = {top: {f[2] for f in deep if f[0] == top} for top in by_top(dirs)}
        if not shared(subs) and not kinds_above_classes(subs):
            return here
        first, second = some_names(sorted(by_top(dirs))), some_names(sorted(names))
        raise self.ambiguous(
            [
                (here, f"the classes are {first}; the folders below mean nothing", ()),
                (below, f"the classes are {second}; {first} are groups of them", ()),
            ],
            self._together((*above, "*", "*", "class"), first),
        )

    def kinds_or_classes(self, above: tuple[str, ...], level: int) -> AmbiguousLayout:
        """The error where folders may be the classes, or kinds of those some levels below."""
        first = len(above) + 1
        deep = f"level {first + level} is the class; those above are kinds of it"
        return self.ambiguous(
            [
                ((*above, "class"), f"level {first} is the class, whatever is below", ()),
                ((*above, *["*"] * level, "class"), deep, ()),
            ]
        )

    def each_with_splits(
        self, above: tuple[str, ...], tops: Iterable[str], what: str
    ) -> AmbiguousLayout:
        """The error where several folders hold splits of their own."""
        names = some_names(sorted(tops))
        return self.ambiguous(
            [
                ((*above, "*", "split", "class"), f"{names} mean nothing", ()),
                (
                    (*above, "group", "split", "class"),
                    f"{names} are groups (a patient, a site, a day)",
                    (),
                ),
            ],
            f" If these are {what}, let `data.source` name one of them.",
        )

    def stop_repeated(self, subs: Mapping[str, set[str]], above: tuple[str, ...]) -> None:
        """Refuse classes that stand a second time in a folder beside them (yes, no, all/yes).

        One is enough where a folder has nothing else (cat, dog, old/cat).
        """
        again = set()
        for top, names in subs.items():
            shared = names & (subs.keys() - {top})
            if len(shared) > 1 or (shared and names <= subs.keys()):
                again.add(top)
        rest = subs.keys() - again
        if not again or len(rest) < 2 or any(subs[t] - rest for t in again):
            return
        if above[-1:] == ("split",):
            self._stop_deeper(again, above)
        said = some_names(sorted(again))
        here = (*above, "class")
        raise self.ambiguous(
            [
                (here, f"{said} is a class like the others", ()),
                (here, f"{said} holds the others again", again),
            ]
        )

    def _stop_deeper(self, again: Collection[str], above: tuple[str, ...]) -> None:
        """Refuse classes that stand one level deeper in one split: train/labeled/cat, test/cat."""
        level, roles = len(above), "/".join((*above, "class"))
        beside = {f[:level] for f in self.all if len(f) > level and f[level] not in again}
        deep = {f[: level + 1] for f in self.all if len(f) > level and f[level] in again}
        kinds = {f[level] for f in self.all if len(f) == level + 1}
        inside = {f[level + 1] for f in self.all if len(f) > level + 1 and f[level] in again}
        odd = sorted(
            folder
            for folder in deep
            if not any({*f[level : level + 1]} & inside & kinds for f in self._below(folder[:-1]))
        )
        if not odd or not beside:
            return
        place = "/".join(odd[0])
        raise AmbiguousLayout(
            f"The classes in {place} of {self.where} are one level deeper than in the other splits",
            why=f"{some_names(sorted(inside))} stand in {place}, and in the folder of a split "
            "elsewhere",
            fix=f"Move the folders in {place} up into {'/'.join(odd[0][:-1])}. If {odd[0][-1]} is "
            f'a class like the others, set `data.layout: "{roles}"`.',
        )

    def _below(self, folders: Folders) -> list[Folders]:
        return [one for one in self.all if one[: len(folders)] == folders]

    def forms_of_pictures(
        self, above: tuple[str, ...], tops: Collection[str], below: Iterable[str]
    ) -> AmbiguousLayout:
        """The error where the folders above classes hold the same pictures in other forms."""
        best = min(tops, key=rank_of_form)
        rest = sorted(set(tops) - {best})
        first, second, left = map(some_names, (sorted(tops), sorted(below), rest))
        words = f"the classes are {second}; {left} is left out, as another form of the pictures"
        deep = (*above, "*", "class")
        here = (*above, "class")
        return self.ambiguous(
            [(here, f"the classes are {first}", ()), (deep, words, rest)],
            " To take all forms, those of one name in one split, set "
            f'`data.layout: "{"/".join(deep)}"`.',
        )

    def stop_other_copy(self, subs: Mapping[str, set[str]], path: Folders | None) -> None:
        """Refuse splits in one folder and the same classes, undivided, in another one."""
        divided = {t for t, names in subs.items() if len(set(splits_of(names).values())) > 1}
        others = sorted(t for t in subs.keys() - divided if subs[t])
        if path is None or not divided or not others:
            return
        inside = {f[len(path) + 2] for f in self.all if len(f) > len(path) + 2}
        if not any(subs[other] & inside for other in others):
            return
        places = " or ".join(f"`{'/'.join([self.where, *path, t])}`" for t in sorted(divided))
        raise AmbiguousLayout(
            f"The folders of {self.where} can be read in two ways",
            why=f"{some_names(sorted(divided))} {'is' if len(divided) == 1 else 'are'} divided "
            f"into train and test, and {some_names(others)} "
            f"{'holds' if len(others) == 1 else 'hold'} the same classes undivided",
            fix=f"Let `data.source` be {places}, or leave a folder out: `{exclude_line(others)}`.",
        )


def stop_container(
    where: str, dirs: Counts, subs: Mapping[str, set[str]], path: Folders | None
) -> None:
    """Refuse a folder of classes with other folders of images beside it: data/cat, web."""
    flat = {t for t, names in subs.items() if not names}
    holds = [
        t
        for t, names in subs.items()
        if contains(t) and len(names - PLAIN) > 1 and (t,) not in dirs
    ]
    if path is None or len(holds) != 1 or not flat or len(flat) + 1 != len(subs):
        return
    (top,) = holds
    if subs[top] & flat:  # data/yes beside yes: it holds the others again
        return
    line = exclude_line(sorted(flat))
    others, inside = some_names(sorted(flat)), some_names(sorted(subs[top]))
    raise AmbiguousLayout(
        f"The folders of {where} can be read in two ways",
        why=f"{top} holds folders that may be the classes ({inside}), and {others} with images "
        "beside it may be classes too",
        fix=f"Let `data.source` be `{'/'.join([where, *path, top])}`, or leave the others "
        f"out: `{line}`. If {top} is a class like them, set `data.layout: "
        f'"{"/".join((*("*" for _ in path), "class"))}"`.',
    )
