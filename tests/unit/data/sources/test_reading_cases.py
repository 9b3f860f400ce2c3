"""Data sets as people lay them out, each with what a person reads; listings only, no pixels."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from graftline.data.sources import open_source
from graftline.data.sources.base import Columns, Entry, Reading
from graftline.data.sources.layouts.decision import decide
from graftline.data.sources.layouts.layout import AmbiguousLayout
from graftline.data.sources.samples import Orphans, images_of
from graftline.data.sources.similar_labels import unified
from graftline.data.sources.table_images import ImageFinder
from graftline.errors import GraftlineError


def below(tops: str, *subs: str) -> list[str]:
    return [f"{top}/{sub}" for top in tops.split("|") for sub in subs]


def each(*parts: Iterable[str]) -> list[str]:
    """All paths of one part from each."""
    found = [""]
    for names in parts:
        found = [f"{path}/{name}".lstrip("/") for path in found for name in names]
    return found


def counts(folders: Iterable[str], images: int = 6) -> dict[tuple[str, ...], int]:
    return {tuple(folder.split("/")): images for folder in folders}


PETS = ("cat", "dog")

# Folders, the layout that a person reads, and splits by folder.
READ: list[tuple[list[str], str, dict[str, str]]] = [
    (below("Training Data|Testing Data", *PETS), "split/class", {"Training Data": "train"}),
    (below("TrainingImages|TestImages", *PETS), "split/class", {"TestImages": "test"}),
    (below("TRAIN|Val|tEsT", *PETS), "split/class", {"Val": "val", "tEsT": "test"}),
    (below("train1|train2|test", *PETS), "split/class", {"train1": "train", "train2": "train"}),
    (below("train2017|val2017", *PETS), "split/class", {"train2017": "train", "val2017": "val"}),
    (below("train|train_aug|test", *PETS), "split/class", {"train_aug": "train"}),
    (below("hold-out|train", *PETS), "split/class", {"hold-out": "test"}),
    (below("train|test|eval", *PETS), "split/class", {"eval": "val"}),
    (below("Trainingsdaten|Validierungsdaten|Testdaten", *PETS), "split/class", {}),
    (below("entraînement|évaluation", *PETS), "split/class", {"évaluation": "test"}),
    (below("entrenamiento|validación|prueba", *PETS), "split/class", {"prueba": "test"}),
    (below("treino|validação|teste", *PETS), "split/class", {"validação": "val"}),
    (below("addestramento|prova", *PETS), "split/class", {"prova": "test"}),
    (below("trening|walidacja|testowy", *PETS), "split/class", {"walidacja": "val"}),
    (below("训练集|验证集|测试集", "猫", "狗"), "split/class", {"测试集": "test"}),
    (below("学習用|検証用|テストデータ", "猫", "犬"), "split/class", {"検証用": "val"}),
    (below("обучение|тест", *PETS), "split/class", {"тест": "test"}),
    (below("학습|검증|평가", *PETS), "split/class", {"평가": "test"}),
    (each(["dataset"], ["dataset"], ["train", "val"], PETS), "*/*/split/class", {}),
    (each(["archive"], ["Training", "Testing"], PETS), "*/split/class", {}),
    ([*below("seg_train/seg_train|seg_test/seg_test", *PETS)], "split/*/class", {}),
    (each(PETS, ["train", "test"]), "class/split", {}),
    (below("images", *PETS), "*/class", {}),
    (["cat/images", "dog/images"], "class", {}),
    (["cat/images", "cat/masks", "dog/images", "dog/masks"], "class", {}),
    (below("images|masks", *PETS), "*/class", {}),
    (["labeled/cat", "labeled/dog", "unlabeled"], "*/class", {}),
    ([*below("train|test", *PETS), "unlabelled"], "split/class", {}),
    (below("fold_1|fold_2|fold_3", *PETS), "group/class", {}),
    (below("2024-01-01|2024-01-02|2024-02-01", *PETS), "group/class", {}),
    (below("20240101|20240102|20240201", *PETS), "group/class", {}),
    (below("01.02.2024|02.02.2024|03.02.2024", *PETS), "group/class", {}),
    (each(["siteA", "siteB"], ["p1", "p2", "p3"], PETS), "group/group/class", {}),
    (each(["patient1", "patient2", "patient3"], ["siteA", "siteB"], PETS), "group/*/class", {}),
    (each(PETS, ["p01", "p02", "p03"]), "class/group", {}),
    (each(PETS, ["2024-01-01", "2024-01-02", "2024-01-03"]), "class/group", {}),
    (each(["train", "test"], PETS, ["p01", "p02", "p03"]), "split/class/group", {}),
    (["cat/day1", "cat/day2", "dog/day1", "dog/day2"], "class", {}),
    (["cat/a/b/c", "dog/a/b/c"], "class", {}),
    ([*below("cat|dog", "x"), "__MACOSX/cat"], "class", {}),
    (["0", "1"], "class", {}),
    (["train", "plane"], "class", {}),
]


@pytest.mark.parametrize(("folders", "layout", "splits"), READ, ids=lambda v: str(v)[:50])
def test_folders_that_a_person_reads_in_one_way(
    folders: list[str], layout: str, splits: dict[str, str]
) -> None:
    found = decide(counts(folders), "here")
    assert found.text == layout and f"read as {layout}" in found.sentence
    assert splits.items() <= found.splits.items()


def test_one_image_in_each_folder_below_the_classes() -> None:
    """As classes, these could not be learned from: the folders above them are."""
    folders = each(PETS, [f"img{n}" for n in range(8)])
    assert decide(counts(folders, 1), "here").text == "class"


# Folders, and what the error must name.
ASKED: list[tuple[list[str], list[str]]] = [
    (below("0|1|2|3|4", *PETS), ['"class"', '"group/class"']),
    (below("2021|2022|2023", *PETS), ['"class"', '"group/class"']),
    (below("smith|jones|miller", *PETS), ['"class"', '"group/class"', "call them train"]),
    (below("amazon|dslr|webcam", *PETS), ['"class"', '"group/class"']),
    (each(["fold1", "fold2"], ["train", "test"], PETS), ["`data.source`", "fold1", "fold2"]),
    (each(["split_0", "split_1"], ["train", "test"], PETS), ["`data.source`", "split_0"]),
    (each(["a", "b"], ["train", "test"], PETS), ['"group/split/class"', '"*/split/class"']),
    (["animals/cat", "animals/dog", "vehicles/car", "vehicles/bus"], ['"class"', '"*/class"']),
    (["raw/cat", "raw/dog", *each(["new"], ["train", "test"], PETS)], ["here/new", "[raw]"]),
    (below("train|test", "images"), ["hold images without class folders"]),
    (["train", "val"], ["hold images without class folders"]),
    (["images/train", "images/val", "labels/train"], ["hold images without class folders"]),
    (below("train|test|extra", *PETS), ['"split/class"', '"*/class"', "extra"]),
]


@pytest.mark.parametrize(("folders", "named"), ASKED, ids=lambda v: str(v)[:50])
def test_folders_that_can_be_read_in_two_ways(folders: list[str], named: list[str]) -> None:
    with pytest.raises(AmbiguousLayout) as caught:
        decide(counts(folders), "here")
    assert all(word in str(caught.value) for word in named), caught.value


# -- labels ---------------------------------------------------------------------------------------

SAME = [
    (["big cat", "big  cat", "dog"], 2),
    (["big cat", "big\u00a0cat", "dog"], 2),
    (["dog", "dog\u200b", " dog"], 1),
    (["caf\u00e9", "cafe\u0301"], 1),
    (["-1", "1"], 2),
    (["C", "C++", "C#"], 3),
    (["hot dog", "dog"], 2),
    (["tench, Tinca tinca", "cock"], 2),
    (["-", "_", "?"], 3),
]
ALIKE = [
    ["Cat", "cat"],
    ["straße", "strasse"],
    ["ｃａｔ", "cat"],
    ["c\u0430t", "cat"],
    ["big_cat", "big cat"],
    ["big-cat", "big_cat"],
    ["cat", "cat (1)"],
    ["cat", "cat - Copy"],
    ["0", "0.0"],
    ["01", "1"],
]
SEVERAL = [
    ["cat", "dog", "cat|dog"],
    ["cat", "dog", "cat, dog"],
    ["cat", "dog", "cat and dog"],
    ["cat", "dog", "dog cat"],
    ["Mass|Nodule", "Mass|Effusion"],
    ["a;b", "b;c"],
    ["class 7", "cat", "class 7|cat"],
]


@pytest.mark.parametrize(("labels", "classes"), SAME, ids=str)
def test_labels_that_differ_invisibly_are_one(labels: list[str], classes: int) -> None:
    names, notes = unified(labels)
    assert len(set(names.values())) == classes
    assert bool(notes) == (classes < len({label.strip() for label in labels}))


@pytest.mark.parametrize("labels", ALIKE, ids=ascii)
def test_labels_that_look_the_same_are_asked_for(labels: list[str]) -> None:
    with pytest.raises(GraftlineError, match="look the same"):
        unified(labels)
    assert len(set(unified(labels, "merge")[0].values())) == 1
    assert len(set(unified(labels, "keep")[0].values())) == len(labels)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["0", "1", "2", "cat", "dog"], True),
        (["0", "1", "A", "B"], False),
        (["0", "1", "2"], False),
        (["cat", "dog", "7"], False),
    ],
    ids=str,
)
def test_numbers_beside_names_are_said(labels: list[str], said: bool) -> None:
    """Shards of two programs, one of which wrote the class's number."""
    names, notes = unified(labels)
    assert len(set(names.values())) == len(labels)
    assert any("Some labels are numbers ('0', '1'" in note for note in notes) == said


