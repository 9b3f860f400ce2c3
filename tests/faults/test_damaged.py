"""The newest checkpoint, feature part, shard and manifest, cut or flipped at every sixteenth."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from graftline.data.snapshot import fetch_snapshot, read_images
from graftline.errors import GraftlineError
from graftline.features.parts import IdIndex
from graftline.features.store import FeatureStore
from graftline.steps.fine_tune.checkpoints.resume import POINTER, Checkpoint, Checkpoints
from graftline.steps.ingest.step import run
from graftline.storage import open_store
from graftline.storage.base import Store
from graftline.tracking.champion_log import ChampionLog, Entry

SIXTEENTHS = range(16)


def damages(data: bytes) -> Iterator[tuple[str, bytes]]:
    """The bytes cut, and with one bit flipped, at every sixteenth."""
    for part in SIXTEENTHS:
        place = len(data) * part // 16
        yield f"cut at {part}/16", data[:place]
        flipped = bytearray(data)
        flipped[place] ^= 1
        yield f"flipped at {part}/16", bytes(flipped)


def overwrite(store: Store, key: str, data: bytes) -> None:
    """Not by the store's own writing, which would note the new sha256."""
    (Path(store.uri.removeprefix("file://")) / key).write_bytes(data)


def numbers(count: int) -> tuple[np.ndarray, np.ndarray]:
    ids = np.zeros((count, 32), np.uint8)
    ids[:, 0] = np.arange(count)
    return ids, np.repeat(np.arange(count)[:, None], 4, 1).astype(np.float32)


def test_a_damaged_feature_part_is_set_aside_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, record_property: Any
) -> None:
    caplog.set_level(logging.INFO)
    ids, vectors = numbers(12)
    points = 0
    for when in range(32):
        place = open_store(str(tmp_path / str(when)))
        features = FeatureStore(place, "f" * 32)
        features.describe({"name": "timm/resnet18", "precision": "fp32"})
        features.write_part(ids[:6], vectors[:6], {})
        features.write_part(ids[6:], vectors[6:], {})
        key = next(info.key for info in features.store.list() if info.key.endswith("-6.parquet"))
        what, data = list(damages(features.store.read(key)))[when]
        overwrite(features.store, key, data)
        caplog.clear()
        matrix, filled = np.zeros((12, 4), np.float32), np.zeros(12, bool)
        features.load(IdIndex(ids), matrix, filled)
        assert filled.sum() == 6, what
        assert np.array_equal(matrix[filled], vectors[filled]), what
        assert list(features.store.list("damaged/")), what
        assert key.rpartition("/")[2] in caplog.text, what
        points += 1
    record_property("points", points)


def test_a_damaged_checkpoint_is_never_gone_on_from(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, record_property: Any
) -> None:
    import torch

    caplog.set_level(logging.INFO)
    points = 0
    for file in ("pointer", "tensors"):
        for when in range(32):
            place = open_store(str(tmp_path / f"{file}-{when}"))
            saving = Checkpoints(place, "key", "identity")
            for step in (1, 2):
                state = {"weight": torch.full((8,), float(step))}
                saving.save(Checkpoint({"steps_done": step, "rate": 0.1}, {"state": state}))
            folder = place.child("checkpoints/key")
            key = POINTER
            if file == "tensors":
                key = next(
                    info.key
                    for info in folder.list()
                    if info.key.endswith("safetensors") and _value(folder, info.key) == 2
                )
            what, data = list(damages(folder.read(key)))[when]
            overwrite(folder, key, data)
            caplog.clear()
            try:
                found = Checkpoints(place, "key", "identity").latest()
            except GraftlineError as error:
                assert error.fix or error.why, what
            else:
                assert found is not None and found.scalars == {"steps_done": 1, "rate": 0.1}, what
                assert torch.equal(found.tensors["state"]["weight"], torch.ones(8)), what
                assert "cannot be used" in caplog.text or "not in the store" in caplog.text, what
            points += 1
    record_property("points", points)


def _value(folder: Store, key: str) -> int:
    from safetensors.torch import load

    return int(load(folder.read(key))["weight"][0])


@pytest.fixture
def ingested(tmp_path: Path) -> Callable[[], Any]:
    for number in range(12):
        path = tmp_path / "images" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return lambda: run(
        source=str(tmp_path / "images"),
        store=str(tmp_path / "store"),
        snapshot_folder=tmp_path / "snapshot",
    )


@pytest.mark.parametrize("kind", ["shards/", "snapshots/", "sources/"])
def test_a_damaged_file_of_a_data_set_is_named_or_made_again(
    tmp_path: Path,
    ingested: Callable[[], Any],
    kind: str,
    record_property: Any,
) -> None:
    identity = ingested().snapshot_id
    store = open_store(str(tmp_path / "store"))
    fetched = fetch_snapshot(store, identity, tmp_path / "whole")
    expected = dict(read_images(fetched, fetched.rows()))
    points = 0
    for info in list(store.list(kind)):
        whole = store.read(info.key)
        for what, data in damages(whole):
            overwrite(store, info.key, data)
            points += 1
            try:
                snapshot = fetch_snapshot(store, identity, tmp_path / "seen")
                found = dict(read_images(snapshot, snapshot.rows()))
            except GraftlineError as error:
                assert error.fix, (info.key, what)
                assert "damaged" in str(error) or "ends at" in str(error) or info.key in str(error)
            else:
                assert found == expected, (info.key, what)
                assert snapshot.manifest.equals(fetched.manifest), (info.key, what)
                assert snapshot.classes == fetched.classes, (info.key, what)
                assert snapshot.source == fetched.source, (info.key, what)
            try:
                again = ingested()
            except GraftlineError as error:
                assert error.fix, (info.key, what)
            else:
                assert again.snapshot_id == identity, (info.key, what)
            store.write(info.key, whole)
    assert points >= 32
    record_property("points", points)


def test_a_damaged_entry_of_the_champion_log_is_no_other_champion(
    tmp_path: Path, record_property: Any
) -> None:
    log = ChampionLog(open_store(str(tmp_path)), "model")
    assert log.append(Entry(number=1, kind="promotion", version="11", replaced=None))
    assert log.append(Entry(number=2, kind="promotion", version="22", replaced="11"))
    store = open_store(str(tmp_path / "champions" / "model"))
    whole, points = store.read("00000002.json"), 0
    expected = log.last()
    for what, data in damages(whole):
        overwrite(store, "00000002.json", data)
        points += 1
        try:
            found = log.last()
        except GraftlineError as error:
            assert error.fix, what
        else:
            assert found == expected, what
    record_property("points", points)
