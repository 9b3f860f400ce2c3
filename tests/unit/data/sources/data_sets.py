"""Random data sets as people make them, and what their makers meant: the judge of the fuzz.

Each strategy builds the files and notes, at the moment it writes a picture, which label, split and
group a person would read for it. Nothing here is taken from the code that is judged: no names of
splits, no rules, no readers.
"""

import io
import json
import tarfile
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

ANIMALS = ["cat", "dog", "cow", "Käse", "n01440764", "class 7", "plane", "trunk", "猫", "no_mask"]
TRAIN = [
    "train",
    "Training",
    "training_set",
    "TRAIN",
    "Train Data",
    "trainImages",
    "Trainingsdaten",
]
TRAIN += ["entrenamiento", "训练集", "seg_train"]
VAL = ["val", "valid", "Validation", "dev", "validate", "val_images", "validación", "验证集", "VAL"]
TEST = [
    "test",
    "Test",
    "test_set",
    "holdout",
    "hold-out",
    "testing",
    "TestData",
    "prueba",
    "测试集",
]
TEST += ["seg_test"]
CLEAR_GROUPS = [
    ["patient1", "patient2", "patient3", "patient4"],
    ["site_a", "site_b", "site_c"],
    ["fold1", "fold2", "fold3", "fold4", "fold5"],
    ["2024-01-05", "2024-02-11", "2024-03-30"],
    ["Subject 7", "Subject 8", "Subject 12"],
    ["camera-1", "camera-2", "camera-3"],
]
UNCLEAR_GROUPS = [["north", "south", "east"], ["001", "002", "003", "004"], ["miller", "smith"]]
JUNK = (
    ".git/x.png",
    ".ipynb_checkpoints/1.png",
    "__MACOSX/cat/1.png",
    "README.md",
    "docs/figure.png",
    "annotations/1.xml",
    "unlabeled/1.png",
    "Thumbs.db",
    ".DS_Store",
    "labels/1.txt",
)
NO_LABEL = ["", "nan", "NULL", "N/A"]
ADDRESSES = [
    "gs://b/1.png",
    "http://[b/1.png",
    "file://[b/1.png",
    "https://h/1.png",
    "data:image/png;base64,A",
    "C:\\x\\1.png",
]
PICTURE = b"picture "


