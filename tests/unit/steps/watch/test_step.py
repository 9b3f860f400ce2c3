"""The look for changes: the two-sample test, the conditions, and whole looks at real digits."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pytest
from onnx import TensorProto, helper
from PIL import Image

import graftline
from graftline.data.shards import ShardWriter
from graftline.data.snapshot import MANIFEST, SET_ASIDE, keep_snapshot, write_snapshot
from graftline.data.sources import open_source
from graftline.onnx_model.predict import ModelMetadata
from graftline.steps.watch.drift import compare_features
from graftline.steps.watch.step import WatchResult, run
from graftline.steps.watch.triggers import Found, judge
from graftline.storage import open_store
from graftline.tracking.mlflow_run import start_run
from graftline.tracking.registry import open_registry

WHEN = {"new_fraction": 0.05, "labels_changed": 1, "drift": 0.05}


def features(rng: np.random.Generator, rows: int, shift: float = 0.0) -> np.ndarray:
    """Correlated features, as those of a network are, of 64 dimensions."""
    mixing = np.random.default_rng(9).normal(size=(12, 64))
    return (rng.normal(shift, 1, size=(rows, 12)) @ mixing).astype(np.float32)


def test_equal_distributions_are_taken_for_different_ones_as_seldom_as_promised() -> None:
    rng = np.random.default_rng(0)
    found = [
        compare_features(features(rng, 200), features(rng, 60), 0.05).found for _ in range(200)
    ]
    assert sum(found) <= 18  # 10 expected; 18 has probability 0.99


def test_a_shift_is_found_and_described() -> None:
    rng = np.random.default_rng(0)
    drift = compare_features(features(rng, 400), features(rng, 100, shift=0.7), 0.05)
    assert drift.found
    assert 1 <= drift.differing <= 12
    assert 0 < drift.share <= 1
    assert "100 new images against 400" in drift.sentence()


def test_the_correction_is_that_of_benjamini_and_hochberg() -> None:
    """Against the procedure written out: the largest k with p(k) <= k/m * level."""
    from scipy.stats import ks_2samp
    from sklearn.decomposition import PCA

    rng = np.random.default_rng(3)
    old, new = features(rng, 150), features(rng, 80, shift=0.2)
    turned = PCA(n_components=32, svd_solver="randomized", random_state=0).fit_transform(
        np.concatenate([old, new]).astype(np.float64)
    )
    raw = np.array([ks_2samp(turned[:150, i], turned[150:, i]).pvalue for i in range(12)])
    for level in (0.01, 0.05, 0.2):
        ranked = np.sort(raw) <= np.arange(1, 13) / 12 * level
        rejected = int(np.max(np.flatnonzero(ranked), initial=-1)) + 1
        assert compare_features(old, new, level).differing == rejected


def test_images_without_any_variation_do_not_differ() -> None:
    assert not compare_features(
        np.ones((30, 4), np.float32), np.ones((30, 4), np.float32), 0.05
    ).found


def test_numerical_noise_is_not_compared() -> None:
    """Grey images give equal channels, and components without any variance of their own."""
    rng = np.random.default_rng(1)
    grey = np.repeat(rng.normal(size=(300, 1)), 3, axis=1)
    noise = np.where(np.arange(300)[:, None] < 200, 1e-7, -1e-7) * np.array([[1, -1, 0]])
    both = (grey + noise).astype(np.float32)
    assert not compare_features(both[:200], both[200:], 0.05).found


NOTHING = Found(new=0, relabelled=0, removed=0, known=100, drift_not_made="nothing is new")


@pytest.mark.parametrize(
    ("when", "found", "met"),
    [
        (WHEN, NOTHING, []),
        ({"always": True}, NOTHING, ["always"]),
        ({"new_images": 5}, replace(NOTHING, new=4), []),
        ({"new_images": 5}, replace(NOTHING, new=5), ["new_images"]),
        ({"new_fraction": 0.05}, replace(NOTHING, new=5), ["new_fraction"]),
        ({"new_fraction": 0.05}, replace(NOTHING, new=4), []),
        ({"labels_changed": 1}, replace(NOTHING, relabelled=1), ["labels_changed"]),
        ({"max_age_days": 30}, replace(NOTHING, age_days=30.5), ["max_age_days"]),
        ({"max_age_days": 30}, replace(NOTHING, age_days=29.5), []),
        ({"max_age_days": 30}, NOTHING, []),
        ({"new_images": None, "drift": None}, replace(NOTHING, new=1000), []),
    ],
)
def test_each_condition(when: dict, found: Found, met: list[str]) -> None:
    assert [rule.key for rule in judge(when, found) if rule.met] == met


def mean_colour_model(path: Path, classes: list[str], snapshot_id: str) -> Path:
    """An ONNX file of our kind: the embedding is the mean colour and the mean square."""
    nodes = [
        helper.make_node("Cast", ["images"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["f", "axes"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["f", "f"], ["squares"]),
        helper.make_node("ReduceMean", ["squares", "axes"], ["square"], keepdims=0),
        helper.make_node("Concat", ["mean", "square"], ["embedding"], axis=1),
        helper.make_node("MatMul", ["embedding", "weights"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    weights = np.zeros((6, len(classes)), np.float32)
    graph = helper.make_graph(
        nodes,
        "mean-colour",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", "h", "w", 3])],
        [
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", len(classes)]),
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", 6]),
        ],
        [
            helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2]),
            helper.make_tensor("weights", TensorProto.FLOAT, weights.shape, weights.ravel()),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    metadata = ModelMetadata(classes=tuple(classes), preprocessing={}, snapshot_id=snapshot_id)
    helper.set_model_props(model, metadata.to_properties())
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


@dataclass
class Setting:
    """A source of digits whose present images the champion was trained on."""

    source: Path
    store: str
    tracking: str
    folder: Path

    def look(self, **rest: object) -> WatchResult:
        arguments = {"when": WHEN, "backbone": "net", "page_file": self.folder / "page.html"}
        return run(
            source=str(self.source),
            store=self.store,
            tracking_uri=self.tracking,
            registered_model="digits",
            **{**arguments, **rest},
        )

    def train(self, *, promote: bool, strategy: str = "probe") -> str:
        """Stand in for a whole training: a snapshot of the source, and a version of the model."""
        import hashlib

        store = open_store(self.store)
        source = open_source(str(self.source))
        rows = []
        with ShardWriter(store) as shards:
            for i, entry in enumerate(source.entries()):
                data = source.read(entry)
                image_id = hashlib.sha256(data).hexdigest()
                shards.add(image_id, data, "png", str(entry.label))
                rows.append((image_id, entry, "val" if i % 4 == 0 else "train", len(data)))
        unique = {row[0]: row for row in rows}.values()
        table = pa.Table.from_pylist(
            [
                {
                    "image_id": image_id,
                    "source": entry.path,
                    "source_version": entry.version,
                    "label": entry.label,
                    "split": split,
                    "group": image_id,
                    "width": 8,
                    "height": 8,
                    "format": "png",
                    "bytes": size,
                    "shard": shards.byte_ranges[image_id].shard,
                    "offset": shards.byte_ranges[image_id].offset,
                    "length": shards.byte_ranges[image_id].length,
                    "dhash": 0,
                }
                for image_id, entry, split, size in unique
            ],
            schema=MANIFEST,
        )
        aside = SET_ASIDE.empty_table()
        snapshot = write_snapshot(
            self.folder / f"snapshot-{len(rows)}", table, aside, store=store.uri, source=source.uri
        )
        keep_snapshot(store, snapshot)
        registry = open_registry(self.tracking)
        run_id = start_run(self.tracking, "digits", "a run")
        folder = self.folder / run_id
        mean_colour_model(folder / "model.onnx", list(snapshot.classes), snapshot.id)
        digest = hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
        version = registry.register(
            "digits",
            run_id=run_id,
            source=folder.as_uri(),
            tags={
                "snapshot_id": snapshot.id,
                "store": store.uri,
                "onnx_sha256": digest,
                "content_sha256": digest + run_id,
                "code_version": graftline.__version__,
                "backbone": "net",
                "strategy": strategy,
            },
            store=store,
        )
        if promote:
            before = registry.champion("digits")
            registry.promote(
                version,
                compared_with=before.version if before else None,
                verdict=run_id,
                store=store,
            )
        return version.version

    def add(self, count: int, *, brightness: float = 1.0, label: str = "3") -> None:
        """Copies of digits with other pixels, so that they are new images."""
        paths = sorted(self.source.rglob("*.png"))
        for i in range(count):
            pixels = np.asarray(Image.open(paths[i * 7 % len(paths)])).astype(float) * brightness
            pixels[0, 0] = 1 + i % 50
            new = Image.fromarray(np.clip(pixels + i // len(paths), 0, 255).astype(np.uint8))
            new.save(self.source / label / f"new-{brightness}-{i:04}.png")


@pytest.fixture
def setting(make_digits_folder: Callable[..., Path], tmp_path: Path, mlflow_sqlite: str) -> Setting:
    source = make_digits_folder(per_class=20, classes=10)
    return Setting(source, str(tmp_path / "store"), mlflow_sqlite, tmp_path / "files")


def test_without_a_champion_training_starts(setting: Setting) -> None:
    result = setting.look()
    assert result.start
    assert result.reasons == ["digits has no champion yet."]
    assert (setting.folder / "page.html").read_text().startswith("<!doctype html>")


def test_the_first_model_that_was_not_good_enough_is_not_trained_again(setting: Setting) -> None:
    setting.train(promote=False)
    result = setting.look()
    assert not result.start
    assert "Version 1 was trained on exactly these images and was not promoted" in result.reasons[0]
    assert setting.look(backbone="another").start


def test_no_change_starts_nothing_and_reads_no_image(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting.train(promote=True)
    from graftline.data.sources.folders import FolderSource

    monkeypatch.setattr(FolderSource, "read", lambda *a: pytest.fail("an image was read"))
    monkeypatch.setattr(
        "graftline.steps.watch.step.OnnxClassifier",
        lambda *a: pytest.fail("the network was loaded"),
    )
    result = setting.look()
    assert not result.start
    assert result.reasons == ["Nothing changed since the champion was trained."]
    assert result.changes == {
        "new": 0,
        "changed": 0,
        "relabelled": 0,
        "removed": 0,
        "unchanged": 200,
    }
    assert result.champion is not None
    assert result.champion["version"] == "1"
    assert 0 <= result.champion["age_days"] < 1


def test_enough_new_images_start_training_without_a_look_at_them(setting: Setting) -> None:
    setting.train(promote=True)
    setting.add(12)
    result = setting.look()
    assert result.start
    assert result.reasons == [
        "12 new images are 6.0% of the champion's 200; training starts from 5.0%."
    ]
    assert result.drift is None


@pytest.mark.parametrize("damage", ["older", "cut", "gone"])
def test_a_champions_snapshot_that_cannot_be_read_starts_training(
    setting: Setting, damage: str
) -> None:
    """Else no look would ever end well again after an upgrade, and nobody would train."""
    setting.train(promote=True)
    (head,) = (Path(setting.store) / "snapshots").rglob("snapshot.json")
    if damage == "older":
        head.write_text(json.dumps({**json.loads(head.read_text()), "schema_version": 0}))
    elif damage == "cut":
        head.write_bytes(head.read_bytes()[:20])
    else:
        head.unlink()
    result = setting.look()
    assert result.start
    assert result.reasons[0].startswith("The champion's snapshot ")
    assert "nothing to compare with" in result.reasons[0]


def test_a_look_at_a_bucket_lists_it_and_fetches_no_image(
    setting: Setting, s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The objects are archived after the training: the server refuses to hand out a single one."""
    import boto3
    from botocore.exceptions import ClientError

    client, bucket = boto3.client("s3"), s3_bucket.removeprefix("s3://")
    keys = []
    for path in sorted(setting.source.rglob("*.png")):
        keys.append(f"images/{path.parent.name}/{path.name}")
        client.upload_file(str(path), bucket, keys[-1])
    in_bucket = replace(setting, source=f"{s3_bucket}/images")
    in_bucket.train(promote=True)
    for key in keys:
        copied = {"Bucket": bucket, "Key": key}
        client.copy_object(**copied, CopySource=copied, StorageClass="GLACIER")
    with pytest.raises(ClientError, match="InvalidObjectState"):
        client.get_object(Bucket=bucket, Key=keys[0])
    result = in_bucket.look()
    assert not result.start
    assert result.reasons == ["Nothing changed since the champion was trained."]
    assert result.changes["unchanged"] == len(keys)
    client.put_object(Bucket=bucket, Key="images/3/new.png", Body=b"not even an image")
    client.delete_object(Bucket=bucket, Key=keys[0])
    again = in_bucket.look(when={"new_images": 1})
    assert again.start and (again.changes["new"], again.changes["removed"]) == (1, 1)


