"""What every backbone is, in a table: the command line answers from it without PyTorch.

``backbones.csv`` beside this module is made by ``python -m graftline.models.lookup`` with the
pinned versions of timm and torchvision, which its first line names. With other versions
:mod:`graftline.models.lookup` asks the libraries.
"""

import csv
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

from graftline.images.preprocessing import Preprocessing
from graftline.models.known import TABLE as TABLE
from graftline.models.known import made_with as made_with
from graftline.models.known import versions as versions

COLUMNS = (
    "name",
    "parameters",
    "feature_dim",
    "input_size",
    "resize_size",
    "interpolation",
    "crop_mode",
    "mean",
    "std",
    "source",
    "tags",
)


@dataclass(frozen=True)
class Entry:
    """One backbone.

    Attributes:
        name: With its library.
        parameters: Without a head.
        feature_dim: Width of its pooled features.
        preprocessing: At the size it was pretrained with.
        source: Of the weights that its library publishes, see
            :mod:`graftline.models.weights.published`; empty where there are none.
        tags: Of all the weights that its library has, the default first.
    """

    name: str
    parameters: int
    feature_dim: int
    preprocessing: Preprocessing
    source: str
    tags: tuple[str, ...]

    @property
    def pretrained(self) -> bool:
        """Whether its library publishes weights."""
        return bool(self.source)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "preprocessing": self.preprocessing.to_dict()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Entry":
        """Read what :meth:`to_dict` gave."""
        preprocessing = Preprocessing.from_dict(values["preprocessing"])
        tags = tuple(values["tags"])
        return cls(**{**values, "preprocessing": preprocessing, "tags": tags})


@lru_cache
def table() -> dict[str, Entry]:
    """The table's entries by name; empty where there is no table."""
    if not TABLE.exists():
        return {}
    with TABLE.open(encoding="utf-8", newline="") as stream:
        stream.readline()
        return {row["name"]: _entry(row) for row in csv.DictReader(stream)}


def _entry(row: dict[str, str]) -> Entry:
    return Entry(
        name=row["name"],
        parameters=int(row["parameters"]),
        feature_dim=int(row["feature_dim"]),
        preprocessing=Preprocessing.from_dict(
            {**row, "mean": row["mean"].split(), "std": row["std"].split()}
        ),
        source=row["source"],
        tags=tuple(row["tags"].split()),
    )
