"""What is known of many images, packed: as objects, each would take more than twice its bytes."""

import struct
from collections.abc import Iterator, MutableMapping

from typing_extensions import override

from graftline.data.shards import ByteRange
from graftline.images.stored_values import Values
from graftline.steps.ingest.known import Known
from graftline.steps.ingest.near_duplicates.duplicates import PictureHash

# Width, height, bytes, offset, length, difference hash, numbers of the format and of the shard;
# the thumbnail follows.
_FIELDS = struct.Struct("<iiqqqQHI")


class PackedImages(MutableMapping[str, Known]):
    """Known images by image id; each one is unpacked where it is asked for."""

    def __init__(self) -> None:
        self._packed: dict[str, bytes] = {}
        self._values: dict[str, Values] = {}
        self._names: list[str] = []
        self._numbers: dict[str, int] = {}

    @override
    def __getitem__(self, image_id: str) -> Known:
        packed = self._packed[image_id]
        width, height, size, offset, length, dhash, kind, shard = _FIELDS.unpack_from(packed)
        return Known(
            image_id,
            width,
            height,
            self._names[kind],
            size,
            PictureHash(dhash, packed[_FIELDS.size :]),
            ByteRange(self._names[shard], offset, length),
            self._values.get(image_id),
        )

    @override
    def __setitem__(self, image_id: str, known: Known) -> None:
        """Pack an image; a number that no image has raises ``ValueError``."""
        if known.image_id != image_id:
            raise ValueError(f"the image {known.image_id} is not {image_id}")
        byte_range = known.byte_range
        numbers = (known.width, known.height, known.bytes, byte_range.offset, byte_range.length)
        names = self._number(known.format), self._number(byte_range.shard)
        try:
            packed = _FIELDS.pack(*numbers, known.picture_hash.dhash, *names)
        except struct.error as error:
            raise ValueError(f"the image {image_id}: {error}") from error
        self._packed[image_id] = packed + known.picture_hash.thumbnail
        self._values.pop(image_id, None)
        if known.values is not None:
            self._values[image_id] = known.values

    @override
    def __delitem__(self, image_id: str) -> None:
        del self._packed[image_id]
        self._values.pop(image_id, None)

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(self._packed)

    @override
    def __len__(self) -> int:
        return len(self._packed)

    @override
    def __contains__(self, image_id: object) -> bool:
        return image_id in self._packed

    def _number(self, name: str) -> int:
        if name not in self._numbers:
            self._numbers[name] = len(self._names)
            self._names.append(name)
        return self._numbers[name]
