"""Reading parts of one fingerprint, ahead and in parallel; damaged ones are moved out of the way.

Parts may vanish while they are read, because another run folds them into a larger one: then the
list is read again, so that every row is seen at least once.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np

from graftline.errors import IntegrityError, StoreNotFound
from graftline.features.parts import Content, DamagedPart, Part, decode_part, part_of, read_ids
from graftline.progress import message
from graftline.storage.base import Store

READERS = 4
READ_TRIES = 5  # listings, when parts vanish under a reader because another run folds them


class PartReader:
    """Reads parts.

    Args:
        store: The part of the store below the fingerprint.
        fingerprint: For messages.
    """

    def __init__(self, store: Store, fingerprint: str) -> None:
        self.store = store
        self.fingerprint = fingerprint

    def parts(self) -> list[Part]:
        """All parts, by name."""
        return [part for info in self.store.list("parts/") if (part := part_of(info)) is not None]

    def each(
        self,
        parts: Sequence[Part],
        *,
        vectors: bool,
        dim: int | None = None,
        again: bool = True,
        move_damaged: bool = True,
    ) -> Iterator[Content]:
        """The content of parts, read ahead.

        Args:
            parts: Which.
            vectors: False reads the ids alone.
            dim: Width that the vectors must have, None for any.
            again: Look for parts that were folded meanwhile.
            move_damaged: Move damaged parts out of the way; False only leaves them out.
        """
        seen: set[str] = set()
        for _ in range(READ_TRIES):
            vanished = False
            todo = [part for part in parts if part.key not in seen]
            for part, content in self._read_ahead(todo, vectors, dim):
                seen.add(part.key)
                if isinstance(content, tuple):
                    yield content
                elif isinstance(content, DamagedPart) and move_damaged:
                    self.set_aside(part, str(content), dim)
                vanished |= content is None
            if not vanished or not again:
                return
            parts = self.parts()

    def _read_ahead(
        self, parts: Sequence[Part], vectors: bool, dim: int | None
    ) -> Iterator[tuple[Part, Content | DamagedPart | None]]:
        with ThreadPoolExecutor(READERS, "features") as pool:
            for first in range(0, len(parts), READERS):
                group = parts[first : first + READERS]
                read = pool.map(lambda part: self._read(part, vectors, dim), group)
                yield from zip(group, read, strict=True)

    def _read(self, part: Part, vectors: bool, dim: int | None) -> Content | DamagedPart | None:
        """A part's content, what is wrong with it, or None where it was folded meanwhile."""
        try:
            if not vectors:
                ids = read_ids(self.store, part)
                return ids, np.zeros((len(ids), 0), np.float32)
            content = self.content(part)
        except StoreNotFound:
            return None
        except DamagedPart as reason:
            return reason
        if dim is not None and width(content) != dim:
            return DamagedPart(f"its vectors are {width(content)} wide, not {dim}")
        return content

    def set_aside(self, part: Part, reason: str, dim: int | None = None) -> None:
        """Move a damaged part out of the way and say so.

        Another run may have moved it and computed it again, under the same name: what is whole by
        now stays.
        """
        try:
            if not self._is_unfit(part, dim):
                return
            data = self.store.read_range(part.key, 0, part.size)  # without the digest it had
        except StoreNotFound:
            return  # another run was faster
        message(
            "Stored features: part %s of %s is damaged (%s). It was moved to damaged/; "
            "its images are computed again.",
            part.key,
            self.fingerprint,
            reason,
        )
        self.store.write(f"damaged/{part.key.rpartition('/')[2]}", data)
        with suppress(StoreNotFound):
            if self._is_unfit(part, dim):
                self.store.delete(part.key)

    def _is_unfit(self, part: Part, dim: int | None) -> bool:
        try:
            found = width(self.content(part))
        except DamagedPart:
            return True
        return dim is not None and found != dim

    def content(self, part: Part) -> Content:
        """A whole part.

        Raises:
            DamagedPart: It is not what was written.
            StoreNotFound: It is gone.
        """
        try:
            data = self.store.read(part.key)
        except IntegrityError as error:
            raise DamagedPart("its bytes are not those that were written") from error
        return decode_part(data, part)


def width(content: Content) -> int:
    """Of the vectors."""
    return int(content[1].shape[1])