@pytest.mark.parametrize("labels", SEVERAL, ids=str)
def test_labels_of_several_classes_are_refused(labels: list[str]) -> None:
    with pytest.raises(GraftlineError, match="several classes"):
        unified(labels)
    assert len(set(unified(labels, "keep")[0].values())) == len(labels)


# -- tables ---------------------------------------------------------------------------------------


@pytest.fixture
def listed(tmp_path: Path) -> Callable[..., dict[str, Entry]]:
    """Entries of a source with these files; the images are empty, for nothing reads them."""

    def call(files: dict[str, str | bytes], images: Iterable[str], **columns: Any) -> Any:
        for name in images:
            (tmp_path / "x" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "x" / name).touch()
        for name, data in files.items():
            (tmp_path / "x" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "x" / name).write_bytes(data.encode() if isinstance(data, str) else data)
        source = open_source(str(tmp_path / "x"), "auto", Columns(**columns), Reading())
        entries = {entry.path: entry for entry in source.entries()}
        return entries, source

    return call


NAMES = [f"img/{n}.png" for n in range(12)]
WHICH = [PETS[n % 2] for n in range(12)]


def csv(*columns: Iterable[str], header: str = "image,label", sep: str = ",") -> str:
    rows = [header.replace(",", sep), *(sep.join(row) for row in zip(*columns, strict=True))]
    return "\n".join(rows)


