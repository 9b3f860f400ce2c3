"""`graftline features ls` and `gc`: what is stored, what is damaged, what no one uses."""

import json

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from graftline.data import snapshot as dataset
from graftline.errors import ConfigurationError, IntegrityError, SchemaVersionError, StoreError
from graftline.features.gc import collect_garbage, snapshots, stored
from graftline.features.parts import IdIndex, binary_ids
from graftline.features.store import FeatureStore
from graftline.features.writer import PartWriter
from graftline.storage import open_store
from graftline_pipelines.cli.main import app

CNN, VIT = "a" * 32, "b" * 32
DIM = 4


@pytest.fixture(params=["folder", "s3"])
def place(request, tmp_path):
    if request.param == "s3":
        return open_store(request.getfixturevalue("s3_bucket") + "/graftline")
    return open_store(str(tmp_path / "store"))


def hexadecimal(numbers) -> list[str]:
    return [f"{number:064x}" for number in numbers]


def write(place, fingerprint: str, numbers, name: str = "timm/resnet18") -> str:
    features = FeatureStore(place, fingerprint)
    description = {"name": name, "precision": "fp32", "preprocessing": {"input_size": 224}}
    features.describe(description)
    ids = binary_ids(hexadecimal(numbers))
    return features.write_part(ids, np.full((len(ids), DIM), len(ids), np.float32), {})


def keep(place, tmp_path, numbers) -> str:
    """Keep a snapshot of images in a store, as ingest does; its id."""
    rows = [
        {
            "image_id": image,
            "source": f"{image}.png",
            "source_version": "1",
            "label": "a",
            "split": "train",
            "group": image,
            "width": 8,
            "height": 8,
            "format": "png",
            "bytes": 1,
            "shard": "x",
            "offset": 0,
            "length": 1,
            "dhash": 0,
        }
        for image in hexadecimal(numbers)
    ]
    manifest = pa.Table.from_pylist(rows, schema=dataset.MANIFEST)
    aside = pa.Table.from_pylist([], schema=dataset.SET_ASIDE)
    folder = tmp_path / f"snapshot-{min(numbers)}-{max(numbers)}"
    snapshot = dataset.write_snapshot(
        folder, manifest, aside, store=place.uri, source="file:///images"
    )
    dataset.keep_snapshot(place, snapshot)
    return snapshot.id


def numbers_in(place, fingerprint: str) -> list[int]:
    ids = FeatureStore(place, fingerprint).ids()
    return sorted(int(row.tobytes().hex(), 16) for row in ids)


def everything(place) -> dict[str, bytes]:
    return {info.key: place.read(info.key) for info in place.list()}


def command(*arguments: str):
    return CliRunner().invoke(app, ["features", *arguments])


@pytest.mark.parametrize("action", ["ls", "gc"])
@pytest.mark.parametrize("name", ["no[/such]", "file"])
def test_a_place_without_a_store_is_named_not_taken_for_an_empty_one(tmp_path, action, name):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="There is no store at") as caught:
        CliRunner().invoke(
            app, ["features", action, "--store", str(tmp_path / name)], catch_exceptions=False
        )
    assert str(tmp_path / name) in str(caught.value)


def test_ls_of_an_empty_store_says_so(place):
    place.check_writable()
    done = command("ls", "--store", place.uri)
    assert done.exit_code == 0
    assert "No features are stored" in done.stdout


def test_ls_shows_what_is_stored_under_which_backbone(place):
    write(place, CNN, range(1200))
    write(place, CNN, range(1200, 1250))
    write(place, VIT, range(10), name="timm/vit_tiny_patch16_224")
    place.write("features/requests/abc.json", b"{}")
    done = command("ls", "--store", place.uri)
    assert done.exit_code == 0, done.output
    header, cnn, vit = done.stdout.splitlines()
    assert header.split()[:3] == ["Backbone", "Input", "Precision"]
    assert cnn.split()[:6] == ["timm/resnet18", "224", "px", "fp32", "1,250", "2"]
    assert "none known" in cnn and cnn.rstrip().endswith(CNN)
    assert vit.split()[0] == "timm/vit_tiny_patch16_224"
    rows = json.loads(command("ls", "--store", place.uri, "--json").stdout)
    assert [(row["fingerprint"], row["images"], row["parts"]) for row in rows] == [
        (CNN, 1250, 2),
        (VIT, 10, 1),
    ]


def test_ls_names_damaged_parts_that_were_set_aside(place):
    key = write(place, CNN, range(5))
    features = FeatureStore(place, CNN)
    features.store.write(key, b"broken")
    index = IdIndex(binary_ids(hexadecimal(range(5))))
    features.load(index, np.zeros((5, DIM), np.float32), np.zeros(5, bool))
    text = command("ls", "--store", place.uri).stdout
    assert f"features/{CNN}/damaged/{key.rpartition('/')[2]}" in text
    assert "`graftline features gc` removes it" in text


