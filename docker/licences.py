"""Lists the licences of what Graftline needs to run: writes docs/licences.md.

python docker/licences.py
"""

import re
import tomllib
from importlib.metadata import PackageMetadata, PackageNotFoundError, metadata, requires
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
HEAD = """# Licences

Graftline is under the Apache License 2.0. This is what it needs to run, with everything that these
packages bring along on Linux, as `docker/licences.py` found it in their own metadata. The parts of
CUDA come with PyTorch's GPU builds only, under NVIDIA's terms.

| package | version | licence |
| --- | --- | --- |
"""
_CUDA = re.compile(r"nvidia-|cuda-|triton$")


def needed() -> dict[str, PackageMetadata]:
    """The packages that the wheel asks for, and what they ask for in turn, by name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    waiting = [Requirement(text) for text in project["dependencies"]]
    found: dict[str, PackageMetadata] = {}
    while waiting:
        wanted = waiting.pop()
        name = wanted.name.lower().replace("_", "-")
        applies = wanted.marker is None or any(
            wanted.marker.evaluate({"extra": extra}) for extra in ("", *wanted.extras)
        )
        if name in found or not applies:
            continue
        try:
            found[name] = metadata(name)
        except PackageNotFoundError:
            continue  # of another system
        for text in requires(name) or ():
            further = Requirement(text)
            if further.marker is None or any(
                further.marker.evaluate({"extra": extra}) for extra in ("", *wanted.extras)
            ):
                further.marker = None
                waiting.append(further)
    return dict(sorted(found.items()))


def licence_of(package: PackageMetadata) -> str:
    """The licence that a package states: as SPDX, by its classifiers, or in words."""
    if expression := package.get("License-Expression"):
        return str(expression)
    kinds = [
        line.rpartition(" :: ")[2]
        for line in package.get_all("Classifier") or ()
        if line.startswith("License ::")
    ]
    words = (package.get("License") or "").strip().splitlines()
    return ", ".join(kinds) or (words[0][:80] if words else "not stated; see its files")


def main() -> None:
    """Write the page."""
    rows = [
        f"| {name} | {package['Version']} | {licence_of(package)} |"
        for name, package in needed().items()
        if not _CUDA.match(name)
    ]
    page = ROOT / "docs" / "licences.md"
    page.write_text(HEAD + "\n".join(rows) + "\n", encoding="utf-8")
    print(f"{page.relative_to(ROOT)}: {len(rows)} packages")


if __name__ == "__main__":
    main()
