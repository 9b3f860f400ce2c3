"""Fetching, checking and packing what is new: threads read and decode, one packs in order."""

import dataclasses
import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

from graftline.data.shards import ByteRange, ShardWriter
from graftline.data.sources.base import Entry, Source
from graftline.data.sources.label_text import clip
from graftline.errors import DataError, StoreNotFound
from graftline.images.decode import decode_image
from graftline.images.stored_values import OWN, Values
from graftline.progress import Progress
from graftline.steps.ingest.known import Known, Seen
from graftline.steps.ingest.near_duplicates.duplicates import PictureHash, picture_hash
from graftline.steps.ingest.source_index import Memory, save_partial
from graftline.steps.ingest.value_range import flat_values
from graftline.storage.base import Store

THREADS = 16  # waiting for S3 more than decoding
AHEAD_ITEMS = 128
AHEAD_BYTES = 256 * 2**20
MAX_IMAGE_BYTES = 64 * 2**20
GONE = "file not found"


@dataclasses.dataclass(frozen=True, slots=True)
class Fetched:
    """What became of one entry: an image with its bytes, or a reason why not."""

    entry: Entry
    data: bytes = b""
    image_id: str | None = None
    width: int = 0
    height: int = 0
    format: str = ""
    picture_hash: PictureHash = dataclasses.field(default=PictureHash(0, b""))
    values: Values | None = None
    reason: str | None = None
    detail: str | None = None


def fetch(
    source: Source,
    entries: list[Entry],
    store: Store,
    memory: Memory,
    *,
    columns: str,
    max_pixels: int,
) -> set[str]:
    """Fetch entries into the store's shards and into the memory.

    After each shard the memory of it is kept in the store, so that a killed run loses one shard
    of work at most.

    Returns:
        The paths of the images that were fetched.
    """
    if not entries:
        return set()
    seen: list[Seen] = []
    waiting: dict[str, Known] = {}
    fetched: set[str] = set()

    def remember() -> None:
        images = [
            dataclasses.replace(k, byte_range=shards.byte_ranges.pop(i)) for i, k in waiting.items()
        ]
        memory.seen.update((one.path, one) for one in seen)
        memory.images.update((one.image_id, one) for one in images)
        if images:
            shard = images[0].byte_range.shard
            memory.partial.add(save_partial(store, source.uri, shard, seen, images))
        seen.clear()
        waiting.clear()

    with ShardWriter(store) as shards, Progress("fetching and checking", len(entries)) as bar:
        for one in _ahead(source, entries, max_pixels):
            seen.append(_seen(one, columns))
            bar.advance()
            if not one.entry.archive:
                fetched.add(one.entry.path)
            image_id = one.image_id
            if image_id is None or image_id in memory.images or image_id in waiting:
                continue
            waiting[image_id] = _known(one)
            shards.add(image_id, one.data, one.format, one.entry.label or "")
            if image_id in shards.byte_ranges:  # it filled the shard, which is now in the store
                remember()
        shards.close()
        remember()
    return fetched


def _ahead(source: Source, entries: list[Entry], max_pixels: int) -> Iterator[Fetched]:
    """Results in the order of the entries, a bounded number and size of them ahead."""
    queue: deque[tuple[int, Future[Fetched]]] = deque()
    held = 0
    with ThreadPoolExecutor(THREADS, thread_name_prefix="fetch") as pool:
        try:
            for size, work in _jobs(source, entries, max_pixels):
                while queue and (len(queue) >= AHEAD_ITEMS or held + size > AHEAD_BYTES):
                    done, future = queue.popleft()
                    held -= done
                    yield future.result()
                queue.append((size, pool.submit(work)))
                held += size
            while queue:
                yield queue.popleft()[1].result()
        finally:
            for _, future in queue:
                future.cancel()


def _jobs(
    source: Source, entries: list[Entry], max_pixels: int
) -> Iterator[tuple[int, Callable[[], Fetched]]]:
    """Size and work of each image; archives are read on the way."""
    for entry in entries:
        if entry.archive:
            for member, data in source.unpack(entry, MAX_IMAGE_BYTES):
                if member.fault is not None:
                    raise DataError(
                        f"A label in {source.uri} is not understood",
                        why=clip(member.fault, 1000),
                        fix="Write the label beside each image as name.cls, name.txt or the key "
                        "`label` of name.json, in UTF-8, with no further dots in the name; or name "
                        "the JSON's key in the run file: data.label_column.",
                    )
                yield member.size, partial(_check, member, data, max_pixels)
            yield 0, partial(Fetched, entry)  # comes last: the whole archive was read
        else:
            yield entry.size, partial(_read, source, entry, max_pixels)


def _read(source: Source, entry: Entry, max_pixels: int) -> Fetched:
    if entry.problem is not None:
        return Fetched(entry, reason=entry.problem)
    if entry.size > MAX_IMAGE_BYTES:
        return Fetched(entry, reason="file too large", detail=f"{entry.size:,} bytes")
    try:
        data = source.read(entry)
    except StoreNotFound:
        return Fetched(entry, reason=GONE, detail="it went away after the listing")
    return _check(entry, data, max_pixels)


def _check(entry: Entry, data: bytes, max_pixels: int) -> Fetched:
    if entry.problem is not None:
        return Fetched(entry, reason=entry.problem, detail=entry.detail)
    try:
        image = decode_image(data, max_pixels=max_pixels, value_range=OWN)
    except DataError as error:
        return Fetched(entry, reason=f"not decodable: {error.what}", detail=error.why)
    height, width = image.pixels.shape[:2]
    hashed = picture_hash(image.pixels)
    return Fetched(
        entry=entry,
        data=data,
        image_id=hashlib.sha256(data).hexdigest(),
        width=width,
        height=height,
        format=image.format,
        picture_hash=hashed,
        values=image.values or flat_values(image.pixels, hashed),
        detail=entry.detail,
    )


def _seen(one: Fetched, columns: str) -> Seen:
    entry = one.entry
    if entry.archive:  # its members were read with these columns in mind
        return Seen(entry.path, entry.version, None, detail=columns)
    return Seen(
        path=entry.path,
        version=entry.version,
        image_id=one.image_id,
        reason=one.reason,
        detail=one.detail,
        label=entry.label,
        split=entry.split,
        group=entry.group,
        attributes=entry.attributes,
    )


def _known(one: Fetched) -> Known:
    nowhere = ByteRange("", 0, 0)  # until its shard is closed
    return Known(
        str(one.image_id),
        one.width,
        one.height,
        one.format,
        len(one.data),
        one.picture_hash,
        nowhere,
        one.values,
    )