def test_a_check_finds_damage_before_a_run_does_and_changes_nothing(place):
    write(place, CNN, range(5, 9))
    done = command("ls", "--store", place.uri, "--check")
    assert done.exit_code == 0
    assert "The one part is whole." in done.stdout
    key = write(place, CNN, range(5))
    data = FeatureStore(place, CNN).store.read(key)
    FeatureStore(place, CNN).store.write(key, data[:-1] + b"?")
    before = everything(place)
    assert stored(place)[0].damaged == ()
    done = command("ls", "--store", place.uri, "--check", "--json")
    assert done.exit_code == 1
    (row,) = json.loads(done.stdout)
    assert row["damaged"] == [key]
    assert "SHA-256" in row["reasons"][key]
    assert f"{key}: its SHA-256" in done.stderr
    assert "computes its images again" in done.stderr
    assert everything(place) == before


def test_ls_refuses_what_an_older_version_described(place):
    write(place, CNN, range(5))
    place.write(f"features/{CNN}/backbone.json", b'{"schema_version": 0, "name": "x"}')
    with pytest.raises(SchemaVersionError, match="schema version 0"):
        stored(place)


def test_gc_says_what_it_would_remove_and_touches_nothing(place, tmp_path):
    keep(place, tmp_path, range(3, 8))
    write(place, CNN, range(10))
    key = write(place, VIT, range(3, 6))
    FeatureStore(place, VIT).store.write(key, b"damaged")
    before = everything(place)
    done = command("gc", "--store", place.uri)
    assert done.exit_code == 0, done.output
    assert f"timm/resnet18 ({CNN}): 5 images to be removed, 5 images kept" in done.stdout
    assert "Give --yes" in done.stdout
    assert everything(place) == before


def test_gc_removes_what_no_kept_snapshot_uses_and_nothing_else(place, tmp_path):
    keep(place, tmp_path, range(3, 8))
    keep(place, tmp_path, range(20, 25))
    write(place, CNN, range(10))
    write(place, CNN, range(20, 25))
    write(place, CNN, range(30, 40))
    write(place, VIT, range(100, 110))
    whole = FeatureStore(place, CNN).parts()
    done = command("gc", "--store", place.uri, "--yes", "--json")
    assert done.exit_code == 0, done.output
    assert numbers_in(place, CNN) == [3, 4, 5, 6, 7, 20, 21, 22, 23, 24]
    found = {row["fingerprint"]: row for row in json.loads(done.stdout)["features"]}
    assert (found[CNN]["images"], found[CNN]["kept"]) == (15, 10)
    assert list(place.list(f"features/{VIT}/")) == []  # nothing of it was used
    assert [part for part in FeatureStore(place, CNN).parts() if part in whole]  # not rewritten
    assert FeatureStore(place, CNN).description()["name"] == "timm/resnet18"
    again = command("gc", "--store", place.uri, "--yes")
    assert "nothing to remove" in again.stdout


def test_the_vectors_that_stay_are_the_ones_that_were_stored(place, tmp_path):
    keep(place, tmp_path, range(3, 8))
    features = FeatureStore(place, CNN)
    ids = binary_ids(hexadecimal(range(10)))
    vectors = np.random.default_rng(0).standard_normal((10, DIM)).astype(np.float32)
    features.write_part(ids, vectors, {})
    list(collect_garbage(place, remove=True))
    matrix, filled = np.zeros((10, DIM), np.float32), np.zeros(10, bool)
    features.load(IdIndex(ids), matrix, filled)
    assert np.flatnonzero(filled).tolist() == [3, 4, 5, 6, 7]
    assert np.array_equal(matrix[filled], vectors[3:8])


def test_gc_keeps_only_the_snapshots_that_are_named(place, tmp_path):
    first = keep(place, tmp_path, range(5))
    second = keep(place, tmp_path, range(3, 9))
    assert snapshots(place) == sorted([first, second])
    write(place, CNN, range(9))
    done = command("gc", "--store", place.uri, "--keep", second, "--yes")
    assert done.exit_code == 0, done.output
    assert numbers_in(place, CNN) == list(range(3, 9))


def test_gc_refuses_to_remove_everything_and_unknown_snapshots(place, tmp_path):
    write(place, CNN, range(5))
    with pytest.raises(ConfigurationError, match="keeps no snapshot"):
        list(collect_garbage(place, remove=True))
    known = keep(place, tmp_path, range(5))
    with pytest.raises(ConfigurationError, match="no snapshot nonsense") as caught:
        list(collect_garbage(place, ["nonsense"], remove=True))
    assert known in caught.value.fix
    assert numbers_in(place, CNN) == list(range(5))


