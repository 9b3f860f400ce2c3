"""Writes scikit-learn's 1,797 handwritten digits as PNG files into class folders.

python examples/write_digits.py FOLDER
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits


def write_digits(folder: Path) -> int:
    """Write the images once; the folder appears whole or not at all. Returns how many."""
    bunch = load_digits()
    if folder.exists():
        return len(bunch.images)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        whole = Path(temporary) / "digits"
        for index, (image, label) in enumerate(zip(bunch.images, bunch.target, strict=True)):
            target = whole / str(label) / f"{index:04}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.round(image * (255 / 16)).astype(np.uint8)).save(target)
        whole.rename(folder)
    return len(bunch.images)


if __name__ == "__main__":
    count = write_digits(Path(sys.argv[1]))
    print(f"{count:,} digits in {sys.argv[1]}")
