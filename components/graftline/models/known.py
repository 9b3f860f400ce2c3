"""Whether a backbone's name is known, by the table's names alone: nothing else is imported."""

from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from graftline.errors import UnknownBackbone
from graftline.models.names import BLOCKS, LIBRARIES, near

TABLE = Path(__file__).with_name("backbones.csv")


def check_known(name: str) -> None:
    """Refuse a name that the table does not have, without asking the libraries, which take seconds.

    Nothing is refused where the table was made with other libraries.

    Raises:
        UnknownBackbone: With near names.
    """
    library, _, bare = name.removesuffix(BLOCKS).rpartition("/")
    if made_with() != versions() or (library and library not in LIBRARIES):
        return
    architecture = bare.partition(".")[0]
    libraries = (library,) if library else LIBRARIES
    if not any(f"{each}/{architecture}" in _names() for each in libraries):
        raise unknown(name, _names())


def unknown(name: str, known: "tuple[str, ...] | list[str]") -> UnknownBackbone:
    """The error for a name that no backbone has, with near ones."""
    return UnknownBackbone(
        f"No backbone is called '{name}'.",
        why="Neither timm nor torchvision has a network of this name with pooled features.",
        fix=near(name, known),
    )


def versions() -> list[str]:
    """The installed versions of the libraries, in the order of ``LIBRARIES``."""
    found = []
    for library in LIBRARIES:
        try:
            found.append(version(library).partition("+")[0])
        except PackageNotFoundError:
            found.append("none")
    return found


def made_with() -> list[str]:
    """The versions of the libraries that the table was made with."""
    with TABLE.open(encoding="utf-8") as stream:
        return stream.readline().removeprefix("#").split()[1::2]


@lru_cache
def _names() -> tuple[str, ...]:
    """The first column of the table; no name holds a comma."""
    lines = TABLE.read_text(encoding="utf-8").splitlines()[2:]
    return tuple(line.partition(",")[0] for line in lines)