PLAIN_TABLE = csv(NAMES, WHICH)


@pytest.mark.parametrize(
    "text",
    [
        PLAIN_TABLE,
        PLAIN_TABLE.replace(",", ";"),
        PLAIN_TABLE.replace(",", "|"),
        PLAIN_TABLE.replace(",", "\t"),
        PLAIN_TABLE.replace("\n", "\r"),
        PLAIN_TABLE.replace("\n", "\r\n"),
        "\ufeff" + PLAIN_TABLE,
        "sep=;\n" + PLAIN_TABLE.replace(",", ";"),
        "# from our microscope\n\n" + PLAIN_TABLE,
        PLAIN_TABLE.replace(",", " , "),
        PLAIN_TABLE.replace("img/", "./img/"),
        PLAIN_TABLE.replace("img/", "img\\"),
        csv(map(str, range(12)), NAMES, WHICH, header=",image,label"),
        csv(NAMES, ['"a\nb, ""c"""'] * 12, WHICH, header="image,note,label"),
        PLAIN_TABLE.encode("utf-16"),
    ],
    ids=range(15),
)
def test_tables_however_they_are_written(text: str | bytes, listed) -> None:
    entries, _ = listed({"t.csv": text}, NAMES)
    assert [entries[name].label for name in NAMES] == WHICH
    assert not any(entry.problem for entry in entries.values())