def test_few_new_images_that_look_the_same_do_not(setting: Setting) -> None:
    setting.train(promote=True)
    setting.add(25)
    result = setting.look(when={"new_fraction": 0.5, "drift": 0.01})
    assert not result.start
    assert any("look like the champion's" in reason for reason in result.reasons)
    assert result.drift is not None
    assert result.drift["new"] == 25
    assert result.drift["reference"] == 150  # the training split


def test_new_images_of_another_kind_do(setting: Setting) -> None:
    setting.train(promote=True)
    setting.add(25, brightness=0.2)
    result = setting.look(when={"new_fraction": 0.5, "drift": 0.01})
    assert result.start
    assert any("differ from the champion's" in reason for reason in result.reasons)
    page = (setting.folder / "page.html").read_text()
    assert "Training starts" in page
    assert "new-0.2-0000.png" in page


def test_a_trained_network_is_compared_on_images_that_it_has_not_learned(setting: Setting) -> None:
    setting.train(promote=True, strategy="fine_tune")
    setting.add(25)
    result = setting.look(when={"drift": 0.01})
    assert result.drift is not None
    assert result.drift["reference"] == 50  # the validation split


def test_a_few_images_are_too_few_for_a_test(setting: Setting) -> None:
    setting.train(promote=True)
    setting.add(5)
    result = setting.look(when={"drift": 0.05})
    assert not result.start
    assert "5 new images are too few; it takes 20" in result.reasons[0]