def test_gc_removes_damaged_parts_that_were_set_aside(place, tmp_path):
    keep(place, tmp_path, range(5))
    write(place, CNN, range(5))
    place.write(f"features/{CNN}/damaged/{'0' * 64}-3.parquet", b"broken")
    dry = command("gc", "--store", place.uri).stdout
    assert "0 images, 1 damaged part to be removed, 5 images kept" in dry
    assert stored(place)[0].damaged
    command("gc", "--store", place.uri, "--yes")
    assert stored(place)[0].damaged == ()
    assert numbers_in(place, CNN) == list(range(5))


def test_gc_beside_a_running_extraction_loses_nothing_of_it(place, tmp_path):
    """The run's snapshot is kept before it extracts; what it adds meanwhile is not touched."""
    keep(place, tmp_path, range(50))
    features = FeatureStore(place, CNN)
    features.describe({"name": "timm/resnet18", "precision": "fp32"})
    ids = binary_ids(hexadecimal(range(50)))
    vectors = np.arange(50 * DIM, dtype=np.float32).reshape(50, DIM)
    list(collect_garbage(place, remove=True))  # before the first part: the description goes
    assert features.description() == {}
    with PartWriter(features, DIM, {}) as writer:
        for first in range(0, 50, 5):
            writer.add(ids[first : first + 5], vectors[first : first + 5])
            list(collect_garbage(place, remove=True))
    matrix, filled = np.zeros((50, DIM), np.float32), np.zeros(50, bool)
    features.load(IdIndex(ids), matrix, filled)
    assert filled.all()
    assert np.array_equal(matrix, vectors)
    assert features.description()["name"] == "timm/resnet18"


def test_parts_that_come_after_gc_has_begun_stay_though_no_snapshot_uses_them(place, tmp_path):
    keep(place, tmp_path, range(5))
    write(place, CNN, range(5))
    write(place, VIT, range(5))
    collecting = collect_garbage(place, remove=True)
    next(collecting)
    write(place, VIT, range(70, 75))  # of a snapshot that is being made
    list(collecting)
    assert numbers_in(place, VIT) == [*range(5), *range(70, 75)]


def test_gc_keeps_what_a_snapshot_uses_that_is_kept_while_it_works(place, tmp_path, monkeypatch):
    keep(place, tmp_path, range(5))
    for fingerprint in (CNN, VIT):
        write(place, fingerprint, range(20))
    removals = collect_garbage(place, remove=True)
    assert next(removals).images == 15
    keep(place, tmp_path, range(10, 20))  # by an ingest, between two backbones
    rest = FeatureStore.drop_unused

    def kept_between(self, part, used):
        keep(place, tmp_path, [7])  # by another one, between count and removal
        rest(self, part, used)

    monkeypatch.setattr(FeatureStore, "drop_unused", kept_between)
    assert [removal.kept for removal in removals] == [15]
    assert numbers_in(place, VIT) == [*range(5), 7, *range(10, 20)]
    assert numbers_in(place, CNN) == list(range(5))


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone", "head"])
def test_gc_removes_nothing_where_a_snapshot_is_damaged(place, tmp_path, damage):
    snapshot = keep(place, tmp_path, range(5))
    write(place, CNN, range(10))
    head = json.loads(place.read(dataset.snapshot_key(snapshot, "snapshot.json")))
    key = dataset.snapshot_key(snapshot, f"{head['sha256']['manifest.parquet']}.parquet")
    data = place.read(key)
    middle = len(data) // 2
    if damage == "gone":
        place.delete(key)
    elif damage == "head":
        place.write(dataset.snapshot_key(snapshot, "snapshot.json"), b"[]")
    else:
        changed = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        place.write(key, changed if damage == "flipped" else data[:middle])
    before = everything(place)
    done = command("gc", "--store", place.uri, "--yes")
    assert done.exit_code == 1
    with pytest.raises(IntegrityError, match=f"Snapshot {snapshot} .* is damaged"):
        list(collect_garbage(place, remove=True))
    assert everything(place) == before


def test_ls_shows_features_whose_description_makes_no_sense(place):
    write(place, CNN, range(5))
    for preprocessing in ("null", "[]", '{"input_size": "x"}'):
        text = f'{{"schema_version": 1, "name": "x", "preprocessing": {preprocessing}}}'
        place.write(f"features/{CNN}/backbone.json", text.encode())
        assert [(one.backbone, one.image_size) for one in stored(place)] == [("x", None)]
