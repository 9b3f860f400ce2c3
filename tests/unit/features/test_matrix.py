"""The feature artifact: a matrix in manifest order, whole or refused."""

import json

import numpy as np
import pytest

from graftline.errors import DataError, NoSpace, SchemaVersionError
from graftline.features.matrix import Features, create_matrix, read_features, write_features


def features(matrix: np.ndarray) -> Features:
    return Features(
        matrix=matrix,
        fingerprint="f" * 32,
        snapshot_id="s",
        backbone="timm/resnet18",
        engine="torch",
        precision="fp32",
        extracted=2,
        reused=3,
        agreement={"cosine": 1.0},
    )


@pytest.fixture
def folder(tmp_path):
    matrix = np.arange(20, dtype=np.float32).reshape(5, 4)
    write_features(tmp_path / "features", features(matrix), np.ones(5, bool))
    return tmp_path / "features"


def test_what_is_written_is_read_and_the_matrix_is_mapped_not_loaded(folder):
    found = read_features(folder)
    assert np.array_equal(found.matrix, np.arange(20, dtype=np.float32).reshape(5, 4))
    assert isinstance(found.matrix, np.memmap)
    assert (found.dim, found.extracted, found.reused) == (4, 2, 3)
    assert found.agreement == {"cosine": 1.0}


def test_a_missing_row_is_an_error_that_names_the_first(tmp_path):
    matrix = create_matrix(tmp_path, 5, 4)
    filled = np.array([True, True, False, True, False])
    with pytest.raises(DataError, match="2 of 5 images have no features, the first in row 2"):
        write_features(tmp_path, features(matrix), filled)
    with pytest.raises(DataError, match="incomplete"):
        read_features(tmp_path)


def test_an_artifact_whose_run_was_killed_is_incomplete_even_over_an_older_one(folder):
    create_matrix(folder, 5, 4)
    with pytest.raises(DataError, match="incomplete") as caught:
        read_features(folder)
    assert "Run `extract_features` again" in caught.value.fix


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_another_schema_version_is_refused(folder, version):
    path = folder / "features.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": version}))
    with pytest.raises(SchemaVersionError, match=f"schema version {version}"):
        read_features(folder)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-8]),
        lambda path: path.write_bytes(b"no numpy file"),
        lambda path: np.save(path, np.zeros((5, 3), np.float32)),
        lambda path: np.save(path, np.zeros((5, 4), np.float64)),
        lambda path: path.unlink(),
    ],
    ids=["cut short", "not numpy", "another width", "another type", "gone"],
)
def test_a_damaged_matrix_is_refused(folder, damage):
    damage(folder / "features.npy")
    with pytest.raises(DataError, match="incomplete or damaged"):
        read_features(folder)


def test_no_room_is_found_out_before_anything_is_computed(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(NoSpace):
        create_matrix(tmp_path / "features", 5, 4)
