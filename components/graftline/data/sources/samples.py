"""One sample of a tar shard: which of its members are images, and what says their label.

The label is what the user wrote beside the image, never a guess in its place: where something
that may be a label is there and cannot be understood, the entry carries a fault that stops the
run and names the sample and what it holds.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any

from graftline.data.sources.base import NO_ATTRIBUTES, NO_IMAGE, Columns, Entry
from graftline.data.sources.label_text import clean_text, clip, controls, words_of
from graftline.data.sources.layouts.folder_names import MASK
from graftline.data.sources.split_names import is_split_column, names_split, stated_splits
from graftline.data.sources.table_rows import cell_text
from graftline.images.decode import SUFFIXES, begins_as_image

LABELS = (".cls", ".txt", ".label")
FROM_FOLDER = "label from the folder"
NO_LABEL = "no label"
VIEWS = 16
_LABEL_KEYS = words_of("label labels class cls category target class_name label_name")
_NAME_KEYS = ("label", "cls")
_MASKS = words_of(
    "mask masks seg segmentation semantic instance panoptic gt label labelmap annotation depth "
    "alpha trimap heatmap"
)
# What programs note of an image. Another key may be its label under a name nobody told us.
_TECHNICAL = words_of(
    "id key uid uuid index idx image_id image img file filename file_name name path filepath "
    "file_path fname url uri source width height w h size channels mode format original_width "
    "original_height bytes md5 sha1 sha256 hash phash exif metadata meta license copyright "
    "author date time datetime timestamp created lat lon latitude longitude status "
    "error_message similarity caption text description title bbox bboxes boxes keypoints split "
    "group __key__ __url__ clip_score aesthetic score weight fold version camera"
)
# Companions that hold no label.
_OTHER_FILES = words_of(
    "json npy npz pth pt wav mp3 mp4 flac md5 sha1 sha256 exif url caption bbox boxes xmp icc "
    "svg pdf ds_store md html"
)


class Orphans:
    """Labels without an image and images without a label: do they belong together?"""

    def __init__(self) -> None:
        self.labels: dict[str, list[str]] = {}
        self.images: set[str] = set()

    def note(self, key: str, keys: list[str]) -> str | None:
        """A label stands alone; the fault where its image was elsewhere."""
        if key in self.images:
            return self._fault(key, keys)
        self.labels[key] = keys
        return None

    def image(self, key: str) -> str | None:
        """An image stands alone; the fault where its label was elsewhere."""
        if key in self.labels:
            return self._fault(key, self.labels.pop(key))
        self.images.add(key)
        return None

    def left(self, entry: Entry) -> Iterator[tuple[Entry, bytes]]:
        """The labels that no image came to."""
        for key, keys in self.labels.items():
            path = f"{entry.path}#{key}{keys[0]}"
            yield Entry(path, entry.version, 0, problem="label without an image"), b""

    def _fault(self, key: str, keys: list[str]) -> str:
        return (
            f"the image and the label ({', '.join(keys)}) of the sample {clip(key)!r} do not stand "
            "one after the other; members of a sample must be neighbours"
        )


def images_of(
    archive: Entry,
    key: str,
    sample: Mapping[str, bytes],
    problems: Mapping[str, str],
    columns: Columns,
    orphans: Orphans,
) -> Iterator[tuple[Entry, bytes]]:
    """The images of a sample, each with its label or the reason why it has none.

    Args:
        archive: The archive's entry.
        key: What the members' names share, up to the first dot.
        sample: Bytes by the rest of the name, from that dot on.
        problems: Why a member's bytes are not there, by the same.
        columns: Keys of the JSON note.
        orphans: What stood alone in this archive so far.
    """
    stems = _label_stems(sample)
    if stems:
        yield from _by_stem(archive, key, sample, problems, columns, orphans, stems)
        return
    images = [s for s, data in sample.items() if _is_image(s) or _unnamed_image(s, data)]
    masks = [s for s in images if len(images) > 1 and s.split(".")[-2:][0] in _MASKS]
    pictures = [suffix for suffix in images if suffix not in masks]
    notes = [suffix for suffix in sample if suffix not in images and _is_label(suffix)]
    if not images:
        if notes:
            fault = orphans.note(key, notes)
            if fault is not None:
                yield _entry(archive, key, notes[0], b"", problem=NO_LABEL, fault=fault), b""
        for suffix in sample.keys() - set(notes):
            yield _entry(archive, key, suffix, b"", problem=NO_IMAGE), b""
        return
    twins = [suffix for suffix in pictures if _stem(suffix) == ""]
    # Without labels beside them, many files of one beginning are frame.0001.png, not views.
    many = 1 < len(pictures) <= (len(pictures) if notes else VIEWS)
    many = many and not _one_each(pictures, sample) and (bool(notes) or not _counted(pictures))
    for suffix in images:
        data = sample[suffix]
        if suffix in masks:
            yield _entry(archive, key, suffix, data, problem=MASK), data
            continue
        entry = _picture(archive, key, suffix, sample, columns, f"{archive.path}#{key}" * many)
        if len(twins) > 1:
            entry = dataclasses.replace(entry, fault=entry.fault or _two_of(entry.path, twins))
        if not notes and not entry.fault and (entry.label is None or entry.detail == FROM_FOLDER):
            entry = dataclasses.replace(entry, fault=orphans.image(key))
        if suffix in problems:
            entry = dataclasses.replace(entry, problem=problems[suffix])
        yield entry, data


def _label_stems(sample: Mapping[str, bytes]) -> list[str]:
    """Where a key goes on after its first dot: what the names of labels share with several images.

    In `v1.0-006.left.png`, `v1.0-006.right.png` and `v1.0-006.cls` that is `.0-006`; an image that
    no label belongs to stands alone. Empty where each image has a label of its own, or none has.
    """
    ends = {_stem(suffix) for suffix in sample if _is_label(suffix)} - {""}
    images = [_stem(suffix) for suffix in sample if _is_image(suffix)]
    owners = [max((e for e in ends if _within(i, e)), key=len, default="") for i in images]
    alone = {image for image, owner in zip(images, owners, strict=True) if not owner}
    views = any(image != owner for image, owner in zip(images, owners, strict=True))
    if not any(owners) or not views or "" in alone:
        return []
    return sorted(ends | alone, key=len, reverse=True)


def _by_stem(
    archive: Entry,
    key: str,
    sample: Mapping[str, bytes],
    problems: Mapping[str, str],
    columns: Columns,
    orphans: Orphans,
    stems: list[str],
) -> Iterator[tuple[Entry, bytes]]:
    """The images of a sample of which each part has a label, as samples of their own."""
    parts: dict[str, dict[str, bytes]] = {stem: {} for stem in ["", *stems]}
    for suffix, data in sample.items():
        stem = next((one for one in stems if _within(_stem(suffix), one)), "")
        parts[stem][suffix.removeprefix(stem)] = data
    for stem, part in parts.items():
        faults = {s.removeprefix(stem): why for s, why in problems.items() if s.startswith(stem)}
        if part:
            yield from images_of(archive, key + stem, part, faults, columns, orphans)


def _stem(suffix: str) -> str:
    return suffix.rpartition(".")[0]


def _within(image: str, stem: str) -> bool:
    return image == stem or image.startswith(f"{stem}.")


def _is_image(suffix: str) -> bool:
    return "." + suffix.rpartition(".")[2] in SUFFIXES


def _unnamed_image(suffix: str, data: bytes) -> bool:
    """Whether a member without any suffix holds an image, as files in a folder may."""
    return suffix == "" and begins_as_image(data)


def _picture(
    archive: Entry,
    key: str,
    suffix: str,
    sample: Mapping[str, bytes],
    columns: Columns,
    group: str,
) -> Entry:
    """The entry of one image, with what the sample says of it."""
    found = _Label(archive, key, suffix, sample, columns)
    problem = None if found.label is not None else NO_LABEL
    split = archive.split
    if found.split is not None:
        split = stated_splits([found.split]).get(found.split)
        problem = problem or (None if split else f"unknown split {clip(found.split)!r}")
    own = found.text(columns.group) if columns.group else None
    return _entry(
        archive,
        key,
        suffix,
        sample[suffix],
        label=found.label,
        split=split,
        group=own or group or None,
        attributes={name: found.text(name) for name in columns.attributes} or NO_ATTRIBUTES,
        problem=problem,
        detail=FROM_FOLDER if found.from_folder else None,
        fault=found.fault,
    )


def _two_of(path: str, twins: list[str]) -> str:
    return (
        f"the sample of {clip(path)!r} has the images {', '.join(twins)}, and nothing says which "
        "one is the picture; a mask is called name.mask.png, views have names of their own "
        "(name.left.jpg, name.right.jpg)"
    )


def _entry(archive: Entry, key: str, suffix: str, data: bytes, **values: Any) -> Entry:
    return Entry(f"{archive.path}#{key}{suffix}", archive.version, len(data), **values)


def _may_be_label(name: str, value: object) -> bool:
    """Whether a key of a JSON note, under a name that is not configured, may hold the label."""
    if isinstance(value, dict):
        return name not in _TECHNICAL or any(str(key).lower() in _LABEL_KEYS for key in value)
    if name in ("name", "title") and isinstance(value, str):
        return value.isalpha()  # a class's; a file's has a dot or a number
    return name not in _TECHNICAL


def _is_label(suffix: str) -> bool:
    return suffix.endswith((*LABELS, ".json"))


def _one_each(pictures: list[str], sample: Mapping[str, bytes]) -> bool:
    """Whether each image has a label of its own: names with dots, not views of one thing."""
    stems = [suffix.rpartition(".")[0] for suffix in pictures]
    return all(any(stem + end in sample for end in (*LABELS, ".json")) for stem in stems)


def _counted(pictures: list[str]) -> bool:
    """Whether the names of the images end with numbers: v1.0.7.jpg, v1.0.8.jpg are two pictures."""
    return all(_stem(suffix).rpartition(".")[2].isdecimal() for suffix in pictures)


class _Label:
    """What a sample says of one of its images.

    Attributes:
        label: The label, None where there is none.
        split: As the note or the folders state it.
        said: Whether anything of the sample was about a label.
        from_folder: Whether the label is the name of the folder.
        fault: What was there and not understood.
    """

    def __init__(
        self, archive: Entry, key: str, suffix: str, sample: Mapping[str, bytes], columns: Columns
    ) -> None:
        self.columns = columns
        self.name = f"{archive.path}#{key}{suffix}"
        self.keys = [clip(one) for one in sample]
        self.label: str | None = None
        self.split: str | None = None
        self.said = self.from_folder = False
        self.note: dict[str, Any] = {}
        self.fault: str | None = None
        stem = suffix.rpartition(".")[0]
        self.note = self._json(sample, stem)
        self._from_note()
        self._from_files(sample, stem)
        self.split = self.text(columns.split) if columns.split else None
        self._check_other_split()
        if self.label is None and not self.said:
            self._from_others(sample)
        if self.label is None and not self.said and self.fault is None:
            self._from_folder(key)

    def text(self, name: str | None) -> str | None:
        """A value of the JSON note as text, None where it is none."""
        if name is None:
            return None
        return clean_text(cell_text(self.note.get(name)) or "") or None

    def _refuse(self, what: str) -> None:
        self.said = True
        self.fault = self.fault or (
            f"the sample {clip(self.name)!r} has a label that is not understood: {what}; its "
            f"members are {', '.join(self.keys)}"
            + (f"; the JSON has the keys {', '.join(map(clip, self.note))}" if self.note else "")
        )

    def _json(self, sample: Mapping[str, bytes], stem: str) -> dict[str, Any]:
        data = next((sample[s] for s in (stem + ".json", ".json") if s in sample), None)
        if data is None:
            return {}
        try:
            note = json.loads(data)
        except (ValueError, RecursionError):
            note = None
        if isinstance(note, dict):
            return note
        if not any(s in sample for end in LABELS for s in (stem + end, end)):
            self._refuse("the .json holds no JSON object")
        return {}

    def _from_note(self) -> None:
        wanted = self.columns.label
        names = [wanted, *(_NAME_KEYS if wanted == Columns().label else ())]
        name = next((one for one in names if one in self.note), None)
        if name is not None:
            self.said = True
            text = cell_text(self.note[name])
            if text is None:
                kind = "a list" if isinstance(self.note[name], list) else "an object"
                self._refuse(f"{name!r} holds {kind}, not one label")
            self.label = text or None
        elif self.note and wanted != Columns().label:
            self._refuse(f"the JSON has no key {wanted!r} (data.label_column)")

    def _from_files(self, sample: Mapping[str, bytes], stem: str) -> None:
        noted = self.label
        for suffix in dict.fromkeys(s + end for s in (stem, "") for end in LABELS):
            if suffix == ".cls" and noted is not None and suffix in sample:
                self._check_agreement(noted, sample[suffix])
            if self.label is not None or suffix not in sample:
                continue
            self.said = True
            try:
                self.label = sample[suffix].decode("utf-8-sig").strip() or None
            except UnicodeDecodeError as error:
                self._refuse(f"{suffix} is not UTF-8 text (byte {error.object[error.start]:#04x})")
            if self.label is not None and controls(self.label):
                self._refuse(f"{suffix} holds bytes that are no text")
            if self.label is not None and "\n" in self.label:
                self._refuse(f"{suffix} holds several lines")
            if self.label is not None and self.label.isascii() is False:
                self.label = self.label if clean_text(self.label) else None

    def _check_agreement(self, noted: str, data: bytes) -> None:
        """Refuse a note and a file that name two classes; a number may stand for the name."""
        text = clean_text(data.decode("utf-8-sig", "replace"))
        numbers = any(one.lstrip("-").isdigit() for one in (text, noted))
        if text and text != clean_text(noted) and not numbers:
            self._refuse(f".cls says {clip(text)!r} and the JSON {clip(noted)!r}")

    def _check_other_split(self) -> None:
        """Refuse to pass over a split that stands under another key."""
        wanted = self.columns.split
        if not wanted or wanted in self.note:
            return
        used = {self.columns.label, self.columns.group, *self.columns.attributes}
        for name in self.note:
            text = (self.text(name) or "").lower()
            if name not in used and is_split_column(str(name)) and names_split(text):
                self._refuse(
                    f"the key {name!r} says {text!r} and looks like the split; set "
                    f"data.split_column: {clip(str(name))}, or null to have the splits chosen"
                )

    def _from_others(self, sample: Mapping[str, bytes]) -> None:
        """Nothing usual says the label: something unusual may."""
        used = {self.columns.split, self.columns.group, *self.columns.attributes}
        unknown = [
            name
            for name, value in self.note.items()
            if name not in used and value is not None and _may_be_label(str(name).lower(), value)
        ]
        odd = [s for s in sample if "." + s.rpartition(".")[2] not in SUFFIXES and s != ".json"]
        dotted = [s for s in odd if _is_label(s)]
        unread = [s for s in odd if s and s.rpartition(".")[2] not in _OTHER_FILES]
        if dotted or unread:
            self._refuse(
                f"{', '.join(map(clip, dotted or unread))} is no label known here (.cls, "
                ".txt, .label, .json)"
            )
        elif unknown:
            self._refuse(
                "no key of the JSON is called "
                f"{self.columns.label!r} (data.label_column names another one)"
            )

    def _from_folder(self, key: str) -> None:
        *above, parent = ["", *key.split("/")[:-1]]
        if parent:  # class folders that were packed as they stood
            self.label, self.from_folder = parent, True
            named = next((name for name in above if names_split(name)), None)
            self.split = self.split or named
