"""Where the classes lie among the features: what tells an image of no known class.

``evaluate`` writes them beside the classifier; the exported graph computes the distance to them.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from graftline.errors import IntegrityError

CLASS_MEANS_FILE = "references.safetensors"


@dataclass(frozen=True)
class ClassMeans:
    """Class means of the training features.

    Attributes:
        mean: Mean over the classes, shape (feature_dim,), float32.
        means: Of each class, centred and of length 1, shape (classes, feature_dim), float32.
    """

    mean: NDArray[np.float32]
    means: NDArray[np.float32]


def read_class_means(classifier_folder: Path) -> ClassMeans | None:
    """The class means beside a classifier; None where there are none.

    Raises:
        IntegrityError: They are damaged.
    """
    path = classifier_folder / CLASS_MEANS_FILE
    if not path.exists():
        return None
    try:
        tensors = load_file(str(path))
        return ClassMeans(tensors["mean"], tensors["means"])
    except (SafetensorError, KeyError) as error:
        raise IntegrityError(
            f"{path} does not hold the class means.",
            why=str(error)[:200],
            fix="Run the step evaluate again.",
        ) from error
