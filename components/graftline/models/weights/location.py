"""What ``weights:`` says: where a checkpoint is, and the SHA-256 that it must have."""

import re
from dataclasses import dataclass
from pathlib import Path

from graftline.addresses import split_address
from graftline.errors import WeightsError
from graftline.storage import uri

DIGEST = re.compile(r"sha256=([0-9a-fA-F]{8,64})")
NAMED_BY_DIGEST = re.compile(r"(?:^|[/.\-])([0-9a-f]{64})\.")


@dataclass(frozen=True)
class WeightsLocation:
    """Where a checkpoint is.

    Attributes:
        place: A path, ``file://`` or ``s3://`` URI.
        sha256: The digest that it must have, or how it begins; None for any.
    """

    location: str
    sha256: str | None

    @property
    def is_in_store(self) -> bool:
        """Whether it is an object of an S3 store."""
        return uri.scheme(self.location) == "s3"

    @property
    def path(self) -> Path:
        """The path that a plain path or a ``file://`` URI means."""
        return uri.local_path(self.location) or Path(self.location)

    @property
    def parent(self) -> str:
        """URI of the folder or prefix that holds it."""
        return uri.parent_and_name(self.location)[0]

    @property
    def name(self) -> str:
        """Its name in the parent."""
        return uri.parent_and_name(self.location)[1]


def parse(text: str) -> WeightsLocation:
    """Take apart what ``weights:`` says.

    Args:
        text: A place; the SHA-256 may follow as ``#sha256=...``, 8 to 64 digits of it. A file name
            that is 64 hexadecimal digits asks for that digest too.

    Raises:
        WeightsError: What follows is no digest, or no object is named.
    """
    location, mark, fragment = text.partition("#")
    pinned = DIGEST.fullmatch(fragment)
    if mark and pinned is None:
        raise WeightsError(
            f"'#{fragment}' after the weights '{location}' is not a digest.",
            why="What follows a # is the SHA-256 that the file must have.",
            fix="Write #sha256= and 8 to 64 hexadecimal digits. A path must not have a # in it.",
        )
    found = WeightsLocation(location, pinned.group(1).lower() if pinned else None)
    if found.is_in_store and not split_address(location).path.strip("/"):
        raise WeightsError(
            f"The weights '{location}' name no object.",
            fix="Write s3://bucket/path/to/weights.safetensors.",
        )
    named = NAMED_BY_DIGEST.search(found.name)
    if found.sha256 is None and named is not None:
        return WeightsLocation(location, named.group(1))
    return found
