"""The form of stored features: what is written is read back, and nothing else is taken for it."""

import hashlib
import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from graftline.errors import SchemaVersionError, StoreNotFound
from graftline.features.parts import (
    DamagedPart,
    IdIndex,
    Part,
    binary_ids,
    decode_part,
    encode_part,
    part_of,
    read_ids,
    sorted_once,
    unique_ids,
)
from graftline.storage import open_store
from graftline.storage.base import ObjectInfo


def content(count: int, dim: int = 3, seed: int = 0):
    generator = np.random.default_rng(seed)
    ids = generator.integers(0, 256, (count, 32), dtype=np.uint8)
    return ids, generator.standard_normal((count, dim)).astype(np.float32)


def named(data: bytes, rows: int) -> Part:
    return Part(f"parts/{hashlib.sha256(data).hexdigest()}-{rows}.parquet", rows, len(data))


@pytest.mark.parametrize("count", [0, 1, 1000])
def test_a_part_gives_back_what_was_written_bit_by_bit(count, tmp_path):
    ids, vectors = content(count)
    if count:
        vectors[0] = [np.float32(1e-45), -0.0, np.finfo(np.float32).max]
    data = encode_part(ids, vectors, {"engine": "torch"})
    part = named(data, count)

    found_ids, found = decode_part(data, part)
    store = open_store(str(tmp_path))
    store.write(part.key, data)

    assert np.array_equal(found_ids, ids)
    assert found.tobytes() == vectors.tobytes()
    assert np.array_equal(read_ids(store, part), ids)


def test_the_same_content_gives_the_same_bytes_and_a_part_can_be_read_by_others():
    ids, vectors = content(10)
    data = encode_part(ids, vectors, {"engine": "torch"})
    assert data == encode_part(ids.copy(), np.asfortranarray(vectors), {"engine": "torch"})
    table = pq.read_table(io.BytesIO(data))
    assert table["image_id"][3].as_py() == ids[3].tobytes()
    assert np.array_equal(np.frombuffer(table["vector"][3].as_py(), "<f4"), vectors[3])
    assert table.schema.metadata[b"engine"] == b"torch"


def test_the_ids_of_a_part_are_read_without_its_vectors(tmp_path):
    ids, vectors = content(500, dim=2000)
    data = encode_part(ids, vectors, {})
    part = named(data, 500)
    store = open_store(str(tmp_path))
    store.write(part.key, data)
    read, plain = [], store.read_range

    def counted(key: str, offset: int, length: int) -> bytes:
        read.append(length)
        return plain(key, offset, length)

    store.read_range = counted
    assert np.array_equal(read_ids(store, part), ids)
    assert sum(read) < len(data) / 10


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_no_flipped_bit_passes_unnoticed_and_none_breaks_the_reader():
    ids, vectors = content(5)
    data = encode_part(ids, vectors, {})
    part = named(data, 5)
    for bit in range(len(data) * 8):
        with pytest.raises(DamagedPart, match="SHA-256"):
            decode_part(flipped(data, bit), part)


def test_a_flipped_bit_is_seen_where_only_the_ids_are_read(tmp_path):
    """Ids carry a checksum of their own; the reader never answers with others than were written."""
    ids, vectors = content(5)
    data = encode_part(ids, vectors, {})
    part, store = named(data, 5), open_store(str(tmp_path))
    at = data.index(ids.tobytes()[:32])
    noticed = 0
    for bit in range(8 * at, 8 * (at + ids.nbytes), 7):
        store.write(part.key, flipped(data, bit))
        with pytest.raises(DamagedPart):
            read_ids(store, part)
        noticed += 1
    assert noticed > 100
    for bit in range(8 * (len(data) - 600), 8 * len(data), 5):  # the footer, which has none
        store.write(part.key, flipped(data, bit))
        try:
            found = read_ids(store, part)
        except (DamagedPart, SchemaVersionError):
            continue
        assert np.array_equal(found, ids)


