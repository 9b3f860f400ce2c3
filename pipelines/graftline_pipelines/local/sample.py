"""An image of a run's source, to be suggested for a first prediction."""

import os
from collections.abc import Iterator
from pathlib import Path

from graftline.errors import GraftlineError
from graftline.files import sha256_of
from graftline.onnx_model.reference import REFERENCE_FILE, read_reference
from graftline.storage.uri import local_path

MOST = 2000  # files that are looked at: most often one of the first dozen is it


def test_image(source: str, onnx: str | None) -> Path | None:
    """The first image of a local folder that the run tested: it was read, and not trained on.

    Args:
        source: ``data.source``.
        onnx: The exported file, beside which the tested images' digests are kept.
    """
    folder = local_path(source)
    if onnx is None or folder is None or not folder.is_dir():
        return None
    try:
        tested = read_reference(Path(onnx).with_name(REFERENCE_FILE)).rows()
        for path, _ in zip(_files(folder), range(MOST), strict=False):
            if sha256_of(path) in tested:
                return path
    except (GraftlineError, OSError):  # the run is done; this was only a suggestion
        return None
    return None


def _files(folder: Path) -> Iterator[Path]:
    """Files below a folder in a fixed order; nothing that is hidden."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                yield Path(parent, name)