@dataclass
class Made:
    """A data set and what its maker meant.

    Attributes:
        files: Bytes by name.
        meant: Label and split (None: not stated) of each picture, by the name it is listed under.
        groups: What must stay in one split.
        dropped: Pictures that must not be taken, and be counted.
        clear: Whether a person sees one reading only: then it must not be refused.
        options: Of the run file's section ``data``.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    meant: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)
    dropped: set[str] = field(default_factory=set)
    clear: bool = True
    options: dict[str, Any] = field(default_factory=dict)

    def picture(self) -> bytes:
        """Bytes that no other picture has; the slow fuzz puts a real image in their place."""
        self.options.setdefault("count", 0)
        self.options["count"] += 1
        return PICTURE + str(self.options["count"]).encode()

    def add(self, name: str, label: str, split: str | None, group: str | None = None) -> None:
        self.files[name] = self.picture()
        self.meant[name] = (label, split)
        if group is not None:
            self.groups[name] = group

    def junk(self, name: str) -> None:
        picture = name.endswith("png")
        self.files[name] = self.picture() if picture else b"x"
        if picture:
            self.dropped.add(name)


def _classes(draw: st.DrawFn) -> list[str]:
    return draw(st.lists(st.sampled_from(ANIMALS), min_size=2, max_size=4, unique=True))


def _split_names(draw: st.DrawFn) -> dict[str, str]:
    """Names of two or three splits, by what they stand for."""
    names = {"train": draw(st.sampled_from(TRAIN))}
    if draw(st.booleans()):
        names["val"] = draw(st.sampled_from(VAL))
    if "val" not in names or draw(st.booleans()):
        names["test"] = draw(st.sampled_from(TEST))
    return names


LEVELS = [
    *(["class"], ["split", "class"], ["class", "split"], ["who", "class"], ["class", "who"]),
    *(["wrap", "class"], ["wrap", "split", "class"], ["split", "who", "class"]),
    *(["class", "free"], ["split", "class", "free"], ["wrap", "who", "class"]),
    *(["split", "class", "who"], ["wrap", "wrap2", "split", "class"], ["kind", "class"]),
]


@st.composite
def trees(draw: st.DrawFn) -> Made:
    """Folders in the ways people make them, with what lies about beside them."""
    made = Made()
    classes, splits = _classes(draw), _split_names(draw)
    levels = draw(st.sampled_from(LEVELS))
    clear = draw(st.integers(0, 3)) > 0
    who = draw(st.sampled_from(CLEAR_GROUPS if clear else UNCLEAR_GROUPS))
    choices = {"class": classes, "split": list(splits), "who": who, "wrap": ["my data"]}
    choices["free"] = draw(st.sampled_from([["images"], ["a", "b"], ["front", "back"]]))
    choices |= {"wrap2": ["dataset"], "kind": ["mask", "images"]}
    combos: list[dict[str, str]] = [{}]
    for level in levels:
        combos = [{**one, level: value} for one in combos for value in choices[level]]
    each = draw(st.integers(2, 4))
    for combo in combos:
        parts = [splits[combo[n]] if n == "split" else combo[n] for n in levels]
        for number in range(each):
            name = "/".join([*parts, f"{number}.png"])
            if combo.get("kind") == "mask":
                made.junk(name)
                continue
            # Groups that are no more than a name in each class are nobody's plan.
            grouped = combo.get("who") if levels.index("class") or len(who) > 2 else None
            made.add(name, combo["class"], combo.get("split"), grouped)
        if draw(st.integers(0, 9)) == 0:
            made.junk("/".join([*parts, "0_mask.png"]))
    either = len(choices["free"]) > 1 and "free" in levels  # cat/a and dog/a: which is the class?
    made.clear = not either and ("who" not in levels or clear)
    for name in draw(st.lists(st.sampled_from(JUNK), max_size=4, unique=True)):
        made.junk(name)
    return made


@st.composite
def twins(draw: st.DrawFn) -> Made:
    """Class folders whose names look the same, or are written in two ways."""
    made = Made()
    pairs = [("caf\u00e9", "cafe\u0301"), ("dog", "dog\u200b"), ("big cat", "big  cat")]
    alike = [("cat", "Cat"), ("big_cat", "big cat"), ("c\u0430t", "cat"), ("cat", "cat (1)")]
    made.clear = draw(st.booleans())
    one, other = draw(st.sampled_from(pairs if made.clear else alike))
    mode = "auto" if made.clear else draw(st.sampled_from(["auto", "keep"]))
    if mode == "keep":
        made.options["similar_labels"], made.clear = "keep", True
    for folder in (one, other, "bird"):
        for number in range(draw(st.integers(2, 4))):
            label = one if made.clear and mode == "auto" and folder == other else folder
            made.add(f"{folder}/{len(made.meant)}-{number}.png", label, None)
    if mode == "auto" and not made.clear:
        made.meant = dict.fromkeys(made.meant, ("nobody knows", None))
    return made


SEPARATORS = [",", ";", "\t", "|"]
ODD_COLUMNS = ["Split", "subset", "phase", "is_train"]


@st.composite
def tables(draw: st.DrawFn) -> Made:
    """Tables beside pictures, some of their rows odd."""
    made = Made()
    classes = _classes(draw)[:3]
    kind = draw(st.sampled_from(["t.csv", "t.tsv", "t.jsonl", "metadata.csv", "metadata.jsonl"]))
    image = "file_name" if kind.startswith("metadata") else "image"
    odd = draw(st.sampled_from(["", "", "", "column", "label", "several", "more"]))
    column = draw(st.sampled_from(ODD_COLUMNS if odd == "column" else [None, "split"]))
    words = {"train": draw(st.sampled_from(["train", "Training", "TRAIN"]))}
    words |= {"val": draw(st.sampled_from(["val", "valid", "dev"])), "test": "test"}
    place = draw(st.sampled_from(["images", "", "by class", "by split"]))
    label_column = draw(st.sampled_from(["Label", "category"])) if odd == "label" else "label"
    rows: list[dict[str, str]] = []
    for number in range(draw(st.integers(12, 24))):
        label = classes[number % len(classes)]
        split = ["train", "val", "test"][number // len(classes) % 3]
        inside = {"by class": f"by class/{label}", "by split": f"x/{split}"}.get(place, place)
        name = f"{inside}/{number}.png".lstrip("/")
        stated = split if column == "split" or (column is None and place == "by split") else None
        made.add(name, label, stated)
        row = {image: name, label_column: label}
        if column:
            cell = str(int(split == "train")) if column == "is_train" else words[split]
            row[column] = cell
        rows.append(row)
    made.clear = not odd
    _odd_rows(draw, made, rows, image, label_column)
    if odd == "several":
        one = rows[2]
        made.meant[one[image]] = ("nobody knows", None)
        one[label_column] = f"{rows[0][label_column]}|{rows[1][label_column]}"
    for number in range(draw(st.integers(2, 4)) if odd == "more" else draw(st.integers(0, 1))):
        made.junk(f"more/{number}.png")  # a table that leaves much out may be asked about
    made.files[kind] = _written(draw, kind, rows).encode(
        draw(st.sampled_from(["utf-8", "utf-8-sig"]))
    )
    return made


def _odd_rows(
    draw: st.DrawFn, made: Made, rows: list[dict[str, str]], image: str, label: str
) -> None:
    """Rows that name no file here, no label, or a file that another row labels otherwise."""
    for address in draw(st.lists(st.sampled_from(ADDRESSES), max_size=2, unique=True)):
        rows.append({**rows[0], image: address})
    for word in draw(st.lists(st.sampled_from(NO_LABEL), max_size=2, unique=True)):
        name = f"unknown/{word.replace('/', '') or 'none'}.png"
        made.junk(name)
        rows.append({**rows[0], image: name, label: word})
    if draw(st.integers(0, 4)) == 0:
        rows.append({**rows[0], label: rows[1][label]})
        made.dropped.add(rows[0][image])
        del made.meant[rows[0][image]]


def _written(draw: st.DrawFn, kind: str, rows: list[dict[str, str]]) -> str:
    if kind.endswith("jsonl"):
        return "\n".join(json.dumps(row) for row in rows)
    mark = "\t" if kind.endswith("tsv") else draw(st.sampled_from(SEPARATORS))
    lines = [rows[0].keys(), *(row.values() for row in rows)]
    quoted = [[f'"{cell}"' if mark in cell else cell for cell in line] for line in lines]
    first = draw(st.sampled_from(["", "", "\n", "# from the lab\n"]))
    end = draw(st.sampled_from(["\n", "\r\n"]))
    return first + end.join(mark.join(line) for line in quoted)


LISTS = ["{split}.txt", "meta/{split}.txt", "{split}_list.txt", "lists/{split}list01.txt"]
LINES = [
    "{folder}/{name}.png",
    "{top}{folder}/{name}.png",
    "{folder}/{name}",
    "/home/x/{folder}/{name}.png",
]
LINES += ["{folder}\\{name}.png", "./{folder}/{name}.png", "{name}.png"]
BEHIND = ["", "", " {number}", ",{number}", "\t{folder}"]


@st.composite
def listed(draw: st.DrawFn) -> Made:
    """Class folders, and lists that say which split each picture is for."""
    made = Made()
    classes = [name for name in _classes(draw) if " " not in name] or ["cat", "dog"]
    classes = classes if len(classes) > 1 else ["cat", "dog"]
    top = draw(st.sampled_from(["", "images/", "data set/"]))
    splits = draw(st.sampled_from([["train", "test"], ["train", "val", "test"], ["val", "test"]]))
    place, line = draw(st.sampled_from(LISTS)), draw(st.sampled_from(LINES))
    behind = draw(st.sampled_from(BEHIND))
    text: dict[str, list[str]] = {split: [] for split in splits}
    each = draw(st.integers(4, 6))
    for number, folder in enumerate(classes):
        for n in range(each):
            name = f"{folder}_{n}" if line.startswith("{name}") else f"{n:03}"
            split = ["train", *splits][n % (len(splits) + 1)]
            if split in text:
                said = (line + behind).format(top=top, folder=folder, name=name, number=number)
                text[split].append(said)
            made.add(f"{top}{folder}/{name}.png", folder, split)
    for split, lines in text.items():
        made.files[place.format(split=split)] = "\n".join(draw(st.permutations(lines))).encode()
    return made


# How a label stands beside an image, and whether a person who opens the archive can tell it.
FORMS = {
    "cls": (".cls", lambda label: label, True),
    "txt": (".txt", lambda label: f"{label}\n", True),
    "label": (".label", lambda label: label, True),
    "json": (".json", lambda label: json.dumps({"label": label, "id": 7}), True),
    "class": (".class", lambda label: label, False),
    "lines": (".txt", lambda label: f"{label}\n0.7", False),
    "list": (".json", lambda label: json.dumps({"label": [label]}), False),
    "kind": (".json", lambda label: json.dumps({"kind": label}), False),
    "nested": (".json", lambda label: json.dumps({"meta": {"label": label}}), False),
}


@st.composite
def shards(draw: st.DrawFn) -> Made:
    """Tar shards whose labels are in all the places where people put them."""
    made = Made()
    classes = _classes(draw)[:3]
    form = draw(st.sampled_from([*FORMS, "cls", "json", "folder", "latin", "apart"]))
    plain = [["0.tar", "1.tar"], ["a/0.tar"], ["strain-0.tar", "contest-0.tar"]]
    stated = [["train-0.tar", "val-0.tar", "test-0.tar"], ["train/0.tar", "valid/0.tar"]]
    stated += [
        ["pets-train-00.tar", "pets-test-00.tar"],
        ["Trainingsdaten-0.tar", "Testdaten-0.tar"],
    ]
    by_name = draw(st.booleans())
    archives = draw(st.sampled_from(stated if by_name else plain))
    prefix = draw(st.sampled_from(["", "ward {w}/", "v1.0-", "cam.{n}."]))
    views = draw(st.sampled_from([[""], [".left", ".right"], ["", ".mask"], [".left", ".seg"]]))
    made.clear = form in ("folder", "cls", "txt", "label", "json")
    gap = made.clear and form != "folder" and draw(st.booleans())  # an image without a label
    for archive in archives:
        split = _split_of_archive(archive) if by_name else None
        made.files[archive] = _tar(made, archive, split, form, prefix, views, classes, gap)
    return made


def _split_of_archive(name: str) -> str:
    low = name.lower()
    return "train" if "train" in low else "val" if "val" in low else "test"


def _tar(
    made: Made,
    archive: str,
    split: str | None,
    form: str,
    prefix: str,
    views: list[str],
    classes: list[str],
    gap: bool,
) -> bytes:
    members: list[tuple[str, bytes]] = []
    late: list[tuple[str, bytes]] = []
    for number in range(4 * len(classes)):
        label = classes[number % len(classes)]
        key = prefix.format(w=number % 3, n=number % 2) + f"{number:03}"
        if form == "folder":
            key = f"{label}/{number:03}"
        missing = gap and number == 3
        for view in views:
            name = f"{archive}#{key}{view}.png"
            members.append((f"{key}{view}.png", made.picture()))
            if view in (".mask", ".seg") or missing:
                made.dropped.add(name)
            else:
                made.meant[name] = (label, split)
                if views == [".left", ".right"]:
                    made.groups[name] = f"{archive} {number}"
        if form == "folder" or missing:
            continue
        end, write, _ = FORMS.get(form, FORMS["cls"])
        note = write(label).encode("latin-1" if form == "latin" and label == "Käse" else "utf-8")
        (late if form == "apart" else members).append((key + end, note))
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, data in [*members, *late]:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return stream.getvalue()


# Lines of a text that states labels, where neither names nor classes have blanks in them.
NOTED_LINES = ["{n} {c}", "{n}\t{c}", "{n},{c}", "{n}; {c}", "{n}: {c}", '"{n}" "{c}"', "{n}={c}"]


@st.composite
def noted(draw: st.DrawFn) -> Made:
    """Pictures whose folders say nothing, and JSON or text files that state their labels."""
    made = Made()
    classes = [name for name in _classes(draw) if " " not in name]
    classes = classes if len(classes) > 1 else ["cat", "dog"]
    splits = _split_names(draw) if draw(st.booleans()) else {}
    form = draw(st.sampled_from(["mapping", "objects", "list", "classes", "text"]))
    line = draw(st.sampled_from(NOTED_LINES))
    one = bool(splits) and form != "classes" and draw(st.booleans())  # one file for all splits
    said: dict[str, list[tuple[str, str]]] = {}
    for split in splits or {"": ""}:
        folder = splits.get(split, draw(st.sampled_from(["images", "my pictures", ""])))
        for number in range(len(classes) * draw(st.integers(3, 5))):
            name = f"{split}IMG_{number:03}x.jpg"
            label = classes[number % len(classes)]
            path = f"{folder}/{name}".lstrip("/")
            made.add(path, label, split or None)
            whole = draw(st.booleans()) if number == 0 else None
            place = "" if one else split
            said.setdefault(place, []).append((name if not whole else path, label))
    for split, pairs in said.items():
        name = draw(st.sampled_from(["labels", "answers", "all"])) if not split else ""
        folder = f"{splits[split]}/" if split else ""
        ending = "txt" if form == "text" else "json"
        made.files[f"{folder}{name or 'labels'}.{ending}"] = _noted(form, line, pairs).encode()
    if draw(st.booleans()):
        made.junk("README.md")
    return made


def _noted(form: str, line: str, pairs: list[tuple[str, str]]) -> str:
    if form == "text":
        return "\n".join(line.format(n=name, c=label) for name, label in pairs)
    if form == "classes":
        found: dict[str, list[str]] = {}
        for name, label in pairs:
            found.setdefault(label, []).append(name)
        return json.dumps(found)
    if form == "objects":
        return json.dumps([{"image": name, "label": label} for name, label in pairs])
    return json.dumps([[*pair] for pair in pairs] if form == "list" else dict(pairs))


VIEWS = [["left", "right"], ["T1", "T2", "FLAIR"], ["before", "after"], ["rgb", "nir"], ["A", "B"]]
ENDS = [
    ["", "_rot90"],
    ["", "_flip", "_hflip"],
    ["_B02", "_B03"],
    ["_left", "_right"],
    ["", "_aug1"],
]


@st.composite
def views(draw: st.DrawFn) -> Made:
    """Several pictures of one thing, told by folders below the classes or by names."""
    made = Made()
    classes = _classes(draw)
    splits = _split_names(draw) if draw(st.booleans()) else {"": ""}
    folders = draw(st.booleans())
    kinds = draw(st.sampled_from(VIEWS if folders else ENDS))
    form = draw(st.sampled_from(["{n}", "{n:04}", "{c}{n}", "IMG_{k}"]))
    count = draw(st.integers(5, 8))
    for split, top in splits.items():
        for c, label in enumerate(classes):
            for n in range(count):
                stem = form.format(n=n, c=label, k=1000 * c + 37 * n)
                for kind in kinds:
                    path = (
                        [top, label, kind, f"{stem}.png"]
                        if folders
                        else [top, label, f"{stem}{kind}.png"]
                    )
                    name = "/".join(part for part in path if part)
                    made.add(name, label, split or None, f"{split} {label} {n}")
    return made
