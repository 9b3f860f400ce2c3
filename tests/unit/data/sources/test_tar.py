"""Tar shards as a source: what WebDataset writes, and what somebody hostile might."""

import gzip
import io
import json
import os
import random
import tarfile
import tracemalloc
from collections.abc import Iterable
from pathlib import Path

import pytest
from PIL import Image

from graftline.data.sources import open_source
from graftline.data.sources.base import Columns
from graftline.errors import DataError
from graftline.storage import open_store

LIMIT = 100_000


def png(number: int = 0) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (6, 5), (number % 256, number // 256, 9)).save(stream, "PNG")
    return stream.getvalue()


Member = tuple[str, bytes] | tarfile.TarInfo


def tar(members: Iterable[Member], mode: str = "w") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                archive.addfile(info, io.BytesIO(member[1]))
    return stream.getvalue()


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.fixture
def unpacked(tmp_path: Path):
    def unpack(data: bytes, name: str = "a.tar", columns: Columns | None = None) -> list:
        store = open_store(str(tmp_path / "shards"))
        store.write(name, data)
        source = open_source(f"{store.uri}/{name}", columns=columns)
        (entry,) = [one for one in source.entries() if one.archive]
        return list(source.unpack(entry, LIMIT))

    return unpack


def told(found: list) -> dict[str, tuple]:
    return {e.path.partition("#")[2]: (e.label, e.problem) for e, _ in found}


def test_labels_by_cls_txt_json_and_folder(unpacked) -> None:
    found = unpacked(
        tar(
            [
                ("000.png", png(0)),
                ("000.cls", b"3\n"),
                ("001.json", b'{"label": "cat", "split": "test", "patient": 7}'),
                ("001.png", png(1)),
                ("002.txt", "Käse".encode()),
                ("002.JPG", png(2)),
                ("./003/x.png", png(3)),
                ("train/dog/x.y.png", png(4)),
                ("005.png", png(5)),
                ("notes.md", b"text"),
            ]
        ),
        columns=Columns(group="patient", attributes=("patient",)),
    )
    assert told(found) == {
        "000.png": ("3", None),
        "001.png": ("cat", None),
        "002.jpg": ("Käse", None),
        "003/x.png": ("003", None),
        "train/dog/x.y.png": ("dog", None),
        "005.png": (None, "no label"),
        "notes.md": (None, "not an image file"),
    }
    by_path = {e.path: e for e, _ in found}
    assert (by_path["a.tar#001.png"].split, by_path["a.tar#001.png"].group) == ("test", "7")
    assert by_path["a.tar#001.png"].attributes == {"patient": "7"}
    assert by_path["a.tar#train/dog/x.y.png"].split == "train"
    assert found[0][1] == png(0)


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz"])
def test_compressed_shard(unpacked, name: str) -> None:
    data = tar([("0.png", png()), ("0.cls", b"1")], "w:gz")
    assert told(unpacked(data, name)) == {"0.png": ("1", None)}


def test_many_members_are_not_kept_in_memory(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    names = [(f"{n:06}.png", f"{n:06}.cls") for n in range(4000)]
    store.write("a.tar", tar([(name, b"x" * 64) for pair in names for name in pair]))
    source = open_source(store.uri)
    (entry,) = source.entries()
    members = source.unpack(entry, LIMIT)
    next(members)  # the copy is on disk now
    tracemalloc.start()
    assert sum(1 for _ in members) == 3999
    assert tracemalloc.get_traced_memory()[1] < 2**20  # 3.4 MiB where all members are kept
    tracemalloc.stop()


def test_only_regular_files_are_read_and_the_others_are_listed(unpacked, tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(png(9))
    found = unpacked(
        tar(
            [
                special("folder.png", tarfile.DIRTYPE),
                special("link.png", tarfile.SYMTYPE, str(secret)),
                special("hard.png", tarfile.LNKTYPE, str(secret)),
                special("zero.png", tarfile.CHRTYPE),
                special("pipe.png", tarfile.FIFOTYPE),
                ("/etc/absolute.png", png(1)),
                ("../../climbs.png", png(2)),
            ]
        )
    )
    assert {path: problem for path, (_, problem) in told(found).items()} == {
        "link.png": "not a regular file",
        "hard.png": "not a regular file",
        "zero.png": "not a regular file",
        "pipe.png": "not a regular file",
        "etc/absolute.png": None,
        "../../climbs.png": None,
    }
    assert [data for e, data in found if e.problem] == [b""] * 4
    assert not (tmp_path.parent / "climbs.png").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["secret.png", "shards"]


def test_member_beyond_the_limit_comes_without_bytes(unpacked) -> None:
    found = unpacked(tar([("big.png", b"x" * (LIMIT + 1)), ("big.cls", b"1"), ("b/2.png", png())]))
    assert told(found) == {"big.png": ("1", "larger than 100,000 bytes"), "b/2.png": ("b", None)}
    assert found[0][1] == b""


def test_forged_header_cannot_ask_for_gigabytes(unpacked) -> None:
    forged = tarfile.TarInfo("x")
    forged.type, forged.size = tarfile.XHDTYPE, 40 * 2**30
    found = unpacked(tar([("a/1.png", png())])[:1024] + forged.tobuf(tarfile.GNU_FORMAT))
    assert told(found)["a/1.png"] == ("a", None)
    assert "damaged archive" in told(found)[""][1]


def test_compressed_bomb_is_not_unpacked(unpacked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graftline.data.sources.tar.UNPACKED_FLOOR", 2**20)
    members = [(f"a/{n}.png", b"\0" * 90_000) for n in range(200)]
    data = tar(members, "w:gz")
    assert len(data) < 2**20
    found = unpacked(data, "a.tar.gz")
    assert len(found) < 50
    assert "far more than its size" in told(found)[""][1]


@pytest.mark.parametrize("share", [0.1, 0.4, 0.7])
def test_shard_that_is_cut_short_gives_what_it_has_and_says_so(unpacked, share: float) -> None:
    whole = tar([(f"a/{n}.png", png(n) + b"\0" * 600) for n in range(20)])
    found = told(unpacked(whole[: int(len(whole) * share)]))
    assert 1 <= len([p for p in found.values() if p[1] is None]) < 20
    assert "damaged archive" in found[""][1] or "cut short" in found[""][1]


def test_bytes_that_are_no_archive_at_all(unpacked) -> None:
    for name, data in (
        ("a.tar", b"GIF89a is no tar" * 100),
        ("a.tar", b""),
        ("a.tar", os.urandom(5000)),
        ("a.tar.gz", b"\x1f\x8b" + os.urandom(500)),
        ("a.tar.gz", gzip.compress(b"no tar" * 1000)),
        ("a.tar.gz", gzip.compress(tar([("a/1.png", png())]))[:-40]),
    ):
        found = unpacked(data, name)
        assert [e.problem for e, _ in found if "damaged" in str(e.problem)], (name, data[:10])
        assert found[-1][0].path == f"{name}#"


def test_flipped_bits_never_end_in_anything_but_listed_reasons(unpacked) -> None:
    generator = random.Random(0)
    for mode, name in (("w", "a.tar"), ("w:gz", "a.tar.gz")):
        whole = tar([(f"a/{n}.png", png(n)) for n in range(8)], mode)
        for _ in range(150):
            spoilt = bytearray(whole)
            for _ in range(3):
                spoilt[generator.randrange(len(spoilt))] ^= 1 << generator.randrange(8)
            for entry, data in unpacked(bytes(spoilt), name):
                assert entry.problem is not None or isinstance(data, bytes)


def test_two_members_of_one_name_are_two_images(unpacked) -> None:
    found = unpacked(tar([("a/1.png", png(1)), ("a/1.png", png(2))]))
    assert [data for _, data in found] == [png(1), png(2)]


def test_notes_that_are_no_json_objects(unpacked) -> None:
    for note in (b"[1]", b"{", b"\xff", b"[" * 100_000, json.dumps({"label": {"a": 1}}).encode()):
        assert told(unpacked(tar([("1.json", note), ("1.png", png())]))) == {
            "1.png": (None, "no label")
        }
    unknown = json.dumps({"label": "a", "split": "trian"}).encode()
    found = told(unpacked(tar([("1.json", unknown), ("1.png", png())])))
    assert found == {"1.png": ("a", "unknown split 'trian'")}


def test_other_files_beside_shards_are_listed(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.write("a.tar", tar([("a/1.png", png())]))
    store.write("README", b"text")
    source = open_source(store.uri)
    assert source.format == "shards"
    assert {e.path: e.problem for e in source.entries()} == {
        "README": "not a tar shard",
        "a.tar": None,
    }
    assert [e.path for e in open_source(f"{store.uri}/a.tar").entries()] == ["a.tar"]
    with pytest.raises(DataError, match="holds no tar shards"):
        open_source(f"{store.uri}/b.tar").entries()
