"""Names of networks: the libraries that have them, and near ones for an error."""

import difflib
from collections.abc import Iterable

LIBRARIES = ("timm", "torchvision")
BLOCKS = "+blocks"  # after a name: features of all blocks, see graftline.models.block_outputs


def near(name: str, full_names: Iterable[str]) -> str:
    """A sentence with the names that come closest, to be put in an error."""
    bare: dict[str, str] = {}
    for full in full_names:
        bare.setdefault(full.partition("/")[2], full)
    wanted = name.rpartition("/")[2].partition(".")[0].lower()
    close = difflib.get_close_matches(wanted, list(bare), n=5, cutoff=0.6)
    close += [
        known for known in bare if len(wanted) > 2 and wanted in known and known not in close
    ][:5]
    if not close:
        return "See `graftline backbones` for the names."
    return f"Did you mean {', '.join(close[:6])}? See `graftline backbones` for all names."


HUB = "hf:"  # before the name of a repository on the Hugging Face Hub