@pytest.mark.parametrize("kept", [0, 1, 100, -1])
def test_a_part_that_was_cut_short_is_damaged(kept, tmp_path):
    data = encode_part(*content(50), {})
    cut = data[:kept]
    with pytest.raises(DamagedPart):
        decode_part(cut, named(data, 50))
    with pytest.raises(DamagedPart):
        decode_part(cut, named(cut, 50))
    store = open_store(str(tmp_path))
    store.write(named(cut, 50).key, cut)
    with pytest.raises(DamagedPart):
        read_ids(store, named(cut, 50))


def test_what_is_not_parquet_or_not_ours_is_damaged():
    other = io.BytesIO()
    pq.write_table(pa.table({"a": [1, 2]}), other)
    strings = io.BytesIO()
    schema = pa.schema([("image_id", pa.string())], metadata={"schema_version": "1"})
    pq.write_table(pa.table({"image_id": ["x"]}, schema=schema), strings)
    for data in (b"", b"PAR1", b"not parquet" * 50, other.getvalue(), strings.getvalue()):
        with pytest.raises(DamagedPart):
            decode_part(data, named(data, 2))


def test_a_part_with_another_number_of_rows_than_its_name_says_is_damaged():
    data = encode_part(*content(5), {})
    with pytest.raises(DamagedPart, match="not the 6"):
        decode_part(data, named(data, 6))


@pytest.mark.parametrize("version", ["0", "2", "old"])
def test_another_schema_version_is_refused_and_named(version, tmp_path, monkeypatch):
    monkeypatch.setattr("graftline.features.parts.SCHEMA_VERSION", version)
    data = encode_part(*content(5), {})
    monkeypatch.undo()
    part, store = named(data, 5), open_store(str(tmp_path))
    store.write(part.key, data)
    for read in (lambda: decode_part(data, part), lambda: read_ids(store, part)):
        with pytest.raises(SchemaVersionError, match=f"schema version {version}") as caught:
            read()
        assert part.key in str(caught.value)
        assert caught.value.fix


def test_a_part_that_is_gone_is_not_found(tmp_path):
    with pytest.raises(StoreNotFound):
        read_ids(open_store(str(tmp_path)), Part("parts/x.parquet", 1, 100))


def test_an_index_finds_rows_like_a_dictionary_also_where_first_bytes_are_shared():
    ids, _ = content(300)
    ids[100:200, :8] = ids[0, :8]  # a hundred ids share what the index sorts by
    asked = np.concatenate([ids[::-1], content(50, seed=1)[0]])
    asked[-1, :8] = ids[0, :8]  # a stranger among them
    table = {row.tobytes(): number for number, row in enumerate(ids)}
    expected = [table.get(row.tobytes(), -1) for row in asked]
    assert IdIndex(ids).rows(asked).tolist() == expected
    assert IdIndex(np.zeros((0, 32), np.uint8)).rows(asked).tolist() == [-1] * len(asked)


def test_hexadecimal_ids_become_bytes_across_chunks_and_slices():
    ids, _ = content(7)
    text = [row.tobytes().hex() for row in ids]
    chunks = pa.chunked_array([text[:3], [], text[3:]])
    assert np.array_equal(binary_ids(chunks), ids)
    assert np.array_equal(binary_ids(chunks.slice(2, 4)), ids[2:6])
    assert np.array_equal(binary_ids(text), ids)


def test_rows_are_sorted_and_kept_once():
    ids, vectors = content(100)
    order = np.random.default_rng(0).permutation(150) % 100
    found, kept = sorted_once(ids[order], vectors[order])
    expected = sorted(range(100), key=lambda row: ids[row].tobytes())
    assert np.array_equal(found, ids[expected])
    assert np.array_equal(kept, vectors[expected])
    assert np.array_equal(unique_ids(ids[order]), ids[expected])


@pytest.mark.parametrize("name", ["readme.txt", f"{'0' * 64}-x.parquet", f"{'0' * 63}-1.parquet"])
def test_other_files_among_the_parts_are_none(name):
    assert part_of(ObjectInfo(f"parts/{name}", 10, "1")) is None