REFUSED: list[tuple[str, list[str]]] = [
    (csv(NAMES, WHICH, header="image,category"), ["data.label_column: category"]),
    (csv(NAMES, WHICH, header="Image,LABEL"), ["data.image_column: Image"]),
    (csv(NAMES, WHICH, header="file,kind"), ["image_column: file", "label_column: kind"]),
    (csv(NAMES, WHICH, header="x1,x2"), ["image_column: x1", "label_column: x2"]),
    ("\n".join(PLAIN_TABLE.split("\n")[1:]), ["add a line `image,label`"]),
    (csv(NAMES, "10" * 6, "11" * 6, header="image,cat,dog"), ["one column for each class"]),
    (PLAIN_TABLE.replace("cat", "Käse").encode("latin-1"), ["not UTF-8", "line 2"]),  # type: ignore[list-item]
    (csv(NAMES, WHICH, ["a", "b"] * 6, header="image,label,Split"), ["split_column: Split"]),
    (csv(NAMES, WHICH, ["0", "1"] * 6, header="image,label,is_train"), ["is_train"]),
    (csv(NAMES, WHICH, ["True", "False"] * 6, header="image,label,train"), ["split_column: train"]),
    (csv(NAMES, WHICH, ["Train", "Test"] * 6, header="image,label,phase"), ["split_column: phase"]),
    (
        csv(NAMES, WHICH, ["Training", "PublicTest", "PrivateTest"] * 4, header="image,label,use"),
        ["split_column: use", "PublicTest"],
    ),
    (
        csv(NAMES, WHICH, ["train", "test", "unlabeled"] * 4, header="image,label,data_split"),
        ["split_column: data_split"],
    ),
    (csv(NAMES, WHICH, ["0", "1", "2"] * 4, header="image,label,split"), ["'0', '1', '2'"]),
    (csv(NAMES, WHICH, ["x"] * 12, header="image,label,label"), ["more than one column"]),
    (csv(NAMES, ["cat", "dog", "cat|dog"] * 4), ["several classes"]),
    (csv(NAMES, ["0", "1", "0.0", "1.0"] * 3), ["look the same"]),
]


@pytest.mark.parametrize(("text", "named"), REFUSED, ids=range(len(REFUSED)))
def test_tables_that_are_not_understood(text: str | bytes, named: list[str], listed) -> None:
    with pytest.raises(GraftlineError) as caught:
        listed({"t.csv": text}, NAMES)
    assert all(word in str(caught.value) for word in named), caught.value


@pytest.mark.parametrize("label", ["nan", "NaN", "<NA>", "#N/A", "['cat']", "{}"])
def test_labels_that_are_none(label: str, listed) -> None:
    entries, _ = listed({"t.csv": csv(NAMES, [label, *WHICH[1:]])}, NAMES)
    problem = entries[NAMES[0]].problem
    assert problem is not None and ("no label" in problem or "is a list" in problem)


