"""The step `ingest` whole, on real small images: what comes in, what is rejected, what stays."""

import dataclasses
import hashlib
import io
import json
import random
import shutil
import struct
import tarfile
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from graftline.data.snapshot import fetch_snapshot, read_images, read_snapshot
from graftline.data.sources import open_source
from graftline.errors import ConfigurationError, DataError, SchemaVersionError
from graftline.steps.ingest.source_index import load_memory, memory_key
from graftline.steps.ingest.step import IngestResult, run
from graftline.storage import open_store


def encoded(pixels: np.ndarray | Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def noise(seed: int, size: tuple[int, int] = (24, 20)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


@pytest.fixture
def ingest(tmp_path: Path) -> Callable[..., IngestResult]:
    """Run the step into `tmp_path/snapshot` (or another folder) and a store beside it."""

    def call(source: str | Path, folder: str = "snapshot", **options: Any) -> IngestResult:
        options.setdefault("store", str(tmp_path / "store"))
        return run(source=str(source), snapshot_folder=tmp_path / folder, **options)

    return call


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three classes of 12 noise images."""
    for number in range(36):
        path = tmp_path / "images" / "abc"[number % 3] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(noise(number)))
    return tmp_path / "images"


def splits_of(place: Path) -> dict[str, str]:
    manifest = read_snapshot(place).manifest
    return dict(
        zip(
            manifest.column("image_id").to_pylist(),
            manifest.column("split").to_pylist(),
            strict=True,
        )
    )


def aside_of(place: Path) -> dict[str, tuple[str, str | None]]:
    rows = read_snapshot(place).set_aside.to_pylist()
    return {row["source"]: (row["reason"], row["detail"]) for row in rows}


# -- what comes in ------------------------------------------------------------------------------


def test_snapshot_holds_every_image_with_its_bytes(folder: Path, ingest, tmp_path: Path) -> None:
    result = ingest(folder)
    snapshot = read_snapshot(tmp_path / "snapshot")
    assert (result.snapshot_id, result.fetched, result.reused) == (snapshot.id, 36, 0)
    assert result.classes == ["a", "b", "c"] and result.per_class == {"a": 12, "b": 12, "c": 12}
    assert sum(result.images.values()) == 36 and all(result.images.values())
    assert result.set_aside == {} and result.warnings == []
    rows = snapshot.manifest.to_pylist()
    assert [row["image_id"] for row in rows] == sorted(row["image_id"] for row in rows)
    for row, (number, data) in zip(rows, read_images(snapshot, snapshot.rows()), strict=True):
        original = (folder / row["source"]).read_bytes()
        assert data == original and rows[number] is row
        assert row["image_id"] == hashlib.sha256(original).hexdigest()
        assert row["label"] == row["source"].split("/")[0]
        assert (row["width"], row["height"], row["format"]) == (20, 24, "png")
        assert row["bytes"] == row["length"] == len(original)


def test_shards_in_the_store_are_webdataset_tars_named_by_their_bytes(
    folder: Path, ingest, tmp_path: Path
) -> None:
    ingest(folder)
    (shard,) = (tmp_path / "store" / "shards").iterdir()
    assert shard.name == hashlib.sha256(shard.read_bytes()).hexdigest() + ".tar"
    with tarfile.open(shard) as archive:
        names = archive.getnames()
        assert len(names) == 72
        for name in names[::2]:
            data = archive.extractfile(name).read()
            assert name == hashlib.sha256(data).hexdigest() + ".png"
            note = json.loads(archive.extractfile(name.replace(".png", ".json")).read())
            assert note["label"] in "abc"
    # A snapshot's shards are a source again, of equal data.
    again = ingest(tmp_path / "store" / "shards", "again", store=str(tmp_path / "other"))
    assert again.snapshot_id == read_snapshot(tmp_path / "snapshot").id


def test_images_as_they_come(ingest, tmp_path: Path) -> None:
    """Each decodable oddity is taken, with the size it is seen in; each broken one is named."""
    whole = encoded(noise(1, (64, 64)), "JPEG")
    sixteen = Image.fromarray(np.linspace(0, 65535, 600).reshape(20, 30).astype(np.uint16))
    exif = Image.Exif()
    exif[0x0112] = 6
    frames = [Image.fromarray(noise(n)) for n in (11, 12)]
    good = {
        "16-bit.png": (encoded(sixteen), (30, 20)),
        "cmyk.jpg": (encoded(Image.fromarray(noise(2)).convert("CMYK"), "JPEG"), (20, 24)),
        "turned.jpg": (encoded(noise(3), "JPEG", exif=exif), (24, 20)),
        "moving.gif": (
            encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]),
            (20, 24),
        ),
        "palette.png": (encoded(Image.fromarray(noise(4)).convert("P")), (20, 24)),
        "clear.webp": (encoded(Image.fromarray(noise(5)).convert("RGBA"), "WEBP"), (20, 24)),
        "bit.tiff": (encoded(Image.fromarray(noise(6)).convert("1"), "TIFF"), (20, 24)),
        "no-suffix": (encoded(noise(7)), (20, 24)),
        "b.bmp": (encoded(noise(20), "BMP"), (20, 24)),
        "p.ppm": (encoded(noise(21), "PPM"), (20, 24)),
        "j.jp2": (encoded(noise(22), "JPEG2000"), (20, 24)),
        "a.avif": (encoded(noise(23), "AVIF"), (20, 24)),
        "is-a-png.jpg": (encoded(noise(8)), (20, 24)),
    }
    bomb = b"\x89PNG\r\n\x1a\n" + _png_chunk(
        b"IHDR", struct.pack(">IIBBBBB", 12_000, 12_000, 8, 2, 0, 0, 0)
    )
    bomb += _png_chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + _png_chunk(b"IEND", b"")
    bad = {
        "truncated.jpg": (whole[: len(whole) // 2], "not decodable: the file is cut short"),
        "empty.png": (b"", "not decodable: the file is empty"),
        "bomb.png": (bomb, "not decodable: the image"),
        "text.jpg": (b"this is no image at all", "not decodable: not an image in a known format"),
        "page.html.jpg": (b"<html><body>404</body></html>", "not decodable: not an image"),
        "notes.txt": (b"text", "not an image file"),
        ".hidden.png": (encoded(noise(9)), "hidden file"),
    }
    for number, (name, (data, _)) in enumerate([*good.items(), *bad.items()]):
        path = tmp_path / "odd" / "ab"[number % 2] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    result = ingest(tmp_path / "odd")
    rows = {Path(row["source"]).name: row for row in _rows(tmp_path)}
    sizes = {name: (row["width"], row["height"]) for name, row in rows.items()}
    assert sizes == {name: size for name, (_, size) in good.items()}
    assert rows["is-a-png.jpg"]["format"] == "png"
    aside = {Path(name).name: why for name, (why, _) in aside_of(tmp_path / "snapshot").items()}
    assert set(aside) == set(bad)
    for name, (_, why) in bad.items():
        assert aside[name].startswith(why), (name, aside[name])
    assert sum(result.set_aside.values()) == len(bad)


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _rows(tmp_path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_snapshot(tmp_path / "snapshot").manifest.to_pylist()
    return rows


def test_exact_duplicates_and_conflicting_labels(folder: Path, ingest, tmp_path: Path) -> None:
    shutil.copy(folder / "a" / "00.png", folder / "a" / "copy.png")
    shutil.copy(folder / "a" / "03.png", folder / "b" / "same under b.png")
    result = ingest(folder)
    assert result.set_aside == {"conflicting labels": 2, "exact duplicate": 1}
    assert sum(result.images.values()) == 35
    assert aside_of(tmp_path / "snapshot") == {
        "a/copy.png": ("exact duplicate", "of a/00.png"),
        "a/03.png": ("conflicting labels", "the same bytes are labelled a, b"),
        "b/same under b.png": ("conflicting labels", "the same bytes are labelled a, b"),
    }


def test_near_duplicates_share_a_group_and_a_split(tmp_path: Path, ingest) -> None:
    for number in range(40):
        coarse = Image.fromarray(noise(number, (5, 6)))
        image = coarse.resize((120, 100), Image.Resampling.BICUBIC)
        place = tmp_path / "photos" / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        image.save(place / f"{number}.png")
        if number % 4 == 0:
            image.resize((90, 75)).save(place / f"{number} smaller.jpg", quality=85)
    result = ingest(tmp_path / "photos")
    assert result.near_duplicates == 20 and result.groups == 40
    rows = {row["source"]: row for row in _rows(tmp_path)}
    for name, row in rows.items():
        if "smaller" in name:
            original = rows[name.replace(" smaller.jpg", ".png")]
            assert (row["group"], row["split"]) == (original["group"], original["split"])
    assert ingest(tmp_path / "photos", near_duplicates="off").groups == 50


def test_table_with_splits_groups_and_attributes(folder: Path, ingest, tmp_path: Path) -> None:
    lines = ["image,label,split,patient,age"]
    for number, path in enumerate(sorted(folder.rglob("*.png"))):
        split = "" if number % 4 else ("train", "val", "test")[number // 4 % 3]
        lines.append(f"{path.relative_to(folder)},{path.parent.name},{split},p{number},{number}")
    lines.append("gone.png,a,,p0,1")
    (folder / "t.csv").write_text("\n".join(lines))
    result = ingest(folder / "t.csv", group_column="patient", attributes=["age"])
    assert result.set_aside == {"file not found": 1}
    snapshot = read_snapshot(tmp_path / "snapshot")
    assert snapshot.attributes == ("age",)
    for row in snapshot.manifest.to_pylist():
        number = int(row["age"])
        assert row["group"] == f"p{number}"
        if number % 4 == 0:
            assert row["split"] == ("train", "val", "test")[number // 4 % 3]


def test_one_group_is_never_split(folder: Path, ingest, tmp_path: Path) -> None:
    lines = ["image,label,writer"]
    for number, path in enumerate(sorted(folder.rglob("*.png"))):
        lines.append(f"{path.relative_to(folder)},{path.parent.name},w{number % 9}")
    (folder / "t.csv").write_text("\n".join(lines))
    ingest(folder / "t.csv", group_column="writer")
    by_group: dict[str, set[str]] = {}
    for row in _rows(tmp_path):
        by_group.setdefault(row["group"], set()).add(row["split"])
    assert len(by_group) == 9 and all(len(splits) == 1 for splits in by_group.values())


# -- the second time ------------------------------------------------------------------------------


def test_only_what_is_new_is_read_and_nothing_moves(
    folder: Path, ingest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ingest(folder)
    before = splits_of(tmp_path / "snapshot")
    read: list[str] = []
    original = open_source(str(folder)).__class__.read
    monkeypatch.setattr(
        "graftline.data.sources.folders.FolderSource.read",
        lambda self, entry: (read.append(entry.path), original(self, entry))[1],
    )
    same = ingest(folder)
    assert (same.snapshot_id, same.fetched, same.reused) == (first.snapshot_id, 0, 36)
    for number in range(40, 46):
        (folder / "a" / f"{number}.png").write_bytes(encoded(noise(number)))
    (folder / "b" / "01.png").write_bytes(encoded(noise(99)))
    more = ingest(folder)
    assert sorted(read) == [*(f"a/{n}.png" for n in range(40, 46)), "b/01.png"]
    assert (more.fetched, more.reused) == (7, 35)
    after = splits_of(tmp_path / "snapshot")
    kept = before.keys() & after.keys()
    assert len(kept) == 35 and all(before[i] == after[i] for i in kept)
    assert more.snapshot_id != first.snapshot_id


def test_random_histories_move_nothing_and_end_in_one_snapshot(tmp_path: Path, ingest) -> None:
    """Images come and go; a store that saw them all at once names the same splits and id."""
    everything = {f"{'ab'[n % 2]}/{n}.png": encoded(noise(n)) for n in range(90)}
    ends = set()
    for history in range(3):
        generator = random.Random(history)
        place, store = tmp_path / f"h{history}", str(tmp_path / f"store{history}")
        ever: dict[str, str] = {}
        for share in (0.7, 0.85, 0.75, 1.0):
            shutil.rmtree(place, ignore_errors=True)
            chosen = generator.sample(sorted(everything), int(90 * share))
            for name in chosen:
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                (place / name).write_bytes(everything[name])
            result = ingest(place, store=store, seed=5)
            for image, split in splits_of(tmp_path / "snapshot").items():
                assert ever.setdefault(image, split) == split
        ends.add(result.snapshot_id)
    assert len(ends) == 1


def test_equal_data_in_a_table_a_tar_and_on_s3_has_one_id(
    folder: Path, ingest, s3_bucket: str
) -> None:
    import boto3

    client, bucket = boto3.client("s3"), s3_bucket.removeprefix("s3://")
    rows = ["label,image"]
    with tarfile.open(folder.parent / "all.tar", "w") as archive:
        for path in sorted(folder.rglob("*.png"), reverse=True):
            name = path.relative_to(folder).as_posix()
            client.upload_file(str(path), bucket, f"images/{name}")
            rows.append(f"{path.parent.name},{s3_bucket}/images/{name}")
            archive.add(path, name)
    (folder.parent / "t.csv").write_text("\n".join(rows))
    ids = {
        ingest(folder).snapshot_id,
        ingest(f"{s3_bucket}/images", store=f"{s3_bucket}/store").snapshot_id,
        ingest(folder.parent / "t.csv", store=f"{s3_bucket}/store 2").snapshot_id,
        ingest(folder.parent / "all.tar", store=str(folder.parent / "store 3")).snapshot_id,
    }
    assert len(ids) == 1


def test_relabelled_image_keeps_its_split_and_is_not_fetched(
    folder: Path, ingest, tmp_path: Path
) -> None:
    first = ingest(folder)
    before = splits_of(tmp_path / "snapshot")
    (folder / "t.csv").write_text(
        "image,label\n"
        + "\n".join(
            f"{p.relative_to(folder)},{'a' if p.name == '01.png' else p.parent.name}"
            for p in folder.rglob("*.png")
        )
    )
    table = ingest(folder / "t.csv")
    assert table.snapshot_id != first.snapshot_id
    assert splits_of(tmp_path / "snapshot") == before
    text = (folder / "t.csv").read_text().replace("b/01.png,a", "b/01.png,b")
    (folder / "t.csv").write_text(text)
    again = ingest(folder / "t.csv")
    assert (again.snapshot_id, again.fetched) == (first.snapshot_id, 0)


def _blends(place: Path, extra: str = "") -> Path:
    """Two pictures that differ a little too much, in train and test; `middle.png` is near both."""

    def between(share: float) -> bytes:
        base, other = (
            Image.fromarray(noise(n, (5, 6))).resize((120, 100), Image.Resampling.BICUBIC)
            for n in (1, 2)
        )
        return encoded(Image.blend(base, other, share))

    rows = [("one.png", "train", between(0.0)), ("two.png", "test", between(0.14))]
    rows += [(f"{n}.png", "train" if n % 2 else "test", encoded(noise(n))) for n in range(8)]
    rows += [("3v.png", "val", encoded(noise(20))), ("8v.png", "val", encoded(noise(21)))]
    place.mkdir(exist_ok=True)
    lines = ["image,label,split"]
    for name, split, data in rows:
        (place / name).write_bytes(data)
        lines.append(f"{name},{'x' if name[0] in 'ot0123' else 'y'},{split}")
    (place / "middle.png").write_bytes(between(0.07))
    (place / "t.csv").write_text("\n".join([*lines, extra]))
    return place / "t.csv"


def test_newcomer_that_looks_like_two_splits_joins_the_held_out_one_untested(
    tmp_path: Path, ingest
) -> None:
    assert ingest(_blends(tmp_path / "t")).near_duplicates == 0
    result = ingest(_blends(tmp_path / "t", "middle.png,x,"))
    assert result.set_aside == {} and result.not_evaluated == 1
    (warning,) = [w for w in result.warnings if "left out of the evaluation" in w]
    assert "middle.png and one.png" in warning
    snapshot = read_snapshot(tmp_path / "snapshot")
    rows = {row["source"]: row for row in snapshot.manifest.to_pylist()}
    assert {rows[n]["split"] for n in ("middle.png", "two.png")} == {"test"}
    tested = {snapshot.column("source")[row] for row in snapshot.rows("test")}
    assert "middle.png" not in tested and "two.png" in tested
    assert len(snapshot.rows()) == 13 and len(snapshot.rows("train")) == 5
    assert ingest(_blends(tmp_path / "t", "middle.png,x,")).snapshot_id == result.snapshot_id
    (tmp_path / "t" / "one.png").unlink()
    assert ingest(_blends(tmp_path / "t", "middle.png,x,").parent / "t.csv").not_evaluated == 1
    text = (tmp_path / "t" / "t.csv").read_text().replace("one.png,x,train\n", "")
    (tmp_path / "t" / "t.csv").write_text(text)
    assert ingest(tmp_path / "t" / "t.csv").not_evaluated == 0


def test_copy_of_an_image_that_is_in_a_group_is_not_tested_on(tmp_path: Path, ingest) -> None:
    """An image and its turned copy are a group by their names; the copy saved again is in none."""
    for n in range(40):
        look = Image.fromarray(noise(n, (5, 6))).resize((120, 100), Image.Resampling.BICUBIC)
        place = tmp_path / "x" / "ab"[n % 2]
        place.mkdir(parents=True, exist_ok=True)
        look.save(place / f"{n}.png")
        look.rotate(90, expand=True).save(place / f"{n}_rot90.png")
        look.save(place / f"again-{n}.jpg", quality=90)
    ingest(tmp_path / "x")
    snapshot = read_snapshot(tmp_path / "snapshot")
    rows = {row["source"]: row for row in snapshot.manifest.to_pylist()}
    left_out = {one for one in rows if rows[one]["image_id"] in snapshot.not_evaluated}
    apart = 0
    for n in range(40):
        one, other = f"{'ab'[n % 2]}/{n}.png", f"{'ab'[n % 2]}/again-{n}.jpg"
        differs = rows[one]["split"] != rows[other]["split"]
        apart += differs
        assert not differs or {one, other} & left_out
    assert apart and rows["a/0.png"]["split"] == rows["a/0_rot90.png"]["split"]


def test_strict_rejects_what_ties_splits_together(tmp_path: Path, ingest) -> None:
    result = ingest(_blends(tmp_path / "t"), near_duplicates="strict")
    assert result.set_aside == {}
    table = _blends(tmp_path / "t", "middle.png,x,")
    for _ in range(2):
        result = ingest(table, near_duplicates="strict")
        assert result.set_aside == {"would tie splits together": 1}
        assert aside_of(tmp_path / "snapshot") == {
            "middle.png": ("would tie splits together", "it has near-duplicates in train and test")
        }
    given = ingest(_blends(tmp_path / "t", "middle.png,x,train"), near_duplicates="strict")
    assert given.set_aside == {} and any("in another split" in w for w in given.warnings)


def _photographs(place: Path, count: int = 24) -> Path:
    for number in range(count):
        image = Image.fromarray(noise(number, (5, 6))).resize((120, 100), Image.Resampling.BICUBIC)
        (place / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        image.save(place / "ab"[number % 2] / f"{number:02}.png")
    return place


def test_same_picture_under_two_labels_is_reported_with_both(tmp_path: Path, ingest) -> None:
    place = _photographs(tmp_path / "photos")
    with Image.open(place / "a" / "00.png") as image:
        image.resize((90, 75)).save(place / "b" / "again.jpg", quality=80)
    result = ingest(place)
    assert result.contradictions == 1 and result.set_aside == {}
    (warning,) = [w for w in result.warnings if w.startswith("Contradicting labels")]
    assert "a/00.png (a)" in warning and "b/again.jpg (b)" in warning
    snapshot = read_snapshot(tmp_path / "snapshot")
    names = dict(zip(snapshot.image_ids(), snapshot.column("source"), strict=True))
    assert [{names[i] for i in p} for p in snapshot.contradictions] == [{"a/00.png", "b/again.jpg"}]
    strict = ingest(place, near_duplicates="strict")
    assert strict.set_aside == {"conflicting labels": 2}
    assert aside_of(tmp_path / "snapshot")["b/again.jpg"] == (
        "conflicting labels",
        "the same picture as a/00.png, labelled a",
    )
    off = ingest(place, near_duplicates="off")
    assert (off.contradictions, off.near_duplicates, off.warnings) == (0, 0, [])


def test_classes_of_the_same_pictures_are_refused(tmp_path: Path, ingest) -> None:
    """Large and small of each picture, under names that do not tell that."""
    place = _photographs(tmp_path / "photos", 40)
    for number in range(20):
        with Image.open(place / "a" / f"{2 * number:02}.png") as image:
            image.resize((60, 50)).save(place / "b" / f"x{2 * number + 1:02}.png")
        (place / "b" / f"{2 * number + 1:02}.png").unlink()
    with pytest.raises(DataError, match="Most images of 'a', 'b' show the same pictures") as error:
        ingest(place)
    assert "data.near_duplicates: off" in str(error.value)
    assert ingest(place, near_duplicates="off").per_class == {"a": 20, "b": 20}


def test_data_of_copies_is_refused_with_the_pairs_and_the_key(tmp_path: Path, ingest) -> None:
    place = _photographs(tmp_path / "photos", 12)
    with Image.open(place / "a" / "00.png") as image:
        for quality in range(40, 90):
            image.save(place / "a" / f"copy {quality}.jpg", quality=quality)
    with pytest.raises(DataError, match=r"of the images of 'a' are copies") as caught:
        ingest(place)
    assert "data.near_duplicates: off" in str(caught.value.fix)
    assert "a/copy" in str(caught.value.why) and " and a/" in str(caught.value.why)
    assert sum(ingest(place, near_duplicates="off").images.values()) == 62
    with pytest.raises(ConfigurationError, match=r"data\.near_duplicates is on"):
        ingest(place, near_duplicates="on")


def test_pairs_are_compared_once(tmp_path: Path, ingest, monkeypatch: pytest.MonkeyPatch) -> None:
    place = _photographs(tmp_path / "photos")
    with Image.open(place / "a" / "00.png") as image:
        image.save(place / "a" / "again.jpg", quality=80)
    first = ingest(place)
    assert first.near_duplicates == 2
    asked: list[int] = []
    monkeypatch.setattr(
        "graftline.steps.ingest.comparisons.same_picture",
        lambda a, b: (asked.append(len(a)), np.ones(len(a), dtype=bool))[1],
    )
    again = ingest(place)
    assert (again.snapshot_id, again.near_duplicates, asked) == (first.snapshot_id, 2, [])
    with Image.open(place / "a" / "02.png") as image:
        image.save(place / "a" / "new.jpg", quality=80)
    more = ingest(place)
    assert sum(asked) >= 1 and more.near_duplicates >= 4


def test_other_shares_or_another_seed_are_said(folder: Path, ingest) -> None:
    assert ingest(folder, seed=1).warnings == []
    assert ingest(folder, seed=1).warnings == []
    (warning,) = ingest(folder, seed=2, split={"train": 0.5, "val": 0.25, "test": 0.25}).warnings
    assert "seed is 2, was 1" in warning and "data.split.train is 0.5, was 0.7" in warning
    assert "36 images" in warning and "another `store`" in warning
    assert ingest(folder, seed=1).warnings == []


def test_snapshot_without_leaks_reads_and_is_named_as_before(
    folder: Path, ingest, tmp_path: Path
) -> None:
    ingest(folder)
    head = json.loads((tmp_path / "snapshot" / "snapshot.json").read_text())
    assert not {"not_evaluated", "contradictions"} & head.keys()
    snapshot = read_snapshot(tmp_path / "snapshot")
    digest = hashlib.sha256(json.dumps([2]).encode())
    for row in snapshot.manifest.to_pylist():
        told = [row[name] for name in ("image_id", "label", "split", "group")]
        digest.update(json.dumps(told).encode() + b"\n")
    assert snapshot.id == digest.hexdigest()[:32]


def test_broken_image_is_remembered_until_it_is_mended(folder: Path, ingest) -> None:
    good = (folder / "a" / "00.png").read_bytes()
    (folder / "a" / "00.png").write_bytes(good[:50])
    assert ingest(folder).fetched == 36
    second = ingest(folder)
    assert second.fetched == 0 and sum(second.set_aside.values()) == 1
    (folder / "a" / "00.png").write_bytes(good)
    third = ingest(folder)
    assert third.fetched == 1 and third.set_aside == {} and sum(third.images.values()) == 36


def test_shards_that_are_gone_are_packed_again(folder: Path, ingest, tmp_path: Path) -> None:
    first = ingest(folder)
    (folder / "a" / "77.png").write_bytes(encoded(noise(77)))
    ingest(folder)
    (folder / "a" / "77.png").unlink()
    shutil.rmtree(tmp_path / "store" / "shards")
    again = ingest(folder)
    assert (again.snapshot_id, again.fetched) == (first.snapshot_id, 36)
    kept = fetch_snapshot(open_store(str(tmp_path / "store")), first.snapshot_id, tmp_path / "kept")
    assert len(list(read_images(kept, kept.rows()))) == 36


def test_nothing_is_left_lying_about(folder: Path, ingest, tmp_path: Path) -> None:
    ingest(folder)
    keys = [info.key for info in open_store(str(tmp_path / "store")).list()]
    assert not [key for key in keys if "partial" in key or "probe" in key]
    assert sorted({key.split("/")[0] for key in keys}) == ["shards", "snapshots", "sources"]


def test_interrupted_run_goes_on_where_it_stopped(
    folder: Path, ingest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graftline.data.shards.SHARD_BYTES", 20_000)
    monkeypatch.setattr(
        "graftline.data.shards.ShardWriter.__init__.__kwdefaults__", {"shard_bytes": 20_000}
    )
    original = open_source(str(folder)).__class__.read

    def read(self, entry):
        if entry.path == "c/35.png":
            raise KeyboardInterrupt
        return original(self, entry)

    with monkeypatch.context() as patch:
        patch.setattr("graftline.data.sources.folders.FolderSource.read", read)
        with pytest.raises(KeyboardInterrupt):
            ingest(folder)
    assert load_memory(open_store(str(tmp_path / "store")), folder.as_uri()).partial
    result = ingest(folder)
    assert 0 < result.fetched < 36
    assert result.snapshot_id == ingest(folder, store=str(tmp_path / "fresh")).snapshot_id


def test_runs_at_once_on_one_source_agree(folder: Path, ingest, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda n: ingest(folder, f"snapshot{n}"), range(4)))
    assert len({result.snapshot_id for result in results}) == 1
    assert ingest(folder).fetched == 0


# -- what is refused -----------------------------------------------------------------------------


def test_memory_of_another_version_or_damaged_is_refused(
    folder: Path, ingest, tmp_path: Path
) -> None:
    ingest(folder)
    store = open_store(str(tmp_path / "store"))
    key = memory_key(folder.as_uri())
    head = json.loads(store.read(key))
    for version, words in ((0, "older Graftline"), (99, "newer Graftline")):
        store.write(key, json.dumps({**head, "schema_version": version}).encode())
        with pytest.raises(SchemaVersionError, match=words):
            ingest(folder)
    for damage in (b"{", b"[]", json.dumps({"schema_version": 1}).encode()):
        store.write(key, damage)
        with pytest.raises((DataError, SchemaVersionError)) as caught:
            ingest(folder)
        assert key.rpartition("/")[2] in str(caught.value) or "memory of" in str(caught.value)
    store.write(key, json.dumps(head).encode())
    store.write(head["splits"], store.read(head["splits"])[:-20])
    with pytest.raises(DataError, match="Restore it from a backup"):
        ingest(folder)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"split": {"train": 0.5, "val": 0.2, "test": 0.2}}, ["sum to 0.9"]),
        (
            {"split": {"train": 0, "val": 0.5, "test": 0.5}},
            ["split.train is 0", "greater than 0"],
        ),
        (
            {"split": {"train": 1.5, "val": -0.5}},
            ["split.train is 1.5", "split.val is -0.5"],
        ),
        ({"split": {"train": 0.5, "holdout": 0.5}}, ["data.split.holdout is not a setting"]),
        ({"attributes": ["label", "width"]}, ["label, width"]),
        ({"min_images_per_class": 0}, ["min_images_per_class is 0"]),
    ],
)
def test_arguments_that_cannot_be(folder: Path, ingest, options: dict, words: list[str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ingest(folder, **options)
    assert all(word in str(caught.value) for word in words) and caught.value.fix


def test_what_cannot_be_learned_from(folder: Path, ingest, tmp_path: Path) -> None:
    place = tmp_path / "x"
    (place / "a").mkdir(parents=True)
    for number in range(6):
        shutil.copy(folder / "abc"[number % 3] / f"{number:02}.png", place / "a")
    with pytest.raises(DataError, match="one label 'a'") as caught:
        ingest(place)
    assert "let a table name the labels" in str(caught.value.fix)
    (place / "b").mkdir()
    shutil.copy(folder / "a" / "09.png", place / "b")
    with pytest.raises(DataError, match=r"Too few images in b \(1\)") as caught:
        ingest(place)
    assert "a class needs 3" in str(caught.value.why)
    assert ingest(place, min_images_per_class=1).per_class == {"a": 6, "b": 1}
    for path in place.rglob("*.png"):
        path.write_bytes(b"text")
    with pytest.raises(DataError, match="No usable image") as caught:
        ingest(place)
    assert "not an image in a known format (7)" in str(caught.value.why)
    for path in place.rglob("*.png"):  # a repository that was cloned without its large files
        path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 99\n")
    with pytest.raises(DataError, match="No usable image") as caught:
        ingest(place)
    assert "`git lfs pull`" in str(caught.value.why)
    (place / "labels.csv").write_text("file,class\na/00.png,x\n")
    with pytest.raises(DataError, match=r"labels\.csv has no columns 'image' and 'label'"):
        ingest(place)


def test_class_that_may_only_be_tested_on_is_refused(folder: Path, ingest) -> None:
    lines = ["image,label,split"]
    for path in sorted(folder.rglob("*.png")):
        split = "test" if path.parent.name == "c" else "train"
        lines.append(f"{path.relative_to(folder)},{path.parent.name},{split}")
    (folder / "t.csv").write_text("\n".join(lines))
    with pytest.raises(DataError, match="No image to train on in 'c'"):
        ingest(folder / "t.csv")


def test_result_is_plain_and_its_metrics_are_numbers(folder: Path, ingest) -> None:
    result = ingest(folder)
    json.dumps(dataclasses.asdict(result))
    assert all(isinstance(value, float) for value in result.metrics().values())
