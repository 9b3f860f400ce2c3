"""What to change where a table is not understood: which columns are meant, and where files are."""

import posixpath
import re
from collections import defaultdict
from collections.abc import Collection, Sequence

from graftline.data.sources.base import Columns
from graftline.data.sources.label_text import clean_text, clip, words_of
from graftline.data.sources.layouts.folder_names import identifiers, is_group_column
from graftline.data.sources.layouts.layout import quoted
from graftline.data.sources.one_hot import class_columns, several_classes
from graftline.data.sources.split_list_files import LISTS, split_of_list
from graftline.data.sources.split_names import split_words, stated_splits
from graftline.data.sources.table_images import is_image
from graftline.data.sources.table_rows import SHOWN, Row, columns_by_blanks, some
from graftline.data.sources.table_splits import looks_like_split

_LABEL_NAMES = words_of(
    "label labels class classes classname classid category categories target targets y species "
    "diagnosis dx finding tag tags labelname labelid breed type kind cls gt groundtruth choice"
)
_IMAGE_NAMES = words_of(
    "image images img file filename filepath path imagepath imagename imageid imgpath imgname id "
    "name fname picture photo"
)
MOST_NAMED = 0.8  # of the files have a name of this kind
_ZERO_OR_ONE = frozenset(("0", "1", "0.0", "1.0", "-1", "true", "false", ""))


def columns_meant(header: Sequence[str], rows: Sequence[Row], images: Collection[str]) -> str:
    """Which columns probably hold the image and the label, as lines of the run file.

    Args:
        header: The columns' names.
        rows: All of them.
        images: Names of the images that are there.
    """
    stems = {_stem(one) for one in images}
    if any("." in name and (_stem(name) in stems or is_image(name)) for name in header):
        return _without_names(header, rows, stems)
    named = [name for name in header if _names_images(name, rows, stems)]
    named.sort(key=lambda name: not any(is_image(row.cells.get(name, "")) for row in rows))
    by_name = [name for name in header if _bare(name) in _IMAGE_NAMES]
    usual = [name for name in header if name == "image"]
    image = next(iter([*named, *usual, *by_name]), None)
    split = next((name for name in header if looks_like_split(name, rows) is not None), None)
    others = [name for name in header if name not in (image, split)]
    cells = {name: {row.cells.get(name, "").lower() for row in rows} for name in others}
    zeros = [name for name in others if cells[name] <= _ZERO_OR_ONE and cells[name] != {""}]
    label = next((name for name in others if _bare(name) in _LABEL_NAMES), None)
    if label is None and len(zeros) > 1:
        return _one_for_each_class(image, zeros, others, rows)
    label = label or next((name for name in others if few_values(name, rows)), None)
    lines = [("image", image), ("label", label), ("split", split if image and label else None)]
    said = [_column_line(key, name) for key, name in lines if name and name != key]
    if image is None:
        return f"No column names the images: {some(header)}."
    if label is None:
        return f"No column looks like a label ({some(header)}): add one that is called `label`."
    further = [name for name in others if name != label] if image.isdecimal() else []
    more = f" {_columns_with_values([label, *further], rows)}" if further else ""
    return f"Perhaps {' and '.join(said)}.{more}" if said else ""


def _column_line(key: str, name: str) -> str:
    return f"`data.{key}_column: {quoted(clip(name))}`"


def _columns_with_values(names: Sequence[str], rows: Sequence[Row]) -> str:
    """What columns without names hold, so that a person sees which one is meant."""
    said = []
    for name in names[:SHOWN]:
        values = {clean_text(row.cells.get(name, "")) for row in rows} - {""}
        said.append(f'"{name}" has {len(values):,} values ({some(sorted(values)[:2])})')
    return f"The columns have no names and are called by number: {', '.join(said)}."


def _without_names(header: Sequence[str], rows: Sequence[Row], stems: Collection[str]) -> str:
    """What to do with a table whose first line is about an image."""
    blanks = len(header) == 1 and len(header[0].split()) > 1
    if blanks:  # `1.jpg cat`
        words = columns_by_blanks([header[0], *(row.cells.get(header[0], "") for row in rows)])
        header = words[0]
        rows = [Row(1, dict(zip(header, cells, strict=False))) for cells in words[1:]]
    names = _meant_by_cells(header, rows, stems)
    columns = [key for key in ("image", "label", "split") if key in names]
    lines = [_column_line(key, str(names.index(key) + 1)) for key in columns]
    first = f"add a line `{','.join(names)}` before it, or " if not blanks else ""
    return (
        f"The first line seems to name an image: {first}name the columns by their numbers, "
        f"{' and '.join(lines)}."
    )