@pytest.mark.parametrize(
    "written", ["{n}.png", "img/{n}", "{n}", "img/{n}.PNG", "x/img/{n}.png", "img%2F{n}.png"]
)
def test_names_without_folder_or_suffix_are_found_where_they_are_unique(
    written: str, listed
) -> None:
    rows = [written.format(n=n) for n in range(12)]
    entries, source = listed({"t.csv": csv(rows, WHICH)}, NAMES)
    taken = {path: one.label for path, one in entries.items() if one.problem is None}
    assert taken == dict(zip(NAMES, WHICH, strict=True))
    assert any("12 images are not where the table says" in note for note in source.notes)


@pytest.mark.parametrize("written", ["/home/me/{n}.png", "C:\\data\\{n}.png", "img/{n}.jpg"])
def test_names_that_lead_nowhere_are_said_with_those_that_are_meant(written: str, listed) -> None:
    rows = [written.format(n=n) for n in range(12)]
    entries, source = listed({"t.csv": csv(rows, WHICH)}, NAMES)
    assert all(entry.problem for entry in entries.values())
    assert any("12 of them are like the name of an image elsewhere" in n for n in source.notes)


def test_splits_that_the_paths_of_a_table_name(listed) -> None:
    """A table without a column of splits beside folders of splits: nothing of both is lost."""
    names = each(["train", "valid", "test"], PETS, ["1.png", "2.png", "3.png"])
    text = csv(names, [name.split("/")[1] for name in names])
    entries, source = listed({"labels.csv": text}, names)
    for name in names:
        assert entries[name].split == {"valid": "val"}.get(name.split("/")[0], name.split("/")[0])
    assert any("`data.split_column: null`" in note for note in source.notes)
    entries, _ = listed({"labels.csv": text}, names, split=None)
    assert not any(entry.split for entry in entries.values())


@pytest.mark.parametrize(
    ("column", "splits"),
    [("is_valid", ("train", "val")), ("test", ("train", "test")), ("is_train", ("test", "train"))],
)
@pytest.mark.parametrize("words", [("0", "1"), ("False", "True"), ("no", "yes")])
def test_yes_and_no_of_a_split(column: str, splits: tuple[str, str], words: Any, listed) -> None:
    """The line that the refusal prints is enough."""
    cells = [words[n % 3 == 0] for n in range(12)]
    text = csv(NAMES, WHICH, cells, header=f"image,label,{column}")
    with pytest.raises(GraftlineError, match=f"`data.split_column: {column}` to take yes for"):
        listed({"t.csv": text}, NAMES)
    entries, _ = listed({"t.csv": text}, NAMES, split=column)
    assert [entries[name].split for name in NAMES] == [splits[n % 3 == 0] for n in range(12)]


def test_eval_beside_test_in_a_column_is_validation(listed) -> None:
    splits = ["train", "train", "eval", "test"] * 3
    entries, _ = listed({"t.csv": csv(NAMES, WHICH, splits, header="image,label,split")}, NAMES)
    meant = ["val" if split == "eval" else split for split in splits]
    assert [entries[name].split for name in NAMES] == meant


def test_columns_that_nothing_is_made_of_are_said(listed) -> None:
    text = csv(NAMES, WHICH, "123456123456", header="image,label,patient_id")
    _, source = listed({"t.csv": text}, NAMES)
    assert any("data.group_column: patient_id" in note for note in source.notes)


@pytest.mark.parametrize("name", ["labels.json", "labels.xlsx", "a/labels.csv", "labels.csv.gz"])
def test_files_that_may_hold_the_labels_are_named(name: str, listed) -> None:
    _, source = listed({name: "x"}, NAMES)
    assert any(name in note and "is not read" in note for note in source.notes)


# -- shards ---------------------------------------------------------------------------------------


