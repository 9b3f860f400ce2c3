"""The champion's answers beside ours: columns in our order, images of its training left out."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from graftline.errors import StoreError
from graftline.steps.evaluate import champion


def ours(ids: list[str], groups: list[str | None]) -> Any:
    return SimpleNamespace(
        image_ids=lambda: ids, column=lambda name: np.array(groups, dtype=object)
    )


def test_an_image_or_its_group_in_the_champions_training_is_left_out() -> None:
    snapshot = ours(["a", "b", "c", "d"], [None, "p1", "p2", None])
    rows = np.array([0, 1, 2, 3])
    seen = ({"d", "z"}, {"p1", "p9"})
    assert champion._overlap(snapshot, rows, seen).tolist() == [False, True, False, True]
    # Images without a group have none in common.
    assert champion._overlap(snapshot, rows, (set(), set())).tolist() == [False] * 4


def test_columns_come_in_our_order_and_unknown_classes_get_nothing() -> None:
    raw = np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]])
    aligned = champion._aligned(raw, ("cat", "old", "ant"), ("ant", "bee", "cat"))
    np.testing.assert_allclose(aligned, [[0.2, 0, 0.5, 0.3], [0.7, 0, 0.1, 0.2]])
    # An answer that only the champion knows is wrong for all of ours.
    assert aligned[0].argmax() == 2
    swapped = champion._aligned(raw[:, [1, 0, 2]], ("cat", "old", "ant"), ("ant", "bee", "cat"))
    assert swapped[0].argmax() == 3


def test_train_and_val_of_the_champions_snapshot_count_as_seen_and_test_does_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rows = {"train": [0, 1], "val": [2], "test": [3]}
    theirs = SimpleNamespace(
        rows=lambda split: np.array(rows[split]),
        image_ids=lambda: ["a", "b", "c", "d"],
        column=lambda name: np.array(["g0", None, "g2", "g3"], dtype=object),
    )
    asked: list[str] = []

    def fetch(store: Any, snapshot_id: str, folder: Path) -> Any:
        asked.append(store.uri)
        if store.uri == "file:///here":
            raise StoreError("it is not here")
        return theirs

    monkeypatch.setattr(champion, "fetch_snapshot", fetch)
    monkeypatch.setattr(champion, "open_store", lambda uri: SimpleNamespace(uri=uri))
    version = SimpleNamespace(snapshot_id="s1", tags={"graftline.store": "file:///there"})
    here: Any = SimpleNamespace(uri="file:///here")
    (ids, groups), notes = champion._trained_on(version, here, tmp_path)
    assert (ids, groups, notes) == ({"a", "b", "c"}, {"g0", "g2"}, [])
    assert asked == ["file:///here", "file:///there"]  # its own store where ours has it not


def test_a_snapshot_that_is_not_to_be_had_is_told(tmp_path: Path) -> None:
    version = SimpleNamespace(snapshot_id="", tags={})
    (ids, groups), notes = champion._trained_on(version, SimpleNamespace(uri="x"), tmp_path)
    assert not ids and not groups
    assert "can only favour the champion" in notes[0]
