"""The data page: whole, escaped, bounded, and with what a person must look at."""

import base64
import csv
import io
import json
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from graftline.data.snapshot import read_snapshot
from graftline.data.sources import open_source
from graftline.errors import StoreError
from graftline.steps.ingest import page, page_evidence
from graftline.steps.ingest.step import IngestResult, run
from graftline.storage import open_store
from graftline_pipelines.cli.main import main

HOSTILE = "<script>alert(1)</script>"
BREAKS_OUT = '"><img src=x onerror=alert(2)>'


class Page(HTMLParser):
    """Elements, and the text of each section, by Python's own parser."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.sections: dict[str, str] = {}
        self.pictures: dict[str, list[str]] = {}
        self._section = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "section":
            self._section = str(dict(attrs)["id"])
        if tag == "img":
            self.pictures.setdefault(self._section, []).append(str(dict(attrs)["src"]))

    def handle_data(self, data: str) -> None:
        self.sections[self._section] = self.sections.get(self._section, "") + data


class Data:
    """A table of pictures in two hostile classes, with one of each fault."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rng = np.random.default_rng(0)
        self.rows: list[tuple[str, str, str]] = []
        for number in range(16):
            split = "train" if number < 10 else "val" if number < 13 else "test"
            self.add(f"{number}.png", (HOSTILE, BREAKS_OUT)[number % 2], split)
        for copy, label in (("other.jpg", BREAKS_OUT), ("later.jpg", HOSTILE)):
            with Image.open(folder / "0.png") as image:
                image.save(folder / copy, quality=80 if label == BREAKS_OUT else 95)
            split = "train" if copy == "other.jpg" else "test"
            self.rows.append((copy, label, split))
        shutil.copy(folder / "2.png", folder / "twice.png")
        self.rows.append(("twice.png", HOSTILE, "train"))
        (folder / "broken.png").write_bytes(b"<b>no image</b>")
        self.rows.append(("broken.png", HOSTILE, "train"))

    def add(self, name: str, label: str, split: str) -> None:
        coarse = Image.fromarray(self.rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
        size = (240, 100) if name == "1.png" else (120, 100)
        coarse.resize(size, Image.Resampling.BICUBIC).save(self.folder / name)
        self.rows.append((name, label, split))

    def ingest(self, name: str) -> IngestResult:
        with (self.folder / "t.csv").open("w", newline="") as stream:
            csv.writer(stream).writerows([("image", "label", "split"), *self.rows])
        return run(
            source=str(self.folder / "t.csv"),
            store=str(self.folder / "store"),
            snapshot_folder=self.folder / name,
        )

    def page(self, result: IngestResult) -> Page:
        (path,) = result.files().values()
        return Page(path.read_text(encoding="utf-8"))


@pytest.fixture
def data(tmp_path: Path) -> Data:
    return Data(tmp_path)


def test_the_page_holds_what_a_person_must_see_and_no_markup_of_theirs(data: Data) -> None:
    result = data.ingest("first")
    assert list(result.files()) == ["data.html"]
    found = data.page(result)
    images = [attrs for tag, attrs in found.tags if tag == "img"]
    assert images and all(str(one["src"]).startswith("data:image/") for one in images)
    assert not any("onerror" in attrs for _, attrs in found.tags)
    assert [tag for tag, _ in found.tags].count("script") == 1  # ours
    for label in result.classes:
        assert label in found.sections["classes"] and label in found.sections["examples"]
    train, val, test = (result.images[split] for split in ("train", "val", "test"))
    for split, count in (("train", train), ("val", val), ("test", test)):
        assert re.search(rf"{split} images\s*{count}", found.sections["classes"])
    assert "exact duplicate" in found.sections["rejected"]
    assert "not an image in a known format" in found.sections["rejected"]
    assert len(found.pictures["rejected"]) == 1  # the duplicate; the other is no image
    assert {"0.png", "other.jpg"} <= set(
        re.findall(r"\S+\.\w{3}", found.sections["contradictions"])
    )
    assert len(found.pictures["contradictions"]) == 2 * result.contradictions > 0
    assert "other.jpg" in found.sections["groups"] and len(found.pictures["groups"]) >= 2
    assert "changes" not in found.sections  # there is no snapshot before
    assert "table" in found.sections["reading"]
    assert "twice as wide" in found.sections["sizes"] and "240" in found.sections["sizes"]


def test_what_changed_is_told_against_the_snapshot_before(data: Data) -> None:
    data.ingest("first")
    data.add("new.png", HOSTILE, "train")
    data.rows = [row for row in data.rows if row[0] != "5.png"]
    data.rows[4] = ("4.png", BREAKS_OUT, "train")
    found = data.page(data.ingest("second"))
    text = found.sections["changes"]
    assert re.search(r"New images\s*1\D", text) and re.search(r"Gone\s*1\D", text)
    assert "new.png" in text and "5.png" in text and f"{HOSTILE} → {BREAKS_OUT}" in text
    assert re.search(r"Other label\s*1\D", text) and len(found.pictures["changes"]) == 2


def test_the_pictures_are_those_of_the_images(data: Data) -> None:
    result = data.ingest("first")
    snapshot = read_snapshot(data.folder / "first")
    found = page_evidence.gather(snapshot, open_store(snapshot.store))
    assert found.rejected == {}  # no source was given
    names = snapshot.column("source")
    for row, uri in found.pictures.items():
        shown = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
        with Image.open(data.folder / names[row]) as original:
            expected = np.asarray(original.convert("RGB").resize(shown.size), dtype=float)
        assert np.abs(np.asarray(shown.convert("RGB"), dtype=float) - expected).mean() < 12
    assert result.page is not None


def test_the_number_of_pictures_is_bounded(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    data.ingest("first")
    snapshot = read_snapshot(data.folder / "first")
    for name in ("PER_CLASS", "GROUPS", "PER_GROUP", "PAIRS", "REJECTED"):
        monkeypatch.setattr(page_evidence, name, 1)
    monkeypatch.setattr(page_evidence, "CLASSES", 2)
    source = open_source(str(data.folder / "t.csv"))
    found = page_evidence.gather(snapshot, open_store(snapshot.store), source)
    assert [len(rows) for rows in found.sheets.values()] == [1, 1]
    assert len(found.pictures) <= 2 + 1 + 2 + 2 and len(found.rejected) <= 1
    assert "are shown" in page.render(found)


def test_a_page_that_cannot_be_made_stops_no_run(
    data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise StoreError("it went away", fix="Try again.")

    monkeypatch.setattr(page, "gather", fail)
    result = data.ingest("first")
    assert result.page is None and result.files() == {}


def test_the_command_writes_and_opens_it(
    data: Data, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data.ingest("first")
    (data.folder / "run.yaml").write_text("name: a\ndata: {source: t.csv}\nstore: store\n")
    monkeypatch.chdir(data.folder)
    opened: list[str] = []

    def browser(uri: str) -> bool:
        opened.append(uri)
        return True

    monkeypatch.setattr("webbrowser.open", browser)

    def call(*options: str) -> str:
        monkeypatch.setattr(sys, "argv", ["graftline", "data", "run.yaml", *options])
        with pytest.raises(SystemExit) as end:
            main()
        assert not end.value.code
        return capsys.readouterr().out

    told = json.loads(call("--html", "deep/page.html", "--json"))
    path = data.folder / "deep" / "page.html"
    assert told["page"] == str(path) and opened == []
    assert "contradictions" in Page(path.read_text(encoding="utf-8")).sections
    call("--open")
    (uri,) = opened
    assert Path(uri.removeprefix("file://")).is_file()