def _one_for_each_class(
    image: str | None, classes: Sequence[str], others: Sequence[str], rows: Sequence[Row]
) -> str:
    """What to do with one column for each class, where it is not read as it is."""
    named = _column_line("image", image) if image not in ("image", None) else ""
    several = several_classes(rows, classes)
    meant = Columns(str(image))
    if named and not several and class_columns([str(image), *others], rows, meant):
        return f"Perhaps {named}: the other columns are one for each class."
    more = f" {several}: it is not known which of them is meant." if several else ""
    return (
        f"The columns {some(classes)} look like one column for each class.{more} Write one column "
        "`label` with the class's name, or let one of them be the label: "
        + f"{named} and " * bool(named)
        + f"{_column_line('label', classes[0])}."
    )


def _meant_by_cells(
    header: Sequence[str], rows: Sequence[Row], stems: Collection[str]
) -> list[str]:
    """Names for the columns of a table that has none."""
    names: list[str] = []
    for number, column in enumerate(header):
        cells = {clean_text(row.cells.get(column, "")) for row in rows} | {column}
        if "image" not in names and (_stem(column) in stems or is_image(column)):
            names.append("image")
        elif len(stated_splits(cells)) == len(cells):
            names.append("split")
        else:
            names.append("label" if "label" not in names else f"column_{number + 1}")
    return names


def label_columns(header: Sequence[str], *other: str | None) -> list[str]:
    """The columns whose names say that they hold labels.

    Args:
        header: The columns' names.
        other: Columns that hold something else.
    """
    return [name for name in header if name not in other and _bare(name) in _LABEL_NAMES]


def wrong_names(missing: Sequence[str], images: Collection[str]) -> str:
    """Where the files are that rows name otherwise; empty where they are not there at all.

    Args:
        missing: What rows name and no file is called.
        images: Names of the images that are there, from the source down.
    """
    by_stem: dict[str, list[str]] = defaultdict(list)
    for one in images:
        by_stem[_stem(one)].append(one)
    found = [(one, by_stem[_stem(one)][0]) for one in missing if len(by_stem[_stem(one)]) == 1]
    if not found:
        return ""
    one, other = found[0]
    return (
        f"{len(missing):,} rows name files that are not there; {len(found):,} of them are like the "
        f"name of an image elsewhere ({clip(one)} and {clip(other)}): write the paths as they are, "
        "relative to the table."
    )


_TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
_SIDECARS = (
    *(".json", ".xlsx", ".xls", ".ods", ".txt", ".xml", ".mat", ".manifest", ".lst", ".yaml"),
    *(".yml", ".pkl", ".pickle", ".sqlite", ".db"),
)
_PACKED = (".gz", ".bz2", ".zst", ".zip", ".7z", ".rar", ".tar", ".xz")
_ARRAYS = (
    *(".tfrecord", ".tfrecords", ".tfrec", ".rec", ".idx", ".lmdb", ".mdb", ".h5", ".hdf5"),
    *(".npz", ".npy", ".arrow", ".beton", ".pt", ".bin"),
)
_PROGRAMS = (".mat", ".pkl", ".pickle")  # what programs keep of their own
_PICTURES = (
    *(".heic", ".heif", ".avif", ".svg", ".psd", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raw"),
    *(".dcm", ".dicom", ".nii", ".nrrd", ".svs", ".ndpi", ".czi", ".mp4", ".avi", ".mov", ".mkv"),
)
_BOXES = re.compile(
    r"(?i)(^|/)(annotations/.*\.xml|labels/.*\d\.txt|.*(?:coco|createml)[^/]*\.json|instances_[^/]*\.json)$"
)
_UNNAMED_ARRAYS = re.compile(
    r"(?i)(-\d{5}-of-\d{5}|idx\d-ubyte(\.gz)?|data_batch_\d|test_batch|"
    r"(^|/)cifar-100[^/]*/(train|test))$"
)
# Words in names of files that say something of the images, whatever their kind.
_SPLITS = words_of("split splits fold folds partition partitions")
_NAMED_FIRST = words_of("readme license licence citation")
# Files that say nothing of single images.
_NOTHING = words_of(
    "readme read license licence citation cite bibtex requirements changelog changes notes credits "
    "attribution attributions authors contributing copyright terms todo about package environment "
    "dockerfile makefile config configuration log description pyproject eula thumbs desktop"
)


def other_files(paths: Sequence[str]) -> str:
    """The note on files that may hold the labels and are not read; empty where there are none."""
    pictures = [one for one in paths if one.lower().endswith(_PICTURES)]
    if pictures:
        return f"Images are read from PNG, TIFF, JPEG and the like; convert {some(pictures)}."
    arrays = [one for one in paths if one.lower().endswith(_ARRAYS) or _UNNAMED_ARRAYS.search(one)]
    if arrays:
        return (
            f"{some(arrays)} may hold images in a form that is not read: write each image to a "
            "file in a folder of its class, or into Parquet files or tar shards; docs/data.md has "
            "the lines for MNIST and CIFAR."
        )
    stored = [one for one in paths if one.lower().endswith(_PROGRAMS)]
    if stored:
        return (
            f"{some(stored)} may hold labels or images and cannot be read (a pickle could run "
            "code): write a table with a line `image,label` for each; docs/data.md has the lines "
            "for MATLAB."
        )
    found = [one for one in paths if one.lower().endswith((*_SIDECARS, *_PACKED, *_TABLES))]
    if not found:
        return ""
    boxes = [one for one in found if _BOXES.search(one)]
    if boxes and not any(one.lower().endswith(_TABLES) for one in found):
        return (
            f"{some(boxes)} look like boxes around objects (COCO, YOLO, Pascal VOC). Here each "
            "image has one label: write a table with a line `image,label` for each, or cut the "
            "objects out into one folder for each class."
        )
    return (
        f"{some(found)} may hold labels or images and {'is' if len(found) == 1 else 'are'} not "
        "read: `data.source` can name a table (CSV, TSV, JSON lines, Parquet), tar files or a ZIP "
        f"archive; export or unpack {'it' if len(found) == 1 else 'them'} as one of these."
    )


def labels_of(names: Sequence[str]) -> str:
    """The note on what states the labels, where that is not the source itself."""
    return f"The labels are those of {some(names)}."


def ignored_files(paths: Sequence[str], labels: Collection[str], images: Sequence[str] = ()) -> str:
    """The note on files beside class folders that say more of the images; empty without any.

    Args:
        paths: Of files that are no images.
        labels: The classes.
        images: Of the images that are taken.
    """
    packed = [one for one in paths if one.lower().endswith(_PACKED)]
    pictures = [one for one in paths if one.lower().endswith((*_PICTURES, *_ARRAYS))]
    numbers = bool(labels) and all(re.fullmatch(r"\d+(\.0+)?", one) for one in labels)
    readable = [one for one in paths if one.lower().endswith((*_SIDECARS, *_TABLES))]
    stems = {posixpath.splitext(posixpath.basename(one))[0] for one in images} if readable else ()
    beside = [one for one in readable if posixpath.splitext(posixpath.basename(one))[0] in stems]
    apart = set(beside)
    readable = [one for one in readable if one not in apart and _tells(one)]
    notes = [f"Not unpacked: {some(packed)}."] if packed else []
    if pictures:
        notes.append(f"Not read, convert them to PNG, TIFF or JPEG: {some(pictures)}.")
    if beside:
        notes.append(
            f"Not read: {len(beside):,} files that are called like an image, as {clip(beside[0])}."
        )
    if readable:
        names = " The labels are numbers, and one of these may name them." * numbers
        notes.append(f"Not read, though it may say more of the images: {some(readable)}.{names}")
    return " ".join(notes)


def files_of_splits(paths: Sequence[str]) -> list[str]:
    """The files that may say which split an image is for, by their names."""
    return [
        one
        for one in paths
        if one.lower().endswith((*_SIDECARS, *_TABLES, *LISTS))
        and (
            split_of_list(f"{posixpath.splitext(posixpath.basename(one))[0]}.txt")
            or called_as_splits(one)
        )
    ]


def called_as_splits(path: str) -> bool:
    """Whether a file's name says that it divides images: `list_eval_partition.txt`, `folds.txt`."""
    return not _SPLITS.isdisjoint(re.findall("[a-z]+", posixpath.basename(path).lower()))


def unread_splits(paths: Sequence[str]) -> str:
    """The warning on files that may say which split an image is for."""
    return (
        f"{some(paths)} may state which split an image is for, in a form that is not read or for "
        "other images: Graftline chooses the splits. Lists of splits are read from train.txt, "
        "val.txt and test.txt, with a path on each line"
    )


def labels_in_names(paths: Sequence[str]) -> str:
    """The advice where the names of files hold the class (cat.0.jpg); empty where they do not."""
    trains = [one for one in paths if split_of_list(f"{one.partition('/')[0]}.txt") == "train"]
    images = [one for one in trains or paths if is_image(one)]
    stems = [posixpath.splitext(posixpath.basename(one))[0] for one in images]
    starts = [re.sub(r"[\s_.()-]*\d[\w\s.()-]*$", "", stem) for stem in stems]
    kinds = sorted(set(starts) - {""})
    if not 1 < len(kinds) <= len(stems) / 2 or "" in starts or all(map(split_words, kinds)):
        return ""
    return (
        f"The names of the files may hold the classes ({some(kinds)}): `data.label_pattern: "
        f"'{BEFORE_NUMBERS}'` takes what stands before the number, or write a table with a line "
        "`image,label` for each."
    )


def _tells(path: str) -> bool:
    """Whether a file may speak of images: all do that are not called as documents are."""
    name = posixpath.splitext(posixpath.basename(path))[0]
    words = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())
    return not words or not (is_document(path) or _NOTHING.issuperset(words))


