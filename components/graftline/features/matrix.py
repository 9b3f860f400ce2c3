"""The feature artifact: a matrix with one row for each image of a snapshot, in manifest order.

A folder with ``features.npy`` (float32, N x D) and ``features.json``, which is written last.
Stored features, from which artifacts are assembled, are in :mod:`graftline.features.store`.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from graftline.errors import DataError
from graftline.files import os_errors
from graftline.schema import parse_json, write_json

SCHEMA_VERSION = 1
MATRIX_FILE = "features.npy"
DESCRIPTION_FILE = "features.json"
AGAIN = "Run `extract_features` again: stored features are reused."


@dataclass(frozen=True)
class Features:
    """The features of a snapshot.

    Attributes:
        matrix: (N, D) float32, mapped from the file; row i is row i of the manifest.
        fingerprint: Of the backbone, its weights, preprocessing and precision.
        snapshot_id: Whose images.
        backbone: Its full name.
        engine: What computed the rows that were new; ``stored`` where none was.
        precision: ``fp32`` or ``bf16``.
        extracted: Rows computed for this artifact.
        reused: Rows that were stored.
        agreement: The engine against PyTorch in fp32 on a sample; empty where nothing was new.
    """

    matrix: npt.NDArray[np.float32]
    fingerprint: str
    snapshot_id: str
    backbone: str
    engine: str
    precision: str
    extracted: int
    reused: int
    agreement: Mapping[str, float]

    @property
    def dim(self) -> int:
        """Width of a vector."""
        return int(self.matrix.shape[1])


def create_matrix(folder: Path, rows: int, dim: int) -> npt.NDArray[np.float32]:
    """A new matrix file to be filled, (rows, dim); the artifact is not complete with it."""
    with os_errors(str(folder), "write"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / DESCRIPTION_FILE).unlink(missing_ok=True)
        matrix: npt.NDArray[np.float32] = np.lib.format.open_memmap(
            folder / MATRIX_FILE, mode="w+", dtype=np.float32, shape=(rows, dim)
        )
        _reserve(folder / MATRIX_FILE)
    return matrix


def _reserve(path: Path) -> None:
    """Find out now whether there is room: a mapped file on a full disk kills the process."""
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as stream:
            os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)


def write_features(folder: Path, features: Features, filled: npt.NDArray[np.bool_]) -> None:
    """Complete an artifact whose matrix was made by :func:`create_matrix`, or write one whole.

    Raises:
        DataError: A row was not filled.
    """
    missing = np.flatnonzero(~filled)
    if len(missing):
        raise DataError(
            f"{len(missing):,} of {len(filled):,} images have no features, "
            f"the first in row {missing[0]}.",
            fix=AGAIN,
        )
    if not isinstance(features.matrix, np.memmap):
        create_matrix(folder, *features.matrix.shape)[:] = features.matrix
    else:
        features.matrix.flush()
    head = {name: value for name, value in features.__dict__.items() if name != "matrix"}
    description = {
        "schema_version": SCHEMA_VERSION,
        "rows": len(features.matrix),
        "dim": features.dim,
        **head,
        "agreement": dict(features.agreement),
    }
    with os_errors(str(folder), "write"):
        write_json(folder / DESCRIPTION_FILE, description, allow_nan=True)


def read_features(folder: Path | str) -> Features:
    """Read an artifact; the matrix is mapped, not loaded.

    Raises:
        SchemaVersionError: It was written by an older or newer Graftline.
        DataError: It is incomplete or damaged.
    """
    folder = Path(folder)
    try:
        text = (folder / DESCRIPTION_FILE).read_text(encoding="utf-8")
        head = parse_json(text, SCHEMA_VERSION, f"The features in {folder}")
        matrix = np.load(folder / MATRIX_FILE, mmap_mode="r")
        if matrix.shape != (head["rows"], head["dim"]) or matrix.dtype != np.float32:
            raise ValueError(f"the matrix is {matrix.shape}, not {(head['rows'], head['dim'])}")
        return Features(
            matrix=matrix,
            fingerprint=head["fingerprint"],
            snapshot_id=head["snapshot_id"],
            backbone=head["backbone"],
            engine=head["engine"],
            precision=head["precision"],
            extracted=int(head["extracted"]),
            reused=int(head["reused"]),
            agreement=head["agreement"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"The features in {folder} are incomplete or damaged.", why=str(error), fix=AGAIN
        ) from error
