"""What PyTorch answered at export, kept beside the file so that any machine can prove it again.

``reference.npz`` holds the image ids (sha256 of the original files) of the test split, PyTorch's
probabilities for each, and the digest of the model file they belong to. Needs numpy only.
"""

import dataclasses
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from graftline.errors import IntegrityError, SchemaVersionError, StoreNotFound

REFERENCE_FILE = "reference.npz"
SCHEMA_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Reference:
    """PyTorch's answers.

    Attributes:
        model_sha256: Digest of the model file.
        image_ids: sha256 of each image file's bytes.
        probabilities: float32 (N, classes).
    """

    model_sha256: str
    image_ids: tuple[str, ...]
    probabilities: np.ndarray

    def rows(self) -> dict[str, int]:
        """The row of each image id."""
        return {image_id: row for row, image_id in enumerate(self.image_ids)}


def write_reference(
    folder: Path, model_sha256: str, image_ids: Sequence[str], probabilities: np.ndarray
) -> Path:
    """Write the answers beside the model; returns the path."""
    path = folder / REFERENCE_FILE
    np.savez_compressed(
        path,
        schema_version=np.array(SCHEMA_VERSION),
        model_sha256=np.array(model_sha256),
        image_ids=np.array(image_ids, dtype="U64"),
        probabilities=probabilities.astype(np.float32),
    )
    return path


def read_reference(path: Path) -> Reference:
    """Read what :func:`write_reference` wrote.

    Raises:
        StoreNotFound: There is no such file.
        SchemaVersionError: It was written under another schema version.
        IntegrityError: It is damaged.
    """
    if not path.is_file():
        raise StoreNotFound(
            f"There is no {path}.",
            why="It holds PyTorch's answers, which the file is compared with.",
            fix="Copy it from where the model came from: it is written beside model.onnx and "
            "registered with it.",
        )
    try:
        with np.load(path, allow_pickle=False) as content:
            version = int(content["schema_version"])
            if version != SCHEMA_VERSION:
                raise SchemaVersionError(
                    f"{path} was written under schema version {version}.",
                    why=f"This version of Graftline reads schema version {SCHEMA_VERSION}.",
                    fix="Export the model again.",
                )
            return Reference(
                str(content["model_sha256"]),
                tuple(str(image_id) for image_id in content["image_ids"]),
                content["probabilities"],
            )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise IntegrityError(
            f"{path} is damaged.",
            why=str(error)[:200],
            fix="Copy it again from where the model came from.",
        ) from error