def sample(*members: str, **options: Any) -> list[Entry]:
    """The images of one sample; a member is a suffix, or a suffix and its text."""
    held = {m.partition("=")[0]: m.partition("=")[2].encode() for m in members}
    archive = Entry("0.tar", "1", 1, archive=True, split=options.pop("split", None))
    found = images_of(archive, "a/7", held, {}, Columns(**options), Orphans())
    return [entry for entry, _ in found]


def note(**values: Any) -> str:
    return f".json={json.dumps(values)}"


@pytest.mark.parametrize(
    "members",
    [
        *((".jpg", ".cls=cat"), (".jpg", ".txt=cat\r\n"), (".jpg", ".label=\ufeffcat")),
        *((".jpg", note(label="cat")), (".jpg", note(cls="cat")), (".jpg", note(label="cat", x=1))),
        *((".jpg", note(label="cat"), ".cls=cat"), (".jpg", ".cls=0", note(label="cat"))),
        *((".jpg", ".cls=cat", ".txt=a photo of it"), (".0-6.jpg", ".0-6.cls=cat")),
        *((".jpg", ".cls=cat", note(caption="a dog")), (".jpg", ".seg.png", ".cls=cat")),
    ],
    ids=str,
)
def test_label_of_a_sample(members: tuple[str, ...]) -> None:
    first = sample(*members)[0]
    assert (first.label, first.fault, first.problem) == ("cat", None, None)


@pytest.mark.parametrize(
    "members",
    [
        *((".jpg", f".{end}=cat") for end in ("class", "lbl", "tag", "pickle", "cls.txt", "yaml")),
        *((".jpg", note(**{key: "cat"})) for key in ("class", "Label", "target", "category")),
        *((".jpg", note(label=["cat"])), (".jpg", note(meta={"label": "cat"}))),
        *((".jpg", note(name="cat")), (".jpg", '.json="cat"'), (".jpg", note(labels=[1]))),
        *((".jpg", ".cls=cat\n0.9"), (".jpg", ".cls=dog", note(label="cat"))),
        *((".jpg", ".png", ".cls=cat"), (".jpg", note(label="cat", subset="test"))),
        *((".jpg", note(label="cat", Split="test")), (".jpg", note(label={"name": "cat"}))),
    ],
    ids=str,
)
def test_sample_that_is_not_understood(members: tuple[str, ...]) -> None:
    assert sample(*members)[0].fault


def test_views_behind_a_dot_in_the_key_are_one_group() -> None:
    found = sample(".0-6.left.png", ".0-6.right.png", ".0-6.mask.png", ".0-6.cls=cat")
    views = [one for one in found if one.problem is None]
    assert {one.label for one in views} == {"cat"} and len({one.group for one in views}) == 1
    assert len(views) == 2 and views[0].group and found[-1].problem is not None
    several = sample(".1.left.png", ".1.right.png", ".1.cls=cat", ".2.left.png", ".2.cls=dog")
    assert sorted(str(one.label) for one in several) == ["cat", "cat", "dog"]
    assert len({one.group for one in several}) == 2


def test_split_in_a_note_comes_before_that_of_the_archive() -> None:
    assert sample(".jpg", ".cls=cat", split="train")[0].split == "train"
    assert sample(".jpg", note(label="cat", split="Validation"), split="train")[0].split == "val"
    odd = sample(".jpg", note(label="cat", split="gold"), split="train")[0]
    assert odd.problem == "unknown split 'gold'"


@pytest.mark.parametrize("image", ["/etc/passwd", "file:///var/run/secrets/token", "../../../x"])
def test_table_on_s3_names_no_file_of_the_machine_that_reads_it(image: str) -> None:
    """On a cluster that would be a file of the pod."""
    finder = ImageFinder(SimpleNamespace(uri="s3://bucket/pets"), whole=False)  # type: ignore[arg-type]
    location = finder.location(image, "t.csv")
    assert location in finder.unreadable or location.startswith("s3://")
