"""What is known of one image of a source."""

import dataclasses
from collections.abc import Mapping

from graftline.data.shards import ByteRange
from graftline.data.sources.base import NO_ATTRIBUTES
from graftline.images.stored_values import Values
from graftline.steps.ingest.near_duplicates.duplicates import PictureHash


@dataclasses.dataclass(frozen=True, slots=True)
class Seen:
    """One name in the source, as it was looked at.

    Attributes:
        path: The entry's path.
        version: The entry's version at that time.
        image_id: What it held, None where it could not be used.
        reason: Why it could not be used.
        detail: More on that.
        label: Told by an archive's member (a listing tells the others'); so are the next three.
        split: See above.
        group: See above.
        attributes: See above.
    """

    path: str
    version: str
    image_id: str | None
    reason: str | None = None
    detail: str | None = None
    label: str | None = None
    split: str | None = None
    group: str | None = None
    attributes: Mapping[str, str | None] = dataclasses.field(default_factory=lambda: NO_ATTRIBUTES)


@dataclasses.dataclass(frozen=True, slots=True)
class Known:
    """One image in the store.

    ``values`` are those of more than 8 bits, and of 8-bit images that show next to nothing.
    """

    image_id: str
    width: int
    height: int
    format: str
    bytes: int
    picture_hash: PictureHash
    byte_range: ByteRange
    values: Values | None = None