def test_a_moved_image_is_told_apart_from_a_removed_one(setting: Setting) -> None:
    setting.train(promote=True)
    sorted((setting.source / "4").iterdir())[0].unlink()
    result = setting.look()
    assert not result.start
    assert result.changes["removed"] == 1
    assert result.reasons != ["Nothing changed since the champion was trained."]


def test_a_table_with_a_changed_label_starts_training(setting: Setting, tmp_path: Path) -> None:
    images = sorted(setting.source.rglob("*.png"))
    table = setting.source / "labels.csv"
    lines = [f"{path.relative_to(setting.source)},{path.parent.name}" for path in images]
    table.write_text("\n".join(["image,label", *lines]))
    setting.train(promote=True)
    assert not setting.look().start
    lines[0] = lines[0].rpartition(",")[0] + ",7"
    table.write_text("\n".join(["image,label", *lines]))
    result = setting.look()
    assert result.start
    assert result.reasons == ["1 image carries another label; training starts from 1."]


def test_images_that_did_not_win_are_not_trained_on_again(setting: Setting) -> None:
    setting.train(promote=True)
    setting.add(12)
    assert setting.look().start
    setting.train(promote=False)
    result = setting.look()
    assert not result.start
    assert "Version 2 was trained on exactly these images" in result.reasons[0]
    assert setting.look(when={"always": True}).start
    setting.add(1, brightness=0.9)
    assert setting.look().start


def test_the_result_is_json_and_tracked(setting: Setting) -> None:
    import dataclasses

    setting.train(promote=True)
    setting.add(25, brightness=0.2)
    result = setting.look(when={"drift": 0.01})
    json.dumps(dataclasses.asdict(result))
    assert result.metrics()["start"] == 1.0
    assert result.metrics()["drift_p"] <= 0.01
    assert result.files() == {"watch.html": setting.folder / "page.html"}
