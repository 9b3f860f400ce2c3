"""What the folders above an image mean: its label, its split, its group, or nothing.

:func:`graftline.data.sources.layouts.decision.decide` finds the layout that fits the folders.
"""

import dataclasses
import fnmatch
import glob
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping

from graftline.data.sources.label_text import clean_text, clip, on_one_line
from graftline.data.sources.layouts.folder_names import Counts, Folders, masks_below, system_folders
from graftline.data.sources.split_names import splits_of
from graftline.errors import ConfigurationError, DataError
from graftline.stats.wording import counted

ROLES = ("split", "group", "class", "*")
SHOWN = 6
NO_CLASS = "not in a class folder"
NO_SPLIT = "not in a split folder"
NO_DATA = "folder of documents or annotations"
NO_LABELS = "folder of images without labels"
GROUP_HINT = "; `group` behind class in `data.layout` keeps each of them in one split"
EXCLUDED = "excluded by data.exclude"


class AmbiguousLayout(DataError):  # noqa: N818
    """Two readings of the folders fit."""


@dataclasses.dataclass(frozen=True, slots=True)
class FolderMeaning:
    """What the folders of one image say; the label is as the folder is written."""

    label: str | None
    split: str | None
    group: str | None
    problem: str | None


@dataclasses.dataclass(frozen=True)
class Layout:
    """How folders are read.

    Attributes:
        pattern: A role for each level below the source; deeper levels mean nothing.
        splits: What the folders at the split's level stand for.
        left_out: Folders, from the source down, that are not taken, with the reason.
        sentence: The reading, for a person.
    """

    pattern: tuple[str, ...]
    splits: Mapping[str, str] = dataclasses.field(default_factory=dict)
    left_out: Mapping[Folders, str] = dataclasses.field(default_factory=dict)
    sentence: str = ""

    @property
    def text(self) -> str:
        """As ``data.layout`` says it."""
        return "/".join(self.pattern)

    def meaning(self, folders: Folders) -> FolderMeaning:
        """Label, split and group of an image in these folders, or why it is not taken."""
        for level in range(1, len(folders) + 1):
            reason = self.left_out.get(folders[:level])
            if reason is not None:
                return FolderMeaning(None, None, None, reason)
        label = split = problem = None
        groups = []
        for role, name in zip(self.pattern, folders, strict=False):
            if role == "class":
                label = name
            elif role == "group":
                groups.append(clean_text(name))
            elif role == "split":
                split = self.splits.get(name)
                problem = None if split is not None else NO_SPLIT
        if label is None:
            problem = problem or NO_CLASS
        return FolderMeaning(label, split, "/".join(groups) or None, problem)

    def split_of(self, folders: Folders) -> str | None:
        """The split that these folders state, whatever else they say."""
        level = self.pattern.index("split") if "split" in self.pattern else len(folders)
        return self.splits.get(folders[level]) if level < len(folders) else None

    def tree(self, counts: Counts) -> str:
        """The folders down to the last role, a line each, with what they are and hold."""
        depth = len(self.pattern)
        sums: Counter[Folders] = Counter()
        for folders, count in counts.items():
            for level in range(1, min(depth, len(folders)) + 1):
                sums[folders[:level]] += count
        lines: list[str] = []
        self._branch((), sums, lines)
        return "\n".join(lines)

    def _branch(self, above: Folders, sums: Counter[Folders], lines: list[str]) -> None:
        level = len(above)
        below = sorted(folder for folder in sums if folder[:-1] == above)
        for folder in below[:SHOWN]:
            out = self.left_out.get(folder)
            role = "not taken" if out else self._role_text(folder)
            name = on_one_line(clip(folder[-1]))
            lines.append(f"{'  ' * (level + 1)}{name}/  {role}, {_images(sums[folder])}")
            if not out and level + 1 < len(self.pattern):
                self._branch(folder, sums, lines)
        if len(below) > SHOWN:
            lines.append(f"{'  ' * (level + 1)}and {counted(len(below) - SHOWN, 'more folder')}")

    def _role_text(self, folder: Folders) -> str:
        role = self.pattern[len(folder) - 1]
        if role == "split":
            return f"split {self.splits.get(folder[-1]) or 'unknown'}"
        return {"*": "no meaning"}.get(role, role)