def is_document(path: str) -> bool:
    """Whether a file is called README or LICENSE, with more behind it or not."""
    words = re.findall(r"[a-z]+", posixpath.basename(path).lower())
    return bool(words) and (words[0] in _NAMED_FIRST or "infos" in words)


def unused_columns(header: Sequence[str], used: Collection[str | None]) -> str:
    """The note on columns that nothing is made of; empty where there are none."""
    rest = [name for name in header if name and name not in used]
    groups = [name for name in rest if is_group_column(name)]
    more = (
        f" `data.group_column: {quoted(clip(groups[0]))}` keeps each in one split."
        if groups
        else ""
    )
    return f"Columns that are not used: {some(rest)}.{more}" if rest else ""


def groups_in_paths(locations: Sequence[str]) -> str:
    """The note on folders in the paths that name persons, places or times."""
    folders = [one.split("/")[:-1] for one in locations]
    for level in range(max(map(len, folders), default=0)):
        names = {parts[level] for parts in folders if len(parts) > level}
        if 1 < len(names) < len(folders) and identifiers(names):
            return (
                f"The folders {some(sorted(names))} in the table's paths look like groups, and are "
                "not used: a column that `data.group_column` names keeps each in one split."
            )
    return ""


BEFORE_NUMBERS = r"^(\D+?)[ _.()-]*\d"  # of `cat.7.jpg`, and nothing of `12.jpg`
_WHO = re.compile(
    r"(?i)(?:^|[ _.-])((?:patient|pat|subject|subj|case|video|vid|clip|seq|sequence|slide|session|"
    r"donor|specimen|participant|scene|sub)s?[ _-]?\d+)(?!\d)"
)
_ENOUGH = 1000  # names tell what all are like


def groups_in_names(paths: Sequence[str]) -> str:
    """The note on names of files that name patients or videos: `patient01_3.png`."""
    some_paths = paths[:: max(1, len(paths) // _ENOUGH)]
    found = [match[1] for one in some_paths if (match := _WHO.search(posixpath.basename(one)))]
    if len(found) < MOST_NAMED * len(some_paths) or not 1 < len(set(found)) <= len(found) / 2:
        return ""
    return (
        f"The names of the files name patients, videos or the like ({some(sorted(set(found)))}), "
        "and images of one may come into several splits. Folders of these names below the classes, "
        "or a column of a table that `data.group_column` names, keep each in one split."
    )


def _names_images(name: str, rows: Sequence[Row], stems: Collection[str]) -> bool:
    cells = [row.cells.get(name, "") for row in rows]
    return bool(cells) and sum(_stem(cell) in stems for cell in cells if cell) > len(cells) / 2


def few_values(name: str, rows: Sequence[Row]) -> bool:
    """Whether a column's values return often enough to be labels."""
    values = {row.cells.get(name, "") for row in rows}
    return 1 < len(values) <= len(rows) / 2


def _stem(path: str) -> str:
    name = posixpath.basename(clean_text(path).replace("\\", "/").replace("%20", " "))
    return posixpath.splitext(name)[0].casefold()


def _bare(name: str) -> str:
    return "".join(one for one in name.casefold() if one.isalpha())
