"""How much a source can show, said before it is read."""

from pathlib import Path
from typing import Any

import pytest

from graftline_pipelines.preflight.data import check_source, check_space, check_test_images
from graftline_pipelines.preflight.report import Preflight
from graftline_pipelines.runfile.settings import RunSettings


def settings(source: Path, **more: Any) -> RunSettings:
    store = more.pop("store", source.parent / "store")
    values = {"name": "a", "data": {"source": str(source)}, "store": str(store), **more}
    return RunSettings.model_validate(values)


def asked(found_settings: RunSettings, *, first: bool = True) -> Preflight:
    found = Preflight()
    entries = check_source(found_settings, found)
    check_space(found_settings, entries, found)
    check_test_images(found_settings, entries, found, first=first)
    return found


def folders(root: Path, *names: str, each: int = 20) -> Path:
    for name in names:
        folder = root / "images" / name
        folder.mkdir(parents=True)
        for number in range(each):
            (folder / f"{number}.png").write_bytes(b"\x89PNG")
    return root / "images"


def test_few_images_for_a_first_model(tmp_path: Path) -> None:
    source = folders(tmp_path, "a", "b")
    assert "About 6 test images" in asked(settings(source)).notes[0][1]
    assert asked(settings(source), first=False).notes == []


@pytest.mark.parametrize("first", [True, False])
def test_too_few_for_the_gate(tmp_path: Path, first: bool) -> None:
    source = folders(tmp_path, "a", "b")
    found = asked(settings(source, gate={"min_test_images": 10}), first=first)
    assert not found.problems
    assert "10 are asked for" in found.notes[0][1]
    found = asked(settings(source, gate={"min_test_images": 41}), first=first)
    assert "only 40 images in all" in str(found.problems[0][1])
    assert not found.notes


def test_given_splits_are_counted(tmp_path: Path) -> None:
    source = folders(tmp_path, "train/a", "train/b", "val/a", "val/b", "test/a", "test/b", each=4)
    found = asked(settings(source, gate={"min_test_images": 9}))
    assert "only 8 of them" in str(found.problems[0][1])
    found = asked(settings(source))
    assert "8 test images" in found.notes[0][1] and "About" not in found.notes[0][1]


def test_splits_that_are_not_obeyed_are_a_note(tmp_path: Path) -> None:
    source = folders(tmp_path, "a", "b", each=200)
    (source / "train_list.mat").write_bytes(b"x")
    assert [key for key, note in asked(settings(source)).notes if "train_list.mat" in note] == [
        "data.source"
    ]


def test_enough_images_need_no_word(tmp_path: Path) -> None:
    found = asked(settings(folders(tmp_path, "a", "b", each=200), gate={"min_test_images": 50}))
    assert not found.notes and not found.problems


@pytest.mark.parametrize(("store", "refused"), [("store", True), (".graftline/store", False)])
def test_store_among_the_images(tmp_path: Path, store: str, refused: bool) -> None:
    source = folders(tmp_path, "a", "b")
    found = asked(settings(source, store=source / store))
    assert [key for key, _ in found.problems] == (["data.source"] if refused else [])


def test_attribute_that_the_manifest_has_already(tmp_path: Path) -> None:
    source = folders(tmp_path, "a", "b")
    data = {"source": str(source), "attributes": ["width"]}
    found = asked(RunSettings.model_validate({"name": "a", "data": data, "store": "s"}))
    assert "width" in str(found.problems[0][1])


def test_a_mistake_in_the_store_is_not_told_of_the_source(tmp_path: Path) -> None:
    found = asked(settings(folders(tmp_path, "a", "b"), store="gs://bucket/x"))
    assert not found.failed("data.source") and "2 classes" in found.facts["data.source"]


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("U", (), {"free": 10})())
    found = asked(settings(folders(tmp_path, "a", "b")), first=False)
    assert found.notes[0][0] == "store" and "left" in found.notes[0][1]


def test_other_shares_than_those_of_the_last_run_are_said(tmp_path: Path) -> None:
    """As the run says it: nothing of it changes the splits that images already have."""
    from graftline.data.sources import open_source
    from graftline.steps.ingest.source_index import Memory, save_memory
    from graftline.storage import open_store

    source = folders(tmp_path, "a", "b", each=200)
    usual = {"train": 0.7, "val": 0.15, "test": 0.15, "seed": 0}
    memory = Memory(splits={"0": "train"}, split=usual)
    store = open_store(str(tmp_path / "store"))
    save_memory(store, open_source(str(source)).uri, memory, "snapshot")
    assert not asked(settings(source)).notes
    data = {"source": str(source), "split": {"train": 0.6, "val": 0.2, "test": 0.2}}
    found = asked(settings(source, data=data, seed=3))
    assert "data.split.train is 0.6, was 0.7" in found.notes[0][1]
    assert "seed is 3, was 0" in found.notes[0][1]