def parse(text: str) -> tuple[str, ...] | None:
    """The roles that ``data.layout`` names; None for ``auto``.

    Raises:
        ConfigurationError: It names something else, no class or two, or two splits.
    """
    if text.strip() == "auto":
        return None
    roles = tuple(part.strip() for part in text.strip().strip("/").split("/"))
    wrong = [role for role in roles if role not in ROLES]
    if wrong or roles.count("class") != 1 or roles.count("split") > 1:
        why = (
            f"{clip(wrong[0])!r} is no level" if wrong else "it needs one class, at most one split"
        )
        raise ConfigurationError(
            f"data.layout {clip(text)!r} cannot be used",
            why=why,
            fix="Name what each level of folders is, from the source down: split, class, group "
            'or * for no meaning; for instance class, split/class, group/class or "*/class".',
        )
    return roles


def excluded(path: str, patterns: Iterable[str]) -> bool:
    """Whether a path or one of the folders above it matches a pattern of ``data.exclude``."""
    parts = path.split("/")
    above = ["/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
    for pattern in patterns:
        plain = pattern.strip("/")
        names = above if "/" in plain else [*parts]
        if any(fnmatch.fnmatchcase(name, plain) for name in names):
            return True
    return False


def fixed(counts: Counts, pattern: tuple[str, ...]) -> Layout:
    """The layout that the run file names."""
    splits: dict[str, str] = {}
    if "split" in pattern:
        level = pattern.index("split")
        splits = splits_of({f[level] for f in counts if len(f) > level})
    left_out = system_folders(counts)
    return build(pattern, splits, left_out, counts, "as the run file says")


def build(
    pattern: tuple[str, ...],
    splits: Mapping[str, str],
    left_out: Mapping[Folders, str],
    counts: Counts,
    why: str,
) -> Layout:
    """A layout with its sentence.

    Args:
        pattern: The role of each level.
        splits: What the folders at the split's level stand for.
        left_out: Folders that are not taken, with the reason; masks below classes are added.
        counts: Images in each folder.
        why: Who says so, where it is not the folders themselves.
    """
    left_out = {**left_out, **masks_below(counts, pattern.index("class"))}
    nested = _meaningless(counts, left_out, len(pattern))
    text = "/".join(pattern)
    parts = []
    if "split" in pattern:
        names = [f"{clip(n)} ({s})" if n.lower() != s else n for n, s in sorted(splits.items())]
        parts.append(f"the folders {some_names(names)} are taken as splits")
    if "group" in pattern:
        parts.append("those called group stay together in one split")
    if pattern == ("class",):
        parts.append(
            "folders are nested, and the first one below the source is the label"
            f"{_meaningless(counts, left_out, 1)}"
            if nested
            else "each folder is a class"
        )
    else:
        below = _meaningless(counts, left_out, len(pattern)) if pattern[-1] == "class" else ""
        parts.append(f"level {pattern.index('class') + 1} of the folders is the label{below}")
    out = [clip("/".join(folder) + "/") for folder in sorted(left_out)]
    if out:
        parts.append(f"{some_names(out)} not taken")
    sentence = f"Folders are read as {text}{f' {why}' * bool(why)}: {'; '.join(parts)}."
    return Layout(pattern, dict(splits), dict(left_out), sentence)


def _meaningless(counts: Counts, left_out: Mapping[Folders, str], level: int) -> str:
    """The folders below the classes, which are not used."""
    below = sorted(
        {
            folders[level]
            for folders in counts
            if len(folders) > level
            and not any(folders[:depth] in left_out for depth in range(len(folders) + 1))
        }
    )
    if not below:
        return ""
    if len(below) == 1:
        return f" ({some_names(below)} below it means nothing)"
    return f" ({some_names(below)} below it mean nothing{GROUP_HINT})"


def _images(count: int) -> str:
    return counted(count, "image")


def some_names(names: list[str]) -> str:
    """The first of some names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(clip(name) for name in names[:SHOWN]) + more


def exclude_line(names: Iterable[str]) -> str:
    """The line of the run file that leaves folders or files out; it can be copied as it is."""
    return f"data.exclude: [{', '.join(quoted(glob.escape(name)) for name in names)}]"


def quoted(text: str) -> str:
    """A text as a value of the run file, in quotation marks where YAML reads it otherwise."""
    plain = re.fullmatch(r"[^\W\d][\w.-]*( [\w.-]+)*", text)
    word = text.lower() in ("yes", "no", "on", "off", "true", "false", "null", "y", "n")
    return text if plain and not word else json.dumps(text, ensure_ascii=False)
